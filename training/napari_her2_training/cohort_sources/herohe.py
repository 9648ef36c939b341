"""HEROHE: H&E slides of the ECDP 2020 challenge, with IHC score and final HER2 result of each case."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.class_scores import EQUIVOCAL
from napari_her2.spreadsheets import TABLES, WORKBOOKS
from napari_her2_training.cohort_sources.joining import Gathered, add_slides, row_of
from napari_her2_training.cohort_sources.scores import read_ish
from napari_her2_training.cohort_sources.slide_names import SlideIndex, files_in
from napari_her2_training.cohort_sources.tables import CaseTable, read_case_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.found import Found
    from napari_her2_training.cohort_sources.options import ImportOptions

_PARTS = ("train", "test")
_MARKS = ("ground truth", "groundtruth", "gtinfo")
_WANTED = ("case_id", "score", "result")


def find_herohe(folder: Path, options: ImportOptions) -> Found:
    """Find the cases of the two tables of ground truth, and their slides in the folders train and test.

    Numbers of cases occur in both parts and are other slides there, so the part stands before them: train-17.
    The result of ISH is known of 2+ alone: there it is what decided the final result.
    """
    tables = _tables(folder)
    if not tables:
        raise JobFailed(
            f"{folder.name} holds no table of ground truth, such as Training (ground truth).xlsx: choose the "
            f"folder with the tables and the slides of HEROHE."
        )
    gathered = Gathered()
    first: CaseTable | None = None
    for part, path in tables.items():
        table = read_case_table(
            path, options.columns, wanted=_WANTED, mapped=options.mapped, needed=("case_id", "score")
        )
        index = SlideIndex(_slides(folder, part, alone=len(tables) == 1))
        _add(gathered, table, part, index, options)
        gathered.note_unused(index, part)
        gathered.faults += table.faults
        gathered.notes += table.all_notes()
        first = first or table
    found = gathered.found()
    return replace(found, columns=first.columns if first is not None else None)


def _add(gathered: Gathered, table: CaseTable, part: str, index: SlideIndex, options: ImportOptions) -> None:
    for row in table.rows:
        own = row.text("case_id")
        made = replace(row_of(table, row, options.mapped), split=part)
        if made.score == EQUIVOCAL:
            made = replace(made, ish=read_ish(row.text("result")) or "")
        before = len(gathered.rows)
        add_slides(gathered, row, made, index, (), "he")
        if len(gathered.rows) > before:
            name = f"{part}-{own}"
            gathered.rows[-1] = replace(gathered.rows[-1], case_id=name, where=f"{row.where} of {table.name}")


def _tables(folder: Path) -> dict[str, Path]:
    """Return the table of each part; of two for one part the workbook."""
    found: dict[str, Path] = {}
    paths = sorted(
        files_in(folder, TABLES | WORKBOOKS), key=lambda path: path.suffix.lower() not in WORKBOOKS
    )
    for path in paths:
        name = path.stem.casefold()
        if any(mark in name for mark in _MARKS):
            part = next((part for part in _PARTS if _names(name, part)), None)
            if part is not None:
                found.setdefault(part, path)
    return {part: found[part] for part in _PARTS if part in found}


def _names(name: str, part: str) -> bool:
    """Whether a name has a word that begins with a part: Training, wsi_test, but not latest."""
    return re.search(rf"(?<![a-z]){part}", name.casefold()) is not None


def _slides(folder: Path, part: str, *, alone: bool) -> Path:
    """Return the folder of the slides of a part."""
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    places += [path for place in places[1:] for path in sorted(place.iterdir()) if path.is_dir()][:1000]
    named = [path for path in places if _names(path.name, part) and path != folder]
    if named:
        return named[0]
    if alone:
        return folder
    raise JobFailed(
        f"{folder.name} has no folder {part}: training and test slides have the same numbers, so put them "
        f"into folders called train and test."
    )
