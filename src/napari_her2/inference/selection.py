"""Which tiles of a slide are scored: tissue, inside the regions, on a slide that the model was made for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed, SlideError
from napari_her2.inference.fit import check_grid, refuse_or_warn, refuse_unstained, slide_stain
from napari_her2.inference.regions import as_regions, region_words, tiles_inside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.regions import Regions
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The tiles to score, and what they were chosen by.

    Parameters
    ----------
    grid : TileGrid
    keep : (rows, columns) bool
    tissue : TissueMask
    share : (rows, columns) float32
        Share of each tile that is tissue.
    stain : str
        What the slide is scored as.
    looks_like : str
        The stain that its colours show: "H&E", "IHC" or "unknown".
    regions : str or None
        What the scoring is limited to, in words.
    warnings : tuple of str
    quality : Quality or None
        What is wrong with which tiles, where that was asked for: those are no longer among ``keep``.
    """

    grid: TileGrid
    keep: NDArray[np.bool_]
    tissue: TissueMask
    share: NDArray[np.float32]
    stain: str
    looks_like: str
    regions: str | None
    warnings: tuple[str, ...]
    quality: Quality | None = None

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue that is scored: of all, or of that in the tiles that are left."""
        if self.regions is None and self.quality is None:
            return self.tissue.area_mm2(self.grid.slide_mpp)
        return float(self.share[self.keep].sum(dtype="float64")) * self.grid.tile_um**2 / 1e6


def tissue_tiles(slide: Slide, card: ModelCard, options: ScoringOptions, *, stain: str) -> Chosen:
    """Find the tiles of a slide that hold tissue, on a slide that the model was made for.

    Parameters
    ----------
    slide : Slide
    card : ModelCard
    options : ScoringOptions
    stain : str
        What the slide is scored as; it should look like that.

    Returns
    -------
    Chosen

    Raises
    ------
    SlideError, ModelError
        If there is no tissue, or the model was not made for the slide.
    """
    grid = slide.tile_grid(card.tile_px, card.mpp)
    # The scale first: finding the tissue, which the stain is guessed from, takes longer.
    refuse_or_warn(slide, card, stain, wanted=stain, override=options.override_fit)
    check_grid(grid, slide)
    tissue = slide.tissue(options.preset)
    light = refuse_unstained(slide, tissue, options.preset, override=options.override_fit)
    keep = tissue.keep(grid, options.least_tissue(card))
    if not keep.any():
        raise SlideError(
            f"No tissue was found on {slide.name} in tiles of {grid.tile_um:g} µm: look at the slide, or try "
            f"the tissue preset for biopsies, or a smaller share of tissue in a tile."
        )
    seen = slide_stain(slide, tissue, options.preset)
    # What the user says of the stain goes before what the colours seem to say, but the result tells of it.
    override = options.override_fit or options.stain == stain
    warnings = light + refuse_or_warn(slide, card, seen, wanted=stain, override=override)
    return Chosen(grid, keep, tissue, tissue.fraction(grid), stain, seen, None, warnings)


def shifted(
    whole: Chosen, shift: tuple[float, float], regions: Regions | None, least_tissue: float
) -> Chosen:
    """Choose among shifted tiles by the same rules.

    Parameters
    ----------
    whole : Chosen
        From `tissue_tiles`.
    shift : tuple of float
        (y, x), in sides of a tile.
    regions : Regions or None
        As of `limited`.
    least_tissue : float
        Share of a tile that must be tissue.

    Returns
    -------
    Chosen
        It may hold no tile: of the tissue in a narrow region, or at the edge of the slide.
    """
    grid = whole.grid.shifted(shift)
    keep = whole.tissue.keep(grid, least_tissue)
    if regions is not None:
        keep = tiles_inside(as_regions(regions), grid, keep)
    return replace(whole, grid=grid, keep=keep, share=whole.tissue.fraction(grid))


def limited(chosen: Chosen, regions: Regions | None) -> Chosen:
    """Limit tiles to those whose centre lies inside regions, and in nothing that is excluded.

    Parameters
    ----------
    chosen : Chosen
    regions : Regions or None
        None limits nothing.

    Returns
    -------
    Chosen

    Raises
    ------
    JobFailed
        If the regions cannot be read, or hold no tile.
    """
    if regions is None:
        return chosen
    drawn = as_regions(regions)
    keep = tiles_inside(drawn, chosen.grid, chosen.keep)
    if not keep.any():
        raise JobFailed(
            "No tile of tissue lies inside the regions: check that they were drawn on this slide, in "
            "its level-0 pixels."
        )
    return replace(chosen, keep=keep, regions=region_words(regions, drawn))
