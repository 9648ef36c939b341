"""Maps of an attention model, against the numbers they are painted from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import percentileofscore, rankdata

from napari_her2.explain.attention import attention_maps, attention_ranks
from napari_her2.explain.maps import average_ranks
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.slide.grid import TileGrid

CLASSES = ("0", "1+", "2+", "3+")
GRID = TileGrid((1000, 1400), (0.25, 0.25), tile_px=96, mpp=0.5)


@pytest.fixture
def index():
    return np.array([[0, 1], [2, 3], [4, 6], [2, 2]])


@pytest.fixture
def head():
    torch.manual_seed(2)
    return AttentionMIL(8, 4, 4).double()


@pytest.fixture
def bag():
    return torch.rand(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_each_tile_stands_where_it_was_read(head, bag, index):
    output = head(bag)
    attention, *evidence = attention_maps(GRID, index, output, CLASSES)
    assert attention.values.shape == GRID.shape == (5, 7)
    assert np.isfinite(attention.values).sum() == 4
    for (row, col), weight, votes in zip(index, output.attention, output.evidence, strict=True):
        assert attention.values[row, col] == pytest.approx(weight.item(), rel=1e-6)
        assert [m.values[row, col] for m in evidence] == pytest.approx(votes.tolist(), rel=1e-6)
    assert [m.class_name for m in evidence] == list(CLASSES)
    assert [m.name for m in evidence] == ["evidence 0", "evidence 1+", "evidence 2+", "evidence 3+"]


def test_evidence_map_adds_up_to_the_logit(head, bag, index):
    output = head(bag)
    _, *evidence = attention_maps(GRID, index, output, CLASSES)
    total = [np.nanmean(m.values.astype(np.float64)) for m in evidence]
    np.testing.assert_allclose(
        total + head.classifier.bias.detach().numpy(), output.logits.detach(), atol=1e-6
    )
    assert np.nansum(attention_maps(GRID, index, output, CLASSES)[0].values) == pytest.approx(1)


def test_tiles_outside_the_region_stay_empty(head, bag, index):
    output = head(bag, torch.tensor([True, False, True, True]))
    for tile_map in (*attention_maps(GRID, index, output, CLASSES), attention_ranks(GRID, index, output)):
        assert np.isnan(tile_map.values[2, 3])
        assert np.isfinite(tile_map.values).sum() == 3


def test_ranks_tell_tiles_apart_whose_weights_vanish(head, index):
    scores = torch.tensor([-500.0, -400.0, 0.0, -400.0])
    output = head.pool(scores, torch.zeros(4, 4))
    assert output.attention[0] == output.attention[1] == 0
    ranks = attention_ranks(GRID, index, output)
    expected = [percentileofscore(scores, s, kind="mean") / 100 + 1 / 8 for s in scores.tolist()]
    assert [ranks.values[row, col] for row, col in index] == pytest.approx(expected)
    assert ranks.unit == "percentile"


def test_ranks_agree_with_those_of_the_weights(head, bag, index):
    output = head(bag)
    attention = attention_maps(GRID, index, output, CLASSES)[0]
    np.testing.assert_allclose(attention_ranks(GRID, index, output).values, attention.percentile().values)


def test_words_do_not_promise_her2(head, bag, index):
    attention, *evidence = attention_maps(GRID, index, head(bag), CLASSES)
    assert attention.description.startswith("Regions the model used, not regions that are HER2-positive")
    assert "3+" in evidence[3].description


def test_empty_bag_gives_empty_maps(head):
    output = head(torch.zeros(0, 8, dtype=torch.float64))
    for tile_map in attention_maps(GRID, np.zeros((0, 2), np.int64), output, CLASSES):
        assert np.isnan(tile_map.values).all()


@given(st.lists(st.floats(-5, 5, width=16), max_size=40))
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    given_values = np.array(values, np.float32)
    np.testing.assert_array_equal(average_ranks(given_values), rankdata(given_values))
