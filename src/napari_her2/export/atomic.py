"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Write into a folder beside the target, which takes its place when all went well.

    Parameters
    ----------
    target : Path
        Replaced where it exists.

    Yields
    ------
    Path
        The folder to write into; deleted where anything fails.

    Raises
    ------
    JobFailed
        If the place cannot be written, or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            folder = Path(scratch) / "new"
            folder.mkdir()
            yield folder
            if target.exists():
                # Moved aside first: a rename cannot replace a folder that holds files.
                target.rename(Path(scratch) / "old")
            folder.rename(target)
    except OSError as error:
        raise _not_written(target, error) from error


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Write a file beside the target, which takes its place when all went well.

    Parameters
    ----------
    target : Path
        Replaced where it exists.

    Yields
    ------
    Path
        The file to write; deleted where anything fails.

    Raises
    ------
    JobFailed
        If the place cannot be written, or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            path = scratch / target.name
            yield path
            os.replace(path, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise _not_written(target, error) from error


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written before hours are spent on what would go there.

    Parameters
    ----------
    folder : Path
        May not exist yet; it is not made.

    Raises
    ------
    JobFailed
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(20, "it is a file, not a folder")
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise _not_written(folder, error) from error


def _not_written(target: Path, error: OSError) -> JobFailed:
    reason = error.strerror or str(error)
    return JobFailed(f"{target} cannot be written ({reason}): free space, or choose another folder.")
