"""Plain pictures, JPEG and PNG, as slides of one level: tissue cores and fields that were exported.

A picture has no tiles to be read one by one, so it is decoded whole when it is opened, and held; a JPEG of
more pixels than `MAX_PIXELS` is decoded into a file of the cache (`decoded_pictures`). It is
taken as it is stored: an orientation in its EXIF data is not applied, and the resolution in its header is
not believed, because it speaks of printing (300 dots an inch would make 85 µm/px, which an overview of a
slide may well have).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import imagecodecs
import simplejpeg  # type: ignore[import-untyped]  # it ships no types

from napari_her2.errors import SlideError
from napari_her2.slide.decoded_pictures import decoded_jpeg
from napari_her2.slide.facts import NOT_STATED, SlideFacts
from napari_her2.slide.sources import BackendTiles
from napari_her2.slide.tiff_colour import rgb

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.slide.sources import TileSource

MAX_PIXELS = 1 << 27
"""Held in memory: 134 million pixels take 400 MB, and some times as much in decoding."""
_HEAD_BYTES = 1 << 24
_TILE_PX = 512
_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_HEADER = struct.Struct(">16xIIBB")  # behind magic, length and "IHDR": width, height, bits, kind
_PNG_PALETTE = 3
_COLOUR_SPACES = frozenset({"Gray", "YCbCr", "RGB"})


@dataclass(frozen=True, slots=True)
class _Head:
    """What the header of a picture says: (height, width), and how its colours are stored."""

    shape: tuple[int, int]
    readable: bool
    kind: str


class ImageBackend:
    """A JPEG or PNG file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    SlideError
        It is cut off or damaged, too large to be decoded, or neither RGB nor grey with 8 bits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            data = file.read(_HEAD_BYTES)
        jpeg = data.startswith(_JPEG_MAGIC)
        self.name = (
            f"simplejpeg {version('simplejpeg')} (plain JPEG)"
            if jpeg
            else f"imagecodecs {version('imagecodecs')} (plain PNG)"
        )
        try:
            head = _jpeg_head(data) if jpeg else _png_head(data)
            self._check(head, jpeg=jpeg)
            large = head.shape[0] * head.shape[1] > MAX_PIXELS
            pixels = decoded_jpeg(path, head.shape) if large else rgb(_decoded(path.read_bytes(), jpeg=jpeg))
        except (ValueError, RuntimeError, struct.error) as error:
            raise SlideError(
                f"{path.name} cannot be read ({str(error).rstrip('.') or type(error).__name__}): it is "
                f"damaged or cut off; copy it again from its source."
            ) from error
        except MemoryError:
            raise SlideError(
                f"There is not enough memory to decode {path.name} whole: close other programs, or save it "
                f"as a tiled TIFF."
            ) from None
        shape = (int(pixels.shape[0]), int(pixels.shape[1]))
        if shape != head.shape or not all(shape):
            raise SlideError(f"{path.name} is damaged: its header says another size; copy it again.")
        self._pixels: NDArray[np.uint8] | None = pixels
        self.facts = SlideFacts(None, None, None, NOT_STATED, None)
        self.levels: tuple[TileSource, ...] = (
            BackendTiles(shape, (min(_TILE_PX, shape[0]), min(_TILE_PX, shape[1])), self._read),
        )
        self.associated_images: tuple[str, ...] = ()

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """Refuse: a picture has no further images."""
        raise SlideError(f"{self.path.name} is a plain picture, which has no {name} image.")

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = None

    def _check(self, head: _Head, *, jpeg: bool) -> None:
        if not head.readable:
            raise SlideError(
                f"{self.path.name} is a picture in {head.kind}, whose colours cannot be told for sure: save "
                f"it as 8-bit RGB first."
            )
        height, width = head.shape
        if height * width > MAX_PIXELS and not jpeg:
            raise SlideError(
                f"{self.path.name} has {width:,} x {height:,} px, too many to be decoded whole: save it as "
                f"a tiled TIFF first."
            )

    def _read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        pixels = self._pixels
        if pixels is None:
            raise SlideError(f"{self.path.name} was closed: open it again to read from it.")
        return pixels[y : y + height, x : x + width].copy()  # never the pixels themselves, which are held


def _jpeg_head(data: bytes) -> _Head:
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    return _Head((int(height), int(width)), space in _COLOUR_SPACES, str(space))


def _png_head(data: bytes) -> _Head:
    width, height, bits, kind = _PNG_HEADER.unpack_from(data)
    return _Head((height, width), bits == 8 or kind == _PNG_PALETTE, f"{bits}-bit colour")


def _decoded(data: bytes, *, jpeg: bool) -> NDArray[np.uint8]:
    if not jpeg and b"IEND" not in data[-64:]:
        raise ValueError("its end is missing")
    # Strict: where data end early libjpeg would fill the rest with pixels of its own.
    pixels: NDArray[np.uint8] = (
        simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True) if jpeg else imagecodecs.png_decode(data)
    )
    return pixels
