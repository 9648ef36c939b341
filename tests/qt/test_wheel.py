"""Scrolling through a dock changes none of its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from driving import score
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QPlainTextEdit,
    QScrollBar,
    QSlider,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_her2._qt.scoring.cell_histogram import CellHistogram
from napari_her2._qt.scoring.cell_profile import CellProfile
from napari_her2._qt.scoring.faithfulness_plot import FaithfulnessPlot
from napari_her2._qt.scoring.gallery import Gallery
from napari_her2._qt.training.curve_plot import CurvePlot
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.parts.dock import Dock

CONTROLS = (QComboBox, QAbstractSpinBox, QAbstractSlider)
PICTURES = (CellHistogram, CellProfile, CurvePlot, FaithfulnessPlot, Gallery)


def turn(widget: QWidget, steps: int = -1) -> None:
    """Turn the wheel over a widget."""
    centre = QPointF(widget.rect().center())
    event = QWheelEvent(
        centre,
        QPointF(widget.mapToGlobal(widget.rect().center())),
        QPoint(),
        QPoint(0, 120 * steps),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)


def value_of(control: QWidget) -> object:
    if isinstance(control, QComboBox):
        return control.currentIndex()
    return control.text() if isinstance(control, QAbstractSpinBox) else control.value()


def controls_of(dock: Dock) -> Iterator[QWidget]:
    for widget in dock.scroll.widget().findChildren(QWidget):
        if isinstance(widget, CONTROLS) and not isinstance(widget, QScrollBar) and not widget.isWindow():
            yield widget


def show_all(qtbot: QtBot, dock: Dock) -> None:
    """Show every part of a dock at once, in a window too small for them."""
    for widget in dock.scroll.widget().findChildren(QWidget):
        if not widget.isWindow():
            widget.setVisible(True)
            widget.setEnabled(True)
    for control in controls_of(dock):
        if isinstance(control, QComboBox):
            control.blockSignals(True)
            control.addItems(["one", "two", "three", "four"])
            control.setCurrentIndex(1)
            control.blockSignals(False)
    dock.resize(360, 300)
    dock.show()
    qtbot.waitExposed(dock)


def middle(dock: Dock) -> int:
    bar = dock.scroll.verticalScrollBar()
    assert bar.maximum() > 200
    bar.setValue(bar.maximum() // 2)
    return bar.value()


@pytest.fixture(params=["scoring", "training"])
def dock(request: pytest.FixtureRequest, qtbot: QtBot) -> Dock:
    if request.param == "training":
        dock = request.getfixturevalue("make_training_dock")()
    else:
        dock = request.getfixturevalue("make_dock")()
        request.getfixturevalue("asked")
        request.getfixturevalue("add_slide")(make_slide())
        score(qtbot, dock)
    show_all(qtbot, dock)
    return dock


def test_the_wheel_scrolls_the_dock_and_changes_no_control(qtbot: QtBot, dock: Dock) -> None:
    controls = list(controls_of(dock))
    assert len(controls) > 4
    for control in controls:
        assert control.focusPolicy() != Qt.FocusPolicy.WheelFocus
        for under in (control, *control.findChildren(QWidget)):
            if under.window() is not dock.window() or under.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                continue
            before, at = value_of(control), middle(dock)
            turn(under)
            assert value_of(control) == before, control.accessibleName()
            assert dock.scroll.verticalScrollBar().value() > at, control.accessibleName()


def test_the_wheel_over_a_picture_or_a_plot_scrolls_the_dock(dock: Dock) -> None:
    pictures = [w for kind in PICTURES for w in dock.scroll.widget().findChildren(kind)]
    assert pictures
    for picture in pictures:
        at = middle(dock)
        turn(picture)
        assert dock.scroll.verticalScrollBar().value() > at


def test_a_control_with_the_focus_takes_the_wheel(qtbot: QtBot, dock: Dock) -> None:
    combo = next(control for control in controls_of(dock) if isinstance(control, QComboBox))
    dock.activateWindow()
    combo.setFocus()
    qtbot.waitUntil(combo.hasFocus)
    at = middle(dock)
    turn(combo)
    assert combo.currentIndex() == 2
    assert dock.scroll.verticalScrollBar().value() == at


def test_the_focus_on_one_control_gives_the_wheel_to_no_other(qtbot: QtBot, dock: Dock) -> None:
    first, second = [control for control in controls_of(dock) if isinstance(control, QComboBox)][:2]
    dock.activateWindow()
    first.setFocus()
    qtbot.waitUntil(first.hasFocus)
    turn(second)
    assert second.currentIndex() == 1
    dock.scroll.setFocus()
    turn(first)
    assert first.currentIndex() == 1


def test_what_is_added_later_is_watched_too_with_all_its_parts(qtbot: QtBot, dock: Dock) -> None:
    late = QWidget()
    inside = QVBoxLayout(late)
    slider, tabs, text = QSlider(Qt.Orientation.Horizontal), QTabWidget(), QPlainTextEdit("line\n" * 100)
    for name in ("a", "b", "c"):
        tabs.addTab(QWidget(), name)
    dock.scroll.widget().layout().insertWidget(0, late)
    for widget in (slider, tabs, text):
        inside.addWidget(widget)  # later than its parent
    qtbot.waitUntil(slider.isVisible)
    for under, value in ((slider, slider.value), (tabs.tabBar(), tabs.currentIndex)):
        before, at = value(), middle(dock)
        turn(under)
        assert value() == before
        assert dock.scroll.verticalScrollBar().value() > at
    at = middle(dock)
    turn(text.viewport())
    assert text.verticalScrollBar().value() == 0
    assert dock.scroll.verticalScrollBar().value() > at
    dock.activateWindow()
    text.setFocus()
    qtbot.waitUntil(text.hasFocus)
    turn(text.viewport())
    assert text.verticalScrollBar().value() > 0


def test_a_list_that_dropped_down_scrolls(qtbot: QtBot, dock: Dock) -> None:
    combo = next(control for control in controls_of(dock) if isinstance(control, QComboBox))
    combo.addItems([str(number) for number in range(200)])
    combo.setMaxVisibleItems(5)
    combo.showPopup()
    view = combo.view()
    qtbot.waitUntil(view.isVisible)
    before = view.verticalScrollBar().value()
    turn(view.viewport(), -5)
    assert view.verticalScrollBar().value() > before
    combo.hidePopup()
