"""A bar of progress that does not draw the window in the midst of a turn."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QProgressBar

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProgressBar(QProgressBar):
    """Draws a new value with the rest of the window, in the next turn.

    Qt's own draws it before `setValue` returns, and with it all that waits to be drawn: over a picture in
    OpenGL each value then costs as much as a pan.
    """

    def setRange(self, minimum: int, maximum: int) -> None:
        """Set the least and the largest value; equal ones stand for "at work"."""
        with self._drawn_later():
            super().setRange(minimum, maximum)

    def setValue(self, value: int) -> None:
        """Set the value."""
        with self._drawn_later():
            super().setValue(value)

    @contextmanager
    def _drawn_later(self) -> Iterator[None]:
        self.setUpdatesEnabled(False)
        try:
            yield
        finally:
            self.setUpdatesEnabled(True)  # which asks for a drawing
