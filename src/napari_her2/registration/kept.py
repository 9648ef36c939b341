"""Alignments that the user set, kept for each case: a small JSON file in the user's data folder."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.outside import Reading
from napari_her2.own_files import private_folder, read_own, write_own
from napari_her2.registration.affine import Alignment

FOLDER_VARIABLE = "NAPARI_HER2_ALIGNMENTS"
_FORMAT = 1
_KEPT = Reading(limit=16 * 1024)


def alignment_folder() -> Path:
    """Folder of the kept alignments: the environment variable, else in the data folder of the user."""
    import platformdirs

    chosen = os.environ.get(FOLDER_VARIABLE)
    base = platformdirs.user_data_path("napari-her2", appauthor=False) / "alignments"
    return Path(chosen) if chosen else base


def keep_alignment(fixed_id: str, moving_id: str, alignment: Alignment) -> None:
    """Keep the alignment of two slides; one that moves nothing takes a kept one away.

    Parameters
    ----------
    fixed_id, moving_id : str
        Fingerprints of the slides.
    alignment : Alignment

    Raises
    ------
    JobFailed
        If the folder cannot be written to.
    """
    target = _path(fixed_id, moving_id)
    if alignment.is_identity:
        _drop(target)
        return
    kept = {
        "format": _FORMAT,
        "fixed": fixed_id,
        "moving": moving_id,
        "matrix_um": alignment.matrix[:2].tolist(),
    }
    try:
        private_folder(target.parent)
        write_own(target, json.dumps(kept, indent=1).encode())
    except OSError as error:
        raise JobFailed(
            f"The alignment could not be kept in {target.parent} ({error.strerror or error}): free space, or "
            f"set {FOLDER_VARIABLE} to another folder."
        ) from error


def kept_alignment(fixed_id: str, moving_id: str) -> Alignment | None:
    """Return the alignment that was kept for two slides, also where they were kept the other way round.

    Parameters
    ----------
    fixed_id, moving_id : str
        Fingerprints of the slides.

    Returns
    -------
    Alignment or None
        None where there is none, or its file cannot be understood.
    """
    straight = _read(fixed_id, moving_id)
    if straight is not None:
        return straight
    swapped = _read(moving_id, fixed_id)
    return None if swapped is None else swapped.inverse()


def _path(fixed_id: str, moving_id: str) -> Path:
    # Fingerprints come from files of others: only their digest becomes a file name.
    name = hashlib.sha256(f"{fixed_id}\n{moving_id}".encode()).hexdigest()[:40]
    return alignment_folder() / f"{name}.json"


def _read(fixed_id: str, moving_id: str) -> Alignment | None:
    path = _path(fixed_id, moving_id)
    try:
        kept = _KEPT.parsed_json(read_own(path, _KEPT.limit).decode(), path)
        if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
            return None
        if (kept.get("fixed"), kept.get("moving")) != (fixed_id, moving_id):
            return None
        rows = np.array(kept.get("matrix_um"), np.float64)
        if rows.shape != (2, 3):
            return None
        return Alignment(np.vstack([rows, (0.0, 0.0, 1.0)]))
    # An alignment is quickly set again: a damaged file must not keep a slide from opening.
    except (OSError, ValueError, TypeError, OverflowError, JobFailed):
        return None


def _drop(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise JobFailed(
            f"The kept alignment could not be taken away ({error.strerror or error}): delete {path}."
        ) from error
