"""Grad-CAM of a slide as a layer, and which part of the slide is meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.layers import Over, OverlayLook, draw
from napari_her2._napari.overlay_layers import make_layer
from napari_her2._napari.tags import OverlayTag, shows, slide_tag, tag_of
from napari_her2.errors import JobFailed
from napari_her2.explain.fields import REGION_CAM
from napari_her2.inference.regions import as_regions, inside_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2.explain.region_cam import CamMap


def inside(cam: CamMap, outlines: Sequence[Any]) -> CamMap:
    """Leave clear what lies outside all outlines.

    Parameters
    ----------
    cam : CamMap
    outlines : sequence of Region and shapely polygons
        (x, y) in level-0 pixels; what is left out stays clear too.
    """
    within = inside_mask(outlines, cam.values.shape, cam.pixel_px0, cam.origin_px0)
    return replace(cam, values=np.where(within, cam.values, np.float32(np.nan)))


def bounds_px0(outlines: Sequence[Any]) -> tuple[float, float, float, float] | None:
    """Box around what is read: (y, x, height, width), level-0 pixels; None where only some is left out."""
    boxes = np.array([region.area.bounds for region in as_regions(outlines) if region.included])
    if not len(boxes):
        return None
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return float(top), float(left), float(bottom - top), float(right - left)


def viewed_px0(viewer: ViewerModel, slide_layer: Image) -> tuple[float, float, float, float] | None:
    """Part of a slide that is in view: (y, x, height, width), level-0 pixels.

    The corners of the view, brought to the slide: of a slide that lies turned, the box around them.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Image

    Returns
    -------
    tuple of float or None
        None where the slide is not in view.
    """
    camera = viewer.scene.camera
    centre = np.asarray(camera.center)[-2:]
    half = np.asarray(viewer.canvas.size) / (2 * camera.zoom)
    corners = [centre + half * (sign_y, sign_x) for sign_y in (-1, 1) for sign_x in (-1, 1)]
    # napari counts from the centre of the first pixel
    pixels = np.array([slide_layer.world_to_data(corner)[-2:] for corner in corners]) + 0.5
    limit = np.asarray(slide_layer.extent.data)[1][-2:] + 1
    low, high = np.clip(pixels.min(axis=0), 0, limit), np.clip(pixels.max(axis=0), 0, limit)
    if (low >= high).any():
        return None
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def cam_layer(cam: CamMap, slide_layer: Image, opacity: float) -> Image:
    """Make the layer of a map: exactly over the slide, in µm, clear where nothing was computed.

    Parameters
    ----------
    cam : CamMap
    slide_layer : Image
    opacity : float

    Returns
    -------
    Image
        Not yet in a viewer.

    Raises
    ------
    JobFailed
        If the layer shows no slide of known µm/px.
    """
    tag = slide_tag(slide_layer)
    if tag is None or tag.slide.mpp is None:
        raise JobFailed("The slide of the map states no µm/px: give it, and compute the map again.")
    over = Over(tag.slide.name, tag.slide_id, tag.slide.mpp)
    layer: Image = make_layer(draw(cam.drawing, over, OverlayLook(opacity=opacity)), slide_layer)
    return layer


def show_cam(viewer: ViewerModel, cam: CamMap, slide_layer: Image, opacity: float) -> Image:
    """Show a map over its slide, in place of the one before.

    It lies below the frames and the values of the tiles, which stay readable.
    """
    tag = slide_tag(slide_layer)
    slide_id = "" if tag is None else tag.slide_id
    remove_cam(viewer, slide_id)
    layer = cam_layer(cam, slide_layer, opacity)
    over = [viewer.layers.index(slide_layer)]
    for other in viewer.layers:
        of = tag_of(other)
        if isinstance(of, OverlayTag) and of.slide_id == slide_id and of.info.depth <= REGION_CAM.depth:
            over.append(viewer.layers.index(other))
    active = viewer.layers.selection.active
    viewer.layers.insert(max(over) + 1, layer)
    # The values under the cursor stay those of the tiles.
    viewer.layers.selection.active = active
    return layer


def cam_of(viewer: ViewerModel, slide_id: str) -> Image | None:
    """Return the Grad-CAM layer of a slide, None where there is none."""
    return next((layer for layer in viewer.layers if shows(layer, REGION_CAM.kind, slide_id)), None)


def remove_cam(viewer: ViewerModel, slide_id: str) -> None:
    """Take the Grad-CAM of a slide out of the viewer."""
    take_out(viewer, cam_of(viewer, slide_id))
