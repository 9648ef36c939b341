"""One cell: its numbers, its membrane all around, why it has its class, and the way to the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.cell_profile import CellProfile
from napari_her2._qt.scoring.cell_words import cell_lines

if TYPE_CHECKING:
    from napari_her2.cells.reading import CellReading


class CellInspector(QWidget):
    """Shows the cell that was clicked, or walked to.

    Attributes
    ----------
    show_wanted : Signal()
        The user wants to see the cell on the slide.
    step_wanted : Signal(int)
        The user wants the next (1) or the previous (-1) of the cells that decide.
    """

    show_wanted = Signal()
    step_wanted = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hint = Label("Click a cell on the slide to see why it has its class.", wrap=True)
        self.hover = Label(wrap=True)
        self.profile = CellProfile()
        self.why = Label(wrap=True, selectable=True)
        self.numbers = Label(wrap=True, selectable=True)
        self.walked = Label(wrap=True)
        self.previous, self.next = QPushButton("◀ Previous"), QPushButton("Next ▶")
        self.show_on_slide = QPushButton("Go to")
        self.show_on_slide.setToolTip("Move the view to this cell")
        self.set_keys(())
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.previous, self.show_on_slide, self.next):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.hint, self.hover, self.profile, self.why, self.numbers, self.walked):
            layout.addWidget(widget)
        layout.addLayout(row)
        self.previous.clicked.connect(lambda: self.step_wanted.emit(-1))
        self.next.clicked.connect(lambda: self.step_wanted.emit(1))
        self.show_on_slide.clicked.connect(self.show_wanted)
        self.set_colours(Colours())
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for label in (self.hint, self.hover, self.numbers, self.walked):
            label.setStyleSheet(f"color: {colours.muted};")
        self.profile.set_colours(colours)

    def set_keys(self, keys: tuple[str, ...]) -> None:
        """Say which keys of the viewer walk: (next, previous), or none."""
        tips = ("The next cell that decides, farther from a threshold", "The one before")
        for button, tip, key in zip((self.next, self.previous), tips, keys or ("", ""), strict=True):
            button.setToolTip(f"{tip} (key {key})" if key else tip)

    def set_hover(self, text: str) -> None:
        """Tell the cell under the cursor."""
        self.hover.setText(text)

    def set_walk(self, text: str) -> None:
        """Tell which of the cells that decide it is: "cell 3 of 500 nearest to a threshold"."""
        self.walked.setText(text)

    def set_cell(self, reading: CellReading, number: int) -> None:
        """Show a cell.

        Parameters
        ----------
        reading : CellReading
        number : int
        """
        self.profile.set_cell(reading, number)
        sentence, *numbers = cell_lines(reading, number)
        self.why.setText(sentence)
        self.numbers.setText("\n".join(numbers))
        self._show_parts(chosen=True)

    def clear(self) -> None:
        """Show no cell."""
        self.hover.clear()
        self.walked.clear()
        self._show_parts(chosen=False)

    def _show_parts(self, *, chosen: bool) -> None:
        self.hint.setVisible(not chosen)
        for widget in (self.profile, self.why, self.numbers):
            widget.setVisible(chosen)
        self.show_on_slide.setEnabled(chosen)
