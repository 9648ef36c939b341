"""What the model says of the tile under the cursor, in napari's status bar.

napari shows the values of the active layer alone. The slide, or a map, stays active: a layer of labels
that is active shows the keys of painting, and takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.tags import OverlayTag, SlideTag, tag_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Labels

_BEFORE = " · tile "


def show_tile_values(viewer: ViewerModel, tiles: Sequence[Labels]) -> None:
    """Add the values of the tile under the cursor to the status, where a slide or a map is active.

    Parameters
    ----------
    viewer : ViewerModel
        Its status says where the cursor is.
    tiles : sequence of Labels
        Values of the tiles of the scored slides. Where two slides lie over each other, the one that is
        active is meant.
    """
    status, active = viewer.status, viewer.layers.selection.active
    tag = tag_of(active) if active is not None else None
    if not isinstance(status, dict) or not isinstance(tag, SlideTag | OverlayTag):
        return
    coordinates = str(status.get("coordinates", ""))
    if active in tiles or _BEFORE in coordinates or viewer.dims.ndisplay != 2:
        return

    def is_other(layer: Labels) -> bool:
        of = tag_of(layer)
        return of is None or of.slide_id != tag.slide_id

    found = (tile_in_words(layer, viewer.cursor.position) for layer in sorted(tiles, key=is_other))
    words = next(filter(None, found), "")
    if words:
        viewer.status = {**status, "coordinates": f"{coordinates}{_BEFORE}{words}"}


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
