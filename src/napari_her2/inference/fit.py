"""Whether a slide is what a model was made for: its µm/px, its stain, and that there is tissue at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import cv2
import numpy as np

from napari_her2.errors import ModelMisfit, SlideError
from napari_her2.models.fit import Fit, check_fit
from napari_her2.slide.once import Once
from napari_her2.slide.stain import colourless, dark_background, guess_stain

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.stain import Stain
    from napari_her2.slide.tissue import Preset, TissueMask


@dataclass(frozen=True, slots=True)
class _Appearance:
    """What the colours of a slide tell."""

    stain: Stain
    dark: bool
    colourless: bool


_appearances: WeakKeyDictionary[Slide, Once[_Appearance]] = WeakKeyDictionary()


def refuse_or_warn(
    slide: Slide, card: ModelCard, stain: str, *, wanted: str, override: bool, any_scale: bool = False
) -> tuple[str, ...]:
    """Compare a slide with what a model was made for.

    Parameters
    ----------
    slide : Slide
        With a known µm/px.
    card : ModelCard
    stain : str
        Of the slide; the wanted one where it is not known yet.
    wanted : str
        What the slide is to be scored as.
    override : bool
        Whether the user wants the score all the same.
    any_scale : bool, default False
        Whether the model takes slides of any µm/px.

    Returns
    -------
    tuple of str
        What the result has to carry as warnings.

    Raises
    ------
    ModelMisfit
        If something speaks against it and is not overridden.
    """
    if slide.mpp is None:
        return ()
    fit = check_fit(card, slide.mpp, stain, slide=slide.name, wanted=wanted, any_scale=any_scale)
    if fit.problems and not override:
        raise ModelMisfit(" ".join(fit.problems))
    return fit.overridden().warnings


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
    return _appearance(slide, mask, preset).stain


def refuse_unstained(slide: Slide, mask: TissueMask, preset: Preset, *, override: bool) -> tuple[str, ...]:
    """Refuse what is no stained tissue seen in bright light: fluorescence, and pictures without colour.

    Parameters
    ----------
    slide : Slide
    mask : TissueMask
    preset : str
        That the mask was found with.
    override : bool
        Whether the user wants the score all the same.

    Returns
    -------
    tuple of str
        What the result has to carry as warnings.

    Raises
    ------
    ModelMisfit
        If its background is dark, or nothing has colour, and that is not overridden.
    """
    seen = _appearance(slide, mask, preset)
    if seen.dark:
        what = "looks like fluorescence (dark background)"
    elif seen.colourless:
        what = "has no colour, so no stain can be told"
    else:
        return ()
    fit = Fit(
        (
            f"{slide.name} {what}: models of HER2 are made for tissue stained with H&E or by IHC and seen in "
            f"bright light; choose such a slide.",
        )
    )
    if not override:
        raise ModelMisfit(" ".join(fit.problems))
    return fit.overridden().warnings


def _appearance(slide: Slide, mask: TissueMask, preset: Preset) -> _Appearance:
    return _appearances.setdefault(slide, Once()).get(preset, lambda: _seen(slide, mask))


def _seen(slide: Slide, mask: TissueMask) -> _Appearance:
    rgb = slide.thumbnail(1024)
    size = (rgb.shape[1], rgb.shape[0])
    small = cv2.resize(mask.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    tissue = small.astype(np.bool_)
    return _Appearance(guess_stain(rgb, tissue), dark_background(rgb), colourless(rgb, tissue))


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
