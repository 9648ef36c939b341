"""What is true about single cells of a phantom IHC slide: where each is, and the stain along its outline.

Everything is a function of the seed and the place in the lattice, so the cells of any window are computed
again when they are asked for, and no file has to hold them. Neighbours share their walls: what counts for a
cell is the stain that lies on its outline, whoever of the two it belongs to, because no reader of the slide
can tell. So a cell without staining of its own has a partly stained outline beside a stained one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.phantom.case import Case, draw_case
from napari_her2.phantom.cells import (
    Census,
    Points,
    count_windows,
    expression,
    lymphocyte_points,
    state,
    stroma_points,
    take_census,
    tumour_points,
)
from napari_her2.phantom.layers import DENSITY_UNIT, drawn_window, nucleus_places
from napari_her2.phantom.layout import Layout, make_layout
from napari_her2.phantom.membranes import PIECES, MembranePieces, membrane_pieces
from napari_her2.phantom.pair import checked_levels, checked_shape
from napari_her2.phantom.render import BLOCK_PX, bent, block_frame
from napari_her2.phantom.shapes import mosaic
from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.phantom.case import Score
    from napari_her2.phantom.cells import Window
    from napari_her2.phantom.shapes import Floats, Ints

STATES = ("none", "faint incomplete", "weak to moderate complete", "intense complete")
"""Membrane staining of a cell's own, by number: what the percentages of a case are of."""
_PARTS = 4
# An outline is filled with smooth edges, which makes a wall so many px wider than its corners are apart.
_EDGE_PX = 1.4


@dataclass(frozen=True, slots=True, eq=False)
class PhantomTissue:
    """What the cells of a case are computed from; height and width of the slide in px."""

    case: Case
    layout: Layout
    census: Census
    shape: tuple[int, int]
    mpp: float


@dataclass(frozen=True, eq=False)
class TrueCells:
    """Tumour cells of a window, and the other cells in it; all positions (y, x) on the slide, µm, as drawn.

    Parameters
    ----------
    state : (N,) int64
        Staining of the cell's own membrane, a place in `STATES`.
    centre_um : (N, 2) float64
        Centre of the cell.
    nucleus_um : (N, 2) float64
        Centre of its nucleus in the IHC section.
    starts : (N + 1,) int64
        Outline k is `corners_um[starts[k] : starts[k + 1]]`.
    corners_um : (P, 2) float64
        Corners of all outlines.
    od : (P,) float64
        Optical density (base 10) of DAB on the stretch of membrane from each corner to the next, before
        the blur of the optics; 0 where it is not stained.
    width_um : (P,) float64
        Its width, µm.
    lymphocytes_um, stroma_um : (M, 2) float64
        Centres of the other cells.
    """

    state: Ints
    centre_um: Floats
    nucleus_um: Floats
    starts: Ints
    corners_um: Floats
    od: Floats
    width_um: Floats
    lymphocytes_um: Floats
    stroma_um: Floats

    def __len__(self) -> int:
        return len(self.state)

    def outline_um(self, number: int) -> Floats:
        """Outline of one cell, (K, 2) float64, (y, x) on the slide, µm."""
        return self.corners_um[self.starts[number] : self.starts[number + 1]]

    @cached_property
    def length_um(self) -> Floats:
        """Length of the stretch of outline from each corner to the next, (P,), µm."""
        following = np.arange(1, len(self.corners_um) + 1)
        following[self.starts[1:] - 1] = self.starts[:-1]
        return np.asarray(np.linalg.norm(self.corners_um[following] - self.corners_um, axis=1))

    def _share(self, of_stretches: Floats) -> Floats:
        if not len(self):
            return np.zeros(0)
        whole = np.add.reduceat(self.length_um, self.starts[:-1])
        return np.asarray(np.add.reduceat(self.length_um * of_stretches, self.starts[:-1]) / whole)

    def completeness(self, least_od: float = 0.0) -> Floats:
        """Share of each outline that is stained more densely than `least_od`, (N,)."""
        return self._share((self.od > least_od).astype(float))

    def mass(self) -> Floats:
        """DAB across the membrane, mean over the whole outline of each cell, (N,), OD·µm."""
        return self._share(self.od * self.width_um)

    def density(self) -> Floats:
        """Optical density of DAB, mean over the stained part of each outline, (N,); 0 without any."""
        stained = self.completeness()
        return np.where(stained > 0, self._share(self.od) / np.maximum(stained, 1e-12), 0.0)


def tissue_of(
    seed: int, score: Score, size_px: int | tuple[int, int], mpp: float, membranes: str = "plain"
) -> PhantomTissue:
    """Compute the tissue of a case, as `make_pair` does for the same arguments, without drawing it."""
    shape = checked_shape(size_px, mpp, score)
    size_um = shape[0] * mpp, shape[1] * mpp
    case, layout = draw_case(seed, score, checked_levels(membranes)), make_layout(seed, size_um)
    return PhantomTissue(case, layout, take_census(case, layout, size_um), shape, mpp)


