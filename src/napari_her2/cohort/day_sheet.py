"""A table of cases as a day's list: CSV or XLSX with he and ihc, the manifest of a training among others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_her2.cohort.entry import Entry
from napari_her2.errors import JobFailed
from napari_her2.export.csv_cells import as_given
from napari_her2.outside import MiB, Reading, expanded, shown
from napari_her2.slide.names import slide_name
from napari_her2.spreadsheets import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TABLES = Reading(
    limit=16 * MiB, advice="save it as XLSX, or as CSV in UTF-8, with the columns case_id, he and ihc"
)
# What people call a column, in lower case.
_COLUMNS = {
    "name": ("case_id", "case", "id", "name"),
    "he": ("he", "h&e", "slide", "path", "file"),
    "ihc": ("ihc", "her2"),
    "mpp": ("mpp", "he_mpp", "µm/px"),
    "ihc_mpp": ("ihc_mpp",),
    "regions": ("regions",),
}
_STAINLESS = frozenset({"slide", "path", "file"})
"""Columns that do not say that their slide is an H&E slide."""


def sheet_entries(path: Path) -> list[Entry]:
    """Read the cases of a table.

    Parameters
    ----------
    path : Path
        CSV or XLSX with a line of columns: he or ihc or both (or slide, for a stain that the colours tell),
        and, if wished, case_id, mpp, ihc_mpp (µm per level-0 pixel) and regions (GeoJSON); commas,
        semicolons or tabs between. Other columns (score, fold, split) are passed over. Paths are relative to
        the table.

    Returns
    -------
    list of Entry
        A row each; what a row lacks is its problem.

    Raises
    ------
    JobFailed
        If it cannot be read, or has no column of slides.
    """
    table = read_table(path, _TABLES)
    places = {column.strip().lower(): column for column in reversed(table.columns)}
    columns = {
        field: next((places[name] for name in names if name in places), None)
        for field, names in _COLUMNS.items()
    }
    if columns["he"] is None and columns["ihc"] is None:
        named = shown(", ".join(table.columns), 80)
        raise JobFailed(f"{shown(path.name)} has no column he, ihc or slide, only {named}: name one so.")
    known = (columns["he"] or "").strip().lower() not in _STAINLESS
    rows = []
    for line, row in table.rows:
        texts = {field: _text(row, column) for field, column in columns.items()}
        if any(texts[field] for field in ("name", "he", "ihc")):
            rows.append(_entry(texts, path.parent, line, stain_known=known))
    return rows


def _text(row: Mapping[Any, Any], column: str | None) -> str:
    return "" if column is None else as_given((row.get(column) or "").strip())


def _entry(texts: Mapping[str, str], folder: Path, line: int, *, stain_known: bool) -> Entry:
    he, ihc, regions = (_path(texts[field], folder) for field in ("he", "ihc", "regions"))
    problem = "" if he or ihc else f"Line {line} names no slide: give one under he or ihc."
    scales: list[float | None] = []
    for field in ("mpp", "ihc_mpp"):
        scale = _number(texts[field])
        if scale is not None and math.isnan(scale):
            problem = f"Line {line}: {shown(texts[field], 20)} is no µm/px: give a number such as 0.25."
            scale = None
        scales.append(scale)
    first = he or ihc
    name = texts["name"] or (slide_name(first) if first is not None else f"line {line}")
    because = "table" if he and ihc else ""
    # A column named path or slide may still hold both stains of a pair beside ihc.
    known = stain_known or ihc is not None
    return Entry(
        name, he, ihc, scales[0], scales[1], regions, known, because, problem=problem, case_id=texts["name"]
    )


def _path(text: str, folder: Path) -> Path | None:
    if not text or "\0" in text:
        return None
    path = expanded(text)
    return path if path.is_absolute() else folder / path


def _number(text: str) -> float | None:
    """Return a number; None where there is none, NaN where the text is none."""
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and value > 0 else math.nan
