"""Other readers of whole slide images, behind one call each: level-0 patches, as they are used."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Patch = Callable[[int, int, int], NDArray[np.uint8]]  # y, x, side -> (side, side, 3)


def openslide_patch(path: Path) -> Patch:
    import openslide

    slide = openslide.OpenSlide(str(path))
    return lambda y, x, side: np.asarray(slide.read_region((x, y), 0, (side, side)))[..., :3]


def tiffslide_patch(path: Path) -> Patch:
    import tiffslide

    slide = tiffslide.TiffSlide(str(path))
    return lambda y, x, side: slide.read_region((x, y), 0, (side, side), as_array=True)


def dask_patch(path: Path) -> Patch:
    import dask.array
    import tifffile
    import zarr

    # The pages of level 0 as dask sees them: a chunk is a stored tile.
    store = tifffile.TiffFile(path).series[0].aszarr(level=0)
    array = dask.array.from_zarr(zarr.open(store, mode="r"))
    return lambda y, x, side: array[y : y + side, x : x + side].compute()


def zarr_patch(path: Path) -> Patch:
    import tifffile
    import zarr

    array = zarr.open(tifffile.TiffFile(path).series[0].aszarr(level=0), mode="r")
    return lambda y, x, side: array[y : y + side, x : x + side]


def cucim_patch(path: Path) -> Patch:
    from cucim import CuImage

    slide = CuImage(str(path))
    return lambda y, x, side: np.asarray(slide.read_region((x, y), (side, side), level=0))


def fastslide_patch(path: Path) -> Patch:
    import fastslide

    slide = fastslide.FastSlide.from_file_path(str(path))
    return lambda y, x, side: slide.read_region((x, y), 0, (side, side)).numpy()[..., :3]


def pyvips_patch(path: Path) -> Patch:
    import pyvips

    region = pyvips.Region.new(pyvips.Image.tiffload(str(path), page=0))
    return lambda y, x, side: np.frombuffer(region.fetch(x, y, side, side), np.uint8).reshape(side, side, 3)


PEERS: dict[str, tuple[str, Callable[[Path], Patch]]] = {
    "openslide-python": ("openslide-python", openslide_patch),
    "tiffslide.read_region": ("tiffslide", tiffslide_patch),
    "tifffile + zarr": ("zarr", zarr_patch),
    "dask.from_zarr": ("dask", dask_patch),
    "cuCIM (CPU)": ("cucim-cu12", cucim_patch),
    "fastslide": ("fastslide", fastslide_patch),
    "pyvips Region.fetch": ("pyvips", pyvips_patch),
}


def open_peers(path: Path) -> tuple[dict[str, Patch], dict[str, str]]:
    """Open a slide with every peer that can.

    Returns
    -------
    peers : dict
        Name with version to patch function.
    skipped : dict
        Name to the reason why a peer is missing.
    """
    peers: dict[str, Patch] = {}
    skipped: dict[str, str] = {}
    for name, (distribution, opener) in PEERS.items():
        try:
            patch = opener(path)
            if patch(100, 100, 64).shape != (64, 64, 3):
                raise ValueError("it gives another shape")
            peers[f"{name} {version(distribution)}"] = patch
        except Exception as error:  # noqa: BLE001 - a peer may fail in any way of its own, and is then left out
            lines = str(error).strip().splitlines()
            skipped[name] = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return peers, skipped
