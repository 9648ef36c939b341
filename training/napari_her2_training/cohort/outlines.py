"""Outlines of tumour that somebody drew, as the share of each tile inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.inference.regions import as_regions, joined
from napari_her2.outside import shown
from napari_her2_training.findings import noted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.findings import Findings

TUMOUR_FROM, NORMAL_TO = 0.5, 0.05
"""A tile is tumour from this share of it inside the regions, normal up to the other; between, left out."""


def tumour_share(path: Path, grid: TileGrid) -> NDArray[np.float64]:
    """Share of each tile that lies inside the regions of a GeoJSON file.

    Returns
    -------
    (rows, columns) float64

    Raises
    ------
    JobFailed
        If the file cannot be read, or nothing in it is tumour.
    """
    drawn = as_regions(path)
    if not any(region.included for region in drawn):
        raise JobFailed(f"{shown(path.name)} holds no tumour region: draw the tumour, or leave the file out.")
    region = joined(drawn)
    rows, cols = np.indices(grid.shape)
    side_y, side_x = grid.tile_px0
    tiles = shapely.box(cols * side_x, rows * side_y, (cols + 1) * side_x, (rows + 1) * side_y)
    share = np.zeros(grid.shape)
    touched = shapely.intersects(region, tiles)
    inside = shapely.contains(region, tiles)
    share[inside] = 1.0
    edge = touched & ~inside
    share[edge] = shapely.area(shapely.intersection(region, tiles[edge])) / (side_y * side_x)
    return share


def check_outlines(
    pattern: str, key: str, cases: Sequence[Case], folder: Path, findings: Findings | None = None
) -> None:
    """Look for the outlines of the tumour of each case, where a configuration asks for them.

    Parameters
    ----------
    pattern : str
        With {case_id} in it; empty asks for none.
    key : str
        Of the configuration, for messages.
    cases : sequence of Case
    folder : Path
        Of the manifest.
    findings : Findings, optional

    Raises
    ------
    JobFailed
        Naming the row of a case that has none.
    """
    with noted(findings):
        for case in cases if pattern else ():
            try:
                path = folder / pattern.format(case_id=case.case_id)
            except (KeyError, IndexError, ValueError) as error:
                raise JobFailed(
                    f"{key} may hold {{case_id}} and no other braces, not {pattern!r:.80}."
                ) from error
            with noted(findings):
                if not path.is_file():
                    raise JobFailed(
                        f"Row {case.row}: {path.name}, the outlines of its tumour, does not exist."
                    )
