"""Decoders of compressed TIFF tiles: bytes in, uint8 RGB out, damage told apart from pixels.

All of them release the GIL, so tiles decode in plain threads.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # it ships no types

from napari_her2.slide.files import DamagedTile

if TYPE_CHECKING:
    from numpy.typing import NDArray

Decoder = Callable[[bytes], "NDArray[np.uint8]"]

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
# An Adobe APP14 segment with transform 0 tells libjpeg that the three components are R, G and B.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_J2K_SIZE = b"\xff\x4f\xff\x51"
_J2K_EXTENT = struct.Struct(">8xIIII")  # behind the marker, its length and the capabilities
_J2K_TILE_PART, _J2K_DATA = b"\xff\x90", b"\xff\x93"
# In JPEG 2000 packets 0xFF is never followed by a byte above 0x8F, but for the markers SOP and EPH.
_J2K_STRAY_MARKER = re.compile(rb"\xff[\x90\x93-\xff]")
# Entropy-coded data has no such run; empty packets of a blank tile give short ones.
_J2K_ZERO_RUN = bytes(256)

JPEG = 7
JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
APERIO_J2K_YCBCR = 33003
_RAW: dict[int, Callable[..., Any] | None] = {
    1: None,
    5: imagecodecs.lzw_decode,
    8: imagecodecs.zlib_decode,
    32946: imagecodecs.zlib_decode,
    50000: imagecodecs.zstd_decode,
}


def jpeg_decoder(
    tables: bytes | None, tile_shape: tuple[int, int], *, stored_as_rgb: bool, strict: bool = True
) -> Decoder:
    """Decode JPEG tiles of a TIFF.

    Parameters
    ----------
    tables : bytes or None
        The JPEGTables tag: quantisation and Huffman tables that the tiles share.
    tile_shape : tuple of int
        (height, width) of a tile: a JPEG that states more is damaged, and not decoded.
    stored_as_rgb : bool
        The components are R, G, B although the tiles do not say so (Aperio).
    strict : bool
        What libjpeg only warns about (data that end early, a lost marker) is damage, because libjpeg
        fills the rest of the tile with invented pixels.
    """
    shared = tables[2:] if tables and tables.startswith(_SOI) else tables or b""
    head = _SOI + shared.removesuffix(_EOI) + (_ADOBE_RGB if stored_as_rgb else b"")
    size = tile_shape[0] * tile_shape[1] * 3

    def decode(data: bytes) -> NDArray[np.uint8]:
        if not data.startswith(_SOI):
            raise DamagedTile("its bytes are no JPEG data")
        try:
            # Into a buffer of our size: a JPEG of a gigabyte is refused before it is decoded.
            tile: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                head + data[2:], colorspace="RGB", buffer=np.empty(size, np.uint8), strict=strict
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DamagedTile(f"its JPEG data are corrupt ({error})") from error
        return tile

    return decode


def _j2k_shape(data: bytes) -> tuple[int, int]:
    """(height, width) that the SIZ segment of a codestream states; (0, 0) where there is none."""
    start = data.find(_J2K_SIZE)
    if start < 0 or len(data) < start + _J2K_EXTENT.size:
        return 0, 0
    right, bottom, left, top = _J2K_EXTENT.unpack_from(data, start)
    return bottom - top, right - left


def _j2k_subsampled(data: bytes) -> bool:
    """Whether the SIZ segment of a codestream gives the second component fewer samples."""
    start = data.find(_J2K_SIZE[2:])
    return start >= 0 and len(data) > start + 44 and data[start + 44] != 1


def jpeg2000_decoder(tile_shape: tuple[int, int], *, stored_as_ycbcr: bool) -> Decoder:
    """Decode JPEG 2000 tiles of a TIFF.

    Parameters
    ----------
    tile_shape : tuple of int
        (height, width) of a tile: a codestream that states more is damaged, and not decoded.
    stored_as_ycbcr : bool
        The components are Y, Cb, Cr although the codestream does not say so (Aperio 33003).
    """

    def decode(data: bytes) -> NDArray[np.uint8]:
        shape = _j2k_shape(data)
        if shape[0] > tile_shape[0] or shape[1] > tile_shape[1]:
            raise DamagedTile(f"its JPEG 2000 data claim {shape[1]:,} x {shape[0]:,} px")
        # OpenJPEG paints over a stretch that was zeroed or overwritten without a word.
        start, end = data.find(_J2K_DATA), data.rfind(_EOI)
        if not 0 <= start < end:
            raise DamagedTile("its JPEG 2000 data end early")
        several_parts = data.find(_J2K_TILE_PART, start, end) >= 0  # their headers may hold any byte
        stray = not several_parts and _J2K_STRAY_MARKER.search(data, start + 2, end)
        if stray or data.find(_J2K_ZERO_RUN, start, end) >= 0:
            raise DamagedTile("its JPEG 2000 data are corrupt")
        try:
            tile: NDArray[np.uint8] = imagecodecs.jpeg2k_decode(data)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DamagedTile(f"its JPEG 2000 data are corrupt ({error})") from error
        if stored_as_ycbcr and not _j2k_subsampled(data):
            # imagecodecs converts subsampled components itself.
            tile = cv2.cvtColor(tile[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)
        return tile

    return decode


def raw_decoder(compression: int, tile_shape: tuple[int, int], *, differenced: bool) -> Decoder | None:
    """Decode uncompressed, LZW, deflate or Zstandard tiles of 8-bit RGB; None for another codec.

    Parameters
    ----------
    compression : int
        TIFF compression tag.
    tile_shape : tuple of int
        (height, width) of a tile.
    differenced : bool
        The horizontal predictor was applied (TIFF predictor 2).
    """
    if compression not in _RAW:
        return None
    unpack = _RAW[compression]
    size = tile_shape[0] * tile_shape[1] * 3

    def decode(data: bytes) -> NDArray[np.uint8]:
        try:
            flat = np.frombuffer(data if unpack is None else unpack(data, out=size), np.uint8)
            if flat.size < size:
                raise DamagedTile(f"its data end early ({flat.size:,} of {size:,} bytes)")
            tile: NDArray[np.uint8] = flat[:size].reshape(*tile_shape, 3)
            return imagecodecs.delta_decode(tile, axis=-2) if differenced else tile
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DamagedTile(f"its compressed data are corrupt ({error})") from error

    return decode
