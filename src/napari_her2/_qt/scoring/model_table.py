"""The results of several models for one slide, one row a model; a row leads to its overlays and its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_her2._napari.model_rows import ModelRow, cases_of, model_rows
from napari_her2._napari.plain_text import one_line
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import tip
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.session import Session
    from napari_her2.cohort.case_answer import CaseAnswer

COLUMNS = ("Model", "Answer", "Familiar", "Regions", "When")
_ROWS_SHOWN = 4
_CASE = "  Σ "
_SHOWN, _HIDDEN = "▸ ", "   "  # colour is not the only sign of the row that is shown


class ModelTable(QWidget):
    """Table of the models that scored a slide, and of the answers of its case where it has several slides.

    Hidden while there are fewer than two rows.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._slide_id = ""
        self._rows: list[ModelRow | CaseAnswer] = []
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setAccessibleName("Results of the models for this slide")
        self.table.setHorizontalHeaderLabels(list(COLUMNS))
        self.table.verticalHeader().setVisible(False)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setTabKeyNavigation(False)  # Tab leaves the table
        self.table.setWordWrap(False)
        # Model and answer are read without scrolling at the width of the dock; the rest is in the tip too.
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.show_result = QPushButton("Show")
        self.show_result.setToolTip("Show the overlays and the card of the chosen model (Enter)")
        self.show_result.setAccessibleName("Show the result of the chosen model")
        self.remove = QPushButton("Remove")
        self.remove.setToolTip("Forget the result of the chosen model (Delete); its files stay")
        self.remove.setAccessibleName("Remove the result of the chosen model")
        buttons = QHBoxLayout()
        buttons.addStretch()
        buttons.addWidget(self.show_result)
        buttons.addWidget(self.remove)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        self.table.cellClicked.connect(self._on_show)
        self.show_result.clicked.connect(self._on_show)
        self.remove.clicked.connect(self._on_remove)
        for keys, slot in (
            ((Qt.Key.Key_Return, Qt.Key.Key_Enter), self._on_show),
            ((Qt.Key.Key_Delete,), self._on_remove),
        ):
            for key in keys:
                shortcut = QShortcut(QKeySequence(key), self.table)
                shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
                shortcut.activated.connect(slot)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(session.results_changed, self._on_results)
        self.table.currentCellChanged.connect(self._on_current)

    @property
    def count(self) -> int:
        """How many rows there are: a model that scored the slide, or the answer of its case, each."""
        return len(self._rows)

    def show_slide(self, slide_id: str) -> None:
        """Show the models that scored a slide."""
        self._slide_id = slide_id
        cases = {case.model: case for case in cases_of(self._session, slide_id)}
        self._rows = []
        for found in model_rows(self._session, slide_id):
            self._rows += [found, cases[found.model]] if found.model in cases else [found]
        self.table.setRowCount(self.count)
        for at, row in enumerate(self._rows):
            if isinstance(row, ModelRow):
                self._show_model(at, row)
            else:
                self._show_case(at, row)
        height = self.table.horizontalHeader().sizeHint().height() + 2 * self.table.frameWidth()
        height += self.table.horizontalScrollBar().sizeHint().height()
        row_px = self.table.verticalHeader().defaultSectionSize()
        self.table.setFixedHeight(height + row_px * min(max(self.count, 1), _ROWS_SHOWN) + 2)

    def _show_model(self, at: int, row: ModelRow) -> None:
        when = "" if row.when is None else row.when.astimezone().strftime("%H:%M")
        mark = _SHOWN if row.shown else _HIDDEN
        texts = (mark + row.model, row.answer, row.familiarity, row.regions, when)
        self._fill(at, texts, _in_words(row), bold=row.shown)
        if row.shown:
            self.table.setCurrentCell(at, 0)

    def _show_case(self, at: int, case: CaseAnswer) -> None:
        """Fill the row of a case, which stands below that of its model and leads nowhere."""
        of = counted(len(case.slides), "slide")
        texts = (f"{_CASE}case {case.case_id}", case.heading, case.familiarity, of, "")
        self._fill(at, texts, case_in_words(case), italic=True)

    def _fill(
        self, at: int, texts: Sequence[str], words: str, *, bold: bool = False, italic: bool = False
    ) -> None:
        for column, text in enumerate(texts):
            item = QTableWidgetItem(one_line(text))
            item.setToolTip(tip(words))
            font = item.font()
            font.setBold(bold)
            font.setItalic(italic)
            item.setFont(font)
            self.table.setItem(at, column, item)

    def shutdown(self) -> None:
        """Let go of the session."""
        self._subscriptions.end()

    def _on_current(self, row: int, *_: int) -> None:
        """Offer nothing to do with the row of a case: it is joined from those of its slides."""
        of_model = 0 <= row < self.count and isinstance(self._rows[row], ModelRow)
        for button in (self.show_result, self.remove):
            button.setEnabled(of_model)

    @property
    def _chosen(self) -> ModelRow | None:
        at = self.table.currentRow()
        row = self._rows[at] if 0 <= at < self.count else None
        return row if isinstance(row, ModelRow) else None

    def _on_show(self) -> None:
        row = self._chosen
        if row is not None:
            self._session.choose_result(self._slide_id, row.model)

    def _on_remove(self) -> None:
        row = self._chosen
        if row is not None:
            self._session.drop_result(self._slide_id, row.model)

    def _on_results(self, slide_id: str) -> None:
        of_case = any(not isinstance(row, ModelRow) for row in self._rows)
        if slide_id == self._slide_id or of_case:  # of another slide of the case
            self.show_slide(self._slide_id)


def case_in_words(case: CaseAnswer) -> str:
    """Say the answer of a case, what each of its slides says, and how far to trust it."""
    slides = "\n".join(f"{slide.name}: {slide.answer} ({slide.familiarity})" for slide in case.slides)
    joined = f"{case.joined[:1].upper()}{case.joined[1:]}"
    doubt = f"{case.doubt[:1].upper()}{case.doubt[1:]}"
    return f"{case.task}\nCase {case.case_id}, {case.model}: {case.label}. {joined}.\n{slides}\n{doubt}."


def _in_words(row: ModelRow) -> str:
    when = "" if row.when is None else f", scored {row.when.astimezone():%Y-%m-%d %H:%M}"
    return (
        f"{row.task}\n{row.model}: {row.answer}. How much the slide looks like what the model learnt from: "
        f"{row.familiarity}. Scored: {row.regions}{when}."
    )
