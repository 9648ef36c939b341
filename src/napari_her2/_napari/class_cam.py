"""Grad-CAM that belongs to a result: of a class, over the whole slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.colormaps import attention_colormap
from napari_her2._napari.layers import map_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2._napari.layers import LayerData, OverlayLook
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult

_BRIGHTEST_PERCENT = 99.5


def class_cam_map(result: SlideResult, name: str) -> TileMap | None:
    """Grad-CAM of a class, with what is below 0 where the result has it; None where it has no Grad-CAM."""
    of_class = {tile_map.kind: tile_map for tile_map in result.maps if tile_map.class_name == name}
    return of_class.get("signed Grad-CAM") or of_class.get("Grad-CAM")


def class_cam_layer(result: SlideResult, look: OverlayLook) -> LayerData | None:
    """Grad-CAM of the chosen score, of the predicted one where none is chosen; None where there is none.

    Values are in logits; what is at or below 0 is clear.
    """
    tile_map = class_cam_map(result, look.class_name or result.score)
    if tile_map is None:
        return None
    return map_layer(
        result,
        "class Grad-CAM",
        tile_map.values,
        name=f"Grad-CAM {result.named(tile_map.class_name or '')}: regions the model used",
        colormap=attention_colormap(),
        contrast_limits=cam_limits(tile_map.values),
        opacity=look.opacity,
    )


def cam_limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Contrast limits of a whole Grad-CAM.

    Parameters
    ----------
    values : (rows, columns) float32
        NaN where there is none.

    Returns
    -------
    tuple of float
        0 and the 99.5th percentile of what is above 0; (0, 1) where nothing is.
    """
    above = values[values > 0]  # NaN is not
    return 0.0, float(np.percentile(above, _BRIGHTEST_PERCENT)) if above.size else 1.0
