"""Where our docks lie in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.parts.dock import Dock

RIGHT, LEFT = Qt.DockWidgetArea.RightDockWidgetArea, Qt.DockWidgetArea.LeftDockWidgetArea


@pytest.fixture
def window(qtbot: QtBot) -> QMainWindow:
    window = QMainWindow()
    qtbot.addWidget(window)
    window.setCentralWidget(QLabel("canvas"))
    window.resize(1366, 768)
    window.show()
    return window


def put_in(window: QMainWindow, widget: object, area: Qt.DockWidgetArea = RIGHT) -> QDockWidget:
    """Dock a widget as napari does."""
    there = [d for d in window.findChildren(QDockWidget) if window.dockWidgetArea(d) == area]
    frame = QDockWidget(type(widget).__name__)
    frame.setWidget(widget)
    window.addDockWidget(area, frame)
    docks = [*there, frame]
    window.resizeDocks(docks, list(range(1, len(docks) * 4, 4)), Qt.Orientation.Vertical)
    frame.setFloating(False)
    return frame


@pytest.mark.parametrize("scoring_first", [True, False])
def test_the_second_dock_is_a_tab_beside_the_first_and_in_front(
    qtbot: QtBot,
    window: QMainWindow,
    make_dock: Callable[[], Dock],
    make_training_dock: Callable[[], Dock],
    scoring_first: bool,
) -> None:
    makers = [make_dock, make_training_dock]
    first, second = (make() for make in (makers if scoring_first else makers[::-1]))
    stranger = put_in(window, QLabel("another plugin"))
    first_frame = put_in(window, first)
    qtbot.waitUntil(first.isVisible)
    second_frame = put_in(window, second)
    qtbot.waitUntil(lambda: window.tabifiedDockWidgets(second_frame) == [first_frame])
    qtbot.waitUntil(lambda: second.isVisible() and second.height() > 400)
    assert window.tabifiedDockWidgets(stranger) == []
    first_frame.raise_()
    qtbot.waitUntil(lambda: first_frame.y() >= 0 and first.height() > 400)  # a tab behind lies outside


def test_docks_that_the_user_put_apart_stay_apart(
    qtbot: QtBot,
    window: QMainWindow,
    make_dock: Callable[[], Dock],
    make_training_dock: Callable[[], Dock],
) -> None:
    first, second = make_dock(), make_training_dock()
    put_in(window, first)
    frame = put_in(window, second, LEFT)  # where napari remembers that it was
    qtbot.waitUntil(second.isVisible)
    qtbot.wait(50)
    assert window.tabifiedDockWidgets(frame) == []
    window.addDockWidget(RIGHT, frame)  # dragged below the other one, hidden and shown again
    frame.hide()
    frame.show()
    qtbot.wait(50)
    assert window.tabifiedDockWidgets(frame) == []


def test_a_floating_dock_is_left_alone(
    qtbot: QtBot,
    window: QMainWindow,
    make_dock: Callable[[], Dock],
    make_training_dock: Callable[[], Dock],
) -> None:
    first, second = make_dock(), make_training_dock()
    floating = put_in(window, first)
    floating.setFloating(True)
    frame = put_in(window, second)
    qtbot.waitUntil(second.isVisible)
    qtbot.wait(50)
    assert floating.isFloating()
    assert window.tabifiedDockWidgets(frame) == []
