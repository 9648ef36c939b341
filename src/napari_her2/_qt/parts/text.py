"""Text in the docks: labels that show what they are given, and markup only where we ourselves made it.

Qt guesses whether a text is HTML. Here nothing is guessed: a `Label` shows plain text, except for markup that
was built by `markup`, which escapes every part; a tip that Qt would take for HTML is broken up by `tip`.
"""

from __future__ import annotations

import re
from textwrap import fill
from typing import TYPE_CHECKING

from markupsafe import Markup
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction, QGuiApplication, QKeySequence
from qtpy.QtWidgets import QComboBox, QLabel, QWidget

from napari_her2._napari.plain_text import not_markup, one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from qtpy.QtGui import QKeyEvent

__all__ = ["Combo", "Label", "Markup", "joined", "markup", "tip"]

LABEL_MOST, LINES_MOST = 4000, 60  # characters and lines of one label: a dock stays a dock
_TIP_MOST = 1000
_LONG_WORD = re.compile(r"\S{40,}")
_PART = re.compile(r".{1,12}")  # fits a dock in the largest letters too
_BREAK = "\u200b"  # of no width: a line may end here
_TIP_COLUMNS = 100


class Label(QLabel):
    """A label that shows plain text, however it looks, and wraps it, however long its words are.

    Parameters
    ----------
    text : str
    wrap : bool
        Whether it may take several lines.
    selectable : bool
        Whether it can be marked with the mouse and copied.
    """

    def __init__(self, text: str = "", *, wrap: bool = False, selectable: bool = False) -> None:
        super().__init__()
        self._given = ""
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(wrap)
        if selectable:
            self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            copy = QAction("Copy", self)
            copy.triggered.connect(self._copy)
            self.addAction(copy)
            self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self.setText(text)

    def text(self) -> str:
        """Return what it was given."""
        return self._given

    def setText(self, text: str) -> None:
        """Show text, character by character; what is too long for a dock is cut, and says so."""
        self._given = text
        self.setTextFormat(Qt.TextFormat.PlainText)
        super().setText(_breakable(_cut(text)))

    def set_markup(self, text: Markup) -> None:
        """Show what `markup` made."""
        if not isinstance(text, Markup):
            raise TypeError("only what markup() made is shown as such")
        self._given = str(text)
        self.setTextFormat(Qt.TextFormat.RichText)
        super().setText(self._given)

    def clear(self) -> None:
        """Show nothing."""
        self.setText("")

    def setToolTip(self, text: str) -> None:
        """Tell more where the mouse rests."""
        super().setToolTip(tip(text))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Copy what is marked, as it was given: the places for line breaks stay here."""
        if event is not None and event.matches(QKeySequence.StandardKey.Copy):
            self._copy()
        else:
            super().keyPressEvent(event)

    def _copy(self) -> None:
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText((self.selectedText() or self.text()).replace(_BREAK, ""))


class Combo(QComboBox):
    """A combo box whose items are lines of plain text; what they stand for is in their data.

    Parameters
    ----------
    name : str
        For those who hear it.
    parent : QWidget or None
    """

    def __init__(self, name: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        # As wide as its place, not as its longest item.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)

    def addItem(self, text: str, data: Any = None) -> None:  # noqa: ANN401 - as Qt takes it
        """Add an item."""
        super().addItem(one_line(text), data)

    def addItems(self, texts: Iterable[str]) -> None:
        """Add items."""
        super().addItems([one_line(text) for text in texts])

    def setItemData(self, index: int, value: Any, role: int = Qt.ItemDataRole.UserRole) -> None:  # noqa: ANN401
        """Keep something with an item; a tip is kept as plain text."""
        super().setItemData(index, tip(value) if role == Qt.ItemDataRole.ToolTipRole else value, role)

    def setToolTip(self, text: str) -> None:
        """Tell more where the mouse rests."""
        super().setToolTip(tip(text))


def markup(template: str, *parts: object) -> Markup:
    """Return HTML made of a template of ours and parts that are escaped, unless they are made here too.

    Parameters
    ----------
    template : str
        Written in the source, with ``{}`` for each part.
    *parts : object

    Examples
    --------
    >>> markup("<b>{}</b>", "1 < 2")
    Markup('<b>1 &lt; 2</b>')
    """
    shown = [part if isinstance(part, Markup) else _breakable(_cut(str(part))) for part in parts]
    return Markup(template).format(*shown)


def joined(parts: Iterable[Markup], between: str = "") -> Markup:
    """Return pieces of markup after one another."""
    return Markup(between).join(parts)


def tip(text: str) -> str:
    """Return text for a tool tip or a pop-up of Qt's or napari's: never HTML, in lines that fit a screen."""
    text = not_markup(text)
    if len(text) > _TIP_MOST:
        text = f"{text[:_TIP_MOST]} …"
    return "\n".join(fill(line, _TIP_COLUMNS, replace_whitespace=False) for line in text.split("\n"))


def _cut(text: str) -> str:
    text = visible(text)
    lines = text.split("\n")
    if len(lines) > LINES_MOST:
        text = "\n".join(lines[:LINES_MOST])
    if len(text) > LABEL_MOST:
        text = text[:LABEL_MOST]
    left = len("\n".join(lines)) - len(text)
    return f"{text} … ({left:,} more characters)" if left else text


def _breakable(text: str) -> str:
    return _LONG_WORD.sub(lambda word: _BREAK.join(_PART.findall(word[0])), text)
