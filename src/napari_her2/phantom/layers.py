"""Draws the cells of a block into grey layers: nuclei of both sections, cytoplasm, membranes, fat.

A layer is one byte a pixel, anti-aliased, in units of its own (see `Layers`); the dyes and light
are added by `optics.py`. OpenCV fills outlines with 1/16 px precision without holding the
interpreter's lock for long, so blocks are drawn side by side in threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_her2.phantom.cells import (
    Census,
    Points,
    Window,
    expression,
    fat_points,
    lymphocyte_points,
    state,
    stroma_points,
    tumour_points,
)
from napari_her2.phantom.membranes import membrane_pieces
from napari_her2.phantom.shapes import Floats, Mosaic, mosaic, ovals, rounded, walls

if TYPE_CHECKING:
    from napari_her2.phantom.case import Case
    from napari_her2.phantom.layout import Layout

Canvas = NDArray[np.uint8]
_SHIFT = 4
# Byte value of one unit of optical density in the layers of nuclei and membranes.
DENSITY_UNIT = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Raster of a block: its first pixel's corner in µm, its pixel size, its shape."""

    y0_um: float
    x0_um: float
    pixel_um: float
    shape: tuple[int, int]

    def window(self, margin_um: float) -> Window:
        """Window (y0, x0, y1, x1) in µm, widened by a margin."""
        return (
            self.y0_um - margin_um,
            self.x0_um - margin_um,
            self.y0_um + self.shape[0] * self.pixel_um + margin_um,
            self.x0_um + self.shape[1] * self.pixel_um + margin_um,
        )

    def rows_um(self) -> Floats:
        """Centres of the pixel rows in µm."""
        return self.y0_um + np.arange(0.5, self.shape[0], 1.0, dtype=np.float64) * self.pixel_um

    def columns_um(self) -> Floats:
        """Centres of the pixel columns in µm."""
        return self.x0_um + np.arange(0.5, self.shape[1], 1.0, dtype=np.float64) * self.pixel_um

    def fixed(self, outline_um: Floats) -> NDArray[np.int32]:
        """Fixed-point pixel coordinates of (..., 2) points (x, y) in µm."""
        pixels = (outline_um - (self.x0_um, self.y0_um)) / self.pixel_um - 0.5
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Drawn layers of a block, (h, w) uint8 each.

    Attributes
    ----------
    nuclei, nuclei_next : optical density x 100
        Nuclei in the H&E section, and in the section next to it, which goes to IHC.
    cytoplasm : 0 outside of tumour cells, else 128 to 255
        Cover and tint of the cytoplasm.
    membrane : optical density of DAB x 100
    borders : 0 to 255
        Where two tumour cells touch, as seen in H&E.
    vacuole : 0 to 255
        Cover of the fat vacuoles.
    """

    nuclei: Canvas
    nuclei_next: Canvas
    cytoplasm: Canvas
    membrane: Canvas
    borders: Canvas
    vacuole: Canvas


def _fill(canvas: Canvas, outlines: NDArray[np.int32], values: Floats) -> None:
    for outline, value in zip(outlines, np.clip(values, 0, 255).tolist(), strict=True):
        cv2.fillConvexPoly(canvas, outline, value, cv2.LINE_AA, _SHIFT)


def _dots(canvas: Canvas, centres: NDArray[np.int32], radii_px: Floats, values: Floats) -> None:
    radii = np.maximum(np.rint(radii_px * (1 << _SHIFT)), 4).astype(int).tolist()
    for centre, radius, value in zip(centres.tolist(), radii, np.clip(values, 0, 255).tolist(), strict=True):
        cv2.circle(canvas, centre, radius, value, -1, cv2.LINE_AA, _SHIFT)


def _waves(points: Points, seed: int, stream: str, amplitude: float) -> Floats:
    # Three bumps make triangles, which nuclei seldom are: they get less than two.
    share = amplitude * np.array((0.9, 0.9, 0.6, 0.6))
    return share * np.stack([points.normal(seed, f"{stream}-{k}") for k in range(4)], axis=1)


def nucleus_places(case: Case, points: Points) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Centres (y, x) of tumour nuclei in the H&E section, and in the section next to it; µm."""
    seed, wobble = case.seed, 0.09 * case.morphology.spacing_um
    x = points.x_um + wobble * points.normal(seed, "shift-x")
    y = points.y_um + wobble * points.normal(seed, "shift-y")
    return (y, x), (y + 0.9 * points.normal(seed, "next-y"), x + 0.9 * points.normal(seed, "next-x"))


