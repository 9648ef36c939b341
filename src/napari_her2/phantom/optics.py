"""From dyes to grey values: Beer-Lambert, uneven light, blur, sensor noise.

    I = white * light * exp(-(d1 * v1 + d2 * v2))

with d the densities of the two dyes and v their optical-density vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_her2.phantom.counter import generator, uniform

if TYPE_CHECKING:
    from napari_her2.phantom.case import Stain

Plane = NDArray[np.float32]
Image = NDArray[np.uint8]
_BANK = 1400


def noise_bank(seed: int) -> NDArray[np.float32]:
    """Draw standard normal numbers (1400, 1400, 3), of which every block takes a window of its own.

    Drawing three normal numbers a pixel would cost more than everything else about the light.
    """
    bank = generator(seed, "sensor").standard_normal((_BANK, _BANK, 3), dtype=np.float32)
    # A sensor behind a demosaicking step: neighbouring pixels share some of their noise.
    soft: NDArray[np.float32] = 0.75 * bank + 0.5 * cv2.GaussianBlur(bank, (3, 3), 0.8)
    return soft


def soften(plane: Plane, sigma_px: float) -> Plane:
    """Blur a plane of dye by the optics."""
    if sigma_px < 0.2:
        return plane
    side = 2 * int(np.ceil(2.5 * sigma_px)) + 1
    blurred: Plane = cv2.GaussianBlur(plane, (side, side), sigma_px, borderType=cv2.BORDER_REPLICATE)
    return blurred


def transmit(first: Plane, second: Plane, stain: Stain) -> NDArray[np.float32]:
    """Light through two dyes, (h, w, 3) float32 in grey values, before the sensor."""
    mixing = -np.stack(
        (np.array(stain.first) * stain.strength[0], np.array(stain.second) * stain.strength[1]), axis=1
    )
    density = cv2.transform(cv2.merge((first, second)), mixing.astype(np.float32))
    light: NDArray[np.float32] = np.exp(density, out=density)
    light *= np.asarray(stain.white, dtype=np.float32)
    return light


def expose(
    light: NDArray[np.float32], stain: Stain, bank: NDArray[np.float32], block: tuple[int, int]
) -> Image:
    """Add the sensor's noise, which grows with the root of the light, and round to bytes.

    Parameters
    ----------
    light : (h, w, 3) float32
        Grey values.
    bank : (1400, 1400, 3) float32
        From `noise_bank`.
    block : (2,) int
        The block's row and column: they choose its window of the bank.
    """
    row, column = (np.array([value]) for value in block)
    height, width = light.shape[:2]
    y = int(uniform(0, "noise-y", row, column)[0] * (_BANK - height))
    x = int(uniform(0, "noise-x", row, column)[0] * (_BANK - width))
    grain = np.sqrt(light)
    grain *= bank[y : y + height, x : x + width]
    grain *= np.float32(stain.noise / 15.5)
    grain += light
    grain += np.float32(0.5)
    np.clip(grain, 0, 255, out=grain)
    exposed: Image = grain.astype(np.uint8)
    return exposed
