"""Entry of the pathologist's own score and ISH result, beside the model's output."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from magicgui import magicgui
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2.desk.own_score import ISH_RESULTS, SCORES, ManualScore, category_beside

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult

_FIELDS: dict[str, dict[str, Any]] = {
    "score": {
        "label": "Your score",
        "choices": [(value or "not given", value) for value in SCORES],
        "tooltip": "Your own reading of the HER2 IHC slide. It is stored beside the model's output, and "
        "never mixed with it.",
    },
    "ish": {
        "label": "ISH",
        "choices": [(value or "not given", value) for value in ISH_RESULTS],
        "tooltip": "Result of in situ hybridisation. No model here can tell it; it changes the category "
        "below, never the prediction.",
    },
    "note": {"label": "Note"},
}


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
        self._result: SlideResult | None = None
        self.fields = magicgui(ManualScore, call_button=False, **_FIELDS)
        self.category = Label(wrap=True)
        self.category.setToolTip(
            "Follows from your own score and the ISH result (ASCO/CAP 2018). Without your own score it says "
            "what the ISH result would mean for the predicted one, which does not change."
        )
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        rows = [(field.label, field.native) for field in self.fields]
        for caption, widget in (*rows, ("Category", self.category)):
            label = Label(caption)  # the layout would make one that guesses what its text is
            label.setBuddy(widget)
            widget.setAccessibleName(caption)
            layout.addRow(label, widget)
        self.score, self.ish, self.note = (widget for _, widget in rows)
        self.fields.score.changed.connect(self._on_edit)
        self.fields.ish.changed.connect(self._on_edit)
        self.note.editingFinished.connect(self._on_edit)
        self.set_value(ManualScore())

    def value(self) -> ManualScore:
        """Return what is entered."""
        entered = self.fields.asdict()
        return ManualScore(**entered | {"note": entered["note"].strip()})

    def set_result(self, result: SlideResult | None) -> None:
        """Take the result that stands beside these entries."""
        self._result = result
        self._show_category(self.value())

    def set_value(self, value: ManualScore) -> None:
        """Show entries, without reporting a change."""
        with self.fields.score.changed.blocked(), self.fields.ish.changed.blocked():
            self.fields.update(asdict(value))
        self._show_category(value)

    def _on_edit(self) -> None:
        value = self.value()
        self._show_category(value)
        self.changed.emit(value)

    def _show_category(self, value: ManualScore) -> None:
        self.category.setText(category_beside(value, self._result) or "–")
