"""Measures of predictors against scikit-learn, torchmetrics and hand-made values, and where they end."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from sklearn import metrics as sk

from napari_her2.errors import JobFailed
from napari_her2_training.corr_a_net.confidence_metrics import (
    STRATA,
    confidence_strata,
    effective_confidence,
    measure_predictor,
)
from napari_her2_training.measures.metrics import class_average_precisions

NAN = pytest.approx(math.nan, nan_ok=True)


def fields(size=200, seed=7, skill=1.0):
    """Labels of unequal classes, probabilities and confidences, with one class rare."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size, p=[0.1, 0.2, 0.5, 0.2])
    logits = rng.normal(size=(size, 4)) + skill * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    doubt = rng.normal(1.5, 1.5, size)
    return labels, probabilities, 1 / (1 + np.exp(-doubt)), doubt


def test_measures_equal_those_of_torchmetrics():
    labels, probabilities, confidence, doubt = fields()
    found = measure_predictor(labels, probabilities, confidence, doubt)
    p, y = torch.from_numpy(probabilities), torch.from_numpy(labels)
    assert found.fields == 200
    assert found.weighted_precision == pytest.approx(
        tm.multiclass_precision(p, y, 4, average="weighted").item(), abs=1e-6
    )
    assert found.weighted_recall == pytest.approx(
        tm.multiclass_recall(p, y, 4, average="weighted").item(), abs=1e-6
    )
    assert found.balanced_accuracy == pytest.approx(
        tm.multiclass_recall(p, y, 4, average="macro").item(), abs=1e-6
    )
    assert found.mcc == pytest.approx(tm.multiclass_matthews_corrcoef(p, y, 4).item(), abs=1e-6)
    assert found.class_auc == pytest.approx(tm.multiclass_auroc(p, y, 4, average=None).tolist(), abs=1e-6)
    assert found.auc == pytest.approx(tm.multiclass_auroc(p, y, 4).item(), abs=1e-6)
    assert found.class_pr_auc == pytest.approx(
        tm.multiclass_average_precision(p, y, 4, average=None).tolist(), abs=1e-6
    )
    assert found.pr_auc == pytest.approx(tm.multiclass_average_precision(p, y, 4).item(), abs=1e-6)


def test_measures_equal_the_multiclass_ones_of_scikit_learn():
    labels, probabilities, confidence, _ = fields(seed=8)
    found = measure_predictor(labels, probabilities, confidence)
    predicted = probabilities.argmax(1)
    assert found.weighted_recall == sk.recall_score(labels, predicted, average="weighted")
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert found.auc == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert found.pr_auc == pytest.approx(
        sk.average_precision_score(np.eye(4)[labels], probabilities, average="macro")
    )


def test_a_small_table_by_hand():
    """Truth 0 0 0 1, predicted 0 0 1 1: precision 1 and 1/2, recall 2/3 and 1."""
    labels = np.array([0, 0, 0, 1])
    first = np.array([0.9, 0.8, 0.4, 0.2])
    found = measure_predictor(labels, np.stack([first, 1 - first], 1), np.array([0.9, 0.8, 0.7, 0.5]))
    assert found.weighted_precision == pytest.approx((3 * 1 + 1 * 0.5) / 4)
    assert found.weighted_recall == pytest.approx(3 / 4)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.mcc == pytest.approx((2 * 1 - 1 * 0) / math.sqrt(2 * 3 * 1 * 2))
    assert found.auc == 1
    assert found.mec.signed == pytest.approx((0.9 + 0.8 - 0.7 + 0.5) / 4)
    assert found.softmax_mec.signed == pytest.approx((0.9 + 0.8 - 0.6 + 0.8) / 4)


def test_effective_confidence_by_hand():
    right = np.array([True, True, False, False])
    c = np.array([1.0, 0.6, 0.8, 0.2])
    found = effective_confidence(right, c, np.array([3.0, 1.0, 2.0, -1.0]))
    assert found.signed == pytest.approx((1.0 + 0.6 - 0.8 - 0.2) / 4)
    assert found.rescaled == pytest.approx((1.0 + 0.5 - 0.75 - 0.0) / 4)
    assert found.rescaled_logit == pytest.approx((1.0 + 0.5 - 0.75 - 0.0) / 4)
    assert found.agreement == pytest.approx((1.0 + 0.6 + 0.2 + 0.8) / 4)


def test_effective_confidence_at_its_ends():
    every, none, sure = np.ones(5, bool), np.zeros(5, bool), np.ones(5)
    assert effective_confidence(every, sure).signed == 1
    assert effective_confidence(none, sure).signed == -1
    assert effective_confidence(none, sure).agreement == 0
    # What tells the two readings apart: 93 of 100 right, .95 where right and .40 where wrong.
    right = np.arange(100) < 93
    found = effective_confidence(right, np.where(right, 0.95, 0.4))
    assert found.signed == pytest.approx(0.8555)
    assert found.agreement == pytest.approx(0.9255)


def test_effective_confidence_never_exceeds_the_accuracy():
    for seed in range(5):
        labels, probabilities, confidence, doubt = fields(seed=seed)
        found = measure_predictor(labels, probabilities, confidence, doubt)
        assert max(found.mec.signed, found.mec.rescaled, found.mec.rescaled_logit) <= found.weighted_recall


