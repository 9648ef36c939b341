"""The tissue of a whole slide as one small image, or a few: what a low-resolution model looks at.

Crop to the box of the tissue with a margin, average over areas to the size wanted from the pyramid level that
is just finer than needed, and set the crop in the middle of a white square. Two modes:

- "fit": the longer side of the crop fills the square, so the µm/px is that of each slide.
- "fixed": the µm/px is the same for all slides; tissue larger than a square takes several, side by side.

Where each pixel lies on the slide travels with the image, so that a map over it can be laid back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide.area import area_steps
from napari_her2.slide.resample import choose_level
from napari_her2.steps import finished

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide

Mode = Literal["fit", "fixed"]
MODES: tuple[Mode, ...] = ("fit", "fixed")
MARGIN = 0.02
"""Share of the longer side of the tissue's box that is added on each side of it."""
MOST_SQUARES = 256
"""More images of a slide than this are no low resolution any more."""
LEAST_TISSUE = 0.5
"""Share of a pixel from which it counts as tissue."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A square image of tissue, and where it lies on the slide.

    Parameters
    ----------
    rgb : (S, S, 3) uint8
        White outside the crop, outside the slide and where the file is damaged.
    origin_px0 : tuple of float
        (y, x) of the upper left corner, level-0 pixels; outside the slide where white was added.
    pixel_px0 : tuple of float
        (y, x) level-0 pixels per pixel.
    mpp : float
        µm per pixel, as it came out.
    tissue : (S, S) bool
    box_px0 : tuple of float
        (y0, x0, y1, x1) of the crop, level-0 pixels; what lies outside is white.
    level : int
        Of the file, that was read.
    damaged : (S, S) bool or None
        Pixels that could not be read; None where there are none.
    """

    rgb: NDArray[np.uint8]
    origin_px0: tuple[float, float]
    pixel_px0: tuple[float, float]
    mpp: float
    tissue: NDArray[np.bool_]
    box_px0: tuple[float, float, float, float]
    level: int = 0
    damaged: NDArray[np.bool_] | None = None

    @property
    def size_px(self) -> int:
        """Side of the image."""
        return int(self.rgb.shape[0])

    def to_px0(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, 2) points (y, x) of the image, its corner being (0, 0), as level-0 pixels."""
        return np.asarray(points, np.float64) * self.pixel_px0 + self.origin_px0

    def from_px0(self, points_px0: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, 2) points (y, x) of the slide, level-0 pixels, on the image; its corner is (0, 0)."""
        return (np.asarray(points_px0, np.float64) - self.origin_px0) / self.pixel_px0


def read_thumbnails(
    slide: Slide,
    tissue: TissueMask,
    *,
    size_px: int,
    mode: str = "fit",
    mpp: float | None = None,
    whiten: bool = False,
    threads: int | None = None,
) -> tuple[Thumbnail, ...]:
    """Read the tissue of a slide as small square images.

    Parameters
    ----------
    slide : Slide
    tissue : TissueMask
        What is looked at.
    size_px : int
        Side of the images.
    mode : {"fit", "fixed"}, default "fit"
    mpp : float, optional
        µm per pixel of "fixed"; "fit" has its own.
    whiten : bool, default False
        Whether what is no tissue becomes white.
    threads : int, optional
        That decode; by default the cores that may be used.

    Returns
    -------
    tuple of Thumbnail
        One of "fit"; of "fixed" one, or those squares of a lattice that hold tissue, in raster order.

    Raises
    ------
    SlideError
        There is no tissue, the slide states no µm/px, or the size and the mode make no sense.
    """
    return finished(
        thumbnail_steps(slide, tissue, size_px=size_px, mode=mode, mpp=mpp, whiten=whiten, threads=threads)
    )


def count_thumbnails(
    slide: Slide, tissue: TissueMask, *, size_px: int, mode: str = "fit", mpp: float | None = None
) -> int:
    """Return how many images `read_thumbnails` gives, without reading them; parameters are the same."""
    plan = _plan(slide, tissue, size_px, mode, mpp)
    if len(plan.origins_px0) == 1:
        return 1
    square = (size_px, size_px)
    held = [tissue.shares(origin, plan.pixel_px0, square) >= LEAST_TISSUE for origin in plan.origins_px0]
    count = sum(bool(part.any()) for part in held)
    if not count:
        raise _no_tissue(slide)
    return count


def thumbnail_mpp(
    slide: Slide, tissue: TissueMask, *, size_px: int, mode: str = "fit", mpp: float | None = None
) -> float:
    """Return the µm/px of the images that `read_thumbnails` gives, without reading them."""
    return _plan(slide, tissue, size_px, mode, mpp).mpp


