"""The dialog that makes a model of a checkpoint: what was read from the file is shown, the rest is asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_her2._napari.importing import encoder_names, importing, inspecting, usual_name
from napari_her2._qt.parts.jobs import Job
from napari_her2._qt.parts.message_box import MessageBox
from napari_her2._qt.parts.path_row import PathRow
from napari_her2._qt.parts.text import Combo, Label
from napari_her2.errors import ModelNameTaken
from napari_her2.models.class_scores import SCORES
from napari_her2.models.importing.answers import Answers
from napari_her2.models.importing.kinds import KINDS

if TYPE_CHECKING:
    from napari_her2._qt.parts.jobs import Failure
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.models.importing.importer import Inspected
    from napari_her2.models.registry import ModelEntry

_FILES = "Checkpoints (*.pt *.pth *.bin *.ckpt *.safetensors);;All files (*)"
_SIZE_PX = (560, 640)  # with its frame it fits 1366 x 768
_FILE_HINT = "Only its tensors are read; nothing in it is run."
_WEIGHTS_HINT = "Optional: a file of them. By default those in the folder of encoders."


class ImportDialog(QDialog):
    """File and kind of a checkpoint, what it says, and what has to be said beside it.

    Attributes
    ----------
    imported : Signal(ModelEntry, str)
        The new model, and what is to be known of its encoder.

    Parameters
    ----------
    parent : QWidget, optional
    """

    imported = Signal(object, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Import a model")
        self.inspect_job, self.import_job = Job(), Job()
        self._found: Inspected | None = None
        self._models: tuple[ModelEntry, ...] = ()
        self.file = PathRow("Checkpoint", _FILE_HINT)
        self.kind = Combo("What it is a checkpoint of")
        for name, kind in KINDS.items():
            self.kind.addItem(kind.title, name)
        self.facts = Label(wrap=True, selectable=True)
        self.name, self.classes, self.scores = QLineEdit(), QLineEdit(), QLineEdit()
        self.also, self.licence = QLineEdit(), QLineEdit()
        self.encoder, self.stain = Combo("Encoder"), Combo("Stain")
        self.weights = PathRow("Weights of the encoder", _WEIGHTS_HINT)
        self.tile_px, self.mpp = QSpinBox(), QDoubleSpinBox()
        self.message = MessageBox()
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self.make = QPushButton("&Import")
        self.make.setToolTip("Check everything, write the model and add it to your models")
        self.make.setDefault(True)
        self.buttons.addButton(self.make, QDialogButtonBox.ButtonRole.ActionRole)
        self._explain()
        self._arrange()
        self._connect()
        self._show_found(None)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs in threads."""
        return self.inspect_job, self.import_job

    def ask(self, models: tuple[ModelEntry, ...]) -> None:
        """Show the dialog.

        Parameters
        ----------
        models : tuple of ModelEntry
            Whose encoders can be named.
        """
        self._models = models
        self.message.clear()
        self.show()
        self.raise_()
        self.activateWindow()
        self.file.edit.setFocus()

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for part in (self.file, self.weights, self.message):
            part.set_colours(colours)
        self.facts.setStyleSheet(f"color: {colours.muted};")

    @property
    def answers(self) -> Answers:
        """What was entered."""
        return Answers(
            name=self.name.text(),
            classes=self.classes.text(),
            class_scores=self.scores.text(),
            stain=self.stain.currentText(),
            tile_px=self.tile_px.value(),
            mpp=self.mpp.value(),
            arguments=tuple(part.strip() for part in self.also.text().split(",") if part.strip()),
            licence=self.licence.text(),
        )

    def inspect(self) -> None:
        """Read the file as the chosen kind, in a thread."""
        self._show_found(None)
        path = self.file.text
        if not path:
            return
        self.facts.setText("Reading …")
        self.inspect_job.start(partial(inspecting, Path(path), str(self.kind.currentData())))

    def import_model(self, *, force: bool = False) -> None:
        """Import what was read under what was entered, in a thread."""
        if self._found is None or self.import_job.running:
            return
        self.message.clear()
        encoder = self.encoder.currentText().strip() if self._found.kind.takes_features else ""
        weights = Path(self.weights.text) if self.weights.text and encoder else None
        self.import_job.start(partial(importing, self._found, self.answers, encoder, weights, force=force))

    def _explain(self) -> None:
        self.kind.setToolTip("Whose code saved the file; its tensors have to have the names of that code")
        self.encoder.setEditable(True)
        self.encoder.setToolTip(
            "What made the features that it learnt from: a name (uni), or model:NAME for that of one of your "
            "models. Those that give features of the right length are listed"
        )
        self.stain.setToolTip("Of the slides that it learnt from")
        self.tile_px.setRange(8, 4096)
        self.tile_px.setSuffix(" px")
        self.tile_px.setToolTip("Side of the tiles, fields or images that it learnt from")
        self.mpp.setRange(0.01, 100.0)
        self.mpp.setDecimals(4)
        self.mpp.setSingleStep(0.05)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setToolTip("Scale of those tiles")
        self.classes.setToolTip("In the order of its logits, with commas between")
        self.scores.setPlaceholderText("Where names do not say it: low=0|1+, high=2+|3+")
        self.scores.setToolTip("Which HER2 scores each class holds")
        self.also.setToolTip("What else no file says of this kind, with commas between")
        self.name.setToolTip("Of the new model: lower case letters, digits, dots, dashes, underscores")
        self.licence.setPlaceholderText("not known")

    def _arrange(self) -> None:
        content = QWidget()
        self._form = QFormLayout(content)
        self._form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows: list[tuple[str, QWidget]] = [
            ("Checkpoint", self.file),
            ("Kind", self.kind),
            ("Read from it", self.facts),
            ("Encoder", self.encoder),
            ("Its weights", self.weights),
            ("Stain", self.stain),
            ("Tiles", self.tile_px),
            ("Scale", self.mpp),
            ("Classes", self.classes),
            ("Their scores", self.scores),
            ("Also", self.also),
            ("Name", self.name),
            ("Licence", self.licence),
        ]
        self._asked = tuple(widget for _, widget in rows[3:])
        for caption, widget in rows:
            label = Label(caption)
            label.setBuddy(widget)
            if not widget.accessibleName():
                widget.setAccessibleName(caption)
            self._form.addRow(label, widget)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        layout = QVBoxLayout(self)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.message)
        layout.addWidget(self.buttons)
        self.resize(*_SIZE_PX)

    def _connect(self) -> None:
        self.file.browse_wanted.connect(self._browse)
        self.file.edit.editingFinished.connect(self._on_file)
        self.weights.browse_wanted.connect(self._browse_weights)
        self.kind.activated.connect(self.inspect)
        self.encoder.activated.connect(self._on_encoder)
        self.buttons.rejected.connect(self.reject)
        self.make.clicked.connect(self._on_import)
        self.message.action_wanted.connect(partial(self.import_model, force=True))
        self.inspect_job.returned.connect(self._show_found)
        self.inspect_job.failed.connect(self._on_unreadable)
        self.import_job.returned.connect(self._on_imported)
        self.import_job.failed.connect(self._on_failed)
        self.import_job.running_changed.connect(self._on_running)

    def _browse(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Checkpoint", "", _FILES)
        if chosen:
            self.file.edit.setText(chosen)
            self._on_file()

    def _browse_weights(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Weights of the encoder", "", _FILES)
        if chosen:
            self.weights.edit.setText(chosen)

    def _on_file(self) -> None:
        if self._found is None or str(self._found.path) != self.file.text:
            self.inspect()

    def _on_import(self) -> None:
        self.import_model()

    def _on_encoder(self) -> None:
        tile_px = self.encoder.currentData()
        if isinstance(tile_px, int):
            self.tile_px.setValue(tile_px)

    def _on_unreadable(self, failure: Failure) -> None:
        self._show_found(None)
        self.file.set_problem(failure.message)
        self.facts.setText("Nothing: it is not of this kind, or cannot be read.")

    def _on_failed(self, failure: Failure) -> None:
        self.message.show_failure(failure, "Replace it" if failure.kind is ModelNameTaken else "")

    def _on_imported(self, made: tuple[ModelEntry, str]) -> None:
        self.imported.emit(*made)
        self.accept()

    def _on_running(self, running: bool) -> None:
        self.make.setEnabled(not running and self._found is not None)
        self.make.setText("Importing …" if running else "&Import")

    def _show_found(self, found: Inspected | None) -> None:
        """Show what the file says, and ask what this kind needs."""
        self._found = found
        self.file.set_problem("")
        self.make.setEnabled(found is not None)
        self.facts.setText(
            "Choose a file."
            if found is None
            else "\n".join(f"{name}: {value}" for name, value in found.facts)
        )
        for widget in self._asked:  # before anything is read nobody knows what to ask
            self._form.setRowVisible(widget, found is not None)
        if found is None:
            return
        kind = found.kind
        for widget in (self.encoder, self.weights):
            self._form.setRowVisible(widget, kind.takes_features)
        self._form.setRowVisible(self.also, bool(found.asked))
        self.stain.clear()
        self.stain.addItems(list(kind.stains))
        self.also.setText(", ".join(f"{name}={value}".lower() for name, value in found.asked.items()))
        self.tile_px.setValue(kind.tile_px)
        self.mpp.setValue(kind.mpp)
        self.encoder.clear()
        for name, tile_px in encoder_names(found.features, self._models):
            self.encoder.addItem(name, tile_px)
        self.encoder.setCurrentIndex(-1)
        self.encoder.setEditText("")
        if not self.name.text():
            self.name.setText(usual_name(found.path))
        if not self.classes.text() and found.head.classes == len(SCORES):
            self.classes.setText(", ".join(SCORES))
        self.classes.setPlaceholderText(f"{found.head.classes} names, with commas between")
