"""Where the cells of a slide are read, on a slide that shows membranes at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_her2.cells.areas import DrawnArea, TissueArea
from napari_her2.cells.quality import COARSEST_MPP
from napari_her2.errors import ModelMisfit, SlideError
from napari_her2.explain.cells import cell_grid
from napari_her2.inference.fit import check_grid, refuse_or_warn, refuse_unstained, slide_stain
from napari_her2.inference.regions import as_regions, inside_mask, region_names, region_words
from napari_her2.inference.slide_record import SlideRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.areas import Area
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.regions import Region, Regions
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.stain import Stain
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True, eq=False)
class CellScope:
    """Where cells are read, and what speaks against it.

    Parameters
    ----------
    area : Area
    drawn : tuple of Region
        Empty where nothing was drawn.
    names : tuple of str
        Of the tumour regions among them.
    grid : TileGrid
        Of the maps.
    tissue : TissueMask
    tissue_mm2 : float
        That lies in the area.
    off_tissue : bool
        Whether tumour was drawn where there is no tissue at all.
    looks_like : Stain
        The stain that the colours of the slide show: "H&E", "IHC" or "unknown".
    dark : bool
        Whether it looks like fluorescence, or has no colour.
    words : str or None
        What the reading is limited to.
    warnings : tuple of str
    quality : Quality or None
        What is wrong with which tiles of the grid, where cells in poor tiles do not count.
    """

    area: Area
    drawn: tuple[Region, ...]
    names: tuple[str, ...]
    grid: TileGrid
    tissue: TissueMask
    tissue_mm2: float
    off_tissue: bool
    looks_like: Stain
    dark: bool
    words: str | None
    warnings: tuple[str, ...]
    quality: Quality | None = None


@dataclass(frozen=True, eq=False)
class CellGround:
    """A slide on which cells can be read, whatever is drawn on it.

    Parameters
    ----------
    slide : SlideRecord
    mpp : tuple of float
        (y, x) µm per level-0 pixel.
    grid, tissue, looks_like, dark, warnings
        As of `CellScope`.
    """

    slide: SlideRecord
    mpp: tuple[float, float]
    grid: TileGrid
    tissue: TissueMask
    looks_like: Stain
    dark: bool
    warnings: tuple[str, ...]

    @cached_property
    def share(self) -> NDArray[np.float32]:
        """Share of each tile of the maps that is tissue, (rows, columns)."""
        return self.tissue.fraction(self.grid)


def cell_ground(job: ScoringJob) -> CellGround:
    """Check that the cells of a slide can be read.

    Parameters
    ----------
    job : ScoringJob

    Returns
    -------
    CellGround

    Raises
    ------
    ModelMisfit
        If no membrane can be seen on the slide, or it is no IHC, and the user does not want the reading all
        the same; there is no score then either.
    SlideError
        If its µm/px is not known.
    """
    slide, options = job.slide, job.options
    mpp = slide.known_mpp
    coarse = _too_coarse(slide.name, mpp)
    if coarse and not options.override_fit:
        raise ModelMisfit(coarse)
    grid = cell_grid(slide.shape, mpp)
    check_grid(grid, slide)
    tissue = slide.tissue(options.preset)
    light = refuse_unstained(slide, tissue, options.preset, override=options.override_fit)
    seen = slide_stain(slide, tissue, options.preset)
    override = options.override_fit or options.stain == "IHC"
    stain = refuse_or_warn(slide, job.card, seen, wanted="IHC", override=override, any_scale=True)
    return CellGround(
        slide=SlideRecord.of(slide),
        mpp=mpp,
        grid=grid,
        tissue=tissue,
        looks_like=seen,
        dark=bool(light),
        warnings=(*slide.warnings, *((coarse,) if coarse else ()), *light, *stain),
    )


def cell_scope(ground: CellGround, regions: Regions | None) -> CellScope:
    """Say where the cells of a slide are read.

    Parameters
    ----------
    ground : CellGround
    regions : Regions or None
        What was drawn on it.

    Returns
    -------
    CellScope

    Raises
    ------
    SlideError, JobFailed
        If there is no tissue, or the regions cannot be read.
    """
    slide, mpp, tissue = ground.slide, ground.mpp, ground.tissue
    drawn = () if regions is None else as_regions(regions)
    names = region_names(drawn)
    if not names and not tissue.mask.any():
        raise SlideError(
            f"No tissue was found on {slide.name}: look at the slide, try the tissue preset for biopsies, or "
            f"draw the tumour."
        )
    scored = tissue.mask & inside_mask(drawn, tissue.mask.shape, tissue.downsample) if drawn else tissue.mask
    tumour = [region.area for region in drawn if region.included]
    return CellScope(
        area=DrawnArea(shapely.union_all(tumour)) if tumour else TissueArea(tissue),
        drawn=drawn,
        names=names,
        grid=ground.grid,
        tissue=tissue,
        tissue_mm2=float(scored.sum()) * float(np.prod(tissue.downsample)) * mpp[0] * mpp[1] / 1e6,
        off_tissue=bool(tumour) and not scored.any() and not _on_tissue(tumour, tissue),
        looks_like=ground.looks_like,
        dark=ground.dark,
        words=region_words(regions, drawn),
        warnings=ground.warnings,
    )


def _too_coarse(name: str, mpp: tuple[float, float]) -> str:
    if max(mpp) <= COARSEST_MPP:
        return ""
    return (
        f"Membranes cannot be seen on {name}, which has {max(mpp):.3g} µm/px: choose a scan of "
        f"{COARSEST_MPP:g} µm/px or finer (a 20x or 40x objective)."
    )


def _on_tissue(areas: list[shapely.Geometry], tissue: TissueMask) -> bool:
    """Whether regions too small for a pixel of the mask lie on tissue."""
    points = [shapely.point_on_surface(area) for area in areas if not area.is_empty]
    places = np.array([(point.y, point.x) for point in points], np.float64).reshape(-1, 2)
    return bool(TissueArea(tissue).holds(places).any())
