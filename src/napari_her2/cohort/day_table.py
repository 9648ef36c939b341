"""A day's list as one table, CSV or XLSX, a row a case and model; a spreadsheet runs none of its cells."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.export.csv_cells import defused, write_records
from napari_her2.models.card import NOTICE
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_her2.cohort.day_queue import DayQueue
    from napari_her2.cohort.day_rows import RowFacts

DAY_TABLE = "day_list.csv"
COLUMNS = (
    *("case", "H&E slide", "IHC slide", "model", "state", "result", "score", "set", "coverage", "withheld"),
    *(
        "indeterminate",
        "doubt",
        "familiarity",
        "familiarity value",
        "poor tissue",
        "poor for",
        "poor left out",
    ),
    *("own score", "own ISH", "own note", "reason", "note", "begun", "seconds", "warnings"),
    *("result folder", "notice"),
)
"""Columns of every table; shares from 0 to 1, `begun` in local time."""
_NUMBERS = frozenset({"coverage", "familiarity value", "poor tissue", "seconds"})
_MOST_CHARACTERS = 32_767
"""Of a cell of XLSX."""


@dataclass(frozen=True, slots=True)
class OwnScore:
    """What a pathologist reads, beside a row: in words, for a table."""

    score: str = ""
    ish: str = ""
    note: str = ""


def day_records(
    queue: DayQueue,
    facts: Mapping[int, RowFacts | None],
    own: Callable[[RowFacts], OwnScore] | None = None,
    numbers: Iterable[int] | None = None,
) -> list[dict[str, object]]:
    """Return the rows of a list.

    Parameters
    ----------
    queue : DayQueue
    facts : mapping of int to RowFacts or None
        By the number of the item; see `napari_her2.cohort.day_rows.reading_rows`.
    own : callable, optional
        Returns what the pathologist reads of the slides of a row.
    numbers : iterable of int, optional
        Items in the order of the rows; by default all, as listed.

    Returns
    -------
    list of dict
        By `COLUMNS`; numbers as numbers.
    """
    chosen = range(len(queue.items)) if numbers is None else numbers
    return [_record(queue, number, facts.get(number), own) for number in chosen]


def write_day_csv(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV.

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    with whole_file(path) as scratch:
        write_records(scratch, COLUMNS, records)


def write_day_xlsx(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write rows as a workbook with one sheet, its first line kept in view and with filters.

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    import xlsxwriter
    from xlsxwriter.exceptions import FileCreateError

    with whole_file(path) as scratch:
        # Text stays text: no formula, no link, no number is made of it.
        book = xlsxwriter.Workbook(str(scratch), {"strings_to_formulas": False, "strings_to_urls": False})
        try:
            _fill(book, records)
        finally:
            try:
                book.close()
            except FileCreateError as error:
                advice = "free space, or choose another folder"
                raise JobFailed(f"{path} cannot be written ({error}): {advice}.") from error


def write_day_table(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write rows as the ending of the file says: .xlsx, else CSV."""
    (write_day_xlsx if path.suffix.lower() == ".xlsx" else write_day_csv)(path, records)


def _fill(book: Any, records: Sequence[Mapping[str, object]]) -> None:  # noqa: ANN401 - of xlsxwriter
    sheet = book.add_worksheet("HER2 day's list")
    bold, wrapped = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
    top = book.add_format({"valign": "top"})
    for at, name in enumerate(COLUMNS):
        sheet.write_string(0, at, name, bold)
        sheet.set_column(at, at, 40 if name in _WIDE else 14)
    for line, record in enumerate(records, start=1):
        for at, name in enumerate(COLUMNS):
            value = record.get(name, "")
            if name in _NUMBERS and isinstance(value, int | float):
                sheet.write_number(line, at, value, top)
            elif value not in ("", None):
                text = str(defused(value))[:_MOST_CHARACTERS]
                sheet.write_string(line, at, text, wrapped if name in _WIDE else top)
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, max(len(records), 1), len(COLUMNS) - 1)


_WIDE = frozenset({"doubt", "reason", "note", "own note", "warnings", "notice", "result"})


def _record(
    queue: DayQueue, number: int, facts: RowFacts | None, own: Callable[[RowFacts], OwnScore] | None
) -> dict[str, object]:
    item = queue.item(number)
    entry, folder = queue.entry_of(item), queue.folder_of(item)
    record: dict[str, object] = {
        "case": entry.name,
        "H&E slide": "" if entry.he is None else entry.he.name,
        "IHC slide": "" if entry.ihc is None else entry.ihc.name,
        "model": queue.model_of(item).name,
        "state": item.state,
        "reason": item.reason,
        "note": entry.note,
        "begun": "" if item.started is None else _when(item.started),
        "seconds": "" if item.seconds is None else item.seconds,
        "result folder": "" if folder is None else str(folder),
        "notice": NOTICE,
    }
    return record if facts is None else record | _answer(facts, own)


def _answer(facts: RowFacts, own: Callable[[RowFacts], OwnScore] | None) -> dict[str, object]:
    read = OwnScore() if own is None else own(facts)
    coverage = str(facts.cells.get("coverage") or "")
    return {
        "result": facts.answer,
        "score": facts.score,
        "set": facts.answer_set,
        "coverage": float(coverage) if coverage else "",
        "withheld": facts.cells["withheld"],
        "indeterminate": facts.cells["indeterminate"],
        "doubt": facts.doubt_words,
        "familiarity": facts.familiarity,
        "familiarity value": "" if facts.familiarity_value is None else facts.familiarity_value,
        "poor tissue": "" if facts.poor is None else facts.poor,
        "poor for": facts.poor_for,
        "poor left out": "" if facts.poor is None else "yes" if facts.poor_left_out else "no",
        "own score": read.score,
        "own ISH": read.ish,
        "own note": read.note,
        "warnings": " | ".join(facts.warnings),
    }


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (OverflowError, OSError, ValueError):
        return ""
