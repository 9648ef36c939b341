"""Layers of drawn regions, and where a slide is looked at, as what is kept of them, and back."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.overlay_layers import active_kept
from napari_her2._napari.placement import look_at
from napari_her2._napari.region_kinds import KIND, NAME, give_kinds, kinds_of, names_of
from napari_her2._napari.regions import ellipse_outline, region_layers, show_regions, to_slide
from napari_her2._napari.tags import RegionTag, tag_of
from napari_her2.desk.kept_shapes import SHAPES, KeptShape
from napari_her2.desk.kept_slide import SlideView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Shapes
    from numpy.typing import NDArray


def own_region_layers(viewer: ViewerModel, slide_id: str) -> list[Shapes]:
    """Layers of regions that were made for a slide; those that napari made belong to no slide."""
    return [layer for layer in region_layers(viewer, slide_id) if isinstance(tag_of(layer), RegionTag)]


def shapes_of(viewer: ViewerModel, slide_layer: Image, slide_id: str) -> tuple[KeptShape, ...]:
    """Shapes that were drawn on a slide, as they are kept.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Image
    slide_id : str

    Returns
    -------
    tuple of KeptShape
        Layer by layer, in the order in which they were drawn.
    """
    usual = _usual_name(slide_layer)
    found: list[KeptShape] = []
    for layer in own_region_layers(viewer, slide_id):
        matrix, shift = to_slide(layer, slide_layer)
        name = "" if layer.name == usual else layer.name
        drawn = zip(layer.data, layer.shape_type, kinds_of(layer), names_of(layer), strict=True)
        for corners, shape, kind, of in drawn:
            if shape not in SHAPES:
                continue
            # napari counts from the centre of the first pixel.
            placed = np.asarray(corners, np.float64)[:, -2:] @ matrix.T + shift + 0.5
            is_ellipse = shape == "ellipse"
            outline = ellipse_outline(placed) if is_ellipse else placed
            found.append(KeptShape(outline, str(shape), kind, of, name, placed if is_ellipse else None))
    return tuple(found)


def show_shapes(viewer: ViewerModel, slide_layer: Image, shapes: Sequence[KeptShape]) -> Iterator[None]:
    """Put kept shapes back over a slide, a part of a layer at each step: napari takes its time for each.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Image
    shapes : sequence of KeptShape

    Yields
    ------
    None
    """
    for name, of in groupby(shapes, key=lambda shape: shape.layer):
        drawn = list(of)
        with active_kept(viewer, slide_layer):
            layer = show_regions(viewer, slide_layer, (), name=name or _usual_name(slide_layer))
        yield
        if layer in viewer.layers:
            _draw(layer, drawn)
        yield


def view_of(viewer: ViewerModel, slide_layer: Image) -> SlideView | None:
    """Return where a slide is looked at; None where the view is beside it."""
    camera = viewer.scene.camera
    centre = np.asarray(slide_layer.world_to_data(tuple(camera.center)[-2:]), np.float64)[-2:] + 0.5
    height, width = np.asarray(slide_layer.extent.data)[1][-2:] + 1
    if not (0 <= centre[0] <= height and 0 <= centre[1] <= width):
        return None
    zoom = float(camera.zoom * np.asarray(slide_layer.scale)[-1])
    return SlideView((float(centre[0]), float(centre[1])), zoom) if zoom > 0 else None


def show_view(viewer: ViewerModel, slide_layer: Image, view: SlideView) -> None:
    """Look at a slide where it was looked at."""
    look_at(viewer, slide_layer, view.centre_px0)
    viewer.scene.camera.zoom = view.zoom / float(np.asarray(slide_layer.scale)[-1])


def _usual_name(slide_layer: Image) -> str:
    return f"regions · {slide_layer.name}"


def _draw(layer: Shapes, shapes: Sequence[KeptShape]) -> None:
    with layer.block_thumbnail_update():
        layer.add([_corners(shape) for shape in shapes], shape_type=[shape.shape for shape in shapes])
    layer.features = {
        KIND: np.array([shape.kind for shape in shapes], object),
        NAME: np.array([shape.name for shape in shapes], object),
    }
    give_kinds(layer)
    layer.selected_data = set()


def _corners(shape: KeptShape) -> NDArray[np.float64]:
    corners: NDArray[np.float64] = (shape.outline_px0 if shape.box_px0 is None else shape.box_px0) - 0.5
    return corners
