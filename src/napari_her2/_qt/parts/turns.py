"""Steps on the main thread, one a turn of Qt's event loop: between them the window draws and listens."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qtpy.QtCore import QObject

    from napari_her2._napari.turns import Turns

# Qt carries out what waits no time at all before it looks at its timers again, so that two steps, and the
# drawing between them, would become one stretch in which nobody is listened to.
_PAUSE_MS = 1
_ENDED = object()
_waiting: deque[Iterator[None]] = deque()


def one_a_turn(steps: Iterator[None]) -> None:
    """Carry out the first step, and each further one in a later turn of the event loop.

    Whoever else has steps to carry out takes turns with it: there is one step a turn in all.

    Parameters
    ----------
    steps : iterator
        Each has to look whether what it works on is still there: a window may be closed between two.
    """
    if next(steps, _ENDED) is not _ENDED:
        _waiting.append(steps)
        if len(_waiting) == 1:
            QTimer.singleShot(_PAUSE_MS, _turn)


class Stepwise:
    """Work in steps on a widget: what is begun later takes the place of what is not finished.

    It ends where it is once the widget is destroyed.

    Parameters
    ----------
    owner : QObject
        The widget; not held.
    turns : callable
        Carries the steps out.
    """

    def __init__(self, owner: QObject, turns: Turns) -> None:
        self._turns = turns
        self._current: list[Iterator[None]] = []
        owner.destroyed.connect(partial(_forget, self._current))

    @property
    def running(self) -> bool:
        """Whether steps are left."""
        return bool(self._current)

    def begin(self, steps: Iterator[None]) -> None:
        """Carry out the first step, and the others as turns come."""
        self._current[:] = [steps]
        self._turns(_while_current(steps, self._current))

    def finish(self) -> None:
        """Carry out what is left at once."""
        left = self._current[:]
        self._current.clear()
        for steps in left:
            deque(steps, maxlen=0)

    def end(self) -> None:
        """Carry out no more."""
        self._current.clear()


def _while_current(steps: Iterator[None], current: list[Iterator[None]]) -> Iterator[None]:
    for _ in steps:
        yield
        if steps not in current:
            return
    if steps in current:
        current.clear()


def _forget(current: list[Iterator[None]], _owner: object = None) -> None:
    current.clear()


def _turn() -> None:
    steps = _waiting[0]
    try:
        ended = next(steps, _ENDED) is _ENDED
    except BaseException:
        ended = True
        raise
    finally:
        _waiting.popleft()
        if not ended:
            _waiting.append(steps)
        if _waiting:
            QTimer.singleShot(_PAUSE_MS, _turn)
