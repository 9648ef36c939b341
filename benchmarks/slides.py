"""Large slides for the benchmarks, made by mirroring a real one until they are large enough."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import cv2
import imagecodecs
import numpy as np
import tifffile

from napari_her2 import open_slide

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

Codec = Literal["jpeg", "jpeg2000"]
STEPS = (1, 4, 16)
APERIO_J2K_RGB = 33005


def mirrored(size: int, period: int) -> NDArray[np.int64]:
    """Index that walks 0 .. period-1 and back again, (size,) int64."""
    place = np.arange(size) % (2 * period)
    return np.minimum(place, 2 * period - 1 - place)


def encode(tile: NDArray[np.uint8], codec: Codec, quality: int) -> bytes:
    if codec == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(tile, level=quality, colorspace="RGB", subsampling="420"))
    # Some 15 kB for a tile of 256 px, as scanners write.
    return bytes(imagecodecs.jpeg2k_encode(tile, level=30, codecformat="J2K", mct=True))


def encoded_tiles(
    pixels: NDArray[np.uint8], shape: tuple[int, int], tile_px: int, codec: Codec, quality: int
) -> Iterator[bytes]:
    """Compressed tiles of the mirrored image in raster order, a row at a time in threads."""
    rows, cols = mirrored(shape[0] + tile_px, pixels.shape[0]), mirrored(shape[1] + tile_px, pixels.shape[1])
    with ThreadPoolExecutor() as pool:
        for top in range(0, shape[0], tile_px):
            band = pixels[rows[top : top + tile_px]][:, cols]
            tiles = (band[:, left : left + tile_px] for left in range(0, shape[1], tile_px))
            yield from pool.map(lambda tile: encode(np.ascontiguousarray(tile), codec, quality), tiles)


def make_slide(
    source: Path, target: Path, *, size_px: int, tile_px: int = 256, codec: Codec = "jpeg", quality: int = 80
) -> Path:
    """Write an Aperio-like pyramid at 0.25 µm/px (levels 1, 4, 16); kept if it is there already.

    Parameters
    ----------
    source : Path
        A real slide, mirrored until it fills the target.
    target : Path
        File to write.
    size_px : int
        Width and height of level 0, pixels.
    tile_px : int
        Side of a stored tile, pixels.
    codec : {"jpeg", "jpeg2000"}
    quality : int
        JPEG quality.
    """
    if target.exists():
        return target
    with open_slide(source) as slide:
        # Whole multiples of the coarsest step, so that mirroring and shrinking commute.
        height, width = (side // STEPS[-1] * STEPS[-1] for side in slide.shape)
        pixels = slide.read(0, 0, 0, height, width)
    text = (
        f"Aperio Image Library v12.0.0\n{size_px}x{size_px} ({tile_px}x{tile_px}) {codec} Q={quality}"
        f"|AppMag = 40|MPP = 0.25"
    )
    partial = target.with_suffix(".partial")
    options = {"tile": (tile_px, tile_px), "dtype": np.uint8, "metadata": None}
    options |= (
        {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
        if codec == "jpeg"
        else {"compression": APERIO_J2K_RGB, "photometric": "rgb"}
    )
    with tifffile.TiffWriter(partial, bigtiff=True) as writer:
        for step in STEPS:
            small = cv2.resize(pixels, (width // step, height // step), interpolation=cv2.INTER_AREA)
            side = size_px // step
            tiles = encoded_tiles(small, (side, side), tile_px, codec, quality)
            writer.write(tiles, shape=(side, side, 3), description=text, **options)
            if step == 1:  # Aperio keeps a thumbnail in strips behind level 0
                thumbnail = cv2.resize(pixels, (768, 768), interpolation=cv2.INTER_AREA)
                writer.write(thumbnail, photometric="rgb", metadata=None, description=text)
    partial.rename(target)
    return target
