"""Folders that appear whole or not at all, and what a killed run left is put back.

A folder is written in a workshop, a hidden folder beside its place: ``new`` holds what is being written,
``old`` what stood there before, for the moment in which they change places, and ``lock`` tells others that
somebody works there. The operating system gives the lock back when its holder dies: a workshop without
holder was left by a run that was killed, and the next one to write there puts back what it holds.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.inference.locks import FileLock
from napari_her2.whole_files import not_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Owned = Callable[[tuple[str, ...]], bool]
    """Whether a file or folder, by its parts below the folder that is replaced, goes with the old content."""

_TRIES = 20
"""So often a folder takes its place before it gives up against others that want it too."""


def everything(_: tuple[str, ...]) -> bool:
    """Take all that a folder holds for its own, to be replaced with it."""
    return True


@contextmanager
def whole_folder(target: Path, owned: Owned = everything) -> Iterator[Path]:
    """Write into a folder beside the target, which takes its place when all went well.

    Parameters
    ----------
    target : Path
        Replaced where it exists.
    owned : callable
        What of the older content goes; everything else is moved into the new folder as it is, links as
        links. A folder that is owned keeps what is not in it.

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
        put_back(target, owned)
        workshop, lock = _open_workshop(target)
        try:
            try:
                folder = workshop / "new"
                folder.mkdir()
                yield folder
                _change_places(folder, target, workshop)
            finally:
                _finish(workshop, target, owned)
        finally:
            _close_workshop(workshop, lock)
    except OSError as error:
        raise not_written(target, error) from error


def put_back(target: Path, owned: Owned = everything) -> None:
    """Put back what a run that was killed had moved aside; nothing happens where there is nothing.

    Parameters
    ----------
    target : Path
        A folder that `whole_folder` writes.
    owned : callable
        As for it.

    Raises
    ------
    JobFailed
        If the place cannot be written.
    """
    try:
        for workshop in _workshops(target):
            lock = FileLock(workshop / "lock")
            if not lock.acquire():
                continue
            try:
                _finish(workshop, target, owned)
            finally:
                _close_workshop(workshop, lock)
    except OSError as error:
        raise not_written(target, error) from error


def _open_workshop(target: Path) -> tuple[Path, FileLock]:
    for _ in range(_TRIES):
        workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        lock = FileLock(workshop / "lock")
        # Somebody who puts back may take a workshop that has only just begun for one that was left.
        with suppress(FileNotFoundError):
            if lock.acquire() and workshop.exists():
                return workshop, lock
        lock.release()
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _close_workshop(workshop: Path, lock: FileLock) -> None:
    """Delete a workshop; older content that could not be moved stays, for the next run to put back."""
    if _aside(workshop):
        lock.release()
        return
    shutil.rmtree(workshop, ignore_errors=True)
    lock.release()
    shutil.rmtree(workshop, ignore_errors=True)  # Windows deletes no file that is held open


def _workshops(target: Path) -> list[Path]:
    """Workshops of a target that somebody began; one without lock and older content has only just begun."""
    name = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}")
    try:
        beside = sorted(os.scandir(target.parent), key=lambda item: item.name)
    except FileNotFoundError:
        return []
    found = [
        Path(item.path) for item in beside if name.fullmatch(item.name) and item.is_dir(follow_symlinks=False)
    ]
    known = re.compile(r"new|old\d*|spent\d*|lock")
    return [
        path
        for path in found
        if (inside := os.listdir(path)) and all(known.fullmatch(each) for each in inside)
    ]


def _aside(workshop: Path) -> list[Path]:
    """Older contents in a workshop, the latest first."""
    try:
        inside = [Path(item.path) for item in os.scandir(workshop) if item.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted((path for path in inside if path.name.startswith("old")), reverse=True)


def _change_places(folder: Path, target: Path, workshop: Path) -> None:
    """Move the target aside and the folder to its place, also where others do the same at that moment."""
    for number in range(_TRIES):
        # A rename cannot replace a folder that holds files.
        _move(target, workshop / f"old{number:02}")
        try:
            folder.rename(target)
        except OSError:
            if number == _TRIES - 1 or not os.path.lexists(target):
                raise
        else:
            return


def _finish(workshop: Path, target: Path, owned: Owned) -> None:
    """Move what is not ours from the older contents to the target; without a target they are put back."""
    for number, old in enumerate(_aside(workshop)):
        if not os.path.lexists(target) and _move(old, target):
            continue
        _carry(old, target, owned, ())
        # Marked, so that a folder of which only a part is deleted is never put back.
        old.rename(workshop / f"spent{number:02}")


def _carry(old: Path, new: Path, owned: Owned, inside: tuple[str, ...]) -> None:
    for item in sorted(os.scandir(old), key=lambda found: found.name):
        place, parts = new / item.name, (*inside, item.name)
        if not owned(parts):
            if not os.path.lexists(place):
                new.mkdir(exist_ok=True)
                os.rename(item.path, place)
        elif item.is_dir(follow_symlinks=False):
            _carry(Path(item.path), place, owned, parts)


def _move(source: Path, target: Path) -> bool:
    """Rename; False where the source is not there, or the target is taken."""
    try:
        source.rename(target)
    except OSError:
        if os.path.lexists(source) and not os.path.lexists(target):
            raise
        return False
    return True
