"""The form of a new study."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QLineEdit, QPushButton, QSpinBox, QWidget

from napari_her2._qt.parts.path_row import PathRow
from napari_her2._qt.parts.text import Combo, Label
from napari_her2.reading.cases import cases_of
from napari_her2.reading.study_file import write_study
from napari_her2.reading.worklist import MOST_ROUNDS, Study
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.reading.worklist import Reveal

    Making: TypeAlias = Generator[Progress, None, tuple[Path, tuple[str, ...]]]

_REVEALS: tuple[tuple[Reveal, str], ...] = (
    ("last", "after each reading of the last round"),
    ("each", "after each reading"),
    ("never", "never"),
)


class NewStudy(QWidget):
    """Folder, slides, readers and rules of a study.

    Attributes
    ----------
    make_wanted : Signal()
    """

    make_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.folder = PathRow("Folder of the study", "A new, empty folder: readings are kept there.")
        self.slides = PathRow("Slides", "A folder of slides, or a table (CSV with case_id, he, ihc).")
        self.results = PathRow("Results", "Optional: folder of results that are shown after a reading.")
        self.title, self.readers = QLineEdit(), QLineEdit()
        self.title.setPlaceholderText("By default the name of the folder")
        self.readers.setPlaceholderText("Names, with commas between")
        self.rounds, self.seed = QSpinBox(), QSpinBox()
        self.rounds.setRange(1, MOST_ROUNDS)
        self.rounds.setToolTip("How often everybody reads each case, each time in another order")
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("Of the orders: the same seed gives the same orders")
        self.blinded = QCheckBox("&Blinded until scored")
        self.blinded.setChecked(True)
        self.blinded.setToolTip("No file name, model or map is shown before a case is scored")
        self.reveal = Combo("When names and answers of models are shown")
        self.reveal.setToolTip("When the names of files and the answers of models are shown")
        for value, caption in _REVEALS:
            self.reveal.addItem(caption, value)
        self.make = QPushButton("Make study")
        self._arrange()
        self.folder.browse_wanted.connect(self._browse_folder)
        self.slides.browse_wanted.connect(self._browse_slides)
        self.results.browse_wanted.connect(self._browse_results)
        self.make.clicked.connect(self.make_wanted)

    def _arrange(self) -> None:
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        rows: tuple[tuple[str, QWidget], ...] = (
            ("Folder", self.folder),
            ("Slides", self.slides),
            ("Title", self.title),
            ("Readers", self.readers),
            ("Rounds", self.rounds),
            ("Seed", self.seed),
            ("", self.blinded),
            ("Shown", self.reveal),
            ("Results", self.results),
            ("", self.make),
        )
        for caption, widget in rows:
            label = Label(caption)
            label.setBuddy(widget)
            if caption and not widget.accessibleName():
                widget.setAccessibleName(caption)
            layout.addRow(label, widget)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for row in (self.folder, self.slides, self.results):
            row.set_colours(colours)

    def steps(self) -> Callable[[], Making]:
        """Return the work that makes the study as it is entered now; see `making_study`."""
        folder, slides, results = (row.text for row in self._paths)
        study = partial(
            Study,
            self.title.text().strip() or Path(folder).name,
            readers=_names(self.readers.text()),
            rounds=self.rounds.value(),
            seed=self.seed.value(),
            blinded=self.blinded.isChecked(),
            reveal=self.reveal.currentData(),
            results=(Path(results),) if results else (),
        )
        return partial(making_study, Path(folder), Path(slides), study)

    @property
    def missing(self) -> str:
        """What is missing before the study can be made; empty where nothing is."""
        for row, what in ((self.folder, "the folder of the study"), (self.slides, "the slides")):
            if not row.text:
                return f"Choose {what}."
        return "" if _names(self.readers.text()) else "Name at least one reader."

    def clear(self) -> None:
        """Let nothing stand in it: paths would name slides that are blinded."""
        for row in self._paths:
            row.edit.clear()
        for field in (self.title, self.readers):
            field.clear()

    @property
    def _paths(self) -> tuple[PathRow, PathRow, PathRow]:
        return self.folder, self.slides, self.results

    def _browse_folder(self) -> None:
        self._take(self.folder, QFileDialog.getExistingDirectory(self, "Folder of the study"))

    def _browse_slides(self) -> None:
        self._take(self.slides, QFileDialog.getExistingDirectory(self, "Folder of slides"))

    def _browse_results(self) -> None:
        self._take(self.results, QFileDialog.getExistingDirectory(self, "Folder of results"))

    @staticmethod
    def _take(row: PathRow, chosen: str) -> None:
        if chosen:
            row.edit.setText(chosen)


def making_study(folder: Path, slides: Path, study: Callable[..., Study]) -> Making:
    """Make a study.

    Parameters
    ----------
    folder, slides : Path
        Where it is kept, and what is read: a folder or a table.
    study : callable
        Makes it of its cases.

    Returns
    -------
    Path
        Its folder.
    tuple of str
        What should be known of its slides.
    """
    yield Progress("Looking for slides")
    found = cases_of(slides)
    write_study(folder, study(cases=found.cases))
    return folder, found.notes


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
