"""Which encoder a training looks at tiles through: that of its configuration, or one that is known by name.

Nothing is fetched here. What is not installed says how it is had, and a file of weights can be chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.training_runs.encoder_choices import encoder_choices

if TYPE_CHECKING:
    from napari_her2.training_runs.encoder_choices import EncoderChoice

_OF_CONFIGURATION = "As the configuration has it"
_FILES = "Weights (*.safetensors *.bin *.pt *.pth);;All files (*)"


class EncoderPicker(QWidget):
    """A list of encoders, a button for a file of weights, and what is worth knowing of the chosen one.

    Attributes
    ----------
    changed : Signal()
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = Colours()
        self._choices: dict[str, EncoderChoice] = {}
        self._file = ""
        self.list = Combo()
        self.list.setAccessibleName("Encoder")
        self.list.setToolTip("What makes features of a tile; nothing is fetched when you choose one")
        self.file = QPushButton("Weights…")
        self.file.setAccessibleName("Choose a file with the weights of the encoder")
        self.file.setToolTip("Take weights from a file that you have, instead of those that are installed")
        self.words = Label(wrap=True)
        row = QHBoxLayout()
        row.addWidget(self.list, 1)
        row.addWidget(self.file)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row)
        layout.addWidget(self.words)
        self.list.currentIndexChanged.connect(self._on_encoder)
        self.file.clicked.connect(self._choose_file)
        self.look_again()

    @property
    def name(self) -> str:
        """The encoder that is chosen; empty for that of the configuration."""
        return str(self.list.currentData() or "")

    @property
    def weights(self) -> str:
        """Its weights: "installed", or the path of a file; empty for those of the configuration."""
        return (self._file or "installed") if self.name else ""

    @property
    def missing(self) -> str:
        """What is missing before a training can begin with it; empty where nothing is."""
        choice = self._choices.get(self.name)
        if choice is None or choice.installed or self._file:
            return ""
        return f"The weights of {choice.title} are not here: fetch them, or choose their file."

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self._show_words()

    def choose(self, name: str, weights: str) -> None:
        """Choose an encoder and its weights, as another training had them."""
        self.list.setCurrentIndex(max(self.list.findData(name), 0))
        self._file = "" if weights in ("", "installed") else weights
        self._show_words()

    def look_again(self) -> None:
        """List the encoders again, since some may have been fetched or added."""
        chosen, file = self.name, self._file
        self._choices = {choice.name: choice for choice in encoder_choices()}
        self.list.blockSignals(True)
        self.list.clear()
        self.list.addItem(_OF_CONFIGURATION, "")
        for choice in self._choices.values():
            self.list.addItem(
                f"{choice.title}: {'installed' if choice.installed else 'not here'}", choice.name
            )
            self.list.setItemData(self.list.count() - 1, choice.facts, Qt.ItemDataRole.ToolTipRole)
        self.list.setCurrentIndex(max(self.list.findData(chosen), 0))
        self.list.blockSignals(False)
        self._file = file
        self._show_words()

    def _on_encoder(self) -> None:
        self._file = ""  # that was the file of another one
        self._show_words()
        self.changed.emit()

    def _choose_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Weights of the encoder", self._file, _FILES)
        if chosen:
            self._file = chosen
            self._show_words()
            self.changed.emit()

    def _show_words(self) -> None:
        choice = self._choices.get(self.name)
        self.file.setEnabled(choice is not None)
        missing = self.missing
        lines = []
        if choice is not None:
            lines = [choice.facts, f"Licence: {choice.licence}."]
            if self._file:
                lines.insert(1, f"Weights: {Path(self._file).name}")
            elif missing:
                lines.append(
                    f"Its weights are not here: run `napari-her2 encoders fetch {choice.name}`, or choose "
                    f"their file."
                )
        self.words.setText("\n".join(lines))
        self.words.setToolTip(choice.how_to_get if choice is not None and missing else self._file)
        self.words.setVisible(bool(lines))
        self.words.setStyleSheet(f"color: {self._colours.warning if missing else self._colours.muted};")