def tissue_of_truth(truth_json: Path) -> PhantomTissue:
    """Compute the tissue of a case that was written, from its file of truth.

    Raises
    ------
    JobFailed
        When the file is not the truth of a phantom.
    """
    try:
        truth = json.loads(truth_json.read_text(encoding="utf-8"))
        height, width = truth["size_px"]
        shape, levels = (int(height), int(width)), str(truth.get("membranes", "plain"))
        return tissue_of(int(truth["seed"]), truth["score"], shape, float(truth["mpp"]), levels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobFailed(f"{truth_json.name} is not the truth of a phantom; make the case again.") from error


def cells_of(tissue: PhantomTissue, window_um: Window | None = None) -> TrueCells:
    """Compute the cells whose place lies in a window.

    Parameters
    ----------
    window_um : (y0, x0, y1, x1)
        Half-open, µm; the whole slide where it is None. Windows that tile the slide hold every cell once.
    """
    size_um = tissue.shape[0] * tissue.mpp, tissue.shape[1] * tissue.mpp
    y0, x0, y1, x1 = window_um or (0.0, 0.0, *size_um)
    asked = max(y0, 0.0), max(x0, 0.0), min(y1, size_um[0]), min(x1, size_um[1])
    parts = [_cells_of_block(tissue, *block) for block in _blocks(tissue, asked)]
    lymphocytes = _others(tissue, lymphocyte_points(tissue.case.seed, tissue.layout, asked), asked)
    stroma = _others(tissue, stroma_points(tissue.case.seed, tissue.layout, asked), asked)
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.starts) for part in parts)])
    return TrueCells(
        state=np.concatenate([np.zeros(0, np.int64), *(part.state for part in parts)]),
        centre_um=np.concatenate([np.zeros((0, 2)), *(part.centre_um for part in parts)]),
        nucleus_um=np.concatenate([np.zeros((0, 2)), *(part.nucleus_um for part in parts)]),
        starts=np.cumsum(counts),
        corners_um=np.concatenate([np.zeros((0, 2)), *(part.corners_um for part in parts)]),
        od=np.concatenate([np.zeros(0), *(part.od for part in parts)]),
        width_um=np.concatenate([np.zeros(0), *(part.width_um for part in parts)]),
        lymphocytes_um=lymphocytes,
        stroma_um=stroma,
    )


def write_cells(path: Path, tissue: PhantomTissue) -> None:
    """Write the cells of a slide as NPZ, all places (y, x) in µm.

    Of each cell `state`, `centre_um`, `nucleus_um`, `completeness`, `mass` (OD·µm), `density` (OD); outline k
    is `corners_um[starts[k] : starts[k + 1]]`; `lymphocytes_um` and `stroma_um` are centres.
    """
    size_um = tissue.shape[0] * tissue.mpp, tissue.shape[1] * tissue.mpp
    parts: dict[str, list[NDArray[Any]]] = {}
    for window in count_windows(size_um):
        cells = cells_of(tissue, window)
        places = {
            "centre_um": cells.centre_um,
            "nucleus_um": cells.nucleus_um,
            "completeness": cells.completeness(),
            "mass": cells.mass(),
            "density": cells.density(),
            # A corner a piece: the bend is too wide to be missed between them.
            "corners_um": cells.corners_um[::_PARTS],
            "lymphocytes_um": cells.lymphocytes_um,
            "stroma_um": cells.stroma_um,
        }
        for name, array in places.items():
            parts.setdefault(name, []).append(array.astype(np.float32))
        parts.setdefault("state", []).append(cells.state.astype(np.uint8))
        parts.setdefault("corners", []).append(np.diff(cells.starts) // _PARTS)
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(whole.pop("corners"))))
    with replaced_file(path) as new, new.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, starts=starts, **whole)


def _within(points: Points, window: Window) -> NDArray[np.bool_]:
    y0, x0, y1, x1 = window
    return np.asarray((points.y_um >= y0) & (points.y_um < y1) & (points.x_um >= x0) & (points.x_um < x1))


def _others(tissue: PhantomTissue, points: Points, window: Window) -> Floats:
    points = points.pick(_within(points, window))
    return bent(tissue.case.seed, np.stack((points.y_um, points.x_um), axis=1))


