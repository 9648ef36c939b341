"""Yale (TCIA, HER2-TUMOR-ROIS): H&E slides called HER2 positive or negative, and slides by their response."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.slide.names import slide_name
from napari_her2.spreadsheets import WORKBOOKS
from napari_her2_training.cohort_sources.found import Found, ManifestRow, Outlines, checked
from napari_her2_training.cohort_sources.scores import NoScore, read_score
from napari_her2_training.cohort_sources.slide_names import SlideIndex, files_in, key_of
from napari_her2_training.cohort_sources.tables import read_case_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.options import ImportOptions

_NAME = re.compile(r"her2[ _-]?(pos|neg)\w*?[ _-]case[ _-]?(\d+)", re.IGNORECASE)
_STATUS = {"pos": "positive", "neg": "negative"}
_RESPONDER = "Responder"


def find_yale(folder: Path, options: ImportOptions) -> Found:
    """Find the slides and their outlines; the status is in their names, the response in a table.

    Positive and negative are no scores: a list of slides to score is written, with the status beside them,
    unless the user says what they mean (``--map "negative=0"``).
    """
    index = SlideIndex(folder, {".svs", ".tif", ".tiff"})
    if not index.slides:
        raise JobFailed(f"{folder.name} holds no .svs slide: choose the folder of the Yale cohorts.")
    outlines = {path.stem.casefold(): path for path in files_in(folder, {".xml"})}
    notes: list[str] = []
    response = _response(folder, notes)
    rows, unnamed = [], []
    for path in index.slides:
        name = slide_name(path)
        named = _NAME.search(name)
        label = _STATUS[named[1].lower()] if named else response.get(key_of(name), "")
        if not label:
            unnamed.append(path)
        drawn = outlines.get(name.casefold())
        rows.append(
            ManifestRow(
                index.shown(path), name, path, score=_score(label, options), label=label,
                outlines=None if drawn is None else Outlines(drawn, "xml"),
            )
        )  # fmt: skip
    if unnamed:
        notes.append(f"{len(unnamed)} slides say no status by their name and stand in no table of responses.")
    found = checked(Found(tuple(rows), notes=tuple(notes)))
    if found.scored:
        return found
    words = (
        "Positive and negative are no scores of 0 to 3+, so this is a list to score, no table to learn from. "
        'To learn from it all the same, say what they mean: --map "negative=0" --map "positive=3+".'
    )
    return Found(found.rows, found.faults, found.missing, found.doubled, (*found.notes, words))


def _score(label: str, options: ImportOptions) -> str:
    try:
        return read_score(label, options.mapped)
    except NoScore:
        return ""


def _response(folder: Path, notes: list[str]) -> dict[tuple[str, ...], str]:
    """Read who responded to trastuzumab, by patient."""
    found: dict[tuple[str, ...], str] = {}
    for path in files_in(folder, WORKBOOKS | {".csv"}):
        if "metadata" not in path.stem.casefold():
            continue
        table = read_case_table(path, {"result": _RESPONDER}, wanted=("case_id",))
        for row in table.rows:
            found[key_of(row.text("case_id"))] = f"responder: {row.text('result')}"
        notes += table.faults
    return found
