"""Curves of a training over its epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_her2._qt.parts.text import tip
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Sequence


_HEIGHT_PX, _TITLE_PX, _FOOT_PX, _RIGHT_PX = 150, 22, 18, 8
_FAINT = 90  # alpha of the curves of other folds


@dataclass(frozen=True, slots=True)
class Line:
    """A curve as it is drawn.

    Parameters
    ----------
    label : str
        In the legend; empty for one that only stands behind.
    points : tuple of (int, float)
        Epoch and value.
    style : int
        0: training, dashed; 1, 2, ...: measures on the validation cases, solid.
    faint : bool
        Of another fold.
    """

    label: str
    points: tuple[tuple[int, float], ...]
    style: int
    faint: bool = False


class CurvePlot(QWidget):
    """One plot: values over epochs, a legend above, values of an epoch under the mouse.

    Parameters
    ----------
    title : str
    of_one : bool
        Whether values between 0 and 1 are shown on the scale from 0 to 1: measures, not losses.
    """

    def __init__(self, title: str, *, of_one: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title, self._of_one = title, of_one
        self._lines: tuple[Line, ...] = ()
        self._colours = Colours()
        self._low, self._high, self._last = 0.0, 1.0, 2
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.update()

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Show curves; those that are faint lie behind."""
        self._lines = tuple(sorted(lines, key=lambda line: not line.faint))
        values = [value for line in lines for _, value in line.points]
        self._low, self._high = value_range(values, of_one=self._of_one)
        self._last = max((epoch for line in lines for epoch, _ in line.points), default=2)
        readings = [f"{line.label} {line.points[-1][1]:.3f}" for line in self._lines if line.label]
        self.setAccessibleName(f"{self._title}: {', '.join(readings)}" if readings else self._title)
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height of the plot."""
        return QSize(300, _HEIGHT_PX)

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size at which curves can be told apart."""
        return QSize(200, _HEIGHT_PX)

    def place(self) -> QRectF:
        """Where the curves lie, without title and scales."""
        # Room for "1.28" at least: plots above each other have their epochs in line.
        numbers = (_number(self._low), _number(self._high), "1.28")
        left = 10.0 + max(self.fontMetrics().horizontalAdvance(number) for number in numbers)
        return QRectF(left, _TITLE_PX, self.width() - left - _RIGHT_PX, _HEIGHT_PX - _TITLE_PX - _FOOT_PX)

    def position(self, epoch: int, value: float) -> QPointF:
        """Where a value is drawn."""
        place = self.place()
        across = (epoch - 1) / max(self._last - 1, 1)
        up = (value - self._low) / (self._high - self._low)
        return QPointF(place.left() + across * place.width(), place.bottom() - up * place.height())

    def values_at(self, x: float) -> str:
        """Return the values of the epoch next to a place across the plot, in words."""
        place = self.place()
        across = (x - place.left()) / max(place.width(), 1.0)
        epoch = round(1 + across * (self._last - 1))
        readings = [
            f"{line.label} {value:.4g}"
            for line in self._lines
            for at, value in line.points
            if at == epoch and line.label
        ]
        return f"Epoch {epoch}: {', '.join(readings)}" if readings else ""

    def event(self, event: QEvent | None) -> bool:
        """Tell the values under the mouse."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), tip(self.values_at(event.pos().x())), self)
            return True
        return bool(super().event(event))

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint scales, legend and curves."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(0.85 * font.pointSizeF(), 6.0))
        painter.setFont(font)
        place = self.place()
        self._paint_axes(painter, place)
        self._paint_legend(painter, place)
        for line in self._lines:
            self._paint_line(painter, line)
        painter.end()

    def _paint_axes(self, painter: QPainter, place: QRectF) -> None:
        colours = self._colours
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.track))
        painter.drawRect(place)
        muted = QColor(colours.muted)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        grid = QColor(colours.muted)
        grid.setAlpha(60)
        for value in (self._low, (self._low + self._high) / 2, self._high):
            y = self.position(1, value).y()
            painter.setPen(grid)
            painter.drawLine(QPointF(place.left(), y), QPointF(place.right(), y))
            if value in (self._low, self._high):
                painter.setPen(muted)
                painter.drawText(QRectF(0, y - 8, place.left() - 4, 16), right, _number(value))
        painter.setPen(muted)
        below = QRectF(place.left(), place.bottom(), place.width(), _FOOT_PX)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, "epoch 1")
        painter.drawText(below, right, str(self._last))

    def _paint_legend(self, painter: QPainter, place: QRectF) -> None:
        painter.setPen(QColor(self._colours.text))
        metrics = painter.fontMetrics()
        across = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(QRectF(place.left(), 0, place.width(), _TITLE_PX), across, self._title)
        x = place.right()
        free = place.left() + metrics.horizontalAdvance(self._title) + 12
        for line in reversed([line for line in self._lines if line.label]):
            width = metrics.horizontalAdvance(line.label)
            if x - width - 24 < free:  # a narrow dock shows fewer names; the tooltip has them all
                break
            painter.setPen(QColor(self._colours.text))
            painter.drawText(QRectF(x - width, 0, width + 2, _TITLE_PX), across, line.label)
            painter.setPen(self._pen(line))
            painter.drawLine(QPointF(x - width - 22, _TITLE_PX / 2), QPointF(x - width - 5, _TITLE_PX / 2))
            x -= width + 34

    def _paint_line(self, painter: QPainter, line: Line) -> None:
        pen = self._pen(line)
        points = [self.position(epoch, value) for epoch, value in line.points]
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if len(points) > 1:
            painter.drawPolyline(QPolygonF(points))
        if points and not line.faint:  # where it stands now; a single epoch makes no line
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(pen.color())
            painter.drawEllipse(points[-1], 3.0, 3.0)

    def _pen(self, line: Line) -> QPen:
        colours = self._colours
        named = (colours.text, colours.top_bar, colours.warning)
        colour = QColor(named[min(line.style, len(named) - 1)])
        if line.faint:
            colour.setAlpha(_FAINT)
        pen = QPen(colour, 1.0 if line.faint else 2.0)
        if line.style == 0:  # told apart without colours too
            pen.setStyle(Qt.PenStyle.DashLine)
        return pen


def value_range(values: Sequence[float], *, of_one: bool) -> tuple[float, float]:
    """Return the ends of a scale, round numbers that hold all values.

    Parameters
    ----------
    values : sequence of float
    of_one : bool
        Whether values between 0 and 1 are shown from 0 to 1.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if of_one and low >= 0 and high <= 1:
        return 0.0, 1.0
    # A curve that hardly moves is not blown up to look as if it did.
    span = max(high - low, 0.1 * max(abs(low), abs(high)), 1e-3)
    more = (span - (high - low)) / 2
    low, high = max(low - more, 0.0) if low >= 0 else low - more, high + more
    step = 10 ** math.floor(math.log10(span))
    step = next(part for part in (step / 5, step / 2, step) if span / part <= 10)
    first = math.floor(low / step + 1e-9)
    return first * step, max(math.ceil(high / step - 1e-9), first + 1) * step


def _number(value: float) -> str:
    return f"{value:.3g}"
