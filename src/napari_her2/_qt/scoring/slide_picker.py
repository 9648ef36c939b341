"""Which slide is scored, what its file says, and the µm/px that it is scored with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.slide_facts import slide_facts
from napari_her2._qt.parts.slide_opener import SlideOpener
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.scale_wizard import ScaleWizard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._napari.session import Session
    from napari_her2.slide.reader import Slide


class SlidePicker(QWidget):
    """Combo of the open slides with the facts of the chosen one, and the way to open another.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    changed : Signal(str)
        Id of the chosen slide; empty where none is open.
    scale_given : Signal(str, object)
        Id of a slide, and the GivenScale that the user states for it; None for what the file states.
    failed : Signal(Failure)
        A file could not be opened as a slide.
    """

    changed = Signal(str)
    scale_given = Signal(str, object)
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
        self.scale = ScaleWizard(session)
        self._arrange()
        self._slides: list[tuple[str, str, Slide]] = []
        self.combo.currentIndexChanged.connect(self._on_choice)
        self.open.clicked.connect(self._choose_file)
        self.opener.opened.connect(self.choose)
        self.opener.failed.connect(self.failed)
        self.scale.given.connect(self.scale_given)
        self._viewer = session.viewer
        self._slow = ""
        if self._viewer is not None:
            self._viewer.scene.camera.events.connect(self._on_view)
        self.set_colours(Colours())
        self.set_slides([])

    def _arrange(self) -> None:
        choice = QHBoxLayout()
        choice.addWidget(self.combo, 1)
        choice.addWidget(self.open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(choice)
        for widget in (self.facts, self.warnings, self.scale):
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
        self.scale.set_colours(colours)

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
        self.scale.set_busy(busy)

    def choose(self, slide_id: str) -> None:
        """Choose a slide that is open."""
        self.combo.setCurrentIndex(self.combo.findData(slide_id))

    def shutdown(self) -> None:
        """Stop all work and keep no slide open."""
        for job in self.jobs:
            job.shutdown()
        if self._viewer is not None:
            self._viewer.scene.camera.events.disconnect(self._on_view)
            self._viewer = None
        self.set_slides([])
        self.scale.shutdown()

    def _choose_file(self) -> None:
        path = self.opener.choose_file(self, "Slide", self.slide_id)
        if path is not None:
            self.opener.open_file(path)

    def _on_choice(self) -> None:
        self._show_facts()
        self.changed.emit(self.slide_id)

    def _on_view(self, event: object = None) -> None:
        slide = self.slide
        slow = "" if slide is None else slide.slow_drive
        if bool(slow) != bool(self._slow):  # not whenever the milliseconds change
            self._show_warnings()

    def _show_warnings(self) -> None:
        slide = self.slide
        self._slow = "" if slide is None else slide.slow_drive
        lines = [] if slide is None else [*slide.warnings, *filter(None, [self._slow])]
        self.warnings.setVisible(bool(lines))
        self.warnings.setText("\n".join(f"⚠ {line}" for line in lines))

    def _show_facts(self) -> None:
        slide = self.slide
        self.scale.show_slide(slide)
        self._show_warnings()
        if slide is None:
            self.facts.setText(
                "Drop slides here, or open one. File > Open Sample > HER2 phantom is a synthetic case."
            )
            return
        self.facts.setText(" · ".join(slide_facts(slide)))
