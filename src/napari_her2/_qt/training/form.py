"""What is to be trained: cases, method, configuration, output folder."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.case_slides import CaseSlides
from napari_her2._qt.parts.path_row import PathRow
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.training.encoder_picker import EncoderPicker
from napari_her2.training_runs.inputs import data_problem, folder_problem, suggested_folder
from napari_her2.training_runs.processes import RunRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.training_runs.work import MethodChoice

_SHORT = 150  # characters: three lines in the dock; the tooltip has it all
_DEVICES = (("Automatic", "auto"), ("GPU (CUDA)", "cuda"), ("Apple GPU", "mps"), ("CPU", "cpu"))
_TABLE_HINT = "A CSV table with the columns case_id, he, ihc and score; slides relative to it."
_CASES_WHAT = (
    "What several rows of one case_id are to the model, where a case has several slides: what [cases] slides "
    "of the configuration says, which is each slide by itself unless it says otherwise."
)


class TrainingForm(QWidget):
    """Fields of a training.

    Attributes
    ----------
    changed : Signal()
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._methods: tuple[MethodChoice, ...] = ()
        self._suggested = ""
        self.data = PathRow("Table of cases", _TABLE_HINT)
        self.method = _combo("Method")
        self.line = _words()
        self.config = _combo("Configuration")
        self.config_file = QPushButton("File…")
        self.config_file.setToolTip("Choose a configuration of your own (TOML)")
        self.config_file.setAccessibleName("Choose a configuration file")
        self.about = _words()
        self.encoder = EncoderPicker()
        self.case_slides = CaseSlides("As configured", _CASES_WHAT, rules=True)
        self.out = PathRow("Output folder", "")
        self.device = _combo("Device")
        for caption, device in _DEVICES:
            self.device.addItem(caption, device)
        self._arrange()
        self.data.changed.connect(self._on_data)
        self.data.browse_wanted.connect(self._choose_data)
        self.method.currentIndexChanged.connect(self._on_method)
        self.config.currentIndexChanged.connect(self._on_config)
        self.config_file.clicked.connect(self._choose_config)
        self.out.changed.connect(self._on_out)
        self.out.browse_wanted.connect(self._choose_out)
        self.device.currentIndexChanged.connect(self.changed)
        self.encoder.changed.connect(self.changed)
        self.case_slides.changed.connect(self.changed)
        self.method.setEnabled(False)
        self.line.setText("Looking for the methods …")

    def _arrange(self) -> None:
        methods = QWidget()
        rows = QVBoxLayout(methods)
        configs = QHBoxLayout()
        configs.addWidget(self.config, 1)
        configs.addWidget(self.config_file)
        rows.addWidget(self.method)
        rows.addWidget(self.line)
        rows.addWidget(Label("Configuration"))
        rows.addLayout(configs)
        rows.addWidget(self.about)
        device = QHBoxLayout()
        device.addWidget(Label("Device"))
        device.addWidget(self.device, 1)
        layout = QVBoxLayout(self)
        for box in (rows, layout):
            box.setContentsMargins(0, 0, 0, 0)
            box.setSpacing(4)
        self.encoders = Section("Encoder", self.encoder)
        cases = QWidget()
        lines = QVBoxLayout(cases)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(4)
        lines.addWidget(self.data)
        lines.addWidget(self.case_slides)
        for title, part in (("Cases", cases), ("Method", methods)):
            layout.addWidget(Section(title, part))
        layout.addWidget(self.encoders)
        layout.addWidget(Section("Output folder", self.out))
        layout.addLayout(device)

    # -- what is chosen

    @property
    def request(self) -> RunRequest:
        """What is asked for; complete where nothing is missing."""
        config = str(self.config.currentData() or "")
        method = self._chosen
        chooses = method is not None and method.encoder
        joins = method is not None and bool(method.case_ways)
        return RunRequest(
            method.name if method is not None else "",
            config,
            self.data.text,
            self.out.text,
            str(self.device.currentData()),
            self.encoder.name if chooses else "",
            self.encoder.weights if chooses else "",
            self.case_slides.way if joins else "",
            self.case_slides.rule if joins else "",
        )

    @property
    def missing(self) -> str:
        """What is missing before it can be checked and started; empty where nothing is."""
        if self._chosen is None:
            return "Choose a method."
        if not self.data.text:
            return "Choose a table of cases." if self._chosen.table else "Choose a folder of patches."
        if self.data.problem:
            return "The cases cannot be used as they are."
        if self._chosen.encoder and self.encoder.missing:
            return self.encoder.missing
        if not self.out.text:
            return "Choose an output folder."
        return "The output folder cannot be used." if self.out.problem else ""

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for row in (self.data, self.encoder, self.out):
            row.set_colours(colours)
        for label in (self.line, self.about):
            label.setStyleSheet(f"color: {colours.muted};")

    def set_methods(self, methods: Sequence[MethodChoice]) -> None:
        """Show the methods there are."""
        wanted = self.request.method
        self._methods = tuple(methods)
        self.method.blockSignals(True)
        self.method.clear()
        for method in methods:
            self.method.addItem(method.name, method.name)
            self.method.setItemData(self.method.count() - 1, method.line, Qt.ItemDataRole.ToolTipRole)
        self.method.setCurrentIndex(max(self.method.findData(wanted), 0) if methods else -1)
        self.method.blockSignals(False)
        self.method.setEnabled(bool(methods))
        self._on_method()

    def set_request(self, request: RunRequest) -> None:
        """Fill in what another training was asked for; its folder is left to it."""
        self.data.edit.setText(request.data)
        self.method.setCurrentIndex(max(self.method.findData(request.method), 0))
        self.choose_config(request.config)
        self.choose_device(request.device)
        self.encoder.choose(request.encoder, request.weights)
        self.case_slides.choose(request.case_slides, request.case_rule)

    def choose_config(self, config: str) -> None:
        """Choose a configuration: one that comes with the package by its name, or a file."""
        at = self.config.findData(config)
        own = self.config.findData(Path(config).stem)
        if at < 0 and own >= 0 and Path(config).parent.name == "configs":
            at = own  # a run tells the full path of one that came with the package
        if at < 0 and config:
            self.config.addItem(Path(config).name, config)
            at = self.config.count() - 1
        if at >= 0:
            self.config.setCurrentIndex(at)

    def choose_device(self, device: str) -> None:
        """Choose a device; one that is not known is the automatic one."""
        self.device.setCurrentIndex(max(self.device.findData(device), 0))

    def look_again(self) -> None:
        """Look at the paths again, since a training began or ended; a proposed folder makes way."""
        self.blockSignals(True)
        self.encoder.look_again()
        self._on_data()
        self.blockSignals(False)

    # -- what the user does

    @property
    def _chosen(self) -> MethodChoice | None:
        at = self.method.currentIndex()
        return self._methods[at] if 0 <= at < len(self._methods) else None

    def _on_data(self) -> None:
        method, text = self._chosen, self.data.text
        table, folder = (True, True) if method is None else (method.table, bool(method.folder))
        self.data.set_problem(data_problem(text, table=table, folder=folder) if text else "")
        self._suggest()
        self._on_out()

    def _on_method(self) -> None:
        method = self._chosen
        self.line.setText("" if method is None else method.line)
        self.data.set_hint(_TABLE_HINT if method is None else _hint(method))
        self.encoders.setVisible(method is not None and method.encoder)
        ways = method.case_ways if method is not None else ()
        self.case_slides.setVisible(bool(ways))
        if ways:
            self.case_slides.set_ways(ways)
        self.config.blockSignals(True)
        self.config.clear()
        for config in method.configs if method is not None else ():
            self.config.addItem(config.name, config.name)
        self.config.blockSignals(False)
        self._on_config()
        self._on_data()

    def _on_config(self) -> None:
        method, name = self._chosen, str(self.config.currentData() or "")
        abouts = {config.name: config.about for config in method.configs} if method is not None else {}
        about = abouts.get(name, name)
        self.about.setText(shorten(about, _SHORT, placeholder=" …") if name in abouts else about)
        self.about.setToolTip(about)
        self.changed.emit()

    def _on_out(self) -> None:
        text = self.out.text
        self.out.set_problem(folder_problem(text) if text else "")
        self.changed.emit()

    def _suggest(self) -> None:
        """Propose a new folder beside the table, unless the user has chosen one."""
        method = self._chosen
        if method is None or not self.data.text or self.data.problem:
            return
        if self.out.text in ("", self._suggested):
            self._suggested = suggested_folder(self.data.text, method.name)
            self.out.edit.setText(self._suggested)

    def _choose_data(self) -> None:
        method, start, chosen = self._chosen, self.data.text, ""
        if method is None or method.table:
            chosen, _ = QFileDialog.getOpenFileName(
                self, "Table of cases", start, "Tables (*.csv);;All files (*)"
            )
        if not chosen and method is not None and method.folder:
            title = f"{'Or a' if method.table else 'A'} folder of {method.folder}"
            chosen = QFileDialog.getExistingDirectory(self, title, start)
        if chosen:
            self.data.edit.setText(chosen)

    def _choose_config(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Configuration", "", "Configurations (*.toml);;All files (*)"
        )
        if chosen:
            self.choose_config(chosen)

    def _choose_out(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Output folder", str(Path(self.out.text).parent))
        if chosen:
            self.out.edit.setText(chosen)


def _hint(method: MethodChoice) -> str:
    if not method.table:
        return f"A folder of {method.folder}."
    return f"{_TABLE_HINT} Or a folder of {method.folder}." if method.folder else _TABLE_HINT


def _combo(name: str) -> Combo:
    combo = Combo()
    combo.setAccessibleName(name)
    return combo


def _words() -> Label:
    return Label(wrap=True)
