"""Opens slides from files into the viewer: any file that a slide can be, plain pictures too.

File > Open leaves JPEG and PNG to napari, whose own reader makes a picture of them; what is opened here is
a slide.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_her2._napari.opening import add_slides, opening_slides, refusals_in_words
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtWidgets import QWidget

    from napari_her2._napari.opening import OpenedSlides
    from napari_her2._napari.session import Session


class SlideOpener(QObject):
    """Opens slides in a thread and puts them into the viewer.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    job : Job
    arriving : Signal(tuple of Slide)
        They were opened and are about to be put into the viewer.
    opened : Signal(str)
        Id of the slide, the first of several, which was opened now or is open already.
    failed : Signal(Failure)
        Something could not be opened; what else was asked for is open.
    """

    arriving = Signal(object)
    opened = Signal(str)
    failed = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._waiting: list[Path] = []
        self.job = Job()
        self.job.returned.connect(self._on_opened)
        self.job.failed.connect(self.failed)
        self.job.running_changed.connect(self._go_on)

    def choose_file(self, parent: QWidget, title: str, beside: str = "") -> Path | None:
        """Ask for a file.

        Parameters
        ----------
        parent : QWidget
        title : str
        beside : str
            Id of a slide whose folder is shown first.

        Returns
        -------
        Path or None
            None where the user chose none.
        """
        slide = self._session.slide_of(beside)
        folder = Path.home() if slide is None else slide.path.parent
        chosen, _ = QFileDialog.getOpenFileName(parent, title, str(folder))
        return Path(chosen) if chosen else None

    def open_file(self, path: Path) -> None:
        """Open a file, in a thread."""
        self.open_files((path,))

    def open_files(self, paths: Sequence[Path]) -> None:
        """Open files one after another, in a thread, after those that are being opened.

        Parameters
        ----------
        paths : sequence of Path
            Files, or folders of DICOM files.
        """
        self._waiting += paths
        if not self.job.running:
            self._go_on(running=False)

    def _go_on(self, running: bool) -> None:
        if self._waiting and not running:
            paths, self._waiting = tuple(self._waiting), []
            self.job.start(partial(opening_slides, paths))

    def _on_opened(self, opened: OpenedSlides) -> None:
        viewer = self._session.viewer
        if viewer is None:
            for slide in opened.slides:
                slide.close()
            return
        if opened.slides:
            self.arriving.emit(opened.slides)
        ids = add_slides(viewer, opened.slides)
        if ids:
            self.opened.emit(ids[0])
        words = refusals_in_words(opened)
        if words:
            self.failed.emit(Failure(words, kind=SlideError))