def _draw_tumour_nuclei(layers: Layers, frame: Frame, case: Case, points: Points) -> None:
    seed, shape = case.seed, case.morphology
    radius = shape.radius_um * np.exp(shape.pleomorphism * points.normal(seed, "radius"))
    radius = np.clip(radius, 2.2, 0.52 * shape.spacing_um)
    aspect = 1.12 + 0.13 * np.abs(points.normal(seed, "aspect"))
    angle = np.pi * points.uniform(seed, "angle")
    waves = _waves(points, seed, "bump", shape.irregularity)
    (y, x), following = nucleus_places(case, points)
    dark = 62 * shape.hyperchromasia * np.exp((0.1 + 0.8 * shape.pleomorphism) * points.normal(seed, "dark"))
    dark = np.minimum(dark, 190)
    outline = frame.fixed(ovals(x, y, radius, aspect, angle, waves, 22))
    # The rim is darker than the inside: chromatin gathers at the envelope of a vesicular nucleus.
    _fill(layers.nuclei, outline, dark * 1.12)
    inner = np.maximum(radius - 0.55, 0.7 * radius)
    outline = frame.fixed(ovals(x, y, inner, aspect, angle, waves, 18))
    _fill(layers.nuclei, outline, dark * 0.9)
    _draw_chromatin(layers.nuclei, frame, case, points, x, y, radius, dark)
    there = points.uniform(seed, "next-there") < 0.93
    y, x = following
    radius = radius * np.clip(1 - 0.12 * np.abs(points.normal(seed, "next-radius")), 0.6, 1)
    outline = frame.fixed(ovals(x, y, radius, aspect, angle, waves, 18))
    # Nuclei that the next section only grazes stay as pale shadows.
    _fill(layers.nuclei_next, outline, np.where(there, dark, 0.35 * dark))


def _draw_chromatin(
    canvas: Canvas,
    frame: Frame,
    case: Case,
    points: Points,
    x: Floats,
    y: Floats,
    radius: Floats,
    dark: Floats,
) -> None:
    """Clumps in every nucleus, and a nucleolus in the share of nuclei that has one."""
    seed = case.seed
    for k in range(3):
        turn = 2 * np.pi * points.uniform(seed, f"clump-turn-{k}")
        far = 0.62 * radius * np.sqrt(points.uniform(seed, f"clump-far-{k}"))
        centre = frame.fixed(np.stack((x + far * np.cos(turn), y + far * np.sin(turn)), axis=1))
        size = radius * (0.14 + 0.12 * points.uniform(seed, f"clump-size-{k}")) / frame.pixel_um
        _dots(canvas, centre, size, dark * (0.78 if k == 0 else 1.22))
    has = points.uniform(seed, "nucleolus") < case.morphology.nucleoli
    turn = 2 * np.pi * points.uniform(seed, "nucleolus-turn")
    far = 0.3 * radius * points.uniform(seed, "nucleolus-far")
    centre = frame.fixed(np.stack((x + far * np.cos(turn), y + far * np.sin(turn)), axis=1))
    size = np.clip(0.24 * radius, 0.7, 1.6)
    _dots(canvas, centre[has], size[has] * 1.5 / frame.pixel_um, 0.72 * dark[has])
    _dots(canvas, centre[has], size[has] / frame.pixel_um, 1.7 * dark[has] + 15)


def _draw_membranes(
    layers: Layers, frame: Frame, case: Case, points: Points, kind: NDArray[np.int64], cells: Mosaic
) -> None:
    pieces = membrane_pieces(case, points, kind, cells)
    segments = pieces.ends.reshape(-1, 2, 2)
    values, halves = pieces.density.reshape(-1), pieces.half_um.reshape(-1)
    order = np.argsort(values, kind="stable")
    order = order[values[order] > 0]
    if order.size:
        _fill(layers.membrane, frame.fixed(walls(segments[order], halves[order])), values[order])


