"""Tables without a header, as WSMCL keeps them: a case, its label and perhaps its fold in each line.

Such a table names no file. The features, or slides, of a case are looked for beside it, in a folder of each
stain (``he`` and ``ihc``), under the name of the case: ``63_features.pth``.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDERS = {"he": ("he", "HE", "H&E"), "ihc": ("ihc", "IHC")}
"""Folders of the stains beside the table, by the columns of a manifest."""
ENDINGS = ("_features.pth", "_feature.pth", ".pth", ".pt", ".h5", ".hdf5")
"""What follows the name of a case, in order of preference."""
_LABELS = ("0", "1", "2", "3")
_MOST_NAME = 200
_NO_NAME = frozenset("/\\\0")


@dataclass(frozen=True, slots=True)
class HeadlessRow:
    """A line of such a table.

    Parameters
    ----------
    line : int
    case_id, label, fold : str
        ``fold`` is empty where the table has none.
    """

    line: int
    case_id: str
    label: str
    fold: str


def headless_rows(text: str) -> tuple[HeadlessRow, ...]:
    r"""Return the rows of a table without a header; none where the text is no such table.

    Parameters
    ----------
    text : str

    Returns
    -------
    tuple of HeadlessRow

    Examples
    --------
    >>> headless_rows("63,2,1\n64,0,1\n")[1]
    HeadlessRow(line=2, case_id='64', label='0', fold='1')
    >>> headless_rows("case_id,he,score\n63,63.h5,2+\n")
    ()
    """
    rows = csv.reader(io.StringIO(text))
    try:
        first = next(islice(rows, 1), [])
        if not _fits(first):
            return ()
        found = [(1, first), *((number, row) for number, row in enumerate(rows, start=2) if any(row))]
    except csv.Error:  # whoever reads it as a table with a header says why
        return ()
    return tuple(_row(number, row) for number, row in found)


def _fits(row: list[str]) -> bool:
    """Whether a line is a case, a label from 0 to 3, and perhaps a fold, and no line of names."""
    cells = [cell.strip() for cell in row]
    if len(cells) not in (2, 3) or not cells[0]:
        return False
    return cells[1] in _LABELS and (len(cells) == 2 or cells[2].isdecimal())


def _row(number: int, cells: list[str]) -> HeadlessRow:
    case_id, label, fold = (cell.strip() for cell in [*cells, "", "", ""][:3])
    return HeadlessRow(number, case_id, label, fold)


def table_faults(rows: Sequence[HeadlessRow]) -> list[str]:
    """Name what such a table cannot mean: labels that may be two classes, and no score."""
    if {row.label for row in rows} <= {"0", "1"}:
        return [
            "Its labels are 0 and 1 alone, which may be scores or negative and positive: give it a header "
            "(case_id, he, score) with the scores themselves."
        ]
    return []


def file_of(folder: Path, stain: str, case_id: str) -> str:
    """Find the features of a case beside its table.

    Parameters
    ----------
    folder : Path
        Of the table.
    stain : {"he", "ihc"}
    case_id : str

    Returns
    -------
    str
        Relative to the folder; empty where there are none.
    """
    if not case_id or len(case_id) > _MOST_NAME or _NO_NAME & set(case_id):
        return ""
    names = (f"{name}/{case_id}{ending}" for name in FOLDERS[stain] for ending in ENDINGS)
    return next((name for name in names if (folder / name).is_file()), "")


def usual_name(stain: str, case_id: str) -> str:
    """Return where the features of a case should lie, relative to the folder of its table."""
    return f"{FOLDERS[stain][0]}/{case_id}{ENDINGS[0]}"
