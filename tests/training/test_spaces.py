"""Spaces fitted to slides, against scikit-learn, and what becomes of odd slides."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from napari_her2.errors import JobFailed
from napari_her2_training.doubt.spaces import LimitsMissing, fit_space


def slides(count, *, tiles=30, dim=24, seed=0, shift=0.0, between=0.5, noise=1.0):
    """Slides whose tiles lie around a place of their own, in few directions of many."""
    rng = np.random.default_rng(seed)
    turn = np.random.default_rng(99).normal(size=(5, dim))
    return [
        (
            (rng.normal(0, between, 5) + rng.normal(size=(tiles, 5))) @ turn
            + noise * 0.1 * rng.normal(size=(tiles, dim))
            + shift
        ).astype(np.float32)
        for _ in range(count)
    ]


def arrays(space):
    parts = ((space, ""), (space.whole, "whole."))
    found = {prefix + item.name: getattr(part, item.name) for part, prefix in parts for item in fields(part)}
    return {name: values for name, values in found.items() if name != "whole"}


def test_directions_are_those_of_principal_component_analysis():
    train = slides(20)
    space = fit_space(train, slides(8, seed=1), seed=0)
    pca = PCA(svd_solver="full").fit(np.concatenate(train))  # as many tiles a slide: each weighs as much
    np.testing.assert_allclose(space.mean, pca.mean_, atol=1e-5)
    kept = 5  # the others are noise, of which the order is chance
    np.testing.assert_allclose(space.scale[:kept], np.sqrt(pca.explained_variance_[:kept]), rtol=2e-3)
    alike = np.abs((space.components[:kept] * pca.components_[:kept]).sum(axis=1))
    np.testing.assert_allclose(alike, 1, atol=1e-3)


def test_each_slide_weighs_as_much_as_any_other():
    one, other = slides(2, tiles=40, between=5)
    space = fit_space([one, other[:3]], slides(8, seed=1), seed=0)
    np.testing.assert_allclose(space.mean, (one.mean(axis=0) + other[:3].mean(axis=0)) / 2, atol=1e-4)


def test_same_slides_give_the_same_space():
    one, again = (fit_space(slides(10), slides(5, seed=1), seed=3) for _ in range(2))
    for name, values in arrays(one).items():
        np.testing.assert_array_equal(values, arrays(again)[name])


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (slides(1, tiles=2), slides(3, seed=1)),
        (slides(6, tiles=1), slides(3, tiles=1, seed=1)),
        (slides(4, tiles=2, dim=500), slides(4, dim=500, seed=1)),
        (
            [np.full((9, 4), 2.5, np.float32) + np.eye(9, 4, dtype=np.float32)[:, :1]],
            slides(3, dim=4, seed=1),
        ),
        ([*slides(4), np.empty((0, 24), np.float32)], [*slides(3, seed=1), np.empty((0, 24), np.float32)]),
    ],
    ids=["one slide", "slides of one tile", "fewer tiles than values", "constant features", "empty slides"],
)
def test_few_or_flat_slides_still_give_a_space(train, validation):
    space = fit_space(train, validation, seed=0)
    assert all(np.isfinite(values).all() for values in arrays(space).values())
    assert space.scale.min() > 0
    assert space.rest > 0
    assert space.tile_limit > 0
    assert len(space.slides) == sum(len(slide) > 0 for slide in validation)


def test_too_few_slides_or_tiles_that_are_all_the_same_give_no_space():
    with pytest.raises(LimitsMissing, match="5 training and 2 validation slides"):
        fit_space(slides(5), slides(2, seed=1), seed=0)
    with pytest.raises(LimitsMissing, match="0 training"):
        fit_space([], slides(5), seed=0)
    same = [np.ones((5, 3), np.float32)] * 4
    with pytest.raises(LimitsMissing, match="all the same"):
        fit_space(same, same, seed=0)


def test_values_that_are_not_numbers_and_other_lengths_are_refused():
    odd = slides(5)
    odd[2][3, 4] = np.nan
    with pytest.raises(JobFailed, match=r"training slide number 3 .* not numbers"):
        fit_space(odd, slides(3, seed=1), seed=0)
    with pytest.raises(JobFailed, match=r"validation slide number 3 .* not numbers"):
        fit_space(slides(3), odd, seed=0)
    with pytest.raises(JobFailed, match="24 and 25 values"):
        fit_space(slides(3), slides(3, dim=25), seed=0)


def test_reach_is_how_far_the_nearest_tiles_of_other_slides_lie():
    train = slides(12, tiles=10)
    space = fit_space(train, slides(5, seed=1), seed=0)
    places = np.concatenate([space.whitened(slide) for slide in train])
    slide = np.repeat(np.arange(12), 10)
    rest = np.concatenate(train) - space.mean
    rest = rest - rest @ space.components.T @ space.components
    outside = (rest**2).sum(axis=1) / space.rest**2
    for reference, reach in zip(space.references, space.reach, strict=True):
        own = slide[((places - reference) ** 2).sum(axis=1).argmin()]
        apart = ((places - reference) ** 2).sum(axis=1) + outside
        nearest = np.sort(apart[slide != own])[:5]
        np.testing.assert_allclose(reach, np.sqrt(nearest.mean()), rtol=0.02)


def test_slides_of_a_kind_that_varies_more_are_no_stranger_than_others():
    def both(seed):  # half of them vary three times as much, elsewhere
        wide = [3 * slide + 40 for slide in slides(15, seed=seed)]
        return [*slides(15, seed=seed + 1), *wide]

    space = fit_space(both(1), both(3), seed=0)
    narrow, wide = space.slides[:15, 0], space.slides[15:, 0]
    assert 0.6 < np.median(wide) / np.median(narrow) < 1.6


def test_slides_as_wholes_are_apart_by_a_shrunk_mahalanobis_distance():
    train = slides(30, tiles=20)
    space = fit_space(train, slides(5, seed=1), seed=0)
    means = np.stack([space.whitened(slide).astype(np.float64).mean(axis=0) for slide in train])
    known = LedoitWolf().fit(means)
    for one, other in ((0, 1), (4, 17)):
        apart = means[one] - means[other]
        wanted = apart @ known.precision_ @ apart
        found = ((space.whole.places[one] - space.whole.places[other]) ** 2).sum()
        assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("validated", [32, 200])
def test_of_unseen_slides_of_the_same_kind_few_are_called_unlike(validated):
    space = fit_space(slides(40, tiles=20), slides(validated, tiles=20, seed=1), seed=0)
    unseen = slides(80, tiles=20, seed=2)
    shares = [space.familiarity(space.distances(slide), slide)[0] for slide in unseen]
    # Of two spaces the stranger decides, times two: each may call half of 1 % unlike.
    assert np.mean(np.array(shares) < 0.005) <= 0.05
    few = [space.familiarity(space.distances(slide[:2]), slide[:2])[0] for slide in unseen]
    assert np.mean(np.array(few) < 0.005) <= 0.05
