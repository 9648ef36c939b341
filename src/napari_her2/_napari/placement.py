"""Where a slide lies in the window, and that everything shown over it lies there too."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from napari_her2._napari.tags import SlideTag, slide_tag, tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

MOVING_EVENTS = ("affine", "translate", "rotate", "shear")
"""Events of a slide's layer after which its companions have to follow."""


def place_of(slide_layer: Image) -> NDArray[np.float64]:
    """From µm on a slide to the window.

    All that the layer of the slide does after its scale; companions take it as their affine, and keep
    scale and translate for their place on the slide.

    Parameters
    ----------
    slide_layer : Image

    Returns
    -------
    (3, 3) float64
        Homogeneous, for (y, x, 1).
    """
    from napari.utils.transforms import Affine

    own = Affine(
        rotate=np.asarray(slide_layer.rotate)[-2:, -2:],
        shear=np.asarray(slide_layer.shear)[-1:],
        translate=np.asarray(slide_layer.translate)[-2:],
    )
    outer = np.eye(3)
    affine = np.asarray(slide_layer.affine.affine_matrix)
    outer[:2, :2], outer[:2, 2] = affine[-3:-1, -3:-1], affine[-3:-1, -1]
    place: NDArray[np.float64] = outer @ np.asarray(own.affine_matrix)
    return place


def layer_of(viewer: ViewerModel | None, slide_id: str) -> Image | None:
    """Return the layer of a slide; None once it was removed."""
    for layer in () if viewer is None else viewer.layers:
        tag = slide_tag(layer)
        if tag is not None and tag.slide_id == slide_id:
            return cast("Image", layer)
    return None


def companions(viewer: ViewerModel, slide_id: str) -> list[Layer]:
    """Layers that lie over a slide and move with it, lowest first: overlays, regions, marks."""
    found = []
    for layer in viewer.layers:
        tag = tag_of(layer)
        if tag is not None and not isinstance(tag, SlideTag) and tag.slide_id == slide_id:
            found.append(layer)
    return found


def follow(viewer: ViewerModel, slide_layer: Image) -> None:
    """Put everything that lies over a slide where the slide is now."""
    tag = slide_tag(slide_layer)
    if tag is None:
        return
    place = place_of(slide_layer)
    for layer in companions(viewer, tag.slide_id):
        layer.affine = place


def look_at(
    viewer: ViewerModel, slide_layer: Image, point_px0: tuple[float, float], *, zoom: float = 0.0
) -> None:
    """Move the view to a place of a slide.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Image
    point_px0 : tuple of float
        (y, x), level-0 pixels from the upper left edge of the slide.
    zoom : float
        Screen pixels per µm that are wanted at least.
    """
    # napari counts from the centre of the first pixel
    there = slide_layer.data_to_world(np.asarray(point_px0) - 0.5)[-2:]
    viewer.scene.camera.center = (0.0, *(float(value) for value in there))
    if viewer.scene.camera.zoom < zoom:
        viewer.scene.camera.zoom = zoom


def corners(slide_layer: Image) -> NDArray[np.float64]:
    """Corners of a slide, (4, 2) float64, (y, x) in µm on the slide."""
    height, width = np.asarray(slide_layer.extent.data)[1][-2:] + 1
    scale = np.asarray(slide_layer.scale)[-2:]
    box = np.array([(0, 0), (0, width), (height, width), (height, 0)], np.float64)
    corners_um: NDArray[np.float64] = (box - 0.5) * scale
    return corners_um


def bounds(slide_layer: Image, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Box around a slide that is put somewhere, (2, 2) float64: smallest and largest (y, x)."""
    there = corners(slide_layer) @ place[:2, :2].T + place[:2, 2]
    return np.stack([there.min(axis=0), there.max(axis=0)])
