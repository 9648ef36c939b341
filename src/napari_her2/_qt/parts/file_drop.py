"""Files that are dropped on a dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QLineEdit, QPlainTextEdit, QTextEdit, QWidget

if TYPE_CHECKING:
    from qtpy.QtCore import QMimeData

_TAKE_TEXT = (QLineEdit, QPlainTextEdit, QTextEdit)


def leave_drops_to(dock: QWidget) -> None:
    """Let a dock take what is dropped anywhere on it: a text field would insert the address of a file."""
    dock.setAcceptDrops(True)
    for kind in _TAKE_TEXT:
        for field in dock.findChildren(kind):
            field.setAcceptDrops(False)


def holds_files(mime: QMimeData | None) -> bool:
    """Whether files, or addresses, are dragged."""
    return mime is not None and bool(mime.hasUrls())


def dropped_files(mime: QMimeData) -> tuple[list[Path], str]:
    """Return what was dropped.

    Parameters
    ----------
    mime : QMimeData

    Returns
    -------
    list of Path
        Files and folders of this computer.
    str
        Why something else is not taken; empty where there is nothing else.
    """
    urls = mime.urls()
    paths = [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]
    others = [url.toString() for url in urls if not url.isLocalFile()]
    if not others:
        return paths, ""
    return paths, f"{others[0]} is not a file on this computer: download the slide, then drop the file here."
