"""The directories of a TIFF, read by ourselves before any library is trusted with the file.

A TIFF keeps its images (levels, label, overview) as directories in a chain through the whole file, with
further chains (SubIFDs) hanging on it. Libraries follow it wherever it leads: for ever where it runs in a
circle, and silently no further where a copy was cut off.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from napari_her2.slide.files import ByteFile

State = Literal["whole", "cut", "none", "circle", "endless"]
_BY_GRAVITY: tuple[State, ...] = ("whole", "cut", "none", "circle", "endless")

MAX_DIRECTORIES = 2000
"""A slide has some ten, a stack of focal planes some hundred."""
WIDTH, LENGTH, BITS, COMPRESSION, DESCRIPTION, SAMPLES = 256, 257, 258, 259, 270, 277
STRIP_BYTES, TILE_BYTES = 279, 325
ROWS_PER_STRIP, PLANAR, SOFTWARE, TILE_WIDTH, TILE_LENGTH, XMP = 278, 284, 305, 322, 323, 700
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_SUB_DIRECTORIES = 330
_MAX_ENTRIES = 4096  # as tifffile
_MAX_SUB_DIRECTORIES = 64
_TEXT_BYTES = 1 << 20
_NUMBERS = {WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, ROWS_PER_STRIP, PLANAR, TILE_WIDTH, TILE_LENGTH}
_NUMBERS |= {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
_LARGEST = {STRIP_BYTES, TILE_BYTES}
_TEXTS = {DESCRIPTION, SOFTWARE, XMP}
# Field types: struct code, and how many numbers make one value.
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_TYPES |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS = {5, 10}
_FRACTIONS = _RATIONALS | {11, 12}


@dataclass(frozen=True, slots=True)
class Directory:
    """What one image of a TIFF states about itself.

    Parameters
    ----------
    numbers : dict of int to float
        First value of the numeric tags that matter here; without those that are no finite number. Of the
        lengths of tiles and strips the largest.
    texts : dict of int to bytes
        Description, software and XMP; at most a MiB of each.
    """

    numbers: dict[int, float] = field(default_factory=dict)
    texts: dict[int, bytes] = field(default_factory=dict)

    def integer(self, code: int, otherwise: int = 0) -> int:
        """Value of a tag that holds a whole number."""
        return int(self.numbers.get(code, otherwise))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.integer(LENGTH), self.integer(WIDTH)


@dataclass(frozen=True, slots=True)
class TiffHeaders:
    """The directories of a TIFF.

    Parameters
    ----------
    state : str
        "whole"; "none": not even the first directory is in the file; "cut": a later one is not;
        "circle": a link leads back; "endless": there are more than `MAX_DIRECTORIES`.
    directories : tuple of Directory
        In the order in which they are linked, then those of the chains that hang on them.
    """

    state: State
    directories: tuple[Directory, ...]


def read_headers(file: ByteFile) -> TiffHeaders:
    """Walk the directories of a TIFF.

    Parameters
    ----------
    file : ByteFile
        A TIFF or BigTIFF.
    """
    return _Walk(file).headers()


class _Walk:
    """One walk along all chains of a file."""

    def __init__(self, file: ByteFile) -> None:
        self._file = file
        head = file.read_at(0, 16)
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = head[2:4] in (b"+\0", b"\0+")
        # NDPI: 64-bit links between directories of the classic form.
        self._ndpi = not self._big and file.path.suffix.lower() == ".ndpi" and head[:2] == b"II"
        self._link_code = "Q" if self._big or self._ndpi else "I"
        start = 8 if self._big else 4
        self._first = self._number(self._link_code, head[start : start + 8]) or 0
        self._seen: set[int] = set()
        self._directories: list[Directory] = []

    def headers(self) -> TiffHeaders:
        state: State = "whole"
        waiting = deque([self._first])
        while waiting and state in ("whole", "cut"):
            state = max(state, self._follow(waiting.popleft(), waiting), key=_BY_GRAVITY.index)
        return TiffHeaders(state if self._directories else "none", tuple(self._directories))

    def _follow(self, place: int, waiting: deque[int]) -> State:
        """Walk one chain; the chains that hang on it are left waiting."""
        chain: set[int] = set()
        while place and (place not in self._seen or place in chain):
            if place in chain:
                return "circle"
            if len(self._seen) >= MAX_DIRECTORIES:
                return "endless"
            read = self._read(place)
            if read is None:
                return "cut"
            chain.add(place)
            self._seen.add(place)
            directory, sub_places, place = read
            self._directories.append(directory)
            waiting.extend(sub_places)
        return "whole"

    def _read(self, place: int) -> tuple[Directory, list[int], int] | None:
        """One directory, its sub-directories and the next one; None where the file ends before."""
        count_code, entry_bytes = ("Q", 20) if self._big else ("H", 12)
        count = self._number(count_code, self._bytes(place, struct.calcsize(count_code)))
        if count is None or count > _MAX_ENTRIES:
            return None
        start = place + struct.calcsize(count_code)
        link_bytes = struct.calcsize(self._link_code)
        block = self._bytes(start, count * entry_bytes + link_bytes)
        link = self._number(self._link_code, block[count * entry_bytes :])
        if link is None:
            return None
        directory, subs = Directory(), list[int]()
        for at in range(0, count * entry_bytes, entry_bytes):
            self._entry(block[at : at + entry_bytes], directory, subs)
        return directory, subs, link

    def _entry(self, entry: bytes, directory: Directory, subs: list[int]) -> None:
        code, kind = struct.unpack(self._order + "HH", entry[:4])
        known = _NUMBERS | _TEXTS | _LARGEST | {_SUB_DIRECTORIES}
        if kind not in _TYPES or code not in known:
            return
        parts = self._order + _TYPES[kind]
        size = struct.calcsize(parts)
        most = {**dict.fromkeys(_LARGEST, self._file.size // size), _SUB_DIRECTORIES: _MAX_SUB_DIRECTORIES}
        limit = _TEXT_BYTES if code in _TEXTS else size * most.get(code, 1)
        word = self._order + ("Q" if self._big else "I")
        room = struct.calcsize(word)
        (count,) = struct.unpack(word, entry[4 : 4 + room])
        wanted = min(count * size, limit)
        data = entry[4 + room :]
        if count * size > room:
            data = self._bytes(struct.unpack(word, data)[0], wanted)
        data = data[: len(data[:wanted]) // size * size]
        if code in _TEXTS:
            directory.texts.setdefault(code, data)
            return
        if code in _LARGEST:
            if kind not in _FRACTIONS:  # a slide has a million of them; what is below 0 is read as vast
                lengths = np.frombuffer(data, f"{self._order}u{size}")
                directory.numbers.setdefault(code, int(lengths.max(initial=0)))
            return
        values = [_value(values, kind) for values in struct.iter_unpack(parts, data)]
        if code == _SUB_DIRECTORIES:
            subs.extend(int(value) for value in values if value)
        elif values and values[0] is not None:
            directory.numbers.setdefault(code, values[0])

    def _bytes(self, place: int, count: int) -> bytes:
        return self._file.read_at(place, count) if 0 < place < self._file.size else b""

    def _number(self, code: str, data: bytes) -> int | None:
        size = struct.calcsize(code)
        return int(struct.unpack(self._order + code, data[:size])[0]) if len(data) >= size else None


def _value(values: tuple[float, ...], kind: int) -> float | None:
    """Return the number that a field holds; None where it is none (0/0, NaN)."""
    if kind in _RATIONALS:
        return values[0] / values[1] if values[1] else None
    return values[0] if math.isfinite(values[0]) else None
