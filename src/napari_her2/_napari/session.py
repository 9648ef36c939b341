"""What the docks of one viewer share: open slides, their results, the pathologist's own scores."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_her2._napari.layers import MICROMETRE, OverlayLook, slide_layer
from napari_her2._napari.manual import ManualScore
from napari_her2._napari.overlays import OverlaySet, remove_overlays
from napari_her2._napari.tags import METADATA_KEY, SlideTag, slide_tag

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.tissue import TissueMask


class Session:
    """State of one viewer; made by `session_of`, shared by all docks.

    Slides are owned by their layers, layers by the viewer: the session holds the viewer weakly and
    results by the id of the slide, so that closing a layer closes its file.

    Parameters
    ----------
    viewer : ViewerModel
    """

    slides_changed = Signal()
    result_changed = Signal(str)
    manual_changed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._results: dict[str, SlideResult] = {}
        self._overlays: dict[str, OverlaySet] = {}
        self._manual: dict[str, ManualScore] = {}
        viewer.layers.events.inserted.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_layers)
        viewer.layers.events.reordered.connect(self._on_layers)

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer, None once it is gone."""
        return self._viewer()

    def slide_layers(self) -> list[Image]:
        """Layers of our slides, the topmost last."""
        viewer = self.viewer
        return [] if viewer is None else [layer for layer in viewer.layers if slide_tag(layer) is not None]

    def layer_of(self, slide_id: str) -> Image | None:
        """Return the layer of a slide, None once it was removed."""
        for layer in self.slide_layers():
            tag = slide_tag(layer)
            if tag is not None and tag.slide_id == slide_id:
                return layer
        return None

    def give_mpp(self, slide_id: str, mpp: float) -> None:
        """Take µm/px from the user for a slide that does not state it, and rescale its layer.

        Parameters
        ----------
        slide_id : str
        mpp : float
            µm per level-0 pixel, the same for both axes.

        Raises
        ------
        SlideError
            If the value cannot be right, or the file is gone.
        """
        from napari_her2.slide.reader import open_slide

        layer = self.layer_of(slide_id)
        tag = slide_tag(layer) if layer is not None else None
        if layer is None or tag is None:
            return
        slide = open_slide(tag.slide.path, mpp=mpp)
        data, options, _ = slide_layer(slide)
        layer.data = data
        layer.metadata = {**layer.metadata, METADATA_KEY: SlideTag(slide, tag.slide_id)}
        layer.units = MICROMETRE
        layer.scale = options["scale"]
        self.slides_changed.emit()

    def result(self, slide_id: str) -> SlideResult | None:
        """Return the last result of a slide."""
        return self._results.get(slide_id)

    def set_result(self, result: SlideResult, look: OverlayLook, tissue: TissueMask | None = None) -> None:
        """Keep a result and show it over its slide, in place of the one before.

        Parameters
        ----------
        result : SlideResult
        look : OverlayLook
        tissue : TissueMask or None
        """
        slide_id = result.slide_sha256_head
        viewer, layer = self.viewer, self.layer_of(slide_id)
        if viewer is None or layer is None:
            return  # the slide was closed while it was scored
        self._results[slide_id] = result
        self._overlays[slide_id] = OverlaySet(viewer, layer, result, look, tissue)
        self.result_changed.emit(slide_id)

    def overlays(self, slide_id: str) -> OverlaySet | None:
        """Return the overlays of a slide."""
        return self._overlays.get(slide_id)

    def manual(self, slide_id: str) -> ManualScore:
        """Return the pathologist's score of a slide."""
        return self._manual.get(slide_id, ManualScore())

    def set_manual(self, slide_id: str, manual: ManualScore) -> None:
        """Keep the pathologist's score of a slide."""
        if manual != self.manual(slide_id):
            self._manual[slide_id] = manual
            self.manual_changed.emit(slide_id)

    def _on_layers(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        viewer = self.viewer
        if viewer is None:
            return
        open_ids = {tag.slide_id for layer in self.slide_layers() if (tag := slide_tag(layer)) is not None}
        for slide_id in [known for known in self._overlays if known not in open_ids]:
            # Dropped first: removing the layers comes back here.
            del self._overlays[slide_id]
            self._results.pop(slide_id, None)
            remove_overlays(viewer, slide_id)
        self.slides_changed.emit()


def session_of(viewer: ViewerModel) -> Session:
    """Return the session of a viewer, made at first use.

    Parameters
    ----------
    viewer : ViewerModel
        Or the proxy that napari hands to plugins.

    Returns
    -------
    Session
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    # By identity: viewers compare by value, which is slow and not what is asked here.
    key = id(viewer)
    if key not in _SESSIONS:
        _SESSIONS[key] = Session(viewer)
        weakref.finalize(viewer, _SESSIONS.pop, key, None)
    return _SESSIONS[key]


_SESSIONS: dict[int, Session] = {}
