"""What the docks of one viewer share: open slides, their results, the pathologist's own scores."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_her2._napari.cell_hover import cell_words
from napari_her2._napari.hover import show_values
from napari_her2._napari.layers import MICROMETRE, OverlayLook, slide_layer
from napari_her2._napari.overlays import OverlaySet, active_kept, overlaid_slides, remove_overlays
from napari_her2._napari.pairing import Pairing
from napari_her2._napari.placement import MOVING_EVENTS, companions, follow
from napari_her2._napari.scale_bar import is_measured, show_scale_bar
from napari_her2._napari.tags import METADATA_KEY, RegionTag, SlideTag, slide_tag, tag_of
from napari_her2.desk.own_score import ManualScore
from napari_her2.explain.geometries import TILES
from napari_her2.inference.withheld import without_answer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2._napari.demands import Demands
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide


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
    look_changed = Signal(str)
    manual_changed = Signal(str)
    pairing_changed = Signal()
    models_changed = Signal()  # one was installed from another dock
    demands_changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._results: dict[str, SlideResult] = {}
        self._overlays: dict[str, OverlaySet] = {}
        self._manual: dict[str, ManualScore] = {}
        self._demands: Demands | None = None
        self._followed: weakref.WeakSet[Image] = weakref.WeakSet()
        self._pairing: Pairing | None = None
        self._follow(self.slide_layers())
        viewer.layers.events.inserted.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_layers)
        viewer.layers.events.reordered.connect(self._on_layers)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)
        # Behind napari's own listener, which else would show what it was called with.
        viewer.events.status.connect(self._on_status, position="last")

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

    def slide_of(self, slide_id: str) -> Slide | None:
        """Return an open slide, None once its layer was removed."""
        layer = self.layer_of(slide_id)
        tag = slide_tag(layer) if layer is not None else None
        return None if tag is None else tag.slide

    def give_mpp(self, slide_id: str, mpp: float) -> None:
        """Take µm/px from the user for a slide that does not state it, and rescale its layer.

        What was computed with another value goes: results and maps of the slide, and of its case.

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
        self._forget(slide_id)
        data, options, _ = slide_layer(slide)
        layer.data = data
        layer.metadata = {**layer.metadata, METADATA_KEY: SlideTag(slide, slide.slide_id)}
        for shown in (layer, *self._regions_of(slide_id)):
            shown.units = MICROMETRE
            shown.scale = options["scale"]
        viewer = self.viewer
        if viewer is not None:
            show_scale_bar(viewer)
        self.slides_changed.emit()

    def _regions_of(self, slide_id: str) -> list[Layer]:
        """Layers that were drawn on the pixels of a slide."""
        viewer = self.viewer
        over = [] if viewer is None else companions(viewer, slide_id)
        return [layer for layer in over if isinstance(tag_of(layer), RegionTag)]

    def _forget(self, slide_id: str) -> None:
        """Drop what was computed of a slide, and of the case that it belongs to."""
        result, viewer = self._results.get(slide_id), self.viewer
        if viewer is None:
            return
        of_case = [slide_id] if result is None else [slide.slide_id for slide in result.slides]
        if self._pairing is not None and slide_id in self._pairing.ids:
            self.unpair()  # its alignment is in µm
        for known in of_case:
            self._results.pop(known, None)
            self._overlays.pop(known, None)
        for layer in companions(viewer, slide_id):
            if not isinstance(tag_of(layer), RegionTag) and layer in viewer.layers:
                viewer.layers.remove(layer)
        for known in of_case:
            remove_overlays(viewer, known)
            self.result_changed.emit(known)

    def result(self, slide_id: str) -> SlideResult | None:
        """Return the last result of a slide, whole: to be written or judged anew, not to be shown."""
        return self._results.get(slide_id)

    def shown(self, slide_id: str) -> SlideResult | None:
        """Return what may be seen of the last result of a slide; see `without_answer`."""
        overlays = self._overlays.get(slide_id)
        return None if overlays is None else overlays.result

    @property
    def results(self) -> list[SlideResult]:
        """Results of all slides, each once, whole."""
        found: dict[str, SlideResult] = {}
        for slide_id, result in self._results.items():
            if not any(scored.slide_id in found for scored in result.slides):
                found[slide_id] = result
        return list(found.values())

    def set_result(self, result: SlideResult, look: OverlayLook) -> None:
        """Keep a result for each of its slides and show it over them, in place of the one before.

        Parameters
        ----------
        result : SlideResult
            Of one slide, or of the two slides of a case; slides that were closed meanwhile are left out.
        look : OverlayLook
        """
        viewer = self.viewer
        if viewer is None:
            return
        scored, seen = [slide.slide_id for slide in result.slides], without_answer(result)
        shown = [(slide_id, layer) for slide_id in scored if (layer := self.layer_of(slide_id)) is not None]
        with active_kept(viewer, shown[0][1] if shown else None):
            for slide_id, layer in shown:
                self._results[slide_id] = result.seen_from(slide_id)
                own, leading = seen.seen_from(slide_id), slide_id == scored[0]
                self._overlays[slide_id] = OverlaySet(viewer, layer, own, look, leading=leading)
        self._show_pairing()
        for slide_id in scored:
            if slide_id in self._results:
                self.result_changed.emit(slide_id)

    def refresh_result(self, result: SlideResult) -> None:
        """Keep the result of slides that were judged anew, and change their overlays in place.

        Where an answer is withheld now, or shown anyway, there are fewer or more overlays than before: then
        they are made anew, and what was visible of them stays so.

        Parameters
        ----------
        result : SlideResult
            Of slides that have one; those that were closed, or never scored, are left out.
        """
        refreshed = [slide.slide_id for slide in result.slides if slide.slide_id in self._overlays]
        seen = without_answer(result)
        for slide_id in refreshed:
            self._results[slide_id] = result.seen_from(slide_id)
            self._refresh_overlays(slide_id, seen.seen_from(slide_id))
        self._show_pairing()
        for slide_id in refreshed:
            self.result_changed.emit(slide_id)

    def _refresh_overlays(self, slide_id: str, own: SlideResult) -> None:
        shown, viewer, layer = self._overlays[slide_id], self.viewer, self.layer_of(slide_id)
        if viewer is None or layer is None:
            return
        if shown.overlays.keys() == {overlay.kind for overlay in own.overlays}:
            shown.refresh(own)
            return
        with active_kept(viewer, layer):
            self._overlays[slide_id] = shown.made_anew(viewer, layer, own)

    def overlay_sets(self, result: SlideResult) -> list[OverlaySet]:
        """Overlays of all slides of a result, as it is `shown`, that were not scored anew since."""
        sets = [self._overlays.get(slide.slide_id) for slide in result.slides]
        return [shown for shown in sets if shown is not None and shown.result.slides[0] in result.slides]

    @property
    def pairing(self) -> Pairing | None:
        """How the two slides of a case are shown; None where no pair is chosen."""
        return self._pairing

    def pair(self, he_id: str, ihc_id: str) -> Pairing | None:
        """Show two open slides as a pair, aligned as they were the last time.

        Parameters
        ----------
        he_id, ihc_id : str
            The first slide stays, the second one moves.

        Returns
        -------
        Pairing or None
            None where a slide is not open or does not state its µm/px.
        """
        known = self._pairing
        if known is not None and known.ids == (he_id, ihc_id):
            return known
        self.unpair()
        viewer, he, ihc = self.viewer, self.layer_of(he_id), self.layer_of(ihc_id)
        if viewer is None or he is None or ihc is None or he is ihc or not self._measured(he, ihc):
            return None
        self._pairing = Pairing(viewer, he, ihc, (he_id, ihc_id))
        self._pairing.changed.connect(self._show_pairing)
        self._show_pairing()
        self.pairing_changed.emit()
        return self._pairing

    def unpair(self) -> None:
        """Show the slides each for itself; they stay where they are."""
        pairing, self._pairing = self._pairing, None
        if pairing is None:
            return
        pairing.changed.disconnect(self._show_pairing, missing_ok=True)
        pairing.release()
        moved = self._overlays.get(pairing.ids[1])
        if moved is not None:
            moved.set_fade(1.0)
        self.pairing_changed.emit()

    def overlays(self, slide_id: str) -> OverlaySet | None:
        """Return the overlays of a slide."""
        return self._overlays.get(slide_id)

    @property
    def demands(self) -> Demands | None:
        """What the user demands of an answer; None as long as nobody changed what the settings say."""
        return self._demands

    @demands.setter
    def demands(self, demands: Demands) -> None:
        if demands != self._demands:
            self._demands = demands
            self.demands_changed.emit()

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
        if not viewer.layers.selection:
            viewer.layers.selection.clear()  # napari keeps the last one that was selected, and its file open
        layers = self.slide_layers()
        open_ids = {tag.slide_id for layer in layers if (tag := slide_tag(layer)) is not None}
        for slide_id in [known for known in self._overlays if known not in open_ids]:
            # Dropped first: removing the layers comes back here.
            del self._overlays[slide_id]
            self._results.pop(slide_id, None)
            remove_overlays(viewer, slide_id)
        # Grad-CAM may lie over a slide that was never scored.
        for slide_id in overlaid_slides(viewer) - open_ids:
            remove_overlays(viewer, slide_id)
        had_measured = any(is_measured(layer) for layer in self._followed)
        self._follow(layers)
        if not had_measured and any(is_measured(layer) for layer in layers):
            show_scale_bar(viewer)  # once: then it is the user's own choice
        if self._pairing is not None and self._pairing.layers is None:
            self.unpair()
        self.slides_changed.emit()

    def _follow(self, layers: list[Image]) -> None:
        for layer in layers:
            if layer not in self._followed:
                self._followed.add(layer)
                for name in MOVING_EVENTS:
                    layer.events[name].connect(self._on_moved)

    def _on_moved(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        viewer = self.viewer
        if viewer is not None:
            follow(viewer, event.source)

    def _on_zoom(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        for shown in self._overlays.values():
            shown.follow_zoom()

    def _on_status(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        viewer = self.viewer
        if viewer is not None and self._overlays:
            tiles = {slide_id: shown.layer(TILES.kind) for slide_id, shown in self._overlays.items()}
            show_values(viewer, tiles, self._cell_words)

    def _cell_words(self, slide_id: str) -> str:
        viewer, shown = self.viewer, self._overlays.get(slide_id)
        return "" if viewer is None or shown is None else cell_words(viewer, shown, self.layer_of(slide_id))

    def _show_pairing(self) -> None:
        """Fade the IHC slide and its overlays as the pairing says."""
        pairing = self._pairing
        layers = None if pairing is None else pairing.layers
        if pairing is None or layers is None:
            return
        layers[1].opacity = pairing.shown
        moved = self._overlays.get(pairing.ids[1])
        if moved is not None:
            moved.set_fade(pairing.shown)

    @staticmethod
    def _measured(*layers: Image) -> bool:
        tags = [slide_tag(layer) for layer in layers]
        return all(tag is not None and tag.slide.mpp is not None for tag in tags)


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
