"""A result judged: what its probabilities promise, how familiar its slides are, and what is said of both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.unfamiliar import UNFAMILIAR
from napari_her2.inference.doubt import Doubt
from napari_her2.inference.familiarity_verdict import judged_by
from napari_her2.inference.presentation import doubted_label
from napari_her2.models.answer_sets import AnswerSet, answer_set
from napari_her2.models.case_slides import EACH, JOINED_ANSWERS, promise_refusal
from napari_her2.models.class_scores import in_order
from napari_her2.models.familiarity import FAMILIAR, IN_PART, NOT_KNOWN, UNLIKE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.inference.doubt import SlideFamiliarity
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.models.answer_sets import AnswerSets
    from napari_her2.models.familiarity import Verdict

_SEVERITY: tuple[Verdict, ...] = (FAMILIAR, NOT_KNOWN, IN_PART, UNLIKE)
"""Of two slides the one farther down speaks for the result: what is not known is no reason to trust."""


def redoubted(
    result: SlideResult,
    bundle_sets: AnswerSets | None = None,
    *,
    coverage: float,
    min_familiarity: float,
    show_withheld: bool,
) -> SlideResult:
    """Judge a result by other wishes; nothing is computed again.

    Parameters
    ----------
    result : SlideResult
    bundle_sets : AnswerSets or None
        What the model can promise; None takes what the result has kept of it.
    coverage : float
        How often the set is to hold the truth.
    min_familiarity : float
        Below it the answer is withheld; 0 withholds none.
    show_withheld : bool
        Whether an answer that is withheld is shown anyway, with that said.

    Returns
    -------
    SlideResult
        With the doubt, the label and the reason of those wishes, as if it had been scored with them. The
        same one where the method gives no probabilities.
    """
    if not result.probabilities:
        return result
    sets = bundle_sets or result.answer_sets
    slides = tuple(_rejudged(scored, min_familiarity) for scored in result.slides)
    strangest = _strangest(slides)
    doubt = Doubt(
        answer=_promised(result, sets, coverage),
        verdict=strangest.verdict,
        familiarity=strangest.value,
        reason=strangest.reason,
        min_familiarity=min_familiarity,
        spread=result.doubt.spread,
        only_inside=strangest.only_inside,
    )
    doubt = replace(doubt, shown_anyway=show_withheld and doubt.withheld)
    asked = result.asked and result.asked.with_options(
        coverage=coverage, min_familiarity=min_familiarity, show_withheld=show_withheld
    )
    judged = replace(result, slides=slides, doubt=doubt, answer_sets=sets, asked=asked)
    label, reason = doubted_label(judged)
    return replace(judged, label=label, reason=reason, abstained=bool(reason))


def _promised(result: SlideResult, sets: AnswerSets | None, coverage: float) -> AnswerSet | None:
    known = None if sets is None else sets.of(result.head)
    if known is None:
        return None
    if reason := _other_way(result):
        return AnswerSet((), coverage, len(known.scores), reason=reason)
    chances = np.array([result.probabilities[name] for name in result.classes])
    ordered = in_order(result.classes, result.class_scores)
    return answer_set(chances, result.classes, known, coverage, ordered=ordered)


def _other_way(result: SlideResult) -> str:
    """Why what the model was calibrated on says nothing of how this answer came about."""
    case, limits = result.case, result.limits
    if case is None:
        return ""
    # Answers are joined of results like this one: by itself it is that of a slide.
    way = EACH if case.way == JOINED_ANSWERS else case.way
    return promise_refusal((limits.case_slides, limits.case_rule), (way, case.rule), case.scorings)


def _rejudged(scored: ScoredSlide, min_familiarity: float) -> ScoredSlide:
    familiarity = judged_by(scored.familiarity, min_familiarity)
    if familiarity is scored.familiarity:
        return scored
    shown = familiarity.verdict in (IN_PART, UNLIKE)
    maps = tuple(
        replace(of, info=replace(of.info, visible=shown)) if of.kind == UNFAMILIAR.kind else of
        for of in scored.maps
    )
    return replace(scored, familiarity=familiarity, maps=maps)


def _strangest(slides: Sequence[ScoredSlide]) -> SlideFamiliarity:
    each = [scored.familiarity for scored in slides]
    worst = max(_SEVERITY.index(of.verdict) for of in each)
    return min((of for of in each if of.verdict == _SEVERITY[worst]), key=lambda of: of.value)
