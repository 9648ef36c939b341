"""The regions of a slide in the dock: drawn, loaded, saved, accepted, and handed to a scoring."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ref

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_her2._napari.collecting import take_out
from napari_her2._napari.region_files import loading_regions, saving_regions, taking_piece
from napari_her2._napari.region_kinds import PROPOSED, accept, kinds_of
from napari_her2._napari.regions import (
    add_region,
    add_region_layer,
    drawn_regions,
    region_layers,
    show_regions,
)
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.scoring.region_picker import RegionPicker
from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image, Shapes

    from napari_her2._napari.following import Followed
    from napari_her2._napari.session import Session
    from napari_her2.inference.regions import Region

SAVED_ENDINGS = (".geojson", ".geojson.gz", ".json")
FILE_ENDINGS = (*SAVED_ENDINGS, ".xml", ".ndpa")
_FILES = (
    "Regions (*.geojson *.geojson.gz *.json *.xml *.ndpa);;GeoJSON (*.geojson *.geojson.gz *.json);;"
    "ImageScope (*.xml);;NDP.view (*.ndpa);;All files (*)"
)
_SAVED_FILES = "GeoJSON (*.geojson *.geojson.gz *.json);;All files (*)"


def is_region_file(path: Path) -> bool:
    """Whether a file is one of regions, by its name."""
    return path.name.lower().endswith(FILE_ENDINGS)


class DrawnRegions(RegionPicker):
    """Picker of the layer of regions, joined to the viewer.

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
        self._slide_id = self._loaded_for = ""
        self._wand_layer: Callable[[], Shapes | None] = lambda: None
        self.load_job, self.save_job, self.wand_job = Job(), Job(), Job()
        self.jobs = (self.load_job, self.save_job, self.wand_job)
        self.changed.connect(self._on_changed)
        self.add_wanted.connect(self.add_layer)
        self.load_wanted.connect(self._choose_file)
        self.save_wanted.connect(self._choose_target)
        self.editor.accept_wanted.connect(self._accept)
        self.editor.discard_wanted.connect(self._discard)
        self.load_job.returned.connect(self._on_loaded)
        self.tools.wand_used.connect(self._use_wand)
        self.wand_job.returned.connect(self._on_piece)
        for job in self.jobs:
            job.failed.connect(self.failed)

    @property
    def slide_id(self) -> str:
        """Slide that the regions are of; empty where there is none."""
        return self._slide_id

    @property
    def layer(self) -> Shapes | None:
        """The chosen layer; None for the whole slide, or where it is gone."""
        viewer, name = self._session.viewer, self.layer_name
        if viewer is None or not name or name not in viewer.layers:
            return None
        layer = viewer.layers[name]
        return layer if layer in region_layers(viewer, self._slide_id) else None

    def show_slide(self, slide_id: str, chosen: str = "") -> None:
        """Show the layers of a slide.

        Parameters
        ----------
        slide_id : str
        chosen : str
            Name of the layer to choose; by default the choice for the slide stays.
        """
        if slide_id != self._slide_id:
            self.sides.set_sides(None)  # they were those of another slide
            self.sides.set_note("")
        self._slide_id = slide_id
        viewer = self._session.viewer
        layers = region_layers(viewer, slide_id) if viewer is not None else []
        self.set_layers([layer.name for layer in layers], chosen, of=slide_id)
        self.set_ready(bool(slide_id))

    def regions(self) -> list[Region] | None:
        """Return the regions of the chosen layer; None for the whole slide.

        Raises
        ------
        Her2Error
            If the layer is gone, holds no region, or only such as nobody has accepted.
        """
        if not self.layer_name:
            return None
        layer, slide_layer = self.layer, self._slide_layer
        if slide_layer is None:
            raise Her2Error("The slide of these regions was closed: choose another slide.")
        if layer is None:
            name = self.layer_name
            if not self.shown_as_gone:  # whoever hears of the change may ask again
                self.show_slide(self._slide_id)
            raise Her2Error(
                f'The layer "{name}" is gone: choose another region, or the whole slide, under Region.'
            )
        return drawn_regions(layer, slide_layer)

    def add_layer(self) -> None:
        """Add a layer to draw in, and choose it."""
        viewer, slide_layer = self._session.viewer, self._slide_layer
        if viewer is not None and slide_layer is not None:
            layer = add_region_layer(viewer, slide_layer)
            self.show_slide(self._slide_id, layer.name)

    def load_file(self, path: Path) -> None:
        """Read the regions of a file, in a thread, and show them over the slide."""
        if not self._slide_id:
            self.failed.emit(Failure("Open the slide first: regions of a file are shown over it."))
            return
        self._loaded_for = self._slide_id
        self.load_job.start(partial(loading_regions, path, self._session.slide_of(self._slide_id)))

    def save_file(self, path: Path) -> None:
        """Write the regions of the chosen layer, in a thread."""
        try:
            regions = self.regions()
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))
            return
        if regions is not None:
            self.save_job.start(
                partial(saving_regions, regions, path, self._session.slide_of(self._slide_id))
            )

    def take(self, regions: list[Region], name: str, *, proposed: bool = False) -> Shapes | None:
        """Show regions in a layer of their own over the slide, and choose it."""
        viewer, slide_layer = self._session.viewer, self._slide_layer
        if viewer is None or slide_layer is None:
            return None
        layer = show_regions(viewer, slide_layer, regions, name=name, proposed=proposed)
        self.show_slide(self._slide_id, layer.name)
        return layer

    def show_followed(self, followed: Followed) -> None:
        """Show the answer inside the regions, and beside it that of the rest once it is known."""
        from napari_her2.inference.sides import side_of

        if followed.sides is None and self.layer_name:
            self.sides.set_inside(side_of(followed.result))
        else:
            self.sides.set_sides(followed.sides)

    @property
    def _slide_layer(self) -> Image | None:
        return self._session.layer_of(self._slide_id)

    def _on_changed(self) -> None:
        self.editor.set_layer(self.layer)
        self.tools.set_layer(self.layer)

    def _use_wand(self, y: float, x: float) -> None:
        """Take the piece of tissue at a place of the world, in a thread."""
        slide, slide_layer, layer = self._session.slide_of(self._slide_id), self._slide_layer, self.layer
        if slide is not None and slide_layer is not None and layer is not None:
            there = slide_layer.world_to_data((y, x))[-2:]
            at_px0 = (float(there[0]) + 0.5, float(there[1]) + 0.5)  # napari counts from the first centre
            self._wand_layer = ref(layer)
            self.wand_job.start(partial(taking_piece, slide, self.preset, at_px0))

    def _on_piece(self, piece: Region | None) -> None:
        layer = self._wand_layer()
        if piece is None:
            self.failed.emit(Failure("There is no tissue at that place: click inside its outline."))
        elif layer is not None and layer is self.layer:
            add_region(layer, piece)

    def _on_loaded(self, loaded: tuple[str, list[Region]]) -> None:
        name, regions = loaded
        if self._loaded_for == self._slide_id:
            self.take(regions, name)

    def _accept(self) -> None:
        layer, slide_layer = self.layer, self._slide_layer
        if layer is not None and slide_layer is not None and accept(layer):
            layer.name = f"regions · {slide_layer.name}"
            self.show_slide(self._slide_id, layer.name)

    def _discard(self) -> None:
        """Take away what is only proposed; a layer that holds nothing else goes with it."""
        viewer, layer = self._session.viewer, self.layer
        if viewer is None or layer is None:
            return
        proposed = [number for number, kind in enumerate(kinds_of(layer)) if kind == PROPOSED]
        if len(proposed) < layer.nshapes:
            layer.remove(proposed)
            return
        self.combo.setCurrentIndex(0)
        take_out(viewer, layer)

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Load regions", "", _FILES)
        if chosen:
            self.load_file(Path(chosen))

    def _choose_target(self) -> None:
        slide = self._session.slide_of(self._slide_id)
        name = "" if slide is None else str(slide.path.with_name(f"{slide.path.stem} regions.geojson"))
        chosen, _ = QFileDialog.getSaveFileName(self, "Save regions", name, _SAVED_FILES)
        if chosen:
            path = Path(chosen)
            self.save_file(
                path if path.name.lower().endswith(SAVED_ENDINGS) else path.with_name(f"{path.name}.geojson")
            )
