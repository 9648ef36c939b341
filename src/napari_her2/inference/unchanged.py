"""Slides stay the same from the first tile to the result: identified first, looked at again at the end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_her2.slide.reader import Slide

STAGE = "Reading the file's identity"
_MB = 1_000_000


def identified(*slides: Slide | None) -> Generator[Progress, None, None]:
    """Work out the fingerprints of slides, with progress; nothing happens where they are known.

    Parameters
    ----------
    *slides : Slide or None

    Yields
    ------
    Progress
        Closing the generator stops the reading.

    Raises
    ------
    SlideChanged, SlideError
        If a slide changed since it was opened, or cannot be read.
    """
    for slide in slides:
        if slide is None or slide.identity.known is not None:
            continue
        yield Progress(STAGE, unit="MB", note=slide.path.name)
        for done, total in slide.identity.steps():
            yield Progress(STAGE, done // _MB, total // _MB, "MB", slide.path.name)


@contextmanager
def unchanged(*slides: Slide | None) -> Iterator[None]:
    """Refuse what was made of slides that were changed meanwhile.

    Parameters
    ----------
    *slides : Slide or None
        Identified before.

    Raises
    ------
    SlideChanged
        In place of an error that the change led to, too: a slide that is written over looks damaged.
    """
    opened = [slide for slide in slides if slide is not None]
    try:
        yield
    except Her2Error:
        for slide in opened:
            slide.identity.check_unchanged()
        raise
    for slide in opened:
        slide.identity.check_unchanged(thorough=True)
