"""The few facts of a TIFF's header that tell a slide from a picture, read without loading a TIFF library."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _TILE_WIDTH, _SUB_IFDS = 256, 257, 258, 262, 277, 322, 330
_TAGS = frozenset((_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _TILE_WIDTH, _SUB_IFDS))
# Struct letters of the integer types a TIFF tag may have: BYTE, SHORT, LONG, IFD, LONG8, IFD8.
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_PAGES = 64  # a longer file is a stack, and a damaged one may chain for ever
_MOST_TAGS = 4096
_RGB, _YCBCR = 2, 6


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One image of a TIFF file, as its header describes it.

    Parameters
    ----------
    height, width : int
        Pixels.
    tiled : bool
    colour : bool
        Three or four samples of 8 bits, RGB or YCbCr.
    sub_images : bool
        Whether smaller copies hang below it (OME-TIFF keeps its pyramid there).
    """

    height: int
    width: int
    tiled: bool
    colour: bool
    sub_images: bool


def read_pages(path: Path) -> tuple[TiffPage, ...]:
    """Images of the file, in order; empty where the file is no TIFF or is cut off.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of TiffPage
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return ()
        with path.open("rb") as file:
            return tuple(_pages(file))
    except (OSError, struct.error, OverflowError):
        return ()


def _pages(file: BinaryIO) -> list[TiffPage]:
    order = {b"II": "<", b"MM": ">"}.get(file.read(2))
    if order is None:
        return []
    (magic,) = struct.unpack(order + "H", file.read(2))
    if magic == 43:  # BigTIFF
        file.seek(8)
        head, entry, offset_format = "Q", "HHQ8s", "Q"
    elif magic == 42:
        head, entry, offset_format = "H", "HHI4s", "I"
    else:
        return []
    pages: list[TiffPage] = []
    seen: set[int] = set()
    offset = _number(file, order + offset_format)
    while offset and offset not in seen and len(pages) < _MOST_PAGES:
        seen.add(offset)
        file.seek(offset)
        tags = _read_tags(file, order, head, entry)
        pages.append(_page(tags))
        offset = _number(file, order + offset_format)
    return pages


def _read_tags(file: BinaryIO, order: str, head: str, entry: str) -> dict[int, tuple[int, ...]]:
    count = _number(file, order + head)
    if count > _MOST_TAGS:
        raise struct.error("no image directory has so many tags")
    size = struct.calcsize(order + entry)
    block = file.read(size * count)
    end = file.tell()
    tags: dict[int, tuple[int, ...]] = {}
    for code, kind, n, value in struct.iter_unpack(order + entry, block[: size * count]):
        letter = _TYPES.get(kind)
        if code not in _TAGS or letter is None:
            continue
        # One value is enough for every question asked here; longer lists lie elsewhere in the file.
        width = struct.calcsize(letter)
        if n * width <= len(value):
            tags[code] = struct.unpack(f"{order}{n}{letter}", value[: n * width])
        elif n:
            (where,) = struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)
            file.seek(where)
            tags[code] = (_number(file, order + letter),)
    file.seek(end)
    return tags


def _page(tags: dict[int, tuple[int, ...]]) -> TiffPage:
    def first(tag: int, default: int) -> int:
        return tags.get(tag, (default,))[0]

    return TiffPage(
        height=first(_HEIGHT, 0),
        width=first(_WIDTH, 0),
        tiled=_TILE_WIDTH in tags,
        colour=first(_SAMPLES, 1) in (3, 4)
        and first(_BITS, 1) == 8
        and first(_PHOTOMETRIC, 0) in (_RGB, _YCBCR),
        sub_images=_SUB_IFDS in tags,
    )


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])