def thumbnail_steps(
    slide: Slide,
    tissue: TissueMask,
    *,
    size_px: int,
    mode: str = "fit",
    mpp: float | None = None,
    whiten: bool = False,
    threads: int | None = None,
) -> Generator[tuple[int, int], None, tuple[Thumbnail, ...]]:
    """`read_thumbnails` block by block, for slides whose only level is large.

    Yields
    ------
    tuple of int
        Blocks read of the image in work, and their number. Closing the generator cancels.

    Returns
    -------
    tuple of Thumbnail
    """
    plan = _plan(slide, tissue, size_px, mode, mpp)
    thumbnails = []
    for origin_px0 in plan.origins_px0:
        held = tissue.shares(origin_px0, plan.pixel_px0, (size_px, size_px)) >= LEAST_TISSUE
        if held.any() or len(plan.origins_px0) == 1:
            thumbnails.append((yield from _read(slide, tissue, plan, origin_px0, whiten, threads)))
    if not thumbnails:  # tissue so thin that no pixel is half of it
        raise _no_tissue(slide)
    return tuple(thumbnails)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which squares are read: all of one size and µm/px, cropped to one box."""

    size_px: int
    mpp: float
    pixel_px0: tuple[float, float]
    box_px0: tuple[float, float, float, float]
    origins_px0: tuple[tuple[float, float], ...]


def _plan(slide: Slide, tissue: TissueMask, size_px: int, mode: str, mpp: float | None) -> _Plan:
    own_mpp = slide.known_mpp
    if size_px < 1 or mode not in MODES or (mode == "fixed" and (mpp is None or not 0 < mpp < math.inf)):
        raise SlideError(
            f"A small image of a slide has a side of at least one pixel, the mode {' or '.join(MODES)}, and "
            f"of the second a µm/px above 0; not {size_px} px, {mode!r:.40} and {mpp} µm/px."
        )
    found = tissue.box_px0()
    if found is None:
        raise _no_tissue(slide)
    box = _with_margin(found, slide.shape, own_mpp)
    fits = mpp is None or mode == "fit"
    # The margin belongs into the one image of "fit", but is not worth more images of "fixed".
    laid = box if fits else found
    sides_um = [(laid[axis + 2] - laid[axis]) * own_mpp[axis] for axis in (0, 1)]
    pixel_um = max(sides_um) / size_px if mpp is None or fits else mpp
    square_um = size_px * pixel_um
    counts = (1, 1) if fits else tuple(max(1, math.ceil(side / square_um - 1e-9)) for side in sides_um)
    if counts[0] * counts[1] > MOST_SQUARES:
        raise SlideError(
            f"The tissue of {slide.name} takes {counts[0] * counts[1]:,} images of {size_px} px at "
            f"{pixel_um:g} µm/px, at most {MOST_SQUARES} are read: use a model of coarser µm/px, or draw "
            f"regions around the tissue to be scored."
        )
    pixel_px0 = pixel_um / own_mpp[0], pixel_um / own_mpp[1]
    corner = [
        (laid[axis] + laid[axis + 2]) / 2 - counts[axis] * size_px * pixel_px0[axis] / 2 for axis in (0, 1)
    ]
    origins = tuple(
        (corner[0] + row * size_px * pixel_px0[0], corner[1] + col * size_px * pixel_px0[1])
        for row in range(counts[0])
        for col in range(counts[1])
    )
    return _Plan(size_px, pixel_um, pixel_px0, box, origins)


def _with_margin(
    box: tuple[float, float, float, float], shape: tuple[int, int], mpp: tuple[float, float]
) -> tuple[float, float, float, float]:
    margin_um = MARGIN * max((box[2] - box[0]) * mpp[0], (box[3] - box[1]) * mpp[1])
    return (
        max(0.0, box[0] - margin_um / mpp[0]),
        max(0.0, box[1] - margin_um / mpp[1]),
        min(float(shape[0]), box[2] + margin_um / mpp[0]),
        min(float(shape[1]), box[3] + margin_um / mpp[1]),
    )


def _no_tissue(slide: Slide) -> SlideError:
    return SlideError(
        f"No tissue was found on {slide.name}: look at the slide, or try another tissue preset."
    )


def _read(
    slide: Slide,
    tissue: TissueMask,
    plan: _Plan,
    origin_px0: tuple[float, float],
    whiten: bool,
    threads: int | None,
) -> Generator[tuple[int, int], None, Thumbnail]:
    level, scale = choose_level(slide.known_mpp, slide.level_downsamples, plan.mpp)
    down = slide.level_downsamples[level]
    # The part of the square that the box reaches, in pixels of the image.
    start, stop = [], []
    for axis in (0, 1):
        low = (plan.box_px0[axis] - origin_px0[axis]) / plan.pixel_px0[axis]
        high = (plan.box_px0[axis + 2] - origin_px0[axis]) / plan.pixel_px0[axis]
        start.append(min(max(0, math.floor(low + 1e-6)), plan.size_px - 1))
        stop.append(max(min(plan.size_px, math.ceil(high - 1e-6)), start[axis] + 1))
    corner = [round((origin_px0[axis] + start[axis] * plan.pixel_px0[axis]) / down[axis]) for axis in (0, 1)]
    shape = stop[0] - start[0], stop[1] - start[1]
    area = yield from area_steps(slide, level, (corner[0], corner[1]), shape, scale, threads=threads)
    # Reading begins at a whole pixel of the level: the image lies where that one is, and says so.
    pixel_px0 = scale[0] * down[0], scale[1] * down[1]
    origin = (
        corner[0] * down[0] - start[0] * pixel_px0[0],
        corner[1] * down[1] - start[1] * pixel_px0[1],
    )
    part = slice(start[0], stop[0]), slice(start[1], stop[1])
    square = (plan.size_px, plan.size_px)
    rgb = np.full((*square, 3), 255, np.uint8)
    rgb[part] = area.rgb
    held = tissue.shares(origin, pixel_px0, square) >= LEAST_TISSUE
    if whiten:
        rgb[~held] = 255
    damaged = None
    if area.damaged is not None:
        damaged = np.zeros(square, np.bool_)
        damaged[part] = area.damaged
    first = (origin[0] + start[0] * pixel_px0[0], origin[1] + start[1] * pixel_px0[1])
    box = (*first, first[0] + shape[0] * pixel_px0[0], first[1] + shape[1] * pixel_px0[1])
    return Thumbnail(rgb, origin, pixel_px0, plan.mpp, held, box, level, damaged)
