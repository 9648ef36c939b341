"""The drop in accuracy with a predictor whose answer, masked or not, is known beforehand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2_training.corr_a_net.accuracy_drop import (
    ExplainedBatch,
    MaskedAccuracy,
    drop_in_accuracy,
)


def corner_predictor(fields):
    """Class 1 where the upper left quarter is bright on average, else class 0."""
    seen = fields[:, 0, :4, :4].mean(dim=(1, 2))
    return torch.stack([torch.full_like(seen, 0.5), seen], dim=1)


def bright(count=40):
    return torch.ones(count, 2, 8, 8), torch.ones(count, dtype=torch.int64)


def quarter(count=40):
    maps = torch.zeros(count, 8, 8)
    maps[:, :4, :4] = 1
    return maps


def test_a_map_that_shows_everything_costs_nothing():
    fields, labels = bright()
    found = drop_in_accuracy([ExplainedBatch(fields, labels, torch.ones(40, 8, 8))], corner_predictor)
    assert found.fields == 40
    assert found.soft == found.soft_control == MaskedAccuracy(1, 1)
    assert found.soft.drop_percent == found.soft.drop_points == 0


def test_a_true_map_costs_nothing_and_the_same_map_elsewhere_does():
    fields, labels = bright()
    found = drop_in_accuracy([ExplainedBatch(fields, labels, quarter())], corner_predictor)
    assert found.soft.drop_percent == 0
    assert found.half.drop_percent == 0
    # A 4 x 4 block moved over 8 x 8 still covers more than half of its first place in 9 of 64 ways: by
    # -1, 0 or 1 each way, for 16, 12 or 9 of 16 pixels.
    assert found.soft_control.masked == pytest.approx(9 / 64, abs=0.08)


def test_a_wrong_map_costs_everything():
    fields, labels = bright()
    wrong = quarter().flip(1, 2)
    found = drop_in_accuracy([ExplainedBatch(fields, labels, wrong)], corner_predictor)
    assert found.soft.drop_percent == 100
    assert found.half.masked < 0.5
    assert found.soft_control.masked > found.soft.masked


def test_the_half_keeps_what_is_highest_however_faint():
    fields, labels = bright()
    faint = 0.1 + 0.1 * quarter()
    found = drop_in_accuracy([ExplainedBatch(fields, labels, faint)], corner_predictor)
    assert found.soft.drop_percent == 100  # multiplied by a fifth, nothing is bright any more
    assert found.half.drop_percent == 0


def test_drops_are_relative_and_in_points():
    measured = MaskedAccuracy(whole=0.8, masked=0.6)
    assert measured.drop_percent == pytest.approx(25)
    assert measured.drop_points == pytest.approx(20)
    assert math.isnan(MaskedAccuracy(0, 0).drop_percent)
    assert MaskedAccuracy(0.5, 0.75).drop_percent == pytest.approx(-50)


def test_a_seed_repeats_the_control_and_batches_add_up():
    fields, labels = bright(12)
    whole = [ExplainedBatch(fields, labels, quarter(12))]
    first, again = (drop_in_accuracy(whole, corner_predictor, seed=4) for _ in range(2))
    assert first == again
    parts = (ExplainedBatch(fields[i : i + 5], labels[i : i + 5], quarter(12)[i : i + 5]) for i in (0, 5, 10))
    found = drop_in_accuracy(parts, corner_predictor)
    assert (found.fields, found.soft, found.half) == (12, first.soft, first.half)


def test_fields_already_wrong_have_nothing_to_lose():
    fields, labels = bright(4)
    found = drop_in_accuracy([ExplainedBatch(fields, 1 - labels, quarter(4))], corner_predictor)
    assert found.soft.whole == 0
    assert math.isnan(found.soft.drop_percent)
    assert found.soft.drop_points == 0


def test_no_field_has_no_accuracy():
    found = drop_in_accuracy([], corner_predictor)
    assert found.fields == 0
    assert math.isnan(found.soft.drop_percent)
    assert math.isnan(found.half_control.masked)


@pytest.mark.parametrize(
    ("maps", "labels", "told"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2), "do not fit"),
        (torch.zeros(2, 8, 8), torch.zeros(3), "do not fit"),
        (torch.full((2, 8, 8), 1.5), torch.zeros(2), "between 0 and 1"),
        (torch.full((2, 8, 8), math.nan), torch.zeros(2), "between 0 and 1"),
    ],
)
def test_maps_that_are_no_masks_are_refused(maps, labels, told):
    with pytest.raises(JobFailed, match=told):
        drop_in_accuracy([ExplainedBatch(torch.ones(2, 2, 8, 8), labels.long(), maps)], corner_predictor)


def test_a_control_without_repeats_is_refused():
    with pytest.raises(JobFailed, match="at least once"):
        drop_in_accuracy([], corner_predictor, repeats=0)
