"""The regions of a slide in the dock: drawn, loaded, saved, accepted, and handed to a scoring."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_her2._napari.region_files import loading_regions, saving_regions
from napari_her2._napari.region_kinds import PROPOSED, accept, kinds_of
from napari_her2._napari.regions import add_region_layer, drawn_regions, region_layers, show_regions
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.scoring.region_picker import RegionPicker
from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

    from napari_her2._napari.session import Session
    from napari_her2.inference.regions import Region

FILE_ENDINGS = (".geojson", ".geojson.gz", ".json")
_FILES = "GeoJSON (*.geojson *.geojson.gz *.json);;All files (*)"


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
        self.load_job, self.save_job = Job(), Job()
        self.jobs = (self.load_job, self.save_job)
        self.changed.connect(self._on_changed)
        self.add_wanted.connect(self.add_layer)
        self.load_wanted.connect(self._choose_file)
        self.save_wanted.connect(self._choose_target)
        self.editor.accept_wanted.connect(self._accept)
        self.editor.discard_wanted.connect(self._discard)
        self.load_job.returned.connect(self._on_loaded)
        for job in self.jobs:
            job.failed.connect(self.failed)

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
        if layer is None or slide_layer is None:
            name = self.layer_name
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
        self.load_job.start(partial(loading_regions, path))

    def save_file(self, path: Path) -> None:
        """Write the regions of the chosen layer, in a thread."""
        try:
            regions = self.regions()
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))
            return
        if regions is not None:
            self.save_job.start(partial(saving_regions, regions, path))

    def take(self, regions: list[Region], name: str, *, proposed: bool = False) -> Shapes | None:
        """Show regions in a layer of their own over the slide, and choose it."""
        viewer, slide_layer = self._session.viewer, self._slide_layer
        if viewer is None or slide_layer is None:
            return None
        layer = show_regions(viewer, slide_layer, regions, name=name, proposed=proposed)
        self.show_slide(self._slide_id, layer.name)
        return layer

    @property
    def _slide_layer(self) -> Image | None:
        return self._session.layer_of(self._slide_id)

    def _on_changed(self) -> None:
        self.editor.set_layer(self.layer)

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
        viewer.layers.remove(layer)

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Load regions", "", _FILES)
        if chosen:
            self.load_file(Path(chosen))

    def _choose_target(self) -> None:
        slide = self._session.slide_of(self._slide_id)
        name = "" if slide is None else str(slide.path.with_name(f"{slide.path.stem} regions.geojson"))
        chosen, _ = QFileDialog.getSaveFileName(self, "Save regions", name, _FILES)
        if chosen:
            path = Path(chosen)
            self.save_file(path if is_region_file(path) else path.with_name(f"{path.name}.geojson"))
