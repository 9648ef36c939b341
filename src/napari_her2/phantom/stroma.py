"""Collagen: wavy bundles that run around the nests.

One periodic texture, long in one direction, is made for a case and sampled through warped
coordinates. The coordinate across the bundles follows the tumour field, so they bend around nests.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_her2.phantom.counter import generator
from napari_her2.phantom.noise import field

_SIDE = 1024
_ACROSS_UM = 0.5
_ALONG_UM = 2.0

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Collagen:
    """A case's collagen: its texture (across, along) with values 0 to 1, and its main direction."""

    texture: Plane
    slant: float


def _standard(plane: Plane) -> Plane:
    scaled: Plane = (plane - plane.mean()) / plane.std()
    return scaled


def make_collagen(seed: int) -> Collagen:
    """Make the texture of a case: bundles, fibres within bundles and clefts between them."""
    random = generator(seed, "collagen")
    white = random.standard_normal((3, _SIDE, _SIDE), dtype=np.float32)
    bundles = _standard(gaussian_filter(white[0], (9.0, 22.0), mode="wrap"))
    fibres = _standard(gaussian_filter(white[1], (2.2, 8.0), mode="wrap"))
    threads = _standard(gaussian_filter(white[2], (1.0, 4.0), mode="wrap"))
    texture = 0.55 + 0.13 * bundles + 0.09 * fibres + 0.05 * threads
    cleft = bundles + 0.45 * fibres
    texture *= 1 - 0.85 / (1 + np.exp(6 * (cleft + 1.75)))
    return Collagen(np.clip(texture, 0.02, 1.0).astype(np.float32), float(random.uniform(0, np.pi)))


def sample(
    collagen: Collagen, seed: int, y_um: NDArray[np.float64], x_um: NDArray[np.float64], tumour: Plane
) -> Plane:
    """Density of collagen, 0 to 1, on the raster of rows (h,) and columns (w,) in µm.

    Parameters
    ----------
    tumour : (h, w) float32
        The tumour field there, in µm from the border of the nests.
    """
    sin, cos = np.sin(collagen.slant), np.cos(collagen.slant)
    y, x = y_um.astype(np.float32)[:, None], x_um.astype(np.float32)[None, :]
    across = (y * np.float32(cos) + x * np.float32(sin)) * np.float32(0.9)
    across += 60 * field(seed, "fold", y_um, x_um, 170.0) + 9 * field(seed, "wave", y_um, x_um, 35.0)
    across -= np.float32(0.55) * np.clip(tumour, -150, 0)
    along = x * np.float32(cos) - y * np.float32(sin)
    along = along + 40 * field(seed, "along", y_um, x_um, 220.0)
    # Wrapped here: OpenCV's coordinates are too coarse far from the origin.
    across = np.mod(across / np.float32(_ACROSS_UM), np.float32(_SIDE))
    along = np.mod(along / np.float32(_ALONG_UM), np.float32(_SIDE))
    sampled: Plane = cv2.remap(collagen.texture, along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return sampled
