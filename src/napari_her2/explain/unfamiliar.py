"""The map of unfamiliar tiles: how far each is from those that the model learnt from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import Column, Outlined, OverlayInfo, TileWords

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

LIMIT = 1.0
"""Below it lie 99 % of the tiles of validation slides."""
_FAR = 3.0
UNFAMILIAR = OverlayInfo(
    "unfamiliar",
    title="Unfamiliar tiles",
    layer_name="unfamiliar tiles",
    meaning=(
        "How unlike what the model learnt from each tile is: above 1 it is farther off than 99 % of the "
        "tiles of validation slides. Tiles below that are clear. It does not show what is wrong with a tile."
    ),
    unit="times the limit",
    colours="sequential",
    limits=(LIMIT, _FAR),
    order=70,
    depth=20,
    hover=Column("unfamiliar", decimals=2),
    exported=Column("unfamiliar", significant=4, order=1),
    words=TileWords("unfamiliar {value:.1f} (limit 1)"),
    outlined=Outlined(
        "Unfamiliar to the model", "times the limit of familiar tiles", (120, 60, 200), above=LIMIT
    ),
)


def unfamiliar_map(
    grid: TileGrid, index: NDArray[np.integer], distances: NDArray[np.floating], *, visible: bool = False
) -> TileMap:
    """Map how unfamiliar tiles are.

    Parameters
    ----------
    grid : TileGrid
    index : (N, 2) int
        (row, column) of each tile.
    distances : (N,) float
        In units of the limit.
    visible : bool
        Whether it is shown without being asked for: of slides that are strange, or in part.

    Returns
    -------
    TileMap
    """
    info = replace(UNFAMILIAR, visible=visible)
    return TileMap(info, grid.paint(index, distances), grid)
