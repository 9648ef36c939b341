"""Which slide is scored, what its file says, and µm/px where the file does not say it, or the user did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.slide_facts import slide_facts
from napari_her2._qt.parts.slide_opener import SlideOpener
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.slide.facts import GIVEN_BY_USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.session import Session
    from napari_her2.slide.reader import Slide

_DECIMALS = 4
_LEAST_CHANGE = 0.5 * 10**-_DECIMALS  # µm/px


class SlidePicker(QWidget):
    """Combo of the open slides with the facts of the chosen one, and the way to open another.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    changed : Signal(str)
        Id of the chosen slide; empty where none is open.
    mpp_given : Signal(str, float)
        Id of a slide, and µm/px that the user states for it.
    failed : Signal(Failure)
        A file could not be opened as a slide.
    """

    changed = Signal(str)
    mpp_given = Signal(str, float)
    failed = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.combo = Combo()
        self.combo.setAccessibleName("Slide")
        self.combo.setToolTip("Slides that are open in napari")
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open a slide from a file; a plain JPEG or PNG is one of one level")
        self.open.setAccessibleName("Open a slide from a file")
        self.opener = SlideOpener(session)
        self.jobs = (self.opener.job,)
        self.facts = Label(wrap=True, selectable=True)
        self.warnings = Label(wrap=True)
        self.mpp_row = QWidget()
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.0, 100.0)
        self.mpp.setSpecialValueText("?")  # nothing is put in that could be taken for the truth
        self.mpp.setDecimals(_DECIMALS)
        self.mpp.setSingleStep(0.01)
        self.mpp.setToolTip(
            "The scanner's software states it; 40× is often near 0.25, 20× near 0.5. "
            "The scale bar and the score depend on it."
        )
        self.mpp.setAccessibleName("µm per pixel of the slide")
        self.use_mpp = QPushButton("Use")
        self.use_mpp.setToolTip("Take this µm/px for the slide")
        self.use_mpp.setEnabled(False)
        self._arrange()
        self._slides: list[tuple[str, str, Slide]] = []
        self._mpp_shown = ("", 0.0)
        self.combo.currentIndexChanged.connect(self._on_choice)
        self.open.clicked.connect(self._choose_file)
        self.opener.opened.connect(self.choose)
        self.opener.failed.connect(self.failed)
        self.use_mpp.clicked.connect(self._on_use)
        self.mpp.valueChanged.connect(self._show_use)
        self.set_colours(Colours())
        self.set_slides([])

    def _arrange(self) -> None:
        row = QHBoxLayout(self.mpp_row)
        row.setContentsMargins(0, 0, 0, 0)
        self.mpp_question = Label()
        self.mpp_question.setBuddy(self.mpp)
        row.addWidget(self.mpp_question)
        row.addWidget(self.mpp, 1)
        row.addWidget(self.use_mpp)
        choice = QHBoxLayout()
        choice.addWidget(self.combo, 1)
        choice.addWidget(self.open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(choice)
        for widget in (self.facts, self.warnings, self.mpp_row):
            layout.addWidget(widget)

    @property
    def slide_id(self) -> str:
        """Id of the chosen slide; empty where none is open."""
        return str(self.combo.currentData() or "")

    @property
    def slide(self) -> Slide | None:
        """The chosen slide."""
        return next((slide for key, _, slide in self._slides if key == self.slide_id), None)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.facts.setStyleSheet(f"color: {colours.muted};")
        self.warnings.setStyleSheet(f"color: {colours.warning};")

    def set_slides(self, slides: Sequence[tuple[str, str, Slide]]) -> None:
        """Show the slides that are open; the choice stays where it can.

        Parameters
        ----------
        slides : sequence of (id, name, Slide)
        """
        before = self.slide_id
        self._slides = list(slides)
        self.combo.blockSignals(True)
        self.combo.clear()
        for key, name, _ in slides:
            self.combo.addItem(name, key)
        at = self.combo.findData(before)
        self.combo.setCurrentIndex(at if at >= 0 else 0 if slides else -1)
        self.combo.blockSignals(False)
        self.combo.setEnabled(bool(slides))
        self._show_facts()
        if self.slide_id != before:
            self.changed.emit(self.slide_id)

    def set_busy(self, busy: bool) -> None:
        """Keep µm/px as they are while they are used."""
        self.mpp_row.setEnabled(not busy)

    def choose(self, slide_id: str) -> None:
        """Choose a slide that is open."""
        self.combo.setCurrentIndex(self.combo.findData(slide_id))

    def shutdown(self) -> None:
        """Stop all work and keep no slide open."""
        for job in self.jobs:
            job.shutdown()
        self.set_slides([])

    def _choose_file(self) -> None:
        path = self.opener.choose_file(self, "Slide", self.slide_id)
        if path is not None:
            self.opener.open_file(path)

    def _on_choice(self) -> None:
        self._show_facts()
        self.changed.emit(self.slide_id)

    def _on_use(self) -> None:
        if self.slide_id:
            self.mpp_given.emit(self.slide_id, self.mpp.value())

    def _show_facts(self) -> None:
        slide = self.slide
        self._show_mpp()
        self.warnings.setVisible(bool(slide and slide.warnings))
        if slide is None:
            self.facts.setText(
                "Drop slides here, or open one. File > Open Sample > HER2 phantom is a synthetic case."
            )
            return
        self.facts.setText(" · ".join(slide_facts(slide)))
        self.warnings.setText("\n".join(f"⚠ {line}" for line in slide.warnings))

    def _show_mpp(self) -> None:
        """Ask for µm/px that the file does not state; what the user gave can be corrected."""
        slide = self.slide
        given = slide is not None and slide.mpp_source == GIVEN_BY_USER
        self.mpp_row.setVisible(slide is not None and (slide.mpp is None or given))
        self.mpp_question.setText("µm/px as you gave it:" if given else "No µm/px in the file. It is")
        self.use_mpp.setText("Change" if given else "Use")
        known = self._known_mpp
        if known != self._mpp_shown:  # else what is being typed stays
            self._mpp_shown = known
            self.mpp.setValue(known[1])
        self._show_use()

    @property
    def _known_mpp(self) -> tuple[str, float]:
        """Id of the slide and its µm/px, 0 where they are not known."""
        slide = self.slide
        return self.slide_id, slide.mpp[1] if slide is not None and slide.mpp else 0.0

    def _show_use(self) -> None:
        """Let a value be used once there is one, and another one than before."""
        value = self.mpp.value()
        self.use_mpp.setEnabled(value > 0 and abs(value - self._known_mpp[1]) > _LEAST_CHANGE)
