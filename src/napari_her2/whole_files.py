"""Files that appear whole or not at all: written beside their place, which they take when all went well.

A link of that name is replaced and never written through; what stood there before stays until then.
"""

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

_LONGEST_NAME = 40


@contextmanager
def replaced_file(target: Path) -> Iterator[Path]:
    """Write a file that replaces another.

    Parameters
    ----------
    target : Path
        Its folder is there.

    Yields
    ------
    Path
        The file to write, in a folder that nobody else can read; deleted where anything fails.

    Raises
    ------
    OSError
        If the place cannot be written, or the disk is full.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name[:_LONGEST_NAME]}-", dir=target.parent))
    try:
        path = scratch / target.name
        yield path
        os.replace(path, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Write a file that a user asked for.

    Parameters
    ----------
    target : Path
        Replaced where it exists; its folder is made where it is missing.

    Yields
    ------
    Path
        The file to write.

    Raises
    ------
    JobFailed
        If the place cannot be written, or the disk is full.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(target) as path:
            yield path
    except OSError as error:
        raise not_written(target, error) from error


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
        raise not_written(folder, error) from error


def not_written(target: Path, error: OSError) -> JobFailed:
    """Return what to raise where a file or folder cannot be written."""
    reason = error.strerror or str(error)
    return JobFailed(f"{target} cannot be written ({reason}): free space, or choose another folder.")
