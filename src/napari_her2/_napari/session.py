"""What the docks of one viewer share: open slides, their results, the pathologist's own scores."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_her2._napari.pairing import Pairing
from napari_her2._napari.placement import companions, layer_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.scale_bar import is_measured
from napari_her2._napari.shown_results import Changed, ShownResults
from napari_her2._napari.slide_layers import SlideLayers
from napari_her2._napari.tags import METADATA_KEY, RegionTag, SlideTag, blinded_tag, slide_tag, tag_of
from napari_her2.desk.own_score import ManualScore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2._napari.demands import Demands
    from napari_her2._napari.layers import OverlayLook
    from napari_her2._napari.overlays import OverlaySet
    from napari_her2._napari.turns import Turns
    from napari_her2.desk.kept_slide import GivenScale
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide


class Session:
    """State of one viewer; made by `session_of`, shared by all docks.

    Slides are owned by their layers, layers by the viewer: the session holds the viewer weakly and
    results by the id of the slide, so that closing a layer closes its file. A slide keeps the results of
    all models, of which one is shown.

    Parameters
    ----------
    viewer : ViewerModel

    Attributes
    ----------
    result_changed : Signal(str)
        Another result of the slide is shown, or none, or the same one judged anew.
    results_changed : Signal(str)
        Any result of the slide was added, judged anew, chosen or dropped.
    result_dropped : Signal(str, str)
        The result of a model, by its name, was dropped on purpose, not for want of memory.
    result_followed : Signal(str)
        The result of the slide is that of regions which are being drawn: its maps change in place, and soon
        again.
    """

    slides_changed = Signal()
    result_changed = Signal(str)
    results_changed = Signal(str)
    result_dropped = Signal(str, str)
    result_followed = Signal(str)
    look_changed = Signal(str)
    manual_changed = Signal(str)
    pairing_changed = Signal()
    models_changed = Signal()  # one was installed from another dock
    demands_changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._shown = ShownResults(viewer)
        self._shown.whole = self.look_changed.emit
        self.look_changed.connect(self._on_status)  # a mouse that rests sees the values at once
        self._manual: dict[str, ManualScore] = {}
        self._scales: dict[str, GivenScale] = {}
        self._demands: Demands | None = None
        self._pairing: Pairing | None = None
        self._layers = SlideLayers(viewer)
        self._layers.changed.connect(self._on_layers)
        self._layers.settled.connect(self.slides_changed.emit)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)
        # Behind napari's own listener, which else would show what it was called with.
        viewer.events.status.connect(self._on_status, position="last")

    def use_turns(self, turns: Turns) -> None:
        """Put overlays in as a window can bear it: one a turn of its event loop, and not all at once."""
        self._shown.turns = turns

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer, None once it is gone."""
        return self._viewer()

    def slide_layers(self) -> list[Image]:
        """Layers of our slides, the topmost last."""
        return self._layers.all()

    def layer_of(self, slide_id: str) -> Image | None:
        """Return the layer of a slide, None once it was removed."""
        return layer_of(self.viewer, slide_id)

    @property
    def blinded(self) -> bool:
        """Whether a slide is shown whose name and results its reader must not know yet."""
        viewer = self.viewer
        return viewer is not None and any(blinded_tag(layer) is not None for layer in viewer.layers)

    def reveal(self, layer: Image) -> None:
        """Make a slide that was blinded a slide like any other, under its own name."""
        tag = blinded_tag(layer)
        if tag is not None:
            layer.metadata = {**layer.metadata, METADATA_KEY: SlideTag(tag.slide, tag.slide_id)}
            layer.name = one_line(tag.slide.name)
            self._layers.follow()

    def slide_of(self, slide_id: str) -> Slide | None:
        """Return an open slide, None once its layer was removed."""
        layer = self.layer_of(slide_id)
        tag = slide_tag(layer) if layer is not None else None
        return None if tag is None else tag.slide

    def give_scale(self, slide_id: str, scale: GivenScale | None) -> None:
        """Take µm/px from the user for a slide, and rescale its layer.

        What was computed with another value goes: results and maps of the slide, and of its case.

        Parameters
        ----------
        slide_id : str
        scale : GivenScale or None
            None for what the file states.

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
        path = tag.slide.path
        slide = open_slide(path) if scale is None else open_slide(path, mpp=scale.mpp, mpp_source=scale.words)
        self._forget(slide_id)
        if scale is None:
            self._scales.pop(slide_id, None)
        else:
            self._scales[slide_id] = scale
        self._layers.show_instead(layer, slide)
        self.slides_changed.emit()

    def given_scale(self, slide_id: str) -> GivenScale | None:
        """Return the µm/px that the user gave for a slide, with their source; None where nobody did."""
        return self._scales.get(slide_id)

    def _forget(self, slide_id: str) -> None:
        """Drop what was computed of a slide, and of the cases that it belongs to."""
        viewer = self.viewer
        if viewer is None:
            return
        if self._pairing is not None and slide_id in self._pairing.ids:
            self.unpair()  # its alignment is in µm
        # What is shown goes last: nothing takes its place.
        is_shown = partial(self._shown.kept.is_chosen, slide_id)
        for model in sorted(self.results_of(slide_id), key=is_shown):
            self.drop_result(slide_id, model)
        for layer in companions(viewer, slide_id):
            if not isinstance(tag_of(layer), RegionTag) and layer in viewer.layers:
                viewer.layers.remove(layer)

    def result(self, slide_id: str) -> SlideResult | None:
        """Return the result of a slide that is shown, whole: to be written or judged, not to be shown."""
        return self._shown.kept.chosen(slide_id)

    def shown(self, slide_id: str) -> SlideResult | None:
        """Return what may be seen of the result of a slide that is shown; see `without_answer`."""
        return self._shown.result(slide_id)

    def results_of(self, slide_id: str) -> Mapping[str, SlideResult]:
        """Results of a slide by the name of the model, whole, the first one that was made first."""
        return self._shown.kept.of(slide_id)

    def scored_at(self, slide_id: str, model: str) -> datetime | None:
        """Return when a model scored a slide, with the time zone; None where it did not."""
        kept = self._shown.kept.kept(slide_id, model)
        return None if kept is None else kept.when

    @property
    def results(self) -> list[SlideResult]:
        """Results of all slides and models, each once, whole."""
        return self._shown.kept.each()

    def set_result(self, result: SlideResult, look: OverlayLook, *, when: datetime | None = None) -> None:
        """Keep a result for each of its slides and show it over them; those of other models stay kept.

        Parameters
        ----------
        result : SlideResult
            Of one slide, or of the two slides of a case; slides that were closed meanwhile are left out.
        look : OverlayLook
        when : datetime, optional
            When the slides were scored, with a time zone; by default now.
        """
        self._announce(self._shown.add(result, look, when=when))

    def add_result(self, result: SlideResult, *, when: datetime | None = None) -> None:
        """Keep a result beside the one that is shown, for `choose_result`; one of its model gives way.

        Parameters
        ----------
        result : SlideResult
            Where its model is the one that is shown, it takes the place of what is shown.
        when : datetime, optional
            As for `set_result`.
        """
        self._announce(self._shown.add(result, when=when))

    def choose_result(self, slide_id: str, model: str) -> None:
        """Show the result of another model over a slide, and over the other slide that it was made of.

        Parameters
        ----------
        slide_id : str
        model : str
            Name of a model in `results_of`; of another one nothing happens.
        """
        self._announce(self._shown.choose(slide_id, model))

    def drop_result(self, slide_id: str, model: str) -> None:
        """Forget the result of a model, for all slides that it was made of; another one takes its place."""
        had = {known for known in self._shown.kept.slide_ids if model in self.results_of(known)}
        changed = self._shown.drop(slide_id, model)
        for known in had:
            if model not in self.results_of(known):
                self.result_dropped.emit(known, model)
        self._announce(changed)

    def refresh_result(self, result: SlideResult) -> None:
        """Keep the result of slides that were judged anew, and change their overlays in place if it is shown.

        Parameters
        ----------
        result : SlideResult
            Of slides that have one of the model; those that were closed, or never scored, are left out.
        """
        self._announce(self._shown.refresh(result))

    def follow_result(self, result: SlideResult, *, drawing: bool) -> None:
        """Keep and show the answer for regions.

        Parameters
        ----------
        result : SlideResult
            Of slides that have one of the model.
        drawing : bool
            Whether they are being drawn, and a newer answer is about to come.
        """
        changed = self._shown.follow(result, drawing=drawing)
        if not drawing:
            self._announce(changed)
            return
        for slide_id in changed.shown:
            self.result_followed.emit(slide_id)

    def _announce(self, changed: Changed) -> None:
        self._show_pairing()
        for slide_id in changed.shown:
            self.result_changed.emit(slide_id)
        for slide_id in changed.kept:
            self.results_changed.emit(slide_id)
        self._on_status()  # a mouse that rests sees the values at once

    def overlay_sets(self, result: SlideResult) -> list[OverlaySet]:
        """Overlays of all slides of a result, as it is `shown`, that were not scored anew since."""
        return self._shown.sets_of(result)

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
        if viewer is None or he is None or ihc is None or he is ihc:
            return None
        if not (is_measured(he) and is_measured(ihc)):
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
        self._shown.set_fade(pairing.ids[1], 1.0)
        self.pairing_changed.emit()

    def overlays(self, slide_id: str) -> OverlaySet | None:
        """Return the overlays of a slide."""
        return self._shown.overlays(slide_id)

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

    def _on_layers(self, open_ids: set[str]) -> None:
        self._shown.close_all_but(open_ids)
        if self._pairing is not None and self._pairing.layers is None:
            self.unpair()

    def _on_zoom(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        self._shown.follow_zoom()

    def _on_status(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        self._shown.show_status()

    def _show_pairing(self) -> None:
        """Fade the IHC slide and its overlays as the pairing says."""
        pairing = self._pairing
        layers = None if pairing is None else pairing.layers
        if pairing is None or layers is None:
            return
        layers[1].opacity = pairing.shown
        self._shown.set_fade(pairing.ids[1], pairing.maps_shown)


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
