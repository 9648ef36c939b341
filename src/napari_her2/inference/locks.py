"""A lock between programs that the operating system gives back when its holder dies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

from napari_her2.own_files import open_own

if TYPE_CHECKING:
    from pathlib import Path


class FileLock:
    """Exclusive lock on a file of its own; never waits.

    Parameters
    ----------
    path : Path
        Made where it is absent, and left in place: deleting it would let two holders in.
    shared : bool
        Whether others may take it too, where it is their turn: the file gets the usual rights.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._shared = shared
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Take the lock.

        Returns
        -------
        bool
            False where somebody else holds it, another store of this very program included.

        Raises
        ------
        OSError
            If the file cannot be made, or is a link or no plain file.
        """
        file = open_own(self.path, "ab", shared=self._shared)
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            return False
        except OSError:
            file.close()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


if sys.platform == "win32":

    def _lock(file: BinaryIO) -> None:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:

    def _lock(file: BinaryIO) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
