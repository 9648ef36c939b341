"""Layers of a model that scores each tile by itself: what it says of each, and how far it trusts that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._napari.colormaps import confidence_colormap, score_colormap
from napari_her2._napari.layers import map_layer

if TYPE_CHECKING:
    from napari_her2._napari.layers import LayerData, OverlayLook
    from napari_her2.explain.maps import MapKind, TileMap
    from napari_her2.inference.result import SlideResult


def score_layer(result: SlideResult, look: OverlayLook) -> LayerData | None:
    """Most probable class of each tile, a colour a class; None where tiles have no scores of their own."""
    tile_map = _map_of(result, "score")
    if tile_map is None:
        return None
    classes = len(result.classes)
    return map_layer(
        result,
        "score",
        tile_map.values,
        name="score of each tile",
        colormap=score_colormap(classes),
        # Class numbers lie in the middle of their steps, where rounding on the graphics card cannot reach.
        contrast_limits=(-0.5, classes - 0.5),
        opacity=look.opacity,
    )


def confidence_layer(result: SlideResult, look: OverlayLook) -> LayerData | None:
    """Learnt confidence in the score of each tile, from 0 to 1 on every slide; None where there is none."""
    tile_map = _map_of(result, "confidence")
    if tile_map is None:
        return None
    return map_layer(
        result,
        "confidence",
        tile_map.values,
        name="confidence (learnt)",
        colormap=confidence_colormap(),
        contrast_limits=(0.0, 1.0),
        opacity=look.opacity,
        visible=False,
    )


def _map_of(result: SlideResult, kind: MapKind) -> TileMap | None:
    return next((tile_map for tile_map in result.maps if tile_map.kind == kind), None)
