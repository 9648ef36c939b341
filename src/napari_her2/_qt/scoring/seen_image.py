"""The images that a model saw of a slide, each place of which leads to the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._napari.placement import look_at
from napari_her2._napari.seen import remove_seen, seen_of, show_seen
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.tile_inspector import TilePicture
from napari_her2.explain.geometries import SEEN
from napari_her2.methods.catalogue import METHODS

if TYPE_CHECKING:
    from qtpy.QtGui import QMouseEvent

    from napari_her2._napari.session import Session
    from napari_her2.inference.result import SlideResult

_FIELD_PX = 32  # side of the field that is marked and jumped to: a pixel of the network's last map
_FIELD_ON_SCREEN_PX = 400  # so large that the pixels of the image can be told apart, laid over the slide
_PICTURE_PX = 300


class SeenPicture(TilePicture):
    """A picture that tells where it is clicked.

    Attributes
    ----------
    clicked : Signal(float, float)
        (y, x) in shares of the picture.
    """

    clicked = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Image that the model saw")
        self.setToolTip("Click a place to look at it on the slide")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFixedHeight(_PICTURE_PX)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Tell where it is clicked."""
        if event is None or event.button() != Qt.MouseButton.LeftButton:
            return
        place, at = self.place(), QPointF(event.position())
        if place.contains(at):
            self.clicked.emit(
                (at.y() - place.top()) / place.height(), (at.x() - place.left()) / place.width()
            )


class SeenImages(QWidget):
    """Shows the images of a result, one at a time.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._result: SlideResult | None = None
        self._number = 0
        self.facts, self.limit = Label(), Label()
        self.picture = SeenPicture()
        self.previous, self.next = QPushButton("◀"), QPushButton("▶")
        self.which = Label()
        self.over = QCheckBox("Lay it over the slide")
        self.over.setToolTip(SEEN.means())
        self.previous.setAccessibleName("Image before this one")
        self.next.setAccessibleName("Image after this one")
        for label in (self.facts, self.limit):
            label.setWordWrap(True)
        self.steps = QWidget()
        row = QHBoxLayout(self.steps)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.previous)
        row.addWidget(self.which, 1, Qt.AlignmentFlag.AlignCenter)
        row.addWidget(self.next)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.facts, self.picture, self.steps, self.over, self.limit):
            layout.addWidget(widget)
        self.picture.clicked.connect(self._on_clicked)
        self.previous.clicked.connect(self._on_previous)
        self.next.clicked.connect(self._on_next)
        self.over.toggled.connect(self._on_over)
        self.set_colours(Colours())

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.facts.setStyleSheet(f"color: {colours.muted};")
        self.limit.setStyleSheet(f"color: {colours.warning};")

    @property
    def count(self) -> int:
        """How many images there are to see."""
        return 0 if self._result is None else len(self._result.thumbnails)

    def show_result(self, result: SlideResult | None) -> None:
        """Show the images of a result, or nothing."""
        shown = result is not None and "images seen" in METHODS[result.method].explanations
        self._result = result if shown else None
        self._number = 0
        self.sync()
        if self._result is None:
            self.picture.set_pixels(None, (0.0, 0.0, 0.0, 0.0))
            return
        method, scored = METHODS[self._result.method], self._result.slides[0]
        self.facts.setText(f"{method.seen(scored)}. The model saw nothing else of the slide.")
        limit = method.limit(scored)
        self.limit.setText(limit)
        self.limit.setVisible(bool(limit))
        self.steps.setVisible(self.count > 1)
        self._show()

    def sync(self) -> None:
        """Show whether an image lies over the slide: its layer may have been removed by the user."""
        viewer, result = self._session.viewer, self._result
        if viewer is None or result is None:
            return
        self.over.blockSignals(True)
        self.over.setChecked(seen_of(viewer, result.slide_id) is not None)
        self.over.blockSignals(False)

    def _show(self) -> None:
        if self._result is None:
            return
        count = self.count
        self.picture.set_pixels(self._result.thumbnails[self._number].rgb, (0.0, 0.0, 0.0, 0.0))
        self.which.setText(f"Image {self._number + 1} of {count}")
        self.previous.setEnabled(self._number > 0)
        self.next.setEnabled(self._number < count - 1)

    def _on_previous(self) -> None:
        self._step(-1)

    def _on_next(self) -> None:
        self._step(1)

    def _step(self, step: int) -> None:
        if self._result is None:
            return
        self._number = min(max(self._number + step, 0), self.count - 1)
        self._show()
        if self.over.isChecked():
            self._on_over(wanted=True)

    def _on_over(self, wanted: bool) -> None:
        viewer, result = self._session.viewer, self._result
        if viewer is None or result is None:
            return
        layer = self._session.layer_of(result.slide_id)
        if wanted and layer is not None:
            show_seen(viewer, layer, result, self._number)
        else:
            remove_seen(viewer, result.slide_id)

    def _on_clicked(self, y: float, x: float) -> None:
        viewer, result = self._session.viewer, self._result
        if viewer is None or result is None:
            return
        thumbnail = result.thumbnails[self._number]
        half = _FIELD_PX / thumbnail.size_px / 2
        self.picture.set_pixels(thumbnail.rgb, (y - half, x - half, y + half, x + half))
        layer = self._session.layer_of(result.slide_id)
        if layer is None:
            return
        side = thumbnail.size_px
        point = (
            thumbnail.origin_px0[0] + y * side * thumbnail.pixel_px0[0],
            thumbnail.origin_px0[1] + x * side * thumbnail.pixel_px0[1],
        )
        look_at(viewer, layer, point, zoom=_FIELD_ON_SCREEN_PX / (_FIELD_PX * thumbnail.mpp))
