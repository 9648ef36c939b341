"""Pictures of a report: the slide small, what lies over it, and tiles that decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.errors import SlideError
from napari_her2.explain.colours import colour_table, coloured
from napari_her2.explain.maps import limits_of
from napari_her2.inference.region_kinds import KINDS
from napari_her2.reports.page import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.slide.reader import Slide

LONGEST_PX = 520
OPACITY = 0.6
"""Of maps over the slide, as in the viewer."""
_OVERVIEW_PX = 2048
_MARGIN = 0.03
_TISSUE_RGB = (110, 110, 110)
_BAR_PX = (8, 160)
_NICE_MM = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The part of a slide that the pictures show, small.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
        The tissue; white where the file of the slide is not at hand.
    origin_px0, pixel_px0 : tuple of float
        (y, x) corner, and size of a pixel, level-0 pixels.
    """

    rgb: NDArray[np.uint8]
    origin_px0: tuple[float, float]
    pixel_px0: tuple[float, float]

    def places(self, points_px0: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, 2) points (y, x) of the slide, on the picture."""
        return np.asarray((points_px0 - np.asarray(self.origin_px0)) / self.pixel_px0)


def view_of(scored: ScoredSlide, slide: Slide | None) -> View:
    """Show the tissue of a slide small.

    Parameters
    ----------
    scored : ScoredSlide
    slide : Slide or None
        None where its file is not at hand.
    """
    shape = np.asarray(scored.grid.slide_shape_px0, np.float64)
    box = None if scored.tissue is None else scored.tissue.box_px0()
    low, high = (np.zeros(2), shape) if box is None else (np.array(box[:2]), np.array(box[2:]))
    margin = _MARGIN * float((high - low).max())
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, shape)
    pixel = float((high - low).max()) / LONGEST_PX
    height, width = (max(1, round(float(side) / pixel)) for side in high - low)
    pixel_px0 = tuple(float(side) for side in (high - low) / (height, width))
    rgb = np.full((height, width, 3), 255, np.uint8)
    if slide is not None:
        small = slide.thumbnail(_OVERVIEW_PX)
        # From the whole slide small to the box of the tissue, averaged over areas.
        scale = np.asarray(small.shape[:2]) / shape
        y0, x0 = (int(place) for place in np.floor(low * scale))
        y1, x1 = (int(place) for place in np.ceil(high * scale))
        part = np.ascontiguousarray(small[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
        rgb = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    origin = (float(low[0]), float(low[1]))
    return View(rgb, origin, (pixel_px0[0], pixel_px0[1]))


def slide_picture(scored: ScoredSlide, view: View, regions: Sequence[Region], title: str) -> Picture:
    """Show the slide with the outlines of tissue and of drawn regions, and a scale bar."""
    rgb = view.rgb.copy()
    _draw_tissue(rgb, scored, view)
    for region in regions:
        for ring in _rings(region):
            points = view.places(ring)
            _draw_ring(rgb, points, KINDS[region.kind].colour, 2)
    kinds = dict.fromkeys(region.kind for region in regions)
    legend = tuple((_hex(KINDS[kind].colour), KINDS[kind].title) for kind in kinds)
    mm = _scale_bar(rgb, view.pixel_px0[1] * scored.grid.slide_mpp[1])
    caption = f"Scale bar {mm:g} mm; grey outline: what was taken for tissue."
    return Picture(title, png_of(rgb), rgb.shape[:2], caption, legend=legend)


def map_picture(
    scored: ScoredSlide, view: View, tile_map: TileMap, title: str, named: Callable[[str], str]
) -> Picture:
    """Show a map over the slide, in its own colours, with what they mean.

    Parameters
    ----------
    scored : ScoredSlide
    view : View
    tile_map : TileMap
    title : str
    named : callable
        How a category is called.
    """
    rgba = _laid(tile_map, view)
    alpha = OPACITY * rgba[..., 3:].astype(np.float32) / 255
    rgb = np.rint((1 - alpha) * view.rgb + alpha * rgba[..., :3]).astype(np.uint8)
    _draw_tissue(rgb, scored, view)
    info = tile_map.info
    table = colour_table(info)
    if info.categories:
        legend = tuple(
            (_hex(np.rint(255 * colour[:3])), named(name))
            for colour, name in zip(table, info.categories, strict=False)
        )
        return Picture(title, png_of(rgb), rgb.shape[:2], legend=legend)
    low, high = limits_of(tile_map.values, info.limits)
    unit = "" if info.unit == title else info.unit
    return Picture(
        title, png_of(rgb), rgb.shape[:2], "", _colour_bar(table), f"{low:.3g}", f"{high:.3g} {unit}".strip()
    )


def place_picture(
    slide: Slide,
    place_px0: tuple[float, float],
    side_px0: tuple[float, float],
    caption: str,
    size_px: int = 128,
) -> Picture | None:
    """Show a square of the slide around a place; None where the file is damaged there.

    Parameters
    ----------
    slide : Slide
    place_px0 : tuple of float
        (y, x) of its middle, level-0 pixels.
    side_px0 : tuple of float
        (y, x) of the square, level-0 pixels.
    caption : str
    size_px : int
        Of the picture at most.
    """
    side = np.asarray(side_px0)
    wanted = max(float(side.min()) / size_px, 1.0)
    downs = [float(max(down)) for down in slide.level_downsamples]
    level = max((at for at, down in enumerate(downs) if down <= wanted), default=0)
    down = np.asarray(slide.level_downsamples[level])
    y, x = (round(float(corner)) for corner in (np.asarray(place_px0) - side / 2) / down)
    height, width = (max(1, round(float(length))) for length in side / down)
    try:
        pixels = slide.read(level, y, x, height, width)
    except SlideError:
        return None
    size = (size_px, max(1, round(size_px * height / width)))
    shrink = cv2.INTER_AREA if width >= size_px else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(pixels, size, interpolation=shrink), np.uint8)
    return Picture("", png_of(pixels), pixels.shape[:2], caption)


def png_of(rgb: NDArray[np.uint8]) -> bytes:
    """Return an image (h, w, 3) or (h, w, 4) as PNG."""
    order = [2, 1, 0, 3][: rgb.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(rgb[..., order]))[1].tobytes()


def _laid(tile_map: TileMap, view: View) -> NDArray[np.uint8]:
    """Colours of the tile that each pixel of the picture lies in; clear outside of the grid."""
    grid, rgba = tile_map.grid, coloured(tile_map)
    index = []
    for axis in (0, 1):
        middle = (np.arange(view.rgb.shape[axis]) + 0.5) * view.pixel_px0[axis] + view.origin_px0[axis]
        index.append(np.floor(middle / grid.tile_px0[axis]).astype(np.int64))
    rows, cols = index
    out = np.zeros((*view.rgb.shape[:2], 4), np.uint8)
    inside_y, inside_x = (
        (of >= 0) & (of < size) for of, size in zip((rows, cols), rgba.shape[:2], strict=True)
    )
    out[np.ix_(inside_y, inside_x)] = rgba[np.ix_(rows[inside_y], cols[inside_x])]
    return out


def _draw_tissue(rgb: NDArray[np.uint8], scored: ScoredSlide, view: View) -> None:
    if scored.tissue is None:
        return
    mask = scored.tissue.mask.astype(np.uint8)
    for ring in cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]:
        points = (ring[:, 0, ::-1] + 0.5) * np.asarray(scored.tissue.downsample)
        _draw_ring(rgb, view.places(points), _TISSUE_RGB, 1)


def _draw_ring(
    rgb: NDArray[np.uint8], points: NDArray[np.float64], colour: Sequence[int], thickness: int
) -> None:
    ring = np.rint(points[:, ::-1]).astype(np.int32)
    cv2.polylines(rgb, [ring], isClosed=True, color=tuple(colour), thickness=thickness, lineType=cv2.LINE_AA)


def _rings(region: Region) -> list[NDArray[np.float64]]:
    """Outlines and holes, (N, 2) each, (y, x) in level-0 pixels."""
    area = region.area
    parts = [part for part in getattr(area, "geoms", [area]) if not part.is_empty]
    lines = [line for part in parts for line in (part.exterior, *part.interiors)]
    return [np.asarray(line.coords, np.float64)[:, 1::-1] for line in lines]


def _scale_bar(rgb: NDArray[np.uint8], pixel_um: float) -> float:
    """Draw a bar of a round length in the lower left corner; return how many mm it is."""
    quarter_mm = rgb.shape[1] / 4 * pixel_um / 1000
    mm = max((nice for nice in _NICE_MM if nice <= quarter_mm), default=_NICE_MM[0])
    length, bottom = round(1000 * mm / pixel_um), rgb.shape[0] - 8
    cv2.rectangle(rgb, (7, bottom - 5), (9 + length, bottom + 1), (255, 255, 255), cv2.FILLED)
    cv2.rectangle(rgb, (8, bottom - 4), (8 + length, bottom), (0, 0, 0), cv2.FILLED)
    return mm


def _colour_bar(table: NDArray[np.float32]) -> bytes:
    """Colours from low to high over white, as they lie over glass."""
    at = np.linspace(0, 1, _BAR_PX[1])
    places = np.linspace(0, 1, len(table))
    rgba = np.stack([np.interp(at, places, table[:, part]) for part in range(4)], axis=-1)
    rgb = rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:])
    row = np.rint(255 * rgb).astype(np.uint8)
    return png_of(np.broadcast_to(row, (_BAR_PX[0], *row.shape)))


def _hex(rgb: Sequence[int] | NDArray[np.floating]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in rgb)
