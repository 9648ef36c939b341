"""What lies inside the membrane of each cell: the blue nucleus, where there is one, and the cytoplasm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.cells.table import SECTORS, ray_directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

CENTRE_UM = 1.5
"""Haematoxylin of the centre is the mean within this."""
EDGE = 0.5
"""Of the haematoxylin of the centre, where a nucleus ends."""
FAINTEST = 0.25
"""Of the slide's nuclei: a centre with less haematoxylin shows no nucleus."""
MEMBRANE_UM = 1.0
"""Cytoplasm ends so far before the middle of the membrane."""
_RADII = 10
_CELLS_AT_ONCE = 2048
_PARTS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Interiors:
    """Of N cells, as `napari_her2.cells.table.Cells` has them, (N,) float32 each."""

    cytoplasm_dab: NDArray[np.float32]
    nucleus_h: NDArray[np.float32]
    nucleus_um2: NDArray[np.float32]
    nucleus_ratio: NDArray[np.float32]


def read_interiors(
    stains: NDArray[np.float32],
    centres: NDArray[np.float32],
    membrane_um: NDArray[np.float32],
    mpp: float,
    nucleus_h: float,
) -> Interiors:
    """Measure nuclei and cytoplasm along the rays.

    Parameters
    ----------
    stains : (h, w, 2) float32
        Haematoxylin, smoothed so that a nucleus is one piece, and DAB at about 1 µm/px, OD.
    centres : (N, 2) float32
        (y, x), px.
    membrane_um : (N, 32) float32
        How far the membrane lies from the centre.
    mpp : float
        Of the planes, µm.
    nucleus_h : float
        Haematoxylin of the slide's nuclei, OD.
    """
    radii = (np.arange(_RADII) * mpp).astype(np.float32)
    offsets = np.round(ray_directions()[:, None] * np.arange(_RADII)[:, None] * _PARTS) / _PARTS
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for start in range(0, len(centres), _CELLS_AT_ONCE):
        rows = slice(start, start + _CELLS_AT_ONCE)
        at = centres[rows, None, None] + offsets.astype(np.float32)
        flat = at.reshape(len(at), -1, 2)
        y, x = np.ascontiguousarray(flat[..., 0]), np.ascontiguousarray(flat[..., 1])
        sampled = cv2.remap(stains, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        sampled = sampled.reshape(len(at), SECTORS, _RADII, 2)
        parts.append(_read(sampled[..., 0], sampled[..., 1], radii, membrane_um[rows], nucleus_h))
    if not parts:
        return Interiors(*(np.zeros(0, np.float32) for _ in range(4)))
    return Interiors(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _read(
    h: NDArray[np.float32],
    dab: NDArray[np.float32],
    radii: NDArray[np.float32],
    membrane_um: NDArray[np.float32],
    nucleus_h: float,
) -> tuple[NDArray[np.float32], ...]:
    """Cytoplasm's DAB, haematoxylin of the centre, area and axes of the nucleus."""
    within = radii <= CENTRE_UM
    weight = np.where(radii[within] == 0, radii[1] / 8, radii[within])
    centre = (h[:, :, within] * weight).sum(axis=(1, 2)) / (weight.sum() * SECTORS)
    edge = _edge(h, np.asarray(EDGE * centre), radii)
    edge = np.minimum(edge, membrane_um)
    edge[centre < FAINTEST * nucleus_h] = 0
    area, ratio = _shape(edge)
    shell = (radii > edge[..., None]) & (radii <= membrane_um[..., None] - MEMBRANE_UM)
    share = shell * radii
    total = share.sum(axis=(1, 2))
    cytoplasm = (dab * share).sum(axis=(1, 2)) / np.maximum(total, 1e-6)
    # Where no room is left between nucleus and membrane, what lies at the centre.
    cytoplasm = np.where(total > 0, cytoplasm, dab[:, :, 0].mean(axis=1))
    return tuple(np.asarray(each, np.float32) for each in (cytoplasm, centre, area, ratio))


def _edge(
    h: NDArray[np.float32], least: NDArray[np.float32], radii: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Where haematoxylin first falls below a value along each ray, (n, 32), µm."""
    below = h < least[:, None, None]
    below[..., -1] = True
    end = below.argmax(axis=2)[..., None]
    inner = np.take_along_axis(h, np.maximum(end - 1, 0), axis=2)[..., 0]
    outer = np.take_along_axis(h, end, axis=2)[..., 0]
    fall = inner - outer
    part = np.clip((inner - least[:, None]) / np.where(fall > 0, fall, 1), 0, 1)
    place = (end[..., 0] - 1 + np.where(fall > 0, part, 1)) * (radii[1] - radii[0])
    return np.asarray(np.maximum(place, 0), np.float32)


def _shape(edge: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Area (µm²) and ratio of the axes of star-shaped nuclei, from the moments of their wedges."""
    turn = 2 * np.pi / SECTORS
    y, x = ray_directions().T
    area = 0.5 * turn * (edge**2).sum(axis=1)
    safe = np.maximum(area, 1e-6)
    cubed, fourth = edge**3 * (turn / 3), edge**4 * (turn / 4)
    mean_y, mean_x = (cubed * y).sum(axis=1) / safe, (cubed * x).sum(axis=1) / safe
    yy = (fourth * y**2).sum(axis=1) / safe - mean_y**2
    xx = (fourth * x**2).sum(axis=1) / safe - mean_x**2
    yx = (fourth * y * x).sum(axis=1) / safe - mean_y * mean_x
    half, spread = 0.5 * (yy + xx), np.hypot(0.5 * (yy - xx), yx)
    short = half - spread
    ratio = np.sqrt((half + spread) / np.where(short > 0, short, 1))
    return area, np.where((area > 0) & (short > 0), ratio, 1)
