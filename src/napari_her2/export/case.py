"""The case of a result, as result.json has it: whose slide it is, and what its answer needs to be joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_her2.export.doubt import doubt_values
from napari_her2.inference.withheld import without_answer
from napari_her2.models.answer_sets import thresholds
from napari_her2.models.case_slides import promise_refusal

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult


def case_values(result: SlideResult) -> dict[str, Any]:
    """Return what a result says of its case; nothing where nobody named one.

    Parameters
    ----------
    result : SlideResult
        As it may be seen, see `napari_her2.inference.withheld.without_answer`.

    Returns
    -------
    dict
        "case": its "case_id"; "scorings", how many slides or pairs of it there are; "way" and "rule", how one
        answer comes of them; and "promise", by which the joined answer gets its set: "coverage", "cases", and
        "limits", how far down each class may lie (`napari_her2.models.answer_sets.Thresholds`), or "refused",
        why there is no promise.
    """
    case = result.case
    if case is None:
        return {}
    values = {"case_id": case.case_id, "scorings": case.scorings, "way": case.way, "rule": case.rule}
    return {"case": values | {"promise": _promise(result)}}


def joining_values(result: SlideResult) -> dict[str, Any]:
    """Return of a result.json what answers are joined by (`napari_her2.cohort.case_answer`), and no more.

    Parameters
    ----------
    result : SlideResult
        Nothing of an answer that is withheld is returned.
    """
    seen = without_answer(result)
    return {
        "method": seen.method,
        "model": seen.model,
        "model_sha256": seen.model_sha256,
        "task": seen.task,
        "notice": seen.notice,
        "label": seen.label,
        "score": seen.score,
        "abstained": seen.abstained,
        "reason": seen.reason,
        "head": seen.head or None,
        "class_scores": {name: list(held) for name, held in seen.class_scores.items()},
        "probabilities": dict(seen.probabilities),
        "slides": [
            {
                "slide": scored.path.name,
                "familiarity": scored.familiarity.verdict,
                "probabilities": dict(scored.alone),
            }
            for scored in seen.slides
        ],
        **doubt_values(seen),
        **case_values(seen),
        **{name: value for name, value in seen.measures.items() if name == "percentages"},
    }


def _promise(result: SlideResult) -> dict[str, Any] | None:
    case, limits, asked = result.case, result.limits, result.asked
    known = None if result.answer_sets is None else result.answer_sets.of(result.head)
    if case is None or known is None or asked is None:
        return None
    coverage, cases = asked.options.coverage, len(known.scores)
    given: dict[str, Any] = {"coverage": coverage, "cases": cases, "limits": None, "refused": ""}
    calibrated = (limits.case_slides, limits.case_rule)
    if refused := promise_refusal(calibrated, (case.way, case.rule), case.scorings):
        return given | {"refused": refused}
    found = thresholds(known, len(result.classes), coverage)
    if found is None:
        return given | {"refused": f"{cases} calibration cases are too few"}
    return given | {"limits": dict(zip(result.classes, found.by_class.tolist(), strict=True))}
