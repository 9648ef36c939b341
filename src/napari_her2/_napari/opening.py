"""Slides from files into a viewer: read in a thread, put beside those that are open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2._napari.layers import slide_layer
from napari_her2._napari.tags import slide_tag
from napari_her2.errors import SlideError
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_her2.slide.reader import Slide

_GAP = 0.05  # of the width of all that is open
_MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class OpenedSlides:
    """Slides that could be opened, and why others could not.

    Parameters
    ----------
    slides : tuple of Slide
        Closed by whoever takes them.
    refusals : tuple of (Path, str)
        A sentence for each.
    """

    slides: tuple[Slide, ...]
    refusals: tuple[tuple[Path, str], ...]


def opening_slides(paths: Sequence[Path]) -> Generator[Progress, None, OpenedSlides]:
    """Open slide files, or folders of DICOM files; one that is no slide keeps no other from opening.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    OpenedSlides
    """
    from napari_her2.slide.reader import open_slide

    slides: list[Slide] = []
    refusals: list[tuple[Path, str]] = []
    done = False
    try:
        for number, path in enumerate(paths):
            yield Progress(f"Opening {path.name}", number, len(paths), "slides")
            try:
                slides.append(open_slide(path))
            except SlideError as error:
                refusals.append((path, str(error)))
        done = True
        return OpenedSlides(tuple(slides), tuple(refusals))
    finally:
        if not done:  # cancelled: nobody will take them
            for slide in slides:
                slide.close()


def refusals_in_words(opened: OpenedSlides) -> str:
    """Say in one sentence which files were not opened and why; empty where all were."""
    if not opened.refusals:
        return ""
    reason = opened.refusals[0][1]
    if len(opened.refusals) == 1:
        return reason
    names = [path.name for path, _ in opened.refusals]
    shown = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    total = len(names) + len(opened.slides)
    return f"{len(names)} of {total} could not be opened as slides ({shown}); of the first: {reason}"


def add_slides(viewer: ViewerModel, slides: Sequence[Slide]) -> list[str]:
    """Put slides into a viewer, each to the right of what is there, and show them all.

    Parameters
    ----------
    viewer : ViewerModel
    slides : sequence of Slide
        One that is open already is closed again.

    Returns
    -------
    list of str
        Ids of the slides, in their order.
    """
    for slide in slides:
        tags = [tag for layer in viewer.layers if (tag := slide_tag(layer)) is not None]
        if any(tag.slide_id == slide.slide_id for tag in tags):
            slide.close()
            continue
        data, options, _ = slide_layer(slide)
        left = _free_place(viewer, options["scale"])
        viewer.add_image(data, **options, translate=left)
    if slides:
        viewer.reset_view()
    return [slide.slide_id for slide in slides]


def _free_place(viewer: ViewerModel, scale: tuple[float, float]) -> tuple[float, float]:
    """(y, x) of the first pixel of a slide that is to lie right of all that are open."""
    boxes = [layer.extent.world[:, -2:] for layer in viewer.layers if slide_tag(layer) is not None]
    if not boxes:
        return (0.0, 0.0)
    top, left = (min(float(box[0, axis]) for box in boxes) for axis in (0, 1))
    right = max(float(box[1, 1]) for box in boxes)
    # The extent is that of the centres of the pixels.
    return top, right + _GAP * (right - left) + scale[1]
