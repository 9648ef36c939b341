"""TCGA-BRCA: diagnostic H&E slides, and the HER2 columns of the clinical table, often empty."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.number_words import counted
from napari_her2.outside import shown
from napari_her2_training.cohort_sources.found import named_few
from napari_her2_training.cohort_sources.joining import Gathered, row_of
from napari_her2_training.cohort_sources.slide_names import SlideIndex, clinical_table
from napari_her2_training.cohort_sources.tables import read_case_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.found import Found
    from napari_her2_training.cohort_sources.options import ImportOptions

_BARCODE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", re.IGNORECASE)
_DIAGNOSTIC = re.compile(r"-DX\d*", re.IGNORECASE)
_WANTED = ("case_id", "score", "ish", "result")


def find_tcga_brca(folder: Path, options: ImportOptions) -> Found:
    """Find patients of clinical_patient_brca and their diagnostic slides: each slide is a row of its case.

    The score is her2_ihc_score alone. Where it is empty her2_status_by_ihc says positive or negative, which
    is no score, and the case is left out.
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
    index = SlideIndex(folder)
    slides, frozen = defaultdict(list), 0
    for slide in index.slides:
        barcode = _BARCODE.match(slide.name)
        if barcode is None:
            continue
        if _DIAGNOSTIC.search(slide.name):
            slides[barcode[0].upper()].append(slide)
        else:
            frozen += 1
    gathered = Gathered()
    without, statuses = [], 0
    for row in table.rows:
        barcode = _BARCODE.match(row.text("case_id"))
        if barcode is None:
            continue  # the rows below the names, which say what the columns are
        made = replace(row_of(table, row, options.mapped), case_id=barcode[0].upper())
        if not made.score:
            statuses += bool(row.text("result").strip("[]") and not row.text("result").startswith("["))
            made = replace(made, label=row.text("result"))
        found = slides.pop(made.case_id, [])
        if not found:
            without.append(made.case_id)
        gathered.rows += [replace(made, he=slide) for slide in found]
    if without:
        gathered.missing.append(
            f"{counted(len(without), 'patient')} without a diagnostic slide in {shown(folder.name)}: "
            f"{named_few(without)}."
        )
    if frozen:
        gathered.notes.append(
            f"{counted(frozen, 'frozen section')} left out: diagnostic slides are called -DX."
        )
    if statuses:
        gathered.notes.append(
            f"Of {counted(statuses, 'patient')} without her2_ihc_score IHC alone says positive, negative or "
            f"equivocal: that is no score of 0 to 3+, and they are not learnt from."
        )
    if slides:
        gathered.notes.append(f"Slides of patients that the table lacks: {named_few(slides)}.")
    return gathered.found(table)


def _clinical(folder: Path) -> Path:
    if (path := clinical_table(folder)) is not None:
        return path
    raise JobFailed(
        f"{folder.name} holds no table clinical_patient_brca (.txt, .tsv, .csv or .xlsx): put it beside the "
        f"slides."
    )
