"""Cells on disk, piece by piece: a killed run goes on where it was, other regions read only what is new.

A store is one append-only file of blocks, each with its length and the CRC-32 of what it holds: a run killed
in the middle of a write leaves a tail that does not check, which the next run cuts off. The first block
holds what was fitted for the slide. Stores lie among those of features, and share their limit.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from napari_her2.cells.measuring import MEASURED
from napari_her2.cells.table import Cells
from napari_her2.cells.windows import PIECE_PX, Piece
from napari_her2.inference.cache import CELLS_SUFFIX, cache_folder
from napari_her2.inference.locks import FileLock
from napari_her2.own_files import open_own, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

_MAGIC = b"HER2CEL1"
_HEADER = struct.Struct("<8sIII")  # magic, kind, bytes of the body, CRC-32 of the body
_FITTED, _PIECE = 0, 1
_PLACE = struct.Struct("<iiII")  # row, column, cells, squares along a side
# A header that claims more than this is damage: it must not make us reserve memory.
_MOST_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class CellKey:
    """Everything that the cells of a slide depend on.

    Parameters
    ----------
    slide : str
        Its fingerprint, of all its content.
    shape_px0 : tuple of int
        (height, width) of level 0.
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel, as used: the user may have given it.
    fitted_to : str
        What light and stains were fitted to.
    reader : str
        Name and version of the reader, and version of napari-her2.
    """

    slide: str
    shape_px0: tuple[int, int]
    slide_mpp: tuple[float, float]
    fitted_to: str
    reader: str

    @property
    def digest(self) -> str:
        """Name of the store: SHA-256 of the values above, and of how cells are measured, hexadecimal."""
        values = {"measured": MEASURED, "piece_px": PIECE_PX, **asdict(self)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class CellStore:
    """The cells of one slide on disk.

    Parameters
    ----------
    key : CellKey or None
        None keeps nothing.

    Attributes
    ----------
    problem : str
        Why nothing is kept, for a person; empty where it is.
    fitted : dict or None
        What was fitted for the slide, of a store that holds it.

    Notes
    -----
    Use as a context manager: leaving gives the lock back.
    """

    def __init__(self, key: CellKey | None) -> None:
        self.problem = ""
        self.fitted: dict[str, Any] | None = None
        self._file: BinaryIO | None = None
        self._lock: FileLock | None = None
        self._loaded = 0
        self._path = None if key is None else cache_folder() / f"{key.digest}{CELLS_SUFFIX}"

    def __enter__(self) -> CellStore:
        if self._path is None:
            return self
        try:
            private_folder(self._path.parent, within=True)
            lock = FileLock(self._path.with_suffix(".lock"))
            if not lock.acquire():
                self.problem = "another program is reading the cells of this slide, so they are not kept"
                return self
            self._lock = lock
            self._file = open_own(self._path, "r+b")
            os.utime(self._file.fileno() if os.utime in os.supports_fd else self._path)
        except OSError as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def load(self, wanted: Callable[[tuple[int, int]], bool], sink: Callable[[Piece], None]) -> None:
        """Hand over the wanted pieces that are kept; cut off what does not check.

        Parameters
        ----------
        wanted : callable
            Asked with the (row, column) of a piece.
        sink : callable
            Called with each piece that is.
        """
        if self._file is None:
            return
        try:
            self._file.seek(0)
            while (block := _read_block(self._file)) is not None:
                kind, body = block
                if kind == _FITTED:
                    self.fitted = json.loads(body)
                elif kind == _PIECE and wanted(_PLACE.unpack_from(body)[:2]):
                    sink(_unpacked(body))
                self._loaded = self._file.tell()
            self._file.truncate(self._loaded)
            self._file.seek(self._loaded)
        except OSError as error:
            self._give_up(error)

    def keep_fitted(self, values: dict[str, Any]) -> None:
        """Keep what was fitted for the slide; the first that is kept."""
        self._append([(_FITTED, json.dumps(values, allow_nan=True).encode())])

    def keep(self, pieces: Sequence[Piece]) -> None:
        """Keep pieces. Where the disk is full or fails, the store stops keeping and says so in `problem`."""
        self._append([(_PIECE, _packed(piece)) for piece in pieces])

    def take_back(self) -> None:
        """Take back all that was kept since it was loaded: the slide was not what it was taken for."""
        self._cut(self._loaded)

    def _append(self, blocks: list[tuple[int, bytes]]) -> None:
        if self._file is None:
            return
        start = self._file.tell()
        data = b"".join(
            _HEADER.pack(_MAGIC, kind, len(body), zlib.crc32(body)) + body for kind, body in blocks
        )
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self._cut(start)
            self._give_up(error)

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
        folder = cache_folder()
        self.problem = (
            f"cells are not kept on disk ({error.strerror or error}): free space in {folder}, or set "
            f"NAPARI_HER2_CACHE to another folder"
        )

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError:
                # A full disk also refuses the last flush of the buffer; the file is closed all the same.
                self.problem = self.problem or "the last cells could not be kept on disk"
        if self._lock is not None:
            self._lock.release()


def _read_block(file: BinaryIO) -> tuple[int, bytes] | None:
    """Kind and body of the next block; None at the end, and where it does not check."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    magic, kind, length, crc = _HEADER.unpack(head)
    if magic != _MAGIC or length > _MOST_BYTES:
        return None
    body = file.read(length)
    return (kind, body) if len(body) == length and zlib.crc32(body) == crc else None


def _packed(piece: Piece) -> bytes:
    cells, squares = piece.cells, piece.focus.shape[0]
    columns = (np.ascontiguousarray(getattr(cells, of.name)).tobytes() for of in fields(Cells))
    head = _PLACE.pack(*piece.place, len(cells), squares)
    return b"".join((head, piece.focus.astype("<f4").tobytes(), piece.damaged.tobytes(), *columns))


def _unpacked(body: bytes) -> Piece:
    row, col, count, squares = _PLACE.unpack_from(body)
    at = _PLACE.size

    def taken(kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:  # noqa: ANN401 - a dtype
        nonlocal at
        size = int(np.prod(shape))
        found = np.frombuffer(body, kind, size, at).reshape(shape)
        at += found.nbytes
        return found

    focus, damaged = taken("<f4", (squares, squares)), taken(np.bool_, (squares, squares))
    none = Cells.none()
    columns = {}
    for of in fields(Cells):
        like = getattr(none, of.name)
        columns[of.name] = taken(like.dtype, (count, *like.shape[1:]))
    if at != len(body):
        raise ValueError("a block is longer than what it holds")
    return Piece((row, col), Cells(**columns), focus, damaged)
