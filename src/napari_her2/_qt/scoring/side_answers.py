"""The answer inside the regions and that of the rest of the tissue, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent

    from napari_her2.inference.sides import Side, Sides

_ROWS = (("Inside", "inside the regions"), ("Outside", "in the rest of the tissue"))


class _Answer(Label):
    """A label of several lines, which a grid would not ask again for its height once it has its width."""

    def __init__(self) -> None:
        super().__init__(wrap=True)

    def setText(self, text: str) -> None:
        """Show an answer."""
        super().setText(text)
        self._make_room()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Take the height that the lines need at this width."""
        super().resizeEvent(event)
        self._make_room()

    def _make_room(self) -> None:
        self.setMinimumHeight(max(self.heightForWidth(self.width()), 0))


class SideAnswers(QWidget):
    """Two sides: where, the answer with its set, and below it what was counted and how much tissue it is."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: list[tuple[Label, Label]] = []
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        for at, (title, where) in enumerate(_ROWS):
            answer, amount = _Answer(), Label()
            answer.setAccessibleName(f"Answer {where}")
            amount.setAccessibleName(f"Tissue {where}")
            # Below each other: beside each other they would be wider than the dock.
            grid.addWidget(Label(title), 2 * at, 0)
            grid.addWidget(answer, 2 * at, 1)
            grid.addWidget(amount, 2 * at + 1, 1)
            self.rows.append((answer, amount))
        grid.setColumnStretch(1, 1)
        self.table = QWidget()
        self.table.setLayout(grid)
        self.note = Label(wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.table)
        layout.addWidget(self.note)
        self.set_colours(Colours())
        self.set_sides(None)
        self.set_note("")

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.note.setStyleSheet(f"color: {colours.warning};")
        for _, amount in self.rows:
            amount.setStyleSheet(f"color: {colours.muted};")

    def set_sides(self, sides: Sides | None) -> None:
        """Show both sides; nothing where there are none."""
        self.table.setVisible(sides is not None)
        if sides is not None:
            for (answer, amount), side in zip(self.rows, (sides.inside, sides.outside), strict=True):
                answer.setText(side.answer)
                answer.setToolTip(side.trust)
                amount.setText(_amount(side))

    def set_inside(self, side: Side) -> None:
        """Show another answer inside, and that the one outside is not known yet."""
        if self.table.isHidden():
            return
        (answer, amount), (outer, outer_amount) = self.rows
        answer.setText(side.answer)
        answer.setToolTip(side.trust)
        amount.setText(_amount(side))
        outer.setText("once you stop drawing")
        outer.setToolTip("")
        outer_amount.setText("")

    def set_note(self, note: str) -> None:
        """Say what keeps the score from following the regions; empty for nothing."""
        self.note.setText(note)
        self.note.setVisible(bool(note))


def _amount(side: Side) -> str:
    if not side.counted and not side.tissue_mm2:
        return ""
    return f"{side.counted:,} {side.unit} · {side.tissue_mm2:.2f} mm²"
