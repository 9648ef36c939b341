"""What scoring can be done with: models and a device, found in a thread, and models that are added."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_her2._napari.work import Equipment, ModelsFound, adding_model, finding_equipment
from napari_her2._qt.parts.jobs import Failure, Job, stop_all
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.import_dialog import ImportDialog
from napari_her2.errors import ModelNameTaken

if TYPE_CHECKING:
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.parts.text import Label
    from napari_her2._qt.scoring.model_picker import ModelPicker
    from napari_her2.models.registry import ModelEntry
    from napari_her2.steps import Progress


class ModelShelf(QObject):
    """Fills the picker of models and the line of the device.

    Parameters
    ----------
    models : ModelPicker
        It asks for models to be added and imported.
    device : Label

    Attributes
    ----------
    adding : Signal()
        Another file is being added.
    found : Signal()
        All models and the device are known.
    failed : Signal(Failure)
    name_taken : Signal(Failure)
        Another model of the name of an added one is installed; `replace` takes its place.
    """

    adding = Signal()
    found = Signal()
    failed = Signal(object)
    name_taken = Signal(object)

    def __init__(self, models: ModelPicker, device: Label) -> None:
        super().__init__()
        self._models, self._device = models, device
        self._added_path = Path()
        self._importer: ImportDialog | None = None
        self._colours = Colours()
        self.look_job, self.add_job = Job(), Job()
        models.add_wanted.connect(self._choose_file)
        models.import_wanted.connect(self._ask_to_import)
        self.look_job.progressed.connect(self._on_looking)
        self.look_job.returned.connect(self._on_equipment)
        self.look_job.failed.connect(self._on_look_failed)
        self.add_job.returned.connect(self.add)
        self.add_job.failed.connect(self._on_add_failed)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self._device.setStyleSheet(f"color: {colours.muted};")
        if self._importer is not None:
            self._importer.set_colours(colours)

    def shutdown(self) -> None:
        """Stop what the dialog of imports does; the jobs end with the dock."""
        if self._importer is not None:
            stop_all(self._importer.jobs)

    def look(self, settings: Settings) -> None:
        """Look for models and a device, in a thread."""
        self.look_job.start(partial(finding_equipment, settings))

    def add_file(self, path: Path, *, force: bool = False) -> None:
        """Check a model file and install it, in a thread.

        Parameters
        ----------
        path : Path
        force : bool
            Also where another model of its name is installed.
        """
        self.adding.emit()
        self._added_path = path
        self.add_job.start(partial(adding_model, path, force=force))

    def replace(self) -> None:
        """Install the file that was added last also where another model of its name is installed."""
        self.add_file(self._added_path, force=True)

    def add(self, entry: ModelEntry) -> None:
        """Take a model into the choice, and choose it."""
        others = [known for known in self._models.entries if known.name != entry.name]
        self._models.set_models([*others, entry], entry.name)

    def _on_looking(self, progress: Progress) -> None:
        if isinstance(progress, ModelsFound):
            self._models.set_models(progress.models)

    def _on_equipment(self, equipment: Equipment) -> None:
        self._device.setText(f"Device: {equipment.device}")
        self._models.set_models(equipment.models)
        if equipment.problems:
            self.failed.emit(Failure("\n".join(equipment.problems)))
        self.found.emit()

    def _on_look_failed(self, failure: Failure) -> None:
        self._device.setText("Device: unknown")
        self._models.set_models([])
        self.failed.emit(failure)

    def _on_add_failed(self, failure: Failure) -> None:
        (self.name_taken if failure.kind is ModelNameTaken else self.failed).emit(failure)

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self._models, "Model file", "", "Models (*.safetensors);;All files (*)"
        )
        if chosen:
            self.add_file(Path(chosen))

    def _ask_to_import(self) -> None:
        if self._importer is None:  # a tenth of a dock's widgets, which few need
            self._importer = ImportDialog(self._models)
            self._importer.imported.connect(self._on_imported)
            self._importer.destroyed.connect(partial(_stop, self._importer.jobs))
            self._importer.set_colours(self._colours)
        self._importer.ask(self._models.entries)

    def _on_imported(self, entry: ModelEntry, remark: str) -> None:
        self.add(entry)
        if remark:
            self.failed.emit(Failure(f"{entry.name} was imported. {remark}"))


def _stop(jobs: tuple[Job, ...], _dialog: object = None) -> None:
    stop_all(jobs)
