"""Where the tissue is: a mask on a thumbnail, and the share of each tile that lies on it.

The recipe is the explicit HSV one of Lu et al. (2021, https://doi.org/10.1038/s41551-020-00682-w):
saturation, median blur of 7 pixels, a fixed threshold of 8, closing, then contours and holes by area. Three
things differ, each because the fixed threshold fails without it. The picture is first divided by
the colour of the glass, since tinted glass alone exceeds the threshold. Faint tissue (an IHC slide
that is nearly all pale haematoxylin) is found by its texture, since its saturation equals that of the glass.
Ink is left out (`napari_her2.slide.ink`).

Windows of some pixels find whatever touches them, so they widen tissue by half their size: 10 µm on a small
slide seen closely, and 60 µm on a large one seen from afar, where it closed every gap of a loose tissue.
Beyond what they widen at a downsample of 4 it is given back, so that the share of tissue hardly depends on
the downsample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import shapely
from shapely.geometry import Polygon

from napari_her2.slide.ink import FLAT_SD, brightest, local_sd, pen_marks, white_point
from napari_her2.slide.overview import read_overview
from napari_her2.slide.tile_shares import cell_means, tile_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.overview import OverviewSource

Preset = Literal["auto", "resection", "biopsy"]

LEAST_ROUGH = 1.8
"""Grey-level standard deviation in 7 x 7 pixels above which it may be tissue, on the quietest glass."""
SHADE, HUE = 0.025, 0.016
"""Smooth tissue takes at least so much of the light of the glass, and so much more of one channel."""
TEXTURE_PX, SHADE_PX = 7, 9
"""Sides of the windows in which roughness and shade are measured, pixels of the thumbnail."""
RIM_DOWNSAMPLE = 4.0
"""Windows widen tissue by half of themselves, but by no more level-0 pixels than at this downsample."""
BLACK = 20
"""Below this in every channel nothing was scanned: readers and scanners also fill with black."""
LARGEST_LIMIT = 0.005
"""No part above this share of the picture is dropped for its size, and no hole above it is filled."""
BIOPSY_BELOW_PX0 = 10 * 100 * 512**2
"""Slides of fewer level-0 pixels than ten times the resection preset's smallest part count as biopsies."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    saturation: int
    blur: int
    closing: int
    smallest_part: float
    """In units of 512 x 512 level-0 pixels, as the recipe gives it."""
    smallest_hole: float
    holes: int


_RECIPES = {
    "resection": _Recipe(saturation=8, blur=7, closing=4, smallest_part=100, smallest_hole=16, holes=8),
    "biopsy": _Recipe(saturation=15, blur=11, closing=2, smallest_part=1, smallest_hole=1, holes=2),
}


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Tissue on a coarse grid of pixels over the slide.

    Parameters
    ----------
    mask : (h, w) bool
    downsample : tuple of float
        (y, x) level-0 pixels per mask pixel.
    unreadable : (h, w) bool or None
        Where no level of the file could be read. It counts as tissue in `keep` alone, so that the tile
        stream meets these tiles and reports them, instead of their vanishing without a word.
    """

    mask: NDArray[np.bool_]
    downsample: tuple[float, float]
    unreadable: NDArray[np.bool_] | None = None

    def fraction(self, grid: TileGrid) -> NDArray[np.float32]:
        """Share of each tile's area that is tissue, exact for tile edges inside mask pixels.

        Parameters
        ----------
        grid : TileGrid

        Returns
        -------
        (rows, columns) float32
            0 to 1.
        """
        return tile_means(self.mask, self.downsample, grid)

    def keep(self, grid: TileGrid, min_fraction: float = 0.5) -> NDArray[np.bool_]:
        """Tiles with at least a share of tissue.

        Parameters
        ----------
        grid : TileGrid
        min_fraction : float
            0 keeps tiles that merely touch tissue.

        Returns
        -------
        (rows, columns) bool
        """
        mask = self.mask if self.unreadable is None else self.mask | self.unreadable
        share = tile_means(mask, self.downsample, grid)
        # The slack keeps a tile that is half tissue from being lost to float rounding.
        return (share > 0) & (share >= min_fraction - 1e-6)

    def shares(
        self, origin_px0: tuple[float, float], pixel_px0: tuple[float, float], shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Share of tissue in each pixel of an image that lies on the slide.

        Parameters
        ----------
        origin_px0 : tuple of float
            (y, x) of its upper left corner, level-0 pixels; may lie outside the slide.
        pixel_px0 : tuple of float
            (y, x) level-0 pixels per pixel.
        shape : tuple of int
            (height, width).

        Returns
        -------
        (height, width) float32
            0 to 1.
        """
        edges_y, edges_x = (
            (origin_px0[axis] + np.arange(shape[axis] + 1) * pixel_px0[axis]) / self.downsample[axis]
            for axis in (0, 1)
        )
        return cell_means(self.mask, edges_y, edges_x)

    def box_px0(self) -> tuple[float, float, float, float] | None:
        """(y0, x0, y1, x1) around the tissue, level-0 pixels; None where there is none."""
        rows, cols = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not len(rows):
            return None
        down_y, down_x = self.downsample
        return (
            float(rows[0] * down_y),
            float(cols[0] * down_x),
            float((rows[-1] + 1) * down_y),
            float((cols[-1] + 1) * down_x),
        )

    def area_mm2(self, slide_mpp: tuple[float, float]) -> float:
        """Area of the tissue, mm².

        Parameters
        ----------
        slide_mpp : tuple of float
            (y, x) µm per level-0 pixel.
        """
        pixel_um2 = self.downsample[0] * slide_mpp[0] * self.downsample[1] * slide_mpp[1]
        return float(self.mask.sum()) * pixel_um2 / 1e6

    def polygons(self) -> list[Polygon]:
        """Outlines of the tissue with their holes, (x, y) in level-0 pixels as GeoJSON wants."""
        # Runs of tissue along each row, merged: exact to the edges of the mask's pixels.
        padded = np.pad(self.mask, ((0, 0), (1, 1))).astype(np.int8)
        steps = np.diff(padded, axis=1)
        rows, starts = np.nonzero(steps == 1)
        ends = np.nonzero(steps == -1)[1]
        down_y, down_x = self.downsample
        runs = shapely.box(starts * down_x, rows * down_y, ends * down_x, (rows + 1) * down_y)
        merged = shapely.simplify(shapely.union_all(runs), 0)
        return [part for part in shapely.get_parts(merged).tolist() if isinstance(part, Polygon)]


