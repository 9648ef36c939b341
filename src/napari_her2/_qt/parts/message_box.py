"""The place in the dock where it says what went wrong and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label

if TYPE_CHECKING:
    from napari_her2._qt.parts.jobs import Failure
    from napari_her2._qt.parts.theme import Colours


class MessageBox(QFrame):
    """A message with an optional action and the details of an unforeseen error.

    Attributes
    ----------
    action_wanted : Signal()
        The action's button was pressed.
    """

    action_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("her2Message")
        self.text = Label(wrap=True, selectable=True)
        self.action = QPushButton()
        self.action.clicked.connect(self.action_wanted)
        self.details_button = QPushButton("Details")
        self.details_button.setCheckable(True)
        self.details_button.setToolTip("The technical account of the error, for a report to the developers")
        self.details_button.toggled.connect(self._show_details)
        self.dismiss = QPushButton("Dismiss")
        self.dismiss.clicked.connect(self.clear)
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setAccessibleName("Details of the error")
        self.details.setMinimumHeight(120)
        buttons = QHBoxLayout()
        buttons.addWidget(self.action)
        buttons.addWidget(self.details_button)
        buttons.addStretch()
        buttons.addWidget(self.dismiss)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        layout.addWidget(self.details)
        self._colour = "#e06c75"
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colour = colours.error
        self.setStyleSheet(f"QFrame#her2Message {{ border: 1px solid {self._colour}; border-radius: 3px; }}")

    def show_failure(self, failure: Failure, action: str = "") -> None:
        """Show why work ended early.

        Parameters
        ----------
        failure : Failure
        action : str
            Caption of a button for what could be done about it; empty for none.
        """
        self.text.setText(failure.message)
        self.setAccessibleName(failure.message)
        self.action.setText(action)
        self.action.setVisible(bool(action))
        self.details.setPlainText(failure.details)
        self.details_button.setVisible(bool(failure.details))
        self.details_button.setChecked(False)
        self.details.setVisible(False)
        self.setVisible(True)

    def clear(self) -> None:
        """Hide the message."""
        self.setVisible(False)
        self.text.clear()
        self.details.clear()

    def _show_details(self, shown: bool) -> None:
        self.details.setVisible(shown)
