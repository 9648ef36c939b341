"""The score follows the regions while they are drawn: the newest wish wins, and no queue builds up."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_her2._napari.following import Followed, Scorings, answering, rebuilding
from napari_her2._napari.judging import demands_of
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2.errors import Her2Error, JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.scoring.drawn_regions import DrawnRegions
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

BETWEEN_MS = 100
"""At most ten answers a second."""
REST_MS = 500
"""Without a change for so long the exact answer is made."""
_PLAIN_MAPS = "For these regions maps are of tiles side by side: press Score for smoother ones."


class RegionFollower(QObject):
    """Answers again whenever the regions of the chosen layer change.

    One answer is made at a time, in a thread. What changes meanwhile is answered once that is done, and only
    as it is then. When nothing changed for a while the exact answer is made: with the look of the pixels
    inside the regions, and that of the rest of the tissue beside it.

    Parameters
    ----------
    session : Session
    regions : DrawnRegions
    settings : Settings

    Attributes
    ----------
    followed : Signal(Followed)
    noted : Signal(str)
        What keeps the score, or the smoother maps, from following, in a sentence; empty where nothing does.
    """

    followed = Signal(object)
    noted = Signal(str)

    def __init__(self, session: Session, regions: DrawnRegions, settings: Settings) -> None:
        # No child of the regions that it holds: such a circle lets Python's search for garbage free what Qt
        # still calls when the dock is destroyed.
        super().__init__()
        self._session, self._regions, self._settings = session, regions, settings
        self._scorings = Scorings()
        self._subscriptions = Subscriptions(self)
        self._wanted = self._exact = False
        self._rebuilt: SlideResult | None = None  # that came back, while what its scoring kept is made again
        self._answered: object = None  # the regions that the answer on the screen is of
        self.job = Job()
        self.job.returned.connect(self._on_answer)
        self.job.failed.connect(self._on_failed)
        self._pause = _timer(self, BETWEEN_MS, self._on_pause)
        self._rest = _timer(self, REST_MS, self._on_rest)
        regions.changed.connect(self._on_layer)

    def keep(self, kept: Sequence[KeptScoring], regions: Sequence[Region] | None) -> None:
        """Keep a scoring that was just made, of these regions: from now on it is followed."""
        self._scorings.keep(kept)
        self._answered = _apart(regions)
        if kept and regions is not None:
            self._rest.start()  # both sides of the regions

    def keep_only(self, slide_ids: Sequence[str]) -> None:
        """Let go of slides that were closed."""
        self._scorings.keep_only(slide_ids)

    def shutdown(self) -> None:
        """Let go of the layer, and answer no more."""
        self._subscriptions.end()
        self._pause.stop()
        self._rest.stop()
        self._wanted = False

    def wish(self) -> None:
        """Answer for the regions as they are now, as soon as may be."""
        self._wanted = True
        self._rest.stop()
        if not self.job.running and not self._pause.isActive():
            self._begin(exact=False)

    def _on_layer(self) -> None:
        self._subscriptions.end()
        layer = self._regions.layer
        if layer is not None:
            for signal in (layer.events.set_data, layer.events.data, layer.events.features):
                self._subscriptions.add(signal, self._on_change)
        self.wish()

    def _on_change(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        self.wish()

    def _on_pause(self) -> None:
        if self._wanted and not self.job.running:
            self._begin(exact=False)

    def _on_rest(self) -> None:
        if not self.job.running:
            self._begin(exact=True)

    @property
    def _result(self) -> SlideResult | None:
        return self._session.result(self._regions.slide_id)

    def _begin(self, *, exact: bool) -> None:
        self._wanted = False
        result = self._result
        kept = self._scorings.of(result)
        slides = () if kept is not None or result is None else self._slides_of(result)
        if result is None or (kept is None and not slides):
            self.noted.emit("")
            return
        try:
            regions = self._regions.regions()
        except JobFailed as problem:  # nothing is drawn yet, or nothing accepted
            self.noted.emit(str(problem))
            return
        except Her2Error:
            return  # the layer is gone, which is said where it is chosen
        apart = _apart(regions)
        if not exact and apart == (_asked_apart(result) if kept is None else self._answered):
            return
        demands = demands_of(self._session, self._settings)
        if kept is None:
            if lost := self._scorings.lost(result):
                self.noted.emit(lost)
                return
            self._rebuilt = result
            steps = partial(rebuilding, result, slides, regions, demands)
            exact = False
        else:
            shown_anyway = result.doubt.shown_anyway
            steps = partial(answering, kept, regions, demands, shown_anyway=shown_anyway, exact=exact)
        self._exact, self._asked = exact, apart
        self._pause.start()
        self.job.start(steps)

    def _slides_of(self, result: SlideResult) -> list[Slide]:
        """Slides of a result that came back, as it was asked; none where they are not all open."""
        asked = result.asked
        if asked is None or [of.fingerprint for of in asked.slides] != [
            of.fingerprint for of in result.slides
        ]:
            return []
        slides = [self._session.slide_of(of.slide_id) for of in result.slides]
        return [slide for slide in slides if slide is not None] if None not in slides else []

    def _on_answer(self, followed: Followed) -> None:
        exact = self._exact
        if self._wanted and exact:  # of regions that have changed meanwhile: the newer ones come first
            self._go_on()
            return
        if followed.rebuilt is not None and self._scorings.of(followed.result) is None:
            self._scorings.keep([followed.rebuilt])
        self._rebuilt = None
        self._answered = self._asked
        self.noted.emit(_PLAIN_MAPS if self._maps_are_plain(followed.result) else "")
        self._session.follow_result(followed.result, drawing=not exact)
        self.followed.emit(followed)
        if not self._go_on() and not exact:
            self._rest.start()

    def _maps_are_plain(self, result: SlideResult) -> bool:
        """Whether a scoring made smoother maps, which do not hold for the regions of an answer."""
        kept = self._scorings.of(result)
        return kept is not None and any(kept.smooth) and not any(slide.smooth for slide in result.slides)

    def _on_failed(self, failure: Failure) -> None:
        self._answered = self._asked
        if self._rebuilt is not None:
            self._scorings.lose(self._rebuilt, failure.message)
            self._rebuilt = None
        self.noted.emit(failure.message)
        self._go_on()

    def _go_on(self) -> bool:
        """Answer the newest wish, where there is one."""
        if self._wanted and not self._pause.isActive():
            self._begin(exact=False)
        return self._wanted or self.job.running


def _apart(regions: Sequence[Region] | None) -> object:
    """Return what tells regions apart, whatever they are called in the viewer."""
    return None if regions is None else tuple((of.kind, of.name, of.polygon.wkb) for of in regions)


def _asked_apart(result: SlideResult) -> object:
    """Return what tells the regions of a result apart."""
    asked = None if result.asked is None else result.asked.regions
    return None if asked is None else _apart([region.region() for region in asked])


def _timer(parent: QObject, interval_ms: int, called: Any) -> QTimer:  # noqa: ANN401 - a slot
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    timer.timeout.connect(called)
    return timer
