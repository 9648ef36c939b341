"""Features of a slide as HDF5, in the layout that CLAM and TRIDENT read, with the attributes of TRIDENT."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.export.request import Request
    from napari_her2.inference.embeddings import Embeddings
    from napari_her2.slide.grid import TileGrid


_STEPS = ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5))
"""µm per pixel below which a magnification stands."""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Where features come from.

    Parameters
    ----------
    slide, fingerprint, sha256_head : str
        Name of the slide, and of its file's content.
    encoder, weights : str
        Name of the encoder, and fingerprint of its weights.
    version : str
        Of napari-her2.
    objective : float or None
        Magnification that the slide states of its objective.
    spec : str
        All of the encoder as a card has it, as JSON, where its weights are known by their digest: whoever
        trains on the features then knows what made them. Empty otherwise.
    """

    slide: str
    fingerprint: str
    sha256_head: str
    encoder: str
    weights: str
    version: str
    objective: float | None = None
    spec: str = ""


def write_features(
    path: Path,
    embeddings: Embeddings,
    grid: TileGrid,
    source: FeatureSource,
    request: Request | None = None,
) -> None:
    """Write the features of a slide; the file appears whole or not at all.

    Parameters
    ----------
    path : Path
    embeddings : Embeddings
    grid : TileGrid
    source : FeatureSource
    request : Request, optional
        What was asked; it becomes an attribute of the file, where `holds_features` finds it.

    Raises
    ------
    JobFailed
        If it cannot be written.

    Notes
    -----
    ``features`` is (N, D) float32 and ``coords`` (N, 2) int64 with (x, y) of the upper left corner,
    level-0 pixels: this layout turns our (y, x) round. ``patch_size`` is in pixels of the tile at its own
    µm/px, ``patch_size_level0`` in level-0 pixels. ``level0_magnification`` and ``target_magnification`` are
    whole numbers, as TRIDENT has them, and left out where neither the objective nor the µm/px tells them.
    """
    height, width = grid.slide_shape_px0
    with whole_file(path) as scratch, h5py.File(scratch, "w") as file:
        # float32 because readers hand it to float32 weights as it is; nothing is lost from float16.
        features = file.create_dataset("features", data=embeddings.features.astype(np.float32))
        features.attrs.update({"encoder": source.encoder, "name": source.slide})
        coords = file.create_dataset("coords", data=grid.origins_px0(embeddings.index)[:, ::-1])
        coords.attrs.update(
            {
                "name": source.slide,
                "patch_size": grid.tile_px,
                "patch_size_level0": round(grid.tile_px0[1]),
                "overlap": 0,
                "mpp": grid.mpp,
                "slide_mpp_yx": grid.slide_mpp,
                "level0_width": width,
                "level0_height": height,
                **_magnifications(grid, source.objective),
            }
        )
        file.attrs.update(
            {
                "slide": source.slide,
                "slide_sha256": source.fingerprint,
                "slide_sha256_head": source.sha256_head,
                "encoder": source.encoder,
                "encoder_sha256": source.weights,
                **({"encoder_spec": source.spec} if source.spec else {}),
                "corrupt_tiles": len(embeddings.corrupt),
                "version": source.version,
            }
        )
        if request is not None:
            file.attrs["request"] = json.dumps(request.values(), sort_keys=True)


def magnification_of(mpp: float) -> int | None:
    """Return the magnification that goes with a scale, by the steps of TRIDENT.

    Parameters
    ----------
    mpp : float
        µm per pixel.

    Returns
    -------
    int or None
        None where it is coarser than any.

    Examples
    --------
    >>> [magnification_of(mpp) for mpp in (0.25, 0.5, 0.46, 1.0, 8.0)]
    [40, 20, 20, 10, None]
    """
    return next((power for below, power in _STEPS if mpp < below), None)


def _magnifications(grid: TileGrid, objective: float | None) -> dict[str, int]:
    stated = None if objective is None or not 1 <= objective <= 200 else round(objective)
    found = {
        "level0_magnification": stated or magnification_of(max(grid.slide_mpp)),
        "target_magnification": magnification_of(grid.mpp),
    }
    return {name: value for name, value in found.items() if value is not None}


def holds_features(path: Path, request: Request) -> bool:
    """Whether a file holds the features that this very request asks for.

    Parameters
    ----------
    path : Path
        It may not exist.
    request : Request

    Returns
    -------
    bool
    """
    try:
        with h5py.File(path, "r") as file:
            return bool(json.loads(file.attrs["request"]) == request.values())
    except (OSError, ValueError, KeyError, TypeError):
        return False
