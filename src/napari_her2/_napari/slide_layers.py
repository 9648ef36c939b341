"""Layers of our slides in a viewer: what lies over them moves with them, and changes are announced."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_her2._napari.layers import slide_layer
from napari_her2._napari.placement import MOVING_EVENTS, companions, follow
from napari_her2._napari.scale_bar import is_measured, show_scale_bar
from napari_her2._napari.tags import METADATA_KEY, RegionTag, SlideTag, slide_tag, tag_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2.slide.reader import Slide


class SlideLayers:
    """The layers of our slides, followed as they come, move and go.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.

    Attributes
    ----------
    changed : Signal(set)
        Ids of the slides that are open, after layers came or went; layers that its listeners take out are
        followed in the same round.
    settled : Signal()
        Such a round is over.
    """

    changed = Signal(set)
    settled = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._again = self._following = False
        self._followed: weakref.WeakSet[Image] = weakref.WeakSet()
        self._follow_moves(self.all())
        viewer.layers.events.inserted.connect(self.follow)
        viewer.layers.events.removed.connect(self.follow)
        viewer.layers.events.reordered.connect(self.follow)

    def all(self) -> list[Image]:
        """Return them, the topmost last."""
        viewer = self._viewer()
        return [] if viewer is None else [layer for layer in viewer.layers if slide_tag(layer) is not None]

    def follow(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        """Follow what was put in or taken out; what that takes out in turn is followed in the same call.

        A call inside a call for each overlay of a slide that is closed would be too deep for Python.
        """
        self._again = True
        if self._following or self._viewer() is None:
            return
        self._following = True
        try:
            while self._again:
                self._again = False
                self._follow_once()
        finally:
            self._following = False
        self.settled.emit()

    def show_instead(self, layer: Image, slide: Slide) -> None:
        """Show another slide in a layer: the same file, read with other µm/px.

        What was drawn on its pixels stays on them.

        Parameters
        ----------
        layer : Image
        slide : Slide
        """
        tag, viewer = slide_tag(layer), self._viewer()
        over = [] if tag is None or viewer is None else companions(viewer, tag.slide_id)
        data, options, _ = slide_layer(slide)
        layer.data = data
        layer.metadata = {**layer.metadata, METADATA_KEY: SlideTag(slide, slide.slide_id)}
        for shown in (layer, *(each for each in over if isinstance(tag_of(each), RegionTag))):
            shown.units = options["units"]
            shown.scale = options["scale"]
        if viewer is not None and slide.mpp is not None:
            show_scale_bar(viewer)

    def _follow_once(self) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        if not viewer.layers.selection:
            viewer.layers.selection.clear()  # napari keeps the last one that was selected, and its file open
        layers = self.all()
        self.changed.emit({tag.slide_id for layer in layers if (tag := slide_tag(layer)) is not None})
        had_measured = any(is_measured(layer) for layer in self._followed)
        self._follow_moves(layers)
        if not had_measured and any(is_measured(layer) for layer in layers):
            show_scale_bar(viewer)  # once: then it is the user's own choice

    def _follow_moves(self, layers: list[Image]) -> None:
        for layer in layers:
            if layer not in self._followed:
                self._followed.add(layer)
                for name in MOVING_EVENTS:
                    layer.events[name].connect(self._on_moved)

    def _on_moved(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        viewer = self._viewer()
        if viewer is not None:
            follow(viewer, event.source)


def named_slides(layers: Iterable[Image]) -> list[tuple[str, str, Slide]]:
    """Return the id and the slide of each layer of a slide, with its name in the viewer between them."""
    tagged = ((slide_tag(layer), layer.name) for layer in layers)
    return [(tag.slide_id, name, tag.slide) for tag, name in tagged if tag is not None]
