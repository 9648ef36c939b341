"""What can be known of a slide before it is scored is found, and the model loaded, while its reader looks."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from napari_her2._napari.work import finding_ahead
from napari_her2._qt.parts.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.models.registry import ModelEntry
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import Preset


class FindingAhead:
    """Looks, in a thread, at slides that are about to be scored.

    Nothing waits for it and nothing comes of it but what the slides keep: a scoring that begins meanwhile
    shares the work.

    Attributes
    ----------
    job : Job
    """

    def __init__(self) -> None:
        self.job = Job()
        self._known: tuple[object, ...] = ()

    def look_at(self, slides: Sequence[Slide], preset: Preset, model: ModelEntry | None, device: str) -> None:
        """Look at slides, and load the model, unless that was done; at those before no more.

        Parameters
        ----------
        slides : sequence of Slide
            Held for as long as it takes; none where nobody can score.
        preset : str
            Of the tissue mask.
        model : ModelEntry or None
        device : str
            As the settings have it.
        """
        wanted = (*map(weakref.ref, slides), preset, model, device)
        if wanted == self._known:
            return
        self._known = wanted
        if slides:
            self.job.start(partial(finding_ahead, tuple(slides), preset, model, device))
        else:
            self.job.cancel()
