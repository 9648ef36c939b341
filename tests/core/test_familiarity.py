"""Distances and familiarity, against independent computations of scikit-learn and SciPy and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import lognorm
from sklearn.neighbors import NearestNeighbors

from doubt_by_hand import space
from napari_her2.errors import ModelError
from napari_her2.models.familiarity import NEIGHBOURS, TILE_COUNTS, Familiarity, FeatureSpace


def tiles(count, of, seed=0, spread=2.0):
    """Tiles around the mean of a space."""
    return (of.mean + spread * np.random.default_rng(seed).normal(size=(count, len(of.mean)))).astype(
        np.float32
    )


def test_distances_are_those_to_the_nearest_representative_in_all_dimensions():
    # With a reach of 1, in coordinates where what lies outside has its own axes, it is a plain distance.
    of = replace(space(dim=20, directions=6), reach=np.ones(10, np.float32))
    given_tiles = tiles(50, of).astype(np.float64)
    rows = of.components.astype(np.float64)
    inside = (given_tiles - of.mean) @ rows.T
    outside = (given_tiles - of.mean - inside @ rows) / of.rest
    own = np.hstack([inside / of.scale, outside])
    known = np.hstack([of.references, np.zeros((10, 20))])
    wanted = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(own)[0][:, 0] / of.tile_limit
    np.testing.assert_allclose(of.distances(given_tiles.astype(np.float32)), wanted, rtol=1e-4)


def test_a_reach_measures_distances_in_its_own_units():
    of = space(dim=20)
    one = FeatureSpace(
        **{name: getattr(of, name) for name in ("mean", "components", "scale", "rest", "slides", "whole")},
        references=of.references[:1],
        reach=np.float32([1.0]),
        tile_limit=of.tile_limit,
    )
    far = replace(one, reach=np.float32([4.0]))
    np.testing.assert_allclose(one.distances(tiles(9, of)), 4 * far.distances(tiles(9, of)), rtol=1e-5)


def test_many_tiles_at_once_are_measured_as_each_alone():
    of = space(dim=12)
    many = tiles(5000, of)
    np.testing.assert_allclose(
        of.distances(many)[[0, 4095, 4096, 4999]], of.distances(many[[0, 4095, 4096, 4999]]), rtol=1e-5
    )


def test_a_slide_as_a_whole_is_compared_with_the_training_slides_nearest_to_it():
    of = space(dim=16)
    slide = tiles(40, of, spread=0.3)
    mean = of.whitened(slide).astype(np.float64).mean(axis=0) @ of.whole.turn
    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(of.whole.places).kneighbors(mean[None])[0]
    assert of.whole.distance(of.whitened(slide.mean(axis=0))) == pytest.approx(near.mean(), rel=1e-4)


def known_slides(count, seed=0, sd=0.3, numbers=2):
    return np.exp(np.random.default_rng(seed).normal(0, sd, (count, numbers))).astype(np.float32)


def test_with_very_many_slides_familiarity_is_the_share_beyond():
    of = replace(space(dim=8), slides=known_slides(20_000), whole=None)
    for value in (0.5, 1.0, 1.5, 2.5):
        whole, upper = of.familiarity(np.full(30, value))
        assert whole == pytest.approx(lognorm(s=0.3).sf(value), abs=0.01)
        assert upper == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize("count", [3, 8, 32])
def test_as_many_slides_are_called_strange_as_the_limit_says(count):
    rng = np.random.default_rng(count)
    of, wrong, runs = space(dim=8), 0, 3000
    for _ in range(runs):
        known = np.exp(rng.normal(0, 0.3, (count, 2)))
        one = replace(of, slides=known.astype(np.float32), whole=None)
        wrong += one.familiarity(np.full(5, np.exp(rng.normal(0, 0.3))))[0] < 0.05
    assert wrong / runs == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / runs))


def test_a_slide_is_judged_by_validation_slides_of_as_many_tiles():
    of = space(dim=8)
    known = of.whole.known.copy()
    for level in range(len(TILE_COUNTS)):
        known[:, level] = known_slides(8, seed=1, sd=0.1, numbers=3) * 2.0**level
    of = replace(of, whole=replace(of.whole, known=known))
    slide = tiles(300, of)
    for count in (1, 2, 3, 4, 200, 256, 300):
        own = of.distances(slide[:count])
        level = max(at for at, least in enumerate(TILE_COUNTS) if least <= count)
        upper = np.quantile(own, 0.9) / np.median(known[:, level, 2])
        assert of.times(own, slide[:count])[1] == pytest.approx(upper, rel=1e-4)


def test_the_stranger_of_tiles_and_whole_decides_and_looking_twice_is_no_reason():
    of = space(dim=8)
    alone = replace(of, slides=of.whole.known[:, -1, 1:], whole=None)
    slide = tiles(300, of)
    own = of.distances(slide)
    by_tiles = alone.familiarity(own)[0]
    by_whole = replace(of, whole=replace(of.whole, known=of.whole.known * [1, 1e6, 1])).familiarity(
        own, slide
    )[0]
    assert of.familiarity(own, slide)[0] == pytest.approx(min(2 * by_tiles, by_whole, 1.0))


def test_too_few_validation_slides_say_nothing():
    of = space(dim=8)
    slide = tiles(20, of)
    few = replace(of, slides=of.slides[:2], whole=replace(of.whole, known=of.whole.known[:2]))
    assert all(math.isnan(value) for value in few.familiarity(few.distances(slide), slide))
    assert all(math.isnan(value) for value in few.familiarity(few.distances(slide)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_what_is_described_by_no_numbers_is_unlike_everything(value):
    of = space(dim=8)
    slide = tiles(20, of)
    slide[:] = value
    distances = of.distances(slide)
    assert np.isfinite(distances).all()
    assert distances.min() > 1e6
    assert of.familiarity(distances, slide)[0] < 1e-3


def test_features_of_another_model_are_refused_in_words():
    with pytest.raises(ModelError, match=r"by 8 values, the slide has features of shape \(4, 9\)"):
        space(dim=8).distances(np.zeros((4, 9), np.float32))


def test_spaces_are_found_by_stain():
    one, other = space(dim=4), space(dim=5)
    known = Familiarity({("H&E", "features"): one, ("IHC", "features"): other})
    assert known.of("H&E") == {"features": one}
    assert known.of("other") == {}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 20), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_farther_is_never_more_familiar(dim, count, slides, seed, scale):
    of = space(dim=dim + 6, slides=slides + 3, seed=seed)
    slide = tiles(count, of, seed) * np.float32(scale)
    distances = of.distances(slide)
    assert np.isfinite(distances).all()
    assert (distances >= 0).all()
    near, far = of.familiarity(distances), of.familiarity(2 * distances)
    for one, other in zip(near, far, strict=True):
        assert 0 <= other <= one <= 1
    assert all(0 <= value <= 1 for value in of.familiarity(distances, slide))
