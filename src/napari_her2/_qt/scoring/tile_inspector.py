"""One tile enlarged, with the tissue around it and its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QRectF, QSize, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.explain.geometries import TOP_TILES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2._napari.tile import TileView
    from napari_her2.explain.overlays import Ranking

_VIEW_PX = 240


class TilePicture(QWidget):
    """Paints pixels as large as fits, with a frame around the tile in their middle."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._image: QImage | None = None
        self._frame = QRectF()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Tile, enlarged")

    def set_pixels(self, pixels: NDArray[np.uint8] | None, frame: tuple[float, float, float, float]) -> None:
        """Show pixels.

        Parameters
        ----------
        pixels : (h, w, 3) uint8 or None
        frame : tuple of float
            (y0, x0, y1, x1) of the tile, in shares of the picture; none is painted where it is empty.
        """
        if pixels is None:
            self._image = None
        else:
            whole = np.ascontiguousarray(pixels)
            height, width = whole.shape[:2]
            # Copied, because QImage does not keep the array alive.
            self._image = QImage(whole.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
        y0, x0, y1, x1 = frame
        self._frame = QRectF(x0, y0, x1 - x0, y1 - y0)
        self.update()

    def sizeHint(self) -> QSize:
        """Return a size at which nuclei can be judged."""
        return QSize(_VIEW_PX, _VIEW_PX)

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size."""
        return QSize(160, _VIEW_PX)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the picture and the frame."""
        if self._image is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        place = self.place()
        painter.drawImage(place, self._image)
        if not self._frame.isEmpty():
            painter.setPen(QPen(QColor(TOP_TILES.colours), 2))
            painter.drawRect(
                QRectF(
                    place.left() + self._frame.left() * place.width(),
                    place.top() + self._frame.top() * place.height(),
                    self._frame.width() * place.width(),
                    self._frame.height() * place.height(),
                )
            )
        painter.end()

    def place(self) -> QRectF:
        """Where in the widget the picture is painted; empty where there is none."""
        if self._image is None:
            return QRectF()
        scale = min(self.width() / self._image.width(), self.height() / self._image.height())
        width, height = self._image.width() * scale, self._image.height() * scale
        return QRectF((self.width() - width) / 2, (self.height() - height) / 2, width, height)


class TileInspector(QWidget):
    """Shows the tile that was clicked.

    Attributes
    ----------
    show_wanted : Signal()
        The user wants to see the tile on the slide.
    step_wanted : Signal(int)
        The user wants the next (1) or the previous (-1) tile in their order.
    """

    show_wanted = Signal()
    step_wanted = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.hint = Label(wrap=True)
        self.set_hint("tile")
        self.hover = Label(wrap=True)
        self.picture = TilePicture()
        self.numbers = Label(wrap=True, selectable=True)
        self.previous, self.next = QPushButton(), QPushButton()
        self.set_order(None)
        self.show_on_slide = QPushButton("Go to")
        self.show_on_slide.setToolTip("Move the view to this tile")
        self.buttons = QWidget()
        row = QHBoxLayout(self.buttons)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.previous, self.show_on_slide, self.next):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.hint, self.hover, self.picture, self.numbers, self.buttons):
            layout.addWidget(widget)
        self.previous.clicked.connect(lambda: self.step_wanted.emit(-1))
        self.next.clicked.connect(lambda: self.step_wanted.emit(1))
        self.show_on_slide.clicked.connect(self.show_wanted)
        self.set_colours(Colours())
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.hint.setStyleSheet(f"color: {colours.muted};")
        self.hover.setStyleSheet(f"color: {colours.muted};")

    def set_hint(self, what: str) -> None:
        """Say what can be clicked: "tile"."""
        self.hint.setText(f"Click a {what} on the slide to see it enlarged.")

    def set_order(self, ranking: Ranking | None) -> None:
        """Say what the tiles are put in order by; None where they follow each other on the slide."""
        texts, tips = ("Previous", "Next"), ("before this one, by rows", "after this one, by rows")
        if ranking is not None:
            texts = (f"More {ranking.adjective}", f"Less {ranking.adjective}")
            tips = (f"with the next higher {ranking.noun}", f"with the next lower {ranking.noun}")
        self.previous.setText(f"◀ {texts[0]}")
        self.next.setText(f"{texts[1]} ▶")
        self.previous.setToolTip(f"The tile {tips[0]}")
        self.next.setToolTip(f"The tile {tips[1]}")

    def set_hover(self, text: str) -> None:
        """Show the numbers of the tile under the cursor."""
        self.hover.setText(text)

    def set_numbers(self, text: str) -> None:
        """Show the numbers of a tile whose pixels are on their way."""
        self.hint.setVisible(False)
        self.numbers.setText(text)
        self.numbers.setVisible(True)
        self.buttons.setVisible(True)

    def set_view(self, view: TileView) -> None:
        """Show the pixels of a tile."""
        self.picture.set_pixels(view.pixels, view.frame)
        self.picture.setVisible(True)

    def set_problem(self, message: str) -> None:
        """Say why there are no pixels."""
        self.picture.setVisible(False)
        self.numbers.setText(f"{self.numbers.text()}\n⚠ {message}")

    def clear(self) -> None:
        """Show no tile."""
        self.picture.set_pixels(None, (0.0, 0.0, 0.0, 0.0))
        for widget in (self.picture, self.numbers, self.buttons):
            widget.setVisible(False)
        self.hover.clear()
        self.hint.setVisible(True)
