"""Features of tiles on disk: a killed run goes on where it was, a new region embeds only what is new.

A store is one append-only file of blocks, a block for each batch. Every block carries the length and the
CRC-32 of what it holds: a run killed in the middle of a write leaves a tail that does not check, which the
next run cuts off. So nothing but the last batch can be lost, and nothing half-written is ever read as
features. What is true is decided per tile; there is no mark of completeness that could be wrong.

Folder: the environment variable NAPARI_HER2_CACHE, else the cache folder of the user. Limit: 20 GB, or
NAPARI_HER2_CACHE_GB; the stores that were not used for longest are deleted first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from napari_her2.inference.block_file import BlockFile
from napari_her2.inference.locks import FileLock
from napari_her2.own_files import cache_base, is_plain, open_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DEFAULT_LIMIT_GB = 20.0
_KEY_VERSION = 2  # 1 knew a slide by the ends of its file, and two slides may share those
_MAGIC = b"HER2EMB1"
_HEADER = struct.Struct("<8sIII")  # magic, tiles, features per tile, CRC-32 of the body
_SUFFIX = ".features"
CELLS_SUFFIX = ".cells"
"""Of the stores of `napari_her2.inference.cell_store`, which lie here too, and count towards the limit."""
# A header that claims more than this is damage, not a batch: it must not make us reserve memory.
_MAX_BLOCK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Everything that the features of a tile depend on.

    Parameters
    ----------
    slide : str
        Its fingerprint, of all its content.
    shape_px0 : tuple of int
        (height, width) of level 0.
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel, as used: the user may have given it.
    tile_px : int
    mpp : float
        µm per pixel of the tiles.
    encoder : str
        Fingerprint of the encoder with its weights.
    precision : str
        Of the computation, with the kind of device, and how where not layer by layer: "cpu float32",
        "cpu bfloat16 fused layers 1".
    reader : str
        Name and version of the reader, and version of napari-her2: another decoder or another
        resampling may give other pixels.
    shift : tuple of float
        Of the grid; see `napari_her2.slide.grid.TileGrid`.
    """

    slide: str
    shape_px0: tuple[int, int]
    slide_mpp: tuple[float, float]
    tile_px: int
    mpp: float
    encoder: str
    precision: str
    reader: str
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def digest(self) -> str:
        """Name of the store: SHA-256 of the values above, hexadecimal."""
        values = {"key": _KEY_VERSION, **asdict(self)}
        if not any(self.shift):
            del values["shift"]  # of which older stores say nothing
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def cache_folder() -> Path:
    """Folder that holds the stores; it may not exist yet."""
    return cache_base() / "embeddings"


def cache_size() -> int:
    """Bytes that the stores take."""
    return sum(_size(path) for path in _stores())


def clear_cache() -> int:
    """Delete every store that nobody is writing; return the bytes that this freed."""
    return sum(_delete(path) for path in _stores())


def limit_bytes() -> int:
    """Most bytes that the stores may take."""
    try:
        gigabytes = float(os.environ.get("NAPARI_HER2_CACHE_GB", DEFAULT_LIMIT_GB))
    except ValueError:
        gigabytes = DEFAULT_LIMIT_GB
    return int(max(0.0, gigabytes) * 1e9) if gigabytes < 1e9 else 1 << 62


def shrink_cache(limit: int | None = None) -> int:
    """Delete the stores not used for longest until the rest is within the limit; return the bytes freed."""
    limit = limit_bytes() if limit is None else limit
    stores = sorted(_stores(), key=_last_used)
    total, freed = sum(_size(path) for path in stores), 0
    for path in stores:
        if total - freed <= limit:
            break
        freed += _delete(path)
    return freed