def test_the_same_confidence_everywhere_has_no_scale_of_its_own():
    found = effective_confidence(np.array([True, False, True]), np.full(3, 0.7), np.full(3, 0.85))
    assert found.rescaled == found.rescaled_logit == 0
    assert found.signed == pytest.approx(0.7 / 3)


def test_effective_confidence_of_nothing_is_not_a_number():
    found = effective_confidence(np.array([], bool), np.array([]))
    assert dataclasses.astuple(found) == (NAN,) * 4
    assert math.isnan(effective_confidence(np.array([True]), np.array([0.5])).rescaled_logit)


def test_strata_part_the_fields_at_their_bounds():
    confidence = np.array([1.0, 0.9, 0.8999, 0.75, 0.7499, 0.0])
    labels = np.array([0, 1, 0, 1, 0, 1])
    probabilities = np.eye(2)[[0, 1, 0, 0, 1, 1]]
    strata = confidence_strata(labels, probabilities, confidence)
    assert [s.name for s in strata] == [name for name, _, _ in STRATA] == ["high", "medium", "low"]
    assert [s.fields for s in strata] == [2, 2, 2]
    assert [s.accuracy for s in strata] == [1, 0.5, 0.5]
    assert [s.auc for s in strata] == [1, 0.5, 0.5]
    assert sum(s.share for s in strata) == pytest.approx(1)


def test_strata_do_not_depend_on_the_precision_of_the_confidence():
    labels, probabilities = np.array([0, 1]), np.eye(2)
    for dtype in (np.float32, np.float64):
        strata = confidence_strata(labels, probabilities, np.array([0.9, 0.75], dtype))
        assert [s.fields for s in strata] == [1, 1, 0]


def test_strata_without_fields_or_with_one_class_have_no_measure():
    labels, probabilities = np.array([2, 2]), np.eye(4)[[2, 1]]
    high, medium, low = confidence_strata(labels, probabilities, np.array([0.95, 0.99]))
    assert (high.fields, high.share, high.accuracy, high.auc) == (2, 1, 0.5, NAN)
    assert (medium.fields, medium.share, medium.accuracy, medium.auc) == (0, 0, NAN, NAN)
    assert low.fields == 0


def test_a_class_that_is_missing_is_left_out_of_the_means():
    labels, probabilities, confidence, _ = fields()
    kept = labels != 0
    found = measure_predictor(labels[kept], probabilities[kept], confidence[kept])
    assert found.class_auc[0] == NAN
    assert found.class_pr_auc[0] == NAN
    assert found.auc == pytest.approx(np.mean(found.class_auc[1:]))
    assert found.pr_auc == pytest.approx(np.mean(found.class_pr_auc[1:]))
    recalls = sk.recall_score(labels[kept], probabilities[kept].argmax(1), labels=[1, 2, 3], average=None)
    assert found.balanced_accuracy == pytest.approx(recalls.mean())
    assert math.isfinite(found.mcc)


@pytest.mark.parametrize("predicted", [2, 1])
def test_one_class_alone_leaves_areas_and_correlation_untold(predicted):
    probabilities = np.tile(np.where(np.arange(4) == predicted, 0.7, 0.1), (6, 1))
    found = measure_predictor(np.full(6, 2), probabilities, np.full(6, 0.8))
    right = float(predicted == 2)
    assert (found.weighted_precision, found.weighted_recall, found.balanced_accuracy) == (right,) * 3
    assert (found.auc, found.pr_auc) == (NAN, NAN)
    assert found.mcc == (NAN if right else 0)


def test_constant_scores_are_as_good_as_chance():
    labels = np.arange(40) % 4
    found = measure_predictor(labels, np.full((40, 4), 0.25), np.full(40, 0.5))
    assert found.class_auc == (0.5,) * 4
    assert found.class_pr_auc == (0.25,) * 4
    assert found.balanced_accuracy == 0.25
    assert found.mcc == 0
    assert found.softmax_mec.rescaled == 0


def test_average_precision_by_hand():
    """Positives at ranks 1 and 3 of four: 1/2 (1/1 + 2/3)."""
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    found = class_average_precisions(np.array([1, 0, 1, 0]), np.stack([1 - scores, scores], 1))
    assert found[1] == pytest.approx((1 + 2 / 3) / 2)


def test_a_row_is_frozen():
    labels, probabilities, confidence, _ = fields(20)
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure_predictor(labels, probabilities, confidence).auc = 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": np.array([], int), "confidence": np.array([])}, "no field to measure"),
        ({"labels": np.array([0, 1, 4])}, "outside the 4 classes"),
        ({"labels": np.array([0, 1])}, "do not belong together"),
        ({"confidence": np.array([0.1, 0.2, 1.2])}, "between 0 and 1"),
        ({"confidence": np.array([0.1, np.nan, 0.2])}, "not finite"),
        ({"confidence_logits": np.zeros(2)}, "do not belong together"),
        ({"confidence_logits": np.array([0, np.inf, 0])}, "not finite"),
        ({"probabilities": np.full((3, 4), np.nan)}, "not finite"),
        ({"probabilities": np.zeros(3)}, "do not belong together"),
    ],
)
def test_arrays_that_cannot_be_measured_are_refused_in_words(change, told):
    given = {"labels": np.array([0, 1, 2]), "probabilities": np.eye(4)[:3], "confidence": np.full(3, 0.5)}
    with pytest.raises(JobFailed, match=told):
        measure_predictor(**(given | change))
