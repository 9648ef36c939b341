"""The slides of the case that is read: opened in a thread, shown under neutral names, closed again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

from napari_her2._napari.blinding import add_case_slide, opening_case, remove_case, slide_in
from napari_her2._napari.layers import OverlayLook
from napari_her2._qt.parts.jobs import Job
from napari_her2._qt.reading.work import fingerprinting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari.layers import Image

    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.reading.work import Revealed
    from napari_her2.reading.worklist import StudyCase
    from napari_her2.slide.reader import Slide


class CaseView(QObject):
    """Shows one case at a time.

    Parameters
    ----------
    session : Session
    settings : Settings

    Attributes
    ----------
    opened : Signal()
    failed : Signal(Failure)
        A slide of the case cannot be opened. Its words name the file.
    changed_content : Signal()
        A slide is not the one that the study knows.
    blinded : bool
        Whether names are hidden.
    layers : list of Image
        Of the case; empty while none is open.
    fingerprints : mapping of str to str
        Stain to the content of its slides, once known.
    """

    opened = Signal()
    failed = Signal(object)
    changed_content = Signal()

    def __init__(self, session: Session, settings: Settings) -> None:
        super().__init__()
        self._session, self._settings = session, settings
        self._case: StudyCase | None = None
        self._name = ""
        self.folder: Path | None = None
        self.blinded = False
        self.layers: list[Image] = []
        self.fingerprints: Mapping[str, str] = {}
        self._arriving: list[tuple[Slide, str]] = []
        self.open_job, self.hash_job = Job(), Job()
        self.jobs = (self.open_job, self.hash_job)
        self.open_job.returned.connect(self._on_opened)
        self.open_job.failed.connect(self.failed)
        self.hash_job.returned.connect(self._on_hashed)

    @property
    def case(self) -> StudyCase:
        """The case that was opened last."""
        if self._case is None:
            raise ValueError("no case was opened")
        return self._case

    @property
    def slides(self) -> tuple[Slide, ...]:
        """Slides of the case that are open."""
        return tuple(slide for layer in self.layers if (slide := slide_in(layer)) is not None)

    @property
    def has_results(self) -> bool:
        """Whether an answer of a model for a slide of the case can be seen."""
        return any(self._session.results_of(slide.slide_id) for slide in self.slides)

    def open(self, folder: Path, case: StudyCase, name: str, *, blinded: bool) -> None:
        """Close what is open, and open a case in a thread.

        Parameters
        ----------
        folder : Path
            Of the study.
        case : StudyCase
        name : str
            What it is called while it is blinded.
        blinded : bool
        """
        self.close()
        self.folder, self._case, self._name, self.blinded = folder, case, name, blinded
        self.open_job.start(partial(opening_case, case, name))

    def close(self) -> None:
        """Close the slides of the case."""
        for job in self.jobs:
            job.shutdown(0)  # a slide that is just being opened is not to arrive any more
        for slide, _ in self._arriving:
            slide.close()
        self._arriving = []
        layers, self.layers, self.fingerprints = self.layers, [], {}
        viewer = self._session.viewer
        if viewer is not None:
            remove_case(viewer, layers)

    def reveal(self, revealed: Revealed) -> None:
        """Show the names of the slides, and the maps of models over them."""
        self.blinded = False
        for layer in self.layers:
            self._session.reveal(layer)
        look = OverlayLook(opacity=self._settings.default_opacity)
        for number, result in enumerate(revealed.results):
            if number:
                self._session.add_result(result)
            else:
                self._session.set_result(result, look)

    def _on_opened(self, slides: tuple[Slide, ...]) -> None:
        viewer, case = self._session.viewer, self.case
        if viewer is None:
            for slide in slides:
                slide.close()
            return
        names = [f"{self._name} · {of.stain}" if len(slides) > 1 else self._name for of in case.slides]
        self._arriving = [*zip(slides, names, strict=True)]
        if self.folder is not None:
            self.hash_job.start(partial(fingerprinting, self.folder, case, slides))
        self._add_next()

    def _add_next(self) -> None:
        """Add the next slide to the viewer, one in a turn of the event loop; report after the last."""
        viewer = self._session.viewer
        if not self._arriving or viewer is None:
            return
        slide, name = self._arriving.pop(0)
        left = self.slides[0] if self.layers else None
        self.layers.append(add_case_slide(viewer, slide, name, blinded=self.blinded, right_of=left))
        if self._arriving:
            QTimer.singleShot(0, self._add_next)
        else:
            self.opened.emit()

    def _on_hashed(self, found: Mapping[str, str]) -> None:
        self.fingerprints = found
        known = {of.stain: of.fingerprint for of in self.case.slides if of.fingerprint}
        if any(found.get(stain, value) != value for stain, value in known.items()):
            self.changed_content.emit()
