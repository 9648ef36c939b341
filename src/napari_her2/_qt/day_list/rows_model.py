"""Rows of a list, one a case and model, as a table of Qt: quick to sort and filter at some thousand rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor

from napari_her2._napari.plain_text import one_line
from napari_her2._qt.parts.text import tip
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from napari_her2._napari.day_work import Day
    from napari_her2.cohort.day_rows import RowFacts

CASE, STATE, SCORE, MODEL, OWN, DOUBT, FAMILIARITY, QUALITY, SLIDES, REASON = range(10)
COLUMNS = (
    *("case", "state", "score", "model", "own score", "doubt", "familiarity", "quality", "slides", "reason"),
)
_TIPS = {
    SCORE: "What the model answers; its set of scores, or that the answer is withheld",
    OWN: "What you entered as your own score for a slide of the case; never mixed with the model's",
    DOUBT: "How far the answer can be trusted; the most doubtful first",
    FAMILIARITY: "Whether the slide looks like what the model learnt from",
    QUALITY: "Share of the tissue that is poor (out of focus, pen, folds, ...), and whether it was left out",
}
_NOWHERE = QModelIndex()
_LAST = (9.0,)  # behind every doubt


class RowsModel(QAbstractTableModel):
    """A list as it stands; a row for each item of the queue, in an order of its own.

    Items are meant by their number in the queue. The model sorts itself, by Python's own sort: asked for each
    pair of rows, as a proxy of Qt does, some thousand rows would take half a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.day: Day | None = None
        self._order: list[int] = []
        self._row_of: dict[int, int] = {}
        self._texts: dict[int, tuple[str, ...]] = {}
        self._progress: dict[int, str] = {}
        self._read = 0
        self._colours = Colours()

    def set_day(self, day: Day | None) -> None:
        """Show another list."""
        self.beginResetModel()
        self.day, self._progress, self._texts = day, {}, {}
        self._read = 0 if day is None else len(day.queue.changes)
        self._put_in_order([] if day is None else list(range(len(day.queue.items))))
        self.endResetModel()

    def number_at(self, row: int) -> int:
        """Return the number of the item in a row."""
        return self._order[row]

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort the rows; by no column (-1) as the cases are listed."""
        self.layoutAboutToBeChanged.emit()
        kept = self.persistentIndexList()
        numbers = [self._order[index.row()] for index in kept]
        found = list(range(len(self._order)))
        if column >= 0:
            found.sort(
                key=lambda number: self.key(number, column), reverse=order == Qt.SortOrder.DescendingOrder
            )
        self._put_in_order(found)
        moved = [
            self.index(self._row_of[number], index.column())
            for number, index in zip(numbers, kept, strict=True)
        ]
        self.changePersistentIndexList(kept, moved)
        self.layoutChanged.emit()

    def _put_in_order(self, numbers: list[int]) -> None:
        self._order = numbers
        self._row_of = {number: row for row, number in enumerate(numbers)}

    def catch_up(self) -> None:
        """Show what changed since the last time."""
        if self.day is None:
            return
        changes = self.day.queue.changes
        changed, self._read = changes[self._read :], len(changes)
        for number in dict.fromkeys(changed):
            self._progress.pop(number, None)
            self._changed(number)

    def show_progress(self, number: int, words: str) -> None:
        """Show how far a slide is, in place of its state."""
        if self.day is not None and self.day.queue.item(number).state == "running":
            self._progress[number] = words
            self._changed(number)

    def show_own(self, fingerprint: str) -> None:
        """Show an own score that was entered for a slide."""
        if self.day is not None:
            for number, facts in list(self.day.facts.items()):
                if facts is not None and fingerprint in facts.fingerprints:
                    self._changed(number)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours

    def facts(self, number: int) -> RowFacts | None:
        """Return what the result of an item says; None where there is none."""
        return None if self.day is None else self.day.facts.get(number)

    def rowCount(self, parent: QModelIndex = _NOWHERE) -> int:
        """How many rows there are."""
        return 0 if parent.isValid() or self.day is None else len(self.day.queue.items)

    def columnCount(self, parent: QModelIndex = _NOWHERE) -> int:
        """How many columns there are."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: ANN401
        """Name of a column, and what it means."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        return tip(_TIPS[section]) if role == Qt.ItemDataRole.ToolTipRole and section in _TIPS else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: ANN401
        """Return what a cell shows."""
        if self.day is None or not index.isValid():
            return None
        number, column = self._order[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return one_line(self.text(number, column))
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip(self.text(number, column))
        if role == Qt.ItemDataRole.ForegroundRole:
            return self._colour(number, column)
        return None

    def text(self, number: int, column: int) -> str:
        """Return the words of a cell."""
        return self.texts(number)[column]

    def texts(self, number: int) -> tuple[str, ...]:
        """Return the words of all cells of an item; remembered until it changes."""
        known = self._texts.get(number)
        if known is None and self.day is not None:
            known = self._texts[number] = _texts(self.day, number, self._progress.get(number, ""))
        return known or ("",) * len(COLUMNS)

    def key(self, number: int, column: int) -> tuple[Any, ...]:
        """Return what a row is sorted by; of equals their order in the list stays."""
        facts = self.facts(number)
        if column == DOUBT:
            return _LAST if facts is None else facts.doubt
        if column == FAMILIARITY:
            value = None if facts is None else facts.familiarity_value
            return (1, 0.0) if value is None else (0, value)
        if column == QUALITY:
            share = None if facts is None else facts.poor
            return (1, 0.0) if share is None else (0, -share)
        text = self.text(number, column)
        return (not text, text.casefold())

    def doubtful(self, number: int) -> bool:
        """Whether an answer is doubtful, or there is none because the slide failed."""
        facts = self.facts(number)
        failed = self.day is not None and self.day.queue.item(number).state == "failed"
        return failed if facts is None else facts.doubtful

    def _colour(self, number: int, column: int) -> QColor | None:
        item = None if self.day is None else self.day.queue.item(number)
        if item is None:
            return None
        if item.state in ("failed", "skipped") and column in (STATE, REASON):
            return QColor(self._colours.error if item.state == "failed" else self._colours.muted)
        facts = self.facts(number)
        if facts is not None and facts.doubtful and column in (SCORE, DOUBT):
            return QColor(self._colours.warning)
        return None

    def _changed(self, number: int) -> None:
        self._texts.pop(number, None)
        row = self._row_of[number]
        self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))


class RowsFilter(QSortFilterProxyModel):
    """Which rows are shown, and in which order."""

    def __init__(self, rows: RowsModel) -> None:
        super().__init__()
        self._rows = rows
        self._words, self._state, self._doubtful = list[str](), "", False
        self.setSourceModel(rows)

    def show_only(self, text: str, state: str, *, doubtful: bool) -> None:
        """Show rows that hold a text, are in a state and, if wished, doubtful.

        Parameters
        ----------
        text : str
            Words that all stand somewhere in the row, upper and lower case alike; empty for any row.
        state : str
            Empty for any.
        doubtful : bool
        """
        self._words, self._state, self._doubtful = text.casefold().split(), state, doubtful
        self.invalidateFilter()  # marks stay on the rows that stay

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Let the list sort itself; the rows that are shown stand in its order."""
        self._rows.sort(column, order)

    def numbers(self) -> list[int]:
        """Return the items that are shown, in the order of their rows."""
        rows = (self.mapToSource(self.index(row, 0)).row() for row in range(self.rowCount()))
        return [self._rows.number_at(row) for row in rows]

    def number_at(self, index: QModelIndex) -> int:
        """Return the item that a place of the table shows."""
        return self._rows.number_at(self.mapToSource(index).row())

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex) -> bool:
        """Whether a row is shown."""
        del source_parent
        day, number = self._rows.day, self._rows.number_at(source_row)
        if day is None or (self._state and day.queue.item(number).state != self._state):
            return False
        if self._doubtful and not self._rows.doubtful(number):
            return False
        if not self._words:
            return True
        texts = "\n".join(self._rows.texts(number)).casefold()
        return all(word in texts for word in self._words)


