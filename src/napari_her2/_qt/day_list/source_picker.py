"""Where the cases of a list come from: a folder, files or a table, and how the names of a case look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_her2._qt.parts.text import Label
from napari_her2.cohort.day_list import NamePatterns

if TYPE_CHECKING:
    from napari_her2._qt.parts.theme import Colours

_HINT = "Choose a folder, slide files or a table (CSV with the columns he and ihc), or drop them here."


class SourcePicker(QWidget):
    """Chooses what a list is made of.

    Attributes
    ----------
    wanted : Signal()
        What `paths`, `patterns` and `subfolders` say is to be looked at.
    """

    wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.paths: tuple[Path, ...] = ()
        self.folder, self.files, self.table = (
            QPushButton(name) for name in ("Fold&er…", "F&iles…", "&Table…")
        )
        self.folder.setToolTip("Take all slides of a folder; H&E and IHC slides are paired by their names")
        self.files.setToolTip("Take the slide files that you choose")
        self.table.setToolTip("Take the cases of a CSV table: case_id, he, ihc, mpp, ihc_mpp, regions")
        self.subfolders = QCheckBox("With subfolders")
        self.subfolders.setChecked(True)
        self.subfolders.setToolTip("Whether slides in the folders below belong to the list")
        self.names = QToolButton()
        self.names.setText("Names of the slides")
        self.names.setToolTip(
            "How H&E and IHC slides are told apart, where the words HE, HER2, IHC do not say it"
        )
        self.names.setCheckable(True)
        self.names.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.he, self.ihc = QLineEdit(), QLineEdit()
        self.words = Label(_HINT, wrap=True)
        self._arrange()
        self._connect()

    def _arrange(self) -> None:
        self.patterns_box = QWidget()
        form = QFormLayout(self.patterns_box)
        form.setContentsMargins(0, 0, 0, 0)
        for field, name, example in ((self.he, "H&E", "*_HE.svs"), (self.ihc, "IHC", "*_HER2.svs")):
            field.setPlaceholderText(example)
            field.setAccessibleName(f"Names of {name} slides")
            field.setToolTip(
                f"A pattern such as {example}; the * is the name of the case. Empty: by the words"
            )
            caption = Label(name)
            caption.setBuddy(field)
            form.addRow(caption, field)
        self.patterns_box.setVisible(False)
        self.names.setArrowType(Qt.ArrowType.RightArrow)
        buttons, more = QHBoxLayout(), QHBoxLayout()
        for button in (self.folder, self.files, self.table):
            buttons.addWidget(button)
        more.addWidget(self.subfolders)
        more.addStretch()
        more.addWidget(self.names)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(buttons)
        layout.addLayout(more)
        layout.addWidget(self.patterns_box)
        layout.addWidget(self.words)

    def _connect(self) -> None:
        self.folder.clicked.connect(self._choose_folder)
        self.files.clicked.connect(self._choose_files)
        self.table.clicked.connect(self._choose_table)
        self.names.toggled.connect(self._show_patterns)
        self.subfolders.toggled.connect(self._again)
        for field in (self.he, self.ihc):
            field.editingFinished.connect(self._on_pattern)
        self._seen = ("", "")

    def patterns(self) -> NamePatterns:
        """Return how slides are called.

        Raises
        ------
        JobFailed
            If a pattern cannot tell cases apart.
        """
        return NamePatterns(self.he.text().strip(), self.ihc.text().strip())

    def take(self, paths: tuple[Path, ...]) -> None:
        """Take files, folders or tables, in place of those before."""
        self.paths = paths
        self.wanted.emit()

    def set_words(self, words: str) -> None:
        """Say what was found; empty for what can be done."""
        self.words.setText(words or _HINT)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.words.setStyleSheet(f"color: {colours.muted};")

    def _show_patterns(self, shown: bool) -> None:
        self.names.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        self.patterns_box.setVisible(shown)

    def _on_pattern(self) -> None:
        now = (self.he.text().strip(), self.ihc.text().strip())
        if now != self._seen:  # the signal comes twice: with Enter, and when the field is left
            self._seen = now
            self._again()

    def _again(self) -> None:
        if self.paths:
            self.wanted.emit()

    def _start(self) -> str:
        first = self.paths[0] if self.paths else Path.home()
        return str(first if first.is_dir() else first.parent)

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of slides", self._start())
        if chosen:
            self.take((Path(chosen),))

    def _choose_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Slides", self._start())
        if chosen:
            self.take(tuple(map(Path, chosen)))

    def _choose_table(self) -> None:
        kinds = "Tables (*.xlsx *.xlsm *.csv *.tsv *.txt);;All files (*)"
        chosen, _ = QFileDialog.getOpenFileName(self, "Table of cases", self._start(), kinds)
        if chosen:
            self.take((Path(chosen),))