def find_tissue(slide: OverviewSource, preset: Preset = "auto") -> TissueMask:
    """Tissue of a slide, from its level nearest to 64 times less.

    Parameters
    ----------
    slide : Slide
    preset : str
        See `tissue_mask`.

    Returns
    -------
    TissueMask
    """
    view = read_overview(slide)
    return TissueMask(tissue_mask(view.rgb, view.downsample, preset), view.downsample, view.unreadable)


def tissue_mask(
    rgb: NDArray[np.uint8],
    downsample: float | tuple[float, float],
    preset: Preset = "auto",
) -> NDArray[np.bool_]:
    """Tissue on a thumbnail: H&E, IHC and faint tissue, without ink and bare glass.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    downsample : float or tuple of float
        Level-0 pixels per thumbnail pixel, (y, x) where they differ.
    preset : str
        "resection" drops parts below 100 x 512 x 512 level-0 pixels and fills holes below 16 x;
        "biopsy" drops and fills below 1 x; "auto" takes "biopsy" on slides of less than ten times the first.
        On small pictures both limits are lowered to at most half a per cent of the picture.

    Returns
    -------
    (h, w) bool
    """
    down_y, down_x = (downsample, downsample) if isinstance(downsample, int | float) else downsample
    pixel_px0 = down_y * down_x
    if preset == "auto":
        preset = "biopsy" if rgb.shape[0] * rgb.shape[1] * pixel_px0 < BIOPSY_BELOW_PX0 else "resection"
    recipe = _RECIPES[preset]
    rough = local_sd(rgb)
    white = white_point(rgb, rough)
    scale = float(np.sqrt(pixel_px0))
    pen = pen_marks(rgb, white, scale)
    found = _coloured(rgb, white, recipe) | _textured(rgb, white, rough, scale)
    found = _with_shaded(rgb, white, pen, found, scale)
    found &= ~pen & (brightest(rgb) >= BLACK)
    kernel = np.ones((recipe.closing, recipe.closing), np.uint8)
    closed = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    reference = min(512**2 / pixel_px0, LARGEST_LIMIT * closed.size / recipe.smallest_part)
    parts = _parts_by_area(closed, recipe, reference)
    return parts & ~pen


def _coloured(rgb: NDArray[np.uint8], white: NDArray[np.float32], recipe: _Recipe) -> NDArray[np.bool_]:
    corrected = cv2.LUT(rgb, _white_table(white))
    saturation = np.ascontiguousarray(cv2.cvtColor(corrected, cv2.COLOR_RGB2HSV)[..., 1])
    return _median_above(saturation, _odd_at_most(recipe.blur, min(rgb.shape[:2])), recipe.saturation)


