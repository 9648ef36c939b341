"""Work on slides is kept while it is done, and brought back when a slide is opened again.

What changes is noted here and handed out as parcels, which a thread writes; what was kept comes as findings
of a thread, and is shown step by step. Threads and timers are those of whoever drives it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_her2._napari.bringing_back import brought
from napari_her2._napari.kept_layers import own_region_layers, shapes_of, view_of
from napari_her2._napari.kept_work import Parcel, write_now
from napari_her2._napari.tags import OverlayTag, RegionTag, SlideTag, slide_tag, tag_of
from napari_her2.desk.kept_slide import KeptLook, KeptSlide, now, time_in_words
from napari_her2.desk.own_score import ManualScore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_her2._napari.kept_work import Found
    from napari_her2._napari.session import Session
    from napari_her2.desk.kept_shapes import KeptShape
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

_UNDER_WAY = ("adding", "changing", "removing")
_NOTHING = KeptSlide("")


@dataclass(slots=True, eq=False)
class _OpenSlide:
    """What is known of the work on an open slide.

    ``kept`` and ``results`` are as they are on the desk, but for the fields in ``unsaved``. ``removed`` are
    the regions before layers of them were taken out of the viewer just now: were they deleted, or is all
    being closed?
    """

    camera: tuple[float, ...]
    sought: bool = False
    kept: KeptSlide = _NOTHING
    results: dict[str, SlideResult] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    regions_changed: bool = False
    removed: tuple[KeptShape, ...] | None = None
    note: str = ""
    problems: tuple[str, ...] = ()
    size: int = 0


class Keeping:
    """Keeps the work of a session; made by `keeping_of`.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    changed : Signal()
        There may be something to be kept, or a slide to look up.
    brought_back : Signal(str)
        What was kept of a slide is shown now, or could not be.
    opacity : float
        Of maps whose own is not known.
    driven : bool
        Whether somebody takes what changed; else a slide that is closed is written at once.
    """

    changed = Signal()
    brought_back = Signal(str)

    def __init__(self, session: Session) -> None:
        self.opacity = 0.6
        self.driven = False
        self._session = session
        self._open: dict[str, _OpenSlide] = {}
        self._waiting: list[Parcel] = []  # of slides that were closed
        self._bringing = ""  # id of the slide that is being brought back at this very moment
        self._followed: weakref.WeakSet[Layer] = weakref.WeakSet()
        viewer = session.viewer
        if viewer is None:
            return
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removing.connect(self._on_removing)
        viewer.scene.camera.events.center.connect(self._on_change)
        viewer.scene.camera.events.zoom.connect(self._on_change)
        session.slides_changed.connect(self._on_slides)
        session.result_dropped.connect(self._on_dropped)
        for signal in (session.results_changed, session.manual_changed, session.look_changed):
            signal.connect(self._on_change)
        for layer in viewer.layers:
            self._follow(layer)
        self._on_slides()

    # -- what is to be written

    def take(self, *, unsought: bool = False) -> list[Parcel]:
        """Take out what changed since it was taken last; `give_back` what could not be written.

        Parameters
        ----------
        unsought : bool
            Also of slides of which nobody has looked up yet what is kept: there may be no later.
        """
        parcels, self._waiting = self._waiting, []
        for slide_id, known in self._open.items():
            known.removed = None  # whoever took a layer away and goes on meant it
            parcel = self._parcel(slide_id, known) if known.sought or unsought else None
            if parcel is not None:
                self._taken(known, parcel)
                parcels.append(parcel)
        return parcels

    def give_back(self, parcels: Sequence[Parcel]) -> None:
        """Take back parcels that were not written: they are tried again with the next change."""
        for parcel in parcels:
            known = self._open.get(parcel.slide_id)
            if known is None:
                self._waiting.append(parcel)
                continue
            known.unsaved |= set(parcel.values)
            known.dropped |= parcel.dropped
            known.regions_changed |= parcel.regions is not None
            for result in parcel.results:
                known.results.pop(result.model, None)

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """Take how many bytes are kept of slides."""
        for slide_id, size in sizes.items():
            if slide_id in self._open:
                self._open[slide_id].size = size

    # -- what was kept

    def unsought(self) -> list[Slide]:
        """Return the open slides of which nobody has looked up yet what is kept."""
        waiting = [key for key, known in self._open.items() if not known.sought]
        return [slide for key in waiting if (slide := self._session.slide_of(key)) is not None]

    def bring_back(self, found: Found) -> Iterator[None]:
        """Show what was kept of a slide, a layer or a result at each step, in the main thread.

        What was done meanwhile stays, and what was kept comes beside it.

        Parameters
        ----------
        found : Found

        Yields
        ------
        None
        """
        steps = self._steps_back(found)
        while True:
            self._bringing = found.slide_id
            try:
                next(steps)
            except StopIteration:
                return
            finally:
                self._bringing = ""
            yield

    def note(self, slide_id: str) -> str:
        """Say what was brought back of a slide; empty where nothing was."""
        known = self._open.get(slide_id)
        return "" if known is None else known.note

    def problems(self, slide_id: str) -> tuple[str, ...]:
        """Say what could not be brought back, a sentence each."""
        known = self._open.get(slide_id)
        return () if known is None else known.problems

    def work_on(self, slide_id: str) -> tuple[str, int]:
        """Return the work on a slide in words, and the bytes that are kept of it; ("", 0) without any."""
        known = self._open.get(slide_id)
        return ("", 0) if known is None else (self._work(slide_id).words(), known.size)

    def forget(self, slide_id: str) -> str:
        """Take the work on a slide out of the session: regions, results, own score and µm/px.

        Parameters
        ----------
        slide_id : str

        Returns
        -------
        str
            Fingerprint of the slide whose folder is to go; empty where nothing can have been kept.
        """
        session, viewer, known = self._session, self._session.viewer, self._open.get(slide_id)
        slide = session.slide_of(slide_id)
        if slide is None or viewer is None or known is None:
            return ""
        for layer in own_region_layers(viewer, slide_id):
            viewer.layers.remove(layer)
        for model in list(session.results_of(slide_id)):
            session.drop_result(slide_id, model)
        session.set_manual(slide_id, ManualScore())
        if session.given_scale(slide_id) is not None:
            session.give_scale(slide_id, None)
        sought = known.sought
        self._open[slide_id] = _OpenSlide(known.camera, sought=sought)
        return slide.identity.known or ""

    def _steps_back(self, found: Found) -> Iterator[None]:
        slide_id, kept = found.slide_id, found.kept
        known, viewer = self._open.get(slide_id), self._session.viewer
        if known is None or viewer is None or known.sought:
            return
        problems = list(found.problems)
        if kept is not None:
            moved = _camera(viewer) != known.camera  # whoever has moved the view meanwhile keeps it
            problems += yield from brought(self._session, found, kept, opacity=self.opacity, moved=moved)
            if slide_id not in self._open:
                return
            self._settle(slide_id, known, found, kept)
        known.sought, known.problems, known.size = True, tuple(problems), found.size
        self.brought_back.emit(slide_id)
        self.changed.emit()

    def _settle(self, slide_id: str, known: _OpenSlide, found: Found, kept: KeptSlide) -> None:
        """Note what is on the desk, so that nothing is written again that was only brought back."""
        results = self._session.results_of(slide_id)
        known.results |= {of.model: results[of.model] for of in found.results if of.model in results}
        fields = self._fields(slide_id)
        # What could not be brought back is no wish of the user.
        same = {name: fields[name] for name in ("scale", "chosen", "calibration", "look") if name in fields}
        known.kept = replace(kept, regions=(), **same)
        words = kept.words()
        known.note = f"Brought back from {time_in_words(kept.time)}: {words}." if words else ""

    # -- what changed

    def _parcel(self, slide_id: str, known: _OpenSlide, *, closing: bool = False) -> Parcel | None:
        session, viewer = self._session, self._session.viewer
        slide, layer = session.slide_of(slide_id), session.layer_of(slide_id)
        if slide is None or layer is None or viewer is None:
            return None
        now = self._fields(slide_id)
        values = {
            name: value
            for name, value in now.items()
            if name in known.unsaved or value != getattr(known.kept, name)
        }
        results = session.results_of(slide_id)
        fresh = tuple(result for model, result in results.items() if known.results.get(model) is not result)
        dropped = frozenset(known.dropped - set(results))
        regions = None
        if known.regions_changed:
            removed = known.removed if closing else None
            regions = shapes_of(viewer, layer, slide_id) if removed is None else removed
        if not (values or fresh or dropped or regions is not None):
            return None
        if not known.kept.time and not regions and not self._work(slide_id).holds_work:
            return None  # whoever only looks at a slide leaves nothing
        times = {of.model: session.scored_at(slide_id, of.model) for of in fresh}
        scored = {model: when.isoformat(timespec="seconds") for model, when in times.items() if when}
        return Parcel(slide, slide_id, values, regions, fresh, scored, dropped, sought=known.sought)

    def _fields(self, slide_id: str) -> dict[str, Any]:
        """Fields of a kept slide as they are now; those that say nothing just now are left out."""
        session, viewer = self._session, self._session.viewer
        layer, shown = session.layer_of(slide_id), session.result(slide_id)
        cells = None if shown is None else shown.slides[0].cells
        found: dict[str, Any] = {
            "scale": session.given_scale(slide_id),
            "chosen": "" if shown is None else shown.model,
            "calibration": "" if cells is None else cells.calibration,
            "own_score": session.manual(slide_id),
        }
        overlays = session.overlays(slide_id)
        if overlays is not None and overlays.whole:
            visible = {
                tag.kind: bool(of.visible)
                for of in overlays.layers()
                if isinstance(tag := tag_of(of), OverlayTag)
            }
            found["look"] = KeptLook(overlays.look.opacity, visible)
        view = None if viewer is None or layer is None else view_of(viewer, layer)
        return found if view is None else found | {"view": view}

    def _work(self, slide_id: str) -> KeptSlide:
        """Return what would be kept of a slide, as far as a person would miss it."""
        session, viewer, layer = self._session, self._session.viewer, self._session.layer_of(slide_id)
        return KeptSlide(
            "",
            scale=session.given_scale(slide_id),
            regions=() if viewer is None or layer is None else shapes_of(viewer, layer, slide_id),
            results=dict.fromkeys(session.results_of(slide_id), ""),
            own_score=session.manual(slide_id),
        )

    def _taken(self, known: _OpenSlide, parcel: Parcel) -> None:
        """Note what was handed out to be written as if it were written."""
        known.kept = replace(known.kept, time=now(), **parcel.values)
        known.results |= {result.model: result for result in parcel.results}
        known.unsaved, known.dropped, known.regions_changed = set(), set(), False

    def _follow(self, layer: Layer) -> None:
        if isinstance(tag_of(layer), RegionTag) and layer not in self._followed:
            self._followed.add(layer)
            for name in ("data", "features", "name"):
                layer.events[name].connect(self._on_regions)

    def _on_inserted(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        layer = event.value
        self._follow(layer)
        tag = tag_of(layer)
        if isinstance(tag, RegionTag) and layer.nshapes:
            self._regions_changed(tag.slide_id)

    def _on_removing(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        viewer = self._session.viewer
        if viewer is None:
            return
        layer = viewer.layers[event.index]
        tag = tag_of(layer)
        known = None if tag is None else self._open.get(tag.slide_id)
        if tag is None or known is None:
            return
        if isinstance(tag, RegionTag):
            slide_layer = self._session.layer_of(tag.slide_id)
            if known.removed is None and slide_layer is not None:
                known.removed = shapes_of(viewer, slide_layer, tag.slide_id)
            self._regions_changed(tag.slide_id)
        elif isinstance(tag, SlideTag):
            parcel = self._parcel(tag.slide_id, known, closing=True)
            del self._open[tag.slide_id]
            if parcel is not None and self.driven:
                self._waiting.append(parcel)
                self.changed.emit()
            elif parcel is not None:
                write_now([parcel])

    def _on_regions(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        # While a shape is being drawn napari has it in its data already.
        action = str(getattr(event, "action", "")).lower().rsplit(".", 1)[-1]
        tag = tag_of(event.source)
        if isinstance(tag, RegionTag) and action not in _UNDER_WAY:
            self._regions_changed(tag.slide_id)

    def _regions_changed(self, slide_id: str) -> None:
        known = self._open.get(slide_id)
        if known is not None and slide_id != self._bringing:
            known.regions_changed = True
            self.changed.emit()

    def _on_dropped(self, slide_id: str, model: str) -> None:
        known = self._open.get(slide_id)
        if known is not None:
            known.dropped.add(model)
            known.results.pop(model, None)
            self.changed.emit()

    def _on_slides(self) -> None:
        viewer = self._session.viewer
        tags = [tag for layer in self._session.slide_layers() if (tag := slide_tag(layer)) is not None]
        for tag in tags:
            if tag.slide_id not in self._open and viewer is not None:
                self._open[tag.slide_id] = _OpenSlide(_camera(viewer))
        self.changed.emit()

    def _on_change(self, *_: object) -> None:
        self.changed.emit()


def keeping_of(session: Session) -> Keeping | None:
    """Return what keeps the work of a session, made at first use; None where its viewer is gone."""
    viewer = session.viewer
    if viewer is None:
        return None
    key = id(viewer)
    if key not in _KEEPINGS:
        _KEEPINGS[key] = Keeping(session)
        weakref.finalize(viewer, _KEEPINGS.pop, key, None)
    return _KEEPINGS[key]


_KEEPINGS: dict[int, Keeping] = {}


def _camera(viewer: ViewerModel) -> tuple[float, ...]:
    camera = viewer.scene.camera
    return (*(float(value) for value in camera.center), float(camera.zoom))
