"""Slides read with tiffslide: Aperio SVS, OME-TIFF, NDPI, SCN, generic tiled TIFF.

tiffslide understands the container; the tiles themselves are decoded by `FileTiles` wherever the
codec and the layout allow it, and through tiffslide otherwise.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import tiffslide

from napari_her2.errors import SlideError
from napari_her2.slide import decode
from napari_her2.slide.facts import SlideFacts, stated_facts
from napari_her2.slide.files import ByteFile, DamagedTile
from napari_her2.slide.sources import BackendTiles, FileTiles
from napari_her2.slide.tiffslide_facts import header_facts, in_words, read_properties

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.sources import TileSource

# Without a handler Python prints tifffile's complaints about damaged files to the terminal;
# an application that configures logging still gets them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ICC_TAG = 34675
_RGB, _YCBCR = 2, 6
_FALLBACK_TILE = 512
_TRIED_TILES = 5
_BLENDED_ROWS = 512


class TiffBackend:
    """A slide opened with tiffslide.

    Parameters
    ----------
    path : Path
        The TIFF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"tiffslide {tiffslide.__version__}"
        self._lock = threading.Lock()
        self._irregular = False
        self._file = ByteFile(path)
        self._notes: list[str] = []
        # As a stream: tiffslide takes a name for an address, where "::" and "~" mean something.
        self._stream = path.open("rb")
        try:
            self._slide = tiffslide.TiffSlide(self._stream)
        except Exception as error:  # parsers of damaged files fail in every way there is
            self._file.close()
            self._stream.close()
            raise SlideError(_cannot_open(path, error)) from error
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._properties, failure = read_properties(self._slide)
                self.levels: tuple[TileSource, ...] = self._find_levels()
                self.associated_images: tuple[str, ...] = tuple(self._slide.associated_images)
            self._notes += in_words(caught)
            if failure:
                self._notes.append(
                    f"The header of the maker of the scanner cannot be understood ({failure}): the file is "
                    f"read as a plain TIFF."
                )
            self.facts = self._find_facts()
        except SlideError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise SlideError(_cannot_open(path, error)) from error

    def associated_image(self, name: str) -> NDArray[np.uint8]:
        """Pixels of an associated image.

        Parameters
        ----------
        name : str
            One of `associated_images`.

        Returns
        -------
        (h, w, 3) uint8
        """
        try:
            with self._lock:
                return np.asarray(self._slide.associated_images[name].convert("RGB"), np.uint8)
        except Exception as error:
            raise SlideError(
                f"The {name} image of {self.path.name} cannot be read: {_said(error)}."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        with self._lock:
            self._slide.close()
            self._stream.close()

    def _find_levels(self) -> tuple[TileSource, ...]:
        axes = self._properties["tiffslide.series-axes"]
        series = self._slide.ts_tifffile.series[self._properties["tiffslide.series-index"]]
        if axes not in ("YXS", "CYX", "YX") or np.dtype(series.dtype) != np.uint8:
            raise SlideError(
                f"{self.path.name} is not an 8-bit brightfield image ({series.dtype} with axes {axes}): "
                f"export it as 8-bit RGB first."
            )
        composed = "tiffslide.series-composition" in self._properties
        levels: list[TileSource] = []
        for number, (width, height) in enumerate(self._slide.level_dimensions):
            shape = (int(height), int(width))
            if min(shape) < 1:
                raise SlideError(f"{self.path.name} has an empty level {number}: copy it again.")
            if not composed:
                self._check_places(series.levels[number], number)
            direct = None if composed or axes != "YXS" else self._direct(series.levels[number], shape, number)
            levels.append(direct or self._through_tiffslide(number, shape, series.levels[number]))
        return tuple(levels)

    def _check_places(self, level: Any, number: int) -> None:  # noqa: ANN401 - tifffile
        """Refuse a level whose directory does not say where its data lie: readers would show black."""
        for page in level.pages:
            if page is None or not len(page.dataoffsets) or len(page.dataoffsets) != len(page.databytecounts):
                raise SlideError(
                    f"{self.path.name} does not say where the pixels of level {number} lie, so it was cut "
                    f"off or is damaged: copy it again from its source."
                )

    def _direct(self, level: Any, shape: tuple[int, int], number: int) -> FileTiles | None:  # noqa: ANN401 - tifffile
        """Tiles of a level that can be decoded from their bytes; None where codec or layout forbid it."""
        if len(level.pages) != 1:
            return None
        page, key = level.pages[0], level.keyframe
        fits = (
            key.is_tiled
            and (key.imagelength, key.imagewidth) == shape
            and key.samplesperpixel == 3
            and key.planarconfig == 1
            and key.bitspersample == 8
            and key.sampleformat == 1
            and key.fillorder == 1
            and not key.extrasamples
            and getattr(key, "jpegheader", None) is None  # NDPI: slices of one huge JPEG
        )
        if not fits:
            return None
        tile_shape = (int(key.tilelength), int(key.tilewidth))
        decoder = _decoder_of(page, key, tile_shape, strict=not self._irregular)
        total = math.ceil(shape[0] / tile_shape[0]) * math.ceil(shape[1] / tile_shape[1])
        if decoder is None or len(page.dataoffsets) != total or len(page.databytecounts) != total:
            return None
        offsets = np.asarray(page.dataoffsets, np.int64)
        counts = np.asarray(page.databytecounts, np.int64)
        tiles = FileTiles(self._file, shape, tile_shape, offsets, counts, decoder)
        if number > 0 or key.compression != decode.JPEG or not _all_fail(tiles):
            return tiles
        lenient = _decoder_of(page, key, tile_shape, strict=False)
        if lenient is None or _all_fail(replace(tiles, decoder=lenient)):
            return tiles
        self._irregular = True
        self._notes.append(
            "Every stored tile that was tried has irregular JPEG data, a habit of the writer of this file: "
            "damage inside a tile cannot be told from it."
        )
        return replace(tiles, decoder=lenient)

    def _through_tiffslide(self, number: int, shape: tuple[int, int], level: Any) -> BackendTiles:  # noqa: ANN401
        key = level.keyframe
        # Strips run across the slide: tiles as wide as the slide decode each of them once.
        tile_shape = (_FALLBACK_TILE, _FALLBACK_TILE) if key.is_tiled else (_FALLBACK_TILE // 2, shape[1])
        return BackendTiles(shape, tile_shape, self._reader(number))

    def _reader(self, number: int) -> Callable[[int, int, int, int], NDArray[np.uint8]]:
        downsample = float(self._slide.level_downsamples[number])

        def level0(position: int) -> int:
            # tiffslide divides by the downsample and truncates: find what it maps to our pixel.
            guess = math.ceil(position * downsample)
            while int(guess / downsample) < position:
                guess += 1
            return guess

        def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
            try:
                with self._lock:  # its seeks and reads share one file position
                    pixels = self._slide.read_region(
                        (level0(x), level0(y)), number, (width, height), as_array=True
                    )
            except Exception as error:  # decoders fail in every way there is
                raise DamagedTile(
                    f"{self.path.name} is damaged near y {y}, x {x} of level {number}: {_said(error)}. "
                    f"Copy the slide again from its source."
                ) from error
            return rgb(np.asarray(pixels))

        return read

    def _find_facts(self) -> SlideFacts:
        shape = self.levels[0].shape
        vendor, objective, mpp, source = header_facts(self._slide, self._properties, shape)
        tag = self._slide.ts_tifffile.pages[0].tags.get(_ICC_TAG)
        return stated_facts(
            vendor=vendor,
            objective=objective,
            mpp=mpp,
            source=source,
            shape=shape,
            icc_profile=tag.value if tag is not None and isinstance(tag.value, bytes) else None,
            warnings=(*self._notes, *self._gaps()),
        )

    def _gaps(self) -> list[str]:
        """Sentences about tiles whose bytes are not in the file."""
        sentences = []
        for number, level in enumerate(self.levels):
            if not isinstance(level, FileTiles):
                continue
            missing, total = int(level.missing.sum()), len(level.offsets)
            if missing == total and number == 0:
                raise SlideError(
                    f"{self.path.name} holds no pixel data of its full resolution, so the file was cut off: "
                    f"copy it again from its source."
                )
            if missing:
                sentences.append(
                    f"{missing:,} of {total:,} stored tiles of level {number} are not in the file, "
                    f"which seems to be cut off: they are left out; copy the slide again from its source."
                )
        return sentences


def _all_fail(tiles: FileTiles) -> bool:
    """Whether none of a few tiles from all over the level can be decoded; False where there are too few."""
    present = np.flatnonzero(~tiles.missing & ~tiles.sparse)
    if len(present) < _TRIED_TILES:
        return False
    for number in present[np.linspace(0, len(present) - 1, _TRIED_TILES).astype(int)].tolist():
        try:
            tiles.tile(*divmod(number, tiles.columns))
        except DamagedTile:
            continue
        return False
    return True


def _decoder_of(page: Any, key: Any, tile_shape: tuple[int, int], *, strict: bool) -> decode.Decoder | None:  # noqa: ANN401
    compression, photometric = int(key.compression), int(key.photometric)
    if compression == decode.JPEG and photometric in (_RGB, _YCBCR):
        stored_as_rgb = photometric == _RGB and not key.is_jfif
        return decode.jpeg_decoder(page.jpegtables, tile_shape, stored_as_rgb=stored_as_rgb, strict=strict)
    if compression in decode.JPEG_2000 and (photometric == _RGB or compression == decode.APERIO_J2K_YCBCR):
        return decode.jpeg2000_decoder(tile_shape, stored_as_ycbcr=compression == decode.APERIO_J2K_YCBCR)
    if photometric == _RGB and key.predictor in (1, 2):
        return decode.raw_decoder(compression, tile_shape, differenced=key.predictor == 2)
    return None


def rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Any 8-bit pixels as RGB: grey is repeated, transparency is laid over white.

    Parameters
    ----------
    pixels : (h, w) or (h, w, 1 to 4) uint8

    Returns
    -------
    (h, w, 3) uint8
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    colour = np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] in (1, 2) else pixels[..., :3]
    if pixels.shape[2] not in (2, 4):
        return np.ascontiguousarray(colour, dtype=np.uint8)
    over_white = np.empty(colour.shape, np.uint8)
    for top in range(0, len(colour), _BLENDED_ROWS):  # a whole picture in 16 bits would be gigabytes
        rows = slice(top, top + _BLENDED_ROWS)
        alpha = pixels[rows, :, -1:].astype(np.uint16)
        over_white[rows] = (colour[rows] * alpha + 255 * (255 - alpha) + 127) // 255
    return over_white


def _said(error: BaseException) -> str:
    return str(error).strip().rstrip(".").splitlines()[0] if str(error).strip() else type(error).__name__


def _cannot_open(path: Path, error: BaseException) -> str:
    """Say what failed and what to do; damage only where it is the likely cause."""
    if isinstance(error, (tifffile.TiffFileError, struct.error, EOFError)):
        return (
            f"{path.name} cannot be opened as a slide ({_said(error)}): it is damaged, cut off or of an "
            f"unknown kind; copy it again from its source."
        )
    return (
        f"{path.name} cannot be opened ({_said(error)}): tiffslide does not understand its header; export "
        f"the slide as a tiled TIFF if other programs open it, or copy it again from its source."
    )
