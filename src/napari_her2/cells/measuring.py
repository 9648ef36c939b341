"""From pixels to cells: a window of an IHC slide in, the cells of its core out.

A cell depends on pixels within `HALO_UM` of it and on nothing else, and everything that is fitted is fitted
for the slide (`napari_her2.cells.stains`), so the same cell comes out of every window that holds it with
its halo. What is found on a coarser grid is found on one grid of the slide, wherever a window begins.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.cells.centres import bare_glass, blobs, cell_signal, find_centres, reach_um, smoothed
from napari_her2.cells.interiors import read_interiors
from napari_her2.cells.membranes import read_membranes
from napari_her2.cells.table import SECTORS, Cells
from napari_her2.cells.territories import ASIDE_UM, FLOODED_UM, REACH_UM, borders_um, territories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_her2.cells.stains import Stains

MEASURED = 2
"""Version of what is measured: a higher one wherever cells of the same pixels come out otherwise, or cells
that were kept on disk would be taken for what is measured now."""
MPP = 0.5
COARSE_UM = 1.0
"""Centres are found and territories flooded at about this µm/px."""
HALO_UM = float(np.ceil(REACH_UM + FLOODED_UM + ASIDE_UM + reach_um(COARSE_UM) + COARSE_UM))
"""What a window holds around its core at least: how far away pixels may lie that a cell depends on."""


def measured(
    rgb: NDArray[np.uint8],
    stains: Stains,
    origin_um: tuple[float, float],
    core_um: tuple[float, float, float, float],
    mpp: float = MPP,
    clock: dict[str, float] | None = None,
) -> Cells:
    """Find and measure the cells whose centre lies in the core of a window.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
        The core with a halo of `HALO_UM` around it; white where the slide ends.
    stains : Stains
        Fitted once for the slide.
    origin_um : tuple of float
        (y, x) of the corner of the first pixel on the slide; whole pixels from the corner of the slide.
    core_um : tuple of float
        (y0, x0, y1, x1), half open.
    mpp : float
        µm/px of the window.
    clock : dict, optional
        Seconds of the processor are added to it, by step.

    Returns
    -------
    Cells
    """
    factor = max(1, round(COARSE_UM / mpp))
    first = [round(at / mpp) for at in origin_um]
    # The coarse grid is that of the slide: rows and columns before its next line are left out.
    skip = [-at % factor for at in first]
    height, width = ((side - off) // factor * factor for side, off in zip(rgb.shape[:2], skip, strict=True))
    if min(height, width) < 8 * factor:
        return Cells.none()
    rgb = rgb[skip[0] : skip[0] + height, skip[1] : skip[1] + width]
    corner = np.array([at + off for at, off in zip(first, skip, strict=True)], np.float64)
    coarse_um = factor * mpp
    with _timed(clock, "stains"):
        h, dab = stains.unmixed(rgb)
    with _timed(clock, "centres"):
        signal = smoothed(_averaged(cell_signal(h, dab), factor), coarse_um, mpp)
        glass = bare_glass(smoothed(_averaged(h + dab, factor), coarse_um, mpp))
        centres = find_centres(blobs(signal, coarse_um), glass, coarse_um, stains.nucleus_h)
        middle_um = (corner + (centres.astype(np.float64) + 0.5) * factor) * mpp
        low, high = np.array(core_um[:2]), np.array(core_um[2:])
        chosen = np.flatnonzero(((middle_um >= low) & (middle_um < high)).all(axis=1))
    if not len(chosen):
        return Cells.none()
    with _timed(clock, "territories"):
        labels = territories(signal, centres, coarse_um)
        border = borders_um(labels, signal, glass, centres, chosen, coarse_um)
    with _timed(clock, "membranes"):
        fine = ((centres[chosen] + 0.5) * factor - 0.5).astype(np.float32)
        membranes = read_membranes(dab, fine, border, mpp)
    with _timed(clock, "interiors"):
        # Chromatin is uneven: what is smoothed shows the nucleus, not its grains.
        both = cv2.merge([smoothed(_averaged(h, factor), coarse_um, mpp), _averaged(dab, factor)])
        interiors = read_interiors(both, centres[chosen], membranes.radius_um, coarse_um, stains.nucleus_h)
    wedges = 0.5 * np.sin(2 * np.pi / SECTORS) * (border * np.roll(border, 1, axis=1)).sum(axis=1)
    found = Cells(
        centre_um=middle_um[chosen].astype(np.float32),
        border_um=border.astype(np.float16),
        contrast=membranes.contrast.astype(np.float16),
        dab=membranes.dab.astype(np.float16),
        mass=membranes.mass.astype(np.float16),
        area_um2=np.asarray(wedges, np.float32),
        cytoplasm_dab=interiors.cytoplasm_dab,
        nucleus_h=interiors.nucleus_h,
        nucleus_um2=interiors.nucleus_um2,
        nucleus_ratio=interiors.nucleus_ratio,
    )
    return Cells.joined([found])


@contextmanager
def _timed(clock: dict[str, float] | None, step: str) -> Iterator[None]:
    """Add the seconds of the processor that a step takes."""
    begun = time.process_time()
    yield
    if clock is not None:
        clock[step] = clock.get(step, 0.0) + time.process_time() - begun


def _averaged(plane: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Mean of squares of pixels."""
    if factor == 1:
        return plane
    size = (plane.shape[1] // factor, plane.shape[0] // factor)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)
