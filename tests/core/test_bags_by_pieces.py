"""Bags too large for the matrices of a head are scored by pieces: the numbers are those of smaller ones."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from napari_her2.models import nystrom_scoring, nystrom_streaming, transmil_streaming
from napari_her2.models.transmil import TransMIL
from napari_her2.models.wsmcl import WSMCL

NEAR = {"atol": 1e-10, "rtol": 1e-9}


@pytest.fixture
def by_pieces(monkeypatch):
    """From now on every bag is too large, and a piece a few tiles."""

    def begin(piece: int) -> None:
        monkeypatch.setattr(nystrom_scoring, "MOST_VALUES", 0)
        monkeypatch.setattr(nystrom_streaming, "PIECE", piece)
        monkeypatch.setattr(transmil_streaming, "PIECE", piece)
        monkeypatch.setattr(transmil_streaming, "CHANNELS", 5)

    return begin


def bag(tiles: int, width: int = 9) -> torch.Tensor:
    return 2 * torch.randn(tiles, width, dtype=torch.float64, generator=torch.Generator().manual_seed(tiles))


@pytest.mark.parametrize(("tiles", "piece"), [(17, 100), (64, 16), (65, 16), (203, 7), (203, 50)])
def test_a_slide_of_a_pair_by_pieces_is_the_slide_as_a_whole(tiles, piece, by_pieces) -> None:
    torch.manual_seed(1)
    model = WSMCL(he_features=9, ihc_features=9, width=12, heads=3, landmarks=8, classes=4, k=6)
    model = model.double().eval()
    with torch.inference_mode():
        wanted = model(bag(tiles)).he
        by_pieces(piece)
        found = model(bag(tiles)).he
    for of in fields(found):
        one, other = getattr(found, of.name), getattr(wanted, of.name)
        if other is not None:
            torch.testing.assert_close(one, other, **NEAR, msg=of.name)


@pytest.mark.parametrize(("tiles", "piece"), [(17, 100), (64, 16), (65, 16), (203, 7), (203, 50)])
def test_a_bag_of_transmil_by_pieces_is_the_bag_as_a_whole(tiles, piece, by_pieces) -> None:
    torch.manual_seed(2)
    model = TransMIL(features=9, width=12, heads=3, landmarks=8, classes=4).double().eval()
    with torch.inference_mode():
        parts = model.tiles(bag(tiles))
        before = parts[0].clone()
        wanted = model.of_tiles(*parts)
        by_pieces(piece)
        found = model.of_tiles(*parts)
    torch.testing.assert_close(found.logits, wanted.logits, **NEAR)
    torch.testing.assert_close(found.scores, wanted.scores, **NEAR)
    torch.testing.assert_close(found.attention, wanted.attention, **NEAR)
    assert torch.equal(parts[0], before)


def test_a_bag_that_is_learnt_from_is_never_taken_to_pieces(by_pieces) -> None:
    by_pieces(4)
    model = WSMCL(he_features=9, ihc_features=9, width=12, heads=3, landmarks=8, classes=4, k=6)
    assert model(bag(40).float()).he.logits.requires_grad
    faithful = WSMCL(he_features=9, ihc_features=9, width=12, heads=3, landmarks=8, classes=4, faithful=True)
    with torch.inference_mode():
        assert not faithful.he.attend.too_large(torch.zeros(40, 12))
        assert model.he.attend.too_large(torch.zeros(40, 12))


@pytest.mark.parametrize("kind", ["slide", "bag"])
def test_keys_far_from_the_first_ones_do_not_overflow(kind, by_pieces) -> None:
    """A softmax over pieces is rescaled whenever a larger key comes."""
    torch.manual_seed(3)
    growing = bag(120).float() * torch.linspace(0.01, 300, 120)[:, None]
    if kind == "slide":
        model = WSMCL(he_features=9, ihc_features=9, width=12, heads=3, landmarks=8, classes=4, k=6).eval()
    else:
        model = TransMIL(features=9, width=12, heads=3, landmarks=8, classes=4).eval()
    with torch.inference_mode():
        wanted = model(growing).logits
        by_pieces(11)
        torch.testing.assert_close(model(growing).logits, wanted, atol=2e-4, rtol=1e-3)
