"""The cases of a list before it runs: what was paired and why, what is refused, to be changed by the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, Qt
from qtpy.QtGui import QColor, QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_her2._napari.plain_text import one_line
from napari_her2._qt.parts.text import tip
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.cohort.entry import Entry

_COLUMNS = ("case", "H&E slide", "IHC slide", "note")
_PAIRED = {
    "names": "paired by their names",
    "pattern": "paired by your names",
    "table": "",
    "you": "changed by you",
}
_NOWHERE = QModelIndex()


class CasesModel(QAbstractTableModel):
    """Cases, each ticked where it is to be scored."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.taken: list[bool] = []
        self._colours = Colours()

    def set_entries(self, entries: Sequence[Entry]) -> None:
        """Show other cases; those with a problem are shown, with it."""
        self.beginResetModel()
        self.entries, self.taken = list(entries), [True] * len(entries)
        self.endResetModel()

    def chosen(self) -> tuple[Entry, ...]:
        """Return the cases that are ticked; those with a problem among them, so that none gets lost."""
        return tuple(entry for entry, taken in zip(self.entries, self.taken, strict=True) if taken)

    def swap(self, row: int) -> None:
        """Take the H&E slide for the IHC slide, and the reverse."""
        self.entries[row] = self.entries[row].swapped()
        self.dataChanged.emit(self.index(row, 0), self.index(row, len(_COLUMNS) - 1))

    def take(self, rows: Sequence[int], taken: bool) -> None:
        """Tick cases, or take the tick off."""
        for row in rows:
            self.taken[row] = taken
            self.dataChanged.emit(self.index(row, 0), self.index(row, 0))

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours

    def rowCount(self, parent: QModelIndex = _NOWHERE) -> int:
        """How many cases there are."""
        return 0 if parent.isValid() else len(self.entries)

    def columnCount(self, parent: QModelIndex = _NOWHERE) -> int:
        """How many columns there are."""
        return 0 if parent.isValid() else len(_COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: ANN401
        """Name of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return _COLUMNS[section]
        return None

    def flags(self, index: QModelIndex) -> Any:  # noqa: ANN401 - of Qt
        """Cases can be ticked."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: ANN401
        """Return what a cell shows."""
        if not index.isValid():
            return None
        entry = self.entries[index.row()]
        text = _cell(entry, index.column())
        if role == Qt.ItemDataRole.DisplayRole:
            return one_line(text)
        if role == Qt.ItemDataRole.ToolTipRole:
            paths = [str(path) for path in entry.slides]
            return tip("\n".join([entry.name, *paths, _cell(entry, 3)]))
        if role == Qt.ItemDataRole.CheckStateRole and index.column() == 0:
            return Qt.CheckState.Checked if self.taken[index.row()] else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ForegroundRole and entry.problem:
            return QColor(self._colours.error)
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:  # noqa: ANN401
        """Tick a case, or take the tick off."""
        if role != Qt.ItemDataRole.CheckStateRole or index.column() != 0:
            return False
        self.take([index.row()], Qt.CheckState(value) == Qt.CheckState.Checked)
        return True


class Cases(QWidget):
    """Table of the cases, with what can be changed before they are scored."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model = CasesModel()
        self.view = QTableView()
        self.view.setModel(self.model)
        self.view.setAccessibleName("Cases of the list")
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setWordWrap(False)
        self.view.verticalHeader().setVisible(False)
        self.view.setTabKeyNavigation(False)
        self.view.setMinimumHeight(140)
        header = self.view.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(True)
        self.swap = QPushButton("&Swap H&&E and IHC")
        self.swap.setToolTip(
            "The marked cases: take the H&E slide for the IHC slide, and the reverse (Ctrl+E)"
        )
        self.leave = QPushButton("Leave out")
        self.leave.setToolTip("Take the tick off the marked cases, or put it back (Space); their files stay")
        buttons = QHBoxLayout()
        buttons.addWidget(self.swap)
        buttons.addWidget(self.leave)
        buttons.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.view)
        layout.addLayout(buttons)
        self.swap.clicked.connect(self.swap_marked)
        self.leave.clicked.connect(self.turn_marked)
        keys = QShortcut(QKeySequence("Ctrl+E"), self.view, self.swap_marked)
        keys.setContext(Qt.ShortcutContext.WidgetShortcut)

    def marked(self) -> list[int]:
        """Return the rows that are marked."""
        selection = self.view.selectionModel()
        return [] if selection is None else sorted(index.row() for index in selection.selectedRows())

    def mark(self, rows: Sequence[int]) -> None:
        """Mark rows, and no others."""
        selection = self.view.selectionModel()
        selection.clear()
        for row in rows:
            selection.select(
                self.model.index(row, 0),
                QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows,
            )

    def swap_marked(self) -> None:
        """Swap the stains of the marked cases."""
        for row in self.marked():
            self.model.swap(row)

    def turn_marked(self) -> None:
        """Take the tick off the marked cases; where none has one, put it back."""
        rows = self.marked()
        self.model.take(rows, not any(self.model.taken[row] for row in rows))

    def set_entries(self, entries: Sequence[Entry]) -> None:
        """Show other cases."""
        self.model.set_entries(entries)
        for column, width in enumerate((90, 130, 130)):
            self.view.setColumnWidth(column, width)
        self.setVisible(bool(entries))

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.model.set_colours(colours)


def _cell(entry: Entry, column: int) -> str:
    if column == 0:
        return entry.name
    if column in (1, 2):
        path = entry.he if column == 1 else entry.ihc
        unknown = column == 1 and path is not None and not entry.stain_known
        return "" if path is None else f"{path.name}{' (stain not known)' if unknown else ''}"
    if entry.problem:
        return f"refused: {entry.problem}"
    return "; ".join(text for text in (_PAIRED.get(entry.because, ""), entry.note) if text)
