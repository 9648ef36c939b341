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
_FLANK = round(MASS_UM / STEP_UM)
_WINDOW = round((INSIDE_UM + OUTSIDE_UM) / STEP_UM) + 1
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
    curved = [second_derivatives(dab, mpp, sigma) for sigma in SIGMAS_UM]
    longest = int(np.ceil((border_um.max(initial=0) + OUTSIDE_UM + MASS_UM) / STEP_UM)) + 1
    radii = np.arange(longest + 1) * STEP_UM
    offsets = np.round(ray_directions()[:, None] * radii[:, None] / mpp * _PARTS) / _PARTS
    parts = [
        _read(dab, curved, centres[rows], border_um[rows], offsets.astype(np.float32))
        for rows in (slice(at, at + _CELLS_AT_ONCE) for at in range(0, len(centres), _CELLS_AT_ONCE))
    ]
    if not parts:
        return Membranes(*(np.zeros((0, SECTORS), np.float32) for _ in range(4)))
    return Membranes(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _read(
    dab: NDArray[np.float32],
    curved: list[NDArray[np.float32]],
    centres: NDArray[np.float32],
    border_um: NDArray[np.float32],
    offsets: NDArray[np.float32],
) -> tuple[NDArray[np.float32], ...]:
    """Contrast, DAB, mass and place of the membranes of some cells."""
    first = np.round((border_um - INSIDE_UM) / STEP_UM).astype(np.intp)
    steps = (first - _FLANK)[..., None] + np.arange(_WINDOW + 2 * _FLANK)
    np.clip(steps, 0, offsets.shape[1] - 1, out=steps)
    rays = np.arange(SECTORS)[:, None]
    at = offsets[rays, steps]
    at += centres[:, None, None]
    flat = at.reshape(len(centres), -1, 2)
    y, x = np.ascontiguousarray(flat[..., 0]), np.ascontiguousarray(flat[..., 1])
    profile = cv2.remap(dab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(steps.shape)
    near = at[:, :, _FLANK : _FLANK + _WINDOW].reshape(len(centres), -1, 2)
    y, x = np.ascontiguousarray(near[..., 0]), np.ascontiguousarray(near[..., 1])
    across = ray_directions()
    weights = np.stack([across[:, 0] ** 2, 2 * across[:, 0] * across[:, 1], across[:, 1] ** 2])
    bend: NDArray[np.float32] | None = None
    for plane in curved:
        sampled = cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        sampled = sampled.reshape(len(centres), SECTORS, _WINDOW, 3)
        along = sampled[..., 0] * weights[0, :, None]
        along += sampled[..., 1] * weights[1, :, None]
        along += sampled[..., 2] * weights[2, :, None]
        bend = along if bend is None else np.maximum(bend, along, out=bend)
    assert bend is not None
    best = bend.argmax(axis=2)
    contrast = np.take_along_axis(bend, best[..., None], axis=2)[..., 0]
    around = np.take_along_axis(profile, best[..., None] + np.arange(2 * _FLANK + 1), axis=2)
    base = 0.5 * (around[..., : _FLANK + 1].min(axis=2) + around[..., _FLANK:].min(axis=2))
    radius = np.take_along_axis(steps, best[..., None] + _FLANK, axis=2)[..., 0] * np.float32(STEP_UM)
    return contrast, around[..., _FLANK].copy(), _mass(around, base), radius.astype(np.float32)


def _mass(around: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float32]:
    """DAB above its surroundings, integrated across the membrane by the trapezoidal rule."""
    above = around - base[..., None]
    np.maximum(above, 0, out=above)
    total = above.sum(axis=2)
    total -= 0.5 * (above[..., 0] + above[..., -1])
    total *= np.float32(STEP_UM)
    return np.asarray(total, np.float32)
