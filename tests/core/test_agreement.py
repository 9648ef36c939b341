from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_by_hand import make_study, readings_of
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_of_statsmodels

from napari_her2.desk.own_score import SCORES
from napari_her2.reading.agreement import ALPHA, FLEISS, KAPPA, PERCENT, LevelTable, agreements
from napari_her2.reading.coefficients import (
    MISSING,
    estimate,
    fleiss_kappa,
    kappa_of,
    krippendorff_alpha,
    pair_tables,
    weighted_kappa,
)
from napari_her2.reading.disagreements import disagreements
from napari_her2.reading.levels import LEVELS
from napari_her2.reading.model_answers import AnswersFound, ModelAnswer
from napari_her2.reading.readings import Reading

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, example C: 4 observers, 12 units, gaps.
_ = MISSING
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)
PUBLISHED = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849}
# Fleiss' kappa of Wikipedia's worked example: 14 raters, 10 subjects, 5 categories.
FOURTEEN = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip

matrices = st.integers(2, 4).flatmap(
    lambda readers: st.lists(
        st.lists(st.integers(-1, 3), min_size=readers, max_size=readers), min_size=2, max_size=12
    )
)


def alpha_by_definition(read: np.ndarray, difference: str) -> float:
    """1 - observed / expected disagreement, pair by pair of values, as the definition has it."""
    units = [[v for v in column if v != MISSING] for column in read.T]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]
    times = {v: values.count(v) for v in values}

    def apart(c: int, k: int) -> float:
        if difference == "nominal":
            return float(c != k)
        if difference == "interval":
            return float(c - k) ** 2
        low, high = min(c, k), max(c, k)
        between = sum(count for v, count in times.items() if low <= v <= high)
        return 0.0 if c == k else (between - (times[c] + times[k]) / 2) ** 2

    n = len(values)
    observed = sum(sum(apart(a, b) for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / n
    expected = sum(apart(a, b) for a, b in permutations(values, 2)) / (n * (n - 1))
    return 1 - observed / expected


@pytest.mark.parametrize("difference", PUBLISHED)
def test_alpha_is_that_of_the_published_example(difference):
    found = krippendorff_alpha(KRIPPENDORFF, 6, difference)
    assert found == pytest.approx(PUBLISHED[difference], abs=5e-4)
    assert found == pytest.approx(alpha_by_definition(KRIPPENDORFF, difference), abs=1e-12)


@given(matrices, st.sampled_from(sorted(PUBLISHED)))
@settings(max_examples=60, deadline=None)
def test_alpha_is_that_of_its_definition(rows, difference):
    read = np.array(rows).T
    pairable = [v for column in read.T if (column != MISSING).sum() > 1 for v in column if v != MISSING]
    found = krippendorff_alpha(read, 4, difference)
    if len(set(pairable)) < 2:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(alpha_by_definition(read, difference), abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40),
    st.sampled_from(["quadratic", "linear", "none"]),
)
@settings(max_examples=60, deadline=None)
def test_kappa_is_that_of_scikit_learn(pairs, weights):
    first, second = np.array(pairs).T
    found = weighted_kappa(first, second, 5, weights)
    if len({*first, *second}) < 2:
        assert np.isnan(found)
        return
    ours = None if weights == "none" else weights
    theirs = cohen_kappa_score(first, second, weights=ours, labels=range(5))
    assert found == pytest.approx(theirs, abs=1e-12)


def test_fleiss_is_that_of_the_published_example_and_of_statsmodels():
    read = np.array([np.repeat(np.arange(5), counts) for counts in FOURTEEN]).T
    assert fleiss_kappa(read, 5) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(read, 5) == pytest.approx(fleiss_of_statsmodels(np.array(FOURTEEN)), abs=1e-12)


@given(st.integers(2, 5), st.integers(2, 20), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_fleiss_is_that_of_statsmodels_over_the_cases_that_all_read(readers, cases, seed):
    random = np.random.default_rng(seed)
    read = random.integers(0, 4, (readers, cases))
    counts = np.stack([(read == level).sum(axis=0) for level in range(4)], axis=1)
    gaps = np.where(random.random((readers, 3)) < 0.5, MISSING, 2)
    gaps[0] = MISSING
    found = fleiss_kappa(np.hstack([read, gaps]), 4)
    if len(np.unique(read)) > 1:
        assert found == pytest.approx(fleiss_of_statsmodels(counts), abs=1e-12)


def test_nothing_is_made_up_where_agreement_is_not_defined():
    same, nobody = np.full(20, 2), np.full(20, MISSING)
    for first, second in ((same, same), (same, nobody)):
        found = estimate(pair_tables(first, second, 5), kappa_of)
        assert np.isnan([found.value, found.low, found.high]).all()
        assert found.note.startswith("not defined")
    assert np.isnan(fleiss_kappa(np.array([[0, 1, 2]]), 3))  # one reader
    assert np.isnan(krippendorff_alpha(np.array([[0, 1, 2]]), 3))


def test_few_cases_have_a_value_and_no_interval():
    first = np.arange(19) % 5
    found = estimate(pair_tables(first, np.roll(first, 1), 5), kappa_of)
    assert np.isfinite(found.value)
    assert np.isnan(found.low)
    assert "19 cases are fewer than 20" in found.note


def test_an_interval_is_not_known_where_nearly_every_case_is_alike():
    first = np.zeros(30, int)
    first[0] = 1
    found = estimate(pair_tables(first, first, 2), kappa_of)
    assert found.value == 1.0
    assert np.isnan(found.low)
    assert "nearly always" in found.note


def test_intervals_are_those_of_a_loop_over_resamples_and_of_the_seed():
    random = np.random.default_rng(5)
    first = random.integers(0, 4, 60)
    second = np.where(random.random(60) < 0.7, first, random.integers(0, 4, 60))
    found = estimate(pair_tables(first, second, 4), kappa_of, seed=1)
    looped = []
    for _again in range(2000):
        at = random.integers(0, 60, 60)
        looped.append(cohen_kappa_score(first[at], second[at], weights="quadratic", labels=range(4)))
    low, high = np.quantile(looped, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)
    assert found == estimate(pair_tables(first, second, 4), kappa_of, seed=1)
    assert found != estimate(pair_tables(first, second, 4), kappa_of, seed=2)


def test_a_case_without_part_in_it_changes_nothing():
    first, second = np.arange(20) % 5, np.arange(1, 21) % 5
    gaps = np.full(7, MISSING)
    longer = estimate(pair_tables(np.hstack([gaps, first]), np.hstack([gaps + 3, second]), 5), kappa_of)
    assert longer == estimate(pair_tables(first, second, 5), kappa_of)


EXPECTED = {
    "five": (0, 1, 2, 3, 4),
    "ihc": (0, 0, 1, 2, 3),
    "ultralow": (0, 1, 1, 1, 1),
    "low": (0, 0, 1, 1, 1),
    "positive": (0, 0, 0, None, 1),
}


@pytest.mark.parametrize("name", LEVELS)
def test_readings_stand_on_their_level(name):
    levels = LEVELS[name]
    assert tuple(levels.level_of(Reading("A", "a", score=score)) for score in SCORES[1:]) == EXPECTED[name]
    for ish, level in (("positive", 1), ("negative", 0), ("pending", None)):
        found = levels.level_of(Reading("A", "a", score="2+", ish=ish))
        assert found == (level if name == "positive" else EXPECTED[name][3])
    assert levels.level_of(Reading("A", "a", skipped="not there")) is None


def test_no_model_predicts_ultralow():
    for score, five in (("0", None), ("1+", 2), ("2+", 3), ("3+", 4), ("", None)):
        assert LEVELS["five"].level_of_class(score) == five
    assert LEVELS["ihc"].level_of_class("0") == 0
    assert LEVELS["low"].level_of_class("Low") == 1  # 1+ and 2+ lie on one side of that cut
    assert LEVELS["ihc"].level_of_class("Low") is None
    card = {"positive": ("3+", "2+ with a positive ISH"), "other": ("0", "1+", "2+ without a positive ISH")}
    assert [LEVELS["positive"].level_of_class(name, card) for name in card] == [1, 0]
    assert LEVELS["positive"].level_of_class("2+") is None


def test_a_study_is_compared_between_readers_rounds_and_models(tmp_path):
    study = make_study(24, ("Anna", "Ben", "Clara"), rounds=2)
    anna, ben = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1] * 2, [0, 0, 2, 3, 4, 0, 1, 2, 2, 4, 1, 1] * 2
    again = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 2] * 2
    readings = [*readings_of({"Anna": anna, "Ben": [*ben[:-1], None]}), *readings_of({"Anna": again}, "2")]
    answers = AnswersFound(
        tuple(
            ModelAnswer("m", "", "" if n == 24 else "3+", {}, frozenset({f"print {n}"}), tmp_path)
            for n in range(1, 25)
        )
    )
    table = LevelTable(study, readings, LEVELS["five"])
    rows = {(row.who, row.measure): row.estimate for row in agreements(table, answers)}
    expected = cohen_kappa_score(anna[:-1], ben[:-1], weights="quadratic")
    assert rows["Anna / Ben, round 1", KAPPA].value == pytest.approx(expected)
    assert rows["Anna / Ben, round 1", KAPPA].cases == 23
    assert rows["Anna / Ben, round 1", PERCENT].value == pytest.approx(100 * 17 / 23)
    assert rows["all readers, round 1", FLEISS].cases == 23
    assert np.isfinite(rows["all readers, round 1", ALPHA].low)
    own = cohen_kappa_score(anna, again, weights="quadratic")
    assert rows["Anna, round 1 / round 2", KAPPA].value == pytest.approx(own)
    assert rows["Anna, round 1 / m (model)", PERCENT].value == pytest.approx(100 * 4 / 23)
    assert rows["Anna, round 1 / m (model)", PERCENT].cases == 23  # one answer is withheld
    assert not any("Clara" in who for who, _measure in rows)


