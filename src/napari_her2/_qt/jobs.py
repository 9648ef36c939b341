"""Long work in a thread: a generator of Progress is driven, and reports to the main thread."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

from qtpy.QtCore import QObject, QThreadPool, Signal
from superqt.utils import create_worker

from napari_her2.errors import Her2Error
from napari_her2.inference.result import Progress

if TYPE_CHECKING:
    from superqt.utils import GeneratorWorker

Steps: TypeAlias = Callable[[], Generator[Progress, None, Any]]

_SECONDS_BETWEEN_REPORTS = 0.05  # more would flood the event loop of a fast machine
_LAST_SIGNALS_MS = 200


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


class _Run:
    """One start of a job; a newer one makes it stale."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cancel = Event()
        self.ended = Event()


class Job(QObject):
    """Runs one generator at a time in a thread; a new start replaces the running one.

    Signals arrive in the main thread, and only those of the latest start: what an older one still
    reports is dropped by its number.

    Attributes
    ----------
    progressed : Signal(Progress)
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
        self._worker: GeneratorWorker | None = None

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
        if self._run is not None:
            self._run.cancel.set()
        self._number += 1
        run = _Run(self._number)
        self._run = run
        worker = create_worker(_drive, steps, run, _start_thread=False)
        worker.yielded.connect(self._on_yielded)
        worker.returned.connect(self._on_returned)
        self._worker = worker
        self.running_changed.emit(True)
        worker.start()

    def cancel(self) -> None:
        """Ask the running generator to stop: it is closed after the step it is in."""
        if self._run is not None:
            self._run.cancel.set()

    def shutdown(self, timeout_s: float = 10.0) -> bool:
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
        run, worker, self._run, self._worker = self._run, self._worker, None, None
        self._number += 1
        if run is None:
            return True
        run.cancel.set()
        ended = run.ended.wait(timeout_s)
        if ended and worker is not None:
            # The thread still emits its last signals: let go of it too early and it speaks to nobody.
            QThreadPool.globalInstance().waitForDone(_LAST_SIGNALS_MS)
        return ended

    def _on_yielded(self, report: tuple[int, Progress]) -> None:
        number, progress = report
        if number == self._number:
            self.progressed.emit(progress)

    def _on_returned(self, report: tuple[int, _Outcome] | None) -> None:
        # None: napari is closing and has stopped all workers itself.
        if report is None or report[0] != self._number:
            return
        # The worker is dropped before anyone is told, or its generator would keep files and memory.
        self._run, self._worker = None, None
        outcome = report[1]
        self.running_changed.emit(False)
        if outcome.kind == "returned":
            self.returned.emit(outcome.value)
        elif outcome.kind == "failed":
            self.failed.emit(outcome.value)
        else:
            self.cancelled.emit()


def _drive(steps: Steps, run: _Run) -> Generator[tuple[int, Progress], None, tuple[int, _Outcome]]:
    """Drive a generator to its end, an error or a cancel, and close it here, in the thread.

    Every error becomes an outcome. superqt would swallow a RuntimeError, which is what PyTorch
    raises when a GPU is out of memory, and the dock would show "running" for ever; and it leaves a
    cancelled generator suspended until the garbage collector comes by.
    """
    try:
        outcome = yield from _report(steps, run)
    except Her2Error as error:
        outcome = _Outcome("failed", Failure(str(error), kind=type(error)))
    except Exception as error:  # noqa: BLE001 - nothing may leave the thread unseen
        outcome = _Outcome("failed", _unforeseen(error))
    finally:
        run.ended.set()
    return run.number, outcome


def _report(steps: Steps, run: _Run) -> Generator[tuple[int, Progress], None, _Outcome]:
    generator = steps()
    reported, stage = 0.0, None
    try:
        while not run.cancel.is_set():
            try:
                progress = next(generator)
            except StopIteration as stop:
                return _Outcome("returned", stop.value)
            now = time.monotonic()
            if progress.stage != stage or now - reported >= _SECONDS_BETWEEN_REPORTS:
                reported, stage = now, progress.stage
                yield run.number, progress
        return _Outcome("cancelled")
    finally:
        generator.close()


def _unforeseen(error: Exception) -> Failure:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Failure(
        f"The work stopped because of an error that was not foreseen: {first_line}",
        "".join(traceback.format_exception(error)),
    )
