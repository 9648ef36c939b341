"""Asks what to do about slides that napari's own reader opened, and would open again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal

from napari_her2._napari.reader_choice import is_preferred, pictures_of_slides, prefer
from napari_her2._napari.settings import read_settings, stop_offering_reader
from napari_her2._qt.parts.question_bar import QuestionBar
from napari_her2._qt.parts.slide_opener import SlideOpener
from napari_her2._qt.parts.subscriptions import Subscriptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtpy.QtWidgets import QWidget

    from napari_her2._napari.reader_choice import Picture
    from napari_her2._napari.session import Session
    from napari_her2.slide.reader import Slide

_ALWAYS = (
    "Always open slides with napari-her2? napari's own reader, which it offers first, makes pictures of "
    "them that cannot be scored."
)
_ALWAYS_TIP = (
    "Sets napari's own setting for .svs, .tif, .ndpi and the other files of slides (Preferences > Plugins). "
    "A TIFF that is no slide is still opened by napari."
)


class ReaderQuestions(QuestionBar):
    """Offers to open as a slide what another reader opened as a picture, and to spare that in future.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    opened : Signal(str)
        Id of a slide that took the place of its picture.
    failed : Signal(Failure)
    """

    opened = Signal(str)
    failed = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._was_asked = False
        self._known: dict[str, bool] = {}
        self._declined: set[Path] = set()
        self._asked_of: tuple[Picture, ...] = ()
        self._wanted: set[Path] = set()
        self.opener = SlideOpener(session)
        self.jobs = (self.opener.job,)
        self.answered.connect(self._on_answer)
        self.opener.arriving.connect(self._make_room)
        self.opener.opened.connect(self._on_opened)
        self.opener.failed.connect(self._on_failed)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(session.slides_changed, self.look)
        self.look()

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer."""
        for job in self.jobs:
            job.shutdown()
        self._subscriptions.end()
        self._asked_of = ()

    def look(self) -> None:
        """Ask what there is to ask now."""
        viewer = self._session.viewer
        found = [] if viewer is None else pictures_of_slides(viewer, self._known)
        taken = self._declined | self._wanted
        self._asked_of = tuple(picture for picture in found if picture.path not in taken)
        if self._asked_of:
            self._ask_of_pictures()
        elif not self._was_asked and read_settings().offer_reader and not is_preferred():
            self.ask(_ALWAYS, "Always", "No", _ALWAYS_TIP)
        else:
            self.clear()

    def _ask_of_pictures(self) -> None:
        names = ", ".join(picture.path.name for picture in self._asked_of)
        one = len(self._asked_of) == 1
        self.ask(
            f"{names} {'is' if one else 'are'} open as {'a picture' if one else 'pictures'}, "
            f"which cannot be scored.",
            "Open as slide" if one else "Open as slides",
            "Leave it" if one else "Leave them",
            "The slide takes the place of the picture.",
        )

    def _on_answer(self, yes: bool) -> None:
        paths = [picture.path for picture in self._asked_of]
        if not paths:
            if yes:
                prefer()
            self._was_asked = True
            stop_offering_reader()
        elif yes:
            self._wanted.update(paths)
            self.opener.open_files(paths)
        else:
            self._declined.update(paths)
        self.look()

    def _make_room(self, slides: Sequence[Slide]) -> None:
        """Take away the pictures of the slides that are coming.

        Before, not after: napari numbers a name that is there already, and says in a pop-up that a picture
        in pixels and a slide in µm do not go together.
        """
        viewer = self._session.viewer
        if viewer is None:
            return
        paths = {slide.path.resolve() for slide in slides}
        for picture in pictures_of_slides(viewer, self._known):
            if picture.path in self._wanted and picture.path.resolve() in paths:
                for layer in picture.layers:
                    viewer.layers.remove(layer)

    def _on_opened(self, slide_id: str) -> None:
        self.opened.emit(slide_id)
        self._end()

    def _on_failed(self, failure: object) -> None:
        self.failed.emit(failure)
        self._end()

    def _end(self) -> None:
        """Ask no more about what was wanted: it is open, or cannot be opened."""
        self._declined |= self._wanted
        self._wanted.clear()
        self.look()