def stored_tiles(key: CacheKey, dim: int) -> NDArray[np.int32]:
    """Say which tiles a store holds; their features are neither read nor checked, and nothing is written.

    Parameters
    ----------
    key : CacheKey
    dim : int
        Features per tile.

    Returns
    -------
    (N, 2) int32
        Grid (row, column); none where there is no store.
    """
    found = [np.empty((0, 2), np.int32)]
    try:
        with open_own(_own_folder() / f"{key.digest}{_SUFFIX}", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            while len(head := file.read(_HEADER.size)) == _HEADER.size:
                magic, count, found_dim, _ = _HEADER.unpack(head)
                end = file.tell() + count * (8 + 2 * dim)
                if magic != _MAGIC or found_dim != dim or not file.tell() < end <= size:
                    break
                found.append(np.frombuffer(file.read(8 * count), "<i4").reshape(count, 2))
                file.seek(end)
    except OSError:  # no store, or none that can be read: nothing is kept then
        return found[0]
    return np.concatenate(found)


class FeatureStore(BlockFile):
    """The features of one slide, grid and encoder on disk.

    Parameters
    ----------
    key : CacheKey
    dim : int
        Features per tile.
    folder : Path, optional
        Default `cache_folder()`.

    Attributes
    ----------
    writable : bool
        False where another program writes this store now, or the folder cannot be written.
    problem : str
        Why it is not writable, for a person; empty where it is.

    Notes
    -----
    Use as a context manager: leaving gives the lock back.
    """

    held = "embeddings"
    busy = "another program is embedding this slide, so the cache is only read"

    def __init__(self, key: CacheKey, dim: int, folder: Path | None = None) -> None:
        self.key = key
        self.dim = dim
        self.path = (folder or cache_folder()) / f"{key.digest}{_SUFFIX}"
        super().__init__(self.path, within=folder is None)

    def load(self, sink: Callable[[NDArray[np.int32], NDArray[np.float16]], None]) -> None:
        """Hand over all features that check, block by block; cut off what does not.

        Parameters
        ----------
        sink : callable
            Called with (B, 2) int32 grid (row, column) and (B, D) float16.
        """
        try:
            if self._file is not None:
                self._file.seek(0)
                self._goes_on_at(self._read_blocks(self._file, sink))
            elif is_plain(self.path) and not (self._within and self.path.parent.is_symlink()):
                with open_own(self.path, "rb") as file:
                    self._read_blocks(file, sink)
        except OSError as error:
            self._give_up(error)

    def append(self, index: NDArray[np.integer], features: NDArray[np.float16]) -> None:
        """Keep a batch. Where the disk is full or fails, the store stops keeping and says so in `problem`.

        Parameters
        ----------
        index : (B, 2) int
            Grid (row, column).
        features : (B, D) float16
        """
        if self._file is None or not len(index):
            return
        body = np.ascontiguousarray(index, "<i4").tobytes() + np.ascontiguousarray(features, "<f2").tobytes()
        header = _HEADER.pack(_MAGIC, len(index), self.dim, zlib.crc32(body))
        self._append(header + body)

    def _read_blocks(
        self, file: BinaryIO, sink: Callable[[NDArray[np.int32], NDArray[np.float16]], None]
    ) -> int:
        """Read blocks up to the first that does not check; return the position behind the last good one."""
        end = 0
        for count, body in _blocks(file, self.dim):
            split = count * 8
            index = np.frombuffer(body, "<i4", 2 * count).reshape(count, 2)
            sink(index, np.frombuffer(body, "<f2", offset=split).reshape(count, self.dim))
            end += _HEADER.size + len(body)
        return end


def _blocks(file: BinaryIO, dim: int) -> Iterator[tuple[int, bytes]]:
    while len(head := file.read(_HEADER.size)) == _HEADER.size:
        magic, count, found_dim, crc = _HEADER.unpack(head)
        length = count * (8 + 2 * dim)
        if magic != _MAGIC or found_dim != dim or not 0 < length <= _MAX_BLOCK_BYTES:
            return
        body = file.read(length)
        if len(body) != length or zlib.crc32(body) != crc:
            return
        yield count, body


def _stores() -> list[Path]:
    try:
        inside = _own_folder().iterdir()
        return [path for path in inside if path.suffix in (_SUFFIX, CELLS_SUFFIX) and is_plain(path)]
    except OSError:  # there is none, or a link in its place
        return []


def _own_folder() -> Path:
    """Return the folder of the stores where it is one; it is not made."""
    folder = cache_folder()
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(folder))
    return folder


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted by another program in between
        return 0


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _delete(path: Path) -> int:
    """Delete a store unless somebody writes it; return its size, 0 where it stays."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        if not lock.acquire():
            return 0
        size = _size(path)
        path.unlink(missing_ok=True)
    except OSError:
        return 0
    finally:
        lock.release()
    return size
