"""The small images that a model saw of a slide, laid over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._napari.collecting import take_out
from napari_her2._napari.layers import Over, OverlayLook, draw
from napari_her2._napari.overlay_layers import make_layer
from napari_her2._napari.tags import shows
from napari_her2.explain.geometries import SEEN

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2._napari.layers import LayerData
    from napari_her2.inference.result import SlideResult


def seen_layer(result: SlideResult, number: int) -> LayerData:
    """One of the images that the model saw, exactly over the slide.

    Parameters
    ----------
    result : SlideResult
    number : int
        Of the image, from 0.
    """
    overlay = next(overlay for overlay in result.overlays if overlay.kind == SEEN.kind)
    return draw(overlay.drawings[number], Over.slide_of(result), OverlayLook())


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
    return next((layer for layer in viewer.layers if shows(layer, SEEN.kind, slide_id)), None)


def remove_seen(viewer: ViewerModel, slide_id: str) -> None:
    """Take the image off a slide."""
    take_out(viewer, seen_of(viewer, slide_id))
