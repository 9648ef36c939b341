"""The small images that a model of low resolution looked at, laid over their slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.layers import AXES, MICROMETRE
from napari_her2._napari.overlays import make_layer
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, OverlayRole, OverlayTag, tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2._napari.layers import LayerData
    from napari_her2.inference.result import SlideResult

ROLE: OverlayRole = "seen"


def seen_layer(result: SlideResult, number: int) -> LayerData:
    """One of the images that the model looked at, exactly over the slide.

    Parameters
    ----------
    result : SlideResult
    number : int
        Of the image, from 0.
    """
    thumbnail = result.thumbnails[number]
    mpp = np.asarray(result.grid.slide_mpp)
    pixel, origin = np.asarray(thumbnail.pixel_px0), np.asarray(thumbnail.origin_px0)
    of = f" ({number + 1} of {len(result.thumbnails)})" if len(result.thumbnails) > 1 else ""
    options = {
        "name": one_line(f"what the model saw{of} · {result.slide}"),
        "rgb": True,
        "interpolation2d": "nearest",
        # The centre of a pixel lies half a pixel, less half a slide pixel, from its corner.
        "scale": pixel * mpp,
        "translate": (origin + (pixel - 1) / 2) * mpp,
        "units": MICROMETRE,
        "axis_labels": AXES,
        "blending": "translucent",
        "metadata": {METADATA_KEY: OverlayTag(ROLE, result.slide_id)},
    }
    return thumbnail.rgb, options, "image"


def show_seen(viewer: ViewerModel, slide_layer: Image, result: SlideResult, number: int) -> Layer:
    """Lay an image over its slide, below the maps, in place of another one.

    Parameters
    ----------
    viewer : ViewerModel
    slide_layer : Image
    result : SlideResult
    number : int
        Of the image, from 0.
    """
    remove_seen(viewer, result.slide_id)
    layer = make_layer(seen_layer(result, number), slide_layer)
    active = viewer.layers.selection.active
    viewer.layers.insert(viewer.layers.index(slide_layer) + 1, layer)
    # The values under the cursor stay those of the result.
    viewer.layers.selection.active = active
    return layer


def seen_of(viewer: ViewerModel, slide_id: str) -> Layer | None:
    """Return the image that lies over a slide, None where none does."""
    for layer in viewer.layers:
        if tag_of(layer) == OverlayTag(ROLE, slide_id):
            return layer
    return None


def remove_seen(viewer: ViewerModel, slide_id: str) -> None:
    """Take the image off a slide."""
    layer = seen_of(viewer, slide_id)
    if layer is not None:
        viewer.layers.remove(layer)
