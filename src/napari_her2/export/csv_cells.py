"""Tables that a spreadsheet may open: text from outside stays text, and no cell becomes a formula.

A file may be called ``=HYPERLINK(...)``, and so may a class of a model. Spreadsheet programs run what begins
with "=", "+", "-" or "@", also behind spaces, and take quotation marks off first. Such text gets a "'" in
front, as a person would type it; `read_table` takes it off again. Numbers stay numbers, negative ones too.
"""

from __future__ import annotations

import csv
import re
from io import StringIO
from numbers import Number
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
"""The wide forms of East Asian keyboards are read as the narrow ones."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|inf|nan)")


def defused(cell: object) -> object:
    """Return a cell that no spreadsheet program takes for a formula.

    Parameters
    ----------
    cell : object
        A number, in text or not, is returned as it is, and so is None.

    Returns
    -------
    object

    Examples
    --------
    >>> defused("=1+1.svs"), defused("-0.25"), defused("case-7")
    ("'=1+1.svs", '-0.25', 'case-7')
    """
    return cell if cell is None or isinstance(cell, Number) else _with_mark(str(cell))


def _with_mark(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def quoted_cell(cell: object) -> str:
    """Return a defused cell as it stands in a file, in quotation marks where it needs them."""
    text = StringIO()
    csv.writer(text, lineterminator="").writerow([defused(cell)])
    return text.getvalue()


def as_given(cell: str) -> str:
    """Take off what `defused` put in front."""
    return cell[1:] if cell[:1] == "'" and _with_mark(cell[1:]) == cell else cell


def write_table(path: Path, columns: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Write a table with a line of columns first.

    Parameters
    ----------
    path : Path
    columns : iterable
    rows : iterable of iterable
        Cells in the order of the columns.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([defused(name) for name in columns])
        writer.writerows([defused(cell) for cell in row] for row in rows)


def write_records(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a table of records; a cell that a record lacks stays empty."""
    names = tuple(columns)
    write_table(path, names, ([row.get(name, "") for name in names] for row in rows))


def read_table(path: Path) -> Iterator[list[str]]:
    """Read what `write_table` wrote, the line of columns first.

    Parameters
    ----------
    path : Path

    Yields
    ------
    list of str

    Raises
    ------
    OSError, ValueError, csv.Error
        If it cannot be read, or is no table.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            yield [as_given(cell) for cell in row]
