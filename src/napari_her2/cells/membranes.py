"""What the membrane of each cell shows, sector by sector.

Along each ray, near the border of the cell, the membrane is where DAB bends down most across the ray: the
largest negative second derivative (the Hessian projected on the ray). Cytoplasm has none, and ridges that
run along the ray have none across it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.cells.table import SECTORS, ray_directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSIDE_UM, OUTSIDE_UM = 2.0, 1.0
"""Where the membrane is looked for, from the border of the cell."""
SIGMAS_UM = (0.45, 0.8)
CONTRAST = 2.83
"""Times sigma squared, the second derivative of a line as wide as the filter is its height."""
MASS_UM = 1.5
STEP_UM = 0.25
RIDGE = 1.75
"""Contrast is at most so many times what DAB there exceeds the browner side by: the edge of a brown cytoplasm
bends down as a membrane does, and rises above one side alone."""
WIDE_MASS_UM = 2.0
WIDE_UM = (1.5, 1.7)
"""Equivalent width (mass over height) from which a membrane begins to be, and is, a wide one."""
SLOPED, UNEVEN = (0.1, 0.2), (0.15, 0.3)
"""How far its surroundings may slope over the last step, and differ from side to side, in its height."""
_FLANK = round(MASS_UM / STEP_UM)
_REACH = round(WIDE_MASS_UM / STEP_UM)
_WINDOW = round((INSIDE_UM + OUTSIDE_UM) / STEP_UM) + 1
KERNEL_UM = 4 * SIGMAS_UM[-1]
_CELLS_AT_ONCE = 512
_PARTS = 32
"""Positions lie on whole 32nds of a pixel: exact in float32 wherever the window begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Membranes:
    """Of N cells: contrast and DAB (OD), mass (OD·µm), place (µm from the centre); (N, 32) float32 each."""

    contrast: NDArray[np.float32]
    dab: NDArray[np.float32]
    mass: NDArray[np.float32]
    radius_um: NDArray[np.float32]


def second_derivatives(dab: NDArray[np.float32], mpp: float, sigma_um: float) -> NDArray[np.float32]:
    """Hessian of the smoothed plane times -2.83 sigma squared, (h, w, 3) float32: yy, yx, xx."""
    sigma = sigma_um / mpp
    at = np.arange(-int(np.ceil(4 * sigma)), int(np.ceil(4 * sigma)) + 1, dtype=np.float64)
    smooth = np.exp(-0.5 * (at / sigma) ** 2)
    smooth /= smooth.sum()
    first = at * smooth
    first /= (first * at).sum()
    second = (at**2 / sigma**2 - 1) * smooth
    second -= second.mean()
    second *= 2 / (second * at**2).sum()
    scale = -CONTRAST * sigma**2
    planes = [
        cv2.sepFilter2D(dab, -1, across, scale * down, borderType=cv2.BORDER_REPLICATE)
        for down, across in ((second, smooth), (first, first), (smooth, second))
    ]
    return np.asarray(cv2.merge(planes), np.float32)


