"""The tissue of a slide to learn from, refused where scoring would refuse the slide.

What a model is never asked to score it must not learn from: a slide of the other stain, a scan too coarse for
its tiles, fluorescence, a picture without colour, a file of which much is damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import ModelMisfit, SlideError
from napari_her2.inference.fit import refuse_unstained, slide_stain
from napari_her2.models.fit import MAX_ENLARGEMENT
from napari_her2_training.cohort.manifest import STAINS

if TYPE_CHECKING:
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import TissueMask
    from napari_her2_training.cohort.manifest import Stain

_ALL_THE_SAME = "To learn from such slides all the same, set [data] check_stains = false."


def tissue_to_learn(slide: Slide, stain: Stain, *, check: bool) -> TissueMask:
    """Find the tissue of a slide, and look at its colours.

    Parameters
    ----------
    slide : Slide
    stain : {"he", "ihc"}
        Column of the manifest that names the slide.
    check : bool
        Whether a slide that looks like another stain, or like fluorescence, is refused.

    Raises
    ------
    SlideError
    """
    tissue = slide.tissue("auto")
    if not check:
        return tissue
    try:
        refuse_unstained(slide, tissue, "auto", override=False)
    except ModelMisfit as error:
        raise SlideError(f"{error} {_ALL_THE_SAME}") from error
    seen = slide_stain(slide, tissue, "auto")
    if seen not in ("unknown", STAINS[stain]):
        raise SlideError(
            f"{slide.path.name} is given as {STAINS[stain]} but looks like {seen}: put it where it belongs. "
            f"{_ALL_THE_SAME}"
        )
    return tissue


def refuse_empty(slide: Slide, taken: int) -> None:
    """Refuse a slide of which nothing can be taken.

    Raises
    ------
    SlideError
    """
    if not taken:
        raise SlideError(f"no tissue was found on {slide.path.name}, or too little: leave it out.")


def check_scale(slide: Slide, mpp: float) -> None:
    """Refuse a slide that would have to be enlarged to be seen at a µm/px.

    Parameters
    ----------
    slide : Slide
    mpp : float
        µm per pixel of what is learnt from.

    Raises
    ------
    SlideError
    """
    if slide.mpp is not None and max(slide.mpp) > mpp * MAX_ENLARGEMENT:
        raise SlideError(
            f"{slide.path.name} has {max(slide.mpp):.4g} µm/px, too coarse to be seen at {mpp:.4g} µm/px: "
            f"leave it out, or learn at a coarser µm/px."
        )
