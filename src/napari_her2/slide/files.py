"""Bytes of a slide file, read at any place from any thread."""

from __future__ import annotations

import os
import stat
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from napari_her2.errors import SlideError
from napari_her2.slide.stretches import Stretches

if TYPE_CHECKING:
    from pathlib import Path


_WATCHED_READS, _FIRST_READS = 8, 3
"""Of the last reads it is seen whether a drive is slow; and, before anybody is told, of the first ones."""
_SMALL_BYTES = 1024
"""The fields of a TIFF directory are shorter, and there are dozens of them."""
SLOW_READ_S = 0.01
"""A disk in the machine answers sooner, and a network drive that one can work with, too."""


class DamagedTile(SlideError):
    """The stored bytes of a tile are missing or cannot be decoded."""


class NotBrightfield(SlideError):
    """The pixels are no 8-bit brightfield colours: another library would show them, but wrongly."""


class _Handle:
    """An open file descriptor that closes when nobody uses it any more."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        # Opening a pipe would wait for somebody to write into it.
        self.fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        weakref.finalize(self, os.close, self.fd)
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise SlideError(f"{path.name} is no file but a pipe or a device: choose the file of a slide.")


class ByteFile:
    """A file open for positioned reads by many threads at once.

    Parameters
    ----------
    path : Path
        File to open.

    Notes
    -----
    Closing drops the reference to the descriptor instead of closing it at once: a read that is
    under way in another thread holds its own reference, so it can never hit a descriptor number
    that the system has meanwhile given to another file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: _Handle | None = _Handle(path)
        self._seek_lock = threading.Lock()
        self._waits: deque[float] = deque(maxlen=_WATCHED_READS)
        self._stretches = Stretches()
        self.size = os.fstat(self._handle.fd).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Bytes of one part of the file; fewer than asked for where the file ends.

        Until it is known that the drive is not slow, and with parts of a header, what lies around is read
        with it and kept for a while.
        """
        self._open_handle()
        wait_s = self._usual_wait(_FIRST_READS)
        if count > _SMALL_BYTES and wait_s is not None and wait_s < SLOW_READ_S:
            return self._read(offset, count)
        try:
            return self._stretches.read(offset, count, self._read)
        except DamagedTile:  # which may lie beside what is asked for
            return self._read(offset, count)

    def _read(self, offset: int, count: int) -> bytes:
        handle = self._open_handle()
        start = time.perf_counter()
        try:
            if hasattr(os, "pread"):
                return os.pread(handle.fd, count, offset)
            with self._seek_lock:  # Windows has no positioned read
                os.lseek(handle.fd, offset, os.SEEK_SET)
                return os.read(handle.fd, count)
        except OSError as error:
            raise DamagedTile(
                f"{self.path.name} cannot be read at byte {offset:,} ({error.strerror or error}): "
                f"check the disk or the network drive, or copy the file again."
            ) from error
        finally:
            self._waits.append(time.perf_counter() - start)

    @property
    def read_s(self) -> float:
        """Seconds that a read takes: three of four of the last ones took longer; 0 before there were enough.

        Not their mean: on a busy machine some reads wait for the processor and not for the file.
        """
        return self._usual_wait(_WATCHED_READS) or 0.0

    def _usual_wait(self, enough: int) -> float | None:
        waits = sorted(self._waits.copy())
        return waits[len(waits) // 4] if len(waits) >= enough else None

    def _open_handle(self) -> _Handle:
        handle = self._handle
        if handle is None:
            raise SlideError(f"{self.path.name} was closed: open it again to read from it.")
        return handle

    def close(self) -> None:
        """Let go of the file."""
        self._handle = None
