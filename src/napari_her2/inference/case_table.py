"""Whether two slides are listed under different cases in a manifest beside them."""

from __future__ import annotations

import os
from pathlib import Path

from napari_her2.errors import JobFailed
from napari_her2.outside import MiB, Reading

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


def _cases(manifest: Path) -> dict[Path, set[str]]:
    """Cases of each slide; empty where there is no manifest that can be read."""
    found: dict[Path, set[str]] = {}
    try:
        for _, row in _TABLES.table(manifest).rows:
            case_id = (row.get("case_id") or "").strip()
            for column in _SLIDE_COLUMNS:
                name = (row.get(column) or "").strip()
                if case_id and name:
                    found.setdefault(Path(os.path.realpath(manifest.parent / name)), set()).add(case_id)
    except JobFailed:  # it is no affair of scoring what else lies in the folder
        return {}
    return found
