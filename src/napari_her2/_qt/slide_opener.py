"""Opens a slide from a file into the viewer: any file that a slide can be, plain pictures too.

File > Open leaves JPEG and PNG to napari, whose own reader makes a picture of them; what is opened here is
a slide.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_her2._napari.layers import slide_layer
from napari_her2._napari.work import opening_slide
from napari_her2._qt.jobs import Job

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_her2._napari.session import Session
    from napari_her2.slide.reader import Slide


class SlideOpener(QObject):
    """Opens slides in a thread and puts them into the viewer.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    job : Job
    opened : Signal(str)
        Id of the slide, which was opened now or is open already.
    failed : Signal(Failure)
    """

    opened = Signal(str)
    failed = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.job = Job()
        self.job.returned.connect(self._on_opened)
        self.job.failed.connect(self.failed)

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
        self.job.start(partial(opening_slide, path))

    def _on_opened(self, slide: Slide) -> None:
        viewer = self._session.viewer
        if viewer is None:
            slide.close()
            return
        if self._session.layer_of(slide.fingerprint) is None:
            data, options, _ = slide_layer(slide)
            viewer.add_image(data, **options)
        else:
            slide.close()  # it is open already
        self.opened.emit(slide.fingerprint)
