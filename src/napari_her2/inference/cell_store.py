"""Cells on disk, piece by piece: a killed run goes on where it was, other regions read only what is new.

A store is one append-only file of blocks, each with its length and the CRC-32 of what it holds: a run killed
in the middle of a write leaves a tail that does not check, which the next run cuts off. The first block
holds what was fitted for the slide. Stores lie among those of features, and share their limit.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from napari_her2.cells.measuring import MEASURED
from napari_her2.cells.table import Cells
from napari_her2.cells.windows import PIECE_PX, Piece
from napari_her2.inference.block_file import BlockFile
from napari_her2.inference.cache import CELLS_SUFFIX, cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


class CellStore(BlockFile):
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

    held = "cells"
    busy = "another program is reading the cells of this slide, so they are not kept"

    def __init__(self, key: CellKey | None) -> None:
        super().__init__(None if key is None else cache_folder() / f"{key.digest}{CELLS_SUFFIX}")
        self.fitted: dict[str, Any] | None = None

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
        end = 0
        try:
            self._file.seek(0)
            while (block := _read_block(self._file)) is not None and self._takes(*block, wanted, sink):
                end = self._file.tell()
            self._goes_on_at(end)
        except OSError as error:
            self._give_up(error)

    def keep_fitted(self, values: dict[str, Any]) -> None:
        """Keep what was fitted for the slide; the first that is kept."""
        self._append(_block(_FITTED, json.dumps(values, allow_nan=True).encode()))

    def keep(self, pieces: Sequence[Piece]) -> None:
        """Keep pieces. Where the disk is full or fails, the store stops keeping and says so in `problem`."""
        self._append(b"".join(_block(_PIECE, _packed(piece)) for piece in pieces))

    def _takes(
        self,
        kind: int,
        body: bytes,
        wanted: Callable[[tuple[int, int]], bool],
        sink: Callable[[Piece], None],
    ) -> bool:
        """Take what a block holds; whether it is what its kind says."""
        piece: Piece | None = None
        try:
            if kind == _FITTED:
                self.fitted = json.loads(body)
            elif kind == _PIECE and wanted(_PLACE.unpack_from(body)[:2]):
                piece = _unpacked(body)
        except (ValueError, struct.error):  # another version of us wrote it
            return False
        if piece is not None:
            sink(piece)
        return True


def _block(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, kind, len(body), zlib.crc32(body)) + body


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
