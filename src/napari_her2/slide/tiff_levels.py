"""Levels of a TIFF as tiles that are decoded from their bytes, whatever the codec and the layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide import decode
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.joined_tiles import PlaneTiles, RecutTiles
from napari_her2.slide.sources import FileTiles
from napari_her2.slide.tiff_colour import RGB, YCBCR, meaning_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.files import ByteFile
    from napari_her2.slide.sources import TileSource
    from napari_her2.slide.tiff_colour import Meaning
    from napari_her2.slide.tiff_images import TiffImage

_BAND_ROWS = 256
_THIN_ROWS = 64
_RECUT_TILE = 512
_LARGE_PIXELS = 1 << 23
"""A tile or strip of more is decoded once and held, and cut into smaller ones."""
_TRIED_TILES = 5


@dataclass(frozen=True, slots=True)
class Level:
    """A level, and the tiles of the file behind it.

    Parameters
    ----------
    source : TileSource
        What is read.
    stored : tuple of FileTiles
        As the file holds them: one, or one for each plane.
    channels : bool
        See `Meaning`.
    """

    source: TileSource
    stored: tuple[FileTiles, ...]
    channels: bool


def level_of(file: ByteFile, image: TiffImage, finer: TileSource | None, *, strict: bool) -> Level:
    """Make a level of an image of the file.

    Parameters
    ----------
    file : ByteFile
    image : TiffImage
    finer : TileSource or None
        The next finer level, from which tiles are made that are not stored.
    strict : bool
        See `JpegDecoder`.

    Raises
    ------
    SlideError
        It cannot be decoded.
    """
    page, name = image.pages[0], file.path.name
    meaning = meaning_of(page, len(image.pages), name)
    planes = page.planarconfig == 2 and page.samplesperpixel > 1
    tile_shape, offsets, counts = _places(file, image, planes)
    decoder = _decoder(
        page, image.shape, tile_shape, meaning, alone=planes or len(image.pages) > 1, strict=strict
    )
    if planes or len(image.pages) > 1:
        stored = tuple(
            FileTiles(file, image.shape, tile_shape, place, count, decoder, channels=1)
            for place, count in zip(offsets, counts, strict=True)
        )
        source: TileSource = PlaneTiles(stored, meaning.colour, finer)
    else:
        stored = (FileTiles(file, image.shape, tile_shape, offsets[0], counts[0], decoder, finer=finer),)
        source = stored[0]
    return Level(_recut(source, tiled=page.is_tiled), stored, meaning.channels)


def _places(
    file: ByteFile, image: TiffImage, planes: bool
) -> tuple[tuple[int, int], list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Tile shape, and where the bytes of each plane's tiles lie."""
    key = image.pages[0]
    height, width = image.shape
    if key.is_tiled:
        tile_shape = int(key.tilelength), int(key.tilewidth)
    else:
        tile_shape = min(int(key.rowsperstrip) or height, height), int(key.imagewidth)
    total = -(-height // tile_shape[0]) * -(-width // tile_shape[1])
    offsets: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    for page in image.pages:
        number = int(page.samplesperpixel) if planes else 1
        if page.imagedepth > 1 or min(len(page.dataoffsets), len(page.databytecounts)) < total * number:
            raise SlideError(
                f"{file.path.name} does not say where the pixels of its image of {width:,} x {height:,} px "
                f"lie, so it was cut off or is damaged: copy it again from its source."
            )
        for values, into in ((page.dataoffsets, offsets), (page.databytecounts, counts)):
            into.extend(np.asarray(values[: total * number], np.int64).reshape(number, total))
    if len(offsets) == 1 and _one_raw_strip(key, tile_shape, height):
        return _raw_bands(key, offsets[0], counts[0], image.shape)
    return tile_shape, offsets, counts


def _one_raw_strip(key: Any, tile_shape: tuple[int, int], height: int) -> bool:  # noqa: ANN401 - tifffile
    return (
        not key.is_tiled
        and tile_shape[0] == height > _BAND_ROWS
        and (int(key.compression), int(key.predictor), key.bitspersample) == (1, 1, 8)
        and key.samplesperpixel * key.imagewidth * height == key.databytecounts[0]
    )


def _raw_bands(
    key: Any,  # noqa: ANN401 - tifffile
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    shape: tuple[int, int],
) -> tuple[tuple[int, int], list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Cut one uncompressed strip into bands: their bytes lie one behind the other."""
    row_bytes = key.samplesperpixel * key.imagewidth
    tops = np.arange(0, shape[0], _BAND_ROWS, dtype=np.int64)
    rows = np.minimum(_BAND_ROWS, shape[0] - tops)
    stored = counts[0] > 0
    return (
        (_BAND_ROWS, int(key.imagewidth)),
        [(offsets[0] + tops * row_bytes) * stored],
        [rows * row_bytes * stored],
    )


def _decoder(
    page: Any,  # noqa: ANN401 - tifffile
    shape: tuple[int, int],
    tile_shape: tuple[int, int],
    meaning: Meaning,
    *,
    alone: bool,
    strict: bool,
) -> decode.Decoder:
    """Bytes of a tile to RGB; to one sample where each plane is stored alone."""
    compression, photometric = int(page.compression), int(page.photometric)
    samples = 1 if alone else int(page.samplesperpixel)
    colour = None if alone else meaning.colour
    plain = page.bitspersample == 8 and getattr(page, "jpegheader", None) is None  # NDPI: one huge JPEG
    in_colour = samples == 3 and photometric in (RGB, YCBCR)
    if plain and compression == decode.JPEG and (in_colour or samples == 1):
        as_rgb = in_colour and photometric == RGB and not page.is_jfif
        decoder = decode.JpegDecoder(
            page.jpegtables, tile_shape, stored_as_rgb=as_rgb, strict=strict, grey=samples == 1
        )
        return decode.coloured(decoder, colour)
    if plain and compression in decode.JPEG_2000:
        ycbcr = compression == decode.APERIO_J2K_YCBCR or (photometric == YCBCR and samples == 3)
        return decode.coloured(decode.jpeg2000_decoder(tile_shape, stored_as_ycbcr=ycbcr), colour)
    if plain and int(page.predictor) in (1, 2) and page.fillorder == 1:
        rows = None if page.is_tiled else shape[0]
        differenced = int(page.predictor) == 2
        raw = decode.raw_decoder(
            compression, tile_shape, differenced=differenced, samples=samples, height=rows
        )
        if raw is not None:
            return decode.coloured(raw, colour)
    return decode.coloured(decode.page_decoder(page, tile_shape), colour)


def _recut(source: TileSource, *, tiled: bool) -> TileSource:
    """Cut a level into tiles of a handy size: thin strips are joined, huge pieces decoded once and held."""
    height, width = source.tile_shape
    if height * width > _LARGE_PIXELS:
        size = (_RECUT_TILE, _RECUT_TILE) if tiled else (min(height, _BAND_ROWS), width)
        return RecutTiles(source, size, hold=True)
    if height < (_THIN_ROWS if tiled else _BAND_ROWS):  # NDPI: tiles of 8 rows, one for each restart
        joined = (-(-_BAND_ROWS // height) * height, -(-_BAND_ROWS // width) * width)
        return RecutTiles(source, joined)
    return source


def all_fail(tiles: FileTiles) -> bool:
    """Whether none of a few tiles from all over the level can be decoded; False where there are too few.

    Parameters
    ----------
    tiles : FileTiles
    """
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
