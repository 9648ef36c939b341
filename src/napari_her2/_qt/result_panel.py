"""Everything about the result of the chosen slide: card, own score, overlays, tiles, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLabel, QVBoxLayout, QWidget

from napari_her2._napari.tags import OverlayRole, slide_tag
from napari_her2._napari.tile import TileLookup
from napari_her2._napari.work import exporting, reading_tile
from napari_her2._qt.jobs import Failure, Job
from napari_her2._qt.manual_score import ManualScoreForm
from napari_her2._qt.overlay_controls import OverlayControls
from napari_her2._qt.pointer import Pointer
from napari_her2._qt.result_card import ResultCard
from napari_her2._qt.sections import Section
from napari_her2._qt.tile_inspector import TileInspector

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_her2._napari.manual import ManualScore
    from napari_her2._napari.overlays import OverlaySet
    from napari_her2._napari.session import Session
    from napari_her2._napari.tile import TileView
    from napari_her2._qt.theme import Colours

_ROLES: tuple[OverlayRole, ...] = ("attention", "evidence", "tissue", "top tiles")


class ResultPanel(QWidget):
    """Result of one slide of the session.

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
        self._slide_id = ""
        self._lookup: TileLookup | None = None
        self._tile: int | None = None
        self.card = ResultCard()
        self.manual = ManualScoreForm()
        self.overlays = OverlayControls()
        self.tiles = TileInspector()
        self.exported = QLabel()
        self.exported.setWordWrap(True)
        self.exported.setVisible(False)
        self.tile_job = Job()
        self.export_job = Job()
        self.jobs = (self.tile_job, self.export_job)
        self.pointer = Pointer(session.viewer) if session.viewer is not None else None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for title, widget in (
            ("Result", self.card),
            ("Your own reading", self.manual),
            ("Overlays", self.overlays),
            ("Tile", self.tiles),
        ):
            layout.addWidget(Section(title, widget))
        self.card.layout().addWidget(self.exported)
        self._connect()
        self.show_slide("")

    def _connect(self) -> None:
        self.manual.changed.connect(self._on_manual)
        self.card.export_wanted.connect(self._choose_folder)
        controls = self.overlays
        controls.visible_changed.connect(self._on_visible)
        controls.class_changed.connect(self._on_class)
        controls.scale_changed.connect(self._on_scale)
        controls.opacity_changed.connect(self._on_opacity)
        controls.held.connect(self._on_held)
        self.tiles.step_wanted.connect(self._on_step)
        self.tiles.show_wanted.connect(self._go_to_tile)
        self.tile_job.returned.connect(self._on_tile_read)
        self.tile_job.failed.connect(self._on_tile_failed)
        self.export_job.returned.connect(self._on_exported)
        self.export_job.failed.connect(self.failed)
        if self.pointer is not None:
            self.pointer.moved.connect(self._on_moved)
            self.pointer.clicked.connect(self._on_clicked)
        self._session.result_changed.connect(self._on_result)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.card.set_colours(colours)
        self.tiles.set_colours(colours)

    def show_slide(self, slide_id: str) -> None:
        """Show the result of a slide, or nothing where there is none."""
        self._slide_id = slide_id
        result = self._session.result(slide_id)
        self.setVisible(result is not None)
        self.card.set_result(result)
        self.exported.setVisible(False)
        self.tiles.clear()
        self._tile = None
        self._lookup = TileLookup(result) if result is not None else None
        self.manual.set_value(self._session.manual(slide_id))
        self._show_overlays()

    def export_to(self, folder: Path) -> None:
        """Write the result to a folder, in a thread."""
        result = self._session.result(self._slide_id)
        if result is not None:
            manual = self._session.manual(self._slide_id)
            self.export_job.start(lambda: exporting(result, manual, folder))

    def inspect(self, tile: int) -> None:
        """Show a tile enlarged; its pixels are read in a thread."""
        layer = self._session.layer_of(self._slide_id)
        tag = slide_tag(layer) if layer is not None else None
        if self._lookup is None or tag is None:
            return
        self._tile = tile
        self.tiles.set_numbers(self._lookup.words(tile))
        slide, result = tag.slide, self._lookup.result
        self.tile_job.start(lambda: reading_tile(slide, result, tile))

    @property
    def first_tile(self) -> int | None:
        """Position in the table of the most attended tile."""
        return None if self._lookup is None else self._lookup.first

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer."""
        for job in self.jobs:
            job.shutdown()
        if self.pointer is not None:
            self.pointer.stop()
        self._session.result_changed.disconnect(self._on_result, missing_ok=True)

    @property
    def _overlay_set(self) -> OverlaySet | None:
        return self._session.overlays(self._slide_id)

    def _show_overlays(self) -> None:
        shown = self._overlay_set
        if shown is None:
            return
        visible: dict[OverlayRole, bool | None] = {}
        for role in _ROLES:
            layer = shown.layer(role)
            visible[role] = None if layer is None else bool(layer.visible)
        self.overlays.set_visible(visible)
        self.overlays.set_choices(
            shown.result.classes, shown.look, shown.look.class_name or shown.result.score
        )

    def _on_result(self, slide_id: str) -> None:
        if slide_id == self._slide_id:
            self.show_slide(slide_id)

    def _on_manual(self, manual: ManualScore) -> None:
        self._session.set_manual(self._slide_id, manual)

    def _on_visible(self, role: OverlayRole, visible: bool) -> None:
        if self._overlay_set is not None:
            self._overlay_set.set_visible(role, visible)

    def _on_class(self, name: str) -> None:
        if self._overlay_set is not None:
            self._overlay_set.set_class(name)

    def _on_scale(self, scale: str) -> None:
        if self._overlay_set is not None:
            self._overlay_set.set_attention_scale("raw" if scale == "raw" else "percentile")

    def _on_opacity(self, opacity: float) -> None:
        if self._overlay_set is not None:
            self._overlay_set.set_opacity(opacity)

    def _on_held(self, held: bool) -> None:
        if self._overlay_set is not None:
            (self._overlay_set.hide if held else self._overlay_set.show)()

    def _tile_at(self, position: tuple[float, float]) -> int | None:
        layer: Image | None = self._session.layer_of(self._slide_id)
        if layer is None or self._lookup is None:
            return None
        y, x = layer.world_to_data(position)[-2:]
        return self._lookup.at((y + 0.5, x + 0.5))  # napari counts from the centre of the first pixel

    def _on_moved(self, position: tuple[float, float]) -> None:
        tile = self._tile_at(position)
        if self._lookup is None or tile is None:
            self.tiles.set_hover("")
        else:
            self.tiles.set_hover(f"Under the cursor: {self._lookup.short_words(tile)}")

    def _on_clicked(self, position: tuple[float, float]) -> None:
        tile = self._tile_at(position)
        if tile is not None:
            self.inspect(tile)

    def _on_step(self, step: int) -> None:
        if self._lookup is not None and self._tile is not None:
            self.inspect(self._lookup.neighbour(self._tile, step))
            self._go_to_tile()

    def _go_to_tile(self) -> None:
        viewer, layer = self._session.viewer, self._session.layer_of(self._slide_id)
        if viewer is None or layer is None or self._lookup is None or self._tile is None:
            return
        result = self._lookup.result
        centre = result.table.origins_px0[self._tile] + [side / 2 for side in result.grid.tile_px0]
        viewer.camera.center = (0.0, *(float(value) for value in layer.data_to_world(centre)[-2:]))

    def _on_tile_read(self, view: TileView) -> None:
        self.tiles.set_view(view)

    def _on_tile_failed(self, failure: Failure) -> None:
        self.tiles.set_problem(failure.message)

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder to write the result to")
        if chosen:
            self.export_to(Path(chosen))

    def _on_exported(self, folder: Path) -> None:
        self.exported.setText(f"Written to {folder}")
        self.exported.setVisible(True)
