"""From cell to cell: hovered, clicked, and in the order of those that decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._napari.cells import cell_at, mark_cell, show_cell
from napari_her2._napari.viewer_keys import ViewerKeys
from napari_her2._qt.parts.pointer import Pointer
from napari_her2._qt.scoring.cell_inspector import CellInspector
from napari_her2.cells.deciding import deciding_cells
from napari_her2.cells.words import cell_in_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2._napari.session import Session
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.cells.reading import CellReading

NEXT_KEY, PREVIOUS_KEY = "N", "Shift-N"
MOST_DECIDING = 500


class CellWalk(QWidget):
    """Shows the cell that is looked at, and leads to the next one that decides.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    chosen_changed : Signal()
    """

    chosen_changed = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._slide_id = ""
        self._reading: CellReading | None = None
        self._chosen: int | None = None
        self._order: NDArray[np.int64] | None = None
        self._place = -1
        self.inspector = CellInspector()
        viewer = session.viewer
        self.pointer = Pointer(viewer) if viewer is not None else None
        self.keys = (
            ViewerKeys(viewer, {NEXT_KEY: self.go_next, PREVIOUS_KEY: self.go_back})
            if viewer is not None
            else None
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.inspector)
        self.inspector.step_wanted.connect(self.step)
        self.inspector.show_wanted.connect(self.go_to_cell)
        if self.pointer is not None:
            self.pointer.moved.connect(self._on_moved)
            self.pointer.clicked.connect(self._on_clicked)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.inspector.set_colours(colours)

    @property
    def chosen(self) -> int | None:
        """Number of the cell that is shown."""
        return self._chosen

    def show_reading(self, slide_id: str, reading: CellReading | None) -> None:
        """Take the cells of a slide; the one that is shown stays, where they are the same cells.

        Parameters
        ----------
        slide_id : str
        reading : CellReading or None
        """
        before = self._reading
        same = reading is not None and before is not None and before.cells is reading.cells
        self._slide_id, self._reading, self._order = slide_id, reading, None
        if self.keys is not None:
            if reading is None:
                self.keys.release()
            else:
                self.keys.bind()
            self.inspector.set_keys(self.keys.held)
        if not same or reading is None:
            self._chosen, self._place = None, -1
            self.inspector.clear()
        elif self._chosen is not None:
            self.inspector.set_cell(reading, self._chosen)
            self.inspector.set_walk("")
            self._place = -1  # the order is another one now

    def inspect(self, number: int) -> None:
        """Show a cell.

        Parameters
        ----------
        number : int
        """
        if self._reading is None or not 0 <= number < len(self._reading.cells):
            return
        self._chosen, self._place = number, -1
        self.inspector.set_cell(self._reading, number)
        self.inspector.set_walk("")
        self.chosen_changed.emit()

    def go_next(self) -> None:
        """Go to the next cell that decides."""
        self.step(1)

    def go_back(self) -> None:
        """Go to the cell before, of those that decide."""
        self.step(-1)

    def step(self, step: int) -> None:
        """Go so many cells on in the order of those that decide, nearest to a threshold first.

        Who changed thresholds, or clicked another cell, goes on from where the cell now stands in the order,
        or from the first where it is not among them.

        Parameters
        ----------
        step : int
        """
        order = self._deciding()
        if self._reading is None or not len(order):
            self.inspector.set_walk("No cell counts: there is none to go to.")
            return
        place = self._place
        if place < 0 and self._chosen is not None:
            found = np.flatnonzero(order == self._chosen)
            place = int(found[0]) if len(found) else -1
        place = (place + step) % len(order) if place >= 0 else (0 if step > 0 else len(order) - 1)
        self.inspect(int(order[place]))
        self._place = place
        self.inspector.set_walk(f"Cell {place + 1} of the {len(order):,} nearest to a threshold")
        self.go_to_cell()

    def go_to_cell(self) -> None:
        """Move the view to the cell that is shown."""
        if self._chosen is not None:
            show_cell(self._session, self._slide_id, self._chosen)

    def shutdown(self) -> None:
        """Let go of the viewer."""
        if self.keys is not None:
            self.keys.release()
        if self.pointer is not None:
            self.pointer.stop()

    def _deciding(self) -> NDArray[np.int64]:
        if self._order is None:
            reading = self._reading
            self._order = np.zeros(0, np.int64) if reading is None else deciding_cells(reading, MOST_DECIDING)
        return self._order

    def _on_moved(self, position: tuple[float, float]) -> None:
        number = self._cell_at(position)
        words = "" if number < 0 or self._reading is None else cell_in_words(self._reading, number)
        self.inspector.set_hover(f"Under the cursor: {words}" if words else "")

    def _on_clicked(self, position: tuple[float, float]) -> None:
        number = self._cell_at(position)
        pairing = self._session.pairing
        if number >= 0 and not (pairing is not None and pairing.marking):
            self.inspect(number)
            mark_cell(self._session, self._slide_id, number)

    def _cell_at(self, position: tuple[float, float]) -> int:
        return -1 if self._reading is None else cell_at(self._session, self._slide_id, position)
