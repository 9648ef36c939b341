"""How long the main thread of a window is kept busy, and where: a timer that beats on it, and an onlooker."""

from __future__ import annotations

import gc
import signal
import statistics
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

BEAT_MS = 4
LOOK_S = 0.005
MOST_OWNERS = 4
GARBAGE = "of it a full search for garbage"
TARGET_MS = 50.0
Steps = "Generator[Callable[[], bool] | float, None, None]"


@dataclass
class Gaps:
    """Gaps between beats in one part of the walk, milliseconds."""

    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    owners: list[tuple[float, str]] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """One line of the table."""
        long = sum(gap > TARGET_MS for gap in self.busy)
        p95 = float(np.percentile(self.wall, 95))
        return (
            f"| {name} | {statistics.median(self.wall):.0f} | {p95:.0f} | {max(self.wall):.0f} | "
            f"{max(self.busy):.0f} | {long} | {sum(self.busy):.0f} |"
        )


class Onlooker:
    """Notes where the main thread is, from within: an interval timer interrupts it.

    Not from another thread: that would hold frames of the main thread for a moment, and if one of them ended
    meanwhile, its local variables would be freed over there, where Qt may not destroy what it draws with.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, str]] = deque(maxlen=4000)
        self._busy = time.thread_time()
        self._collecting = (0.0, 0.0)
        gc.callbacks.append(self._on_garbage)
        signal.signal(signal.SIGALRM, self._look)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, LOOK_S)
        self._stopped = False

    def stop(self) -> None:
        """Interrupt no more."""
        self._stopped = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_garbage(self, phase: str, of: dict[str, int]) -> None:
        """Note what a full search for garbage on the main thread takes."""
        if of["generation"] < 2 or threading.current_thread() is not threading.main_thread():
            return
        now = time.thread_time()
        if phase == "start":
            self._collecting = (time.perf_counter(), now)
        else:
            self._seen.append((self._collecting[0], 1000 * (now - self._collecting[1]), GARBAGE))

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        signal.set_wakeup_fd(-1)  # napari's, for Ctrl-C, which nobody would empty as fast
        # Python interrupts between two of its instructions: what a call into C takes is noted as one piece,
        # with the function that made the call.
        before, self._busy = self._busy, time.thread_time()
        self._seen.append((time.perf_counter(), 1000 * (self._busy - before), _place_of(frame)))
        # One at a time, armed anew at the end: a look that takes long is not interrupted by the next.
        if not self._stopped:
            signal.setitimer(signal.ITIMER_REAL, LOOK_S)

    def owners(self, begin: float, end: float) -> str:
        """Say in which functions the processor time between two moments was spent."""
        spent = Counter[str]()
        for when, busy_ms, place in list(self._seen):  # it may be interrupted itself
            if begin <= when <= end:
                spent[place] += busy_ms
        return "; ".join(f"{ms:.0f} ms {place}" for place, ms in spent.most_common(MOST_OWNERS))


def _place_of(frame: FrameType | None) -> str:
    """Name the innermost function, and the innermost ones of this plugin that it was called from."""
    inner, own = "", list[str]()
    while frame is not None:
        code = frame.f_code
        name = f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_name}"
        inner = inner or name
        if "napari_her2" in code.co_filename and len(own) < 2:
            own.append(name)
        frame = frame.f_back
    return f"{inner} < {' < '.join(own) or 'nothing of ours'}"


class Imports:
    """Notes which modules the main thread has to find: Python asks it first."""

    def __init__(self) -> None:
        self.names: list[str] = []
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]  # it finds nothing

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Note the name, and leave the rest to Python."""
        if threading.current_thread() is threading.main_thread():
            self.names.append(name)


class Heart:
    """The timer on the main thread."""

    def __init__(self, onlooker: Onlooker | None = None) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.parts: dict[str, Gaps] = {}
        self._onlooker = onlooker
        self._part = ""
        self._imports = Imports() if onlooker is not None else None
        self._last = (0.0, 0.0)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)

    def begin(self, part: str) -> None:
        """Count what follows for a part."""
        self._note_imports()
        self._part = part
        self.parts.setdefault(part, Gaps())
        self._last = (time.perf_counter(), time.thread_time())
        self._timer.start()

    def stop(self) -> None:
        """Count nothing until `begin`."""
        self._note_imports()
        self._timer.stop()

    def _note_imports(self) -> None:
        """Note for the part that ends what was imported in it."""
        if self._imports is not None:
            names, self._imports.names = self._imports.names, []
            if self._part:
                self.parts[self._part].imported += names

    def _beat(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        of = self.parts[self._part]
        of.wall.append(1000 * (now[0] - self._last[0]))
        of.busy.append(1000 * (now[1] - self._last[1]))
        if self._onlooker is not None and of.busy[-1] > TARGET_MS:
            of.owners.append((of.busy[-1], self._onlooker.owners(self._last[0], now[0])))
        self._last = now


class Walk:
    """Drives a window step by step: a step yields seconds to wait, or what has to become true."""

    def __init__(self, steps: Steps, done: Callable[[], None]) -> None:
        self._steps, self._done, self.failure = steps, done, None
        self._until: Callable[[], bool] | None = None
        self._later(0.0)

    def _later(self, seconds: float) -> None:
        from qtpy.QtCore import QTimer

        QTimer.singleShot(round(1000 * seconds), self._go)

    def _go(self) -> None:
        if self._until is not None and not self._until():
            self._later(0.02)
            return
        try:
            wish = next(self._steps)
        except StopIteration:
            self._done()
            return
        except BaseException as error:  # noqa: BLE001 - an error in a slot would leave the window open for ever
            self.failure = error
            self._done()
            return
        self._until = wish if callable(wish) else None
        self._later(0.0 if callable(wish) else wish)
