"""A bar a class: its probability, with how much that varies from bag to bag, or its share of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_her2._napari.plain_text import one_line
from napari_her2._qt.parts.theme import Colours

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_ROW_PX, _LABEL_PX, _VALUE_PX, _BAR_PX = 22, 44, 54, 13
_GAP_PX = 8


class ProbabilityBars(QWidget):
    """A bar a class, those of the answer in their own colour, with a whisker of one SD to each side."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shares: dict[str, float] = {}
        self._sd: dict[str, float] = {}
        self._answer: tuple[str, ...] = ()
        self._greyed = False
        self._colours = Colours()
        self._label_px = _LABEL_PX
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_values(
        self,
        shares: Mapping[str, float],
        sd: Mapping[str, float] | None = None,
        *,
        title: str = "Probabilities",
        tip: str = "Probability of each score",
        answer: Collection[str] | None = None,
        greyed: bool = False,
    ) -> None:
        """Show shares of one: probabilities, or what a method has instead.

        Parameters
        ----------
        shares : mapping of str to float
            In the order of the rows.
        sd : mapping of str to float or None
            Standard deviation of each; None where nothing varies.
        title, tip : str
            What they are, for who hears it, and in a sentence.
        answer : collection of str or None
            The rows that are the answer, one or several; by default the longest, which by the criteria of
            percentages it need not be. With an empty one none is.
        greyed : bool
            Whether they are of an answer that is not to be trusted: then no colour marks it.
        """
        self._shares = dict(shares)
        self._sd = dict(sd or {})
        longest = max(self._shares, key=self._shares.__getitem__, default=None)
        self._answer = tuple(
            name for name in self._shares if name in ([longest] if answer is None else answer)
        )
        self._greyed = greyed
        spoken = ", ".join(f"{name}: {value:.0%}" for name, value in self._shares.items())
        if len(self._answer) > 1:
            spoken += f"; the answer: {' or '.join(self._answer)}"
        self.setAccessibleName(f"{title}: {spoken}")
        self.setToolTip(tip)
        self.updateGeometry()
        self.update()

    @property
    def answer(self) -> tuple[str, ...]:
        """Rows that are marked as the answer."""
        return self._answer

    @property
    def greyed(self) -> bool:
        """Whether no colour marks the answer, because it is not to be trusted."""
        return self._greyed

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height of all rows."""
        return QSize(240, _ROW_PX * max(len(self._shares), 1))

    def minimumSizeHint(self) -> QSize:
        """Return the smallest size at which the bars can still be told apart."""
        return QSize(160, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the rows."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._label_px = self._widest(painter)
        for row, (name, value) in enumerate(self._shares.items()):
            self._paint_row(painter, row * _ROW_PX, name, value, is_answer=name in self._answer)
        painter.end()

    def _widest(self, painter: QPainter) -> int:
        """Room for the longest name, bold; never more than half of the row."""
        font = painter.font()
        font.setBold(True)
        metrics = QFontMetrics(font)
        names = max((metrics.horizontalAdvance(one_line(name)) for name in self._shares), default=0)
        return max(_LABEL_PX, min(int(names) + _GAP_PX, int(self.width()) // 2))

    def _paint_row(self, painter: QPainter, y: int, name: str, value: float, *, is_answer: bool) -> None:
        colours = self._colours
        font = painter.font()
        font.setBold(is_answer)
        painter.setFont(font)
        pale = self._greyed or not (is_answer or len(self._answer) < 2)
        painter.setPen(QColor(colours.muted if pale else colours.text))
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        middle = Qt.TextElideMode.ElideMiddle
        shown = painter.fontMetrics().elidedText(one_line(name), middle, self._label_px - _GAP_PX // 2)
        painter.drawText(QRectF(0, y, self._label_px, _ROW_PX), left, shown)
        painter.drawText(QRectF(self.width() - _VALUE_PX, y, _VALUE_PX, _ROW_PX), right, f"{value:.1%}")
        long = max(self.width() - self._label_px - _VALUE_PX, 1)
        track = QRectF(self._label_px, y + (_ROW_PX - _BAR_PX) / 2, long, _BAR_PX)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.track))
        painter.drawRoundedRect(track, 2, 2)
        bar = QRectF(track)
        bar.setWidth(track.width() * min(max(value, 0.0), 1.0))
        painter.setBrush(QColor(colours.top_bar if is_answer and not self._greyed else colours.bar))
        painter.drawRoundedRect(bar, 2, 2)
        if name in self._sd:
            self._paint_whisker(painter, track, value, self._sd[name])

    def _paint_whisker(self, painter: QPainter, track: QRectF, value: float, sd: float) -> None:
        low, high = (track.left() + track.width() * min(max(x, 0.0), 1.0) for x in (value - sd, value + sd))
        middle, cap = track.center().y(), 3.0
        painter.setPen(QPen(QColor(self._colours.muted if self._greyed else self._colours.text), 1.3))
        painter.drawLine(int(low), int(middle), int(high), int(middle))
        for x in (low, high):
            painter.drawLine(int(x), int(middle - cap), int(x), int(middle + cap))
