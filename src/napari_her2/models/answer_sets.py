"""Answers with a promise: sets of scores that hold the truth as often as they say.

Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates 2021, arXiv:2107.07511): cases that the
model did not learn from tell how far down its probabilities the truth lies; of further cases like them the
set of all scores that lie no farther down holds the truth with the coverage that was asked for. Scores are
ordered, and so is the way down: from the most probable score to its more probable neighbour, and so on (Lu,
Angelopoulos and Pomerantz 2022, arXiv:2207.02238), which makes sets contiguous.

Where a class has cases enough it has a threshold of its own (Mondrian): then 1+ is not covered worse than 3+.

Differences from the paper
--------------------------
- The score of a class is the probability passed on the way to it, without its own: the most probable score is
  always in the set, and no draw decides anything.
- With thresholds by class a set could have a gap; it is filled, which only covers more.

No PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

COVERAGE = 0.9
COVERAGES = (0.8, 0.99)
"""Promised where nobody says otherwise, and the range that may be asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationCases:
    """What the calibration cases say of one head.

    Parameters
    ----------
    scores : (N,) float32
        Of the true class of each case; see `class_scores`.
    labels : (N,) int64
        Number of that class.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AnswerSets:
    """What a model needs to answer with sets.

    Parameters
    ----------
    heads : mapping of str to CalibrationCases
        By head, as the temperatures of a card: `napari_her2.models.card.SLIDE` of models of one head.
    """

    heads: Mapping[str, CalibrationCases]


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
    """

    classes: tuple[str, ...]
    coverage: float
    cases: int
    pooled: tuple[str, ...] = ()
    reason: str = ""


def class_scores(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability that is passed on the way from the most probable class to each.

    Parameters
    ----------
    probabilities : (C,) float
        Calibrated, of ordered classes.

    Returns
    -------
    (C,) float64
        0 of the most probable class, rising on both sides of it.

    Examples
    --------
    >>> class_scores(np.array([0.1, 0.2, 0.6, 0.1])).round(1).tolist()
    [0.9, 0.6, 0.0, 0.8]
    """
    given = np.asarray(probabilities, np.float64)
    low = high = int(given.argmax())
    passed, found = 0.0, np.zeros(len(given))
    passed += float(given[low])
    while low > 0 or high < len(given) - 1:
        below = given[low - 1] if low > 0 else -1.0
        above = given[high + 1] if high < len(given) - 1 else -1.0
        if below >= above:
            low -= 1
            at = low
        else:
            high += 1
            at = high
        found[at] = passed
        passed += float(given[at])
    return found


def threshold(scores: NDArray[np.floating], coverage: float) -> float | None:
    """Return the score that the truth of a further case stays below or at with a probability of ``coverage``.

    Parameters
    ----------
    scores : (N,) float
        Of calibration cases.
    coverage : float

    Returns
    -------
    float or None
        None where the cases are too few for the promise.
    """
    place = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return None if place > len(scores) else float(np.sort(scores)[place - 1])


def answer_set(
    probabilities: NDArray[np.floating], classes: Sequence[str], known: CalibrationCases, coverage: float
) -> AnswerSet:
    """Answer with a set.

    Parameters
    ----------
    probabilities : (C,) float
        Calibrated.
    classes : sequence of str
    known : CalibrationCases
    coverage : float

    Returns
    -------
    AnswerSet
    """
    cases, common = len(known.scores), threshold(known.scores, coverage)
    if common is None:
        need = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        reason = (
            f"{coverage:.0%} cannot be promised from {cases} calibration cases: at least {need} are needed"
        )
        return AnswerSet((), coverage, cases, reason=reason)
    scores = class_scores(probabilities).astype(np.float32)
    own = [threshold(known.scores[known.labels == number], coverage) for number in range(len(classes))]
    inside = [
        number
        for number, limit in enumerate(own)
        if scores[number] <= np.float32(common if limit is None else limit)
    ]
    first, last = min((*inside, int(scores.argmin()))), max((*inside, int(scores.argmin())))
    pooled = tuple(name for name, limit in zip(classes, own, strict=True) if limit is None)
    return AnswerSet(tuple(classes[first : last + 1]), coverage, cases, pooled)
