"""What the user demands of an answer: how often its set holds the truth, how familiar slides are."""

from __future__ import annotations

from dataclasses import dataclass

from napari_her2.models.answer_sets import COVERAGE
from napari_her2.models.familiarity import LEAST_FAMILIARITY


@dataclass(frozen=True, slots=True)
class Demands:
    """What an answer has to fulfil.

    Parameters
    ----------
    coverage : float
        How often the set of scores is to hold the truth, 0.8 to 0.99.
    min_familiarity : float
        Below it the answer is withheld; 0 withholds none.
    """

    coverage: float = COVERAGE
    min_familiarity: float = LEAST_FAMILIARITY
