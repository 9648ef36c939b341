"""Completeness and mass of all cells as a picture, with the thresholds drawn in and movable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_her2._napari.colormaps import score_hex
from napari_her2._qt.parts.theme import Colours
from napari_her2.cells.rules import CLASSES, Rules
from napari_her2.cells.table import SECTORS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtCore import QEvent

    from napari_her2.cells.reading import CellReading

Line = tuple[Literal["completeness", "mass"], int]

_HEIGHT_PX, _LEFT_PX, _TOP_PX, _FOOT_PX, _RIGHT_PX = 200, 34, 6, 34, 8
_COLUMNS, _ROWS = SECTORS + 1, 60  # completeness has 33 values
_NEAR_PX = 5
_TINT, _FAINTEST = 0.30, 0.18
_MASS_ROOM = 1.4  # the axis of mass reaches so far above the threshold of 3+


class CellHistogram(QWidget):
    """How many counted cells have which completeness and mass, on a logarithmic scale of grey.

    Attributes
    ----------
    threshold_moved : Signal(str, int, float)
        "completeness" or "mass", 0 to 2 for 1+ to 3+, and the value that a line was drawn to.
    """

    threshold_moved = Signal(str, int, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rules = Rules()
        self._counts = np.zeros((_ROWS, _COLUMNS), np.int64)
        self._mass_top = _MASS_ROOM * self._rules.mass[-1]
        self._picture: QImage | None = None
        self._colours = Colours()
        self._held: Line | None = None
        self._marked: tuple[float, float] | None = None
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("Cells by completeness and mass; drag a line to move its threshold")

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self._picture = None
        self.update()

    def set_reading(self, reading: CellReading) -> None:
        """Show the counted cells of a reading, and its thresholds.

        Parameters
        ----------
        reading : CellReading
        """
        self._rules = reading.rules
        if self._held is None:  # an axis that moves under a line would carry it away
            self._mass_top = _top_of(reading)
        self._counts = counts_of(reading, self._mass_top)
        self._picture = None
        per_class = np.bincount(reading.classes[reading.counted], minlength=len(CLASSES))
        spoken = ", ".join(f"{name}: {count:,}" for name, count in zip(CLASSES, per_class, strict=True))
        self.setAccessibleName(f"Cells by completeness and mass. {spoken}")
        self.update()

    def set_rules(self, rules: Rules) -> None:
        """Draw other thresholds over the same cells, before they are judged by them."""
        self._rules = rules
        self.update()

    def set_marked(self, completeness: float | None, mass: float = 0.0) -> None:
        """Mark where one cell lies; None for none."""
        self._marked = None if completeness is None else (completeness, mass)
        self.update()

    @property
    def counts(self) -> NDArray[np.int64]:
        """Cells of each place, (60, 33), the least mass first."""
        return self._counts

    def sizeHint(self) -> QSize:
        """Return the size at which the classes can be told apart."""
        return QSize(300, _HEIGHT_PX)

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size."""
        return QSize(200, _HEIGHT_PX)

    def place(self) -> QRectF:
        """Where the cells are painted, without the scales."""
        return QRectF(
            _LEFT_PX,
            _TOP_PX,
            max(self.width() - _LEFT_PX - _RIGHT_PX, 1),
            max(self.height() - _TOP_PX - _FOOT_PX, 1),
        )

    def point(self, completeness: float, mass: float) -> QPointF:
        """Where a cell of a completeness and a mass (divided by the gain) is painted."""
        place = self.place()
        half = 0.5 / SECTORS  # a column reaches half a sector to each side of its value
        x = (completeness + half) / (1 + 2 * half)
        y = mass / self._mass_top
        return QPointF(place.left() + x * place.width(), place.bottom() - y * place.height())

    def line_at(self, x: float, y: float) -> Line | None:
        """Threshold whose line lies under a place of the widget."""
        found: list[tuple[float, Line]] = []
        place = self.place()
        for at in range(len(CLASSES) - 1):
            corner = self.point(self._rules.completeness[at], self._rules.mass[at])
            if place.top() - _NEAR_PX <= y <= corner.y() + _NEAR_PX:
                found.append((abs(x - corner.x()), ("completeness", at)))
            if corner.x() - _NEAR_PX <= x <= place.right() + _NEAR_PX:
                found.append((abs(y - corner.y()), ("mass", at)))
        near = [of for of in found if of[0] <= _NEAR_PX]
        return min(near)[1] if near else None

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Take hold of the line under the mouse."""
        if event is not None and event.button() == Qt.MouseButton.LeftButton:
            self._held = self.line_at(event.position().x(), event.position().y())

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Move the line that is held; else show what can be moved."""
        if event is None:
            return
        x, y = event.position().x(), event.position().y()
        if self._held is None:
            under = self.line_at(x, y)
            shapes = {"completeness": Qt.CursorShape.SplitHCursor, "mass": Qt.CursorShape.SplitVCursor}
            self.setCursor(Qt.CursorShape.ArrowCursor if under is None else shapes[under[0]])
            return
        self.threshold_moved.emit(*self._held, self._value_at(x, y))

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Let go of the line."""
        self._held = None

    def leaveEvent(self, event: QEvent | None) -> None:
        """Show no longer what can be moved."""
        self.unsetCursor()

    def _value_at(self, x: float, y: float) -> float:
        """Value of the line that is held, between those of its neighbours."""
        measure, at = self._held or ("completeness", 0)
        place = self.place()
        if measure == "completeness":
            half = 0.5 / SECTORS
            value = round((x - place.left()) / place.width() * (1 + 2 * half) - half, 2)
        else:
            value = round((place.bottom() - y) / place.height() * self._mass_top, 2)
        low, high = 0.0, 1.0 if measure == "completeness" else self._mass_top
        held = (low, *getattr(self._rules, measure), high)
        return float(np.clip(value, held[at], max(held[at + 2], held[at])))

    # -- painting

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint classes, cells, thresholds and scales."""
        painter = QPainter(self)
        place = self.place()
        font = painter.font()
        font.setPointSizeF(max(0.85 * font.pointSizeF(), 6.0))
        painter.setFont(font)
        painter.fillRect(place, QColor(self._colours.track))
        painter.save()
        painter.setClipRect(place)
        self._paint_classes(painter, place)
        if self._picture is None:
            self._picture = _picture(self._counts, QColor(self._colours.text))
        painter.drawImage(place, self._picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint_lines(painter, place)
        self._paint_marked(painter)
        painter.restore()
        self._paint_scales(painter, place)
        painter.end()

    def _corner_box(self, at: int, place: QRectF) -> QRectF:
        """Where cells of a class, and of those above, are painted."""
        corner = self.point(self._rules.completeness[at], self._rules.mass[at])
        return QRectF(
            corner.x(),
            place.top(),
            max(place.right() - corner.x(), 0.0),
            max(corner.y() - place.top(), 0.0),
        )

    def _paint_classes(self, painter: QPainter, place: QRectF) -> None:
        for at, colour in enumerate(score_hex(len(CLASSES))):
            box = place if at == 0 else self._corner_box(at - 1, place)
            painter.fillRect(box, QColor(self._colours.track))
            tint = QColor(colour)
            tint.setAlphaF(_TINT)
            painter.fillRect(box, tint)

    def _paint_lines(self, painter: QPainter, place: QRectF) -> None:
        painter.setPen(QPen(QColor(self._colours.text), 1.4))
        for at in range(len(CLASSES) - 1):
            box = self._corner_box(at, place)
            painter.drawPolyline(QPolygonF([box.topLeft(), box.bottomLeft(), box.bottomRight()]))
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        for at, name in enumerate(CLASSES):
            corner = place.bottomLeft() if at == 0 else self._corner_box(at - 1, place).bottomLeft()
            self._paint_word(painter, corner + QPointF(4, -4), name)
        font.setBold(False)
        painter.setFont(font)

    def _paint_word(self, painter: QPainter, at: QPointF, word: str) -> None:
        """Write a word that can be read on cells as well."""
        painter.setPen(QColor(self._colours.ground))
        for x, y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            painter.drawText(at + QPointF(x, y), word)
        painter.setPen(QColor(self._colours.text))
        painter.drawText(at, word)

    def _paint_marked(self, painter: QPainter) -> None:
        if self._marked is None:
            return
        completeness, mass = self._marked
        at = self.point(completeness, min(mass, self._mass_top))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for colour, width in ((self._colours.ground, 4.0), (self._colours.top_bar, 2.0)):
            painter.setPen(QPen(QColor(colour), width))
            painter.drawEllipse(at, 5.0, 5.0)

    def _paint_scales(self, painter: QPainter, place: QRectF) -> None:
        painter.setPen(QColor(self._colours.muted))
        high = painter.fontMetrics().height()
        centre, right = Qt.AlignmentFlag.AlignHCenter, Qt.AlignmentFlag.AlignRight
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            x = self.point(share, 0).x()
            painter.drawText(QRectF(x - 30, place.bottom() + 1, 60, high), centre, f"{100 * share:.0f}")
        below = QRectF(place.left(), place.bottom() + high, place.width(), high)
        painter.drawText(below, centre, "stained share of the border (%)")
        for value in _ticks(self._mass_top):
            y = self.point(0, value).y()
            painter.drawText(QRectF(0, y - high / 2, place.left() - 4, high), right, f"{value:g}")
        painter.save()
        painter.translate(0, place.center().y())
        painter.rotate(-90)
        painter.drawText(QRectF(-place.height() / 2, -1, place.height(), high), centre, "mass / gain (OD·µm)")
        painter.restore()


def counts_of(reading: CellReading, mass_top: float) -> NDArray[np.int64]:
    """Count the counted cells of a reading by completeness and mass.

    Parameters
    ----------
    reading : CellReading
    mass_top : float
        Mass (divided by the gain) at the upper end; cells above it stand in the last row.

    Returns
    -------
    (60, 33) int64
        Rows from no mass to ``mass_top``, columns from no stained sector to all.
    """
    scale = np.float32(_ROWS / (mass_top * reading.rules.gain))
    row = np.minimum(reading.raw_mass * scale, np.float32(_ROWS - 1)).astype(np.int16)
    column = (reading.completeness * np.float32(SECTORS) + np.float32(0.5)).astype(np.int16)
    at = np.maximum(row, 0) * np.int16(_COLUMNS) + column
    at[~reading.counted] = _ROWS * _COLUMNS
    found = np.bincount(at, minlength=_ROWS * _COLUMNS + 1)[:-1]
    return np.asarray(found.reshape(_ROWS, _COLUMNS), np.int64)


def _top_of(reading: CellReading) -> float:
    """Where the axis of mass ends: above the threshold of 3+, and where hardly a cell lies beyond."""
    mass = reading.raw_mass[reading.counted]
    few = mass[:: max(len(mass) // 20_000, 1)] / reading.rules.gain
    most = float(np.percentile(few, 99.5)) if len(few) else 0.0
    wanted = max(_MASS_ROOM * reading.rules.mass[-1], 1.1 * most, 0.1)
    return float(np.ceil(wanted * 10) / 10)


def _ticks(top: float) -> list[float]:
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, np.inf) if top / step <= 6)
    return [round(step * at, 3) for at in range(int(top / step) + 1)] if np.isfinite(step) else [0.0]


def _picture(counts: NDArray[np.int64], colour: QColor) -> QImage:
    """Cells of each place as one colour that is the less transparent the more there are."""
    shade = np.log1p(counts) / max(np.log1p(counts.max(initial=0)), 1e-9)
    alpha = np.where(counts > 0, _FAINTEST + (1 - _FAINTEST) * shade, 0)
    rgba = np.empty((*counts.shape, 4), np.uint8)
    rgba[..., :3] = colour.red(), colour.green(), colour.blue()
    rgba[..., 3] = np.rint(235 * alpha)
    rgba = np.ascontiguousarray(rgba[::-1])
    height, width = counts.shape
    # Copied, because QImage does not keep the array alive.
    return QImage(rgba.data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()
