"""Tumour regions proposed from a map, against discs and affines that shapely knows by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from napari_her2.errors import JobFailed
from napari_her2.explain.attention import ATTENTION, ATTENTION_RANKS, EVIDENCE
from napari_her2.explain.maps import TISSUE_SHARE, TileMap
from napari_her2.explain.proposal import (
    carried,
    outlined,
    proposed_regions,
    proposing_maps,
    threshold_of,
    within_slide,
)
from napari_her2.slide.grid import TileGrid

GRID = TileGrid((6000, 8000), (0.25, 0.5), 100, 0.5)  # tiles of 200 x 100 level-0 px
CENTRE_TILES = (15.0, 40.0)  # (row, column)


def disc_map(*, inner: float = 0.0, outer: float = 12.0, noise: float = 0.0) -> TileMap:
    """Attention that is high in a ring of tiles, and low all around it."""
    rows, columns = GRID.shape
    y, x = np.mgrid[:rows, :columns] + 0.5
    distance = np.hypot(y - CENTRE_TILES[0], x - CENTRE_TILES[1])
    values = np.where((distance < outer) & (distance >= inner), 1.0, 0.05)
    values += noise * np.random.default_rng(3).random(values.shape)
    return TileMap(ATTENTION, (values / values.sum()).astype(np.float32), GRID)


def disc_px0(radius: float) -> shapely.Polygon:
    """The disc on the slide, (x, y) in level-0 pixels: an ellipse, since pixels are not square."""
    height, width = GRID.tile_px0
    disc = shapely.Point(CENTRE_TILES[1], CENTRE_TILES[0]).buffer(radius, 64)
    return affinity.scale(disc, width, height, origin=(0, 0))


def overlap(first: shapely.Geometry, second: shapely.Geometry) -> float:
    return first.intersection(second).area / first.union(second).area


@pytest.mark.parametrize("share", [None, 0.1])
def test_a_ring_is_proposed_where_it_is_with_its_hole(share: float | None) -> None:
    ring = disc_map(inner=5)
    proposal = proposed_regions(ring, share)  # tiles of one value are proposed together
    true = disc_px0(12) - disc_px0(5)
    (polygon,) = proposal.polygons
    assert len(polygon.interiors) == 1
    assert overlap(polygon, true) > 0.95
    assert polygon.area == pytest.approx(true.area, rel=0.03)
    high = ring.values > ring.values.mean()
    assert proposal.tiles == pytest.approx(high.mean())
    assert proposal.held == pytest.approx(ring.values[high].sum() / ring.values.sum())


def test_noise_moves_the_outline_little() -> None:
    noisy = proposed_regions(disc_map(noise=0.3))
    assert overlap(noisy.polygons[0], disc_px0(12)) > 0.95


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(0.5, 2.0),
    st.booleans(),
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_an_affine_carries_area_and_place(
    degrees: float, scale: float, mirrored: bool, shift: tuple[float, float]
) -> None:
    true = disc_px0(12) - disc_px0(5)
    angle = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        linear = linear @ np.diag([1.0, -1.0])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift  # of (y, x)
    # The same for (x, y), as shapely has it: [a, b, d, e, xoff, yoff].
    swapped = linear[::-1, ::-1]
    by_shapely = [*swapped.ravel(), shift[1], shift[0]]
    (polygon,) = proposed_regions(disc_map(inner=5)).polygons
    (there,) = carried([polygon], matrix)
    assert there.area == pytest.approx(polygon.area * scale**2, rel=1e-9)
    assert overlap(there, affinity.affine_transform(polygon, by_shapely)) == pytest.approx(1, abs=1e-9)
    assert overlap(there, affinity.affine_transform(true, by_shapely)) > 0.95
    assert len(there.interiors) == 1


def test_a_share_takes_the_highest_tiles_but_none_against() -> None:
    values = np.array([0.4, 0.3, 0.2, 0.1, np.nan, -5.0])
    for share, taken in ((0.01, 1), (0.2, 1), (0.4, 2), (0.6, 3), (0.8, 4), (1.0, 4)):
        assert (values > threshold_of(values, share)).sum() == taken, share
    with pytest.raises(JobFailed, match="at most 1"):
        threshold_of(values, 1.5)


def test_weights_of_a_softmax_are_split_by_their_scores() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 700), rng.normal(8, 1, 300)])
    weights = np.exp(scores) / np.exp(scores).sum()
    high = weights > threshold_of(weights)
    assert high[700:].mean() > 0.99  # by the weights themselves a few tiles would be all
    assert high[:700].mean() < 0.01


def test_otsu_splits_where_the_variance_between_the_parts_is_greatest() -> None:
    values = np.concatenate([np.linspace(0, 1, 500), np.linspace(3, 4, 200)])

    def between(cut: float) -> float:
        low, high = values[values <= cut], values[values > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(cut) for cut in np.linspace(0.01, 3.99, 400))
    assert between(threshold_of(values)) == pytest.approx(best, rel=1e-6)


def test_evidence_against_and_what_was_not_scored_are_never_proposed() -> None:
    values = np.full(GRID.shape, -3.0, np.float32)
    values[:15, :40] = -1.0  # less against, and still against
    values[20:28, 10:30] = 2.0
    values[20:28, 20:22] = np.nan
    proposal = proposed_regions(TileMap(EVIDENCE, values, GRID, "3+"))
    height, width = GRID.tile_px0
    assert proposal.threshold >= 0
    assert [of.bounds for of in proposal.polygons] == [
        pytest.approx((22 * width, 20 * height, 30 * width, 28 * height), abs=0.05 * height)
        if at
        else pytest.approx((10 * width, 20 * height, 20 * width, 28 * height), abs=0.05 * height)
        for at in (0, 1)
    ]
    with pytest.raises(JobFailed, match="no place that stands out"):
        proposed_regions(TileMap(EVIDENCE, np.full(GRID.shape, -2.0, np.float32), GRID, "3+"))


def test_specks_go_pinholes_close_and_the_edge_of_the_slide_stays() -> None:
    high = np.zeros((30, 40), bool)
    high[0:12, 0:20] = True
    high[5, 5] = False  # a pinhole
    high[20, 30] = high[25:27, 5] = True  # specks
    (polygon,) = outlined(high)
    assert not polygon.interiors
    assert overlap(polygon, shapely.box(0, 0, 20, 12)) > 0.97
    assert polygon.bounds == pytest.approx((0, 0, 20, 12), abs=0.05)
    assert outlined(np.zeros((5, 5), bool)) == []


def test_everything_is_the_whole_grid() -> None:
    (polygon,) = outlined(np.ones((10, 12), bool))
    assert polygon.area == pytest.approx(120, rel=0.03)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((30, 80), 0.25), "no place that stands out"),
        (np.full((30, 80), np.nan), "no place that stands out"),
        (np.where(np.arange(2400).reshape(30, 80) == 1000, 1.0, 0.0), "Only single tiles"),
    ],
)
def test_a_map_that_outlines_nothing_is_refused_in_words(values: np.ndarray, words: str) -> None:
    with pytest.raises(JobFailed, match=words):
        proposed_regions(TileMap(ATTENTION, values.astype(np.float32), GRID))


def test_what_lies_beside_the_slide_is_cut_off_and_said() -> None:
    kept, beside = within_slide([shapely.box(-50, 10, 150, 110), shapely.box(300, 0, 400, 50)], (100, 200))
    assert [part.bounds for part in kept] == [(0, 10, 150, 100)]
    assert beside == pytest.approx(1 - 13_500 / 25_000)
    with pytest.raises(JobFailed, match="align the two slides"):
        within_slide([shapely.box(300, 0, 400, 50)], (100, 200))


def test_only_measured_maps_that_are_shown_propose() -> None:
    attention = disc_map()
    ranks = replace(attention, info=ATTENTION_RANKS)
    tissue = replace(attention, info=TISSUE_SHARE)
    classes = replace(attention, info=ATTENTION.of_categories(["0", "1+"]))
    empty = replace(attention, values=np.full(GRID.shape, np.nan, np.float32))
    evidence = replace(attention, info=EVIDENCE, class_name="3+")
    assert proposing_maps([tissue, ranks, attention, classes, empty, evidence]) == [attention, evidence]
