"""Which study is read, by whom, in which round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.reading.new_study import NewStudy
from napari_her2.reading.worklist import CONSENSUS

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.reading.worklist import Study


class StudyPicker(QWidget):
    """Opens or makes a study, and starts a sitting.

    Attributes
    ----------
    open_wanted, start_wanted : Signal()
    """

    open_wanted = Signal()
    start_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.folder: Path | None = None
        self.study: Study | None = None
        self.open = QPushButton("&Open study…")
        self.open.setToolTip("Open a study by its folder")
        self.new = QPushButton("&New study…")
        self.new.setCheckable(True)
        self.new.setToolTip("Make a study: which slides, which readers")
        self.form = NewStudy()
        self.form.setVisible(False)
        self.facts = Label(wrap=True)
        self.who = QWidget()
        self.reader, self.round = Combo("Reader"), Combo("Round")
        self.start = QPushButton("Start rea&ding")
        self._arrange()
        self.open.clicked.connect(self.open_wanted)
        self.new.toggled.connect(self.form.setVisible)
        self.start.clicked.connect(self.start_wanted)
        self.show_study(None, None)

    def _arrange(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.open)
        buttons.addWidget(self.new)
        rows = QFormLayout(self.who)
        rows.setContentsMargins(0, 0, 0, 0)
        for caption, combo in (("&Reader", self.reader), ("Ro&und", self.round)):
            label = Label(caption)
            label.setBuddy(combo)
            rows.addRow(label, combo)
        rows.addRow(self.start)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(buttons)
        for widget in (self.form, self.facts, self.who):
            layout.addWidget(widget)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.facts.setStyleSheet(f"color: {colours.muted};")
        self.form.set_colours(colours)

    def show_study(self, folder: Path | None, study: Study | None) -> None:
        """Show a study, or that none is open."""
        self.folder, self.study = folder, study
        self.who.setVisible(study is not None)
        if study is None:
            self.facts.setText("Open the folder of a study, or make a new one.")
            return
        self.new.setChecked(False)
        blinded = "blinded" if study.blinded else "open"
        self.facts.setText(
            f"{study.title}: {len(study.cases):,} cases, {study.rounds} "
            f"{'round' if study.rounds == 1 else 'rounds'}, {blinded}"
        )
        before = self.reader.currentData()
        for combo in (self.reader, self.round):
            combo.clear()
        for reader in study.readers:
            self.reader.addItem(reader, reader)
        self.reader.setCurrentIndex(max(self.reader.findData(before), 0))
        for name in study.round_names:
            self.round.addItem(f"Round {name}", name)
        if len(study.readers) > 1:
            self.round.addItem("Consensus", CONSENSUS)

    def set_reading(self, reading: bool) -> None:
        """Show that a sitting goes on, or has ended."""
        for widget in (self.open, self.new, self.who):
            widget.setEnabled(not reading)
        self.who.setVisible(self.study is not None and not reading)
        if reading:
            self.new.setChecked(False)
