"""Answers with a promise: sets of scores that hold the truth as often as they say.

Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates 2021, arXiv:2107.07511): cases that the
model did not learn from tell how far down its probabilities the truth lies; of further cases like them the
set of all scores that lie no farther down holds the truth with the coverage that was asked for. Scores are
ordered, and so is the way down: from the most probable score to its more probable neighbour, and so on (Lu,
Angelopoulos and Pomerantz 2022, arXiv:2207.02238), which makes sets contiguous. Classes that are in no order
are taken as they come, the most probable first (Romano et al. 2020, arXiv:2006.02544).

Where every class has cases enough each has a threshold of its own (Mondrian, or class-conditional): then 1+
is not covered worse than 3+, and what holds for each holds for all together. Classes with too few share the
threshold of all cases, and no class then has a lower one: the promise for all cases together stands, and
those classes have none of their own.

Differences from the papers
---------------------------
- The score of a class is the probability passed on the way to it, without its own: the most probable score is
  always in the set, and no draw decides anything. Where the model is right more often than was asked for, the
  sets hold the truth more often than they promise.
- With thresholds by class a set of ordered scores could have a gap; it is filled, which only covers more.
- A class with too few cases keeps the highest of their scores as its threshold where that is above the one it
  shares: a set never shrinks when more coverage is asked for.

No PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import ModelError
from napari_her2.models.card import SLIDE
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

COVERAGE = 0.9
COVERAGES = (0.8, 0.99)
"""Promised where nobody says otherwise, and the range that may be asked for."""
_ROUNDING = 1e-9
"""Far below a case: 0.95 × 20 is 19, whatever its last digit is."""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationCases:
    """What the calibration cases say of one head.

    Parameters
    ----------
    scores : (N,) float32
        Of the true class of each case; see `class_scores`.
    labels : (N,) int64
        Number of that class.

    Raises
    ------
    ModelError
        If these are no scores and classes.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or self.scores.shape != self.labels.shape:
            raise ModelError("The calibration cases of a model need one score and one class each.")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():  # nor NaN
            raise ModelError("The scores of calibration cases are shares of probability, from 0 to 1.")
        if (self.labels < 0).any():
            raise ModelError("The classes of calibration cases are numbered from 0 on.")

    @classmethod
    def of(
        cls, probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, ordered: bool = True
    ) -> CalibrationCases:
        """Score cases whose class is known.

        Parameters
        ----------
        probabilities : (N, C) float
            Calibrated, of cases that the model did not learn from.
        labels : (N,) int
        ordered : bool, default True
            As of `class_scores`.
        """
        numbers = np.asarray(labels, np.int64)
        found = [
            class_scores(row, ordered=ordered)[at] for row, at in zip(probabilities, numbers, strict=True)
        ]
        return cls(np.array(found, np.float32), numbers)

    def counts(self, classes: int) -> tuple[int, ...]:
        """Return how many cases there are of each of so many classes."""
        return tuple(np.bincount(self.labels, minlength=classes)[:classes].tolist())


@dataclass(frozen=True, slots=True, eq=False)
class AnswerSets:
    """What a model needs to answer with sets.

    Parameters
    ----------
    heads : mapping of str to CalibrationCases
        By head, as the temperatures of a card: `napari_her2.models.card.SLIDE` of models of one head.
    """

    heads: Mapping[str, CalibrationCases]

    def of(self, head: str = "") -> CalibrationCases | None:
        """Return the cases of a head, or of the slide; None where none are known of it."""
        return self.heads.get(head or SLIDE)


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """A set of scores with its promise.

    Parameters
    ----------
    classes : tuple of str
        In the order of the model, at least the most probable one; empty where nothing can be promised.
    coverage : float
        How often it holds the truth, of cases like those of calibration.
    cases : int
        Of calibration.
    pooled : tuple of str
        Classes with too few cases for a threshold of their own: they share that of all cases.
    reason : str
        Why nothing can be promised; empty where it is.
    pooled_cases : tuple of int
        How many cases there were of each of ``pooled``.
    """

    classes: tuple[str, ...]
    coverage: float
    cases: int
    pooled: tuple[str, ...] = ()
    reason: str = ""
    pooled_cases: tuple[int, ...] = ()

    def all_of(self, classes: Sequence[str]) -> bool:
        """Whether the set holds every class of a model, and so says nothing."""
        return set(self.classes) >= set(classes)


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """How far down a class may lie and still be in a set.

    Parameters
    ----------
    common : float
        Of all cases together.
    by_class : (C,) float32
        As it is used.
    own : (C,) bool
        Whether a class has cases enough for a promise of its own.
    """

    common: float
    by_class: NDArray[np.float32]
    own: NDArray[np.bool_]


