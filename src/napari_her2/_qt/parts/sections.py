"""Titled parts of a dock."""

from __future__ import annotations

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label


class Section(QWidget):
    """A widget under a title.

    Parameters
    ----------
    title : str
    content : QWidget
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self.heading = Label(title)
        self.heading.setStyleSheet("font-weight: bold;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        layout.addWidget(self.heading)
        layout.addWidget(content)

    def set_title(self, title: str) -> None:
        """Show another title."""
        self.heading.setText(title)
