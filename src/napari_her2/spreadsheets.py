"""Tables that people keep: CSV, TSV and XLSX of any origin, as texts with the rows as they are counted there.

A workbook is a compressed folder: what it unpacks to, and how far its cells reach, is counted before a
library opens it, because a library reserves a cell for every place up to the last one.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.outside import MAX_COLUMNS, MAX_ROWS, MiB, Reading, Table, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from python_calamine import CalamineWorkbook

TABLES = frozenset({".csv", ".tsv", ".txt"})
WORKBOOKS = frozenset({".xlsx", ".xlsm"})
OTHER_WORKBOOKS = frozenset({".xls", ".xlsb", ".ods", ".numbers"})
"""Workbooks that are not read."""
SEPARATORS = ",;\t"
_MAX_UNPACKED, _MAX_CELLS = 512 * MiB, 10_000_000
_CHUNK = MiB
_PLACE = re.compile(rb"""<(?:\w+:)?c\s[^>]{0,200}?\br=["']([A-Z]{1,3})([0-9]{1,7})["']""")
_OVERLAP = 256
_SHEETS = re.compile(r"xl/worksheets/[^/]+\.xml")


@dataclass(frozen=True, slots=True)
class Merged:
    """Cells that are one: rows as they are counted in the sheet, columns from 0, the last ones included."""

    first_row: int
    last_row: int
    first_column: int
    last_column: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """The cells of a table.

    Parameters
    ----------
    name : str
        Of the file.
    rows : tuple of (int, tuple of str)
        Those that hold anything, with the number that a spreadsheet program gives them, in a CSV file their
        line; without spaces around the texts.
    merged : tuple of Merged
    title : str
        Of the sheet of a workbook; empty for CSV.
    others : tuple of str
        Further sheets of the workbook.
    """

    name: str
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    merged: tuple[Merged, ...] = ()
    title: str = ""
    others: tuple[str, ...] = ()


def is_table(path: Path) -> bool:
    """Whether a file is a table by its ending, be it one that is read or not."""
    return path.suffix.lower() in TABLES | WORKBOOKS | OTHER_WORKBOOKS


def read_sheet(path: Path | str, reading: Reading, *, sheet: str = "") -> Sheet:
    """Read the cells of a table.

    Parameters
    ----------
    path : Path or str
        CSV with commas, semicolons or tabs (the first line that holds anything tells which), or a workbook
        (.xlsx, also the strict kind of ISO 29500, which other readers refuse).
    reading : Reading
        How large it may be, and what is said of one that cannot be read.
    sheet : str, optional
        Of the workbook; by default the first that holds anything.

    Returns
    -------
    Sheet

    Raises
    ------
    Her2Error
        If it cannot be read; what `reading` raises.
    """
    ending = Path(path).suffix.lower()
    if ending in OTHER_WORKBOOKS:
        raise reading.refusal(path, f"is a workbook of a kind that is not read ({ending}, read are .xlsx)")
    if ending in WORKBOOKS:
        return _workbook(path, reading, sheet)
    if sheet:
        raise reading.refusal(path, f"is no workbook, and has no sheet {shown(sheet, 40)!r}")
    return Sheet(Path(path).name, tuple(_lines(path, reading)))


def read_table(path: Path | str, reading: Reading) -> Table:
    """Read a table whose first row names its columns, as `Reading.table` does; workbooks too.

    Parameters
    ----------
    path : Path or str
    reading : Reading

    Raises
    ------
    Her2Error
        If it cannot be read.
    """
    if Path(path).suffix.lower() not in WORKBOOKS | OTHER_WORKBOOKS:
        return reading.table(path, SEPARATORS)
    sheet = (
        _workbook(path, reading, "") if Path(path).suffix.lower() in WORKBOOKS else read_sheet(path, reading)
    )
    if not sheet.rows:
        raise reading.refusal(path, "is empty")
    columns = _named(sheet.rows[0][1])
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise reading.refusal(path, f"has the column {twice:.40} twice")
    rows = []
    for number, cells in sheet.rows[1:]:
        row: dict[Any, Any] = dict.fromkeys(columns) | dict(zip(columns, cells, strict=False))
        beyond = [cell for cell in cells[len(columns) :] if cell]
        rows.append((number, row | {None: beyond} if beyond else row))
    return Table(columns, tuple(rows))


def _named(cells: Sequence[str]) -> tuple[str, ...]:
    """Cells up to the last that holds anything: empty ones at the end are no columns."""
    last = max((number for number, cell in enumerate(cells, 1) if cell), default=0)
    return tuple(cells[:last])


def _lines(path: Path | str, reading: Reading) -> Iterator[tuple[int, tuple[str, ...]]]:
    text = reading.text(path)
    first = next((line for line in text.splitlines() if line.strip(f"{SEPARATORS} \"'")), "")
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for count, cells in enumerate(reader, 1):
            if len(cells) > MAX_COLUMNS:
                raise reading.refusal(path, f"has more than {MAX_COLUMNS} columns")
            if count > MAX_ROWS:
                raise reading.refusal(path, f"has more than {MAX_ROWS:,} rows")
            row = tuple(cell.strip() for cell in cells)
            if any(row):
                yield reader.line_num, row
    except csv.Error as problem:
        raise reading.refusal(path, f"is not a CSV file ({problem})") from problem


def _workbook(path: Path | str, reading: Reading, sheet: str) -> Sheet:
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    data = reading.raw(path)
    _check_size(data, path, reading)
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as book:
            return _sheet_of(book, path, reading, sheet)
    except PasswordError as problem:
        raise reading.refusal(path, "is locked by a password") from problem
    except (CalamineError, OSError, ValueError) as problem:
        raise reading.refusal(path, f"is damaged, or no workbook ({shown(str(problem), 80)})") from problem
    except BaseException as problem:
        # A panic of the library is no Exception; whatever else is one (Ctrl-C) goes on.
        if type(problem).__name__ != "PanicException":
            raise
        raise reading.refusal(path, "is damaged") from problem


def _sheet_of(book: CalamineWorkbook, path: Path | str, reading: Reading, sheet: str) -> Sheet:
    names = book.sheet_names
    if sheet and sheet not in names:
        raise reading.refusal(path, f"has no sheet {shown(sheet, 40)!r}, only {shown(', '.join(names), 120)}")
    for name in [sheet] if sheet else names:
        found = book.get_sheet_by_name(name)
        cells = found.to_python(skip_empty_area=False)
        rows = []
        for number, row in enumerate(cells, 1):
            texts = tuple(_text(cell) for cell in row)
            if any(texts):
                rows.append((number, texts))
        if not rows and not sheet:
            continue
        if len(rows[0][1] if rows else ()) > MAX_COLUMNS and any(any(row[MAX_COLUMNS:]) for _, row in rows):
            raise reading.refusal(path, f"has more than {MAX_COLUMNS} columns")
        merged = tuple(
            Merged(top + 1, bottom + 1, left, right)
            for (top, left), (bottom, right) in found.merged_cell_ranges or ()
        )
        others = tuple(other for other in names if other != name)
        return Sheet(Path(path).name, tuple(rows), merged, name, others)
    return Sheet(Path(path).name, ())


def _text(cell: object) -> str:
    """Text of a cell: whole numbers without ".0", as they are shown; days as 2024-05-31."""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime | date | time | timedelta):
        return str(cell)
    return str(cell).strip()


def _check_size(data: bytes, path: Path | str, reading: Reading) -> None:
    """Refuse a workbook that unpacks to more than it may, or whose cells reach too far."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > _MAX_UNPACKED:
                raise reading.refusal(path, f"unpacks to more than {_MAX_UNPACKED // MiB} MiB")
            for part in parts:
                # A part that unpacks to more than it states fails its check sum, which is read here.
                with archive.open(part) as file:
                    _check_reach(file, path, reading, measured=bool(_SHEETS.fullmatch(part.filename)))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as problem:
        raise reading.refusal(path, "is damaged, locked by a password, or no workbook") from problem


def _check_reach(file: Any, path: Path | str, reading: Reading, *, measured: bool) -> None:  # noqa: ANN401
    rows = columns = 0
    before = b""
    while chunk := file.read(_CHUNK):
        if not measured:
            continue
        for letters, digits in _PLACE.findall(before + chunk):
            rows, columns = max(rows, int(digits)), max(columns, _column(letters))
        before = chunk[-_OVERLAP:]
        if rows * columns > _MAX_CELLS:
            raise reading.refusal(
                path, f"has a cell in row {rows:,}, column {columns:,}, far from a table: take it out"
            )


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number
