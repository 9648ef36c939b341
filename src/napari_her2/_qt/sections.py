"""Titled parts of a dock, and how a dock holds them."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QScrollArea, QVBoxLayout, QWidget

_MIN_WIDTH_PX = 340


class Section(QWidget):
    """A widget under a title.

    Parameters
    ----------
    title : str
    content : QWidget
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self.heading = QLabel(title)
        self.heading.setStyleSheet("font-weight: bold;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        layout.addWidget(self.heading)
        layout.addWidget(content)

    def set_title(self, title: str) -> None:
        """Show another title."""
        self.heading.setText(title)


def lay_out(dock: QWidget, banner: QWidget, content: QWidget) -> QScrollArea:
    """Give a dock a banner that stays, and below it parts that scroll.

    Parameters
    ----------
    dock, banner, content : QWidget

    Returns
    -------
    QScrollArea
    """
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(content)
    layout = QVBoxLayout(dock)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    layout.addWidget(banner)
    layout.addWidget(scroll)
    dock.setMinimumWidth(_MIN_WIDTH_PX)
    return scroll
