"""Whether two slides are listed under different cases in a manifest beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.outside import MiB, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = "manifest.csv"
_TABLES = Reading(limit=16 * MiB)
_SLIDE_COLUMNS = ("he", "ihc")


def other_case(first: Path, second: Path) -> tuple[str, str, str] | None:
    """Tell whether a manifest beside the slides gives them to different cases.

    Parameters
    ----------
    first, second : Path

    Returns
    -------
    tuple of str or None
        Case of each and the name of the manifest; None where no manifest lists both, or under one case.
    """
    for folder in dict.fromkeys((first.parent, second.parent)):
        listed = _cases(folder / MANIFEST)
        one, two = (listed.get(Path(os.path.realpath(path))) for path in (first, second))
        if one and two and not one & two:
            return min(one), min(two), MANIFEST
    return None


def listed_case(slide: Path) -> tuple[str, int] | None:
    """Tell which case a manifest beside a slide gives it to, and how many slides of its stain that has.

    Parameters
    ----------
    slide : Path

    Returns
    -------
    tuple of (str, int) or None
        None where no manifest lists it, or under several cases.
    """
    real = Path(os.path.realpath(slide))
    rows = list(_listed(slide.parent / MANIFEST))
    own = {case_id for case_id, _, path in rows if path == real}
    if len(own) != 1:
        return None
    case_id = own.pop()
    column = next(column for _, column, path in rows if path == real)
    return case_id, len({path for of, stain, path in rows if (of, stain) == (case_id, column)})


def _cases(manifest: Path) -> dict[Path, set[str]]:
    """Cases of each slide; empty where there is no manifest that can be read."""
    found: dict[Path, set[str]] = {}
    for case_id, _, path in _listed(manifest):
        found.setdefault(path, set()).add(case_id)
    return found


def _listed(manifest: Path) -> Iterator[tuple[str, str, Path]]:
    """Case, column and file of each slide; nothing where there is no manifest that can be read."""
    try:
        rows = _TABLES.table(manifest).rows
    except JobFailed:  # it is no affair of scoring what else lies in the folder
        return
    for _, row in rows:
        case_id = (row.get("case_id") or "").strip()
        for column in _SLIDE_COLUMNS:
            name = (row.get(column) or "").strip()
            if case_id and name:
                yield case_id, column, Path(os.path.realpath(manifest.parent / name))
