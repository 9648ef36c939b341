"""A file of blocks that only grows: what a killed run has kept is there for the next one.

A run killed in the middle of a write leaves a tail that does not check, which the next run cuts off. One
program writes at a time; where the disk fails, nothing more is kept, and the reason is told.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Self

from napari_her2.inference.locks import FileLock
from napari_her2.own_files import open_own, private_folder

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class BlockFile:
    """An append-only file that one program writes; a subclass says what a block is, and reads them.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    within : bool
        Whether the folder is our own, and none of its parents may be a link.

    Attributes
    ----------
    held : str
        What the file holds, for a person.
    busy : str
        What is said where another program writes the file.
    problem : str
        Why nothing is kept, for a person; empty where it is.

    Notes
    -----
    Use as a context manager: leaving gives the lock back.
    """

    held: ClassVar[str]
    busy: ClassVar[str]

    def __init__(self, path: Path | None, *, within: bool = True) -> None:
        self._path, self._within = path, within
        self.problem = ""
        self._loaded = 0  # where the blocks end that were there
        self._file: BinaryIO | None = None
        self._lock = None if path is None else FileLock(path.with_suffix(".lock"))

    def __enter__(self) -> Self:
        if self._path is None or self._lock is None:
            return self
        try:
            private_folder(self._path.parent, within=self._within)
            if not self._lock.acquire():
                self.problem = self.busy
                return self
            self._file = open_own(self._path, "r+b")
            os.utime(self._file.fileno() if os.utime in os.supports_fd else self._path)
        except OSError as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def writable(self) -> bool:
        """Whether what is handed over is kept."""
        return self._file is not None

    def take_back(self) -> None:
        """Take back all that was kept since it was loaded: the slide was not what it was taken for."""
        self._cut(self._loaded)

    def _append(self, blocks: bytes) -> None:
        """Keep blocks. Where the disk is full or fails, no more is kept, and `problem` says so."""
        if self._file is None:
            return
        start = self._file.tell()
        try:
            self._file.write(blocks)
            self._file.flush()
        except OSError as error:
            self._cut(start)
            self._give_up(error)

    def _goes_on_at(self, end: int) -> None:
        """Cut off what follows the last block that checks, and go on there."""
        if self._file is not None:
            self._file.truncate(end)
            self._file.seek(end)
            self._loaded = end

    def _cut(self, end: int) -> None:
        """Take a half-written block off; where even this fails its CRC gives it away."""
        if self._file is None:
            return
        try:
            os.ftruncate(self._file.fileno(), end)
            self._file.seek(end)
        except OSError:
            return

    def _give_up(self, error: OSError) -> None:
        self._close()
        folder = "" if self._path is None else self._path.parent
        self.problem = (
            f"{self.held} are not kept on disk ({error.strerror or error}): free space in {folder}, "
            f"or set NAPARI_HER2_CACHE to another folder"
        )

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                # A full disk also refuses the last flush of the buffer; the file is closed all the same.
                self.problem = self.problem or f"the last {self.held} could not be kept on disk"
        if self._lock is not None:
            self._lock.release()
