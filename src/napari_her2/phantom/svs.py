"""Writes tiled pyramidal slides that readers take for Aperio SVS, in bounded memory.

Blocks of 1024 px arrive in any order. Their JPEG tiles are kept in a spool file beside the slide
(level 0, and level 1 at a quarter of the size); only what is 16 times smaller stays in memory.
The slide is assembled from the spool under a temporary name and renamed at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TILE_PX = 256
_LEVEL1 = 4
_SMALLEST_PX = 1000
_QUALITY = 85
# Averaged levels hold more detail a pixel, and cost a sixteenth.
_QUALITY_SMALL = 92

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """JPEG tiles of a block: level 0 and level 1 as {(tile row, tile column): bytes}, and level 2."""

    row: int
    column: int
    tiles: tuple[dict[tuple[int, int], bytes], dict[tuple[int, int], bytes]]
    small: Image


def shrink(image: Image, factor: int) -> Image:
    """Average blocks of factor x factor px; the last row and column may be partial."""
    height, width = (-(-side // factor) for side in image.shape[:2])
    pad = ((0, height * factor - image.shape[0]), (0, width * factor - image.shape[1]), (0, 0))
    if pad[0][1] or pad[1][1]:
        image = np.pad(image, pad, mode="edge")
    small: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small


def _encode(image: Image, quality: int) -> dict[tuple[int, int], bytes]:
    tiles = {}
    for j in range(0, image.shape[0], TILE_PX):
        for i in range(0, image.shape[1], TILE_PX):
            tile = image[j : j + TILE_PX, i : i + TILE_PX]
            pad = ((0, TILE_PX - tile.shape[0]), (0, TILE_PX - tile.shape[1]), (0, 0))
            if pad[0][1] or pad[1][1]:
                tile = np.pad(tile, pad, mode="edge")
            tiles[j // TILE_PX, i // TILE_PX] = encode_jpeg(np.ascontiguousarray(tile), quality)
    return tiles


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode an RGB image (h, w, 3) as JPEG with chroma subsampling."""
    return bytes(
        imagecodecs.jpeg8_encode(
            image, level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
    )


def encode_block(image: Image, row: int, column: int) -> EncodedBlock:
    """Encode a block of at most 1024 px: called in the rendering threads."""
    quarter = shrink(image, _LEVEL1)
    return EncodedBlock(
        row, column, (_encode(image, _QUALITY), _encode(quarter, _QUALITY_SMALL)), shrink(quarter, _LEVEL1)
    )


class SlideSpool:
    """Collects the blocks of one slide and assembles the file.

    Parameters
    ----------
    path : Path
        The slide to write.
    shape : (2,) int
        Height and width in px.
    mpp : float
        µm/px.
    label : str
        Text on the label image.
    """

    def __init__(self, path: Path, shape: tuple[int, int], mpp: float, label: str) -> None:
        self._path, self._shape, self._mpp, self._label = path, shape, mpp, label
        self._spool_path = path.with_name(f".{path.name}.spool")
        # Names that can be guessed: what lies there already, a link perhaps, is not written through.
        self._spool_path.unlink(missing_ok=True)
        self._file: BinaryIO = self._spool_path.open("x+b")
        self._places: tuple[dict[tuple[int, int], tuple[int, int]], ...] = ({}, {})
        step = _LEVEL1 * _LEVEL1
        self._small: Image = np.full((-(-shape[0] // step), -(-shape[1] // step), 3), 255, dtype=np.uint8)

    def add(self, block: EncodedBlock) -> None:
        """Store a block."""
        for per_block, places, tiles in zip((4, 1), self._places, block.tiles, strict=True):
            for (j, i), data in tiles.items():
                places[block.row * per_block + j, block.column * per_block + i] = (
                    self._file.tell(),
                    len(data),
                )
                self._file.write(data)
        height, width = block.small.shape[:2]
        self._small[
            block.row * 64 : block.row * 64 + height, block.column * 64 : block.column * 64 + width
        ] = block.small

    def discard(self) -> None:
        """Remove what is temporary."""
        self._file.close()
        self._spool_path.unlink(missing_ok=True)

    def _tiles(self, level: int, shape: tuple[int, int]) -> Iterator[bytes]:
        places = self._places[level]
        for j in range(-(-shape[0] // TILE_PX)):
            for i in range(-(-shape[1] // TILE_PX)):
                offset, size = places[j, i]
                self._file.seek(offset)
                yield self._file.read(size)

    def finish(self) -> None:
        """Assemble the slide and put it in its place."""
        big = max(self._shape) > 30_000
        with replaced_file(self._path) as path, tifffile.TiffWriter(path, bigtiff=big) as tiff:
            self._write(tiff)
        self.discard()

    def _write(self, tiff: tifffile.TiffWriter) -> None:
        height, width = self._shape
        about = (
            f"Aperio napari-her2 phantom (synthetic)\r\n{width}x{height} [0,0 {width}x{height}] "
            f"(256x256) JPEG/YCBCR Q={_QUALITY}|AppMag = {objective(self._mpp)}|MPP = {self._mpp:.4f}"
            "|Filename = napari-her2 phantom|User = synthetic"
        )
        dots_per_cm = (1e4 / self._mpp, 1e4 / self._mpp)
        self._write_level(tiff, self._tiles(0, self._shape), self._shape, about, dots_per_cm)
        thumbnail = self._small
        while max(thumbnail.shape[:2]) > 1024:
            thumbnail = shrink(thumbnail, 2)
        small = f"{width}x{height} -> {thumbnail.shape[1]}x{thumbnail.shape[0]} - "
        self._write_image(tiff, thumbnail, f"Aperio napari-her2 phantom (synthetic)\r\n{small}", 0)
        shape = (-(-height // _LEVEL1), -(-width // _LEVEL1))
        if max(self._shape) > _SMALLEST_PX:
            about = f"Aperio napari-her2 phantom (synthetic)\r\n{width}x{height} -> {shape[1]}x{shape[0]} - "
            self._write_level(tiff, self._tiles(1, shape), shape, about)
        level = self._small
        while max(shape) > _SMALLEST_PX:
            shape = (level.shape[0], level.shape[1])
            about = f"Aperio napari-her2 phantom (synthetic)\r\n{width}x{height} -> {shape[1]}x{shape[0]} - "
            self._write_level(tiff, iter(_encode(level, _QUALITY_SMALL).values()), shape, about)
            level = shrink(level, _LEVEL1)
        self._write_image(tiff, label_image(self._label), "Aperio napari-her2 phantom\r\nlabel 400x400", 1)
        self._write_image(tiff, _macro(thumbnail), "Aperio napari-her2 phantom\r\nmacro 1280x430", 9)

    @staticmethod
    def _write_level(
        tiff: tifffile.TiffWriter,
        tiles: Iterator[bytes],
        shape: tuple[int, int],
        about: str,
        dots_per_cm: tuple[float, float] | None = None,
    ) -> None:
        tiff.write(
            tiles,
            shape=(*shape, 3),
            dtype=np.uint8,
            tile=(TILE_PX, TILE_PX),
            photometric="ycbcr",
            compression="jpeg",
            subsampling=(2, 2),
            description=about,
            metadata=None,
            software=False,
            resolution=dots_per_cm,
            resolutionunit="CENTIMETER" if dots_per_cm else None,
        )

    @staticmethod
    def _write_image(tiff: tifffile.TiffWriter, image: Image, about: str, kind: int) -> None:
        tiff.write(
            iter([encode_jpeg(np.ascontiguousarray(image), 85)]),
            shape=image.shape,
            dtype=np.uint8,
            rowsperstrip=image.shape[0],
            photometric="ycbcr",
            compression="jpeg",
            subsampling=(2, 2),
            subfiletype=kind,
            description=about,
            metadata=None,
            software=False,
        )


def objective(mpp: float) -> str:
    """Objective as scanners state it: 40 at 0.25 µm/px, 20 at 0.5, 10 at 1."""
    return f"{10 / mpp:g}" if round(10 / mpp, 6).is_integer() else f"{10 / mpp:.1f}"


def label_image(text: str) -> Image:
    """Paper label (400, 400, 3) that says SYNTHETIC."""
    image: Image = np.full((400, 400, 3), 250, dtype=np.uint8)
    cv2.rectangle(image, (8, 8), (391, 391), (60, 60, 60), 3)
    cv2.putText(image, "SYNTHETIC", (26, 110), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (170, 20, 20), 4, cv2.LINE_AA)
    for k, line in enumerate(["napari-her2 phantom", *text.split("\n")]):
        place = (26, 190 + 50 * k)
        cv2.putText(image, line[:24], place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (30, 30, 30), 2, cv2.LINE_AA)
    return image


def _macro(thumbnail: Image) -> Image:
    """Photograph of the glass (430, 1280, 3) with the tissue on it."""
    image: Image = np.full((430, 1280, 3), 236, dtype=np.uint8)
    image[15:415, 20:420] = label_image("")
    scale = min(380 / thumbnail.shape[0], 800 / thumbnail.shape[1])
    size = max(1, int(thumbnail.shape[1] * scale)), max(1, int(thumbnail.shape[0] * scale))
    picture = cv2.resize(thumbnail, size, interpolation=cv2.INTER_AREA)
    image[25 : 25 + size[1], 450 : 450 + size[0]] = picture
    return image
