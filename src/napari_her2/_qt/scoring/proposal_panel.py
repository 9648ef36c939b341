"""Tumour regions proposed from the H&E slide of the case: from which map, and how much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_her2._napari.collecting import take_out
from napari_her2._napari.proposals import maps_of, paired, proposed_for, proposing_slides
from napari_her2._napari.region_kinds import PROPOSED, kinds_of
from napari_her2._qt.parts.jobs import Failure
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.errors import Her2Error
from napari_her2.methods.catalogue import can_explain

if TYPE_CHECKING:
    from napari.layers import Shapes

    from napari_her2._napari.session import Session
    from napari_her2._qt.scoring.drawn_regions import DrawnRegions
    from napari_her2.explain.maps import TileMap
    from napari_her2.models.registry import ModelEntry

LAYER = "proposed tumour regions · {slide}"
_LEAST, _MOST, _START = 2, 90, 30  # per cent of the tiles
_MS_BEFORE_REDRAW = 120


class ProposalPanel(QWidget):
    """Proposes regions in a layer of their own, which count only once they are accepted under Region.

    Shown for models that read cells, where another open slide has a map to propose from.

    Parameters
    ----------
    session : Session
    regions : DrawnRegions
        Takes what is proposed.

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(self, session: Session, regions: DrawnRegions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._regions = session, regions
        self._slide_id = ""
        self._reads_cells = False
        self._maps: list[tuple[str, TileMap]] = []
        self._layer: ref[Shapes] | None = None
        self.jobs = ()
        self._make_widgets()
        self._arrange()
        self._connect()
        self.set_colours(Colours())
        self._show_slides()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.words.setStyleSheet(f"color: {colours.muted};")

    def set_model(self, entry: ModelEntry | None) -> None:
        """Take the chosen model."""
        self._reads_cells = entry is not None and can_explain(entry.card, "cells")
        self._show_slides()

    def set_slide(self, slide_id: str) -> None:
        """Take the slide that regions are proposed for."""
        if slide_id != self._slide_id:
            self._slide_id = slide_id
            self._layer = None
            self.words.clear()
        self._show_slides()

    @property
    def he_id(self) -> str:
        """Id of the slide whose maps are offered; empty where there is none."""
        return str(self.slide.currentData() or "")

    @property
    def proposal(self) -> Shapes | None:
        """The layer of what is proposed and was not touched by accepting; None where there is none."""
        layer = None if self._layer is None else self._layer()
        viewer = self._session.viewer
        if layer is None or viewer is None or layer not in viewer.layers:
            return None
        return layer if set(kinds_of(layer)) == {PROPOSED} else None

    def propose(self) -> None:
        """Propose regions from the chosen map, in place of those that were proposed before."""
        at, viewer, slide = (
            self.map.currentIndex(),
            self._session.viewer,
            self._session.slide_of(self._slide_id),
        )
        if viewer is None or slide is None or not 0 <= at < len(self._maps):
            return
        title, tile_map = self._maps[at]
        share = None if self.automatic.isChecked() else self.share.value() / 100
        try:
            found = proposed_for(self._session, self._slide_id, self.he_id, tile_map, share)
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))
            return
        take_out(viewer, self.proposal)
        layer = self._regions.take(list(found.regions), LAYER.format(slide=slide.name), proposed=True)
        self._layer = None if layer is None else ref(layer)
        self.words.setText(found.in_words(title))

    def shutdown(self) -> None:
        """Let go of the viewer."""
        self._redraw.stop()
        self._subscriptions.end()
        self._maps = []

    def _make_widgets(self) -> None:
        self.slide = Combo("H&E slide")
        self.slide.setToolTip("An open slide that an H&E model has scored")
        self.pair = QPushButton("Show both")
        self.pair.setToolTip("Shows the two slides together, to align them under Both slides")
        self.map = Combo("Map that regions are proposed from")
        self.map.setToolTip("What the H&E model used; not what is HER2-positive, and not always the tumour")
        self.automatic = QCheckBox("automatic")
        self.automatic.setChecked(True)
        self.automatic.setToolTip("Splits the map by Otsu's method, instead of a share that is chosen")
        self.share = QSlider(Qt.Orientation.Horizontal)
        self.share.setRange(_LEAST, _MOST)
        self.share.setValue(_START)
        self.share.setAccessibleName("Share of the scored tissue that is proposed, per cent")
        self.share_words = Label()
        self.start = QPushButton("Propose tumour regions")
        self.start.setToolTip("Draws regions over the slide, which count only once they are accepted")
        self.words = Label(wrap=True)
        self._redraw = QTimer(self)
        self._redraw.setSingleShot(True)
        self._redraw.setInterval(_MS_BEFORE_REDRAW)

    def _arrange(self) -> None:
        heading = Label("Tumour from the H&E slide")
        heading.setStyleSheet("font-weight: bold;")
        rows = [QHBoxLayout(), QHBoxLayout()]
        rows[0].addWidget(self.slide, 1)
        rows[0].addWidget(self.pair)
        for widget, stretch in ((self.automatic, 0), (self.share, 1), (self.share_words, 0)):
            rows[1].addWidget(widget, stretch)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        layout.addWidget(heading)
        layout.addLayout(rows[0])
        layout.addWidget(self.map)
        layout.addLayout(rows[1])
        layout.addWidget(self.start)
        layout.addWidget(self.words)

    def _connect(self) -> None:
        self.slide.activated.connect(self._show_maps)
        self.pair.clicked.connect(self._on_pair)
        self.map.activated.connect(self._on_changed)
        self.automatic.toggled.connect(self._on_changed)
        self.share.valueChanged.connect(self._on_changed)
        self.start.clicked.connect(self.propose)
        self._redraw.timeout.connect(self._on_redraw)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(self._session.slides_changed, self._show_slides)
        self._subscriptions.add(self._session.result_changed, self._on_result)
        self._subscriptions.add(self._session.pairing_changed, self._show_pair)
        self._show_share()

    def _on_result(self, slide_id: str) -> None:
        del slide_id
        self._show_slides()

    def _show_slides(self) -> None:
        """Show the slides that have a map, the one before again where it still has one."""
        before = self.he_id
        found = (
            proposing_slides(self._session, self._slide_id) if self._reads_cells and self._slide_id else []
        )
        self.slide.clear()
        for slide_id in found:
            slide = self._session.slide_of(slide_id)
            self.slide.addItem("" if slide is None else slide.name, slide_id)
        self.slide.setCurrentIndex(max(self.slide.findData(before), 0))
        self.setVisible(bool(found))
        self._show_maps()

    def _show_maps(self) -> None:
        before = self.map.currentText()
        self._maps = maps_of(self._session, self.he_id) if self.he_id else []
        self.map.clear()
        self.map.addItems([title for title, _ in self._maps])
        self.map.setCurrentIndex(max(self.map.findText(before), 0) if self._maps else -1)
        self._show_pair()

    def _show_pair(self) -> None:
        together = paired(self._session, self.he_id, self._slide_id) is not None
        self.pair.setVisible(not together)
        self.start.setEnabled(together)
        if not together:
            self.words.setText("Show both slides and align them first; then regions can be proposed.")
        elif self.proposal is None:
            self.words.setText("")

    def _show_share(self) -> None:
        self.share.setEnabled(not self.automatic.isChecked())
        self.share_words.setText("" if self.automatic.isChecked() else f"{self.share.value()} % of tissue")

    def _on_pair(self) -> None:
        if self._session.pair(self.he_id, self._slide_id) is None:
            self.failed.emit(Failure("Give the µm/px of both slides first: they are aligned in µm."))

    def _on_changed(self) -> None:
        self._show_share()
        if self.proposal is not None:
            self._redraw.start()

    def _on_redraw(self) -> None:
        if self.proposal is not None:  # else it was accepted meanwhile
            self.propose()
