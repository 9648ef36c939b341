"""Scores make classes as the configuration says; what it leaves out or muddles is refused by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_her2.errors import JobFailed
from napari_her2.models.class_scores import NO_POSITIVE_ISH, POSITIVE_ISH
from napari_her2_training.arm_config import StainedCasesConfig
from napari_her2_training.classes import class_mapping
from napari_her2_training.cohort.manifest import Case, class_names, label_of
from napari_her2_training.cohort.splits import make_splits
from napari_her2_training.config_sections import CasesConfig

SCORES = ("0", "1+", "2+", "3+")


def case(row: int, score: str, ish: str = "", case_id: str = "") -> Case:

    return Case(row, case_id or f"c{row}", Path(f"{row}.svs"), None, score, ish)


@pytest.mark.parametrize(
    ("classes", "names", "numbers"),
    [
        ("scores", SCORES, [0, 1, 2, 3]),
        ("low", ("0", "Low", "High"), [0, 1, 1, 2]),
        ("binary", ("negative", "positive"), [0, 0, 1, 1]),
        ("3: yes, 2: no, 1+: no, 0: no", ("no", "yes"), [0, 0, 0, 1]),
    ],
)
def test_each_score_has_its_class(classes: str, names: tuple[str, ...], numbers: list[int]) -> None:
    assert class_names(classes) == names
    assert [label_of(case(1, score), classes) for score in SCORES] == numbers


def test_a_positive_ish_makes_a_2_high_where_it_is_looked_at_and_nothing_else() -> None:
    mapping = class_mapping("low", ish=True)
    told = {ish: mapping.number("2+", ish) for ish in ("Positive", "amplified", "negative", "", "unknown")}
    assert told == {"Positive": 2, "amplified": 2, "negative": 1, "": 1, "unknown": 1}
    assert [mapping.number(score, "positive") for score in ("0", "1+", "3+")] == [0, 1, 2]
    assert class_mapping("low").number("2+", "positive") == 1


def test_the_card_is_told_what_each_class_holds() -> None:
    assert class_mapping("low").findings == {"0": ("0",), "Low": ("1+", "2+"), "High": ("3+",)}
    assert class_mapping("3: yes, 2: no, 1+: no, 0: no").findings == {"no": ("0", "1+", "2+"), "yes": ("3+",)}
    found = class_mapping("low", ish=True).findings
    assert found == {"0": ("0",), "Low": ("1+", NO_POSITIVE_ISH), "High": ("3+", POSITIVE_ISH)}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("scores", r"\[data\] ish would call a 2\+ with a positive ISH '3\+'"),
        ("binary", r"\[data\] ish moves a 2\+ .* both are 'positive' already"),
    ],
)
def test_ish_is_refused_where_it_would_mislabel_or_do_nothing(classes: str, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        class_mapping(classes, ish=True)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("0: 0, 1+: Low, 3+: High", r"\[data\] classes leaves out the score 2\+"),
        ("0: 0, 1+: Low, 2+: Low, 3+: High, 4+: High", r"\[data\] classes has the score '4\+'"),
        ("0: a, 1+: b, 2+: a, 3+: b", r"\[data\] classes has 'a' twice, with another class between"),
        ("0: 0, 1+: Low, 1: Low, 2+: Low, 3+: High", r"gives the score 1\+ twice"),
        ("0: no, 1+: Low, 2+: low, 3+: High", "the same in other letters"),
        ("0: a, 1+: a, 2+: a, 3+: a", "has the one class 'a'"),
        ("three", r"must be one of 'scores', 'low', 'binary', or give each score its class"),
    ],
)
def test_what_a_mapping_leaves_out_or_muddles_is_refused_by_its_key(classes: str, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        class_mapping(classes)


def test_splits_hold_the_classes_of_the_mapping_in_proportion() -> None:
    cases = [case(n, SCORES[n % 4]) for n in range(40)]
    (split,) = make_splits(cases, StainedCasesConfig(classes="low", validation=0.25, test=0.2))
    counts = [sum(label_of(c, "low") == n for c in split.test) for n in range(3)]
    assert counts == [2, 4, 2]


def test_an_ish_that_cannot_be_read_is_named_with_its_row_and_only_where_it_counts() -> None:
    cases = [case(n, SCORES[n % 4], "perhaps" if n == 6 else "") for n in range(40)]
    with pytest.raises(JobFailed, match=r"Row 6 of the manifest: ish 'perhaps' is no result"):
        make_splits(cases, StainedCasesConfig(classes="low", ish=True))
    make_splits(cases, CasesConfig())
    two = [case(n, "2+", ish, "same") for n, ish in enumerate(("positive", "negative"))]
    with pytest.raises(JobFailed, match="Give a case one result"):
        make_splits(two, StainedCasesConfig(classes="low", ish=True))
