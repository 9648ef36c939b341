"""Colours of the overlays as napari takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.explain.class_colours import score_colours
from napari_her2.explain.colours import COLOURS, colour_table

if TYPE_CHECKING:
    from napari.utils.colormaps import Colormap

    from napari_her2.explain.overlays import OverlayInfo

REGION_COLOUR = "#76ff03"  # neither in H&E nor in IHC, and no class of cells
MARK_COLOUR = "#ff1744"  # seen on pink, on brown, and on the yellow of the maps


def score_hex(classes: int) -> list[str]:
    """Return the colours of `score_colours` as "#rrggbb"."""
    return [
        "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgba[:3])
        for rgba in score_colours(classes)
    ]


def category_hex(info: OverlayInfo) -> list[str]:
    """Return the colours of the categories of an overlay as "#rrggbb"."""
    return list(info.palette) or score_hex(len(info.categories))


def colormap_of(info: OverlayInfo) -> Colormap:
    """Colormap of an overlay; of one that is so or is not, clear where it is not.

    Parameters
    ----------
    info : OverlayInfo
    """
    from napari.utils.colormaps import Colormap

    if info.colours.startswith("#"):
        return Colormap(colour_table(info), name=f"her2 {info.colours}")
    if info.categories:
        name, title = ("her2 score", "HER2 score") if info.of_classes else (f"her2 {info.kind}", info.title)
        return Colormap(
            colour_table(info),
            controls=np.linspace(0, 1, len(info.categories) + 1),
            interpolation="zero",
            name=name,
            display_name=title,
        )
    name, colours = COLOURS[info.colours]
    return Colormap(colours(), name=f"her2 {name}", display_name=f"HER2 {name}")
