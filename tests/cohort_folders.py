"""Folders of the shape in which public cohorts are distributed, with files that are small or empty."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import xlsxwriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_TRANSITIONAL, _STRICT = "http://schemas.openxmlformats.org/", "http://purl.oclc.org/ooxml/"


def workbook(
    path: Path,
    rows: Iterable[Sequence[object]],
    *,
    merged: Sequence[tuple[int, int, int, int, object]] = (),
    sheets: Sequence[str] = ("Sheet1",),
    strict: bool = False,
) -> Path:
    """Write a workbook; ``merged`` are boxes (first row and column, last row and column, text), from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    book = xlsxwriter.Workbook(data, {"in_memory": True, "strings_to_formulas": False})
    for number, name in enumerate(sheets):
        sheet = book.add_worksheet(name)
        for row, cells in enumerate(rows if number == 0 else [["a note"]]):
            for column, cell in enumerate(cells):
                if cell is not None:
                    sheet.write(row, column, cell)
        for top, left, bottom, right, text in merged if number == 0 else ():
            sheet.merge_range(top, left, bottom, right, text)
    book.close()
    path.write_bytes(as_strict(data.getvalue()) if strict else data.getvalue())
    return path


def as_strict(data: bytes) -> bytes:
    """Rewrite the names of a workbook to those of strict OOXML (ISO 29500), which no library writes."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            text = old.read(name).decode()
            for part in ("spreadsheetml/2006/main", "officeDocument/2006/relationships"):
                text = text.replace(_TRANSITIONAL + part, _STRICT + part.replace("2006/", ""))
            new.writestr(name, text)
    return written.getvalue()


def touch(folder: Path, *names: str) -> Path:
    """Make files of different content by their names: one slide under two names would be a fault."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"no slide: {name}".encode())
    return folder


HEROHE_COLUMNS = ("Case", "Immunohistochemistry", "ISH Group", "Final Result (Ground truth)", "Age")


def herohe(folder: Path, train: Sequence[tuple[int, int, str]], test: Sequence[tuple[int, int, str]]) -> Path:
    """Lay out HEROHE: (case, IHC, final result) of each part; slides as MIRAX with their folders."""
    for part, title, cases in (("train", "Training", train), ("test", "Test", test)):
        rows = [[case, ihc, 5 if ihc == 2 else None, result, 55] for case, ihc, result in cases]
        workbook(folder / f"{title} (ground truth).xlsx", [HEROHE_COLUMNS, *rows])
        for case, _, _ in cases:
            names = (f"{case}.mrxs", f"{case}/Slidedat.ini", f"{case}/Data0000.dat")
            touch(folder, *(f"{part}/{name}" for name in names))
    return folder