def _texts(day: Day, number: int, progress: str) -> tuple[str, ...]:
    """Words of all cells of an item."""
    item, facts = day.queue.item(number), day.facts.get(number)
    entry = day.queue.entry_of(item)
    own = {
        CASE: entry.name,
        STATE: progress or item.state,
        MODEL: day.queue.model_of(item).name,
        SLIDES: " + ".join(path.name for path in entry.slides),
        REASON: item.reason or entry.note,
    }
    return tuple(
        own[column] if column in own else "" if facts is None else _answer(facts, column, day)
        for column in range(len(COLUMNS))
    )


def _answer(facts: RowFacts, column: int, day: Day) -> str:
    if column == SCORE:
        if not facts.score:
            return facts.answer
        sets = facts.answer_set if facts.answer_set not in ("", facts.score) else ""
        shown_anyway = facts.cells["withheld"] == "shown anyway"
        anyway = "shown though withheld" if shown_anyway else ""
        more = "; ".join(text for text in (sets, anyway) if text)
        return f"{facts.score} ({more})" if more else facts.score
    if column == OWN:
        own = day.own_score(facts)
        return ", ".join(part for part in (own.score, f"ISH {own.ish}" if own.ish else "") if part)
    if column == DOUBT:
        return facts.doubt_words
    if column == FAMILIARITY:
        return facts.familiarity
    if column == QUALITY:
        if facts.poor is None:
            return ""
        reasons = f" ({facts.poor_for})" if facts.poor_for else ""
        return f"{facts.poor:.1%} poor, {'left out' if facts.poor_left_out else 'scored'}{reasons}"
    return ""
