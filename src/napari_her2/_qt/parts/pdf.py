"""A page of a report as PDF, by Qt's own writer: no window, no printer, and in any thread.

The page is laid out at 96 px an inch on A4. Where it is longer than one page, everything is made a little
smaller until it fits: text and pictures are vectors and pixels of their own size, so that zooming in shows
them sharp.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from qtpy.QtCore import QBuffer, QIODevice, QMarginsF, QRectF, QUrl
from qtpy.QtGui import (
    QFont,
    QGuiApplication,
    QImage,
    QPageLayout,
    QPageSize,
    QPainter,
    QPdfWriter,
    QTextDocument,
)

from napari_her2.reports.html import WIDTH_PX, laid_out
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.reports.page import Page

_DPI, _INCH_MM = 96.0, 25.4
_MARGIN_MM = 12.0
_HEIGHT_PX = (297 - 2 * _MARGIN_MM) / _INCH_MM * _DPI
_WRITER_DPI = 300
_SMALLER, _SLACK = 0.96, 0.001
_LARGEST, _SMALLEST = 1.2, 0.6
"""Of the size of the text, whose usual one is 9 px; smaller nobody reads it, and further pages are made."""


def without_window() -> QGuiApplication:
    """Return the application that Qt needs for its fonts; one that needs no display where there is none yet.

    The caller keeps it as long as pages are written.
    """
    running = QGuiApplication.instance()
    if isinstance(running, QGuiApplication):
        return running
    if not os.environ.get("QT_QPA_PLATFORM"):
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    return QGuiApplication(["napari-her2"])


def write_pdf(page: Page, path: Path) -> int:
    """Write a page as PDF, whole or not at all.

    Parameters
    ----------
    page : Page
    path : Path

    Returns
    -------
    int
        How many pages it has: one, unless what stands on it would be too small to be read.

    Raises
    ------
    JobFailed
        If it cannot be written, or the disk is full.
    """
    scale, document = _fitted(page)
    content, pages = _printed(document, scale, page.title)
    with whole_file(path) as scratch:
        scratch.write_bytes(content)
    return pages


def _fitted(page: Page) -> tuple[float, QTextDocument]:
    """Lay a page out as large as it fits."""
    scale, images = _LARGEST, dict[bytes, QImage]()
    while True:
        document = _document(page, WIDTH_PX / scale, images)
        if document.size().height() * scale <= _HEIGHT_PX or scale * _SMALLER < _SMALLEST:
            return scale, document
        # At once near to the size that it needs, and from there on in small steps.
        needed = (_HEIGHT_PX / (document.size().height() * scale)) ** 0.5
        scale = max(_SMALLEST, scale * min(_SMALLER, needed**0.5))


def _document(page: Page, width_px: float, images: dict[bytes, QImage]) -> QTextDocument:
    """Lay a page out; pictures are decoded once, and kept in ``images``."""
    content = laid_out(page, round(width_px))
    document = QTextDocument()
    font = QFont()
    font.setPixelSize(9)
    document.setDefaultFont(font)
    document.setDocumentMargin(0)
    for name, png in content.pictures.items():
        if png not in images:
            images[png] = QImage.fromData(png, "PNG").convertToFormat(QImage.Format.Format_RGB32)
        document.addResource(QTextDocument.ResourceType.ImageResource, QUrl(name), images[png])
    document.setHtml(content.html)
    document.setTextWidth(width_px)
    return document


def _printed(document: QTextDocument, scale: float, title: str) -> tuple[bytes, int]:
    """Return the bytes of the PDF, and how many pages it has.

    In memory: Qt does not report a disk that is full.
    """
    memory = QBuffer()
    memory.open(QIODevice.OpenModeFlag.WriteOnly)
    writer = QPdfWriter(memory)
    writer.setTitle(title)
    writer.setCreator("napari-her2")
    writer.setResolution(_WRITER_DPI)
    margins = QMarginsF(_MARGIN_MM, _MARGIN_MM, _MARGIN_MM, _MARGIN_MM)
    size, upright = QPageSize(QPageSize.PageSizeId.A4), QPageLayout.Orientation.Portrait
    writer.setPageLayout(QPageLayout(size, upright, margins, QPageLayout.Unit.Millimeter))
    height = _HEIGHT_PX / scale
    pages = max(1, math.ceil(document.size().height() / height - _SLACK))
    painter = QPainter(writer)
    try:
        painter.scale(scale * _WRITER_DPI / _DPI, scale * _WRITER_DPI / _DPI)
        for number in range(pages):
            if number:
                writer.newPage()
                painter.translate(0, -height)
            part = QRectF(0, number * height, document.size().width(), height)
            document.drawContents(painter, part)
    finally:
        painter.end()  # before what it paints on is gone
    memory.close()
    return bytes(memory.data().data()), pages
