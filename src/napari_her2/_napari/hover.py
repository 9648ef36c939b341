"""What a result says of the tile, or the cell, under the cursor, in napari's status bar.

napari shows the values of the active layer alone. The slide, or a map, stays active: a layer of labels
that is active shows the keys of painting, and takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.tags import OverlayTag, SlideTag, tag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Labels

_TILE, _CELL, _FURTHER = " · tile ", " · cell ", " · "


def show_values(
    viewer: ViewerModel,
    tiles: Mapping[str, Labels | None],
    cell_words: Callable[[str], str],
    further_words: Callable[[str], Sequence[str]],
) -> None:
    """Add what is under the cursor to the status, where a slide or a map is active: the cell, or the tile.

    Parameters
    ----------
    viewer : ViewerModel
        Its status says where the cursor is.
    tiles : mapping of str to Labels or None
        Id of each scored slide to the values of its tiles. Where two slides lie over each other, the one
        that is active is meant.
    cell_words : callable
        What the cell of a slide under the cursor is like; empty where there is none, or cells are not shown.
    further_words : callable
        What else is shown of the place under the cursor: values of smoother maps, what is wrong with a tile.
    """
    status, active = viewer.status, viewer.layers.selection.active
    tag = tag_of(active) if active is not None else None
    if not isinstance(status, dict) or not isinstance(tag, SlideTag | OverlayTag):
        return
    coordinates = str(status.get("coordinates", ""))
    if active in tiles.values() or _TILE in coordinates or _CELL in coordinates or viewer.dims.ndisplay != 2:
        return
    for slide_id in sorted(tiles, key=lambda known: known != tag.slide_id):
        words, of_tiles = cell_words(slide_id), tiles[slide_id]
        before = _CELL
        if not words and of_tiles is not None:
            words, before = tile_in_words(of_tiles, viewer.cursor.position), _TILE
        parts = [f"{before}{words}"] if words else []
        parts += [f"{_FURTHER}{further}" for further in further_words(slide_id)]
        if parts:
            viewer.status = {**status, "coordinates": f"{coordinates}{''.join(parts)}"}
            return


def tile_in_words(tiles: Labels, position: Sequence[float]) -> str:
    """Return the values of the tile at a place, empty where there is none.

    Parameters
    ----------
    tiles : Labels
        As `tiles_layer` makes it: the label is the row of the features.
    position : sequence of float
        World.

    Returns
    -------
    str
    """
    label = tiles.get_value(position, world=True)
    if not label or not 0 < int(label) < len(tiles.features):
        return ""
    row = tiles.features.iloc[int(label)]
    values = ", ".join(f"{name}: {_short(value)}" for name, value in row.items() if name != "index")
    return f"{int(label)}: {values}" if values else f"{int(label)}"


def _short(value: Any) -> str:  # noqa: ANN401 - whatever a table of features holds
    return f"{value + 0.0:.4g}" if isinstance(value, float | np.floating) else str(value)  # never "-0"
