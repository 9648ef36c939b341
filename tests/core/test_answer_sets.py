"""Sets of scores hold the truth as often as they promise, by simulation and by independent computations."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_her2.errors import ModelError
from napari_her2.models.answer_sets import (
    AnswerSets,
    CalibrationCases,
    answer_set,
    cases_needed,
    class_scores,
    set_members,
    threshold,
    thresholds,
)
from napari_her2.models.class_scores import NO_POSITIVE_ISH, POSITIVE_ISH, in_order

SCORES = ("0", "1+", "2+", "3+")
few = settings(max_examples=60, deadline=None)
coverages = st.sampled_from([0.8, 0.85, 0.9, 0.925, 0.95, 0.99])


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def drawn(seed: int, cases: int, *, shares=(0.3, 0.3, 0.25, 0.15), sharpness=2.0) -> tuple:
    """Cases of a model that is sure of itself without reason, and worst at the second class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), cases, p=shares)
    places = np.arange(len(shares))
    seen = labels + rng.normal(0, np.array([0.3, 0.8, 0.5, 0.3])[labels])
    return softmax(-sharpness * np.abs(seen[:, None] - places)), labels


@st.composite
def probabilities(draw: st.DrawFn, classes: int | None = None) -> np.ndarray:
    """Of few digits, so that ties happen; some of them 0."""
    count = classes or draw(st.integers(2, 6))
    weights = draw(arrays(np.int64, count, elements=st.integers(0, 6)).filter(lambda found: found.any()))
    return weights / weights.sum()


def neighbours_joined(given_: np.ndarray, at: int, *, ordered: bool) -> float:
    """Probability passed before a class joins, by the definition: exact numbers, a set that grows."""
    exact = [Fraction(float(value)) for value in given_]
    taken = {int(np.argmax(given_))}
    while at not in taken:
        free = [c for c in range(len(exact)) if c not in taken]
        if ordered:
            free = [c for c in free if {c - 1, c + 1} & taken]
        taken.add(max(free, key=lambda c: (exact[c], -c)))
        if at in taken:
            return float(sum(exact[c] for c in taken if c != at))
    return 0.0


@few
@given(probabilities(), st.booleans())
def test_the_score_of_a_class_is_the_probability_passed_before_it(row: np.ndarray, ordered: bool) -> None:
    found = class_scores(row, ordered=ordered)
    wanted = [neighbours_joined(row, at, ordered=ordered) for at in range(len(row))]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.dtype == np.float32
    assert found[row.argmax()] == 0


@few
@given(
    probabilities(),
    arrays(np.float64, (2, 40), elements=st.floats(0, 1)),
    coverages,
    coverages,
    st.booleans(),
)
def test_sets_hold_the_top_class_have_no_gap_and_grow_with_coverage(
    row: np.ndarray, kept: np.ndarray, one: float, other: float, ordered: bool
) -> None:
    labels = (kept[1] * (len(row) - 1)).round().astype(np.int64)
    known = CalibrationCases(kept[0].astype(np.float32), labels)
    names = [f"class {number}" for number in range(len(row))]
    small, large = (answer_set(row, names, known, c, ordered=ordered) for c in sorted((one, other)))
    assert set(small.classes) <= set(large.classes) or large.reason
    for found in (small, large):
        if found.reason:
            assert not found.classes
            continue
        places = [names.index(name) for name in found.classes]
        assert row.argmax() in places
        assert places == sorted(places)
        assert not ordered or places == list(range(places[0], places[-1] + 1))
        assert found.all_of(names) == (len(found.classes) == len(names))


@few
@given(st.lists(st.integers(0, 10), min_size=1, max_size=60), st.sampled_from([80, 85, 90, 95, 99]))
def test_the_threshold_is_that_of_p_values_in_exact_numbers(whole: list[int], percent: int) -> None:
    scores, alpha = np.array(whole) / 10, 1 - Fraction(percent, 100)
    limit = threshold(scores, percent / 100)
    for candidate in range(11):
        above = sum(score >= candidate for score in whole)
        accepted = Fraction(above + 1, len(whole) + 1) > alpha
        assert accepted == (limit is None or candidate / 10 <= limit)
    assert (limit is None) == (len(whole) < cases_needed(percent / 100))


