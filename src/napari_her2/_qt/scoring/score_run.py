"""One scoring at a time: what it was asked for, and the maps that fill in while it runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_her2._napari.filling import FillingMaps
from napari_her2._qt.parts.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence

    from napari_her2._napari.session import Session
    from napari_her2.inference.kept_scoring import KeptScoring
    from napari_her2.inference.regions import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.steps import Progress


class ScoreRun(QObject):
    """Scores in a thread; a new scoring takes the place of the one before.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    job : Job
        Returns a SlideResult.
    kept : list of KeptScoring
        What the newest scoring keeps to answer again; filled when it returns.
    regions : list of Region or None
        That it was asked for.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.job = Job()
        self.kept: list[KeptScoring] = []
        self.regions: list[Region] | None = None
        self._slide_ids: tuple[str, ...] = ()
        self._filling: FillingMaps | None = None
        self.job.progressed.connect(self._fill)
        self.job.cancelled.connect(self.stop_filling)
        self.job.failed.connect(self.stop_filling)

    def begin(
        self,
        steps: Callable[..., Generator[Progress, None, SlideResult]],
        slide_ids: Sequence[str],
        regions: list[Region] | None,
        opacity: float,
    ) -> None:
        """Score.

        Parameters
        ----------
        steps : callable
            Makes the generator, from regions, kept, front and early; called in the thread.
        slide_ids : sequence of str
            Of the slides that are scored.
        regions : list of Region or None
        opacity : float
            Of the maps that fill in, in [0, 1].
        """
        self.stop_filling()
        self.kept, self.regions, self._slide_ids = [], regions, tuple(slide_ids)
        viewer = self._session.viewer
        filling = None if viewer is None else FillingMaps(viewer, self._slide_ids, opacity)
        self.job.start(
            partial(
                steps,
                regions=regions,
                kept=self.kept,
                front=None if filling is None else filling.front,
                early=None if filling is None else filling.early,
            )
        )
        self._filling = filling

    def keep_only(self, slide_ids: Collection[str]) -> None:
        """Stop where a slide that is scored was closed."""
        if self.job.running and not set(self._slide_ids) <= set(slide_ids):
            self.job.cancel()

    def make_room(self) -> Iterator[None]:
        """Take the maps that filled in away in the next step: a result has taken their place."""
        filling = self._filling
        yield
        if filling is not None and filling is self._filling:  # else another scoring has begun
            filling.stop(scored=True)
            self._filling = None

    def stop_filling(self, _outcome: object = None) -> None:
        """Take the maps that filled in away; those before come back."""
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.stop(scored=False)

    def _fill(self, _progress: Progress) -> None:
        if self._filling is not None:
            self._filling.show()
