"""What is known of drawn IHC: rings of known membranes, and phantom cases with the truth of every cell.

Used by `ihc_rules.py`, which prints it. Nothing here looks at how cells are found or measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.spatial import cKDTree
from shapely import contains_xy, union_all
from shapely.geometry import shape

from ihc_baselines import dab_area, ring_dab
from napari_her2 import open_slide, score_slide
from napari_her2.cells.calibration import gain_from
from napari_her2.cells.measuring import HALO_UM, MPP, measured
from napari_her2.cells.rules import CLASSES, Rules, classes, completeness, membrane_mass
from napari_her2.cells.stains import DAB, HAEMATOXYLIN, fit_stains
from napari_her2.phantom import cells_of, make_pair, tissue_of_truth
from napari_her2.phantom.case import draw_membranes
from napari_her2.phantom.pair import pair_paths
from napari_her2.slide.area import read_area

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.stains import Stains
    from napari_her2.cells.table import Cells
    from napari_her2.inference.result import SlideResult
    from napari_her2.phantom import PhantomPair, TrueCells

WINDOW_UM = 512.0
RING_RADIUS_UM = 6.5
NUCLEUS_UM = 3.2
_FINE_UM = 0.1
CONTROL_SEEDS = range(1000, 2000)
CONTROL_INTENSE = 0.85


def read_whole(rgb: NDArray[np.uint8], stains: Stains) -> Cells:
    """Measure an image at 0.5 µm/px, window by window."""
    pad = int(np.ceil(HALO_UM / MPP / 2)) * 2
    framed = cv2.copyMakeBorder(rgb, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    step, parts = int(WINDOW_UM / MPP), []
    for top in range(0, rgb.shape[0], step):
        for left in range(0, rgb.shape[1], step):
            window = framed[top : top + step + 2 * pad, left : left + step + 2 * pad]
            core = np.array((top, left, min(top + step, rgb.shape[0]), min(left + step, rgb.shape[1]))) * MPP
            origin = ((top - pad) * MPP, (left - pad) * MPP)
            parts.append(measured(window, stains, origin, tuple(core.tolist()), MPP))
    return type(parts[0]).joined(parts)


@dataclass(frozen=True, slots=True)
class Rings:
    """What was measured of rings: known and measured values of each, (N,)."""

    share: NDArray[np.float64]
    mass: NDArray[np.float64]
    measured_share: NDArray[np.float64]
    measured_mass: NDArray[np.float64]


def read_rings(share: float, od: float, width_um: float, side: int = 9) -> Rings:
    """Draw single cells as rings on glass and measure them: an arc of DAB around a blue nucleus."""
    random = np.random.default_rng(round(1000 * (share + 7 * od + 31 * width_um)))
    centres = _places(random, side, 28.0)
    h, dab = (np.zeros((round((side + 1) * 28.0 / _FINE_UM),) * 2, np.float32) for _ in range(2))
    for centre in centres:
        place, radius, angle = _around(centre)
        angle = np.mod(angle - random.uniform(0, 2 * np.pi), 2 * np.pi)
        ring = (np.abs(radius - RING_RADIUS_UM) <= width_um / 2) & (angle < 2 * np.pi * share)
        dab[place] += np.where(ring, od, 0)
        h[place] += np.where(radius < NUCLEUS_UM, 0.45, 0)
    cells = _photographed(h, dab, random)
    distance, which = cKDTree(cells.centre_um).query(centres)
    which = which[distance < 4]
    known = np.full(len(which), share)
    complete, mass = completeness(cells, Rules())[which], membrane_mass(cells)[which]
    return Rings(known, known * od * width_um, complete.astype(float), mass.astype(float))


def stained_cytoplasm(od: float, *, single: bool, side: int = 9) -> float:
    """Share of cells without a membrane whose cytoplasm is brown that come out above 0, per cent.

    Parameters
    ----------
    od : float
        Of DAB in the cytoplasm.
    single : bool
        Whether cells lie one by one on glass, so that the cytoplasm has an edge; in a sheet it has none.
    """
    random = np.random.default_rng(round(1000 * od) + single)
    pitch = 28.0 if single else 13.0
    centres = _places(random, side, pitch)
    h, dab = (np.zeros((round((side + 1) * pitch / _FINE_UM),) * 2, np.float32) for _ in range(2))
    if not single:
        dab += od
    for centre in centres:
        place, radius, _ = _around(centre)
        nucleus = radius < NUCLEUS_UM
        h[place] += np.where(nucleus, 0.45, 0)
        if single:
            dab[place] += np.where((radius < RING_RADIUS_UM) & ~nucleus, od, 0)
        else:
            dab[place][nucleus] = 0
    cells = _photographed(h, dab, random)
    distance, which = cKDTree(cells.centre_um).query(centres[_inner(side)])
    cells = cells.pick(which[distance < 4])
    rules = Rules()
    return float(100 * np.mean(classes(completeness(cells, rules), membrane_mass(cells), rules) > 0))


def _places(random: np.random.Generator, side: int, pitch_um: float) -> NDArray[np.float64]:
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    return (grid + 1) * pitch_um + random.uniform(-1, 1, grid.shape)


def _inner(side: int) -> NDArray[np.bool_]:
    """Cells that have neighbours all around."""
    row, column = np.divmod(np.arange(side * side), side)
    return np.asarray((row > 0) & (row < side - 1) & (column > 0) & (column < side - 1))


def _around(
    centre: NDArray[np.float64],
) -> tuple[tuple[slice, slice], NDArray[np.float64], NDArray[np.float64]]:
    """Pixels within 12 µm of a centre, with their distance (µm) and angle from it."""
    half = round(12 / _FINE_UM)
    low = [max(round(float(at) / _FINE_UM) - half, 0) for at in centre]
    y, x = ((np.arange(at, at + 2 * half) + 0.5) * _FINE_UM for at in low)
    dy, dx = y[:, None] - centre[0], x[None] - centre[1]
    place = (slice(low[0], low[0] + 2 * half), slice(low[1], low[1] + 2 * half))
    return place, np.hypot(dy, dx), np.arctan2(dy, dx)


def _photographed(h: NDArray[np.float32], dab: NDArray[np.float32], random: np.random.Generator) -> Cells:
    """Cells of drawn dyes, through optics of 0.35 µm, pixels of 0.5 µm and a sensor."""
    blurred = [cv2.GaussianBlur(plane, (0, 0), 0.35 / _FINE_UM) for plane in (h, dab)]
    density = (blurred[0][..., None] * HAEMATOXYLIN + blurred[1][..., None] * DAB).astype(np.float32)
    size = round(len(h) * _FINE_UM / MPP)
    light = cv2.resize(245 * np.power(10, -density), (size, size), interpolation=cv2.INTER_AREA)
    rgb = np.clip(light + random.normal(0, 1.5, light.shape) + 0.5, 0, 255).astype(np.uint8)
    return read_whole(rgb, fit_stains([rgb]))


@dataclass(frozen=True, eq=False)
class CaseRead:
    """A phantom case as it was scored, with its cells as they are and simple readings beside it."""

    score: str
    result: SlideResult
    truth: TrueCells
    ring_dab: NDArray[np.float32]
    brown_percent: float

    @property
    def reading(self) -> CellReading:
        """The cells that were read."""
        reading = self.result.slides[0].cells
        assert reading is not None
        return reading

    def true_classes(self, gain: float) -> NDArray[np.uint8]:
        """Classes that the drawn membranes have by the rules."""
        rules = Rules(gain=gain)
        complete, mass = self.truth.completeness(rules.dab), self.truth.mass()
        return classes(complete.astype(np.float32), mass.astype(np.float32), rules)

    def gains(self) -> tuple[float, float]:
        """Gain of this case as a control: measured, and of what is true of its cells."""
        counted = self.reading.counted
        read = gain_from(self.reading.completeness[counted], self.reading.raw_mass[counted])
        return read, gain_from(self.truth.completeness(Rules().dab), self.truth.mass())


def percent(classes_: NDArray[np.integer]) -> NDArray[np.float64]:
    """Percentages of the four classes."""
    return 100 * np.bincount(classes_, minlength=len(CLASSES)) / max(len(classes_), 1)


def made(folder: Path, name: str, score: str, seed: int, **settings: object) -> PhantomPair:
    """Make a phantom case, or take it if it is there."""
    pair = pair_paths(folder, name)
    return pair if pair.complete else make_pair(folder, name, score=score, seed=seed, **settings)  # type: ignore[arg-type]


def control_seed() -> int:
    """Seed of the 3+ control: the first whose tumour is evenly intense; never one of the cases."""
    return next(
        seed for seed in CONTROL_SEEDS if draw_membranes(seed, "3+").intense_complete > CONTROL_INTENSE
    )


def read_case(pair: PhantomPair, score: str, gain: float | None) -> CaseRead:
    """Score the drawn tumour of a phantom IHC slide, and compute its cells again from the seed."""
    tissue = tissue_of_truth(pair.truth_json)
    named = {"calibration": "phantom control", "gain": gain} if gain else {}
    with open_slide(pair.ihc) as slide:
        result = score_slide(
            slide, "ihc-rules", regions=pair.regions, device="cpu", cache=False, stain="IHC", **named
        )
        side = int(np.ceil(max(slide.shape) * tissue.mpp / MPP))
        rgb = np.ascontiguousarray(read_area(slide, origin_um=(0.0, 0.0), size_px=side, mpp=MPP).rgb)
    features = json.loads(pair.regions.read_text(encoding="utf-8"))["features"]
    tumour = union_all([shape(feature["geometry"]) for feature in features])
    centres = (np.arange(side) + 0.5) * MPP / tissue.mpp
    mask = contains_xy(tumour, *np.meshgrid(centres, centres))
    reading = result.slides[0].cells
    assert reading is not None
    cells = reading.cells.pick(reading.counted)
    _, dab = fit_stains([rgb]).unmixed(rgb)
    rings = ring_dab(dab, cells, (0.0, 0.0), MPP)
    return CaseRead(score, result, cells_of(tissue), rings, dab_area(dab, mask))
