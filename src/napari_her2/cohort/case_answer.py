"""One answer of a case with several slides, from what their result.json say; nothing is scored for it.

Of slides that were one bag there is one result, whose answer is that of the case. Of slides that were scored
each by itself the method joins the answers. A case is as familiar as its least familiar slide, and a set of
scores is given only where the model was calibrated on cases that were answered in this very way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.inference.class_words import class_label, class_name
from napari_her2.inference.presentation import INDETERMINATE, MIN_CONFIDENCE, WITHHELD, likeness
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.answer_sets import Thresholds, set_members
from napari_her2.models.case_slides import JOINED_ANSWERS, JOINED_BAGS, in_words
from napari_her2.models.class_scores import in_order
from napari_her2.models.familiarity import FAMILIAR, IN_PART, NOT_KNOWN, UNLIKE
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_SEVERITY = (FAMILIAR, NOT_KNOWN, IN_PART, UNLIKE)
STRANGE_CASE = "a slide of the case is unlike what the model learnt from"


@dataclass(frozen=True, slots=True)
class CaseSlide:
    """What is said of a slide of a case by itself, or of a pair of its slides.

    Parameters
    ----------
    name : str
    answer : str
        As its own result words it; of a slide in a bag, what the model makes of it alone.
    familiarity : str
    """

    name: str
    answer: str
    familiarity: str


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """The answer of a case.

    Parameters
    ----------
    case_id, model, task, notice : str
    label : str
        As it is shown: "2+ (equivocal, ISH required)", "indeterminate: ...", "withheld: ...".
    score : str
        The most probable class; empty where none is to be seen.
    probabilities : mapping of str to float
        Empty where there are none, or they are not to be seen.
    answer_set : tuple of str
        Classes; empty where nothing is promised.
    coverage : float or None
        How often such sets hold the truth.
    promise : str
        What is promised, or why nothing is.
    familiarity : str
        Verdict of the least familiar slide.
    familiarity_value : float
        Its value; NaN where not known.
    reason : str
        Why there is no answer, or why it is not to be trusted; empty where nothing speaks against it.
    indeterminate : bool
        Whether there is no answer, for another reason than that it is withheld.
    withheld : bool
        Whether the answer is withheld, and not shown anyway.
    joined : str
        How the answer came of the slides.
    slides : tuple of CaseSlide
    class_scores : mapping of str to tuple of str
        Which scores each class holds.
    """

    case_id: str
    model: str
    task: str
    notice: str
    label: str
    score: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    answer_set: tuple[str, ...] = ()
    coverage: float | None = None
    promise: str = ""
    familiarity: str = NOT_KNOWN
    familiarity_value: float = math.nan
    reason: str = ""
    indeterminate: bool = False
    withheld: bool = False
    joined: str = ""
    slides: tuple[CaseSlide, ...] = ()
    class_scores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def confidence(self) -> float:
        """Probability of the most probable class; NaN where there is none to be seen."""
        return self.probabilities.get(self.score, math.nan)

    @property
    def heading(self) -> str:
        """The answer without the reason why there is none: a class, a set, "indeterminate" or "withheld"."""
        if self.withheld:
            return WITHHELD
        return INDETERMINATE if self.indeterminate else self.label

    @property
    def doubt(self) -> str:
        """How far to trust the answer, in a line."""
        familiar = likeness(self.familiarity, "the least familiar slide of the case")  # type: ignore[arg-type]
        return " · ".join(part for part in (self.promise, familiar) if part)


def case_answer(results: Sequence[Mapping[str, Any]]) -> CaseAnswer | None:
    """Return the answer of a case.

    Parameters
    ----------
    results : sequence of mapping
        What the result.json of one case and one model hold, in the order in which the slides are named.

    Returns
    -------
    CaseAnswer or None
        None where the slides of the case are to be answered each by itself, or no case is named.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, ArithmeticError
        If they are none of ours, or damaged.
    """
    first, case = results[0], results[0].get("case")
    if not case or case["way"] not in (JOINED_BAGS, JOINED_ANSWERS):
        return None
    held = {name: tuple(scores) for name, scores in first.get("class_scores", {}).items()}
    verdict, value = _least_familiar(results)
    common: dict[str, Any] = {
        "case_id": case["case_id"],
        "model": first["model"],
        "task": " / ".join(dict.fromkeys(result["task"] for result in results)),
        "notice": first["notice"],
        "familiarity": verdict,
        "familiarity_value": value,
        "joined": in_words(case["way"], case["rule"]),
        "class_scores": held,
    }
    if case["way"] == JOINED_BAGS:
        return _of_one_bag(first, common)
    common["slides"] = tuple(
        CaseSlide(_named(result), str(result["label"]), result.get("familiarity") or NOT_KNOWN)
        for result in results
    )
    missing = int(case["scorings"]) - len(results)
    if missing > 0:
        has = "has" if missing == 1 else "have"
        reason = f"{missing} of {case['scorings']} slides of the case {has} no result"
        return _without_answer(reason, common)
    if any(_hidden(result) for result in results):
        return CaseAnswer(
            label=f"{WITHHELD}: {STRANGE_CASE}",
            reason=STRANGE_CASE,
            withheld=True,
            promise="no promise holds for such a slide",
            **common,
        )
    return _joined(results, common)


def lone_answer(result: Mapping[str, Any]) -> CaseAnswer | None:
    """Return the answer of a case that has one slide, or one pair of slides: that of its result.

    Parameters
    ----------
    result : mapping
        What its result.json holds.

    Returns
    -------
    CaseAnswer or None
        None where it names no case, or one of several slides.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, ArithmeticError
        If it is none of ours, or damaged.
    """
    case = result.get("case")
    if not case or case["scorings"] != 1:
        return None
    verdict, value = _least_familiar([result])
    common: dict[str, Any] = {
        "case_id": case["case_id"],
        "model": result["model"],
        "task": result["task"],
        "notice": result["notice"],
        "familiarity": verdict,
        "familiarity_value": value,
        "joined": "the case has one slide",
        "class_scores": {name: tuple(scores) for name, scores in result.get("class_scores", {}).items()},
    }
    if len(result["slides"]) > 1:
        common["joined"] = "the case has one pair of slides"
    return _of_one_bag(result, common)


def _of_one_bag(result: Mapping[str, Any], common: dict[str, Any]) -> CaseAnswer:
    held = common["class_scores"]
    slides = []
    for slide in result["slides"]:
        alone = slide.get("probabilities") or {}
        top = max(alone, key=lambda name: alone[name]) if alone else ""
        words = f"{class_name(top, held)} alone (P {alone[top]:.2f})" if top else "not told by itself"
        slides.append(CaseSlide(slide["slide"], words, slide.get("familiarity") or NOT_KNOWN))
    hidden = _hidden(result)
    promised = () if hidden else tuple(result.get("set") or ())
    return CaseAnswer(
        label=str(result["label"]),
        score="" if hidden else str(result["score"]),
        probabilities={} if hidden else dict(result["probabilities"]),
        answer_set=promised,
        coverage=result.get("coverage") if promised else None,
        promise=_promise_words(
            promised,
            result.get("coverage"),
            result.get("set_cases"),
            common["familiarity"],
            ((result.get("case") or {}).get("promise") or {}).get("refused", ""),
        ),
        reason=str(result.get("reason") or ""),
        indeterminate=bool(result["abstained"]) and not result.get("withheld"),
        withheld=hidden,
        slides=tuple(slides),
        **common,
    )


def _joined(results: Sequence[Mapping[str, Any]], common: dict[str, Any]) -> CaseAnswer:
    first, rule = results[0], results[0]["case"]["rule"]
    method = METHODS[first["method"]]
    if not all(result["probabilities"] for result in results):
        return _of_scores(results, common)
    probabilities = method.joined_probabilities([result["probabilities"] for result in results], rule)
    classes = tuple(probabilities)
    score = max(classes, key=lambda name: probabilities[name])
    promised, refused = _promised(results, probabilities, common["class_scores"])
    given = first["case"]["promise"] or {}
    common |= {
        "score": score,
        "probabilities": probabilities,
        "answer_set": promised,
        "coverage": given.get("coverage") if promised else None,
        "promise": _promise_words(
            promised, given.get("coverage"), given.get("cases"), common["familiarity"], refused
        ),
    }
    alone = [result for result in results if result["abstained"] and not result.get("withheld")]
    reason = ""
    if len(alone) == len(results):
        reason = f"every slide is indeterminate by itself ({alone[0].get('reason') or 'no reason is given'})"
    elif promised and set(promised) >= set(classes):
        reason = "none of the scores can be left out"
    elif not promised and probabilities[score] < MIN_CONFIDENCE:
        reason = f"no class reaches a probability of {MIN_CONFIDENCE:.0%}"
    if reason:
        return _without_answer(reason, common)
    label = class_label(score, {}, common["class_scores"])
    if len(promised) > 1:
        *some, last = (class_name(name, common["class_scores"]) for name in promised)
        label = f"{', '.join(some)} or {last} (prediction)"
    if any(result.get("withheld") for result in results):
        return CaseAnswer(label=f"{label}, {WITHHELD}: {STRANGE_CASE}", reason=STRANGE_CASE, **common)
    return CaseAnswer(label=label, **common)


def _of_scores(results: Sequence[Mapping[str, Any]], common: dict[str, Any]) -> CaseAnswer:
    """Join the scores of a method that measures, and gives no probabilities."""
    scores = ["" if result["abstained"] else str(result["score"] or "") for result in results]
    without = sum(not score for score in scores)
    classes = tuple(common["class_scores"]) or tuple(results[0].get("percentages", {}))
    score = "" if without else METHODS[results[0]["method"]].joined_score(scores, classes)
    if not score:
        reason = (
            f"{counted(without, 'slide')} of the case {'has' if without == 1 else 'have'} no score"
            if without
            else "scores of this method are not joined"
        )
        return _without_answer(reason, common)
    common |= {"joined": "one answer a case: the highest score of its slides"}
    return CaseAnswer(label=class_label(score, {}, common["class_scores"]), score=score, **common)


def _without_answer(reason: str, common: dict[str, Any]) -> CaseAnswer:
    return CaseAnswer(label=f"{INDETERMINATE}: {reason}", reason=reason, indeterminate=True, **common)


def _promised(
    results: Sequence[Mapping[str, Any]], probabilities: Mapping[str, float], held: Mapping[str, Any]
) -> tuple[tuple[str, ...], str]:
    """Return the set of the joined probabilities, or why there is none."""
    given = results[0]["case"]["promise"]
    if given is None:
        return (), ""
    if given["refused"]:
        return (), str(given["refused"])
    if len({str(result.get("head")) for result in results}) > 1:
        return (), "some slides of the case were scored as pairs, and others alone"
    classes = tuple(probabilities)
    by_class: NDArray[np.float32] = np.array([given["limits"][name] for name in classes], np.float32)
    limits = Thresholds(0.0, by_class, np.ones(len(classes), bool))
    values = np.array([probabilities[name] for name in classes])
    inside = set_members(values, limits, ordered=in_order(classes, held))
    return tuple(name for name, there in zip(classes, inside, strict=True) if there), ""


def _promise_words(
    promised: Sequence[str],
    coverage: float | None,
    cases: int | None,
    verdict: str,
    refused: str,
) -> str:
    if verdict == UNLIKE:
        return "no promise holds for such a slide"
    if not promised or coverage is None:
        known = f"nothing is promised: {refused}" if refused else ""
        return known or "how often such answers are right is not known"
    return (
        f"the model's sets hold the truth in {100 * coverage:.3g} % of cases like the {cases or 0:,} it was "
        f"calibrated on"
    )


def _least_familiar(results: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    each = [
        (_SEVERITY.index(result.get("familiarity") or NOT_KNOWN), _number(result.get("familiarity_value")))
        for result in results
    ]
    worst = max(rank for rank, _ in each)
    values = [value for rank, value in each if rank == worst and math.isfinite(value)]
    return _SEVERITY[worst], min(values, default=math.nan)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _hidden(result: Mapping[str, Any]) -> bool:
    return bool(result.get("withheld")) and not result.get("shown_anyway")


def _named(result: Mapping[str, Any]) -> str:
    return " + ".join(str(slide["slide"]) for slide in result["slides"])
