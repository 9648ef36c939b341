"""Steps on the main thread, one a turn of Qt's event loop: between them the window draws and listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDED = object()


def one_a_turn(steps: Iterator[None]) -> None:
    """Carry out the first step, and each further one in a later turn of the event loop.

    Parameters
    ----------
    steps : iterator
        Each has to look whether what it works on is still there: a window may be closed between two.
    """
    if next(steps, _ENDED) is not _ENDED:
        QTimer.singleShot(0, lambda: one_a_turn(steps))
