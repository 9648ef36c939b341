"""Regions drawn in napari: their layer, and their outlines in level-0 pixels of the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.colormaps import REGION_COLOUR
from napari_her2._napari.layers import AXES
from napari_her2._napari.placement import place_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, RegionTag, slide_tag, tag_of
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Shapes
    from numpy.typing import NDArray

_ELLIPSE_CORNERS = 72


def region_layers(viewer: ViewerModel, slide_id: str) -> list[Shapes]:
    """Shapes layers that may hold regions of a slide: those drawn for it, and the user's own."""
    found: list[Shapes] = []
    for layer in viewer.layers:
        tag = tag_of(layer)
        ours = isinstance(tag, RegionTag) and tag.slide_id == slide_id
        if type(layer).__name__ == "Shapes" and (ours or tag is None):
            found.append(layer)
    return found


def add_region_layer(viewer: ViewerModel, slide_layer: Image) -> Shapes:
    """Add a layer to draw in, on the slide's own pixels, and start drawing.

    napari's own "new labels" would take the full resolution of the slide, gigabytes of it.
    """
    tag = slide_tag(slide_layer)
    layer = viewer.add_shapes(
        name=one_line(f"regions · {slide_layer.name}"),
        ndim=2,
        scale=slide_layer.scale,
        units=slide_layer.units,
        affine=place_of(slide_layer),
        axis_labels=AXES,
        edge_color=REGION_COLOUR,
        face_color="transparent",
        edge_width=max(slide_layer.extent.data[1]) / 400,
        opacity=1.0,
        metadata={METADATA_KEY: RegionTag(tag.slide_id)} if tag is not None else {},
    )
    viewer.layers.selection.active = layer
    layer.mode = "add_polygon"
    return layer


def outlines_px0(layer: Layer, slide_layer: Image) -> list[NDArray[np.float64]]:
    """Outlines of the closed shapes of a layer.

    Parameters
    ----------
    layer : Shapes
        May have a place of its own in the world.
    slide_layer : Image
        Its data are level-0 pixels.

    Returns
    -------
    list of (n, 2) float64
        (y, x) corners in level-0 pixels, counted from the slide's upper left edge.
    """
    outlines = []
    for corners, kind in zip(layer.data, layer.shape_type, strict=True):
        if kind in ("rectangle", "polygon", "ellipse"):
            points = ellipse_outline(corners) if kind == "ellipse" else np.asarray(corners, np.float64)
            world = np.array([layer.data_to_world(point) for point in points])
            pixels = np.array([slide_layer.world_to_data(point)[-2:] for point in world])
            outlines.append(pixels + 0.5)  # napari counts from the centre of the first pixel
    return outlines


def ellipse_outline(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points on an ellipse that napari keeps as the corners of the box around it, (72, 2) float64."""
    corners = np.asarray(corners, np.float64)
    centre = corners.mean(axis=0)
    half_a, half_b = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)[:, None]
    outline: NDArray[np.float64] = centre + np.cos(angle) * half_a + np.sin(angle) * half_b
    return outline


def polygons(layer: Layer, slide_layer: Image) -> list[Any]:
    """Regions of a layer as shapely polygons, (x, y) in level-0 pixels.

    Raises
    ------
    JobFailed
        If the layer holds no closed shape.
    """
    from shapely.geometry import Polygon

    outlines = outlines_px0(layer, slide_layer)
    if not outlines:
        raise JobFailed(
            f'The layer "{layer.name}" holds no closed region: draw one, or choose the whole slide.'
        )
    return [Polygon(outline[:, ::-1]) for outline in outlines]
