"""Faithfulness with predictors whose answer, whatever is deleted, is known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.errors import JobFailed
from napari_her2.explain.faithfulness import blank_field, cam_faithfulness_steps, faithfulness_steps
from napari_her2.explain.masks import move_maps, pixel_ranks, unit_maps, upper_half
from napari_her2.models.field_model import FieldModel


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def corner_predictor(fields):
    """Class 1 with the mean of the upper left quarter of the first channel as its probability."""
    seen = fields[:, 0, :4, :4].mean(dim=(1, 2))
    return torch.stack([1 - seen, seen], dim=1)


def bright_corner():
    """A field that is bright in the corner that the predictor looks at, and the map that says so."""
    field = torch.zeros(2, 8, 8)
    field[:, :4, :4] = 1
    return field, field[0].clone()


def measured(field, saliency, predict=corner_predictor, class_index=1, **options):
    options = {"steps": 8, "baseline": "mean"} | options
    return finish(faithfulness_steps(predict, field, saliency, class_index, **options))


def finish(steps):
    """What a generator of steps returns, and what it yielded."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return stop.value, seen


def test_curves_of_a_true_map_are_those_worked_out_by_hand():
    """16 of 64 pixels matter and come first: 1/4 stays when they are gone, the mean of the field."""
    field, saliency = bright_corner()
    found, seen = measured(field, saliency)
    assert seen[0] == (0, 98)
    assert seen[-1] == (98, 98)
    np.testing.assert_allclose(found.deletion.shares, np.arange(9) / 8)
    np.testing.assert_allclose(found.deletion.probabilities, [1, 0.625] + [0.25] * 7)
    np.testing.assert_allclose(found.insertion.probabilities, [0.25, 0.625] + [1] * 7)
    assert found.deletion.area == pytest.approx((0.8125 + 0.4375 + 6 * 0.25) / 8)
    assert found.insertion.area == pytest.approx((0.4375 + 0.8125 + 6 * 1) / 8)


def test_a_true_map_beats_the_same_map_elsewhere_and_a_wrong_one_loses():
    field, saliency = bright_corner()
    found, _ = measured(field, saliency, draws=40)
    assert found.deletion.control.shape == (40, 9)
    assert found.deletion.control_mean > found.deletion.area + 0.1
    assert found.insertion.control_mean < found.insertion.area - 0.1
    assert found.soft.masked == found.half.masked == 1
    assert found.soft.kept
    assert found.half.kept
    # On average a mask over a quarter of the field lies over a quarter of what matters.
    assert found.soft.control.mean() == pytest.approx(0.25, abs=0.1)
    assert found.soft.control_drop_points == pytest.approx(75, abs=10)
    assert found.soft.control_kept < 0.5

    wrong, _ = measured(field, saliency.flip(0, 1), draws=40)
    assert wrong.deletion.area > wrong.deletion.control_mean
    assert wrong.insertion.area < wrong.insertion.control_mean
    assert wrong.soft.drop_points == 100
    assert not wrong.soft.kept


def test_all_curves_share_their_ends():
    field = torch.rand(2, 8, 8, generator=draw(1))
    saliency = torch.rand(8, 8, generator=draw(2))
    found, _ = measured(field, saliency, draws=3, batch_size=7)
    whole, empty = (corner_predictor(x[None])[0, 1] for x in (field, blank_field(field, "mean")))
    for curve, first, last in ((found.deletion, whole, empty), (found.insertion, empty, whole)):
        for row in (curve.probabilities, *curve.control):
            assert row[0] == pytest.approx(float(first))
            assert row[-1] == pytest.approx(float(last))


def test_steps_delete_the_highest_pixels_and_nothing_else():
    """A predictor that sums says which pixels are gone."""
    field = torch.rand(1, 4, 5, generator=draw(3))
    saliency = torch.rand(4, 5, generator=draw(4))

    def sums(fields):
        return fields.sum(dim=(1, 2, 3))[:, None]

    found, _ = measured(field, saliency, sums, 0, steps=4, draws=1)
    order = saliency.flatten().argsort(descending=True)
    pixels, mean = field.flatten()[order].numpy(), float(field.mean())
    counts = (0, 5, 10, 15, 20)
    np.testing.assert_allclose(
        found.deletion.probabilities, [count * mean + pixels[count:].sum() for count in counts], rtol=1e-5
    )
    np.testing.assert_allclose(
        found.insertion.probabilities,
        [pixels[:count].sum() + (20 - count) * mean for count in counts],
        rtol=1e-5,
    )
    assert found.soft.masked == pytest.approx(float((field[0] * saliency).sum()), rel=1e-5)
    assert found.half.masked == pytest.approx(pixels[:10].sum(), rel=1e-5)