def test_one_reader_alone_is_compared_with_nobody():
    table = LevelTable(make_study(), readings_of({"Anna": [0] * 12}), LEVELS["five"])
    assert agreements(table) == ()
    assert disagreements(table) == ()


def test_disagreements_come_by_range_then_by_entropy():
    study = make_study(5, ("Anna", "Ben", "Clara", "Dora"))
    given_levels = [(0, 0, 0, 0), (0, 0, 0, 4), (0, 1, 2, 4), (2, 3, 2, 2), (2, None, None, 3)]
    by_reader = {reader: [case[at] for case in given_levels] for at, reader in enumerate(study.readers)}
    readings = readings_of(by_reader)
    readings.append(Reading("Anna", "case-4", "consensus", "2+"))
    found = disagreements(LevelTable(study, readings, LEVELS["five"]))
    assert [(of.case, of.apart) for of in found] == [
        ("case-3", 4),
        ("case-2", 4),
        ("case-5", 1),
        ("case-4", 1),
    ]
    shares = np.array([0.75, 0.25])
    assert found[0].entropy == pytest.approx(2.0)
    assert found[1].entropy == pytest.approx(-(shares * np.log2(shares)).sum())
    assert found[2].levels == {"Anna": "1+", "Dora": "2+"}
    assert [of.agreed for of in found] == ["", "", "", "2+"]


def test_equal_disagreements_come_in_an_order_that_the_seed_gives():
    orders = set()
    for seed, _again in product(range(4), range(2)):
        table = LevelTable(
            make_study(6, seed=seed), readings_of({"Anna": [0] * 6, "Ben": [1] * 6}), LEVELS["five"]
        )
        orders.add(tuple(of.case for of in disagreements(table)))
    assert 1 < len(orders) <= 4
