"""The size that a compressed picture states in its own first bytes, read before anybody decodes it.

A few kilobytes may state a picture of gigabytes, and a decoder reserves what is stated.
"""

from __future__ import annotations

import struct

from napari_her2.slide.files import DamagedTile

_PNG = b"\x89PNG\r\n\x1a\n"
_J2K_SIZE = b"\xff\x4f\xff\x51"
_JXL = b"\xff\x0a"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Bits of a side of a JPEG XL picture, by a selector of two bits; width by height, by a ratio of three bits.
_JXL_BITS = (9, 13, 18, 30)
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def refuse_larger(data: bytes, shape: tuple[int, int]) -> None:
    """Refuse the bytes of a tile that state more pixels than the tile has.

    Parameters
    ----------
    data : bytes
        JPEG, JPEG 2000, JPEG XL, PNG or WebP; anything else states no size.
    shape : tuple of int
        (height, width) of the tile.

    Raises
    ------
    DamagedTile
        They state more.
    """
    height, width = stated_size(data)
    if height > shape[0] or width > shape[1]:
        raise DamagedTile(f"its compressed data claim {width:,} x {height:,} px")


def stated_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) as a compressed picture states it itself; (0, 0) where it does not."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(_JXL) or data[4:8] == b"JXL ":
            return _jpeg_xl(data)
        start = data.find(_J2K_SIZE)  # a codestream, or boxes around it
        if start >= 0:
            right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
            return bottom - top, right - left
    except (struct.error, IndexError):  # they end within their header: the decoder will say so
        pass
    return 0, 0


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # padding, or a marker that stands alone
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _jpeg_xl(data: bytes) -> tuple[int, int]:
    start = data.find(_JXL)
    bits = int.from_bytes(data[start + 2 : start + 14], "little")
    if start < 0:
        return 0, 0

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_JXL_BITS[take(2)])

    height = side()
    ratio = take(3)
    if ratio == 0:
        return height, side()
    across, down = _JXL_RATIOS[ratio - 1]
    return height, height * across // down
