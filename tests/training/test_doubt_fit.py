"""What a model keeps of its cases, fitted to invented ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_her2.inference.doubt import Signature
from napari_her2.models.answer_sets import answer_set
from napari_her2.models.familiarity import APPEARANCE, FEATURES
from napari_her2_training.cohort.manifest import Case
from napari_her2_training.doubt.counting import most_promised, needed_for
from napari_her2_training.doubt.fit import (
    CALIBRATION,
    TRAINING,
    VALIDATION,
    draw_cases,
    fit_familiarity,
    fit_sets,
    one_a_case,
)
from napari_her2_training.doubt.scored_cases import ScoredCase

CLASSES = ("0", "1+", "2+", "3+")


def looks(count: int, seed: int, *, stain: str = "H&E", away: float = 0.0) -> list[Signature]:
    rng = np.random.default_rng(seed)
    return [
        Signature(
            f"s{number}",
            stain,
            rng.normal(away, 1, (40, 6)).astype(np.float16),
            rng.normal(away, 1, (9, 4)).astype(np.float32),
        )
        for number in range(count)
    ]


def scored(labels: list[int], seed: int, heads: tuple[str, ...] = ("slide",)) -> list[ScoredCase]:
    rng = np.random.default_rng(seed)
    return [
        ScoredCase(f"c{n}", label, (), {head: rng.dirichlet(np.ones(4)) for head in heads})
        for n, label in enumerate(labels)
    ]


def rows(*names: str) -> list[Case]:
    return [Case(n + 2, name, Path(f"{n}.svs"), None, "0") for n, name in enumerate(names)]


def test_each_stain_and_each_description_has_a_space_and_strange_slides_lie_farther() -> None:
    remarks: list[str] = []
    both = {
        TRAINING: looks(8, 1) + looks(8, 2, stain="IHC"),
        VALIDATION: looks(5, 3) + looks(5, 4, stain="IHC"),
        CALIBRATION: looks(4, 5) + looks(4, 6, stain="IHC"),
    }
    found, card = fit_familiarity(both, remarks, seed=0)
    assert remarks == []
    assert found is not None
    assert card is not None
    assert set(found.spaces) == {(s, k) for s in ("H&E", "IHC") for k in (FEATURES, APPEARANCE)}
    assert (card.learnt, card.validated) == (16, 18)
    assert card.made_from == "16 training slides; limits from 10 validation and 8 calibration slides"
    space = found.spaces["H&E", FEATURES]
    near, far = (np.median(space.distances(looks(1, 9, away=away)[0].features)) for away in (0.0, 6.0))
    assert far > 2 * near


def test_without_pixels_there_is_no_space_of_them() -> None:
    parts = {TRAINING: looks(4, 1), VALIDATION: looks(3, 2), CALIBRATION: []}
    bare = {
        part: [Signature(one.slide, one.stain, one.features, None) for one in own]
        for part, own in parts.items()
    }
    found, card = fit_familiarity(bare, [], seed=0)
    assert found is not None
    assert card is not None
    assert list(found.spaces) == [("H&E", FEATURES)]
    assert card.appearance is None
    assert card.made_from == "4 training slides; limits from 3 validation slides"


def test_two_validation_slides_make_no_limits_and_that_is_said() -> None:
    remarks: list[str] = []
    found, card = fit_familiarity(
        {TRAINING: looks(4, 1), VALIDATION: looks(2, 2), CALIBRATION: []}, remarks, seed=0
    )
    assert found is None
    assert card is None
    assert len(remarks) == 3
    assert all("2 validation slides" in remark for remark in remarks[:2])
    assert "keeps nothing of what it has seen" in remarks[-1]


def test_constant_features_are_left_out_and_the_rest_is_kept() -> None:
    remarks: list[str] = []
    parts = {TRAINING: looks(4, 1), VALIDATION: looks(3, 2), CALIBRATION: []}
    constant = {
        part: [Signature(one.slide, one.stain, np.ones((5, 3), np.float32), one.appearance) for one in own]
        for part, own in parts.items()
    }
    found, _ = fit_familiarity(constant, remarks, seed=0)
    assert found is not None
    assert list(found.spaces) == [("H&E", APPEARANCE)]
    (remark,) = remarks
    assert "features of H&E slides are left out" in remark


def test_sets_rest_on_both_parts_and_a_class_without_cases_shares_the_limit() -> None:
    remarks: list[str] = []
    seen = {VALIDATION: scored([0, 0, 1, 2] * 3, 1), CALIBRATION: scored([1, 2] * 2, 2)}
    sets, card = fit_sets(seen, CLASSES, remarks)
    assert sets is not None
    assert card is not None
    assert card.cases == {"slide": {"0": 6, "1+": 5, "2+": 5}}
    assert (
        card.made_from == "12 validation and 4 calibration cases; the validation cases also chose the epoch"
    )
    assert remarks == ["No validation or calibration case of 3+: it shares the limit of all."]
    answer = answer_set(np.full(4, 0.25), CLASSES, sets.heads["slide"], 0.9)
    assert answer.cases == 16
    assert "3+" in answer.pooled
    # Of each case the probability that is passed on the way from the first class to the true one.
    for case, score in zip([*seen[VALIDATION], *seen[CALIBRATION]], sets.heads["slide"].scores, strict=True):
        assert score == pytest.approx(passed(case.probabilities["slide"], case.label), abs=1e-6)


def passed(chances: np.ndarray, label: int) -> float:
    """The same by looking at every interval that the way can have reached."""
    inside = {int(chances.argmax())}
    total = 0.0
    while label not in inside:
        total = sum(chances[number] for number in inside)
        beside = [number for number in (min(inside) - 1, max(inside) + 1) if 0 <= number < len(chances)]
        inside.add(max(beside, key=lambda number: chances[number]))
    return float(total)


def test_each_head_counts_the_cases_that_it_answered() -> None:
    both, alone = scored([0, 1, 2, 3], 1, ("fusion", "H&E", "IHC")), scored([3], 2, ("IHC",))
    remarks: list[str] = []
    sets, card = fit_sets({VALIDATION: both, CALIBRATION: alone}, CLASSES, remarks)
    assert sets is not None
    assert card is not None
    assert {head: card.total(head) for head in card.cases} == {"fusion": 4, "H&E": 4, "IHC": 5}
    assert remarks == []
    nothing: list[str] = []
    assert fit_sets({VALIDATION: [], CALIBRATION: []}, CLASSES, nothing) == (None, None)
    assert "can promise nothing" in nothing[0]


def test_cases_are_drawn_by_the_seed_in_their_order_and_one_slide_of_each() -> None:
    cases = rows(*(f"c{number}" for number in range(50)))
    some = draw_cases(cases, 7, 3)
    assert some == draw_cases(cases, 7, 3) != draw_cases(cases, 7, 4)
    assert [case.row for case in some] == sorted({case.row for case in some})
    assert draw_cases(cases[:5], 7, 3) == tuple(cases[:5])
    several = rows("a", "a", "a", "b", "c", "c")
    drawn = [tuple(case.row for case in one_a_case(several, seed)) for seed in range(40)]
    assert all(len(own) == 3 for own in drawn)
    assert {own[0] for own in drawn} == {2, 3, 4}


@pytest.mark.parametrize("cases", [1, 3, 8, 9, 19, 98, 99, 1000])
def test_what_can_be_promised_is_what_a_threshold_can_keep(cases: int) -> None:
    highest = most_promised(cases)
    assert needed_for(highest) <= cases
    if highest < 0.99:
        assert needed_for(highest + 0.01) > cases
