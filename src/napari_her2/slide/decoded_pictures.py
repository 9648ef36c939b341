"""Whole slides that are one JPEG: decoded once into a file of the cache, and read from there.

A JPEG cannot be read in the middle without everything before it. So one of more pixels than are held in
memory is decoded row by row into a file of 3 bytes a pixel, which the operating system maps and may write out
at any time; what is read of it later comes from there, also when the slide is opened again. The files lie in
the cache, where those that were not used for the longest time make room for new ones.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # it ships no types

from napari_her2.errors import SlideError
from napari_her2.number_words import size_in_words
from napari_her2.own_files import cache_base, private_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_BYTES = 32 << 30
"""Of all decoded pictures together."""
_SPARE = 1 << 30
_MOST_PIXELS_A_BYTE = 256
"""A JPEG of one colour has 64 pixels a byte, with tables of its own 170: what states more is no picture."""
_SUFFIX = ".rgb"
_CHUNK = 1 << 24
_SEQUENTIAL = frozenset({0xC0, 0xC1})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decoded_jpeg(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG as a mapped file, decoding it where that was not done before.

    Parameters
    ----------
    path : Path
    shape : tuple of int
        (height, width) as its header states.

    Returns
    -------
    (height, width, 3) uint8
        Cannot be written.

    Raises
    ------
    SlideError
        If it is progressive (such a file needs all of it in memory), states more than its bytes can hold, or
        the disk has no room.
    ValueError
        If its data are damaged or end early.
    OSError
        If it cannot be read.
    """
    folder = private_folder(private_folder(cache_base()) / "pictures", within=True)
    kept = folder / f"{_key(path)}{_SUFFIX}"
    need = shape[0] * shape[1] * 3
    if not kept.is_symlink() and kept.is_file() and kept.stat().st_size == need:
        with suppress(OSError):
            os.utime(kept)
        return _mapped(kept, shape)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if shape[0] * shape[1] > len(data) * _MOST_PIXELS_A_BYTE:
            raise SlideError(
                f"{path.name} states {shape[1]:,} x {shape[0]:,} px, more than its "
                f"{size_in_words(len(data))} can hold: it is damaged; copy it again from its source."
            )
        if not _is_sequential(data):
            raise SlideError(
                f"{path.name} has {shape[1]:,} x {shape[0]:,} px as a progressive JPEG, which is decoded in "
                f"memory alone: save it as a baseline JPEG, or as a tiled TIFF."
            )
        _make_room(folder, need, path)
        _decode(data, kept, shape)
    return _mapped(kept, shape)


def _decode(data: mmap.mmap, kept: Path, shape: tuple[int, int]) -> None:
    """Decode into a file beside its place, which takes it when all went well."""
    number, name = tempfile.mkstemp(suffix=".part", dir=kept.parent)
    try:
        with os.fdopen(number, "r+b") as file:
            _reserve(file.fileno(), shape[0] * shape[1] * 3)
            pixels = mmap.mmap(file.fileno(), 0)
            # Strict: where data end early libjpeg would fill the rest with pixels of its own.
            array = simplejpeg.decode_jpeg(memoryview(data), colorspace="RGB", buffer=pixels, strict=True)
            decoded = array.shape
            del array
            pixels.close()
        if decoded != (*shape, 3):
            raise ValueError("its header states another size")
        os.replace(name, kept)
    finally:
        with suppress(OSError):
            os.unlink(name)


def _reserve(number: int, size: int) -> None:
    """Take the room on the disk now: a mapped file that finds none while it is written ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, size)
        return
    for at in range(0, size, _CHUNK):  # pragma: no cover - Windows and macOS
        os.write(number, bytes(min(_CHUNK, size - at)))


def _make_room(folder: Path, need: int, path: Path) -> None:
    """Let go of the pictures that were not used for the longest time.

    Raises
    ------
    SlideError
        If there is no room on the disk all the same.
    """
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files:
        if total + need <= MAX_BYTES and shutil.disk_usage(folder).free >= need + _SPARE:
            break
        total -= file.stat().st_size
        with suppress(OSError):  # in use on Windows
            file.unlink()
    free = shutil.disk_usage(folder).free
    if need > MAX_BYTES or free < need + _SPARE:
        raise SlideError(
            f"{path.name} is decoded to the disk and takes {size_in_words(need)} there, and "
            f"{size_in_words(free)} are free in {folder}: free space, or name another folder with "
            f"NAPARI_HER2_CACHE."
        )


def _mapped(kept: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    with kept.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, np.uint8).reshape(*shape, 3)


def _key(path: Path) -> str:
    """Name a file as it is now: one that changes is decoded anew."""
    found = path.stat()
    facts = (os.path.realpath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _is_sequential(data: mmap.mmap) -> bool:
    """Whether the frame of a JPEG is baseline or extended sequential, which is decoded row by row."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return marker in _SEQUENTIAL
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return False
