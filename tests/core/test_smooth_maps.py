"""Maps of overlapping tiles: each square is the mean over the tiles that cover it, worked out another way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass
from scipy.stats import rankdata

from napari_her2.errors import JobFailed
from napari_her2.explain.findings import Findings, tile_maps
from napari_her2.explain.smooth import TileSet, smooth_maps
from napari_her2.inference.options import OVERLAPS, ScoringOptions, parts_of
from napari_her2.inference.overlapping import shifts_of
from napari_her2.models.aggregator import MILOutput
from napari_her2.slide.grid import TileGrid

if TYPE_CHECKING:
    from napari_her2.explain.maps import TileMap

CLASSES = ("0", "1+", "2+")


def found_in(count: int, rng: np.random.Generator, *, weighed: bool, scored: bool) -> Findings:
    """Random findings of tiles, of one kind of model or another."""
    scores = torch.from_numpy(rng.integers(-3, 4, count).astype(np.float32))  # with ties
    attention = torch.from_numpy(rng.random(count).astype(np.float32))
    evidence = None if scored else torch.from_numpy(rng.normal(size=(count, 3)).astype(np.float32))
    output = MILOutput(torch.zeros(3), scores, attention, evidence) if weighed else None
    if not scored:
        return Findings(output)
    chances = torch.softmax(torch.from_numpy(rng.normal(size=(count, 3))), dim=1)
    return Findings(output, chances, torch.from_numpy(rng.random(count)) if weighed else None)


@st.composite
def overlapping(draw: st.DrawFn, parts: st.SearchStrategy[int]) -> tuple[list[TileSet], int]:
    """Tiles of all shifts on a small slide, some of them missing, with what was found in them."""
    count = draw(parts)
    shape = draw(st.tuples(st.integers(130, 420), st.integers(130, 420)))
    mpp = draw(st.sampled_from([(0.5, 0.5), (0.25, 0.26), (0.3, 0.3)]))
    plain = TileGrid(shape, mpp, tile_px=draw(st.sampled_from([32, 45])), mpp=0.5)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    weighed, scored = draw(st.sampled_from([(True, False), (True, True), (False, True)]))
    sets = []
    for y in range(count):
        for x in range(count):
            grid = plain.shifted((y / count, x / count))
            keep = rng.random(grid.shape) < 0.7
            if not sets:
                keep[0, 0] = True
            index = np.argwhere(keep)
            sets.append(TileSet(grid, index, found_in(len(index), rng, weighed=weighed, scored=scored)))
    return sets, count


def by_hand(sets: list[TileSet], made: TileMap, values: list[np.ndarray]) -> np.ndarray:
    """Mean of values over the tiles around the centre of each square, by their places in µm alone."""
    expected = np.full(made.grid.shape, np.nan)
    boxes = [[of.grid.bounds_um(*at) for at in of.index.tolist()] for of in sets]
    for row, col in np.ndindex(*made.grid.shape):
        y0, x0, y1, x1 = made.grid.bounds_um(row, col)
        y, x = (y0 + y1) / 2, (x0 + x1) / 2
        around = [
            value
            for own, places in zip(values, boxes, strict=True)
            for value, (top, left, bottom, right) in zip(own, places, strict=True)
            if top < y < bottom and left < x < right
        ]
        if around:
            expected[row, col] = np.mean(around)
    return expected


@settings(max_examples=25, deadline=None)
@given(overlapping(st.integers(1, 3)))
def test_each_square_is_the_mean_over_the_tiles_that_cover_it(case: tuple[list[TileSet], int]) -> None:
    sets, parts = case
    maps = {(of.kind, of.info.scale, of.class_name): of for of in smooth_maps(sets, parts, CLASSES)}
    found = [of.found for of in sets]
    if found[0].output is not None:
        attention = maps["attention", "raw", None]
        expected = by_hand(sets, attention, [of.output.attention.numpy() for of in found])
        np.testing.assert_allclose(attention.values, expected, rtol=1e-5)
        scores = np.concatenate([of.output.scores.numpy() for of in found])
        ends = np.cumsum([len(of.index) for of in sets])[:-1]
        ranks = maps["attention", "percentile", None]
        expected = by_hand(sets, ranks, np.split(rankdata(scores) / len(scores), ends))
        np.testing.assert_allclose(ranks.values, expected, rtol=1e-5)
    for number, name in enumerate(CLASSES):
        if found[0].probabilities is None:
            values = [of.output.evidence[:, number].numpy() for of in found]
            made = maps["evidence", "raw", name]
        else:
            values = [of.probabilities[:, number].numpy() for of in found]
            made = maps["probability", "raw", name]
        np.testing.assert_allclose(made.values, by_hand(sets, made, values), rtol=1e-5, atol=1e-7)
    if found[0].probabilities is not None:
        each = np.stack([maps["probability", "raw", name].values for name in CLASSES])
        best = np.where(np.isnan(each[0]), np.nan, np.nan_to_num(each).argmax(axis=0))
        np.testing.assert_array_equal(maps["score", "raw", None].values, best)
    if found[0].confidence is not None:
        sure = maps["confidence", "raw", None]
        expected = by_hand(sets, sure, [of.confidence.numpy() for of in found])
        np.testing.assert_allclose(sure.values, expected, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(overlapping(st.just(1)))
def test_without_overlap_the_map_is_that_of_the_tiles(case: tuple[list[TileSet], int]) -> None:
    (only,), parts = case
    plain = tile_maps(only.grid, only.index, only.found, CLASSES)
    made = smooth_maps([only], parts, CLASSES)
    assert [of.name for of in made] == [of.name for of in plain]
    for own, other in zip(made, plain, strict=True):
        assert own.grid == other.grid
        assert own.values.tobytes() == other.values.tobytes()


@pytest.mark.parametrize("overlap", OVERLAPS[1:])
def test_a_single_hot_tile_is_where_it_lies_on_the_slide(overlap: float) -> None:
    # Napari places a map by scale and translate: its centre of mass has to be the centre of the tile.
    grid = TileGrid((4000, 3000), (0.25, 0.25), tile_px=96, mpp=0.5)
    parts = parts_of(overlap)
    sets = []
    for shift in ((0.0, 0.0), *shifts_of(overlap)):
        own = grid.shifted(shift)
        index = np.argwhere(np.ones(own.shape, bool))
        hot = (index == (7, 4)).all(axis=1) & (shift == (0.0, 0.5))
        sets.append(TileSet(own, index, of_attention(hot.astype(np.float32))))
    made = next(of for of in smooth_maps(sets, parts, CLASSES) if of.info.scale == "raw")
    middle = np.array(center_of_mass(made.values))
    place_um = middle * made.grid.layer_scale + made.grid.layer_translate
    # Tile (7, 4) of the grid shifted by half a tile begins 7 and 4.5 tiles of 192 px from the corner of the
    # slide, whose first pixel has its centre at 0 µm.
    expected = (np.array([7, 4.5]) * 192 + 191 / 2) * 0.25
    np.testing.assert_allclose(place_um, expected, atol=1e-9)
    assert np.isfinite(made.values).all()
    assert np.nanmax(made.values) == pytest.approx(1 / parts**2)
    assert (made.values > 0).sum() == parts**2


def of_attention(values: np.ndarray) -> Findings:
    weights = torch.from_numpy(values)
    return Findings(MILOutput(torch.zeros(3), weights, weights))


def test_shifted_sets_that_were_weighed_apart_are_named_so() -> None:
    grid = TileGrid((400, 400), (0.5, 0.5), tile_px=96, mpp=0.5)
    index = np.array([[0, 0]])
    apart = MILOutput(torch.zeros(3), torch.ones(1), torch.ones(1), apart=True)
    together = TileSet(grid, index, of_attention(np.ones(1, np.float32)))
    other = TileSet(grid.shifted((0.5, 0.5)), index, Findings(apart))
    alone, both = smooth_maps([together], 2, CLASSES)[0], smooth_maps([together, other], 2, CLASSES)[0]
    assert "weighed as a slide of its own" in both.description
    assert "weighed as a slide of its own" not in alone.description
    assert "overlapping tiles" in alone.description
    assert alone.info.layer_name.endswith(", smooth")


def test_what_is_listed_and_outlined_stays_that_of_the_tiles() -> None:
    grid = TileGrid((400, 400), (0.5, 0.5), tile_px=96, mpp=0.5)
    made = smooth_maps([TileSet(grid, np.array([[1, 1]]), of_attention(np.ones(1, np.float32)))], 2, CLASSES)
    for of in made:
        assert (of.info.exported, of.info.words, of.info.outlined, of.info.ranking) == (None,) * 4


def test_shifts_are_all_parts_but_none() -> None:
    assert shifts_of(0.0) == ()
    assert shifts_of(0.5) == ((0.0, 0.5), (0.5, 0.0), (0.5, 0.5))
    assert len(set(shifts_of(0.75))) == 15
    assert set(shifts_of(0.5)) < set(shifts_of(0.75))  # so that what is kept of one serves the other


@pytest.mark.parametrize("overlap", [0.3, -0.5, 1.0, float("nan")])
def test_other_overlaps_are_refused_in_words(overlap: float) -> None:
    with pytest.raises(JobFailed, match=r"0, 0\.5 or 0\.75"):
        ScoringOptions(overlap=overlap)
