"""Decoders of compressed TIFF tiles: bytes in, uint8 RGB out, damage told apart from pixels.

All of them release the GIL, so tiles decode in plain threads.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # it ships no types

from napari_her2.slide.files import DamagedTile
from napari_her2.slide.stated_size import refuse_larger

if TYPE_CHECKING:
    from numpy.typing import NDArray

Decoder = Callable[[bytes, int], "NDArray[np.uint8]"]
"""Bytes of a tile, and its number in the level, to (height, width, samples)."""

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
# An Adobe APP14 segment with transform 0 tells libjpeg that the three components are R, G and B.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_J2K_SIZE = b"\xff\x4f\xff\x51"
_J2K_EXTENT = struct.Struct(">8xIIII")  # behind the marker, its length and the capabilities
_J2K_STYLE, _J2K_TILE_PART, _J2K_DATA = b"\xff\x52", b"\xff\x90", b"\xff\x93"
# In JPEG 2000 packets 0xFF is never followed by a byte above 0x8F, but for the markers SOP and EPH.
_J2K_STRAY_MARKER = re.compile(rb"\xff[\x90\x93-\xff]")
# Entropy-coded data has no such run; an empty packet is one zero byte, and all may be empty.
_J2K_ZERO_RUN = 256
_J2K_ZERO_SLACK = 16
_J2K_CODING = struct.Struct(">4xBBHBB")  # behind the marker and its length: style, order, layers, ...
_J2K_GRID = struct.Struct(">24xIIIIH")  # tile size and origin, components: behind `_J2K_EXTENT`'s fields

JPEG = 7
JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
APERIO_J2K_YCBCR = 33003
_RAW: dict[int, Callable[..., Any] | None] = {
    1: None,
    5: imagecodecs.lzw_decode,
    32773: imagecodecs.packbits_decode,
    8: imagecodecs.zlib_decode,
    32946: imagecodecs.zlib_decode,
    50000: imagecodecs.zstd_decode,
}


class JpegDecoder:
    """Decodes JPEG tiles of a TIFF.

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
    grey : bool
        There is one component.
    """

    def __init__(
        self,
        tables: bytes | None,
        tile_shape: tuple[int, int],
        *,
        stored_as_rgb: bool,
        strict: bool = True,
        grey: bool = False,
    ) -> None:
        shared = tables[2:] if tables and tables.startswith(_SOI) else tables or b""
        self._head = _SOI + shared.removesuffix(_EOI) + (_ADOBE_RGB if stored_as_rgb else b"")
        self._tile_shape = tile_shape
        self._size = tile_shape[0] * tile_shape[1] * (1 if grey else 3)
        self._strict = strict
        self.space = "GRAY" if grey else "RGB"

    def __call__(self, data: bytes, number: int = 0) -> NDArray[np.uint8]:
        """Decode a tile, (height, width, 1 or 3) uint8."""
        # Into a buffer of our size: a JPEG of a gigabyte is refused before it is decoded.
        return self._decoded(self._whole(data), buffer=np.empty(self._size, np.uint8))

    def picture(self, data: bytes) -> bytes:
        """Make a tile a JPEG that can be decoded by itself, and check that none of it is missing.

        Parameters
        ----------
        data : bytes
            As the file holds it.

        Returns
        -------
        bytes

        Raises
        ------
        DamagedTile
            Wherever decoding it here would. Its code is read through for that, at an eighth of the size, in
            0.4 of the time of decoding it.
        """
        whole = self._whole(data)
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(whole)
        except ValueError as error:
            raise DamagedTile(f"its JPEG data are corrupt ({error})") from error
        if height > self._tile_shape[0] or width > self._tile_shape[1]:
            raise DamagedTile(f"its JPEG data claim {width:,} x {height:,} px")
        self._decoded(whole, min_height=1, min_width=1, min_factor=8)
        return whole

    def _whole(self, data: bytes) -> bytes:
        if not data.startswith(_SOI):
            raise DamagedTile("its bytes are no JPEG data")
        return self._head + data[2:]

    def _decoded(self, whole: bytes, **how: object) -> NDArray[np.uint8]:
        try:
            tile: NDArray[np.uint8] = simplejpeg.decode_jpeg(
                whole, colorspace=self.space, strict=self._strict, **how
            )
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DamagedTile(f"its JPEG data are corrupt ({error})") from error
        return tile


def _j2k_shape(data: bytes) -> tuple[int, int]:
    """(height, width) that the SIZ segment of a codestream states; (0, 0) where there is none."""
    start = data.find(_J2K_SIZE)
    if start < 0 or len(data) < start + _J2K_EXTENT.size:
        return 0, 0
    right, bottom, left, top = _J2K_EXTENT.unpack_from(data, start)
    return bottom - top, right - left


def _j2k_coding(data: bytes) -> tuple[int, int]:
    """Place of the COD segment of a codestream (-1 where there is none), and of the first tile."""
    end = data.find(_J2K_TILE_PART)
    return data.find(_J2K_STYLE, 0, end if end >= 0 else len(data)), end


def _j2k_converted(data: bytes) -> bool:
    """Whether the codec converts the components by itself: subsampled ones, or a transform of its own."""
    start, coding = data.find(_J2K_SIZE), _j2k_coding(data)[0]
    subsampled = start >= 0 and len(data) > start + 46 and data[start + 46] != 1
    return subsampled or (coding >= 0 and len(data) > coding + 8 and data[coding + 8] == 1)


def _j2k_packets(data: bytes) -> int:
    """Packets that a tile of a codestream has at most: layers, resolutions, components and precincts."""
    start, coding = data.find(_J2K_SIZE), _j2k_coding(data)[0]
    if start < 0 or coding < 0 or len(data) < coding + 48 or len(data) < start + _J2K_GRID.size:
        return 0
    width, height, left, top, components = _J2K_GRID.unpack_from(data, start)
    shape = _j2k_shape(data)
    style, _, layers, _, levels = _J2K_CODING.unpack_from(data, coding)
    # The grid of precincts may begin in between where a tile does not begin with the image.
    between = int(left > 0 or top > 0 or height < shape[0] or width < shape[1])
    height, width = min(height, shape[0]), min(width, shape[1])
    packets = 0
    for resolution in range(min(levels, 32) + 1):
        log = data[coding + 14 + resolution] if style & 1 else 0xFF
        part = 1 << (levels - resolution)
        columns = math.ceil(math.ceil(width / part) / (1 << (log & 15))) + between
        rows = math.ceil(math.ceil(height / part) / (1 << (log >> 4))) + between
        packets += rows * columns
    return int(min(packets * layers * components, len(data)))


def _j2k_zeroed(data: bytes, start: int, end: int) -> bool:
    """Whether a codestream holds a longer run of zeros than empty packets can make."""
    if data.find(bytes(_J2K_ZERO_RUN), start, end) < 0:
        return False
    longest = _j2k_packets(data) + _J2K_ZERO_SLACK
    return longest <= _J2K_ZERO_RUN or data.find(bytes(longest), start, end) >= 0


def jpeg2000_decoder(tile_shape: tuple[int, int], *, stored_as_ycbcr: bool) -> Decoder:
    """Decode JPEG 2000 tiles of a TIFF.

    Parameters
    ----------
    tile_shape : tuple of int
        (height, width) of a tile: a codestream that states more is damaged, and not decoded.
    stored_as_ycbcr : bool
        The components are Y, Cb, Cr although the codestream does not say so (Aperio 33003).
    """

    def decode(data: bytes, number: int = 0) -> NDArray[np.uint8]:
        shape = _j2k_shape(data)
        if shape[0] > tile_shape[0] or shape[1] > tile_shape[1]:
            raise DamagedTile(f"its JPEG 2000 data claim {shape[1]:,} x {shape[0]:,} px")
        # OpenJPEG paints over a stretch that was zeroed or overwritten without a word.
        start, end = data.find(_J2K_DATA), data.rfind(_EOI)
        if not 0 <= start < end:
            raise DamagedTile("its JPEG 2000 data end early")
        several_parts = data.find(_J2K_TILE_PART, start, end) >= 0  # their headers may hold any byte
        stray = not several_parts and _J2K_STRAY_MARKER.search(data, start + 2, end)
        if stray or _j2k_zeroed(data, start, end):
            raise DamagedTile("its JPEG 2000 data are corrupt")
        try:
            tile: NDArray[np.uint8] = imagecodecs.jpeg2k_decode(data)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DamagedTile(f"its JPEG 2000 data are corrupt ({error})") from error
        if tile.ndim == 2:
            tile = tile[..., None]
        if stored_as_ycbcr and tile.shape[2] == 3 and not _j2k_converted(data):
            # imagecodecs converts subsampled components itself.
            tile = cv2.cvtColor(tile[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)
        return tile

    return decode


def raw_decoder(
    compression: int,
    tile_shape: tuple[int, int],
    *,
    differenced: bool,
    samples: int = 3,
    height: int | None = None,
) -> Decoder | None:
    """Decode tiles of 8-bit samples that are packed without loss, or not at all; None for another codec.

    Parameters
    ----------
    compression : int
        TIFF compression tag.
    tile_shape : tuple of int
        (height, width) of a tile.
    differenced : bool
        The horizontal predictor was applied (TIFF predictor 2).
    samples : int
        Samples a pixel.
    height : int, optional
        Rows of the level where its tiles are strips, of which the last is shorter.
    """
    if compression not in _RAW:
        return None
    unpack = _RAW[compression]
    row_bytes = tile_shape[1] * samples
    size = tile_shape[0] * row_bytes

    def decode(data: bytes, number: int = 0) -> NDArray[np.uint8]:
        rows = tile_shape[0] if height is None else min(tile_shape[0], height - number * tile_shape[0])
        need = rows * row_bytes
        try:
            flat = np.frombuffer(data if unpack is None else unpack(data, out=size), np.uint8)
            if flat.size < need:
                raise DamagedTile(f"its data end early ({flat.size:,} of {need:,} bytes)")
            tile: NDArray[np.uint8] = flat[:need].reshape(rows, tile_shape[1], samples)
            return imagecodecs.delta_decode(tile, axis=-2) if differenced else tile
        except (ValueError, RuntimeError, MemoryError) as error:
            raise DamagedTile(f"its compressed data are corrupt ({error})") from error

    return decode


def page_decoder(page: Any, tile_shape: tuple[int, int]) -> Decoder:  # noqa: ANN401 - tifffile
    """Decode tiles or strips of whatever tifffile can decode.

    Parameters
    ----------
    page : TiffPage
    tile_shape : tuple of int
        (height, width) of a tile: a picture that states more is damaged, and not decoded.
    """
    unpack, tables, header = page.decode, page.jpegtables, getattr(page, "jpegheader", None)

    def decode(data: bytes, number: int = 0) -> NDArray[np.uint8]:
        refuse_larger(data, tile_shape)
        try:
            pixels, _, _ = unpack(data, number, jpegtables=tables, jpegheader=header)
        except Exception as error:  # decoders fail in every way there is
            raise DamagedTile(f"its compressed data are corrupt ({error})") from error
        return np.asarray(pixels[0])

    return decode


def coloured(decoder: Decoder, colour: Callable[[NDArray[Any]], NDArray[np.uint8]] | None) -> Decoder:
    """Turn the samples that a decoder gives into RGB.

    Parameters
    ----------
    decoder : callable
    colour : callable or None
        See `Meaning`; None leaves the decoder as it is.
    """
    return decoder if colour is None else lambda data, number: colour(decoder(data, number))
