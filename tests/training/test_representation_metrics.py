"""Correlation of representations with IHC against scipy and scikit-image, and the paired test by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from skimage.color import combine_stains, rgb2gray, rgb_from_hed

from napari_her2.errors import JobFailed
from napari_her2_training.corr_a_net.representation_metrics import (
    channel_correlations,
    compare_paired,
    dab_density,
    luminance,
    mean_correlations,
)


def maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shared", [True, False])
def test_correlations_equal_those_of_scipy(shared):
    here = maps(3, 4, 9, 11)
    there = maps(3, 1 if shared else 4, 9, 11, seed=1) + 0.3 * here.mean(1, keepdim=True)
    found = channel_correlations(here, there)
    wanted = [
        [
            pearsonr(here[b, c].double().ravel(), there[b, 0 if shared else c].double().ravel()).statistic
            for c in range(4)
        ]
        for b in range(3)
    ]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    np.testing.assert_allclose(mean_correlations(here, there), np.abs(wanted).mean(1), rtol=1e-9)


def test_a_map_correlates_fully_with_itself_and_its_inverse_at_any_scale():
    here = maps(2, 1, 8, 8).double()
    for scale in (1e-12, 1.0, 1e5):
        assert channel_correlations(here, here * scale + 0.5).numpy() == pytest.approx(1, abs=1e-3)
        assert channel_correlations(here * scale, -here).numpy() == pytest.approx(-1, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_a_constant_channel_correlates_with_nothing(value):
    here = maps(1, 2, 16, 16)
    here[:, 0] = value
    reference = maps(1, 1, 16, 16, seed=3)
    found = channel_correlations(here, reference)
    assert found[0, 0] == 0
    assert found[0, 1] != 0
    assert channel_correlations(here, torch.full_like(reference, value)).tolist() == [[0, 0]]


def test_the_sign_of_a_channel_does_not_cancel_another():
    there = maps(1, 1, 8, 8)
    assert mean_correlations(torch.cat([there, 1 - there], dim=1), there).item() == pytest.approx(1)


def test_noise_correlates_as_far_as_chance_goes():
    found = mean_correlations(maps(4, 64, 32, 32), maps(4, 1, 32, 32, seed=5)).mean().item()
    assert found == pytest.approx(math.sqrt(2 / (math.pi * 1024)), rel=0.2)


def test_luminance_is_the_grey_of_scikit_image():
    images = maps(2, 3, 5, 6)
    wanted = rgb2gray(images.numpy(), channel_axis=1)
    np.testing.assert_allclose(luminance(images)[:, 0], wanted, rtol=1e-5)


def test_dab_is_found_where_it_was_mixed_in():
    stains = np.zeros((1, 4, 4, 3))
    stains[..., 0] = 0.3
    stains[0, :2, :, 2] = 0.5
    images = torch.from_numpy(combine_stains(stains, rgb_from_hed)).permute(0, 3, 1, 2).float()
    found = dab_density(images)
    assert found.shape == (1, 1, 4, 4)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0, 0], stains[0, :, :, 2], atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 4, 8, 8), (2, 1, 8, 9), (8, 8), (2, 1, 64)])
def test_maps_of_other_fields_are_refused(shape):
    with pytest.raises(JobFailed, match="not of the same fields"):
        channel_correlations(maps(2, 4, 8, 8), maps(*shape))


def test_the_paired_test_by_hand():
    """Five pairs, all in one direction: of 2^5 signs two are as far out."""
    second = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found = compare_paired(second + np.array([0.01, 0.02, 0.03, 0.04, 0.06]), second)
    assert (found.pairs, found.statistic) == (5, 0)
    assert found.p_value == pytest.approx(2 / 32)
    assert found.first - found.second == pytest.approx(0.032)
    assert found.median_difference == pytest.approx(0.03)


def test_the_paired_test_does_not_care_which_arm_comes_first():
    rng = np.random.default_rng(0)
    one, other = rng.random(60), rng.random(60) + 0.2
    there, back = compare_paired(one, other), compare_paired(other, one)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.p_value < 0.05
    assert there.median_difference == -back.median_difference


def test_equal_arms_and_no_pairs_have_an_explicit_answer():
    same = compare_paired(np.ones(6), np.ones(6))
    assert (same.p_value, same.statistic, same.median_difference) == (1, 0, 0)
    assert compare_paired(np.array([0.2]), np.array([0.1])).p_value == 1
    none = compare_paired(np.array([]), np.array([]))
    assert none.pairs == 0
    assert all(math.isnan(value) for value in dataclasses.astuple(none)[1:])


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (np.ones(3), np.ones(4), "not pairs"),
        (np.ones((3, 1)), np.ones((3, 1)), "not pairs"),
        (np.array([1, np.nan]), np.ones(2), "not all finite"),
    ],
)
def test_values_that_are_no_pairs_are_refused(first, second, told):
    with pytest.raises(JobFailed, match=told):
        compare_paired(first, second)
