"""The table of a list: found by words, state and doubt, sorted by any column, opened by Enter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_her2._qt.day_list.rows_model import COLUMNS, DOUBT, OWN, REASON, RowsFilter, RowsModel
from napari_her2._qt.parts.text import Combo, Label
from napari_her2.cohort.day_items import STATES

if TYPE_CHECKING:
    from qtpy.QtCore import QPoint

    from napari_her2._napari.day_work import Day
    from napari_her2._qt.parts.theme import Colours

_WIDTHS_PX = (78, 84, 120, 120, 70, 160, 90, 70, 150, 240)
_ROW_PX = 24
_TYPING_MS = 150
_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class RowsView(QWidget):
    """Table with what finds rows in it.

    Attributes
    ----------
    open_wanted : Signal(int)
        The slides of an item are to be shown, with its result.
    retry_wanted, leave_out_wanted : Signal(list of int)
    export_wanted : Signal()
    """

    open_wanted = Signal(int)
    retry_wanted = Signal(object)
    leave_out_wanted = Signal(object)
    export_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows = RowsModel()
        self.shown = RowsFilter(self.rows)
        self.text = QLineEdit()
        self.state = Combo("State of the rows")
        self.doubtful = QCheckBox("&Doubtful only")
        self.view = QTableView()
        self.count, self.details = Label(), Label(wrap=True, selectable=True)
        self.open, self.retry, self.leave, self.export = (
            QPushButton(name) for name in ("&Open", "&Retry", "Leave out", "E&xport table…")
        )
        self._typing = QTimer(self)
        self._arrange()
        self._connect()
        self.set_day(None)

    def _arrange(self) -> None:
        self.text.setPlaceholderText("Find …")
        self.text.setAccessibleName("Find rows by words")
        self.text.setClearButtonEnabled(True)
        self.text.setToolTip("Words that all stand somewhere in the row")
        self.state.setMinimumContentsLength(9)
        self.state.addItem("all states", "")
        for name in STATES:
            self.state.addItem(name, name)
        self.doubtful.setToolTip(
            "Answers that are withheld, indeterminate or leave several scores possible, slides that are "
            "unfamiliar or of which that is not known, and slides that failed"
        )
        self.open.setToolTip("Open the slides of the row with its maps; nothing is scored again (Enter)")
        self.retry.setToolTip("Let the marked rows that failed or were refused wait again")
        self.leave.setToolTip("Skip the marked rows that wait")
        self.export.setToolTip("Write the rows that are shown, in their order, as CSV or XLSX")
        self._typing.setSingleShot(True)
        self._typing.setInterval(_TYPING_MS)
        self._set_up_table()
        top, bottom = QHBoxLayout(), QHBoxLayout()
        top.addWidget(self.text, 1)
        top.addWidget(self.state)
        for button in (self.open, self.retry, self.leave, self.export):
            bottom.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        beside = QHBoxLayout()
        beside.addWidget(self.doubtful)
        beside.addStretch()
        beside.addWidget(self.count)
        layout.addLayout(beside)
        layout.addWidget(self.view)
        layout.addWidget(self.details)
        layout.addLayout(bottom)

    def _set_up_table(self) -> None:
        view = self.view
        view.setModel(self.shown)
        view.setAccessibleName("Rows of the list")
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        view.setSortingEnabled(True)
        view.setWordWrap(False)
        view.setTabKeyNavigation(False)
        view.setMinimumHeight(260)
        view.verticalHeader().setVisible(False)
        # All rows are of one height: asking each of some thousand for its own takes seconds.
        view.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        view.verticalHeader().setDefaultSectionSize(max(_ROW_PX, view.fontMetrics().height() + 6))
        header = view.horizontalHeader()
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setSectionsMovable(True)
        for column, width in enumerate(_WIDTHS_PX):
            view.setColumnWidth(column, width)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        view.installEventFilter(self)

    def _connect(self) -> None:
        self.text.textChanged.connect(lambda: self._typing.start())
        self._typing.timeout.connect(self.filter)
        self.state.currentIndexChanged.connect(self.filter)
        self.doubtful.toggled.connect(self.filter)
        self.view.doubleClicked.connect(self._open_current)
        self.view.customContextMenuRequested.connect(self._show_menu)
        self.open.clicked.connect(self._open_current)
        self.retry.clicked.connect(lambda: self.retry_wanted.emit(self.marked()))
        self.leave.clicked.connect(lambda: self.leave_out_wanted.emit(self.marked()))
        self.export.clicked.connect(self.export_wanted)
        self.view.selectionModel().selectionChanged.connect(self.show_details)
        self.rows.dataChanged.connect(self.show_details)

    def set_day(self, day: Day | None) -> None:
        """Show another list."""
        self.rows.set_day(day)
        self.setVisible(day is not None)
        self.filter()

    def filter(self) -> None:
        """Show the rows that are asked for."""
        state = str(self.state.currentData() or "")
        self.shown.show_only(self.text.text(), state, doubtful=self.doubtful.isChecked())
        total, found = self.rows.rowCount(), self.shown.rowCount()
        self.count.setText(f"{found:,} of {total:,} rows" if found != total else f"{total:,} rows")
        self.show_details()

    def marked(self) -> list[int]:
        """Return the numbers of the items whose rows are marked."""
        rows = self.view.selectionModel().selectedRows()
        return sorted(map(self.shown.number_at, rows))

    def current(self) -> int:
        """Return the number of the one item that is marked; -1 where it is none, or several."""
        marked = self.marked()
        return marked[0] if len(marked) == 1 else -1

    def show_details(self) -> None:
        """Show the marked row in words, for what its columns are too narrow for."""
        number, rows = self.current(), self.rows
        day = rows.day
        item = None if day is None or number < 0 else day.queue.item(number)
        if item is None:
            self.details.setText("")
        else:
            facts = rows.facts(number)
            answer = "" if facts is None else facts.answer
            doubt = rows.text(number, DOUBT)
            parts = [rows.text(number, 0), "" if doubt.startswith(answer) else answer, doubt]
            own, reason = rows.text(number, OWN), rows.text(number, REASON)
            parts += [f"own score: {own}" if own else "", reason]
            self.details.setText("\n".join(part for part in dict.fromkeys(parts) if part))
        self.details.setVisible(bool(self.details.text()))
        self.open.setEnabled(item is not None and item.state == "done")
        self.leave.setEnabled(self._any_marked("waiting"))
        self.retry.setEnabled(day is not None and any(map(day.queue.can_retry, self.marked())))

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.rows.set_colours(colours)
        self.count.setStyleSheet(f"color: {colours.muted};")

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Open the marked row with Enter, which tables use for editing on some systems alone."""
        if watched is self.view and isinstance(event, QKeyEvent) and _is_enter(event):
            self._open_current()
            return True
        return bool(super().eventFilter(watched, event))

    def _any_marked(self, *states: str) -> bool:
        day = self.rows.day
        return day is not None and any(day.queue.item(number).state in states for number in self.marked())

    def _open_current(self) -> None:
        number = self.current()
        if number >= 0 and self.open.isEnabled():
            self.open_wanted.emit(number)

    def _show_menu(self, place: QPoint) -> None:
        from qtpy.QtWidgets import QMenu

        menu = QMenu(self.view)
        for button, name in ((self.open, "Open"), (self.retry, "Retry"), (self.leave, "Leave out")):
            action = menu.addAction(name)
            action.setEnabled(button.isEnabled())
            action.triggered.connect(partial(_click, button))
        menu.addSeparator()
        for column, name in enumerate(COLUMNS):
            action = menu.addAction(f"Show {name}")
            action.setCheckable(True)
            action.setChecked(not self.view.isColumnHidden(column))
            action.toggled.connect(partial(self._show_column, column))
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.view.viewport().mapToGlobal(place))

    def _show_column(self, column: int, shown: bool) -> None:
        self.view.setColumnHidden(column, not shown)


def _is_enter(event: QKeyEvent) -> bool:
    return bool(event.type() == QEvent.Type.KeyPress and event.key() in _ENTER)


def _click(button: QPushButton) -> None:
    button.click()
