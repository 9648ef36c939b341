"""What is measured of sets: against SciPy, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import beta

from napari_her2.models.answer_sets import CalibrationCases, answer_set, threshold
from napari_her2_training.config_sections import MeasureConfig
from napari_her2_training.measures.coverage import (
    coverage_by_group,
    judge_sets,
    measure_coverage,
    spread_by_calibration,
)
from napari_her2_training.measures.predictions import Predictions

PLAIN = MeasureConfig(resamples=0)


def cases_of(seed: int, slides: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, slides)
    logits = -1.5 * np.abs((labels + rng.normal(0, 0.6, slides))[:, None] - np.arange(4))
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True), labels


def test_sets_are_counted_by_hand() -> None:
    inside = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    found = measure_coverage(inside, np.array([0, 2, 2, 1]), ["a", "b", "b", "c"], PLAIN)
    assert (found.slides, found.cases, found.held) == (4, 3, 3)
    assert (found.coverage, found.size) == (0.75, 2.0)
    assert (found.single, found.double, found.every) == (0.25, 0.5, 0.25)
    assert (found.size_low, found.size_high) == (None, None)


@settings(max_examples=30, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.just(3))), st.sampled_from([0.9, 0.95]))
def test_the_interval_of_coverage_is_that_of_beta_quantiles(inside: np.ndarray, confidence: float) -> None:
    labels = np.zeros(len(inside), int)
    found = measure_coverage(
        inside, labels, [str(n) for n in labels], MeasureConfig(resamples=0, confidence=confidence)
    )
    held, count, tail = int(inside[:, 0].sum()), len(inside), (1 - confidence) / 2
    assert found.low == pytest.approx(0 if not held else beta.ppf(tail, held, count - held + 1), abs=1e-9)
    assert found.high == pytest.approx(
        1 if held == count else beta.ppf(1 - tail, held + 1, count - held), abs=1e-9
    )


def test_the_interval_of_the_size_draws_whole_cases() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 4, 100)
    inside = np.arange(3) < sizes[:, None]
    alone = measure_coverage(inside, np.zeros(100, int), [str(n) for n in range(100)], MeasureConfig())
    error = sizes.std() / 10
    assert alone.size_low == pytest.approx(sizes.mean() - 1.96 * error, abs=0.3 * error)
    assert alone.size_high == pytest.approx(sizes.mean() + 1.96 * error, abs=0.3 * error)
    # Twice the same slide of a case is no second one.
    twice = measure_coverage(
        np.repeat(inside, 2, axis=0), np.zeros(200, int), [str(n // 2) for n in range(200)], MeasureConfig()
    )
    assert (twice.size_low, twice.size_high) == (alone.size_low, alone.size_high)


@pytest.mark.parametrize("ordered", [True, False])
def test_sets_of_many_slides_are_those_of_each(ordered: bool) -> None:
    rows, labels = cases_of(2, 150)
    known = CalibrationCases.of(rows[:100], labels[:100], ordered=ordered)
    found = judge_sets(known, rows[100:], 0.9, ordered=ordered)
    names = ("0", "1+", "2+", "3+")
    for row, inside in zip(rows[100:], found.inside, strict=True):
        wanted = answer_set(row, names, known, 0.9, ordered=ordered).classes
        assert tuple(name for name, there in zip(names, inside, strict=True) if there) == wanted
    assert found.calibrated_on.tolist() == np.bincount(labels[:100]).tolist()
    assert judge_sets(CalibrationCases.of(rows[:8], labels[:8]), rows, 0.9, ordered=ordered) is None


def test_groups_are_measured_by_themselves() -> None:
    rows, labels = cases_of(3, 160)
    judged = Predictions(tuple(str(n) for n in range(60)), labels[100:], rows[100:])
    sets = judge_sets(CalibrationCases.of(rows[:100], labels[:100]), judged.calibrated, 0.9, ordered=True)
    groups = ["" if n % 3 == 0 else ("b" if n % 3 == 1 else "a") for n in range(60)]
    found = coverage_by_group(sets, judged, groups, PLAIN)
    assert list(found) == ["b", "a"]
    own = np.arange(60) % 3 == 2
    hits = sets.inside[np.arange(60), judged.labels]
    assert found["a"].held == hits[own].sum()
    assert found["a"].slides == 20
    assert found["a"].size == sets.inside[own].sum() / 20


def test_coverage_varies_with_the_draw_of_calibration_cases_as_is_said() -> None:
    rng = np.random.default_rng(4)
    reached = [threshold(rng.uniform(size=40), 0.9) for _ in range(20_000)]  # the coverage of a uniform score
    assert np.std(reached) == pytest.approx(spread_by_calibration(40, 0.9), rel=0.03)
    assert spread_by_calibration(9, 0.9) > 2 * spread_by_calibration(100, 0.9)
