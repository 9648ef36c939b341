"""Results of the models for one slide as rows of a table, as far as they may be seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.cohort.case_answer import case_answer
from napari_her2.export.case import joining_values
from napari_her2.inference.presentation import heading
from napari_her2.inference.withheld import without_answer

if TYPE_CHECKING:
    from datetime import datetime

    from napari_her2._napari.session import Session
    from napari_her2.cohort.case_answer import CaseAnswer

WHOLE_TISSUE = "whole tissue"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """What one model says of a slide.

    Parameters
    ----------
    model : str
    answer : str
        As the card of the result words it: one class, a set, "indeterminate" or "withheld".
    familiarity : str
        "familiar", "in part", "unlike" or "not known".
    regions : str
        What the scoring was limited to.
    when : datetime or None
    shown : bool
        Whether it is the one over the slide.
    task : str
        What kind of answer it is.
    """

    model: str
    answer: str
    familiarity: str
    regions: str
    when: datetime | None
    shown: bool
    task: str


def cases_of(session: Session, slide_id: str) -> list[CaseAnswer]:
    """Join what each model says of the open slides of the case of a slide.

    Parameters
    ----------
    session : Session
    slide_id : str

    Returns
    -------
    list of CaseAnswer
        One a model; none of models that scored no slide of a named case.
    """
    found = []
    for model, result in session.results_of(slide_id).items():
        if result.case is None:
            continue
        own = [
            joining_values(other)
            for other in session.results
            if (other.model, other.model_sha256) == (model, result.model_sha256)
            and other.case is not None
            and other.case.case_id == result.case.case_id
        ]
        answer = case_answer(sorted(own, key=lambda values: str(values["slides"][0]["slide"])))
        if answer is not None:
            found.append(answer)
    return found


def model_rows(session: Session, slide_id: str) -> list[ModelRow]:
    """Rows of the models that scored a slide, the first one that did first.

    Parameters
    ----------
    session : Session
    slide_id : str

    Returns
    -------
    list of ModelRow
    """
    shown = session.result(slide_id)
    rows = []
    for model, result in session.results_of(slide_id).items():
        seen = without_answer(result)
        rows.append(
            ModelRow(
                model,
                heading(seen),
                seen.doubt.verdict,
                seen.regions or WHOLE_TISSUE,
                session.scored_at(slide_id, model),
                shown is not None and shown.model == model,
                seen.task,
            )
        )
    return rows
