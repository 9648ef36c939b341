"""What was brought back of the chosen slide, and the way to forget it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.question_bar import QuestionBar
from napari_her2._qt.parts.text import Label
from napari_her2.number_words import size_in_words

if TYPE_CHECKING:
    from napari_her2._qt.parts.keeper import Keeper
    from napari_her2._qt.parts.theme import Colours

_TIP = (
    "Your work on this slide (regions, results, your own score, µm/px, the view) is kept in your own folder, "
    "and comes back when the slide is opened again, wherever its file lies then. Preferences > napari-her2 "
    "switches that off."
)


class KeptRow(QWidget):
    """A quiet line about the work that is kept of a slide; nothing where there is none.

    Parameters
    ----------
    keeper : Keeper or None
        None where work is not kept.
    """

    def __init__(self, keeper: Keeper | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._keeper = keeper
        self._slide_id = self._asked_id = ""
        self.note = Label(wrap=True)
        self.note.setToolTip(_TIP)
        self.problems = Label(wrap=True)
        self.button = QPushButton("&Forget this slide…")
        self.button.setToolTip("Delete your work on this slide, here and on the disk; you are asked first")
        self.question = QuestionBar()
        row = QHBoxLayout()
        row.addWidget(self.note, 1)
        row.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        for widget in (self.problems, self.question):
            layout.addWidget(widget)
        self.button.clicked.connect(self._ask)
        self.question.answered.connect(self._on_answer)
        if keeper is not None:
            keeper.noted.connect(self._on_news)
        self.show_slide("")

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.note.setStyleSheet(f"color: {colours.muted};")
        self.problems.setStyleSheet(f"color: {colours.warning};")
        self.question.set_colours(colours)

    def show_slide(self, slide_id: str) -> None:
        """Show what is kept of a slide."""
        if slide_id != self._slide_id:
            self.question.clear()
        self._slide_id = slide_id
        keeping = None if self._keeper is None else self._keeper.keeping
        words = "" if keeping is None else keeping.work_on(slide_id)[0]
        problems = () if keeping is None else keeping.problems(slide_id)
        note = "" if keeping is None else keeping.note(slide_id)
        self.note.setText(note or (f"Kept: {words}." if words else ""))
        self.problems.setText("\n".join(f"⚠ {problem}" for problem in problems))
        self.problems.setVisible(bool(problems))
        self.button.setVisible(bool(words))
        self.setVisible(bool(words or note or problems))

    def _on_news(self, slide_id: str) -> None:
        if slide_id == self._slide_id:
            self.show_slide(slide_id)

    def _ask(self) -> None:
        if self._keeper is None:
            return
        words, size = self._keeper.keeping.work_on(self._slide_id)
        self._asked_id = self._slide_id
        on_disk = f" ({size_in_words(size)} on the disk)" if size else ""
        self.question.ask(
            f"Forget your work on this slide? This goes for good: {words}{on_disk}. The slide itself stays.",
            "Forget it",
            "Keep it",
            "Takes regions, results, your own score and your µm/px away, and deletes what is kept of them. "
            "The alignment with another slide stays.",
        )
        self.question.no.setFocus()

    def _on_answer(self, yes: bool) -> None:
        if yes and self._keeper is not None and self._asked_id == self._slide_id:
            self._keeper.forget(self._asked_id)
