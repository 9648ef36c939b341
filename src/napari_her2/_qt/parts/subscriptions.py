"""Signals that outlive a widget: of the session, of the viewer and of its layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject

    Slot = Callable[..., object]
    Kept = list[tuple[Any, WeakMethod[Slot]]]


class Subscriptions:
    """What a widget listens to, until it lets go or is destroyed.

    psygnal and napari hold methods weakly, but Qt destroys a widget with its parent while Python may keep
    what is left of it, in a reference cycle for example: a signal would then reach a widget without its Qt
    half, and fail for whoever sent it.

    Parameters
    ----------
    widget : QObject
        That listens; not held.
    """

    def __init__(self, widget: QObject) -> None:
        self._kept: Kept = []
        widget.destroyed.connect(partial(_end, self._kept))

    def add(self, signal: Any, slot: Slot) -> None:  # noqa: ANN401 - of psygnal or napari
        """Have a method of the widget called by a signal."""
        signal.connect(slot)
        self._kept.append((signal, WeakMethod(slot)))

    def end(self, signal: Any = None) -> None:  # noqa: ANN401
        """Listen no more: to one signal, or to any."""
        ended = [pair for pair in self._kept if signal is None or pair[0] is signal]
        self._kept[:] = [pair for pair in self._kept if pair not in ended]
        _end(ended)


def _end(kept: Kept, _widget: object = None) -> None:
    for signal, method in kept:
        slot = method()
        if slot is not None:
            signal.disconnect(slot)
    kept.clear()
