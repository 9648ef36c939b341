"""Whether a map shows what the model needs: curves of deletion and insertion, and what masking costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.explain.faithfulness import Faithfulness, FaithfulnessCurve, MaskedProbability

_HEIGHT_PX, _TITLE_PX, _FOOT_PX, _LEFT_PX, _GAP_PX = 128, 20, 18, 26, 14


class FaithfulnessPlot(QWidget):
    """Two small plots: probability of the class against the share of pixels deleted, and inserted.

    The band is where the curves run when the same map is moved elsewhere in the field, from the lowest to
    the highest of all ways.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._curves: tuple[tuple[str, FaithfulnessCurve], ...] = ()
        self._colours = Colours()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.update()

    def set_curves(self, deletion: FaithfulnessCurve, insertion: FaithfulnessCurve) -> None:
        """Show curves."""
        self._curves = (("Deletion", deletion), ("Insertion", insertion))
        self.setAccessibleName(
            f"Area under deletion {deletion.area:.2f}, moved {deletion.control_mean:.2f}; "
            f"under insertion {insertion.area:.2f}, moved {insertion.control_mean:.2f}"
        )
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height of the plots."""
        return QSize(300, _HEIGHT_PX)

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size at which curve and band can be told apart."""
        return QSize(220, _HEIGHT_PX)

    def plots(self) -> tuple[QRectF, QRectF]:
        """Where the two plots lie, without their titles and scales."""
        width = (self.width() - 2 * _LEFT_PX - _GAP_PX) / 2
        height = _HEIGHT_PX - _TITLE_PX - _FOOT_PX
        first = QRectF(_LEFT_PX, _TITLE_PX, width, height)
        return first, first.translated(width + _GAP_PX + _LEFT_PX, 0)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint both plots."""
        if not self._curves:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(0.85 * font.pointSizeF(), 6.0))
        painter.setFont(font)
        for place, (title, curve) in zip(self.plots(), self._curves, strict=True):
            self._paint_axes(painter, place, title)
            self._paint_curve(painter, place, curve)
        painter.end()

    def _paint_axes(self, painter: QPainter, place: QRectF, title: str) -> None:
        colours = self._colours
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.track))
        painter.drawRect(place)
        painter.setPen(QColor(colours.text))
        above = QRectF(place.left(), 0, place.width(), _TITLE_PX)
        painter.drawText(above, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, title)
        painter.setPen(QColor(colours.muted))
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for value, y in (("1", place.top()), ("0", place.bottom())):
            painter.drawText(QRectF(0, y - 8, place.left() - 4, 16), right, value)
        below = QRectF(place.left(), place.bottom(), place.width(), _FOOT_PX)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, "0 %")
        painter.drawText(below, right, "100 % of pixels")

    def _paint_curve(self, painter: QPainter, place: QRectF, curve: FaithfulnessCurve) -> None:
        colours = self._colours
        low = _points(place, curve.shares, curve.control.min(axis=0))
        high = _points(place, curve.shares, curve.control.max(axis=0))
        band = QColor(colours.bar)
        band.setAlpha(150)
        painter.setPen(QPen(QColor(colours.bar), 1))
        painter.setBrush(band)
        painter.drawPolygon(QPolygonF([*high, *reversed(low)]))
        painter.setPen(QPen(QColor(colours.top_bar), 2.2))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPolyline(QPolygonF(_points(place, curve.shares, curve.probabilities)))


class FaithfulnessView(QWidget):
    """Plots and numbers of one field, or nothing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.plot = FaithfulnessPlot()
        self.words = Label(wrap=True, selectable=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.plot)
        layout.addWidget(self.words)
        self.clear()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.plot.set_colours(colours)

    def clear(self) -> None:
        """Show nothing."""
        self.setVisible(False)

    def show_found(self, found: Faithfulness, class_name: str) -> None:
        """Show what deleting, inserting and masking by a map does."""
        self.plot.set_curves(found.deletion, found.insertion)
        self.words.setText("\n".join(faithfulness_in_words(found, class_name)))
        self.setVisible(True)


def faithfulness_in_words(found: Faithfulness, class_name: str) -> list[str]:
    """Tell the figures of a field, each beside its control, and what they mean."""
    deletion, insertion = found.deletion, found.insertion
    return [
        f"Probability of {class_name} in this tile: line by the map, band by the same map moved elsewhere "
        "(control). A faithful map falls faster than the band, and rises faster.",
        f"Area under deletion {_beside(deletion)} (low is faithful), insertion {_beside(insertion)} "
        "(high is faithful).",
        f"Multiplied by the map: {_drop(found.soft)}.",
        f"Only the half with the highest values kept: {_drop(found.half)}.",
    ]


def _beside(curve: FaithfulnessCurve) -> str:
    return f"{curve.area:.2f}, control {curve.control_mean:.2f}{_spread(curve.control_spread, '.2f')}"


def _drop(masked: MaskedProbability) -> str:
    stays = "its class stays" if masked.kept else "its class changes"
    return (
        f"probability {-masked.drop_points:+.0f} points, {stays}; control {-masked.control_drop_points:+.0f}"
        f"{_spread(masked.control_spread_points, '.0f')} points, class stays in {masked.control_kept:.0%}"
    )


def _spread(value: float, digits: str) -> str:
    return f" ± {value:{digits}}" if np.isfinite(value) else ""


def _points(place: QRectF, shares: NDArray[np.float64], values: NDArray[np.float64]) -> list[QPointF]:
    return [
        QPointF(place.left() + float(x) * place.width(), place.bottom() - float(y) * place.height())
        for x, y in zip(shares, np.clip(values, 0, 1), strict=True)
    ]
