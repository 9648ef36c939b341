"""BCNB: core-needle biopsies, H&E slides as JPEG with tumour outlines, a clinical table and given splits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.class_scores import EQUIVOCAL
from napari_her2.outside import MiB, Reading, shown
from napari_her2_training.cohort_sources.found import Outlines, named_few, split_of
from napari_her2_training.cohort_sources.joining import Gathered, add_slides, row_of, with_scale
from napari_her2_training.cohort_sources.scores import read_ish
from napari_her2_training.cohort_sources.slide_names import SlideIndex, clinical_table, files_in, key_of
from napari_her2_training.cohort_sources.tables import read_case_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.found import Found
    from napari_her2_training.cohort_sources.options import ImportOptions

_WANTED = ("case_id", "score", "result")
_LISTS = Reading(limit=MiB, advice="get it again from its source")
_PICTURES = frozenset({".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".png"})
NO_SCALE = "The pictures say no µm/px, and nothing can be learnt from them without: give it (--mpp)."


def find_bcnb(folder: Path, options: ImportOptions) -> Found:
    """Find the patients of the clinical table, their slides, outlines and parts.

    The column HER2 (positive or negative) says of a 2+ what ISH decided, and is kept as such; the score is
    that of HER2 Expression.
    """
    path = _clinical(folder)
    table = read_case_table(
        path,
        options.columns,
        wanted=_WANTED,
        mapped=options.mapped,
        needed=("case_id", "score"),
        sheet=options.sheet,
    )
    index = SlideIndex(
        next((sub for sub in folder.iterdir() if sub.name.casefold() == "wsis"), folder), _PICTURES
    )
    gathered = Gathered()
    parts = _parts(folder, gathered)
    outlined = {path.with_suffix("") for path in files_in(index.folder, {".json"})}
    for row in table.rows:
        made = row_of(table, row, options.mapped)
        ish = (read_ish(row.text("result")) or "") if made.score == EQUIVOCAL else ""
        made = replace(made, ish=ish, split=parts.get(key_of(made.case_id), ""))
        add_slides(gathered, row, made, index, (), "he")
    gathered.rows = [
        replace(row, outlines=Outlines(row.he.with_suffix(".json"), "bcnb"))
        if row.he is not None and row.he.with_suffix("") in outlined
        else row
        for row in with_scale(gathered.rows, options.mpp)
    ]
    if without := [row.case_id for row in gathered.rows if row.outlines is None]:
        gathered.notes.append(f"No outlines of the tumour of {named_few(without)}.")
    if parts and (open_ := [row.case_id for row in gathered.rows if not row.split]):
        gathered.notes.append(f"In none of the given splits, and not used with them: {named_few(open_)}.")
    if options.mpp is None and any(row.mpp is None for row in gathered.rows):
        gathered.notes.append(NO_SCALE)
    gathered.note_unused(index)
    return gathered.found(table)


def _clinical(folder: Path) -> Path:
    if (path := clinical_table(folder)) is not None:
        return path
    raise JobFailed(
        f"{folder.name} holds no patient-clinical-data.xlsx: choose the folder with that table and WSIs."
    )


def _parts(folder: Path, gathered: Gathered) -> dict[tuple[str, ...], str]:
    """Read train_id.txt, val_id.txt and test_id.txt: the part of each patient."""
    parts: dict[tuple[str, ...], str] = {}
    for path in files_in(folder, {".txt"}):
        part = split_of(path.stem.casefold().removesuffix("_id"))
        if not part or not path.stem.casefold().endswith("_id"):
            continue
        for number, line in enumerate(_LISTS.text(path).replace(",", "\n").splitlines(), 1):
            name = line.strip()
            if name and parts.setdefault(key_of(name), part) != part:
                other = parts[key_of(name)]
                gathered.faults.append(
                    f"Line {number} of {path.name}: patient {shown(name, 40)} is in {other} already: take it "
                    f"out of one."
                )
    return parts
