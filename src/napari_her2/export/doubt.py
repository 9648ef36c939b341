"""How far an answer can be trusted, as result.json has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.inference.presentation import trust_line

if TYPE_CHECKING:
    from napari_her2.inference.doubt import Spread
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide


def doubt_values(result: SlideResult) -> dict[str, Any]:
    """Return the doubt of a result; NaN where a number is not known.

    Parameters
    ----------
    result : SlideResult
        As it may be seen, see `napari_her2.inference.withheld.without_answer`.

    Returns
    -------
    dict
        "set", "coverage" and "set_cases": the set of scores, how often such sets hold the truth, and the
        cases behind that promise; None where nothing is promised. "familiarity", "familiarity_value" and
        "unfamiliar_tiles" of the strangest slide. "withheld", "shown_anyway", "doubt" in a line, and
        "models", how far those of an ensemble part. Of a method that measures and predicts nothing they are
        None, and nothing is withheld.
    """
    doubt = result.doubt
    predicts = bool(result.probabilities) or doubt.withheld
    promised = doubt.answer if doubt.answer is not None and doubt.answer.classes else None
    return {
        "set": None if promised is None else list(promised.classes),
        "coverage": None if promised is None else promised.coverage,
        "set_cases": None if promised is None else promised.cases,
        "familiarity": doubt.verdict if predicts else None,
        "familiarity_value": doubt.familiarity,
        "unfamiliar_tiles": _most([slide.familiarity.unfamiliar for slide in result.slides]),
        "min_familiarity": doubt.min_familiarity if predicts else None,
        "withheld": doubt.withheld,
        "shown_anyway": doubt.withheld and doubt.shown_anyway,
        "doubt": trust_line(result),
        "models": None if doubt.spread is None else _models_values(doubt.spread),
    }


def slide_doubt_values(slide: ScoredSlide) -> dict[str, Any]:
    """Return how familiar one slide of a result is.

    Parameters
    ----------
    slide : ScoredSlide

    Returns
    -------
    dict
        "familiarity", "familiarity_value", "unfamiliar_tiles", and "familiarity_by": the value in each
        space.
    """
    known = slide.familiarity
    return {
        "familiarity": known.verdict,
        "familiarity_value": known.value,
        "unfamiliar_tiles": known.unfamiliar,
        "familiarity_by": dict(known.by_space or {}),
    }


def _models_values(spread: Spread) -> dict[str, Any]:
    sd = {name: float(value) for name, value in spread.sd.items()}
    return {"models": spread.models, "agree": spread.agree, "sd": sd}


def _most(shares: list[float]) -> float:
    """Return the greatest of those that are known; NaN where none is."""
    known = [share for share in shares if np.isfinite(share)]
    return max(known, default=float("nan"))
