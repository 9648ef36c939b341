"""The membrane of one cell all around it: contrast and mass of each sector, and which are stained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_her2._napari.colormaps import score_hex
from napari_her2._qt.parts.theme import Colours
from napari_her2.cells.rules import CLASSES, Rules, stained
from napari_her2.cells.table import SECTORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

_HEIGHT_PX, _TITLE_PX = 158, 18
_HOLE = 0.28  # where a sector of nothing begins, in shares of the radius
_GAP_RAD = 0.03
_ROOM = 1.25


class CellProfile(QWidget):
    """Two rings of 32 sectors, as they lie around the cell on the slide: contrast, and mass over gain.

    Stained sectors have their own colour. The dashed circle of contrast is where staining begins; those of
    mass are what 1+, 2+ and 3+ ask of the mean of all sectors, and the full line is that mean.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rules = Rules()
        self._contrast: NDArray[np.float32] = np.zeros(SECTORS, np.float32)
        self._mass: NDArray[np.float32] = np.zeros(SECTORS, np.float32)
        self._stained: NDArray[np.bool_] = np.zeros(SECTORS, bool)
        self._colours = Colours()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Sectors as they lie around the cell on the slide; stained ones are coloured. Dashed: where "
            "staining begins, and the mean mass that 1+, 2+ and 3+ ask. Full line: the mean of this cell."
        )

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.update()

    def set_cell(self, reading: CellReading, number: int) -> None:
        """Show one cell.

        Parameters
        ----------
        reading : CellReading
        number : int
        """
        one = reading.cells.pick(np.array([number]))
        self._rules = reading.rules
        self._contrast = one.contrast[0].astype(np.float32)
        self._mass = one.mass[0].astype(np.float32) / np.float32(reading.rules.gain)
        self._stained = stained(one, reading.rules)[0]
        self.setAccessibleName(
            f"Membrane of the cell: {int(self._stained.sum())} of {SECTORS} sectors stained, "
            f"mean mass {float(self._mass.mean()):.2f}"
        )
        self.update()

    def sizeHint(self) -> QSize:
        """Return the size at which sectors can be told apart."""
        return QSize(300, _HEIGHT_PX)

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size."""
        return QSize(220, _HEIGHT_PX)

    def rings(self) -> tuple[QRectF, QRectF]:
        """Squares that the two rings fill."""
        side = min(_HEIGHT_PX - _TITLE_PX - 2.0, self.width() / 2 - 8)
        top = _TITLE_PX + (_HEIGHT_PX - _TITLE_PX - side) / 2
        first = QRectF(self.width() / 4 - side / 2, top, side, side)
        return first, first.translated(self.width() / 2, 0)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint both rings."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(0.85 * font.pointSizeF(), 6.0))
        painter.setFont(font)
        left, right = self.rings()
        contrast_top = max(float(self._contrast.max()), self._rules.contrast) * _ROOM
        mass_top = max(float(self._mass.max()), self._rules.mass[-1]) * 1.05
        self._paint_ring(painter, left, "contrast (OD)", self._contrast / contrast_top)
        self._paint_circle(painter, left, self._rules.contrast / contrast_top, self._colours.text)
        self._paint_ring(painter, right, "mass / gain (OD·µm)", self._mass / mass_top)
        for value, colour in zip(self._rules.mass, score_hex(len(CLASSES))[1:], strict=True):
            self._paint_circle(painter, right, value / mass_top, self._seen(colour))
        mean = float(self._mass.mean()) / mass_top
        self._paint_circle(painter, right, mean, self._colours.text, Qt.PenStyle.SolidLine)
        painter.end()

    def _seen(self, colour: str) -> str:
        """Colour of a class as it can be seen on the ground of the theme."""
        light = QColor(self._colours.ground).lightness() > 128
        return str(QColor(colour).darker(150).name()) if light else colour

    def _paint_ring(self, painter: QPainter, place: QRectF, title: str, shares: NDArray[np.float32]) -> None:
        colours = self._colours
        painter.setPen(QColor(colours.muted))
        above = QRectF(place.center().x() - self.width() / 4, 0, self.width() / 2, _TITLE_PX)
        painter.drawText(above, Qt.AlignmentFlag.AlignCenter, title)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.track))
        painter.drawEllipse(place)
        for ray, (share, is_stained) in enumerate(zip(shares, self._stained, strict=True)):
            painter.setBrush(QColor(colours.top_bar if is_stained else colours.bar))
            painter.drawPolygon(_sector(place, ray, float(share)))

    def _paint_circle(
        self,
        painter: QPainter,
        place: QRectF,
        share: float,
        colour: str,
        style: Qt.PenStyle = Qt.PenStyle.DashLine,
    ) -> None:
        radius = _radius(place, share)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(colour), 1.4, style))
        painter.drawEllipse(place.center(), radius, radius)


def _radius(place: QRectF, share: float) -> float:
    return float(place.width()) / 2 * (_HOLE + (1 - _HOLE) * min(max(share, 0.0), 1.0))


def _sector(place: QRectF, ray: int, share: float) -> QPolygonF:
    """Return what lies around one ray of the cell: ray 0 points to the right, the next ones turn down."""
    middle, half = 2 * np.pi * ray / SECTORS, np.pi / SECTORS - _GAP_RAD
    inner, outer = _radius(place, 0), max(_radius(place, share), _radius(place, 0) + 1)
    corners = (
        (inner, middle - half),
        (outer, middle - half),
        (outer, middle),
        (outer, middle + half),
        (inner, middle + half),
    )
    return QPolygonF(
        [
            QPointF(place.center().x() + far * np.cos(at), place.center().y() + far * np.sin(at))
            for far, at in corners
        ]
    )
