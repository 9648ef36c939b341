"""One answer a case as a table: ``cases.csv``, beside the table of the slides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_her2.cohort.case_answer import case_answer, lone_answer
from napari_her2.cohort.table_row import NOT_OURS
from napari_her2.export.csv_cells import write_records
from napari_her2.export.result_files import RESULT_FILE, read_result
from napari_her2.inference.class_words import class_name
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_her2.cohort.case_answer import CaseAnswer

CASES_FILE = "cases.csv"
FIRST = (
    *("case", "task", "result", "score", "confidence", "indeterminate", "withheld", "set", "coverage"),
    *("familiarity", "familiarity value", "doubt", "reason", "slides", "answers of the slides", "joined"),
)
LAST = ("model", "notice")
"""Columns of every table, before and behind those of the classes."""


def case_answers(folders: Iterable[Path], *, lone: bool = False) -> list[CaseAnswer]:
    """Join the results of each case and model.

    Parameters
    ----------
    folders : iterable of Path
        Of results, in the order in which slides are listed. Those of no case, that are none of ours, or
        whose slides are answered each by itself, are passed over.
    lone : bool
        Whether cases of one slide are told too, where the slides of any other are joined: then all cases of
        the list have an answer.

    Returns
    -------
    list of CaseAnswer
        In the order of the first slide of each.
    """
    of_case: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for folder in dict.fromkeys(folders):
        try:
            result = read_result(folder / RESULT_FILE)
            key = (str(result["case"]["case_id"]), str(result["model"]), str(result["model_sha256"]))
        except NOT_OURS:
            continue
        of_case.setdefault(key, []).append(result)
    found: list[CaseAnswer] = []
    joined = False
    for results in of_case.values():
        try:
            answer = case_answer(results)
            joined |= answer is not None
            if answer is None and lone:
                answer = lone_answer(results[0])
        except NOT_OURS:
            continue
        if answer is not None:
            found.append(answer)
    return found if joined else []


def write_case_table(path: Path, answers: Sequence[CaseAnswer]) -> None:
    """Write a row a case; nothing, and no older table is left, where no case has several slides joined.

    Parameters
    ----------
    path : Path
    answers : sequence of CaseAnswer

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    if not answers:
        path.unlink(missing_ok=True)
        return
    rows = [_row(answer) for answer in answers]
    between = dict.fromkeys(name for row in rows for name in row if name not in (*FIRST, *LAST))
    with whole_file(path) as scratch:
        write_records(scratch, (*FIRST, *between, *LAST), rows)


def _row(answer: CaseAnswer) -> dict[str, object]:
    held = answer.class_scores
    finite = answer.familiarity_value == answer.familiarity_value
    return {
        "case": answer.case_id,
        "task": answer.task,
        "result": answer.label,
        "score": class_name(answer.score, held) if answer.score else "",
        "confidence": f"{answer.confidence:.4f}" if answer.probabilities else "",
        "indeterminate": "yes" if answer.indeterminate else "no",
        "withheld": "yes" if answer.withheld else "no",
        "set": " or ".join(class_name(name, held) for name in answer.answer_set),
        "coverage": "" if answer.coverage is None else f"{answer.coverage:.2f}",
        "familiarity": answer.familiarity,
        "familiarity value": f"{answer.familiarity_value:.3g}" if finite else "",
        "doubt": answer.doubt,
        "reason": answer.reason,
        "slides": " | ".join(slide.name for slide in answer.slides),
        "answers of the slides": " | ".join(f"{slide.name}: {slide.answer}" for slide in answer.slides),
        "joined": answer.joined,
        **{f"P({class_name(name, held)})": f"{value:.4f}" for name, value in answer.probabilities.items()},
        "model": answer.model,
        "notice": answer.notice,
    }