def drawn_window(frame: Frame, case: Case) -> Window:
    """Window around a block in which cells may reach into it, or are neighbours of one that does."""
    return frame.window(3.2 * case.morphology.spacing_um)


def _draw_tumour(layers: Layers, frame: Frame, case: Case, layout: Layout, census: Census) -> None:
    points, taken = tumour_points(case, layout, drawn_window(frame, case))
    if not taken.any():
        return
    cells = mosaic(points.y_um, points.x_um)
    tint = 150 + 100 * points.uniform(case.seed, "tint")
    shown = [k for k in np.flatnonzero(taken).tolist() if len(cells.polygons[k])]
    outlines = [frame.fixed(cells.polygons[k]) for k in shown]
    for outline, value in zip(outlines, tint[shown].tolist(), strict=True):
        cv2.fillConvexPoly(layers.cytoplasm, outline, value, cv2.LINE_AA, _SHIFT)
    thickness = max(1, round(0.6 / frame.pixel_um))
    cv2.polylines(layers.borders, outlines, True, 255, thickness, cv2.LINE_AA, _SHIFT)
    kind = np.where(taken, state(census, expression(case, points)), 0)
    _draw_membranes(layers, frame, case, points, kind, cells)
    _draw_tumour_nuclei(layers, frame, case, points.pick(taken))


def _draw_small_cells(layers: Layers, frame: Frame, case: Case, layout: Layout, slant: float) -> None:
    seed = case.seed
    spindle = stroma_points(seed, layout, frame.window(14.0))
    step = 6.0
    gy = layout.at(layout.tumour, spindle.y_um + step, spindle.x_um)
    gy = gy - layout.at(layout.tumour, spindle.y_um - step, spindle.x_um)
    gx = layout.at(layout.tumour, spindle.y_um, spindle.x_um + step)
    gx = gx - layout.at(layout.tumour, spindle.y_um, spindle.x_um - step)
    angle = np.arctan2(gy + 6 * np.cos(slant), gx + 6 * np.sin(slant)) + np.pi / 2
    angle = angle + 0.25 * spindle.normal(seed, "spindle-turn")
    lymph = lymphocyte_points(seed, layout, frame.window(8.0))
    thin = 3.6 + 1.6 * spindle.uniform(seed, "spindle-a")
    round_ = 1.05 + 0.2 * lymph.uniform(seed, "lymph-a")
    turned = np.pi * lymph.uniform(seed, "lymph-t")
    groups = (
        (spindle, 2.4 + 0.3 * spindle.normal(seed, "spindle-r"), thin, angle, 55.0),
        (lymph, 3.1 + 0.25 * lymph.normal(seed, "lymph-r"), round_, turned, 100.0),
    )
    for points, radius, aspect, turn, pale in groups:
        dark = pale + 32 * points.uniform(seed, "small-dark")
        waves = _waves(points, seed, "small-bump", 0.03)
        outline = ovals(points.x_um, points.y_um, radius, aspect, turn, waves, 14)
        fixed = frame.fixed(outline)
        _fill(layers.nuclei, fixed, dark)
        there = points.uniform(seed, "small-next") < 0.85
        _fill(layers.nuclei_next, fixed[there], 0.85 * dark[there])


def _draw_fat(layers: Layers, frame: Frame, case: Case, layout: Layout) -> None:
    points, there = fat_points(case.seed, layout, frame.window(230.0))
    if not there.any():
        return
    cells = mosaic(points.y_um, points.x_um)
    for k in np.flatnonzero(there).tolist():
        if len(cells.polygons[k]) > 2:
            outline = frame.fixed(rounded(cells.polygons[k], 1.6))
            cv2.fillConvexPoly(layers.vacuole, outline, 255, cv2.LINE_AA, _SHIFT)


def draw_layers(frame: Frame, case: Case, layout: Layout, census: Census, slant: float) -> Layers:
    """Draw all cells of a block.

    Parameters
    ----------
    frame : Frame
        The block's raster, with its halo.
    slant : float
        Main direction of the collagen in radians; spindle cells lie along it.
    """
    layers = Layers(*(np.zeros(frame.shape, dtype=np.uint8) for _ in range(6)))
    _draw_fat(layers, frame, case, layout)
    _draw_small_cells(layers, frame, case, layout, slant)
    _draw_tumour(layers, frame, case, layout, census)
    return layers
