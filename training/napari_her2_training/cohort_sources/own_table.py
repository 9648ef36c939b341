"""A table of the user's own: CSV, TSV or XLSX with any column names, and the folder of its slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.outside import expanded
from napari_her2_training.cohort_sources.joining import Gathered, add_slides, row_of, with_scale
from napari_her2_training.cohort_sources.slide_names import SlideIndex
from napari_her2_training.cohort_sources.tables import read_case_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.cohort_sources.found import Found
    from napari_her2_training.cohort_sources.options import ImportOptions


def find_own(
    table: Path, options: ImportOptions, *, slides: Path | None = None, stain: Stain = "he"
) -> Found:
    """Find the cases of a table and their slides.

    Parameters
    ----------
    table : Path
    options : ImportOptions
    slides : Path, optional
        Folder of the slides; by default that of the table.
    stain : {"he", "ihc"}
        Of slides whose names tell none.

    Returns
    -------
    Found

    Raises
    ------
    JobFailed
        If the table or the folder cannot be read, or the table has no column of cases.
    """
    table = expanded(table)
    folder = table.parent if slides is None else expanded(slides)
    if not folder.is_dir():
        raise JobFailed(f"There is no folder {folder}: check where the slides lie (--slides).")
    cases = read_case_table(
        table, options.columns, mapped=options.mapped, needed=("case_id", "score"), sheet=options.sheet
    )
    index = SlideIndex(folder)
    gathered = Gathered()
    for row in cases.rows:
        add_slides(gathered, row, row_of(cases, row, options.mapped), index, (table.parent,), stain)
    gathered.rows = with_scale(gathered.rows, options.mpp)
    gathered.note_unused(index)
    return gathered.found(cases)
