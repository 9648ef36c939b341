"""The thresholds that cells are judged by, to be changed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_her2._qt.parts.text import Label
from napari_her2.cells.rules import CLASSES, Rules

if TYPE_CHECKING:
    from napari_her2._qt.parts.theme import Colours

Measure = Literal["completeness", "mass"]
# napari's own are too wide for three beside each other in a dock of 340 px, and their buttons hide digits.
_NARROW = (
    "QDoubleSpinBox { padding: 1px 1px; min-width: 64px; font-size: 8pt; }"
    "QDoubleSpinBox::up-button, QDoubleSpinBox::down-button { width: 15px; }"
)
_GAIN_LEAST, _GAIN_MOST, _MASS_MOST = 0.05, 20.0, 10.0


class ThresholdForm(QWidget):
    """Spin boxes of completeness, mass and gain, and the choice of the gastric rule.

    What was not changed by hand keeps all its digits, also those that a spin box does not show.

    Attributes
    ----------
    changed : Signal(Rules)
        The user wants other rules.
    reset_wanted : Signal()
        The user wants the thresholds of the specification.
    """

    changed = Signal(object)
    reset_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rules = Rules()
        self.completeness = tuple(_percent(f"Least completeness of {name}") for name in CLASSES[1:])
        self.mass = tuple(_number(f"Least mass of {name}", 0.0, _MASS_MOST) for name in CLASSES[1:])
        self.gain = _number("Gain", _GAIN_LEAST, _GAIN_MOST)
        self.gain.setToolTip(
            "Masses are divided by it: how strongly this laboratory, antibody and scanner stain, from a "
            "calibration"
        )
        self.gastric = QCheckBox("Gastric rule")
        self.gastric.setToolTip(
            "The criteria for the stomach: basolateral or lateral staining counts too. Otherwise those for "
            "the breast."
        )
        self.biopsy = QCheckBox("Biopsy")
        self.biopsy.setToolTip("In a biopsy of the stomach a cluster of 5 cells decides, not 10 % of them")
        self.reset = QPushButton("Reset to the specification")
        self.reset.setToolTip("The thresholds as specified, and the gain of the calibration, if there is one")
        self.note = Label(wrap=True)
        self.setStyleSheet(_NARROW)
        self._arrange()
        self._connect()
        self.set_rules(Rules())

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.note.setStyleSheet(f"color: {colours.warning};")

    @property
    def rules(self) -> Rules:
        """Rules as they stand in the form."""
        return self._rules

    def set_rules(self, rules: Rules) -> None:
        """Show rules; nothing is reported."""
        self._rules = rules
        for measure, boxes, scale in (("completeness", self.completeness, 100), ("mass", self.mass, 1)):
            for box, value in zip(boxes, getattr(rules, measure), strict=True):
                _show(box, scale * value)
        _show(self.gain, rules.gain)
        for tick, held in ((self.gastric, rules.gastric), (self.biopsy, rules.biopsy)):
            tick.blockSignals(True)
            tick.setChecked(held)
            tick.blockSignals(False)
        self.biopsy.setEnabled(rules.gastric)

    def set_note(self, text: str) -> None:
        """Show what differs from the specification; empty for nothing."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def move(self, measure: Measure, place: int, value: float) -> None:
        """Take a threshold from the user; those of other classes make way for it.

        Parameters
        ----------
        measure : str
        place : int
            0, 1, 2 for 1+, 2+, 3+.
        value : float
        """
        moved = made_way(getattr(self._rules, measure), place, value)
        if measure == "completeness":
            self._take(replace(self._rules, completeness=moved))
        else:
            self._take(replace(self._rules, mass=moved))

    def _arrange(self) -> None:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(4)
        grid.setVerticalSpacing(2)
        for column, name in enumerate(CLASSES[1:], start=1):
            grid.addWidget(Label(name), 0, column)
            grid.setColumnStretch(column, 1)
        for row, title, boxes in ((1, "Complete %", self.completeness), (2, "Mass/gain", self.mass)):
            grid.addWidget(Label(title), row, 0)
            for column, box in enumerate(boxes, start=1):
                grid.addWidget(box, row, column)
        grid.addWidget(Label("Gain"), 3, 0)
        grid.addWidget(self.gain, 3, 1)
        ticks = QHBoxLayout()
        ticks.addWidget(self.gastric)
        ticks.addWidget(self.biopsy)
        ticks.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(grid)
        layout.addLayout(ticks)
        layout.addWidget(self.note)
        layout.addWidget(self.reset)

    def _connect(self) -> None:
        for place, box in enumerate(self.completeness):
            box.valueChanged.connect(lambda value, at=place: self.move("completeness", at, value / 100))
        for place, box in enumerate(self.mass):
            box.valueChanged.connect(lambda value, at=place: self.move("mass", at, value))
        self.gain.valueChanged.connect(lambda value: self._take(replace(self._rules, gain=value)))
        self.gastric.toggled.connect(
            lambda on: self._take(replace(self._rules, gastric=on, biopsy=on and self._rules.biopsy))
        )
        self.biopsy.toggled.connect(lambda on: self._take(replace(self._rules, biopsy=on)))
        self.reset.clicked.connect(self.reset_wanted)

    def _take(self, rules: Rules) -> None:
        if rules != self._rules:
            self.set_rules(rules)
            self.changed.emit(rules)


def made_way(thresholds: tuple[float, float, float], place: int, value: float) -> tuple[float, float, float]:
    """Return thresholds with one moved: those below are at most as high, those above at least.

    Examples
    --------
    >>> made_way((0.33, 0.60, 0.65), 0, 0.62)
    (0.62, 0.62, 0.65)
    """
    low, middle, high = (
        value if at == place else min(held, value) if at < place else max(held, value)
        for at, held in enumerate(thresholds)
    )
    return low, middle, high


def _percent(name: str) -> QDoubleSpinBox:
    box = _number(name, 0.0, 100.0)
    box.setDecimals(1)
    box.setSingleStep(1.0)
    return box


def _number(name: str, least: float, most: float) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setDecimals(3)
    box.setRange(least, most)
    box.setSingleStep(0.01)
    # While a number is typed its first digits are no wish: 7 of 70 would push the others down.
    box.setKeyboardTracking(False)
    box.setAccessibleName(name)
    return box


def _show(box: QDoubleSpinBox, value: float) -> None:
    box.blockSignals(True)
    box.setValue(value)
    box.blockSignals(False)
