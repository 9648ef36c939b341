"""A question at the top of a dock, which waits and is in nobody's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label, tip

if TYPE_CHECKING:
    from napari_her2._qt.parts.theme import Colours


class QuestionBar(QFrame):
    """Asks one question at a time, and is hidden while there is none.

    Attributes
    ----------
    answered : Signal(bool)
        Yes or no; asked again only by whoever asks.
    """

    answered = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("her2Question")
        self.text = Label(wrap=True)
        self.yes, self.no = QPushButton(), QPushButton()
        # Methods, which PyQt holds weakly: a bar that held itself would outlive its dock.
        self.yes.clicked.connect(self._on_yes)
        self.no.clicked.connect(self._on_no)
        buttons = QHBoxLayout()
        buttons.addStretch()
        buttons.addWidget(self.no)
        buttons.addWidget(self.yes)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        edge = f"border-left: 3px solid {colours.top_bar};"
        self.setStyleSheet(f"QFrame#her2Question {{ background: {colours.track}; {edge} }}")

    def ask(self, question: str, yes: str, no: str, more: str = "") -> None:
        """Ask a question.

        Parameters
        ----------
        question, yes, no : str
            One or two sentences, and the captions of the answers.
        more : str
            A tip: what a yes does.
        """
        self.text.setText(question)
        self.setAccessibleName(question)
        self.yes.setText(yes)
        self.yes.setToolTip(tip(more))
        self.no.setText(no)
        self.setVisible(True)

    def clear(self) -> None:
        """Ask nothing."""
        self.setVisible(False)
        self.text.clear()

    def _on_yes(self) -> None:
        self._answer(True)

    def _on_no(self) -> None:
        self._answer(False)

    def _answer(self, yes: bool) -> None:
        self.clear()
        self.answered.emit(yes)