def class_scores(probabilities: NDArray[np.floating], *, ordered: bool = True) -> NDArray[np.float32]:
    """Probability that is passed on the way from the most probable class to each.

    Parameters
    ----------
    probabilities : (C,) float
        Calibrated.
    ordered : bool, default True
        Whether the classes are in order (`napari_her2.models.class_scores.in_order`): the way then leads from
        neighbour to neighbour, otherwise from each class to the next most probable one.

    Returns
    -------
    (C,) float32
        0 of the most probable class, rising along the way. Rounded here, once: what calibration keeps and
        what scoring compares with it are the same numbers.

    Raises
    ------
    ModelError
        If these are no probabilities.

    Examples
    --------
    >>> class_scores(np.array([0.05, 0.25, 0.6, 0.1]))
    array([0.95, 0.6 , 0.  , 0.85], dtype=float32)
    >>> class_scores(np.array([0.3, 0.1, 0.6]), ordered=False)
    array([0.6, 0.9, 0. ], dtype=float32)
    """
    given = np.asarray(probabilities, np.float64)
    if given.ndim != 1 or not given.size or not np.isfinite(given).all() or (given < 0).any():
        raise ModelError("The model gives no probabilities for this slide: choose another model.")
    way = _from_neighbour_to_neighbour(given) if ordered else np.argsort(-given, kind="stable")
    passed = np.concatenate(([0.0], np.cumsum(given[way])[:-1]))
    found = np.empty(len(given), np.float32)
    found[way] = np.minimum(passed, 1.0)  # which a sum of doubles may miss by a digit
    return found


def _from_neighbour_to_neighbour(given: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order in which classes join: the most probable, then the more probable neighbour of those that have."""
    low = high = int(given.argmax())
    way = [low]
    while len(way) < len(given):
        below = given[low - 1] if low > 0 else -1.0
        above = given[high + 1] if high < len(given) - 1 else -1.0
        if below >= above:
            low -= 1
            way.append(low)
        else:
            high += 1
            way.append(high)
    return np.array(way)


def threshold(scores: NDArray[np.floating], coverage: float) -> float | None:
    """Return the score that the truth of a further case stays below or at with a probability of ``coverage``.

    Parameters
    ----------
    scores : (N,) float
        Of calibration cases.
    coverage : float
        Above 0, below 1.

    Returns
    -------
    float or None
        None where the cases are too few for the promise: fewer than `cases_needed`.
    """
    place = int(np.ceil((len(scores) + 1) * coverage - _ROUNDING))
    return None if place > len(scores) else float(np.sort(scores)[place - 1])


def cases_needed(coverage: float) -> int:
    """Return how many cases a coverage takes at least: as many for each class that is to have it by itself.

    Examples
    --------
    >>> [cases_needed(coverage) for coverage in (0.8, 0.9, 0.95, 0.99)]
    [4, 9, 19, 99]
    """
    return int(np.ceil(coverage / (1 - coverage) - _ROUNDING))


def thresholds(known: CalibrationCases, classes: int, coverage: float) -> Thresholds | None:
    """Return the threshold of each class.

    Parameters
    ----------
    known : CalibrationCases
    classes : int
        How many the model has.
    coverage : float

    Returns
    -------
    Thresholds or None
        None where all cases together are too few for the promise.
    """
    common = threshold(known.scores, coverage)
    if common is None:
        return None
    of_class = [known.scores[known.labels == number] for number in range(classes)]
    own = [threshold(scores, coverage) for scores in of_class]
    enough = np.array([limit is not None for limit in own])
    used = np.array(
        [
            scores.max(initial=0.0) if limit is None else limit
            for scores, limit in zip(of_class, own, strict=True)
        ],
        np.float32,
    )
    if not enough.all():
        used = np.maximum(used, np.float32(common))
    return Thresholds(common, used, enough)


def set_members(
    probabilities: NDArray[np.floating], limits: Thresholds, *, ordered: bool = True
) -> NDArray[np.bool_]:
    """Say which classes are in the set of a case.

    Parameters
    ----------
    probabilities : (C,) float
    limits : Thresholds
    ordered : bool, default True
        As of `class_scores`.

    Returns
    -------
    (C,) bool
        The most probable class is always in it; without a gap where classes are in order.
    """
    inside: NDArray[np.bool_] = class_scores(probabilities, ordered=ordered) <= limits.by_class
    if ordered:
        there = np.flatnonzero(inside)
        inside[there[0] : there[-1] + 1] = True
    return inside


def answer_set(
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    known: CalibrationCases,
    coverage: float,
    *,
    ordered: bool = True,
) -> AnswerSet:
    """Answer with a set.

    Parameters
    ----------
    probabilities : (C,) float
        Calibrated.
    classes : sequence of str
        Names, in that order.
    known : CalibrationCases
        Scored with the same ``ordered``.
    coverage : float
    ordered : bool, default True
        As of `class_scores`.

    Returns
    -------
    AnswerSet
        Without classes, and with the reason, where the cases are too few for the promise.
    """
    cases, limits = len(known.scores), thresholds(known, len(classes), coverage)
    if limits is None:
        return AnswerSet((), coverage, cases, reason=refusal(cases, coverage))
    inside = set_members(probabilities, limits, ordered=ordered)
    counts = known.counts(len(classes))
    few = [number for number, enough in enumerate(limits.own) if not enough]
    return AnswerSet(
        tuple(name for name, there in zip(classes, inside, strict=True) if there),
        coverage,
        cases,
        tuple(classes[number] for number in few),
        pooled_cases=tuple(counts[number] for number in few),
    )


def refusal(cases: int, coverage: float) -> str:
    """Say why so few cases carry no promise, as words without a full stop."""
    return (
        f"{100 * coverage:g} % cannot be promised from {counted(cases, 'calibration case')}: at least "
        f"{cases_needed(coverage)} are needed"
    )
