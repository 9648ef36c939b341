"""Tables of cases read row by row: footnotes left out, merged cells and labels that are no score named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.number_words import counted
from napari_her2.outside import MiB, Reading, shown
from napari_her2.spreadsheets import read_sheet
from napari_her2_training.cohort_sources.columns import OWN_FIELDS, Columns, find_columns
from napari_her2_training.cohort_sources.found import named_few, split_of
from napari_her2_training.cohort_sources.scores import NoScore, read_ish, read_score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_her2.spreadsheets import Sheet

TABLES = Reading(limit=64 * MiB, advice="save it anew, as XLSX, or as CSV in UTF-8")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row: the texts of the fields that the table has.

    Parameters
    ----------
    number : int
        As a spreadsheet program counts it.
    texts : mapping of str to str
        By their field.
    """

    number: int
    texts: Mapping[str, str]

    @property
    def where(self) -> str:
        """Return "Row 7", as messages begin."""
        return f"Row {self.number}"

    def text(self, name: str) -> str:
        """Return the text of a field; empty where the table has none."""
        return self.texts.get(name, "")


@dataclass(frozen=True, slots=True)
class CaseTable:
    """A table of cases.

    Parameters
    ----------
    name : str
        Of its file.
    columns : Columns
    rows : tuple of TableRow
    faults, notes : list of str
    """

    name: str
    columns: Columns
    rows: tuple[TableRow, ...]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread_ish: list[TableRow] = field(default_factory=list)

    def score(self, row: TableRow, mapped: Mapping[str, str]) -> str:
        """Read the score of a row; what is none becomes a fault."""
        try:
            return read_score(row.text("score"), mapped)
        except NoScore as error:
            self.faults.append(f"{row.where}: {error}")
            return ""

    def ish(self, row: TableRow) -> str:
        """Read the result of an ISH; what is none is left empty, and noted."""
        found = read_ish(row.text("ish"))
        if found is None:
            self.unread_ish.append(row)
        return found or ""

    def all_notes(self) -> list[str]:
        """Return what a person should know of it."""
        if not self.unread_ish:
            return self.notes
        words = named_few(f'"{row.text("ish")}"' for row in self.unread_ish)
        rows = counted(len(self.unread_ish), "row")
        first = self.unread_ish[0].where.lower()
        return [
            *self.notes,
            f"The ISH of {rows} (first {first}) is neither positive nor negative, and left empty: {words}.",
        ]

    def split(self, row: TableRow) -> str:
        """Read the part of a row; what is none becomes a fault."""
        found = split_of(row.text("split"))
        if found is None:
            text = shown(row.text("split"), 40)
            self.faults.append(
                f'{row.where}: the split "{text}" is none of train, validation, test and calibration.'
            )
        return found or ""

    def fold(self, row: TableRow) -> int | None:
        """Read the fold of a row; what is no whole number becomes a fault."""
        text = row.text("fold")
        if text and not (text.isdecimal() and len(text) <= 6):
            self.faults.append(f'{row.where}: the fold "{shown(text, 40)}" is no whole number.')
            return None
        return int(text) if text else None

    def mpp(self, row: TableRow, name: str = "mpp") -> float | None:
        """Read µm per pixel of a row; what is none becomes a fault."""
        text = row.text(name).replace(",", ".")
        try:
            value = float(text) if text else None
        except ValueError:
            value = -1.0
        if value is not None and not 0.01 <= value <= 100:
            self.faults.append(f'{row.where}: "{shown(row.text(name), 40)}" is no µm/px: give one as 0.25.')
            return None
        return value


def read_case_table(
    path: Path,
    given: Mapping[str, str] | None = None,
    *,
    wanted: Sequence[str] = OWN_FIELDS,
    mapped: Mapping[str, str] | None = None,
    needed: Sequence[str] = ("case_id",),
    sheet: str = "",
) -> CaseTable:
    """Read a table of cases.

    Parameters
    ----------
    path : Path
        CSV, TSV or XLSX.
    given : mapping of str to str, optional
        Field to the name of its column; other columns are guessed.
    wanted : sequence of str
        Fields that are looked for.
    mapped : mapping of str to str, optional
        Labels of the user's own.
    needed : sequence of str
        Fields without which it is refused.
    sheet : str, optional
        Of a workbook.

    Raises
    ------
    JobFailed
        If it cannot be read, or lacks a column.
    """
    cells = read_sheet(path, TABLES, sheet=sheet)
    columns = find_columns(cells, given or {}, wanted, mapped)
    lacking = [name for name in needed if columns.of(name) is None]
    if lacking:
        listed = shown(", ".join(columns.unused), 160) or "nothing"
        raise JobFailed(
            f"{shown(path.name)} has no column that is called like {' or '.join(lacking)}, only {listed}: "
            f'say which it is (--column {lacking[0]}="NAME").'
        )
    table = CaseTable(cells.name, columns, ())
    rows = _without_notes(_rows(cells, columns), cells, table)
    _add_merged(cells, columns, rows, table)
    if cells.others:
        table.notes.append(
            f"{shown(path.name)} has further sheets ({shown(', '.join(cells.others), 80)}), which were not "
            f"read: {shown(cells.title, 40)} was."
        )
    return CaseTable(table.name, columns, tuple(rows), table.faults, table.notes)


def _rows(cells: Sheet, columns: Columns) -> list[TableRow]:
    rows = []
    for number, texts in cells.rows:
        if number <= columns.header_row:
            continue
        values = {of.field: texts[of.number] if of.number < len(texts) else "" for of in columns.used}
        rows.append(TableRow(number, values))
    return rows


def _without_notes(rows: Sequence[TableRow], cells: Sheet, table: CaseTable) -> list[TableRow]:
    """Leave out what is no case: footnotes behind the last one; within the table a fault."""
    alone: dict[int, str] = {}
    if len(table.columns.used) > 1:
        within = {
            number
            for box in cells.merged
            for number in range(box.first_row, box.last_row + 1)
            if box.first_row < box.last_row
        }
        alone = {
            number: next(filter(None, texts))
            for number, texts in cells.rows
            if sum(map(bool, texts)) == 1 and number not in within
        }
    last = max((row.number for row in rows if row.number not in alone), default=0)
    kept = []
    for row in rows:
        if row.number in alone:
            text = shown(alone[row.number], 60)
            if row.number > last:
                table.notes.append(f'{row.where} holds "{text}" alone: taken for a footnote, and left out.')
            else:
                table.faults.append(f'{row.where} holds "{text}" alone: fill the row, or take it out.')
        elif any(row.texts.values()):
            if not row.text("case_id") and table.columns.of("case_id") is not None:
                table.faults.append(f"{row.where} names no case: fill the cell, or take the row out.")
            else:
                kept.append(row)
    return kept


def _add_merged(cells: Sheet, columns: Columns, rows: Sequence[TableRow], table: CaseTable) -> None:
    """Name merged cells among the cases: whether the text holds for all of them, only a person knows."""
    if not rows:
        return
    first, last = rows[0].number, rows[-1].number
    for box in cells.merged:
        touched = [of for of in columns.used if box.first_column <= of.number <= box.last_column]
        if touched and box.first_row <= last and box.last_row >= max(first, columns.header_row + 1):
            names = " and ".join(dict.fromkeys(shown(of.name, 40) for of in touched))
            where = (
                f"Rows {box.first_row} to {box.last_row}"
                if box.first_row < box.last_row
                else f"Row {box.first_row}"
            )
            table.faults.append(
                f"{where}: cells of {names} are merged into one: unmerge them, and fill each."
            )