def _median_above(values: NDArray[np.uint8], size: int, limit: int) -> NDArray[np.bool_]:
    """Whether the median of a window is above a limit: more than half of its pixels are.

    The same as of OpenCV's median, pixel by pixel, in a fraction of its time.
    """
    above = (values > limit).astype(np.uint8)
    count = cv2.boxFilter(above, cv2.CV_16U, (size, size), normalize=False, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(count > size * size // 2)


def _white_table(white: NDArray[np.float32]) -> NDArray[np.uint8]:
    scaled = np.arange(256, dtype=np.float32)[:, None] * (255.0 / white)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).reshape(1, 256, 3)


def _rim(window_px: int, downsample: float) -> int:
    """By how many pixels a window may widen what it finds."""
    half = window_px // 2
    return min(half, round(half * RIM_DOWNSAMPLE / downsample))


def _square(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _textured(
    rgb: NDArray[np.uint8], white: NDArray[np.float32], rough: NDArray[np.float32], downsample: float
) -> NDArray[np.bool_]:
    """Pixels rougher than this slide's glass and, in their neighbourhood, no brighter than it."""
    grey = cv2.blur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (TEXTURE_PX, TEXTURE_PX)).astype(np.float32)
    level = float(white @ np.array([0.299, 0.587, 0.114], np.float32))
    glass = (np.abs(grey - level) < 2.5) & (rough < FLAT_SD)
    noise = float(np.median(rough[glass])) if glass.mean() > 0.001 else 0.9
    textured = (rough > max(LEAST_ROUGH, 2.8 * noise)) & (grey < level - 1)
    # Specks and scratches are thin; the window has already widened them by three pixels on each side.
    opened = cv2.morphologyEx(textured.astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    surplus = TEXTURE_PX // 2 - _rim(TEXTURE_PX, downsample)
    return np.asarray(cv2.erode(opened, _square(surplus)) if surplus else opened, np.bool_)


def _with_shaded(
    rgb: NDArray[np.uint8],
    white: NDArray[np.float32],
    pen: NDArray[np.bool_],
    found: NDArray[np.bool_],
    downsample: float,
) -> NDArray[np.bool_]:
    """Tissue found already, and smooth pale tissue.

    Strong tissue shades its surroundings as far as the window reaches. Beyond the rim that is allowed it is
    left out of the mean, which further away changes nothing.
    """
    rim = _rim(SHADE_PX, downsample)
    if rim == SHADE_PX // 2:
        return found | _shaded(rgb, white, pen)
    pale = found | _shaded(rgb, white, pen | found)
    if rim == 0:
        return pale
    near = np.asarray(cv2.dilate(found.astype(np.uint8), _square(rim)), np.bool_)
    return pale | (near & _shaded(rgb, white, pen))


def _shaded(
    rgb: NDArray[np.uint8], white: NDArray[np.float32], left_out: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Pixels that are, over 9 pixels, where noise is gone, darker than the glass and of another hue.

    Uneven illumination darkens glass too, but all its channels alike.
    """
    rest = rgb.copy()
    rest[left_out] = white.astype(np.uint8)
    # One table of 256 values a channel, plane by plane: the same values, in a fraction of the time.
    shares = np.arange(256, dtype=np.float32)[:, None] / white
    mean = cv2.split(cv2.blur(rest, (SHADE_PX, SHADE_PX)))
    red, green, blue = (np.take(shares[:, channel], mean[channel]) for channel in range(3))
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    return np.asarray((low < 1 - SHADE) & (high - low > HUE))


def _odd_at_most(size: int, limit: int) -> int:
    return max(1, min(size, limit if limit % 2 else limit - 1))


def _parts_by_area(mask: NDArray[np.uint8], recipe: _Recipe, reference: float) -> NDArray[np.bool_]:
    """Keep parts above the recipe's area; fill holes below its area and beyond its number."""
    found, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    out = np.zeros(mask.shape, np.uint8)
    for outer in (i for i in range(len(found)) if tree[0][i][3] < 0):
        holes: list[tuple[float, int]] = []
        hole = tree[0][outer][2]
        while hole >= 0:
            holes.append((cv2.contourArea(found[hole]), hole))
            hole = tree[0][hole][0]
        area = cv2.contourArea(found[outer]) - sum(size for size, _ in holes)
        if area <= recipe.smallest_part * reference:
            continue
        cv2.drawContours(out, found, outer, 1, thickness=cv2.FILLED)
        for size, index in sorted(holes, reverse=True)[: recipe.holes]:
            if size > recipe.smallest_hole * reference:
                cv2.drawContours(out, found, index, 0, thickness=cv2.FILLED)
                # The outline of a hole runs on tissue pixels: give them back.
                cv2.drawContours(out, found, index, 1, thickness=1)
    return out.astype(bool)
