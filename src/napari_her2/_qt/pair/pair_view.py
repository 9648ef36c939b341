"""How the two slides of a case are looked at: side by side or stacked, faded, moved, aligned by points."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QHBoxLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_her2._napari.curtain import Curtain
from napari_her2._napari.landmarks import Landmarks
from napari_her2._napari.linked_cursor import LinkedCursor
from napari_her2._napari.viewer_keys import ViewerKeys
from napari_her2._napari.work import identifying
from napari_her2._qt.pair.automatic import AutomaticAlignment
from napari_her2._qt.pair.slide_drag import SlideDrag
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.pointer import Pointer
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.errors import Her2Error
from napari_her2.registration.affine import POINTS, Alignment

if TYPE_CHECKING:
    from napari_her2._napari.pairing import Arrangement, Pairing
    from napari_her2._napari.session import Session

_KEEP_AFTER_MS = 800


class PairView(QWidget):
    """Controls of the pair of the session; hidden where there is none.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._pairing: Pairing | None = None
        self._arranged: Arrangement | None = None
        self._drag: SlideDrag | None = None
        self._marks: Landmarks | None = None
        self._pointer: Pointer | None = None
        self._curtain: Curtain | None = None
        self._cursor: LinkedCursor | None = None
        self._keys: ViewerKeys | None = None
        self.beside = _toggle("Side by side", "The IHC slide to the right of the H&E slide")
        self.stacked = _toggle("Stacked", "The IHC slide on the H&E slide, with a slider between them")
        self.fade = QSlider(Qt.Orientation.Horizontal)
        self.fade.setRange(0, 100)
        self.fade.setAccessibleName("Between the H&E and the IHC slide")
        self.fade.setToolTip("Left shows the H&E slide, right the IHC slide, each with its overlays")
        self.curtain = _toggle(
            "Curtain",
            "The H&E slide left and the IHC slide right of a line: drag it, or move it with Shift-Left and "
            "Shift-Right in the picture",
        )
        self.cursor = _toggle(
            "Linked cursor", "A cross on the other slide shows where the cursor is, side by side"
        )
        self.move = _toggle("Move IHC slide", "Drag the IHC slide with the mouse; with Shift held it turns")
        self.points = _toggle("Align by 3 points…", "Click the same three places on both slides")
        self.reset = QPushButton("Reset")
        self.reset.setToolTip("Forget the alignment of this case")
        self.reset.setAccessibleName("Reset the alignment")
        self.automatic = AutomaticAlignment(session)
        self.state = Label(wrap=True)
        self._keep = QTimer(self)
        self._keep.setSingleShot(True)
        self._keep.setInterval(_KEEP_AFTER_MS)
        self._keep.timeout.connect(self._on_keep)
        self._identifying = Job()
        self._subscriptions = Subscriptions(self)
        self._identifying.returned.connect(self._on_identified)
        self._identifying.failed.connect(self.failed)
        self._arrange()
        self._connect()
        self.set_colours(Colours())
        self._on_pairing()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.state.setStyleSheet(f"color: {colours.muted};")

    def shutdown(self) -> None:
        """Keep what changed and let go of the viewer."""
        self._stop_tools()
        self.automatic.shutdown()
        self._on_keep()
        self._identifying.shutdown()
        self._subscriptions.end()
        self._pairing = None

    def _arrange(self) -> None:
        # Both on one button is none: exactly one of the two holds.
        group = QButtonGroup(self)
        group.addButton(self.beside)
        group.addButton(self.stacked)
        self.fader = QWidget()
        fade = QHBoxLayout(self.fader)
        fade.setContentsMargins(0, 0, 0, 0)
        fade.addWidget(Label("H&E"))
        fade.addWidget(self.fade, 1)
        fade.addWidget(Label("IHC"))
        grid = QGridLayout()
        grid.setHorizontalSpacing(4)
        grid.addWidget(self.beside, 0, 0, 1, 3)
        grid.addWidget(self.stacked, 0, 3, 1, 3)
        grid.addWidget(self.fader, 1, 0, 1, 6)
        grid.addWidget(self.move, 2, 0, 1, 3)
        grid.addWidget(self.points, 2, 3, 1, 3)
        grid.addWidget(self.curtain, 3, 0, 1, 2)
        grid.addWidget(self.cursor, 3, 2, 1, 2)
        grid.addWidget(self.reset, 3, 4, 1, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(grid)
        layout.addWidget(self.automatic)
        layout.addWidget(self.state)

    def _connect(self) -> None:
        self.beside.clicked.connect(self._on_arrangement)
        self.stacked.clicked.connect(self._on_arrangement)
        self.fade.valueChanged.connect(self._on_fade)
        self.curtain.toggled.connect(self._on_curtain)
        self.cursor.toggled.connect(self._on_cursor)
        self.move.toggled.connect(self._on_move)
        self.points.toggled.connect(self._on_points)
        self.reset.clicked.connect(self._on_reset)
        self.automatic.failed.connect(self.failed)
        self.automatic.settled.connect(self._on_settled)
        self._subscriptions.add(self._session.pairing_changed, self._on_pairing)

    def _set_arrangement(self, arrangement: Arrangement) -> None:
        if self._pairing is not None:
            self.points.setChecked(False)
            if arrangement == "side by side":
                self.curtain.setChecked(False)
            self._pairing.set_arrangement(arrangement)

    def _on_arrangement(self) -> None:
        self._set_arrangement("stacked" if self.stacked.isChecked() else "side by side")

    def _show_all(self) -> None:
        viewer = self._session.viewer
        if viewer is not None:
            viewer.reset_view()

    def _on_pairing(self) -> None:
        self._stop_tools()
        if self._pairing is not None:
            self._on_keep()
            self._subscriptions.end(self._pairing.changed)
        self._pairing = self._session.pairing
        if self._pairing is not None:
            self._arranged = self._pairing.arrangement
            self._subscriptions.add(self._pairing.changed, self._on_changed)
            if not self._pairing.recalled:
                self._identifying.start(partial(identifying, self._pairing.slides))
            self._show_all()
        self.automatic.set_pairing(self._pairing)
        self._show()

    def _on_settled(self) -> None:
        self._on_keep()
        self._show()

    def _on_identified(self) -> None:
        """Lay the slides as the last time; those of an older pairing are not asked for any more."""
        if self._pairing is None or self._pairing.recalled:
            return
        try:
            self._pairing.recall()
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))

    def _on_changed(self) -> None:
        # Whoever laid them otherwise: this part, or an alignment that was found.
        if self._pairing is not None and self._pairing.arrangement != self._arranged:
            self._arranged = self._pairing.arrangement
            self._show_all()
        self._keep.start()
        self.automatic.follow()
        self._show()

    def _show(self) -> None:
        pairing = self._pairing
        tools = (self.curtain, self.cursor, self.move, self.points, self.reset)
        for widget in (self.beside, self.stacked, self.fader, *tools):
            widget.setEnabled(pairing is not None)
        if pairing is None:
            return
        stacked = pairing.arrangement == "stacked"
        self.beside.setChecked(not stacked)
        self.stacked.setChecked(stacked)
        self.fader.setEnabled(stacked and self._curtain is None)
        self.fade.blockSignals(True)
        self.fade.setValue(round(100 * pairing.fade))
        self.fade.blockSignals(False)
        self.reset.setEnabled(not pairing.alignment.is_identity)
        self.state.setText(self._words(pairing))

    def _words(self, pairing: Pairing) -> str:
        if self._marks is not None:
            he, ihc = self._marks.counts
            return (
                f"Click the same {POINTS} places on both slides, in the same order. "
                f"H&E: {he} of {POINTS}, IHC: {ihc} of {POINTS}."
            )
        if self._drag is not None:
            return "Drag moves the IHC slide, with Shift it turns; the wheel zooms."
        if pairing.alignment.is_identity:
            return "Not aligned: the slides lie as their files have them."
        return f"Alignment of this case: {pairing.alignment.in_words()}."

    def _on_fade(self, value: int) -> None:
        if self._pairing is not None:
            self._pairing.set_fade(value / 100)

    def _on_curtain(self, wanted: bool) -> None:
        viewer = self._session.viewer
        if self._curtain is not None:
            self._curtain.stop()
            self._curtain = None
        if self._keys is not None:
            self._keys.release()
            self._keys = None
        if wanted and viewer is not None and self._pairing is not None:
            self.points.setChecked(False)
            self.move.setChecked(False)
            if self._pairing.arrangement != "stacked":
                self._set_arrangement("stacked")
            self._curtain = Curtain(viewer, self._pairing)
            self._keys = ViewerKeys(
                viewer, {"Shift-Left": self._curtain_left, "Shift-Right": self._curtain_right}
            )
            self._keys.bind()
        self._show()

    def _curtain_left(self) -> None:
        if self._curtain is not None:
            self._curtain.step(-1)

    def _curtain_right(self) -> None:
        if self._curtain is not None:
            self._curtain.step(1)

    def _on_cursor(self, wanted: bool) -> None:
        viewer = self._session.viewer
        if self._cursor is not None:
            self._cursor.stop()
            self._cursor = None
        if wanted and viewer is not None and self._pairing is not None:
            if self._pairing.arrangement == "stacked":
                self._set_arrangement("side by side")
            self._cursor = LinkedCursor(viewer, self._pairing)

    def _on_move(self, wanted: bool) -> None:
        viewer = self._session.viewer
        if self._drag is not None:
            self._drag.stop()
            self._drag = None
        if wanted and viewer is not None and self._pairing is not None:
            self.points.setChecked(False)
            if self._pairing.arrangement != "stacked":
                self._set_arrangement("stacked")
            self._drag = SlideDrag(viewer, self._pairing)
        else:
            self._on_keep()
        self._show()

    def _on_points(self, wanted: bool) -> None:
        viewer = self._session.viewer
        self._stop_marking()
        if wanted and viewer is not None and self._pairing is not None:
            self.move.setChecked(False)
            self._marks = Landmarks(viewer, self._pairing)
            self._show_all()
            self._pointer = Pointer(viewer)
            self._pointer.clicked.connect(self._on_mark)
        self._show()

    def _on_mark(self, position: tuple[float, float]) -> None:
        marks, pairing = self._marks, self._pairing
        if marks is None or pairing is None:
            return
        marks.add(position)
        if not marks.complete:
            self._show()
            return
        try:
            alignment = marks.alignment()
        except Her2Error as error:
            marks.clear()
            self._show()
            self.failed.emit(Failure(str(error)))
            return
        self.points.setChecked(False)
        pairing.set_alignment(alignment)
        self._set_arrangement("stacked")

    def _on_reset(self) -> None:
        if self._pairing is not None:
            self._pairing.set_alignment(Alignment.identity())
            self._show_all()
            self._on_keep()

    def _on_keep(self) -> None:
        self._keep.stop()
        if self._pairing is None:
            return
        try:
            self._pairing.keep()
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))

    def _stop_marking(self) -> None:
        if self._pointer is not None:
            self._pointer.stop()
            self._pointer = None
        if self._marks is not None:
            self._marks.remove()
            self._marks = None

    def _stop_tools(self) -> None:
        self.curtain.setChecked(False)
        self.cursor.setChecked(False)
        self.move.setChecked(False)
        self.points.setChecked(False)


def _toggle(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setCheckable(True)
    button.setToolTip(tip)
    return button
