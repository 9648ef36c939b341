"""Rows of a list, one a case and model, as a table of Qt: quick to sort and filter at some thousand rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor

from napari_her2._napari.plain_text import one_line
from napari_her2._qt.parts.text import tip
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    """A list as it stands; rows are the items of the queue, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.day: Day | None = None
        self._progress: dict[int, str] = {}
        self._read = 0
        self._colours = Colours()

    def set_day(self, day: Day | None) -> None:
        """Show another list."""
        self.beginResetModel()
        self.day, self._progress = day, {}
        self._read = 0 if day is None else len(day.queue.changes)
        self.endResetModel()

    def catch_up(self) -> None:
        """Show what changed since the last time."""
        if self.day is None:
            return
        changes = self.day.queue.changes
        changed, self._read = changes[self._read :], len(changes)
        for row in dict.fromkeys(changed):
            self._progress.pop(row, None)
            self._changed(row)

    def show_progress(self, row: int, words: str) -> None:
        """Show how far a slide is, in place of its state."""
        if self.day is not None and self.day.queue.items[row].state == "running":
            self._progress[row] = words
            self._changed(row)

    def show_own(self, fingerprint: str) -> None:
        """Show an own score that was entered for a slide."""
        if self.day is not None:
            for row, facts in list(self.day.facts.items()):
                if facts is not None and fingerprint in facts.fingerprints:
                    self._changed(row)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours

    def facts(self, row: int) -> RowFacts | None:
        """Return what the result of a row says; None where there is none."""
        return None if self.day is None else self.day.facts.get(row)

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
        row, column = index.row(), index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return one_line(self.text(row, column))
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip(self.text(row, column))
        if role == Qt.ItemDataRole.ForegroundRole:
            return self._colour(row, column)
        return None

    def text(self, row: int, column: int) -> str:
        """Return the words of a cell."""
        day = self.day
        if day is None:
            return ""
        item = day.queue.items[row]
        entry = day.queue.entry_of(item)
        if column == CASE:
            return entry.name
        if column == MODEL:
            return day.queue.model_of(item).name
        if column == STATE:
            return self._progress.get(row, item.state)
        if column == SLIDES:
            return " + ".join(path.name for path in entry.slides)
        if column == REASON:
            return item.reason or entry.note
        facts = self.facts(row)
        return "" if facts is None else _answer(facts, column, day)

    def key(self, row: int, column: int) -> tuple[Any, ...]:
        """Return what a row is sorted by; of equals their order in the list stays."""
        facts = self.facts(row)
        if column == DOUBT:
            return _LAST if facts is None else facts.doubt
        if column == FAMILIARITY:
            value = None if facts is None else facts.familiarity_value
            return (1, 0.0) if value is None else (0, value)
        if column == QUALITY:
            share = None if facts is None else facts.poor
            return (1, 0.0) if share is None else (0, -share)
        text = self.text(row, column)
        return (not text, text.casefold())

    def doubtful(self, row: int) -> bool:
        """Whether an answer is doubtful, or there is none because the slide failed."""
        facts = self.facts(row)
        failed = self.day is not None and self.day.queue.items[row].state == "failed"
        return failed if facts is None else facts.doubtful

    def _colour(self, row: int, column: int) -> QColor | None:
        item = None if self.day is None else self.day.queue.items[row]
        if item is None:
            return None
        if item.state in ("failed", "skipped") and column in (STATE, REASON):
            return QColor(self._colours.error if item.state == "failed" else self._colours.muted)
        facts = self.facts(row)
        if facts is not None and facts.doubtful and column in (SCORE, DOUBT):
            return QColor(self._colours.warning)
        return None

    def _changed(self, row: int) -> None:
        self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))


class RowsFilter(QSortFilterProxyModel):
    """Which rows are shown, and in which order."""

    def __init__(self, rows: RowsModel) -> None:
        super().__init__()
        self._rows = rows
        self._text, self._state, self._doubtful = "", "", False
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
        self.beginResetModel()
        self._text, self._state, self._doubtful = text.casefold(), state, doubtful
        self.endResetModel()

    def numbers(self) -> list[int]:
        """Return the rows of the list that are shown, in their order."""
        return [self.mapToSource(self.index(row, 0)).row() for row in range(self.rowCount())]

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex) -> bool:
        """Whether a row is shown."""
        del source_parent
        day = self._rows.day
        if day is None:
            return False
        if self._state and day.queue.items[source_row].state != self._state:
            return False
        if self._doubtful and not self._rows.doubtful(source_row):
            return False
        return self._holds(source_row, self._text.split())

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:
        """Whether a row stands before another."""
        column = left.column()
        return bool(self._rows.key(left.row(), column) < self._rows.key(right.row(), column))

    def _holds(self, row: int, words: Iterable[str]) -> bool:
        words = list(words)
        if not words:
            return True
        texts = " ".join(self._rows.text(row, column) for column in range(len(COLUMNS))).casefold()
        return all(word in texts for word in words)


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
