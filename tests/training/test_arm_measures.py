"""Measures of arms: those of scikit-learn and of hand, intervals by case, and what is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import bootstrap

from napari_her2.errors import JobFailed
from napari_her2_training.config_sections import MeasureConfig
from napari_her2_training.measures.arms import (
    Measured,
    all_measures,
    judged_part,
    measure,
    measure_predictions,
)
from napari_her2_training.measures.bootstrap import resample_cases, resampled_measures
from napari_her2_training.measures.predictions import Part, Predictions, read_predictions, write_predictions
from napari_her2_training.running.draws import epoch_order, inverse_frequencies

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("0", "Low", "High")
PLAIN = MeasureConfig(resamples=0)


def said(labels: list[int], answers: list[int], cases: list[str] | None = None) -> Predictions:
    probabilities = np.full((len(labels), 3), 0.1)
    probabilities[np.arange(len(labels)), answers] = 0.8
    names = tuple(cases or (f"c{n}" for n in range(len(labels))))
    return Predictions(names, np.array(labels), probabilities)


def test_the_measures_are_those_of_hand() -> None:
    found = measure([said([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0])], CLASSES, PLAIN)
    assert found.confusion == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    values = {name: one.value for name, one in found.measures.items()}
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["recall 0"] == pytest.approx(1 / 2)
    assert values["recall Low"] == 1
    assert values["recall High"] == pytest.approx(1 / 2)
    # F1 of 0: 1/2, of Low: 2 * 2/3 / (5/3), of High: 2 * 1/2 / (3/2).
    assert values["macro F1"] == pytest.approx((0.5 + 0.8 + 2 / 3) / 3)
    # Squared distances of the confusions, 1 and 4, over those expected by chance: sum of n_i m_j (i-j)^2 / 6.
    chance = (2 * 2 * 0 + 2 * 3 * 1 + 2 * 1 * 4 + 2 * 2 * 1 + 0 + 2 * 1 * 1 + 2 * 2 * 4 + 2 * 3 * 1 + 0) / 6
    assert values["quadratic kappa"] == pytest.approx(1 - 5 / chance)
    assert all(one.low is None and one.sd is None for one in found.measures.values())


def test_folds_give_mean_and_deviation() -> None:
    folds = [said([0, 1, 2, 2], [0, 1, 2, 2]), said([0, 1, 2, 2], [0, 1, 2, 0])]
    found = measure(folds, CLASSES, PLAIN)
    accuracy = found.measures["accuracy"]
    assert (accuracy.value, accuracy.sd) == (pytest.approx(0.875), pytest.approx(np.std([1, 0.75], ddof=1)))
    assert (found.slides, found.cases, found.folds) == (4, 4, 2)
    assert np.sum(found.confusion) == 8


def test_cases_are_resampled_whole_and_alike_in_all_folds() -> None:
    first, second = resample_cases([["a", "b", "a", "c"], ["c", "a"]], resamples=400, seed=1)
    assert (first[:, 0] == first[:, 2]).all()
    assert (first[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert first[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)
    assert (second == first[:, [3, 0]]).all()


def test_the_measures_of_resamples_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 9)
    # Ties, and resamples that lack a class.
    probabilities = np.round(rng.dirichlet([1, 1, 1], 9), 1)
    (counts,) = resample_cases([[f"c{n}" for n in range(9)]], resamples=12, seed=0)
    counts[0] = labels == 1
    found = resampled_measures(labels, probabilities, CLASSES, counts)
    for number, times in enumerate(counts.astype(int)):
        chosen = np.repeat(np.arange(9), times)
        theirs = all_measures(labels[chosen], probabilities[chosen], CLASSES)
        if set(labels[chosen]) != set(labels):  # a mean over fewer classes is another measure
            for name in ("macro AUC", "macro PR-AUC", "macro F1", "balanced accuracy"):
                theirs.pop(name, None)
        ours = {name: values[number] for name, values in found.items() if np.isfinite(values[number])}
        assert ours == pytest.approx(theirs)


def test_the_interval_is_that_of_scipy_where_every_case_has_one_slide() -> None:
    right = np.random.default_rng(3).random(60) < 0.7
    labels = [0, 1, 2] * 20
    answers = [label if ok else (label + 1) % 3 for label, ok in zip(labels, right, strict=True)]
    found = measure([said(labels, answers)], CLASSES, MeasureConfig(resamples=4000)).measures["accuracy"]
    theirs = bootstrap(
        (right.astype(float),), np.mean, method="percentile", n_resamples=4000, rng=5
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)


def test_an_interval_holds_the_measure_and_slides_of_few_cases_widen_it() -> None:
    labels = [0, 1, 2] * 8
    answers = [0, 1, 2, 0, 1, 1] * 4
    config = MeasureConfig(resamples=500)
    alone = measure([said(labels, answers)], CLASSES, config).measures["accuracy"]
    assert alone.low is not None
    assert alone.high is not None
    assert alone.low < alone.value < alone.high
    # Six cases of four slides each, all right or with all faults.
    grouped = [f"g{n // 4}" for n in range(24)]
    order = np.argsort(
        [label != answer for label, answer in zip(labels, answers, strict=True)], kind="stable"
    )
    together = measure(
        [said([labels[n] for n in order], [answers[n] for n in order], grouped)], CLASSES, config
    ).measures["accuracy"]
    assert together.high - together.low > 1.3 * (alone.high - alone.low)  # type: ignore[operator]


def test_arms_are_judged_on_the_test_part_and_what_is_kept_can_be_read(tmp_path: Path) -> None:
    part = said([0, 1, 2, 2], [0, 1, 2, 1])
    all_said = {
        Part(0, "train"): part,
        Part(0, "validation"): part,
        Part(0, "validation", "vote"): said([0, 1, 2, 2], [0, 1, 1, 1]),
    }
    assert judged_part(all_said) == "validation"
    assert judged_part(all_said | {Part(0, "test"): part}) == "test"
    found = measure_predictions(all_said, CLASSES, MeasureConfig(resamples=5))
    assert found[""]["train"].measures["accuracy"].low is None
    assert found["vote"]["validation"].measures["accuracy"].low is not None
    measured = found["vote"]["validation"]
    assert Measured.of_json(measured.to_json()) == measured
    path = tmp_path / "predictions.csv"
    write_predictions(path, all_said, CLASSES)
    again, classes = read_predictions(path)
    assert classes == CLASSES
    assert again.keys() == all_said.keys()
    for key, given in all_said.items():
        assert again[key].cases == given.cases
        np.testing.assert_array_equal(again[key].probabilities, given.probabilities)
    path.write_text(path.read_text().replace("Low", "Medium", 1))
    with pytest.raises(JobFailed, match="cannot be read"):
        read_predictions(path)


def test_a_balanced_epoch_holds_each_class_alike_and_every_example_in_time() -> None:
    labels = np.array([0] * 12 + [1] * 3 + [2] * 3)
    order = epoch_order(labels, balanced=True, seed=1, epoch=0)
    assert np.bincount(labels[order]).tolist() == [6, 6, 6]
    # Each of the rare ones twice, none of the frequent ones more than once.
    assert np.bincount(order, minlength=18)[12:].tolist() == [2] * 6
    assert np.bincount(order, minlength=18)[:12].max() == 1
    plain = epoch_order(labels, balanced=False, seed=1, epoch=0)
    assert sorted(plain) == list(range(18))
    assert inverse_frequencies(labels, 3).tolist() == pytest.approx([0.5, 2, 2])
