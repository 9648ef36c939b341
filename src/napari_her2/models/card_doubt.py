"""What a card says of the doubt that its bundle keeps: what the model has seen, and what it can promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.models import card_checks as check
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST = 10**7
"""Slides or cases that a model can have seen."""


@dataclass(frozen=True, slots=True)
class FamiliarityCard:
    """From what a model's familiarity was made.

    Parameters
    ----------
    learnt : int
        Training slides described.
    validated : int
        Slides behind the limits, which the model has not learnt from.
    appearance : int or None
        Version of the description of pixels (`napari_her2.inference.appearance`); None where no space of it
        is kept.
    made_from : str
        In words: "128 training and 32 validation slides".
    """

    learnt: int
    validated: int
    appearance: int | None
    made_from: str

    def __post_init__(self) -> None:
        check.integer(self, "learnt", 1, _MOST)
        check.integer(self, "validated", 1, _MOST)
        if self.appearance is not None:
            check.integer(self, "appearance", 1, _MOST)
        check.line(self, "made_from")


@dataclass(frozen=True, slots=True)
class AnswerSetsCard:
    """From what a model's promise was made.

    Parameters
    ----------
    cases : mapping of str to mapping of str to int
        Calibration cases by head, as the temperatures of a card, and class. Classes without cases may be
        missing.
    made_from : str
        In words: "validation and calibration cases; the validation cases also chose the epoch".
    """

    cases: Mapping[str, Mapping[str, int]]
    made_from: str

    def __post_init__(self) -> None:
        check.line(self, "made_from")
        object.__setattr__(self, "cases", check.case_counts(self.cases, _MOST))

    def total(self, head: str) -> int:
        """Return the calibration cases of a head."""
        return sum(self.cases[head].values())


def check_answer_sets(part: AnswerSetsCard, heads: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse cases of heads or classes that a model does not have.

    Raises
    ------
    ModelError
    """
    for head, cases in part.cases.items():
        if head not in heads:
            raise check.wrong("answer_sets.cases", f"must name nothing but the heads {', '.join(heads)}")
        if any(name not in classes for name in cases):
            raise check.wrong("answer_sets.cases", "must count cases of classes of the model")


def familiarity_words(part: FamiliarityCard | None) -> str:
    """Say in a line what a model knows of what it has seen.

    Examples
    --------
    >>> familiarity_words(FamiliarityCard(128, 32, 1, "128 training and 32 validation slides"))
    '128 training slides, limits from 32 validation slides'
    >>> familiarity_words(None)
    'not known'
    """
    if part is None:
        return "not known"
    learnt, validated = counted(part.learnt, "training slide"), counted(part.validated, "validation slide")
    return f"{learnt}, limits from {validated}"


def answer_sets_words(part: AnswerSetsCard | None) -> str:
    """Say in a line what the promise of a model rests on.

    Examples
    --------
    >>> answer_sets_words(AnswerSetsCard({"slide": {"0": 40, "1+": 39}}, "validation cases"))
    '79 calibration cases (40 of 0, 39 of 1+)'
    >>> answer_sets_words(None)
    'no sets'
    """
    if part is None:
        return "no sets"
    words = []
    for head, cases in part.cases.items():
        by_class = ", ".join(f"{count:,} of {name}" for name, count in cases.items())
        prefix = f"{head}: " if len(part.cases) > 1 else ""
        words.append(f"{prefix}{counted(part.total(head), 'calibration case')} ({by_class})")
    return "; ".join(words)


def doubt_words(familiarity: FamiliarityCard | None, answer_sets: AnswerSetsCard | None) -> str:
    """Say in a few words what a model knows of its own doubt, for lists of models.

    Examples
    --------
    >>> doubt_words(FamiliarityCard(128, 32, 1, "slides"), AnswerSetsCard({"slide": {"0": 40}}, "cases"))
    'seen: 128 slides; sets: 40 cases'
    >>> doubt_words(None, None)
    'seen: not known; no sets'
    """
    seen = "not known" if familiarity is None else counted(familiarity.learnt, "slide")
    if answer_sets is None:
        return f"seen: {seen}; no sets"
    cases = max(answer_sets.total(head) for head in answer_sets.cases)
    return f"seen: {seen}; sets: {counted(cases, 'case')}"