def read_membranes(
    dab: NDArray[np.float32], centres: NDArray[np.float32], border_um: NDArray[np.float32], mpp: float
) -> Membranes:
    """Find the membrane of every sector and measure it.

    Parameters
    ----------
    dab : (h, w) float32
        Optical density.
    centres : (N, 2) float32
        (y, x), px.
    border_um : (N, 32) float32
        From `napari_her2.cells.territories.borders_um`.
    mpp : float
        µm/px of the plane.
    """
    margin = int(np.ceil((border_um.max(initial=0) + OUTSIDE_UM + WIDE_MASS_UM + KERNEL_UM) / mpp)) + 2
    steps = np.arange(int(np.ceil((border_um.max(initial=0) + OUTSIDE_UM + WIDE_MASS_UM) / STEP_UM)) + 1)
    offsets = ray_directions()[:, None] * (steps * STEP_UM / mpp)[:, None]
    offsets = (np.round(offsets * _PARTS) / _PARTS).astype(np.float32)
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for start in range(0, len(centres), _CELLS_AT_ONCE):
        # Neighbours in raster order lie in a strip, whose derivatives stay in the processor's cache.
        some = slice(start, start + _CELLS_AT_ONCE)
        corner = np.maximum(centres[some].min(axis=0).astype(np.intp) - margin, 0)
        end = centres[some].max(axis=0).astype(np.intp) + margin
        strip = dab[corner[0] : end[0], corner[1] : end[1]]
        curved = [second_derivatives(strip, mpp, sigma) for sigma in SIGMAS_UM]
        middle = centres[some] - corner.astype(np.float32)
        parts.append(_read(strip, curved, middle, border_um[some], offsets))
    if not parts:
        return Membranes(*(np.zeros((0, SECTORS), np.float32) for _ in range(4)))
    return Membranes(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _sampled(
    plane: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values between pixels, (n, 32, steps) or (n, 32, steps, channels)."""
    flat = (len(y), -1)
    found = cv2.remap(
        plane, x.reshape(flat), y.reshape(flat), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found.reshape(*y.shape, *plane.shape[2:]), np.float32)


def _read(
    dab: NDArray[np.float32],
    curved: list[NDArray[np.float32]],
    centres: NDArray[np.float32],
    border_um: NDArray[np.float32],
    offsets: NDArray[np.float32],
) -> tuple[NDArray[np.float32], ...]:
    """Contrast, DAB, mass and place of the membranes of some cells."""
    longest = offsets.shape[1]
    first = np.round((border_um - INSIDE_UM) / STEP_UM).astype(np.int32)
    steps = (first - _REACH)[..., None] + np.arange(_WINDOW + 2 * _REACH, dtype=np.int32)
    np.clip(steps, 0, longest - 1, out=steps)
    place = steps + (np.arange(SECTORS, dtype=np.int32) * longest)[:, None]
    y, x = (offsets[..., at].ravel().take(place) for at in (0, 1))
    y += centres[:, 0, None, None]
    x += centres[:, 1, None, None]
    profile = _sampled(dab, y, x)
    near = slice(_REACH, _REACH + _WINDOW)
    y, x = y[..., near], x[..., near]
    across = ray_directions()
    weights = np.stack([across[:, 0] ** 2, 2 * across[:, 0] * across[:, 1], across[:, 1] ** 2])
    bend: NDArray[np.float32] | None = None
    for plane in curved:
        sampled = _sampled(plane, y, x)
        along = sampled[..., 0] * weights[0, :, None]
        along += sampled[..., 1] * weights[1, :, None]
        along += sampled[..., 2] * weights[2, :, None]
        bend = along if bend is None else np.maximum(bend, along, out=bend)
    assert bend is not None
    best = bend.argmax(axis=2)
    contrast = np.take_along_axis(bend, best[..., None], axis=2)[..., 0]
    around = np.take_along_axis(profile, best[..., None] + np.arange(2 * _REACH + 1), axis=2)
    radius = np.take_along_axis(steps, best[..., None] + _REACH, axis=2)[..., 0] * np.float32(STEP_UM)
    here, sides = around[..., _REACH].copy(), around[..., _REACH - _FLANK : _REACH + _FLANK + 1]
    browner = np.maximum(sides[..., : _FLANK + 1].min(axis=2), sides[..., _FLANK:].min(axis=2))
    np.minimum(contrast, np.float32(RIDGE) * (here - browner), out=contrast)
    return contrast, here, sector_mass(around), radius.astype(np.float32)


def sector_mass(around: NDArray[np.float32]) -> NDArray[np.float32]:
    """DAB of a membrane above its surroundings, integrated across it.

    The surroundings are the minima within 1.5 µm on both sides. A membrane about as wide as that has its own
    flanks there, and a fifth of it would be lost; where it stands free, on surroundings that are level and
    alike on both sides, those within 2 µm count instead, the more the wider it is. In crowded tissue they
    would take in the neighbours.

    Parameters
    ----------
    around : (..., 17) float32
        DAB every 0.25 µm from 2 µm inside to 2 µm outside the middle of the membrane, OD.

    Returns
    -------
    (...) float32
        OD·µm.
    """
    narrow, height, _ = _above(around[..., _REACH - _FLANK : _REACH + _FLANK + 1])
    wide, full, uneven = _above(around)
    full = np.maximum(full, np.float32(1e-6))
    sloped = np.maximum(np.abs(around[..., 1] - around[..., 0]), np.abs(around[..., -2] - around[..., -1]))
    weight = _rising(narrow, WIDE_UM, np.maximum(height, np.float32(1e-6)))
    weight *= 1 - _rising(sloped, SLOPED, full)
    weight *= 1 - _rising(uneven, UNEVEN, full)
    return np.asarray(narrow + weight * (wide - narrow), np.float32)


def _rising(
    value: NDArray[np.float32], between: tuple[float, float], height: NDArray[np.float32]
) -> NDArray[np.float32]:
    """From 0 to 1 between two multiples of the height."""
    low, high = (np.float32(edge) for edge in between)
    return np.asarray(np.clip((value / height - low) / (high - low), 0, 1), np.float32)


def _above(around: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Integral above the mean of the minima of both sides, the middle's height, and how the minima differ.

    Nothing is cut off at zero: where cytoplasm on one side is browner than on the other, the halves cancel
    and what remains is the membrane's. It is never negative, as no value lies below its side's minimum.
    """
    middle = around.shape[-1] // 2
    inner, outer = around[..., : middle + 1].min(axis=-1), around[..., middle:].min(axis=-1)
    base = np.float32(0.5) * (inner + outer)
    total = around.sum(axis=-1)
    total -= 0.5 * (around[..., 0] + around[..., -1])
    total -= base * np.float32(2 * middle)
    total *= np.float32(STEP_UM)
    return total, around[..., middle] - base, np.abs(inner - outer)
