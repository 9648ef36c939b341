"""A path to type or to choose, with what is wrong with it below."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours


class PathRow(QWidget):
    """A path with a button to choose it, and below what it is for, or what is wrong with it.

    Attributes
    ----------
    changed : Signal()
    browse_wanted : Signal()

    Parameters
    ----------
    name : str
        For those who hear it.
    hint : str
    """

    changed = Signal()
    browse_wanted = Signal()

    def __init__(self, name: str, hint: str) -> None:
        super().__init__()
        self._hint, self._problem = hint, ""
        self._colours = Colours()
        self.edit = QLineEdit()
        self.edit.setAccessibleName(name)
        self.browse = QPushButton("Browse…")
        self.browse.setAccessibleName(f"Browse for {name.lower()}")
        self.words = Label(wrap=True)
        row = QHBoxLayout()
        row.addWidget(self.edit, 1)
        row.addWidget(self.browse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addWidget(self.words)
        self.edit.textChanged.connect(self.changed)
        self.browse.clicked.connect(self.browse_wanted)
        self.set_problem("")

    @property
    def text(self) -> str:
        """The path as a full one; empty where there is none."""
        text = self.edit.text().strip()
        return str(Path(text).expanduser().absolute()) if text else ""

    @property
    def problem(self) -> str:
        """What is wrong with it."""
        return self._problem

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.set_problem(self._problem)

    def set_hint(self, hint: str) -> None:
        """Show what it is for, where nothing is wrong with it."""
        self._hint = hint
        self.set_problem(self._problem)

    def set_problem(self, problem: str) -> None:
        """Show what is wrong in place of the hint."""
        self._problem = problem
        self.words.setText(problem or self._hint)
        self.words.setVisible(bool(problem or self._hint))
        self.words.setStyleSheet(f"color: {self._colours.error if problem else self._colours.muted};")
