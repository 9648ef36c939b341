"""Whether small images of a slide show what a model learnt from: damage, too few pixels, another scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import ModelMisfit
from napari_her2.inference.embeddings import refuse_damage
from napari_her2.models.fit import MAX_ENLARGEMENT, Fit

if TYPE_CHECKING:
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.thumbnail import Thumbnail
    from napari_her2.slide.tissue import TissueMask

LEAST_MM2 = 0.2
"""With less tissue the answer is "indeterminate": about 100 tiles of other models."""
MOST_OFF = 2.0
"""A slide may be seen this many times coarser or finer than the model's training slides without a word."""
FAR_OFF = 3.0
"""Beyond this many times the answer is "indeterminate"."""


def damaged_share(tissue: TissueMask, thumbnails: tuple[Thumbnail, ...]) -> float:
    """Share of the tissue that images of it show as white because the file is damaged there.

    Parameters
    ----------
    tissue : TissueMask
        Not empty.
    thumbnails : tuple of Thumbnail

    Returns
    -------
    float
    """
    lost = 0.0
    for thumbnail in thumbnails:
        if thumbnail.damaged is not None:
            pixels = int((thumbnail.damaged & thumbnail.tissue).sum())
            lost += pixels * thumbnail.pixel_px0[0] * thumbnail.pixel_px0[1]
    pixel_px0 = tissue.downsample[0] * tissue.downsample[1]
    # Where no level could be read nothing is known to be tissue; it counts as such, as it does for tiles.
    unknown = 0.0 if tissue.unreadable is None else float(tissue.unreadable.sum()) * pixel_px0
    return (lost + unknown) / (float(tissue.mask.sum()) * pixel_px0 + unknown)


def damage_words(slide: Slide, tissue: TissueMask, thumbnails: tuple[Thumbnail, ...]) -> tuple[str, ...]:
    """Warn of tissue that could not be read, or refuse where there is much of it."""
    share = damaged_share(tissue, thumbnails)
    refuse_damage(slide, share)
    if not share and not any(thumbnail.damaged is not None for thumbnail in thumbnails):
        return ()
    return (
        f"{share:.1%} of the tissue of {slide.name} could not be read because the file is damaged there; the "
        f"model saw white instead: copy the slide again from its source.",
    )


def refuse_enlarged(
    slide: Slide, card: ModelCard, thumbnail: Thumbnail, *, override: bool
) -> tuple[str, ...]:
    """Refuse tissue of fewer pixels than the model looks at, or warn where the user wants it all the same."""
    coarsest = max(slide.mpp or (0.0, 0.0))
    if coarsest <= thumbnail.mpp * MAX_ENLARGEMENT:
        return ()
    side = thumbnail.size_px * thumbnail.mpp / coarsest
    fit = Fit(
        (
            f"The tissue of {slide.name} spans only {side:.0f} px at {coarsest:.4g} µm/px, fewer than the "
            f"{thumbnail.size_px} px that the model {card.name} looks at: use a scan of higher "
            f"magnification, or a model of smaller images.",
        )
    )
    if not override:
        raise ModelMisfit(" ".join(fit.problems))
    return fit.overridden().warnings


def scale_words(slide: Slide, card: ModelCard, mpp: float) -> tuple[str, ...]:
    """Warn of images that are much coarser or finer than the training slides were seen."""
    times, way = _off(card, mpp)
    if times <= MOST_OFF:
        return ()
    advice = (
        "check its µm/px, or limit the scoring to regions" if way == "coarser" else "do not rely on the score"
    )
    return (
        f"The model saw {slide.name} at {mpp:.3g} µm/px, {times:.1f} times {way} than the slides it was "
        f"trained on ({_range_in_words(card)} µm/px): {advice}.",
    )


def doubt_of(card: ModelCard, tissue_mm2: float, mpp: float, *, any_scale: bool) -> str:
    """Say why images do not allow an answer: too little tissue, or seen from far nearer or farther.

    Parameters
    ----------
    card : ModelCard
    tissue_mm2 : float
    mpp : float
        Of the images.
    any_scale : bool
        Whether that is the slide's own, as of `napari_her2.inference.images.ImageKind`.

    Returns
    -------
    str
        Empty where nothing speaks against an answer.
    """
    if tissue_mm2 < LEAST_MM2:
        return f"only {tissue_mm2:.2g} mm² of tissue, at least {LEAST_MM2:g} mm² are needed"
    times, way = _off(card, mpp)
    if any_scale and times > FAR_OFF:
        return f"seen at {mpp:.3g} µm/px, {times:.1f} times {way} than the training slides"
    return ""


def _range_in_words(card: ModelCard) -> str:
    if card.mpp_range is None:
        return f"{card.mpp:.3g}"
    return " to ".join(f"{mpp:.3g}" for mpp in card.mpp_range)


def _off(card: ModelCard, mpp: float) -> tuple[float, str]:
    """How far outside the range of the training slides an image is seen, in times; 1 inside."""
    finest, coarsest = card.mpp_range or (card.mpp, card.mpp)
    if mpp >= coarsest:
        return mpp / coarsest, "coarser"
    return max(1.0, finest / mpp), "finer"
