"""The two slides of a case in the dock: which one is the IHC slide, and how both are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._qt.pair.pair_picker import PairPicker
from napari_her2._qt.pair.pair_view import PairView
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.slide_opener import SlideOpener
from napari_her2._qt.parts.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_her2._napari.session import Session
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.slide.reader import Slide


class CaseSection(QWidget):
    """Joins the picker of the IHC slide, the controls of the pair, and the pair of the session.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    changed : Signal()
        The IHC slide is another one.
    slide_wanted : Signal(str)
        Id of the slide that is to be the H&E slide from now on.
    failed : Signal(Failure)
    """

    changed = Signal()
    slide_wanted = Signal(str)
    failed = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._of, self._wanted = "", False
        self._open_of = ""
        self.picker = PairPicker()
        self.view = PairView(session)
        self.opener = SlideOpener(session)
        self.jobs = (self.opener.job,)
        self.picking = Section("IHC slide of the case", self.picker)
        self.viewing = Section("Both slides", self.view)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.picking)
        layout.addWidget(self.viewing)
        self.picker.changed.connect(self._on_changed)
        self.picker.open_wanted.connect(self._choose_file)
        self.picker.swap_wanted.connect(self._swap)
        self.view.failed.connect(self.failed)
        self.opener.opened.connect(self._on_opened)
        self.opener.failed.connect(self.failed)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(session.pairing_changed, self._show_view)
        self.show_slides([], "", takes_pair=False)

    @property
    def ihc(self) -> Slide | None:
        """The IHC slide to score with; None where the slide is scored alone."""
        return self.picker.slide if self._wanted else None

    @property
    def ihc_id(self) -> str:
        """Id of the IHC slide to score with; empty where the slide is scored alone."""
        return self.picker.slide_id if self._wanted else ""

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.picker.set_colours(colours)
        self.view.set_colours(colours)

    def show_slides(self, slides: Sequence[tuple[str, str, Slide]], of: str, *, takes_pair: bool) -> None:
        """Show what may be the partner of a slide.

        Parameters
        ----------
        slides : sequence of (id, name, Slide)
            All that are open.
        of : str
            Id of the slide to be scored.
        takes_pair : bool
            Whether the chosen model takes both slides.
        """
        self._of, self._wanted = of, takes_pair
        self.picker.set_slides(slides, of)
        self.picking.setVisible(takes_pair and bool(of))
        self._pair()

    def open_file(self, path: Path) -> None:
        """Open the IHC slide from a file, in a thread."""
        self._open_of = self._of
        self.opener.open_file(path)

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer."""
        for job in self.jobs:
            job.shutdown()
        self.view.shutdown()
        self._subscriptions.end()
        self.picker.set_slides([], "")  # a closed dock keeps no slide open

    def _pair(self) -> None:
        """Make the pair of the session what is chosen; another model leaves the pair on the screen."""
        if self.ihc_id:
            self._session.pair(self._of, self.ihc_id)
        elif self._wanted:
            self._session.unpair()
        self._show_view()

    def _show_view(self) -> None:
        self.viewing.setVisible(self._session.pairing is not None)

    def _on_changed(self) -> None:
        self._pair()
        self.changed.emit()

    def _swap(self) -> None:
        ihc = self.picker.slide_id
        if ihc:
            self.picker.choose(self._of, of=ihc)
            self.slide_wanted.emit(ihc)

    def _choose_file(self) -> None:
        path = self.opener.choose_file(self, "IHC slide of the case", self._of)
        if path is not None:
            self.open_file(path)

    def _on_opened(self, slide_id: str) -> None:
        if slide_id != self._open_of:
            self.picker.choose(slide_id, of=self._open_of)
