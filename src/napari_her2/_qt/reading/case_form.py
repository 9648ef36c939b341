"""What a reader enters of a case: score, percentage, ISH, comment; all of it by keyboard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QButtonGroup,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QLineEdit,
    QRadioButton,
    QWidget,
)

from napari_her2._qt.parts.text import Label
from napari_her2.desk.own_score import ISH_RESULTS, SCORES
from napari_her2.reading.readings import COMMENT_MOST, ULTRALOW

if TYPE_CHECKING:
    from napari_her2.reading.readings import Reading

_KEYS = dict(zip(SCORES[1:], ("0", "U", "1", "2", "3"), strict=True))
_NOT_GIVEN = -1.0


@dataclass(frozen=True, slots=True)
class Entered:
    """What stands in the form.

    Parameters
    ----------
    score, ish, comment : str
    percentage : float or None
    """

    score: str
    percentage: float | None
    ish: str
    comment: str


class CaseForm(QWidget):
    """Score, percentage, ISH and comment of one case.

    Attributes
    ----------
    changed : Signal()
        The reader entered something.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.scores = _Choice([(score, f"{_caption(score)}  ({_KEYS[score]})") for score in SCORES[1:]])
        self.ish = _Choice([(result, result or "not given") for result in ISH_RESULTS], columns=2)
        self.percentage = QDoubleSpinBox()
        self.percentage.setRange(_NOT_GIVEN, 100.0)
        self.percentage.setSpecialValueText("not given")
        self.percentage.setDecimals(0)
        self.percentage.setSuffix(" %")
        self.percentage.setToolTip("Tumour cells with membrane staining of any strength, in per cent")
        self.comment = QLineEdit()
        self.comment.setMaxLength(COMMENT_MOST)
        self.comment.setToolTip("Kept with the reading. Enter saves and goes on")
        self.shortcuts = [self._shortcut(key, score) for score, key in _KEYS.items()]
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        heading = Label("Score")
        heading.setBuddy(self.scores)
        self.scores.setAccessibleName("Score")
        layout.addRow(heading)
        layout.addRow(self.scores)  # as wide as the dock
        rows = (
            ("&Stained cells", self.percentage),
            ("ISH", self.ish),
            ("&Comment", self.comment),
        )
        for caption, widget in rows:
            label = Label(caption)
            label.setBuddy(widget)
            widget.setAccessibleName(caption.replace("&", ""))
            layout.addRow(label, widget)
        for signal in (self.scores.changed, self.ish.changed):
            signal.connect(self.changed)
        self.percentage.valueChanged.connect(self.changed)
        self.comment.textEdited.connect(self.changed)
        self.clear()

    @property
    def entered(self) -> Entered:
        """What stands in the form."""
        percentage = self.percentage.value()
        return Entered(
            self.scores.value,
            None if percentage < 0 else percentage,
            self.ish.value,
            self.comment.text().strip(),
        )

    def clear(self) -> None:
        """Let nothing stand in it."""
        self._show("", None, "", "")

    def show_reading(self, reading: Reading) -> None:
        """Let an earlier reading stand in it, to be corrected."""
        self._show(reading.score, reading.percentage, reading.ish, reading.comment)

    def set_open(self, open_: bool) -> None:
        """Let something be entered, or not."""
        self.setEnabled(open_)
        for shortcut in self.shortcuts:
            shortcut.setEnabled(open_)

    def _show(self, score: str, percentage: float | None, ish: str, comment: str) -> None:
        self.scores.choose(score)
        self.ish.choose(ish)
        self.percentage.blockSignals(True)
        self.percentage.setValue(_NOT_GIVEN if percentage is None else percentage)
        self.percentage.blockSignals(False)
        self.comment.setText(comment)

    def _shortcut(self, key: str, score: str) -> QShortcut:
        # Anywhere in napari, also over the slide; a field that takes text keeps the key for itself.
        shortcut = QShortcut(QKeySequence(key), self)
        shortcut.setContext(Qt.ShortcutContext.ApplicationShortcut)
        shortcut.activated.connect(partial(_pick, self.scores, score))
        return shortcut


class _Choice(QWidget):
    """Radio buttons, of which none need be chosen.

    Parameters
    ----------
    choices : list of (str, str)
        Value and caption.
    columns : int
    """

    changed = Signal()

    def __init__(self, choices: list[tuple[str, str]], *, columns: int = 1) -> None:
        super().__init__()
        self._group = QButtonGroup(self)
        self._values: list[str] = []
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(2)
        for value, caption in choices:
            button = QRadioButton(caption)
            button.setAccessibleName(caption)
            self._group.addButton(button, len(self._values))
            self._values.append(value)
            at = len(self._values) - 1
            layout.addWidget(button, at // columns, at % columns)
        self._group.idClicked.connect(self._on_click)
        self.setFocusProxy(self._group.button(0))

    @property
    def value(self) -> str:
        """What is chosen; empty where nothing is."""
        at = self._group.checkedId()
        return self._values[at] if at >= 0 else ""

    def choose(self, value: str) -> None:
        """Choose a value; one that is not there leaves nothing chosen."""
        self._group.setExclusive(False)
        for button in self._group.buttons():
            button.setChecked(False)
        self._group.setExclusive(True)
        if value in self._values:
            self._group.button(self._values.index(value)).setChecked(True)

    def pick(self, value: str) -> None:
        """Choose a value as the reader does."""
        self.choose(value)
        self.changed.emit()

    def _on_click(self, _at: int) -> None:
        self.changed.emit()


def _pick(choice: _Choice, value: str) -> None:
    choice.pick(value)


def _caption(score: str) -> str:
    return f"{score}: ultralow" if score == ULTRALOW else score
