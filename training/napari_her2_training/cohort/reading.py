"""The slides of a cohort, opened to be learnt from: an error names its row, and a slide must not change.

A slide that is written over while it is read refuses the training, as it refuses scoring, so that nothing
which was cut from it is kept.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed, SlideChanged, SlideError
from napari_her2.inference.unchanged import unchanged
from napari_her2.slide.reader import open_slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case, Stain
    from napari_her2_training.findings import Findings


GIVEN_IN_MANIFEST = "given in the manifest"


@contextmanager
def naming_row(case: Case, findings: Findings | None = None) -> Iterator[None]:
    """Let errors of a slide name the row of the manifest that it stands in.

    Parameters
    ----------
    case : Case
    findings : Findings, optional
        Takes them as faults.

    Raises
    ------
    JobFailed
        For a SlideError, and for the same.
    SlideChanged
        For the same.
    """
    where = case.where
    if findings is not None:
        with findings.noted(where):
            yield
        return
    try:
        yield
    except SlideChanged as error:
        raise SlideChanged(f"{where}{error}") from error
    except (SlideError, JobFailed) as error:
        raise JobFailed(f"{where}{error}") from error


def opened(case: Case, stain: Stain) -> Slide:
    """Open a slide of a case at the µm/px that the manifest gives, or that of the file.

    Raises
    ------
    SlideError
        It cannot be opened.
    """
    path = case.slide(stain)
    return open_slide(path, mpp=case.scale_of(path), mpp_source=GIVEN_IN_MANIFEST)


@contextmanager
def slide_to_learn(case: Case, stain: Stain) -> Iterator[Slide]:
    """Open a slide of a case; what is read of it counts only once the block was left without an error.

    Raises
    ------
    SlideError
        The slide cannot be opened.
    SlideChanged
        It was changed since it was opened.
    """
    with opened(case, stain) as slide:
        if not slide.identity.settled:
            # The times of a file that was written just now do not tell of a change: its content does.
            # That of older files is not read for it, since images need a small part of a slide.
            slide.identity.value()
        with unchanged(slide):
            yield slide
