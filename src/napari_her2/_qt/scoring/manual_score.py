"""Entry of the pathologist's own score and ISH result, beside the model's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QLineEdit, QWidget

from napari_her2._napari.manual import ISH_RESULTS, SCORES, ManualScore, category_beside
from napari_her2._qt.parts.text import Combo, Label

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult

_NOT_GIVEN = "not given"


class ManualScoreForm(QWidget):
    """Form of a ManualScore.

    Attributes
    ----------
    changed : Signal(ManualScore)
        The user changed an entry.
    """

    changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.score = _choice("Your IHC score", SCORES)
        self.score.setToolTip(
            "Your own reading of the HER2 IHC slide. It is stored beside the model's output, "
            "and never mixed with it."
        )
        self.ish = _choice("ISH result", ISH_RESULTS)
        self.ish.setToolTip(
            "Result of in situ hybridisation. No model here can tell it; it changes the category below, "
            "never the prediction."
        )
        self.note = QLineEdit()
        self.note.setAccessibleName("Note")
        self.note.setPlaceholderText("note")
        self._result: SlideResult | None = None
        self.category = Label(wrap=True)
        self.category.setToolTip(
            "Follows from your own score and the ISH result (ASCO/CAP 2018). Without your own score it says "
            "what the ISH result would mean for the predicted one, which does not change."
        )
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        rows = (
            ("Your score", self.score),
            ("ISH", self.ish),
            ("Note", self.note),
            ("Category", self.category),
        )
        for caption, widget in rows:
            label = Label(caption)  # the layout would make one that guesses what its text is
            label.setBuddy(widget)
            layout.addRow(label, widget)
        self.score.currentIndexChanged.connect(self._on_edit)
        self.ish.currentIndexChanged.connect(self._on_edit)
        self.note.editingFinished.connect(self._on_edit)
        self.set_value(ManualScore())

    def value(self) -> ManualScore:
        """Return what is entered."""
        return ManualScore(
            SCORES[self.score.currentIndex()], ISH_RESULTS[self.ish.currentIndex()], self.note.text().strip()
        )

    def set_result(self, result: SlideResult | None) -> None:
        """Take the result that stands beside these entries."""
        self._result = result
        self._show_category(self.value())

    def set_value(self, value: ManualScore) -> None:
        """Show entries, without reporting a change."""
        widgets = (self.score, self.ish, self.note)
        for widget in widgets:
            widget.blockSignals(True)
        self.score.setCurrentIndex(SCORES.index(value.score))
        self.ish.setCurrentIndex(ISH_RESULTS.index(value.ish))
        self.note.setText(value.note)
        for widget in widgets:
            widget.blockSignals(False)
        self._show_category(value)

    def _on_edit(self) -> None:
        value = self.value()
        self._show_category(value)
        self.changed.emit(value)

    def _show_category(self, value: ManualScore) -> None:
        self.category.setText(category_beside(value, self._result) or "–")


def _choice(name: str, values: tuple[str, ...]) -> Combo:
    box = Combo()
    box.setAccessibleName(name)
    box.addItems([value or _NOT_GIVEN for value in values])
    return box
