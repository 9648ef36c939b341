"""The models of a list: one or several, ticked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_her2._napari.plain_text import one_line
from napari_her2._qt.parts.text import Label, tip
from napari_her2.methods.catalogue import method_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.models.registry import ModelEntry

_MOST_ROWS = 6


class ModelTicks(QWidget):
    """List of the models there are.

    Attributes
    ----------
    changed : Signal()
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: list[ModelEntry] = []
        self.list = QListWidget()
        self.list.setAccessibleName("Models to score with")
        self.list.setToolTip("Each ticked model scores what it takes of every case")
        self.words = Label("Looking for models …", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.words)
        layout.addWidget(self.list)
        self.list.itemChanged.connect(self.changed)
        self.list.setVisible(False)

    def set_models(self, entries: Sequence[ModelEntry]) -> None:
        """Show the models there are; what was ticked stays ticked."""
        ticked = {entry.name for entry in self.chosen()}
        self._entries = list(entries)
        self.list.blockSignals(True)
        self.list.clear()
        for entry in entries:
            method = method_of(entry.card)
            item = QListWidgetItem(one_line(f"{entry.name} · {entry.card.stain}"))
            item.setToolTip(tip(f"{entry.card.task}\n{method.sees(entry.card)}\n{entry.card.training_data}"))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if entry.name in ticked else Qt.CheckState.Unchecked)
            self.list.addItem(item)
        self.list.blockSignals(False)
        rows = min(len(entries), _MOST_ROWS)
        self.list.setFixedHeight(rows * max(self.list.sizeHintForRow(0), 18) + 8)
        self.list.setVisible(bool(entries))
        self.words.setVisible(not entries)
        self.words.setText("No model is installed. Add one in HER2 Scoring.")
        self.changed.emit()

    def chosen(self) -> tuple[ModelEntry, ...]:
        """Return the models that are ticked."""
        items = (self.list.item(row) for row in range(self.list.count()))
        ticks = [item is not None and item.checkState() == Qt.CheckState.Checked for item in items]
        return tuple(entry for entry, ticked in zip(self._entries, ticks, strict=True) if ticked)

    def tick(self, names: Sequence[str]) -> None:
        """Tick models by name, and no others."""
        for row, entry in enumerate(self._entries):
            item = self.list.item(row)
            if item is not None:
                state = Qt.CheckState.Checked if entry.name in names else Qt.CheckState.Unchecked
                item.setCheckState(state)
