"""Bytes of a file, read in longer stretches than are asked for: of one on a slow drive, and of headers.

Where each read waits for the network, what counts is how many there are, and not how much each brings: tiles
that lie beside each other on a slide mostly do so in its file, too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]

STRETCH_BYTES = 1 << 18
"""Some ten tiles; at 10 MB/s it takes as long as a read of such a drive waits anyway."""
_KEPT = 64


class _Stretch:
    """One stretch: whoever comes first reads it, the others wait for it."""

    __slots__ = ("data", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.data: bytes | None = None


class Stretches:
    """The stretches of a file that were read last, shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Stretch] = OrderedDict()

    def read(self, offset: int, count: int, read: Read) -> bytes:
        """Bytes of a part of the file, as ``read`` would give them.

        Parameters
        ----------
        offset : int
        count : int
            More than a stretch is read as it is.
        read : callable
            Of (offset, count) to the bytes there; fewer where the file ends.
        """
        if not 0 < count < STRETCH_BYTES:
            return read(offset, count)
        first, last = offset // STRETCH_BYTES, (offset + count - 1) // STRETCH_BYTES
        parts = [self._stretch(number, read) for number in range(first, last + 1)]
        start = offset - first * STRETCH_BYTES
        found = (parts[0] if len(parts) == 1 else b"".join(parts))[start : start + count]
        # A drive may give less than it was asked for, and not only at the end of a file.
        whole = all(len(part) == STRETCH_BYTES for part in parts[:-1]) and len(found) == count
        return found if whole else read(offset, count)

    def _stretch(self, number: int, read: Read) -> bytes:
        with self._lock:
            stretch = self._kept.setdefault(number, _Stretch())
            self._kept.move_to_end(number)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        with stretch.lock:
            if stretch.data is None:
                stretch.data = read(number * STRETCH_BYTES, STRETCH_BYTES)
            return stretch.data
