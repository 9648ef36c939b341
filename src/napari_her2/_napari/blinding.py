"""Slides under a neutral name: the cases of a study in a viewer, blinded or not.

A blinded slide carries a tag of its own kind, by which no other dock, overlay, value under the cursor or file
knows that it is a slide of ours. What is revealed becomes a slide like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.layers import beside, slide_layer
from napari_her2._napari.placement import companions
from napari_her2._napari.scale_bar import show_scale_bar
from napari_her2._napari.tags import METADATA_KEY, BlindedTag, blinded_tag, slide_tag
from napari_her2.errors import JobFailed, SlideError
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_her2.inference.result import SlideResult
    from napari_her2.reading.model_answers import ModelAnswer
    from napari_her2.reading.worklist import StudyCase
    from napari_her2.slide.reader import Slide


def opening_case(case: StudyCase, name: str) -> Generator[Progress, None, tuple[Slide, ...]]:
    """Open the slides of a case.

    Parameters
    ----------
    case : StudyCase
    name : str
        What the progress calls it.

    Returns
    -------
    tuple of Slide
        In the order of the case; closed by whoever takes them.

    Raises
    ------
    SlideError
        If one cannot be opened. Its words name the file.
    """
    from napari_her2.slide.reader import open_slide

    slides: list[Slide] = []
    done = False
    try:
        for number, of in enumerate(case.slides):
            yield Progress(f"Opening {name}", number, len(case.slides), "slides")
            slides.append(open_slide(of.path, mpp=of.mpp))
            np.asarray(slides[-1].display()[-1])  # what napari draws first is kept: it need not wait for it
        done = True
        return tuple(slides)
    finally:
        if not done:
            for slide in slides:
                slide.close()


def hashing_case(case: StudyCase, slides: Sequence[Slide]) -> Generator[Progress, None, dict[str, str]]:
    """Work out the content of the slides of a case.

    Returns
    -------
    mapping of str to str
        Stain to fingerprint; without those that cannot be read to their end.
    """
    found: dict[str, str] = {}
    for of, slide in zip(case.slides, slides, strict=True):
        try:
            steps = slide.identity.steps()
            while True:
                try:
                    done, total = next(steps)
                except StopIteration as stop:
                    found[of.stain] = stop.value
                    break
                yield Progress("Looking at the content of the slide", done, total, "bytes")
        except (SlideError, JobFailed):
            continue
    return found


def reading_answers(
    answers: Sequence[ModelAnswer], slide_ids: Mapping[str, str]
) -> Generator[Progress, None, list[SlideResult]]:
    """Read the whole results of models for slides that are open.

    Parameters
    ----------
    answers : sequence of ModelAnswer
    slide_ids : mapping of str to str
        Fingerprint to the id of the open slide.

    Returns
    -------
    list of SlideResult
        Of those that were kept whole.
    """
    from napari_her2.export.kept_result import KEPT_NAME, read_kept

    results = []
    for number, answer in enumerate(answers):
        yield Progress("Reading results", number, len(answers), "results")
        path = answer.folder / KEPT_NAME
        if not path.is_file():
            continue  # a result of an older version: its answer is known, its maps are not
        try:
            results.append(read_kept(path, slide_ids))
        except JobFailed:
            continue
    return results


def add_case_slide(
    viewer: ViewerModel, slide: Slide, name: str, *, blinded: bool, right_of: Slide | None = None
) -> Image:
    """Show a slide of a case: one at a time, for napari draws it before it takes another key.

    Parameters
    ----------
    viewer : ViewerModel
    slide : Slide
        Owned by its layer from now on.
    name : str
        Of the layer, where it is blinded.
    blinded : bool
    right_of : Slide, optional
        The first slide of the case.

    Returns
    -------
    Image
    """
    layer = slide_layer(slide) if right_of is None else beside(slide_layer(slide), right_of)
    data, options, _ = layer
    if blinded:
        options = options | {"name": name, "metadata": {METADATA_KEY: BlindedTag(slide)}}
    shown: Image = viewer.add_image(data, **options)
    if slide.mpp is not None:
        show_scale_bar(viewer)
    viewer.reset_view()
    return shown


def remove_case(viewer: ViewerModel, layers: Sequence[Image]) -> None:
    """Close the slides of a case, and take away what lies over them."""
    for layer in layers:
        tag = slide_tag(layer)
        if layer in viewer.layers:
            viewer.layers.remove(layer)  # first: what is kept of the slide is kept as it is now
        for over in companions(viewer, tag.slide_id) if tag is not None else ():
            if over in viewer.layers:
                viewer.layers.remove(over)


def slide_in(layer: Image) -> Slide | None:
    """Return the slide of a layer, blinded or not."""
    tag = slide_tag(layer) or blinded_tag(layer)
    return None if tag is None else tag.slide
