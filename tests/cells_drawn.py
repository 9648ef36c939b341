"""Cells drawn with known membranes: fine in optical density, then as a camera at 0.5 µm/px sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

MPP = 0.5
FINE = 4
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
    light = 10 ** -(h[..., None] * HAEMATOXYLIN.astype(np.float32) + dab[..., None] * DAB.astype(np.float32))
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
        # Edges within a fine pixel are drawn as the share of it that they cover.
        ring = np.clip((width_um / 2 - np.abs(away - radius)) / fine_um + 0.5, 0, 1)
        dab[box] += od * ring * (angle < 2 * np.pi * stained)
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


def brown_cytoplasm(od: float, *, side_um: float = 90.0, pitch_um: float = 14.0, seed: int = 0) -> np.ndarray:
    """Draw cells without membranes that touch each other: brown and grainy but for their nuclei."""
    draw, fine_um = np.random.default_rng(seed), MPP / FINE
    pixels = round(side_um / MPP) * FINE
    grain = gaussian_filter(draw.normal(size=(pixels, pixels)), 0.5 / fine_um)
    dab = (od * (1 + 0.15 * grain / grain.std())).astype(np.float32)
    h = np.full(dab.shape, 0.05, np.float32)
    y, x = np.mgrid[:pixels, :pixels] * fine_um
    for row in range(int(side_um / (0.866 * pitch_um)) + 1):
        for column in range(int(side_um / pitch_um) + 1):
            at = np.array([row * 0.866, column + 0.5 * (row % 2)]) * pitch_um + draw.uniform(-1, 1, 2)
            low = ((at - 6) / fine_um).astype(int).clip(0)
            box = np.s_[low[0] : low[0] + round(12 / fine_um), low[1] : low[1] + round(12 / fine_um)]
            nucleus = np.hypot((y[box] - at[0]) / 1.15, x[box] - at[1]) < 3.5
            h[box][nucleus], dab[box][nucleus] = 0.35, 0.02
    return seen(h, dab, seed=seed)


def walls(
    *, od: float, width_um: float, rows: int = 6, pitch_um: float = 13.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a sheet of hexagonal cells that share walls, some walls stained and some not.

    Returns
    -------
    rgb, centres_um, completeness
        Completeness is the share of the six walls of a cell that are stained. Cells at the rim are left out.
    """
    draw, fine_um = np.random.default_rng(seed), MPP / FINE
    pixels = round((rows * pitch_um + 2 * pitch_um) / MPP) * FINE
    h, dab = np.full((pixels, pixels), 0.06, np.float32), np.full((pixels, pixels), 0.03, np.float32)
    every = {
        (row, column): np.array([(row + 1) * 0.866, column + 1 + 0.5 * (row % 2)]) * pitch_um
        for row in range(rows + 2)
        for column in range(rows + 1)
    }
    y, x = np.mgrid[:pixels, :pixels] * fine_um + fine_um / 2
    stained: dict[frozenset[tuple[int, int]], bool] = {}
    share, centres = [], []
    for own, at in every.items():
        h[np.hypot(y - at[0], x - at[1]) < 3.2] = 0.35
        beside = [other for other, there in every.items() if 0 < np.hypot(*(there - at)) < 1.1 * pitch_um]
        for other in beside:
            wall = frozenset((own, other))
            if wall in stained:
                continue
            stained[wall] = bool(draw.uniform() < 0.6)
            if stained[wall]:
                middle, across = (at + every[other]) / 2, (every[other] - at) / pitch_um
                low = ((middle - pitch_um) / fine_um).astype(int).clip(0)
                high = low + int(2 * pitch_um / fine_um)
                box = np.s_[low[0] : high[0], low[1] : high[1]]
                off = np.abs((y[box] - middle[0]) * across[0] + (x[box] - middle[1]) * across[1])
                along = np.abs((y[box] - middle[0]) * across[1] - (x[box] - middle[1]) * across[0])
                line = np.clip((width_um / 2 - off) / fine_um + 0.5, 0, 1)
                line[along > pitch_um / np.sqrt(3) / 2 + width_um / 4] = 0
                dab[box] = np.maximum(dab[box], 0.03 + od * line)
        if len(beside) == 6:
            centres.append(at)
            share.append([frozenset((own, other)) for other in beside])
    complete = [np.mean([stained[wall] for wall in six]) for six in share]
    return seen(h, dab, seed=seed), np.array(centres), np.array(complete)
