"""Maps of a result as OME-TIFF pyramids, which other viewers open in place, over the slide or beside it.

Two kinds of file: the numbers, one channel a map and one pixel a tile, for who computes with them; and a
coloured picture of each map with the extent of the whole slide, for who looks. Both state their µm/px, and
begin where the slide begins, so that a viewer of whole slides (QuPath, TIAToolbox) puts them in place.

The format is OME-TIFF 6 with tiled sub-resolutions (Goldberg et al., 2005, doi:10.1186/gb-2005-6-5-r47;
Besson et al., 2019, doi:10.1007/978-3-030-23937-4_1).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.explain.colours import coloured
from napari_her2.inference.withheld import without_answer
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult

NUMBERS_FILE = "maps.ome.tif"
SMOOTH_FILE = "maps_smooth.ome.tif"
"""Of maps of overlapping tiles, one pixel a square of them."""
LONGEST_SIDE_PX = 8192
"""Of a coloured picture: a tile of 48 µm of a slide 25 mm wide has 15 pixels."""
_TILE_PX = 256
_SMALLEST_LEVEL_PX = 512


def write_map_images(result: SlideResult, folder: Path) -> tuple[Path, ...]:
    """Write the maps of all slides of a result as OME-TIFF.

    Parameters
    ----------
    result : SlideResult
        Where its answer is withheld, maps that would give it away are left out.
    folder : Path
        Made where it is missing; those of the second slide of a case go to a folder in it, named after its
        stain.

    Returns
    -------
    tuple of Path
        The files: `NUMBERS_FILE`, `SMOOTH_FILE` where there are smoother maps, and a picture of each map, of
        the smoother one where there is one.

    Raises
    ------
    JobFailed
        If there is no map, or the folder cannot be written to.
    """
    seen = without_answer(result)
    written: list[Path] = []
    for number, scored in enumerate(seen.slides):
        own = folder if not number else folder / scored.stain
        maps, smooth = _with_values(scored.maps), _with_values(scored.smooth)
        if not maps:
            continue
        written.append(_write_numbers(maps, seen, own / NUMBERS_FILE))
        if smooth:
            written.append(_write_numbers(smooth, seen, own / SMOOTH_FILE))
        pictures = _with_values(scored.shown_maps)
        written += [_write_picture(of, own / f"{_file_name(of)}.ome.tif") for of in pictures]
    if not written:
        raise JobFailed(f"The result of {result.slide} holds no map: there is nothing to write.")
    return tuple(written)


def _with_values(maps: Sequence[TileMap]) -> list[TileMap]:
    return [of for of in maps if of.holds_any and of.info.layer_name]


def _file_name(tile_map: TileMap) -> str:
    return re.sub(r"[^\w+-]+", "_", tile_map.name)


def _write_numbers(maps: Sequence[TileMap], result: SlideResult, target: Path) -> Path:
    grid = maps[0].grid
    names = [f"{of.name} ({of.unit})" if of.unit else of.name for of in maps]
    values = np.stack([of.values for of in maps]).astype(np.float32)
    # NaN stays: whoever computes with it must not take "nothing was scored" for zero.
    described = f"{result.slide}: {result.task}. Model {result.model}. {result.notice}"
    metadata = {"Channel": {"Name": names}, "Description": described}
    levels = _halved(values, _mean_of_known)
    return _write(target, levels, "CYX", (grid.tile_um, grid.tile_um), metadata, "minisblack")


def _write_picture(tile_map: TileMap, target: Path) -> Path:
    grid = tile_map.grid
    height, width = grid.slide_shape_px0
    step = max(1, math.ceil(max(height, width) / LONGEST_SIDE_PX))
    rows = _tile_of_pixel(math.ceil(height / step), step, grid.tile_px0[0], grid.shape[0])
    columns = _tile_of_pixel(math.ceil(width / step), step, grid.tile_px0[1], grid.shape[1])
    # A row and a column more, clear: the strip at the edges that is less than a tile.
    rgba = np.zeros((grid.shape[0] + 1, grid.shape[1] + 1, 4), np.float32)
    rgba[:-1, :-1] = coloured(tile_map)
    alpha = rgba[..., 3:] / 255
    on_glass = np.asarray(np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)), np.uint8)
    picture = on_glass[rows[:, None], columns[None]]
    mpp = (grid.slide_mpp[0] * step, grid.slide_mpp[1] * step)
    metadata = {"Description": tile_map.description}
    return _write(target, _halved(picture, _every_second), "YXS", mpp, metadata, "rgb")


def _tile_of_pixel(count: int, step: int, tile_px0: float, tiles: int) -> NDArray[np.int64]:
    """Row or column of the tile that holds the centre of each pixel; one too many where there is none."""
    centres = (np.arange(count) + 0.5) * step
    return np.minimum((centres / tile_px0).astype(np.int64), tiles)


def _halved(full: NDArray[Any], half: Any) -> list[NDArray[Any]]:  # noqa: ANN401 - a function of arrays
    levels = [full]
    axis = 1 if full.dtype == np.float32 else 0
    while max(levels[-1].shape[axis : axis + 2]) > _SMALLEST_LEVEL_PX:
        levels.append(half(levels[-1]))
    return levels


def _every_second(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve a picture of flat colours: mixtures of them would be colours that mean something else."""
    return np.ascontiguousarray(image[::2, ::2])


def _mean_of_known(values: NDArray[np.float32]) -> NDArray[np.float32]:
    channels, height, width = values.shape
    padded = np.full((channels, height + height % 2, width + width % 2), np.nan, np.float32)
    padded[:, :height, :width] = values
    blocks = padded.reshape(channels, padded.shape[1] // 2, 2, padded.shape[2] // 2, 2)
    known = np.isfinite(blocks)
    counts = known.sum(axis=(2, 4))
    sums = np.where(known, blocks, 0).sum(axis=(2, 4))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)


def _write(
    target: Path,
    levels: Sequence[NDArray[Any]],
    axes: str,
    mpp: tuple[float, float],
    metadata: dict[str, Any],
    photometric: str,
) -> Path:
    """Write a pyramid, whole or not at all."""
    import tifffile

    sizes = {
        "axes": axes,
        "PhysicalSizeY": mpp[0],
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeX": mpp[1],
        "PhysicalSizeXUnit": "µm",
    }
    options: dict[str, Any] = {
        "photometric": photometric,
        "tile": (_TILE_PX, _TILE_PX),
        "compression": "zlib",
        "resolutionunit": "CENTIMETER",
    }
    with whole_file(target) as path, tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            factor = 2**number
            options["resolution"] = (1e4 / (mpp[1] * factor), 1e4 / (mpp[0] * factor))
            if number:
                tiff.write(level, subfiletype=1, **options)
            else:
                tiff.write(level, subifds=len(levels) - 1, metadata=sizes | metadata, **options)
    return target
