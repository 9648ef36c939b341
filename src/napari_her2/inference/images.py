"""Images of all the tissue of a slide, and whether they resemble what a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed, SlideError
from napari_her2.inference.fit import refuse_or_warn, refuse_unstained, slide_stain
from napari_her2.inference.image_fit import LEAST_MM2, damage_words, refuse_enlarged, scale_words
from napari_her2.inference.regions import as_regions, inside_mask, region_words
from napari_her2.slide.thumbnail import LEAST_TISSUE, thumbnail_steps
from napari_her2.slide.tissue import TissueMask
from napari_her2.steps import Progress, passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.inference.job import ScoringJob
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.thumbnail import Thumbnail


@dataclass(frozen=True, slots=True)
class ImageKind:
    """How a model wants the images of a slide.

    Parameters
    ----------
    size_px : int
        Side of an image.
    mode : {"fit", "fixed"}
        As of `napari_her2.slide.thumbnail`.
    whiten : bool
        Whether what is no tissue is white.
    tile_px : int
        Pixels of an image that share a value in the maps of the model.
    """

    size_px: int
    mode: str
    whiten: bool
    tile_px: int

    @property
    def any_scale(self) -> bool:
        """Whether all the tissue of a slide fits into one image: its µm/px is then that of the slide."""
        return self.mode == "fit"


@dataclass(frozen=True, slots=True, eq=False)
class ChosenTissue:
    """The tissue to show.

    Parameters
    ----------
    tissue : TissueMask
        Of the regions alone, where there are any.
    area : TissueMask or None
        All that lies inside the regions, tissue or not; None for the whole slide.
    looks_like : str
        The stain that its colours show: "H&E", "IHC" or "unknown".
    regions : str or None
        What the scoring is limited to, in words.
    warnings : tuple of str
    """

    tissue: TissueMask
    area: TissueMask | None
    looks_like: str
    regions: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SlideImages:
    """What the model is shown, and where its maps are laid.

    Parameters
    ----------
    tissue : TissueMask
    tissue_mm2 : float
    thumbnails : tuple of Thumbnail
    grid : TileGrid
        Of the maps.
    index : (N, 2) int64
        (row, column) of the tiles with tissue.
    corrupt : (K, 2) int64
        (row, column) of the tiles of which a part could not be read.
    warnings : tuple of str
    """

    tissue: TissueMask
    tissue_mm2: float
    thumbnails: tuple[Thumbnail, ...]
    grid: TileGrid
    index: NDArray[np.int64]
    corrupt: NDArray[np.int64]
    warnings: tuple[str, ...]


def choose_tissue(job: ScoringJob, kind: ImageKind) -> ChosenTissue:
    """Find the tissue to show, on a slide that the model was made for.

    Parameters
    ----------
    job : ScoringJob
    kind : ImageKind

    Returns
    -------
    ChosenTissue

    Raises
    ------
    SlideError, ModelError, JobFailed
        If there is no tissue, the model was not made for the slide, or the regions hold no tissue.
    """
    slide, card, regions, options = job.slide, job.card, job.regions, job.options
    fits = partial(refuse_or_warn, slide, card, wanted=card.stain, any_scale=kind.any_scale)
    slide.tile_grid(kind.tile_px, card.mpp)  # refuses a slide without µm/px, in words
    fits(card.stain, override=options.override_fit)
    tissue = slide.tissue(options.preset)
    light = refuse_unstained(slide, tissue, options.preset, override=options.override_fit)
    if not tissue.mask.any():
        raise SlideError(
            f"No tissue was found on {slide.name}: look at the slide, or try another tissue preset."
        )
    seen = slide_stain(slide, tissue, options.preset)
    # What the user says of the stain goes before what the colours seem to say, but the result tells of it.
    override = options.override_fit or options.stain == card.stain
    warnings = light + fits(seen, override=override)
    if regions is None:
        return ChosenTissue(tissue, None, seen, None, warnings)
    drawn = as_regions(regions)
    inside = inside_mask(drawn, tissue.mask.shape, tissue.downsample)
    unreadable = None if tissue.unreadable is None else tissue.unreadable & inside
    within = TissueMask(tissue.mask & inside, tissue.downsample, unreadable)
    if not within.mask.any():
        raise JobFailed(
            "No tissue lies inside the regions: check that they were drawn on this slide, in its level-0 "
            "pixels."
        )
    area = TissueMask(inside, tissue.downsample)
    return ChosenTissue(within, area, seen, region_words(regions, drawn), warnings)


def read_images(
    job: ScoringJob, kind: ImageKind, chosen: ChosenTissue
) -> Generator[Progress, None, SlideImages]:
    """Read the images, and judge whether they show what the model was trained on.

    Parameters
    ----------
    job : ScoringJob
    kind : ImageKind
    chosen : ChosenTissue

    Yields
    ------
    Progress

    Returns
    -------
    SlideImages

    Raises
    ------
    SlideError, ModelMisfit
        If much of the tissue is damaged, or has fewer pixels than an image.
    """
    slide, card, options = job.slide, job.card, job.options
    tissue = chosen.tissue
    steps = thumbnail_steps(
        slide, tissue, size_px=kind.size_px, mode=kind.mode, mpp=card.mpp, whiten=kind.whiten
    )
    thumbnails = yield from passed_on(steps, _progress)
    if chosen.area is not None:
        thumbnails = tuple(_limited(thumbnail, chosen.area) for thumbnail in thumbnails)
    tissue_mm2 = tissue.area_mm2(slide.mpp or (1.0, 1.0))
    warnings = chosen.warnings + damage_words(slide, tissue, thumbnails)
    if kind.any_scale:
        # Of a tiny fragment nothing is answered: to refuse it would only hide why.
        override = options.override_fit or tissue_mm2 < LEAST_MM2
        warnings += refuse_enlarged(slide, card, thumbnails[0], override=override)
        warnings += scale_words(slide, card, thumbnails[0].mpp)
    elif len(thumbnails) > 1:
        warnings += (
            f"The tissue of {slide.name} does not fit into one image of {kind.size_px} px at {card.mpp:g} "
            f"µm/px: it was scored in {len(thumbnails)} images, their mean weighted by their tissue.",
        )
    grid, keep = _grid(slide, tissue, thumbnails[0].mpp, kind.tile_px)
    corrupt = _damaged_tiles(grid, thumbnails)
    keep[corrupt[:, 0], corrupt[:, 1]] = False
    index = np.argwhere(keep).astype(np.int64)
    return SlideImages(tissue, tissue_mm2, thumbnails, grid, index, corrupt, warnings)


def _progress(blocks: tuple[int, int]) -> Progress:
    return Progress("Reading the slide", *blocks, "blocks")


def _limited(thumbnail: Thumbnail, area: TissueMask) -> Thumbnail:
    """Make white what lies outside the regions."""
    square = (thumbnail.size_px, thumbnail.size_px)
    outside = area.shares(thumbnail.origin_px0, thumbnail.pixel_px0, square) < LEAST_TISSUE
    rgb = thumbnail.rgb.copy()
    rgb[outside] = 255
    return replace(thumbnail, rgb=rgb)


def _grid(slide: Slide, tissue: TissueMask, mpp: float, tile_px: int) -> tuple[TileGrid, NDArray[np.bool_]]:
    """Grid of one tile a value of the maps; finer where that leaves no whole tile of tissue."""
    while True:
        grid = slide.tile_grid(tile_px, mpp)
        keep = tissue.keep(grid, 0.0)
        if keep.any() or tile_px == 1:
            return grid, keep
        tile_px //= 2


def _damaged_tiles(grid: TileGrid, thumbnails: tuple[Thumbnail, ...]) -> NDArray[np.int64]:
    """(K, 2) tiles that hold a pixel which could not be read."""
    found = [
        grid.index_of_px0(thumbnail.to_px0(np.argwhere(thumbnail.damaged) + 0.5))
        for thumbnail in thumbnails
        if thumbnail.damaged is not None
    ]
    tiles = np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)
    return tiles[grid.contains(tiles)]
