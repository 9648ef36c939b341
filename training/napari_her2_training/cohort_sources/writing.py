"""The table that is written: a manifest to learn from, or, of a cohort without scores, a list to score."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.export.csv_cells import defused, write_records
from napari_her2.export.geojson import write_drawn_regions
from napari_her2.outside import expanded, shown
from napari_her2.whole_files import whole_file
from napari_her2_training.cohort_sources.outlines import read_outlines

if TYPE_CHECKING:
    from napari_her2_training.cohort_sources.found import Found, ManifestRow

REGIONS = "regions/{case_id}.geojson"
"""Where outlines go, beside the manifest: the pattern that configurations take."""
_ALWAYS = ("case_id", "he", "ihc")
_OPTIONAL = ("score", "ish", "fold", "split", "mpp", "ihc_mpp", "regions", "label")
_UNSAFE = frozenset('/\\:*?"<>|\0')


def write_manifest(found: Found, out: Path) -> Path:
    """Write the table, whole or not at all, and the outlines beside it.

    Parameters
    ----------
    found : Found
        Without faults.
    out : Path
        A CSV file; paths in it are relative to its folder.

    Returns
    -------
    Path

    Raises
    ------
    JobFailed
        If there are faults or nothing to write, or the place cannot be written.
    """
    if found.faults:
        raise JobFailed(f"Nothing is written: {found.faults[0]}")
    rows = found.written
    if not rows:
        raise JobFailed("Nothing is written: no case has a slide. See above what is missing.")
    out = expanded(out)
    if out.suffix.lower() != ".csv":
        raise JobFailed(f"{out.name} is no CSV file by its name: call it manifest.csv.")
    folder = Path(os.path.abspath(out.parent))
    regions = [_write_outlines(row, folder) for row in rows]
    records = [_record(row, region, folder) for row, region in zip(rows, regions, strict=True)]
    columns = [*_ALWAYS, *(name for name in _OPTIONAL if any(record[name] != "" for record in records))]
    with whole_file(out) as file:
        write_records(file, columns, records)
    return out


def _record(row: ManifestRow, region: str, folder: Path) -> dict[str, object]:
    return {
        "case_id": row.case_id,
        "he": _relative(row.he, folder),
        "ihc": _relative(row.ihc, folder),
        "score": row.score,
        "ish": row.ish,
        "fold": "" if row.fold is None else row.fold,
        "split": row.split,
        "mpp": "" if row.mpp is None else f"{row.mpp:g}",
        "ihc_mpp": "" if row.ihc_mpp is None else f"{row.ihc_mpp:g}",
        "regions": region,
        "label": row.label,
    }


def _relative(path: Path | None, folder: Path) -> str:
    if path is None:
        return ""
    try:
        text = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return str(path.absolute())
    # A name that a spreadsheet would run gets a mark in front, with which no file is found.
    return text if defused(text) == text else f"./{text}"


def _write_outlines(row: ManifestRow, folder: Path) -> str:
    if row.outlines is None:
        return ""
    if _UNSAFE & set(row.case_id):
        raise JobFailed(
            f"{row.where}: the case {shown(row.case_id, 40)} cannot name a file for its outlines: rename it."
        )
    name = REGIONS.format(case_id=row.case_id)
    regions = read_outlines(row.outlines)
    write_drawn_regions(folder / name, regions)
    return name
