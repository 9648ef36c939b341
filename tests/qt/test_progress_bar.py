"""A bar of progress is drawn with the rest of the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication

from napari_her2._qt.parts.progress_bar import ProgressBar

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


class Drawings(QObject):
    """Counts how often a widget is drawn."""

    count = 0

    def eventFilter(self, _watched: QObject | None, event: QEvent | None) -> bool:
        self.count += event is not None and event.type() == QEvent.Type.Paint
        return False


def test_a_value_is_drawn_in_the_next_turn_and_not_before(qtbot: QtBot) -> None:
    bar, drawings = ProgressBar(), Drawings()
    qtbot.addWidget(bar)
    bar.setRange(0, 1000)
    bar.show()
    qtbot.waitExposed(bar)
    bar.installEventFilter(drawings)
    QApplication.processEvents()
    drawings.count = 0
    bar.setValue(400)
    bar.setRange(0, 300)  # the value lies outside
    assert drawings.count == 0
    qtbot.waitUntil(lambda: drawings.count > 0)
    assert (bar.maximum(), bar.text()) == (300, "")
    bar.setValue(150)
    assert bar.text() == "50%"
