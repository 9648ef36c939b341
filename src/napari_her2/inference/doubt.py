"""How far an answer can be trusted: how the slide looks to the model, and what is promised."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2.models.familiarity import LEAST_FAMILIARITY, NOT_KNOWN, UNLIKE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.models.answer_sets import AnswerSet
    from napari_her2.models.familiarity import Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """What a slide looks like to a model: some of its tiles, described.

    Parameters
    ----------
    slide, stain : str
    features : (N, D) float32
        Of tiles drawn over the slide, as the model sees them; (0, D) where there are none.
    appearance : (M, A) float32 or None
        What the pixels look like (`napari_her2.inference.appearance`); None where no pixels were at hand.
    """

    slide: str
    stain: str
    features: NDArray[np.float32]
    appearance: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class SpaceFamiliarity:
    """How strange a slide is in one way of describing tiles.

    Parameters
    ----------
    whole, upper : float
        Share of slides like those of validation that would look at least as strange, by the median of their
        tiles and by the upper tenth.
    times_whole, times_upper : float
        How many times as far off as on a typical validation slide these tiles are.
    inside : float
        Share of the tiles in the regions that are farther off than 99 % of those of validation slides; all
        else is then by tiles of the whole slide. NaN where the scoring was not limited, or none was compared.
    """

    whole: float
    upper: float
    times_whole: float
    times_upper: float
    inside: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class SlideFamiliarity:
    """How much a slide looks like what the model learnt from.

    Parameters
    ----------
    verdict : str
        "familiar", "in part", "unlike" or "not known".
    value : float
        Share of slides like those of validation that would look at least as strange; NaN where not known.
    unfamiliar : float
        Share of the tiles that are farther off than 99 % of those of validation slides; NaN where not known.
    distances : (N,) float32 or None
        Of each tile of the slide, in the order of its table, in units of that limit.
    by_space : mapping of str to float
        ``value`` by each kind of space alone.
    reason : str
        What is strange, in words; empty of a familiar slide.
    upper : float
        As ``value``, by the upper tenth of its tiles; NaN where not known.
    spaces : mapping of str to SpaceFamiliarity
        What both are made of, by kind of space.
    whole : bool
        Whether it was compared in every space that the model keeps: else nothing is called familiar.
    limited : bool
        Whether it was scored in regions: then the slide was compared as a whole, and each tile in the regions
        by itself.
    only_inside : bool
        Whether what is strange is the tissue in the regions, and not the slide as a whole.
    """

    verdict: Verdict = NOT_KNOWN
    value: float = math.nan
    unfamiliar: float = math.nan
    distances: NDArray[np.float32] | None = None
    by_space: Mapping[str, float] | None = None
    reason: str = ""
    upper: float = math.nan
    spaces: Mapping[str, SpaceFamiliarity] = field(default_factory=dict)
    whole: bool = True
    limited: bool = False
    only_inside: bool = False


NOTHING_KNOWN = SlideFamiliarity()


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the models of an ensemble part.

    Parameters
    ----------
    models, agree : int
        How many there are, and how many of them name the class of the ensemble.
    sd : mapping of str to float
        Standard deviation of the probability of each class between them.
    """

    models: int
    agree: int
    sd: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far the answer of a result can be trusted.

    Parameters
    ----------
    answer : AnswerSet or None
        The set of scores and its promise; None of a model that can make none.
    verdict : str
        Of the strangest slide of the result.
    familiarity : float
        Its value; NaN where not known.
    reason : str
        What is strange about it.
    min_familiarity : float
        Below it the answer is withheld; 0 withholds none, and then "unlike" is only told.
    spread : Spread or None
        Between the models of an ensemble; None of a single model.
    shown_anyway : bool
        Whether the user asked to see an answer that is withheld.
    only_inside : bool
        Whether the tissue in the regions is strange, and not the slide as a whole.
    """

    answer: AnswerSet | None = None
    verdict: Verdict = NOT_KNOWN
    familiarity: float = math.nan
    reason: str = ""
    min_familiarity: float = LEAST_FAMILIARITY
    spread: Spread | None = None
    shown_anyway: bool = False
    only_inside: bool = False

    @property
    def withheld(self) -> bool:
        """Whether there is no answer because the slide is unlike what the model learnt from."""
        return self.verdict == UNLIKE and self.min_familiarity > 0

    @property
    def hidden(self) -> bool:
        """Whether the answer is kept from sight: it is withheld, and nobody asked to see it anyway."""
        return self.withheld and not self.shown_anyway


NO_DOUBT_KNOWN = Doubt()
"""Of a result whose model says nothing of itself, which is no reason to trust it."""
