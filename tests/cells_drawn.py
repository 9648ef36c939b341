"""Cells drawn with known membranes: fine in optical density, then as a camera at 0.5 µm/px sees them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

MPP = 0.5
FINE = 8
"""Pixels drawn a pixel seen, along each side."""
WHITE = np.array([238.0, 240.0, 243.0])
HAEMATOXYLIN = np.array([0.66, 0.68, 0.32]) / np.linalg.norm([0.66, 0.68, 0.32])
DAB = np.array([0.29, 0.57, 0.77]) / np.linalg.norm([0.29, 0.57, 0.77])


@dataclass(frozen=True)
class Rings:
    """A picture of separate cells and what was drawn: (y, x) in µm, share stained, OD and width of all."""

    rgb: np.ndarray
    centres_um: np.ndarray
    completeness: np.ndarray
    radius_um: np.ndarray
    od: float
    width_um: float


def seen(
    h: np.ndarray, dab: np.ndarray, *, blur_um: float = 0.3, seed: int = 0, noise: float = 0.8
) -> np.ndarray:
    """Light through drawn densities (FINE times as fine), blurred, on pixels of 0.5 µm, with noise."""
    grain = np.random.default_rng(seed)
    h, dab = (gaussian_filter(plane, blur_um / MPP * FINE, truncate=3) for plane in (h, dab))
    light = 10 ** -(h[..., None] * HAEMATOXYLIN + dab[..., None] * DAB)
    rows, columns = (side // FINE for side in h.shape)
    light = light.reshape(rows, FINE, columns, FINE, 3).mean(axis=(1, 3))
    grey = light * (WHITE + 1) - 1 + grain.normal(0, noise, light.shape)
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)


def rings(
    *,
    od: float,
    width_um: float,
    side: int = 6,
    pitch_um: float = 19.0,
    radius_um: float = 6.0,
    cytoplasm: float = 0.03,
    shares: tuple[float, ...] = (0.3, 0.5, 0.7, 0.85, 1.0),
    nucleus_od: float = 0.35,
    blur_um: float = 0.3,
    seed: int = 0,
) -> Rings:
    """Draw cells with a blue nucleus and a membrane of one arc, on pale stroma."""
    draw = np.random.default_rng(seed)
    size_um = pitch_um * side + 40
    fine_um = MPP / FINE
    pixels = round(size_um / MPP) * FINE
    h, dab = np.full((pixels, pixels), 0.05, np.float32), np.full((pixels, pixels), 0.02, np.float32)
    found, share, radii = [], [], []
    for number in range(side * side):
        row, column = divmod(number, side)
        y, x = (20 + pitch_um * (at + 0.5) + draw.uniform(-0.8, 0.8) for at in (row, column))
        radius = radius_um + draw.uniform(-0.5, 0.5)
        stained, start = shares[number % len(shares)], draw.uniform(0, 2 * np.pi)
        half = int((radius + 4) / fine_um)
        at_y, at_x = int(y / fine_um), int(x / fine_um)
        box = np.s_[at_y - half : at_y + half, at_x - half : at_x + half]
        dy, dx = np.mgrid[at_y - half : at_y + half, at_x - half : at_x + half] * fine_um + fine_um / 2
        dy, dx = dy - y, dx - x
        away, angle = np.hypot(dy, dx), (np.arctan2(dy, dx) - start) % (2 * np.pi)
        dab[box][away < radius] = cytoplasm
        ring = (np.abs(away - radius) <= width_um / 2) & (angle < 2 * np.pi * stained)
        dab[box][ring] = cytoplasm + od
        h[box][np.hypot(dy / 1.2, dx) < 3.0] = nucleus_od
        found.append((y, x))
        share.append(stained)
        radii.append(radius)
    picture = seen(h, dab, blur_um=blur_um, seed=seed)
    return Rings(picture, np.array(found), np.array(share), np.array(radii), od, width_um)


def nearest(drawn_um: np.ndarray, found_um: np.ndarray, within_um: float = 3.0) -> np.ndarray:
    """Number of the found cell nearest to each drawn one; -1 where none is near."""
    away = np.hypot(*(drawn_um[:, None, at] - found_um[None, :, at] for at in range(2)))
    best = away.argmin(axis=1)
    return np.where(away[np.arange(len(best)), best] <= within_um, best, -1)


__all__ = ["DAB", "FINE", "HAEMATOXYLIN", "MPP", "WHITE", "Rings", "cv2", "nearest", "rings", "seen"]
