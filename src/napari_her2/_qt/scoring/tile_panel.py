"""The tiles of a result: galleries, the tile under the cursor, and the one that was clicked, enlarged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._napari.placement import look_at
from napari_her2._napari.tile import TileLookup
from napari_her2._napari.work import reading_tile
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.pointer import Pointer
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.scoring.gallery import Gallery, strips_of
from napari_her2._qt.scoring.tile_inspector import TileInspector
from napari_her2.explain.geometries import TILES

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2._napari.tile import TileView
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.inference.result import SlideResult

_SEEN_PX = 120  # side of a tile on the screen after a jump: nuclei can be told apart


class TilePanel(QWidget):
    """Leads from the maps to the tissue.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    tile_read : Signal()
        The pixels of the chosen tile, or why there are none, are shown.
    """

    tile_read = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._lookups: dict[str, TileLookup] = {}
        self._chosen: tuple[str, int] | None = None
        self.inspector = TileInspector()
        self.gallery = Gallery(session.slide_of)
        self.tile_job = Job()
        self.jobs = (self.tile_job, self.gallery.job)
        self.pointer = Pointer(session.viewer) if session.viewer is not None else None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.single = Section("Tile", self.inspector)
        layout.addWidget(self.single)
        self.most_and_least = Section("Tiles the model used most, and least", self.gallery)
        layout.addWidget(self.most_and_least)
        self.inspector.step_wanted.connect(self._on_step)
        self.inspector.show_wanted.connect(self.go_to_tile)
        self.gallery.chosen.connect(self.lead_to)
        self.tile_job.returned.connect(self._on_read)
        self.tile_job.failed.connect(self._on_failed)
        if self.pointer is not None:
            self.pointer.moved.connect(self._on_moved)
            self.pointer.clicked.connect(self._on_clicked)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.inspector.set_colours(colours)
        self.gallery.set_colours(colours)

    def show_result(self, result: SlideResult | None) -> None:
        """Show the tiles of all open slides of a result, or nothing."""
        self.tile_job.cancel()
        self._chosen = None
        self.inspector.clear()
        slides = [] if result is None else [slide.slide_id for slide in result.slides]
        self._lookups = {}
        for slide_id in slides:
            if result is not None and self._session.slide_of(slide_id) is not None:
                self._lookups[slide_id] = TileLookup(result.seen_from(slide_id))
        slide = None if result is None else result.slides[0]
        ranks, info = (None, TILES) if slide is None else (slide.ranks, slide.tiles_info)
        self.inspector.set_order(None if ranks is None else ranks.info.ranking)
        self.single.set_title(info.title)
        self.inspector.set_hint(info.unit)
        hidden = result is not None and result.doubt.hidden
        self.gallery.set_strips([] if hidden else strips_of(self.lookups))
        self.most_and_least.setVisible(bool(self.gallery.strips))

    @property
    def lookups(self) -> list[TileLookup]:
        """Tiles of the slides that are shown, the first slide first."""
        return list(self._lookups.values())

    @property
    def slide_ids(self) -> tuple[str, ...]:
        """Fingerprints of the slides whose tiles are shown."""
        return tuple(self._lookups)

    @property
    def first_tile(self) -> int | None:
        """Position in the table of the most attended tile of the first slide; None without attention."""
        return next((lookup.first for lookup in self._lookups.values()), None)

    @property
    def chosen(self) -> tuple[str, int] | None:
        """Fingerprint of the slide and position in its table of the tile that is shown."""
        return self._chosen

    def inspect(self, tile: int, slide_id: str = "") -> None:
        """Show a tile enlarged; its pixels are read in a thread.

        Parameters
        ----------
        tile : int
            Position in the table.
        slide_id : str
            Fingerprint of its slide; by default the first one of the result.
        """
        slide_id = slide_id or next(iter(self._lookups), "")
        lookup, slide = self._lookups.get(slide_id), self._session.slide_of(slide_id)
        if lookup is None or slide is None:
            return
        self._chosen = (slide_id, tile)
        self.inspector.set_numbers(self._of(slide_id) + lookup.words(tile))
        self.tile_job.start(partial(reading_tile, slide, lookup.result, tile))

    def go_to_tile(self, *, zoom: bool = False) -> None:
        """Move the view to the chosen tile; with ``zoom`` also near enough to see its cells."""
        viewer = self._session.viewer
        if self._chosen is None or viewer is None:
            return
        slide_id, tile = self._chosen
        layer, lookup = self._session.layer_of(slide_id), self._lookups.get(slide_id)
        if layer is None or lookup is None:
            return
        result = lookup.result
        y, x = result.table.origins_px0[tile] + np.asarray(result.grid.tile_px0) / 2
        look_at(viewer, layer, (float(y), float(x)), zoom=_SEEN_PX / result.grid.tile_um if zoom else 0.0)

    def lead_to(self, slide_id: str, tile: int) -> None:
        """Show a tile enlarged, and move the view to it.

        Parameters
        ----------
        slide_id : str
            Fingerprint of its slide.
        tile : int
            Position in the table.
        """
        pairing = self._session.pairing
        if pairing is not None and pairing.arrangement == "stacked" and slide_id in pairing.ids:
            # What is jumped to must not lie under the other slide.
            pairing.set_fade(0.0 if slide_id == pairing.ids[0] else 1.0)
        self.inspect(tile, slide_id)
        self.go_to_tile(zoom=True)

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer."""
        self.tile_job.shutdown()
        self.gallery.shutdown()
        if self.pointer is not None:
            self.pointer.stop()

    def _of(self, slide_id: str) -> str:
        """Name the slide of a tile, where there are two."""
        if len(self._lookups[slide_id].result.slides) < 2:
            return ""
        slide = self._lookups[slide_id].result.slides[0]
        return f"{slide.stain} slide ({slide.name})\n"

    def _tile_at(self, position: tuple[float, float]) -> tuple[str, int] | None:
        pairing = self._session.pairing
        order = list(self._lookups)
        if pairing is not None:
            order.sort(key=lambda key: pairing.front.index(key) if key in pairing.front else len(order))
        for slide_id in order:
            layer = self._session.layer_of(slide_id)
            if layer is None:
                continue
            y, x = layer.world_to_data(position)[-2:]
            # napari counts from the centre of the first pixel
            tile = self._lookups[slide_id].at((y + 0.5, x + 0.5))
            if tile is not None:
                return slide_id, tile
        return None

    def _on_moved(self, position: tuple[float, float]) -> None:
        found = self._tile_at(position)
        if found is None:
            self.inspector.set_hover("")
            return
        slide_id, tile = found
        lookup = self._lookups[slide_id]
        of = f"{lookup.result.slides[0].stain}, " if len(self._lookups) > 1 else ""
        self.inspector.set_hover(f"Under the cursor: {of}{lookup.short_words(tile)}")

    def _on_clicked(self, position: tuple[float, float]) -> None:
        pairing = self._session.pairing
        found = self._tile_at(position)
        if found is not None and not (pairing is not None and pairing.marking):
            self.inspect(found[1], found[0])

    def _on_step(self, step: int) -> None:
        if self._chosen is not None and self._chosen[0] in self._lookups:
            slide_id, tile = self._chosen
            self.inspect(self._lookups[slide_id].neighbour(tile, step), slide_id)
            self.go_to_tile()

    def _on_read(self, view: TileView) -> None:
        self.inspector.set_view(view)
        self.tile_read.emit()

    def _on_failed(self, failure: Failure) -> None:
        self.inspector.set_problem(failure.message)
        self.tile_read.emit()