def test_no_coverage_is_lost_to_the_last_digit_of_a_number() -> None:
    for percent in range(80, 100):
        for cases in range(1, 300):
            wanted = -(-(cases + 1) * percent // 100)  # rounded up, in whole numbers
            found = threshold(np.arange(1, cases + 1), percent / 100)
            assert found == (wanted if wanted <= cases else None)
        need = cases_needed(percent / 100)
        assert Fraction(need, need + 1) >= Fraction(percent, 100) > Fraction(need - 1, need)


def test_the_case_at_the_threshold_is_inside_although_scores_are_kept_in_float32() -> None:
    rows, labels = drawn(1, 399)
    known = CalibrationCases.of(rows, labels)
    limits = thresholds(known, 4, 0.9)
    inside = np.array([set_members(row, limits)[label] for row, label in zip(rows, labels, strict=True)])
    for number in range(4):
        own = known.scores[labels == number]
        # So many of its own cases as the order statistic says, the one that gave the threshold among them.
        assert inside[labels == number].sum() >= np.ceil((len(own) + 1) * 0.9 - 1e-9)
        assert limits.by_class[number] in own


@pytest.mark.parametrize("ordered", [True, False])
def test_sets_are_those_of_crepes(ordered: bool) -> None:
    rows, labels = drawn(2, 240)
    further, _ = drawn(3, 200)
    known = CalibrationCases.of(rows, labels, ordered=ordered)
    scores = np.stack([class_scores(row, ordered=ordered) for row in further])
    for coverage in (0.8, 0.9, 0.95):
        by_class = np.zeros((200, 4), bool)
        for number in range(4):
            reference = ConformalClassifier().fit(known.scores[labels == number])
            by_class[:, number] = (
                reference.predict_p(scores[:, [number]], smoothing=False)[:, 0] > 1 - coverage + 1e-9
            )
        limits = thresholds(known, 4, coverage)
        found = np.stack([set_members(row, limits, ordered=ordered) for row in further])
        if not ordered:
            np.testing.assert_array_equal(found, by_class)
            continue
        # What crepes does not know: scores in order have no gap.
        assert (found >= by_class).all()
        for one, reference in zip(found, by_class, strict=True):
            places = np.flatnonzero(reference)
            np.testing.assert_array_equal(np.flatnonzero(one), np.arange(places[0], places[-1] + 1))


def test_coverage_of_one_threshold_is_exactly_that_of_the_order_statistic() -> None:
    """Of continuous scores it is k / (n + 1), over draws of calibration cases and of the one to be judged."""
    rng = np.random.default_rng(4)
    draws, cases = 20_000, 25
    scores = rng.beta(2, 3, (draws, cases + 1))
    limits = np.array([threshold(row[:-1], 0.9) for row in scores])
    hits = scores[:, -1] <= limits
    wanted = np.ceil(26 * 0.9) / 26
    assert abs(hits.mean() - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / draws)


@pytest.mark.parametrize("ordered", [True, False])
def test_sets_cover_all_and_every_class_in_thousands_of_exchangeable_draws(ordered: bool) -> None:
    rows, labels = drawn(5, 24_000)
    pool = CalibrationCases.of(rows, labels, ordered=ordered)
    every = np.stack([class_scores(row, ordered=ordered) for row in rows[:4000]])
    rng = np.random.default_rng(6)
    hits: dict[int, list[bool]] = {number: [] for number in range(4)}
    single = []
    for _ in range(3000):
        taken = rng.choice(np.arange(4000, 24_000), 160, replace=False)
        limits = thresholds(CalibrationCases(pool.scores[taken], labels[taken]), 4, 0.9)
        assert limits is not None
        for at in rng.integers(0, 4000, 3):
            hits[int(labels[at])].append(bool(every[at, labels[at]] <= limits.by_class[labels[at]]))
            single.append(int((every[at] <= limits.by_class).sum()) == 1)
    together = np.concatenate(list(hits.values()))
    for found in (together, *map(np.array, hits.values())):
        # Three of a draw share their threshold: the error is at most that of the draws alone.
        error = np.sqrt(0.9 * 0.1 * 3 / len(found))
        assert found.mean() > 0.9 - 3 * error
    # The second class, which the model is worst at, by its own threshold and not by being covered with all.
    assert np.mean(hits[1]) < 0.93
    assert 0.2 < np.mean(single) < 0.8


def test_a_threshold_for_all_covers_the_hard_class_worse_and_one_by_class_does_not() -> None:
    rows, labels = drawn(7, 6000)
    known = CalibrationCases.of(rows, labels)
    half = CalibrationCases(known.scores[:3000], labels[:3000])
    limits = thresholds(half, 4, 0.9)
    hard = labels[3000:] == 1
    assert (known.scores[3000:][hard] <= np.float32(limits.common)).mean() < 0.85
    assert (known.scores[3000:][hard] <= limits.by_class[1]).mean() > 0.86  # 0.9 less three deviations


def test_the_promise_for_all_stands_where_a_class_has_too_few_cases() -> None:
    """Whatever the class with a few cases is like, all together are covered."""
    shares = (0.4, 0.1, 0.35, 0.15)
    rows, labels = drawn(8, 20_000, shares=shares)
    known = CalibrationCases.of(rows, labels)
    rng = np.random.default_rng(9)
    hits, rare = [], 0
    for _ in range(3000):
        taken = rng.integers(0, 18_000, 60)
        limits = thresholds(CalibrationCases(known.scores[taken], labels[taken]), 4, 0.9)
        rare += not limits.own.all()
        at = rng.integers(18_000, 20_000, 4)
        hits.append((known.scores[at] <= limits.by_class[labels[at]]).mean())
    assert rare > 2000
    assert np.mean(hits) > 0.9 - 3 * np.std(hits) / np.sqrt(len(hits))


def test_classes_with_too_few_cases_share_a_threshold_and_are_named() -> None:
    rng = np.random.default_rng(10)
    labels = np.repeat([0, 1, 3], [20, 20, 3])
    known = CalibrationCases(rng.uniform(0, 0.5, 43).astype(np.float32), labels)
    found = answer_set(np.array([0.1, 0.6, 0.2, 0.1]), SCORES, known, 0.9)
    assert found.pooled == ("2+", "3+")
    assert found.pooled_cases == (0, 3)
    limits = thresholds(known, 4, 0.9)
    assert limits.by_class[2] == np.float32(limits.common)
    assert (limits.by_class >= np.float32(limits.common)).all()
    assert limits.by_class[3] == max(np.float32(limits.common), known.scores[labels == 3].max())
    # One class alone, at a lower coverage: three cases are too few, four enough.
    assert answer_set(np.full(4, 0.25), SCORES, known, 0.8).pooled == ("2+", "3+")
    four = CalibrationCases(np.append(known.scores, np.float32(0.1)), np.append(labels, 3))
    alone = answer_set(np.full(4, 0.25), SCORES, four, 0.8)
    assert (alone.pooled, alone.pooled_cases) == (("2+",), (0,))


def test_too_few_cases_are_refused_with_the_number_that_is_needed() -> None:
    rows, labels = drawn(11, 3)
    for cases, coverage, words in (
        (3, 0.9, "90 %"),
        (0, 0.9, "90 %"),
        (3, 0.925, "92.5 %"),
        (98, 0.99, "99 %"),
    ):
        given_, own = (rows, labels) if cases == 3 else drawn(12, cases)
        found = answer_set(np.full(4, 0.25), SCORES, CalibrationCases.of(given_, own), coverage)
        assert found.classes == ()
        assert found.cases == cases
        assert words in found.reason
        assert f"from {cases} calibration case" in found.reason
        assert f"at least {cases_needed(coverage)}" in found.reason
        assert found.pooled == ()
        assert not found.all_of(SCORES)
    assert answer_set(np.full(4, 0.25), SCORES, CalibrationCases.of(*drawn(12, 99)), 0.99).classes


def test_what_is_no_case_and_no_probability_is_refused() -> None:
    for row in ([np.nan, 1.0], [], [-0.1, 1.1], [[0.5, 0.5]]):
        with pytest.raises(ModelError, match="no probabilities"):
            class_scores(np.array(row))
    ok = np.zeros(3, np.float32)
    for scores, labels in (
        (ok, np.zeros(2, int)),
        (ok - 0.1, np.zeros(3, int)),
        (ok * np.nan, np.zeros(3, int)),
        (ok + 2, np.zeros(3, int)),
        (ok, np.array([0, -1, 0])),
        (ok[:, None], np.zeros((3, 1), int)),
    ):
        with pytest.raises(ModelError, match="calibration cases"):
            CalibrationCases(scores, labels)


def test_sums_of_doubles_beyond_one_are_no_score_beyond_one() -> None:
    row = softmax(np.random.default_rng(13).normal(size=(2000, 5)) * 9)
    assert max(float(class_scores(one, ordered=ordered).max()) for one in row for ordered in (0, 1)) <= 1


def test_cases_are_found_by_head() -> None:
    known = CalibrationCases.of(*drawn(14, 10))
    assert AnswerSets({"slide": known}).of() is known
    assert AnswerSets({"H&E": known}).of("H&E") is known
    assert AnswerSets({"H&E": known}).of("fusion") is None
    assert sum(known.counts(4)) == 10


@pytest.mark.parametrize(
    ("classes", "held", "ordered"),
    [
        (SCORES, None, True),
        (SCORES[::-1], None, True),
        (("0", "2+", "1+", "3+"), None, False),
        (("0", "Low", "High"), None, True),
        (("0", "Low", "High"), {"Low": ("1+", NO_POSITIVE_ISH), "High": (POSITIVE_ISH, "3+")}, True),
        (("0", "Low", "High"), {"Low": ("1+", "2+"), "High": (POSITIVE_ISH, "3+")}, False),
        (("a", "b", "c"), {"a": ("0", "2+"), "b": ("1+",), "c": ("3+",)}, False),
        (("a", "b", "c"), None, False),
        (("negative", "positive"), None, True),
        (("negative", "positive"), {"negative": ("0", "3+"), "positive": ("1+", "2+")}, True),
    ],
)
def test_classes_are_in_order_where_their_scores_rise_without_overlap(
    classes: tuple[str, ...], held: dict | None, ordered: bool
) -> None:
    assert in_order(classes, held) is ordered
