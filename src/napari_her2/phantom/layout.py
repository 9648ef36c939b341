"""Where the tissue is: section outline, tumour nests, fat and inflammation on a coarse µm grid.

The layout covers the whole slide at 8 µm a node (2,500 x 2,500 nodes for 20 mm), small enough to
hold in memory and to trace contours on; blocks interpolate it linearly. Fields are signed, in
about µm, positive inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from napari_her2.phantom.counter import generator
from napari_her2.phantom.noise import field, interpolate

NODE_UM = 8.0
_SMALLEST_NEST_UM2 = 4000.0

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Coarse signed fields of a slide; node (j, i) lies at ((j + 0.5) * 8, (i + 0.5) * 8) µm.

    Attributes
    ----------
    section, tumour, fat : (h, w) float32
        Signed fields, about µm from the border, positive inside.
    immune : (h, w) float32
        Probability that a lymphocyte's place is taken, 0 to 1.
    """

    section: Plane
    tumour: Plane
    fat: Plane
    immune: Plane

    def at(self, plane: Plane, y_um: NDArray[np.float64], x_um: NDArray[np.float64]) -> Plane:
        """Interpolate a plane at points (N,), in µm."""
        where = np.stack((y_um / NODE_UM - 0.5, x_um / NODE_UM - 0.5))
        values: Plane = map_coordinates(plane, where, order=1, mode="nearest")
        return values

    def raster(self, plane: Plane, y_um: NDArray[np.float64], x_um: NDArray[np.float64]) -> Plane:
        """Interpolate a plane on the raster of rows (h,) and columns (w,), in µm."""
        return interpolate(plane, y_um / NODE_UM - 0.5, x_um / NODE_UM - 0.5)


def _outline(
    seed: int, y: NDArray[np.float64], x: NDArray[np.float64], size_um: tuple[float, float]
) -> Plane:
    """Draw an uneven rounded outline with a few tears."""
    random = generator(seed, "outline")
    half = np.array(size_um) / 2 * random.uniform(0.86, 0.93, 2)
    power = random.uniform(2.4, 4.0)
    dy = np.abs(y - size_um[0] / 2)[:, None] / half[0]
    dx = np.abs(x - size_um[1] / 2)[None, :] / half[1]
    radius = (dy**power + dx**power) ** (1 / power)
    extent = float(half.min())
    section = (1 - radius) * extent
    section += 0.045 * extent * field(seed, "outline-wide", y, x, extent / 2.5)
    section += 12 * field(seed, "outline-fine", y, x, 60.0)
    tear = 14 - 220 * np.abs(field(seed, "tear", y, x, 500.0))
    tear += 18 * np.minimum(field(seed, "tear-where", y, x, 350.0) - 1.0, 0.6)
    outline: Plane = np.minimum(section, -tear).astype(np.float32)
    return outline


def _nests(seed: int, y: NDArray[np.float64], x: NDArray[np.float64], allowed: NDArray[np.bool_]) -> Plane:
    """Draw irregular islands that fill a share of the section drawn at random."""
    nests = 0.5 * field(seed, "nest-region", y, x, 900.0)
    nests += 0.8 * field(seed, "nest", y, x, 150.0)
    nests += 0.34 * field(seed, "nest-lobe", y, x, 60.0)
    nests += 0.13 * field(seed, "nest-edge", y, x, 24.0)
    share = generator(seed, "nest-share").uniform(0.36, 0.55)
    threshold = float(np.quantile(nests[allowed], 1 - share)) if allowed.any() else 9.0
    tumour: Plane = np.where(allowed, (nests - threshold) * 110, -60.0).astype(np.float32)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((tumour > 0).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] * NODE_UM**2 < _SMALLEST_NEST_UM2
    small[0] = False
    tumour[small[labels]] = -4.0
    return tumour


def make_layout(seed: int, size_um: tuple[float, float]) -> Layout:
    """Lay out the tissue of a slide.

    Parameters
    ----------
    seed : int
        The case's seed: both slides of the case share the layout.
    size_um : (2,) float
        Height and width of the slide in µm.
    """
    count = [max(2, int(np.ceil(length / NODE_UM))) for length in size_um]
    y, x = (np.arange(0.5, n, 1.0, dtype=np.float64) * NODE_UM for n in count)
    section = _outline(seed, y, x, size_um)
    fat = field(seed, "fat", y, x, 260.0) + 0.3 * field(seed, "fat-edge", y, x, 70.0)
    share = generator(seed, "fat-share").uniform(0.06, 0.2)
    fat = ((fat - np.quantile(fat, 1 - share)) * 120).astype(np.float32)
    tumour = _nests(seed, y, x, (section > 25) & (fat < -32))
    edge = np.exp(-((tumour + 25) ** 2) / (2 * 22.0**2))
    spots = np.clip(field(seed, "immune", y, x, 90.0) - 0.7, 0, 1)
    immune = np.clip(0.02 + 0.75 * spots + 0.35 * edge * spots, 0, 0.85) * (tumour < 0) * (fat < 0)
    return Layout(section=section, tumour=tumour, fat=fat, immune=immune.astype(np.float32))
