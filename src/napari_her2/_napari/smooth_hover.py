"""The values of smoother maps at a place in the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.layers import chosen_drawing
from napari_her2._napari.overlay_layers import info_of
from napari_her2.explain.overlays import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.overlays import OverlaySet
    from napari_her2.explain.overlays import Drawing
    from napari_her2.inference.result import SlideResult


def smooth_words(shown: OverlaySet, position: Sequence[float]) -> str:
    """Return the values of the smoother maps that are visible at a place; empty where there is none.

    Parameters
    ----------
    shown : OverlaySet
    position : sequence of float
        World.
    """
    smooth, found = shown.result.slides[0].smooth, []
    for layer in shown.layers() if smooth else ():
        info = info_of(layer)
        if info is None or not layer.visible or info.kind not in shown.overlays:
            continue
        drawing = chosen_drawing(shown.overlays[info.kind], shown.result, shown.look)
        value = layer.get_value(position, world=True) if drawing in smooth else None
        if value is not None and np.isfinite(value):
            found.append(_value_in_words(drawing, float(value), shown.result))
    return f"smooth {', '.join(found)}" if found else ""


def _value_in_words(drawing: Drawing, value: float, result: SlideResult) -> str:
    """Word a value of a map as it is worded of tiles: "attention percentile: 93.1"."""
    info, named = drawing.info, result.named
    column = info.hover or Column(info.unit, significant=3)
    name = column.name.format(class_name=named(drawing.class_name or ""))
    return f"{name}: {named(info.categories[int(value)]) if info.categories else column.text(value)}"