def test_a_flat_map_is_no_better_than_its_control():
    field, saliency = bright_corner()
    found, _ = measured(field, torch.full_like(saliency, 0.5), draws=30, seed=3)
    assert abs(found.deletion.area - found.deletion.control_mean) < 4 * found.deletion.control_spread
    assert found.soft.control_spread_points == 0
    assert found.soft.drop_points == found.soft.control_drop_points == pytest.approx(50)


def test_a_seed_repeats_the_measurement_in_batches_of_any_size():
    field, saliency = bright_corner()
    first, _ = measured(field, saliency, seed=4, batch_size=3)
    again, _ = measured(field, saliency, seed=4, batch_size=64)
    other, _ = measured(field, saliency, seed=5)
    np.testing.assert_array_equal(first.insertion.control, again.insertion.control)
    assert not np.array_equal(first.insertion.control, other.insertion.control)


def test_one_draw_has_no_spread():
    field, saliency = bright_corner()
    found, _ = measured(field, saliency, draws=1)
    assert math.isnan(found.deletion.control_spread)
    assert found.deletion.control_mean == found.deletion.control_areas[0]


def test_blurring_keeps_means_and_hides_detail():
    flat = torch.full((3, 32, 48), 0.4)
    torch.testing.assert_close(blank_field(flat, "blurred"), flat)
    board = (torch.arange(32)[:, None] + torch.arange(48)).remainder(2).float().expand(1, -1, -1)
    torch.testing.assert_close(blank_field(board, "blurred"), torch.full((1, 32, 48), 0.5), atol=0.01, rtol=0)
    noise = torch.rand(2, 32, 48, generator=draw())
    blurred = blank_field(noise, "blurred")
    torch.testing.assert_close(blurred.mean(dim=(1, 2)), noise.mean(dim=(1, 2)), atol=1e-3, rtol=0)
    assert (blurred[0] - blurred[1]).abs().max() > 0.001  # channels are not mixed


def test_a_grad_cam_is_measured_on_what_the_predictor_takes():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = FieldModel(predictor="tinynet-e", dim=8, field_px=32)
    field = torch.rand(3, 32, 32, generator=draw(6))
    found, _ = finish(cam_faithfulness_steps(model, field, 2, steps=3, draws=2, batch_size=6))
    assert model.training  # put back
    model.eval()
    with torch.inference_mode():
        expected = model(field[None]).probabilities[0, 2]
    assert found.soft.whole == pytest.approx(float(expected), abs=1e-5)
    assert found.deletion.probabilities[0] == found.insertion.probabilities[-1] == found.soft.whole
    assert (found.class_index, found.baseline, found.insertion.control.shape) == (2, "blurred", (2, 4))


@pytest.mark.parametrize(
    ("saliency", "options", "told"),
    [
        (torch.zeros(4, 4), {}, "does not fit"),
        (torch.full((8, 8), 1.5), {}, "between 0 and 1"),
        (torch.full((8, 8), math.nan), {}, "between 0 and 1"),
        (torch.zeros(8, 8), {"steps": 0}, "at least one"),
        (torch.zeros(8, 8), {"draws": 0}, "at least one"),
    ],
)
def test_what_cannot_be_measured_is_refused(saliency, options, told):
    with pytest.raises(JobFailed, match=told):
        measured(bright_corner()[0], saliency, **options)


def test_moved_maps_keep_mean_values_and_neighbours():
    maps = torch.rand(20, 6, 9, generator=draw())
    moved = move_maps(maps, generator=draw(1))
    for before, after in zip(maps, moved, strict=True):
        ways = [before.roll((down, right), (0, 1)) for down in range(6) for right in range(9)]
        assert sum(torch.equal(after, way) for way in ways) == 1
    assert not torch.equal(maps, moved)


def test_half_of_the_pixels_is_kept_even_where_all_are_equal():
    flat = upper_half(torch.full((3, 8, 8), 0.5), generator=draw())
    assert flat.sum(dim=(1, 2)).tolist() == [32, 32, 32]
    assert not torch.equal(flat[0], flat[1])  # a flat map has no upper half: drawn, not the first rows
    steps = torch.arange(63.0).view(1, 7, 9) / 63
    assert torch.equal(upper_half(steps, generator=draw()), steps >= 32 / 63)
    assert upper_half(torch.zeros(0, 4, 4), generator=draw()).shape == (0, 4, 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 40))
def test_ranks_count_each_pixel_once_and_never_put_a_lower_one_first(seed, levels, pixels):
    maps = torch.randint(levels, (2, 1, pixels), generator=draw(seed)).float()
    ranks = pixel_ranks(maps, generator=draw(seed + 1))
    for values, places in zip(maps.flatten(1), ranks.flatten(1), strict=True):
        assert sorted(places.tolist()) == list(range(pixels))
        in_order = values[places.argsort()]
        assert bool((in_order.diff() <= 0).all())


def test_maps_become_masks_by_their_own_range():
    maps = torch.tensor([[[2.0, 4.0, 6.0]], [[3.0, 3.0, 3.0]]])
    assert unit_maps(maps).tolist() == [[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]]
