"""Long work in threads of its own: a generator of Progress is driven, and reports to the main thread.

Every run has a thread to itself. Qt's common pool has one thread a core: two slides being scored would keep a
click on a tile waiting, and napari waits for that pool, however long, when its window is closed.
"""

from __future__ import annotations

import math
import threading
import traceback
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_her2.errors import Her2Error
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

Steps: TypeAlias = Callable[[], Generator[Progress, None, Any]]

SECONDS_BETWEEN_REPORTS = 0.1  # nobody reads more, and each costs the main thread a layout of the dock
STOPPED_WITHIN_S = 1.5  # a window that closes waits no longer for the steps that threads are in


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job ended early.

    Parameters
    ----------
    message : str
        One or two plain sentences.
    details : str
        The traceback of an error that nobody foresaw; empty for one that speaks for itself.
    kind : type of Her2Error or None
        Of an error that speaks for itself: some of them leave the decision to the user.
    """

    message: str
    details: str = ""
    kind: type[Her2Error] | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    kind: str  # "returned", "failed" or "cancelled"
    value: Any = None


class _Reports:
    """What a thread reported and nobody was shown yet: of one stage the newest alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Progress] = []

    def put(self, progress: Progress) -> bool:
        """Keep a report; return whether it is the only one, of which the main thread has to hear."""
        with self._lock:
            alone = not self._waiting
            if not alone and not self._waiting[-1].lasting and self._waiting[-1].title == progress.title:
                self._waiting[-1] = progress
            else:
                self._waiting.append(progress)
            return alone

    def take(self) -> list[Progress]:
        """Return all that wait, the oldest first, and keep none."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            return taken


class _Run:
    """One start of a job; a newer one makes it stale."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cancel = threading.Event()
        self.ended = threading.Event()
        self.reports = _Reports()


class _Mailbox(QObject):
    """Hands over to the main thread what threads report.

    There is one, and it outlives all jobs and windows: a thread that ends late still speaks to somebody.
    """

    posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.posted.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def _deliver(self, report: tuple[weakref.ref[Job], int, _Outcome | None]) -> None:
        to, number, what = report
        job = to()
        if job is not None:
            job.receive(number, what)


@cache
def _mailbox() -> _Mailbox:
    """Return the mailbox; made by the first job, in the main thread."""
    return _Mailbox()


class Job(QObject):
    """Runs one generator at a time in a thread; a new start replaces the running one.

    Signals arrive in the main thread, and only those of the latest start: what an older one still
    reports is dropped by its number.

    Attributes
    ----------
    progressed : Signal(Progress)
        Ten times a second at most: of one stage the newest report, and the last one before the end.
    returned : Signal(object)
        What the generator returned.
    failed : Signal(Failure)
    cancelled : Signal()
        The generator was closed and its ``finally`` blocks have run.
    running_changed : Signal(bool)
    """

    progressed = Signal(object)
    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    running_changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._number = 0
        self._run: _Run | None = None
        self._shown_at = -math.inf
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._show_when_due)
        self._post = _mailbox().posted.emit

    @property
    def running(self) -> bool:
        """Whether a generator is being driven."""
        return self._run is not None

    def start(self, steps: Steps) -> None:
        """Drive a generator in a thread.

        Parameters
        ----------
        steps : callable
            Makes the generator; called in the thread.
        """
        self.cancel()
        self._number += 1
        run = self._run = _Run(self._number)
        self._shown_at = -math.inf
        # Not a daemon: Python would take the ground from under PyTorch in the midst of a step.
        thread = threading.Thread(
            target=_drive,
            args=[[steps], run, weakref.ref(self), self._post],
            name=f"napari-her2 job {run.number}",
        )
        self.running_changed.emit(True)
        thread.start()

    def cancel(self) -> None:
        """Ask the running generator to stop: it is closed after the step it is in."""
        if self._run is not None:
            self._run.cancel.set()

    def shutdown(self, timeout_s: float = STOPPED_WITHIN_S) -> bool:
        """Cancel, wait until the generator is closed, and report nothing any more.

        Parameters
        ----------
        timeout_s : float
            A step that takes longer is left to end by itself.

        Returns
        -------
        bool
            Whether nothing runs any more.
        """
        run, self._run = self._run, None
        self._number += 1
        if run is None:
            return True
        run.cancel.set()
        return run.ended.wait(timeout_s)

    def receive(self, number: int, what: _Outcome | None) -> None:
        """Take what a thread reports, in the main thread: None where progress waits to be shown."""
        if number != self._number:
            return
        if what is None:
            self._show_when_due()
            return
        if what.kind != "cancelled":
            self._show_waiting()
            if number != self._number:
                return
        self._run = None
        self.running_changed.emit(False)
        if what.kind == "returned":
            self.returned.emit(what.value)
        elif what.kind == "failed":
            self.failed.emit(what.value)
        else:
            self.cancelled.emit()

    def _show_when_due(self) -> None:
        """Show what waits, or come back when enough time has passed since the last time."""
        left = self._shown_at + SECONDS_BETWEEN_REPORTS - monotonic()
        if left > 0:
            self._timer.start(math.ceil(left * 1000))
        elif self._run is not None and not self._run.cancel.is_set():
            self._show_waiting()

    def _show_waiting(self) -> None:
        run, self._shown_at = self._run, monotonic()
        for progress in run.reports.take() if run is not None else ():
            if self._run is not run:  # a slot has started another, or shut this one down
                return
            self.progressed.emit(progress)


def stop_all(jobs: Iterable[Job], timeout_s: float = STOPPED_WITHIN_S) -> bool:
    """Shut jobs down together, so that all of them take no longer than one.

    Parameters
    ----------
    jobs : iterable of Job
    timeout_s : float
        For all of them.

    Returns
    -------
    bool
        Whether nothing runs any more.
    """
    jobs = tuple(jobs)
    for job in jobs:
        job.cancel()
    deadline = monotonic() + timeout_s
    ended = [job.shutdown(max(deadline - monotonic(), 0.0)) for job in jobs]
    return all(ended)


def _drive(
    steps: list[Steps],
    run: _Run,
    job: weakref.ref[Job],
    post: Callable[[tuple[weakref.ref[Job], int, _Outcome | None]], None],
) -> None:
    """Drive a generator to its end, an error or a cancel, and close it here, in the thread.

    Every error becomes an outcome: a thread that dies unheard would leave the dock saying "running" for ever.
    """

    def report(what: _Outcome | None) -> None:
        post((job, run.number, what))

    outcome = _Outcome("cancelled")
    try:
        # Taken out of the list, which the thread holds to its end: slides and models would stay with it.
        outcome = _outcome(steps.pop(), run, report)
    except Her2Error as error:
        outcome = _Outcome("failed", Failure(str(error), kind=type(error)))
    except Exception as error:  # noqa: BLE001 - nothing may leave the thread unseen
        outcome = _Outcome("failed", _unforeseen(error))
    finally:
        report(outcome)
        run.ended.set()


def _outcome(steps: Steps, run: _Run, report: Callable[[None], None]) -> _Outcome:
    generator = steps()
    try:
        while not run.cancel.is_set():
            try:
                progress = next(generator)
            except StopIteration as stop:
                return _Outcome("returned", stop.value)
            if run.reports.put(progress):
                report(None)
        return _Outcome("cancelled")
    finally:
        generator.close()


def _unforeseen(error: Exception) -> Failure:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Failure(
        f"The work stopped because of an error that was not foreseen: {first_line}",
        "".join(traceback.format_exception(error)),
    )
