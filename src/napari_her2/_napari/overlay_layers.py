"""One overlay as a layer of the viewer: made, put in, found, changed in place, taken out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.layers import Over, OverlayLook, common_options, draw
from napari_her2._napari.placement import place_of
from napari_her2._napari.tags import OverlayTag, tag_of
from napari_her2.explain.overlays import LastingDrawing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2._napari.layers import LayerData
    from napari_her2.explain.overlays import Drawing, OverlayInfo


def make_layer(data: LayerData, slide_layer: Image, *, with_bar: bool = True) -> Layer:
    """Make a layer of our layer data, moved as its slide is, with what napari takes only afterwards.

    Parameters
    ----------
    data : LayerData
    slide_layer : Image
    with_bar : bool
        Whether the bar of colours of one that has one is shown now.

    Returns
    -------
    Layer
    """
    from napari.layers import Layer

    values, options, kind = data
    # The place on the slide is the layer's own; where the slide lies comes on top.
    layer = Layer.create(values, {**options, "affine": place_of(slide_layer)}, kind)
    info = info_of(layer)
    if with_bar and info is not None and info.colour_bar and kind == "image":
        layer.colorbar.visible = True
    if kind in ("labels", "shapes", "points"):
        # A result is not painted over by accident. napari makes layers editable again when it puts them
        # in, when their data change, and when it comes back from three dimensions.
        layer.editable = False
        layer.events.editable.connect(_lock)
    return layer


def _lock(event: Any) -> None:  # noqa: ANN401 - a napari event
    event.source.editable = False


def redraw(layer: Layer, drawing: Drawing, over: Over, look: OverlayLook) -> None:
    """Change what differs: napari takes ten milliseconds and more for each thing that it is given.

    Parameters
    ----------
    layer : Layer
        That shows an overlay.
    drawing : Drawing
        What it is to show of it.
    over : Over
    look : OverlayLook
    """
    before = info_of(layer)
    if isinstance(drawing, LastingDrawing):
        drawing.refreshed(layer, over.mpp)
        options = common_options(drawing, over)
    else:
        values, options, kind = draw(drawing, over, look)
        if not _same(layer.data, values):
            layer.data = (values, options["shape_type"]) if kind == "shapes" else values
        if "features" in options:
            layer.features = options["features"]
    for place in ("scale", "translate"):  # of a smoother map, in place of one of tiles, or back
        if place in options and not np.allclose(getattr(layer, place), options[place]):
            setattr(layer, place, options[place])
    if drawing.info.is_map:
        colours = drawing.info.colours, drawing.info.categories
        if before is None or (before.colours, before.categories) != colours:
            layer.colormap = options["colormap"]
        if tuple(layer.contrast_limits) != tuple(options["contrast_limits"]):
            layer.contrast_limits_range = options["contrast_limits"]
            layer.contrast_limits = options["contrast_limits"]
    if layer.name != options["name"]:
        layer.name = options["name"]
    layer.metadata = {**layer.metadata, **options["metadata"]}


def _same(shown: Any, values: Any) -> bool:  # noqa: ANN401 - whatever layers hold
    """Whether two arrays hold the same."""
    if not (isinstance(shown, np.ndarray) and isinstance(values, np.ndarray) and shown.shape == values.shape):
        return False
    return np.array_equal(shown, values, equal_nan=values.dtype.kind == "f")


def info_of(layer: Layer) -> OverlayInfo | None:
    """Return what the overlay of a layer is called, means and looks like; None of another layer."""
    tag = tag_of(layer)
    return tag.info if isinstance(tag, OverlayTag) else None


@contextmanager
def active_kept(viewer: ViewerModel, otherwise: Layer | None) -> Iterator[None]:
    """Leave the active layer active while overlays are put in, which napari would make so one by one.

    A map that is replaced hands over to the new one. What can be drawn or painted in does not stay active:
    the status bar would tell the keys for that, and the next click, meant for a tile, would draw.

    Parameters
    ----------
    viewer : ViewerModel
    otherwise : Layer or None
        Is made active instead.
    """
    selection = viewer.layers.selection
    active = selection.active
    tag = tag_of(active) if active is not None else None
    yield
    if isinstance(tag, OverlayTag) and active not in viewer.layers:
        active = next((layer for layer in viewer.layers if tag_of(layer) == tag), None)
    is_picture = active in viewer.layers and type(active).__name__ == "Image"
    selection.active = active if is_picture else otherwise


def overlays_of(viewer: ViewerModel, slide_id: str) -> list[Layer]:
    """Overlays of one slide in the viewer, lowest first."""
    found = []
    for layer in viewer.layers:
        tag = tag_of(layer)
        if isinstance(tag, OverlayTag) and tag.slide_id == slide_id:
            found.append(layer)
    return found


def overlaid_slides(viewer: ViewerModel) -> set[str]:
    """Ids of the slides that overlays in the viewer belong to."""
    tags = [tag_of(layer) for layer in viewer.layers]
    return {tag.slide_id for tag in tags if isinstance(tag, OverlayTag)}


def remove_overlays(viewer: ViewerModel, slide_id: str) -> None:
    """Take all overlays of one slide out of the viewer."""
    take_out(viewer, *overlays_of(viewer, slide_id))
