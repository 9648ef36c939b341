"""Drives the keeping of work: a timer, threads that read and write, and steps between other events."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_her2._napari.judging import demands_of
from napari_her2._napari.keeping import keeping_of
from napari_her2._napari.kept_work import Found, finding, forgetting, write_now, writing
from napari_her2._napari.tags import slide_tag
from napari_her2._qt.parts.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtpy.QtWidgets import QWidget

    from napari_her2._napari.keeping import Keeping
    from napari_her2._napari.kept_work import Parcel
    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.parts.jobs import Failure
    from napari_her2.slide.reader import Slide

KEPT_WITHIN_MS = 1000
_AGAIN_MS = 200
_LAST_WRITE_S = 5.0


class Keeper(QObject):
    """Keeps the work of a session while any dock holds it; made by `keeper_of`.

    Parameters
    ----------
    session : Session
    settings : Settings

    Attributes
    ----------
    noted : Signal(str)
        Id of a slide of which there is news: its work was brought back, kept or forgotten.
    brought_back : Signal(str)
        Id of a slide whose work was just brought back.
    failed : Signal(Failure)
        Something could not be kept; it is tried again with the next change.
    """

    noted = Signal(str)
    brought_back = Signal(str)
    failed = Signal(object)

    def __init__(self, session: Session, settings: Settings, keeping: Keeping) -> None:
        super().__init__()
        self._session, self._settings = session, settings
        self.keeping = keeping
        keeping.opacity = settings.default_opacity
        self.find_job, self.write_job, self.forget_job = Job(), Job(), Job()
        self.jobs = (self.find_job, self.write_job, self.forget_job)
        self._seeking: list[str] = []
        self._parcels: list[Parcel] = []
        self._steps: list[Iterator[None]] = []
        self._to_forget: list[str] = []
        self._complaint = ""
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._on_time)
        self._step_timer = QTimer(self)
        self._step_timer.timeout.connect(self._step)
        self.find_job.returned.connect(self._on_found)
        self.find_job.failed.connect(self._on_find_failed)
        self.find_job.cancelled.connect(self._seek)
        self.write_job.returned.connect(self._on_written)
        self.write_job.failed.connect(self._on_not_written)
        self.write_job.cancelled.connect(self._on_cancelled)
        self.forget_job.failed.connect(self.failed)
        self.forget_job.failed.connect(self._forget)
        self.forget_job.returned.connect(self._forget)
        keeping.changed.connect(self._on_change)
        keeping.brought_back.connect(self._on_brought_back)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.flush)
        self._holders: set[int] = set()

    def hold(self, holder: object) -> None:
        """Work from now on, until every holder has let go."""
        self._holders.add(id(holder))
        self.keeping.driven = True
        self._on_change()

    def release(self, holder: object) -> None:
        """Let go; what is not written yet is written now, and after the last one nothing runs any more."""
        self.release_of(id(holder))

    def release_of(self, holder: int) -> None:
        """Let go for a holder that is gone, by its id."""
        if holder not in self._holders:
            return
        self._holders.discard(holder)
        if self._holders:
            self.flush()
            return
        self.shutdown()
        QTimer.singleShot(0, partial(_drop, id(self.keeping)))

    @property
    def held(self) -> bool:
        """Whether any dock needs it."""
        return bool(self._holders)

    @property
    def busy(self) -> bool:
        """Whether anything is being looked up, brought back, written or deleted, or waits for that."""
        return (
            any(job.running for job in self.jobs)
            or bool(self._steps or self._parcels or self._to_forget)
            or self._timer.isActive()
        )

    def forget(self, slide_id: str) -> None:
        """Take the work on a slide away, here and on the disk, for good."""
        fingerprint = self.keeping.forget(slide_id)
        if fingerprint:
            self._to_forget.append(fingerprint)
        self.noted.emit(slide_id)
        self._forget()

    def flush(self) -> None:
        """Write now what is not written yet, and wait for it: a dock or napari is about to close."""
        if not self._holders and not self.keeping.driven:
            return
        self._timer.stop()
        running = self.write_job.running
        self.write_job.shutdown(_LAST_WRITE_S)
        if running:
            self.keeping.give_back(self._parcels)
        self._parcels = []
        write_now(self.keeping.take(unsought=True))

    def write_rest(self) -> None:
        """Write what is not written yet, without any help of Qt."""
        self.keeping.give_back(self._parcels)
        self._parcels = []
        self.keeping.driven = False
        write_now(self.keeping.take(unsought=True))

    def shutdown(self) -> None:
        """Write what is not written yet, and stop all work."""
        self.find_job.shutdown()
        self._seeking = []
        self._step_timer.stop()
        self._steps.clear()
        self.flush()
        self.keeping.driven = False

    def _seek(self) -> None:
        """Look up what is kept of slides that were just opened, in a thread."""
        if self._steps or not self._holders:
            return
        open_ids = {slide.slide_id for slide in self._slides()}
        if self.find_job.running:
            if not open_ids.issuperset(self._seeking):
                self.find_job.cancel()  # one was closed: its file is not held any longer
            return
        slides = self.keeping.unsought()
        if slides:
            self._seeking = [slide.slide_id for slide in slides]
            demands = demands_of(self._session, self._settings)
            self.find_job.start(partial(finding, slides, self._slides(), demands))

    def _slides(self) -> list[Slide]:
        ids = [tag.slide_id for layer in self._session.slide_layers() if (tag := slide_tag(layer))]
        return [slide for slide_id in ids if (slide := self._session.slide_of(slide_id)) is not None]

    def _on_found(self, found: list[Found]) -> None:
        self._seeking = []
        self._steps += [self.keeping.bring_back(of) for of in found]
        self._step_timer.start(0)

    def _on_find_failed(self, failure: Failure) -> None:
        problems = (failure.message,)
        self._on_found([Found(slide_id, None, problems=problems) for slide_id in self._seeking])

    def _step(self) -> None:
        """Show one more thing that was kept; whatever else waits comes in between."""
        if self._steps and next(self._steps[0], self) is self:
            self._steps.pop(0)
        if not self._steps:
            self._step_timer.stop()
            self._on_change()

    def _on_change(self) -> None:
        self._seek()
        if self._holders and not self._timer.isActive():
            self._timer.start(KEPT_WITHIN_MS)

    def _on_time(self) -> None:
        if self.write_job.running or self.forget_job.running:
            self._timer.start(_AGAIN_MS)
            return
        self._parcels = self.keeping.take()
        if self._parcels:
            self.write_job.start(partial(writing, tuple(self._parcels)))

    def _on_written(self, sizes: dict[str, int]) -> None:
        self._parcels, self._complaint = [], ""
        self.keeping.set_sizes(sizes)
        for slide_id in sizes:
            self.noted.emit(slide_id)
        self._forget()

    def _on_not_written(self, failure: Failure) -> None:
        self._on_cancelled()
        if failure.message != self._complaint:  # once, not with every stroke of the pen
            self._complaint = failure.message
            self.failed.emit(failure)

    def _on_cancelled(self) -> None:
        self.keeping.give_back(self._parcels)
        self._parcels = []
        self._forget()

    def _forget(self, _outcome: object = None) -> None:
        if self._to_forget and not self.write_job.running and not self.forget_job.running:
            self.forget_job.start(partial(forgetting, self._to_forget.pop(0)))

    def _on_brought_back(self, slide_id: str) -> None:
        self.brought_back.emit(slide_id)
        self.noted.emit(slide_id)


def keeper_of(session: Session, settings: Settings, dock: QWidget) -> Keeper | None:
    """Return what keeps the work of a session until the dock is destroyed, or lets go before.

    Parameters
    ----------
    session : Session
    settings : Settings
        Of the first dock.
    dock : QWidget

    Returns
    -------
    Keeper or None
        None where work is not to be kept, or the viewer is gone.
    """
    keeping = keeping_of(session) if settings.keep_work else None
    if keeping is None:
        return None
    key = id(keeping)
    keeper = _KEEPERS.get(key)
    if keeper is None or keeper.keeping is not keeping:
        keeper = _KEEPERS[key] = Keeper(session, settings, keeping)
    keeper.hold(dock)
    # A window that closes takes its docks along without closing them one by one.
    dock.destroyed.connect(partial(_let_go, key, id(dock)))
    return keeper


def _let_go(key: int, holder: int, _dock: object = None) -> None:
    keeper = _KEEPERS.get(key)
    if keeper is None:
        return
    try:
        keeper.release_of(holder)
    except RuntimeError:  # the whole program ends, and Qt has taken timers and jobs away already
        keeper.write_rest()


def _drop(key: int) -> None:
    keeper = _KEEPERS.get(key)
    if keeper is not None and not keeper.held:
        del _KEEPERS[key]


_KEEPERS: dict[int, Keeper] = {}
"""By the id of what they drive. None goes with its dock: Qt objects that are freed while another one is being
destroyed take PyQt down."""