def _blocks(tissue: PhantomTissue, window: Window) -> Iterator[tuple[tuple[int, int], Window]]:
    """Blocks of the slide as they are rendered, each with the part of the window that lies in it."""
    side = BLOCK_PX * tissue.mpp
    y0, x0, y1, x1 = window
    rows = range(int(y0 // side), int(np.ceil(y1 / side)))
    columns = range(int(x0 // side), int(np.ceil(x1 / side)))
    for row, column in product(rows, columns):
        top, left = row * side, column * side
        core = max(top, y0), max(left, x0), min(top + side, y1), min(left + side, x1)
        if core[0] < core[2] and core[1] < core[3]:
            yield (row, column), core


def _cells_of_block(tissue: PhantomTissue, block: tuple[int, int], core: Window) -> TrueCells:
    """Cells of a block, from the same points as are drawn: they decide which end of a wall is the first."""
    case = tissue.case
    row, column = block
    shape = tissue.shape[0] - row * BLOCK_PX, tissue.shape[1] - column * BLOCK_PX
    frame, _, _ = block_frame(tissue.mpp, row, column, (min(shape[0], BLOCK_PX), min(shape[1], BLOCK_PX)))
    points, taken = tumour_points(case, tissue.layout, drawn_window(frame, case))
    chosen = taken & _within(points, core)
    if not chosen.any():
        return _no_cells()
    kind = np.where(taken, state(tissue.census, expression(case, points)), 0)
    pieces = membrane_pieces(case, points, kind, mosaic(points.y_um, points.x_um), stained_only=False)
    starts, corners, density, half_um = _outlines(points, chosen, pieces)
    corners = bent(case.seed, corners)
    nucleus = np.stack(nucleus_places(case, points.pick(chosen))[1], axis=1)
    stained = density > 0
    return TrueCells(
        state=kind[chosen],
        centre_um=_middle(corners, starts),
        nucleus_um=bent(case.seed, nucleus),
        starts=starts,
        corners_um=corners,
        od=density / DENSITY_UNIT * case.ihc.strength[1] / np.log(10),
        width_um=np.where(stained, 2 * half_um + _EDGE_PX * frame.pixel_um, 0.0),
        lymphocytes_um=np.zeros((0, 2)),
        stroma_um=np.zeros((0, 2)),
    )


def _outlines(
    points: Points, chosen: NDArray[np.bool_], pieces: MembranePieces
) -> tuple[Ints, Floats, Floats, Floats]:
    """Walls joined to outlines: starts, corners (P, 2) as (y, x), and density and half width from each on."""
    owner = np.concatenate((pieces.pairs[:, 0], pieces.pairs[:, 1]))
    wall = np.tile(np.arange(len(pieces.pairs)), 2)
    owner, wall = owner[chosen[owner]], wall[chosen[owner]]
    ends = pieces.ends[wall]
    away = ends - np.stack((points.x_um, points.y_um), axis=1)[owner][:, None, None]
    middle = away.mean(axis=(1, 2))
    first, last = away[:, 0, 0], away[:, -1, 1]
    backwards = first[:, 0] * last[:, 1] < first[:, 1] * last[:, 0]
    density, half = pieces.density[wall], pieces.half_um[wall]
    ends[backwards] = ends[backwards][:, ::-1, ::-1]
    density[backwards], half[backwards] = density[backwards][:, ::-1], half[backwards][:, ::-1]
    order = np.lexsort((np.arctan2(middle[:, 1], middle[:, 0]), owner))
    t = np.arange(_PARTS) / _PARTS
    start, stop = ends[order, :, 0], ends[order, :, 1]
    corners = start[:, :, None] + t[:, None] * (stop - start)[:, :, None]
    counts = np.unique(owner, return_counts=True)[1] * PIECES
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    density, half = _spilled(density[order].ravel(), half[order].ravel(), starts)
    return starts * _PARTS, corners.reshape(-1, 2)[:, ::-1], density, half


def _spilled(density: Floats, half_um: Floats, starts: Ints) -> tuple[Floats, Floats]:
    """Parts of pieces, (P * 4,) each: the ends of a stained piece are drawn one part further."""
    following = np.arange(1, len(density) + 1)
    following[starts[1:] - 1] = starts[:-1]
    before = np.empty_like(following)
    before[following] = np.arange(len(density))
    parts = [np.repeat(values[:, None], _PARTS, axis=1) for values in (density, half_um)]
    for part, beside in ((0, before), (-1, following)):
        spills = (density == 0) & (density[beside] > 0)
        parts[0][spills, part] = density[beside][spills]
        parts[1][spills, part] = half_um[beside][spills]
    return parts[0].ravel(), parts[1].ravel()


def _middle(corners: Floats, starts: Ints) -> Floats:
    """Centroids of polygons, (N, 2)."""
    following = np.arange(1, len(corners) + 1)
    following[starts[1:] - 1] = starts[:-1]
    # Relative to a corner of the polygon: products of places on a large slide would lose digits.
    origin = np.repeat(corners[starts[:-1]], np.diff(starts), axis=0)
    here, there = corners - origin, corners[following] - origin
    cross = here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0]
    area = np.add.reduceat(cross, starts[:-1])
    moment = np.add.reduceat(cross[:, None] * (here + there), starts[:-1])
    return np.asarray(corners[starts[:-1]] + moment / (3 * area[:, None]))


def _no_cells() -> TrueCells:
    none, places, whole = np.zeros(0), np.zeros((0, 2)), np.zeros(0, np.int64)
    return TrueCells(whole, places, places, np.zeros(1, np.int64), places, none, none, places, places)
