"""Whether a slide is what a model was made for: its µm/px, its stain, and that there is tissue at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import cv2
import numpy as np

from napari_her2.errors import ModelError, SlideError
from napari_her2.slide.stain import guess_stain

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.stain import Stain
    from napari_her2.slide.tissue import Preset, TissueMask

COARSEST = 1.25
"""A slide may have this many times the µm/px of the model: its tiles are then enlarged by as much."""

_stains: WeakKeyDictionary[Slide, dict[str, Stain]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Fit:
    """What speaks against scoring a slide with a model.

    Parameters
    ----------
    problems : tuple of str
        A sentence each; any of them refuses the slide unless the user overrides it.
    notes : tuple of str
        Doubts, which become warnings.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def settle(self, model: str, *, override: bool) -> tuple[str, ...]:
        """Refuse, or return what the result has to carry as warnings.

        Raises
        ------
        ModelError
            If there is a problem and it is not overridden.
        """
        if self.problems and not override:
            raise ModelError(
                f"{model} does not fit this slide: {' '.join(self.problems)} "
                f"Use another model, or override this (--override-fit); the result then carries a warning."
            )
        return (*(f"Overridden: {problem}" for problem in self.problems), *self.notes)


def scale_fit(slide: Slide, card: ModelCard) -> Fit:
    """Compare the µm/px of a slide with that of a model; finer slides are resampled and always fit.

    Parameters
    ----------
    slide : Slide
        With a known µm/px.
    card : ModelCard

    Returns
    -------
    Fit
    """
    if slide.mpp is None or max(slide.mpp) <= COARSEST * card.mpp:
        return Fit()
    return Fit(
        (
            f"it has {max(slide.mpp):.4g} µm/px ({slide.mpp_source}), the model needs {card.mpp:g} µm/px "
            f"or finer.",
        )
    )


def stain_fit(slide: Slide, mask: TissueMask, card: ModelCard, preset: Preset) -> Fit:
    """Compare the stain of a slide, guessed from its colours, with that of a model.

    Parameters
    ----------
    slide : Slide
    mask : TissueMask
    card : ModelCard
    preset : str
        That the mask was found with.

    Returns
    -------
    Fit
    """
    stain = slide_stain(slide, mask, preset)
    if stain == card.stain:
        return Fit()
    if stain == "unknown":
        return Fit(
            notes=(f"The stain could not be told from its colours; the model is made for {card.stain}.",)
        )
    return Fit((f"its colours look like {stain}, the model is made for {card.stain}.",))


def slide_stain(slide: Slide, mask: TissueMask, preset: Preset) -> Stain:
    """Stain of the tissue, guessed once for a slide and a mask.

    Parameters
    ----------
    slide : Slide
    mask : TissueMask
    preset : str
        That the mask was found with.

    Returns
    -------
    str
        "H&E", "IHC" or "unknown".
    """
    known = _stains.setdefault(slide, {})
    if preset not in known:
        rgb = slide.thumbnail(1024)
        size = (rgb.shape[1], rgb.shape[0])
        small = cv2.resize(mask.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        known[preset] = guess_stain(rgb, small.astype(np.bool_))
    return known[preset]


def check_grid(grid: TileGrid, slide: Slide) -> None:
    """Refuse a slide that holds not even one tile, which an absurd µm/px also leads to.

    Raises
    ------
    SlideError
    """
    if min(grid.shape) > 0:
        return
    height, width = grid.slide_shape_px0
    raise SlideError(
        f"{slide.name} holds no whole tile: at {grid.slide_mpp[1]:g} µm/px ({slide.mpp_source}) its "
        f"{width:,} x {height:,} px are smaller than one tile of {grid.tile_um:g} µm; check the µm/px."
    )
