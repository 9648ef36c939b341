"""What is fitted once for a slide before its cells are measured: light, stains, and how much DAB there is."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_her2.cells.measuring import MPP
from napari_her2.cells.quality import brown_of
from napari_her2.cells.stains import Stains, fit_stains

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from numpy.typing import NDArray

    from napari_her2.cells.areas import Area
    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide

SAMPLE_PX = 256
MOST_SAMPLES, MOST_AT_EDGE = 64, 16
"""Squares of tissue, and squares at its edge, which show the light of the glass."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideFit:
    """Light and stains of a slide, and what its samples show of them.

    Parameters
    ----------
    stains : Stains
    brown, clipped : float
        From `napari_her2.cells.quality.brown_of`.
    """

    stains: Stains
    brown: float
    clipped: float

    def values(self) -> dict[str, Any]:
        """Return it for JSON; `from_values` gives the same fit."""
        stains = self.stains
        vectors = {name: getattr(stains, name).tolist() for name in ("white", "haematoxylin", "dab")}
        return {**vectors, "nucleus_h": stains.nucleus_h, "brown": self.brown, "clipped": self.clipped}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> SlideFit:
        """Read what `values` gave; KeyError, TypeError or ValueError where it is something else."""
        white, haematoxylin, dab = (
            np.array(values[name], np.float64).reshape(3) for name in ("white", "haematoxylin", "dab")
        )
        stains = Stains(white, haematoxylin, dab, float(values["nucleus_h"]))
        return cls(stains, float(values["brown"]), float(values["clipped"]))


def fit_slide(slide: Slide, tissue: TissueMask, area: Area) -> SlideFit:
    """Fit light and stains to squares of tissue all over a slide, so that they are the same for any region.

    Parameters
    ----------
    slide : Slide
    tissue : TissueMask
    area : Area
        Where the squares lie on a slide without tissue.

    Returns
    -------
    SlideFit

    Raises
    ------
    JobFailed
        If there is neither tissue nor anything in the area.
    """
    places = _places(slide, tissue, area)
    squares = slide.squares(places, tile_px=SAMPLE_PX, mpp=MPP, batch_size=8)
    with closing(cast("Generator[RegionBatch]", squares)) as batches:
        samples = [image for batch in batches for image in batch.images]
    stains = fit_stains(samples)
    return SlideFit(stains, *brown_of(samples, stains))


def _places(slide: Slide, tissue: TissueMask, area: Area) -> NDArray[np.int64]:
    """(N, 2) rows and columns of the squares, in raster order."""
    grid = slide.tile_grid(SAMPLE_PX, MPP)
    share = tissue.fraction(grid).copy()
    # What a square holds beyond the slide is white, and whiter than the light of the slide.
    whole = [int(side // pitch) for side, pitch in zip(slide.shape, grid.tile_px0, strict=True)]
    if all(whole):
        share[whole[0] :] = share[:, whole[1] :] = 0
    inner, edge = np.argwhere(share >= 0.5), np.argwhere((share > 0) & (share < 0.5))
    if not len(inner) and not len(edge):
        rows, cols = (max(1, side) for side in grid.shape)
        every = np.argwhere(np.ones((rows, cols), np.bool_))
        corner = every * np.array(grid.tile_px0)
        inner = every[area.meets(np.concatenate([corner, corner + np.array(grid.tile_px0)], axis=1))]
    chosen = np.concatenate([_spread(inner, MOST_SAMPLES), _spread(edge, MOST_AT_EDGE)])
    return np.asarray(chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))], np.int64)


def _spread(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many of the places, evenly over all."""
    return places[np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).astype(np.intp))]
