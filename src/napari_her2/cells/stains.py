"""Light and stains of an IHC slide, fitted once: how a grey value becomes haematoxylin and DAB.

Optical densities are decimal, -log10((I + 1) / (white + 1)). Brown and blue pixels of the slide give the
directions of the two stains; where there are few, the directions published for them weigh more (Ruifrok and
Johnston 2001, as normalised by the specification of this method). Unmixing takes the cross product of both
as a third direction, which holds what neither explains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
DAB = np.array([0.27, 0.57, 0.78]) / np.linalg.norm([0.27, 0.57, 0.78])
"""Directions in (red, green, blue) that few pixels are shrunk to."""
PRIOR_PIXELS = 2000
"""With so many pixels of its own, a slide's direction and the prior weigh the same."""
LEAST_OD, CLIPPED_OD = 0.25, 1.4
"""Sum of the channels from which a pixel is stained; no channel may exceed the other."""
TISSUE_OD = 0.05
"""Sum of the channels from which a pixel is tissue, however faint."""
BROWN_OD, BROWN_RATIO, BLUE_RATIO = 0.45, 0.75, 1.15
PUREST = 0.4
_MOST_PIXELS = 2_000_000
_ROWS_AT_ONCE = 128


@dataclass(frozen=True, slots=True, eq=False)
class Stains:
    """Light and stains of one slide.

    Parameters
    ----------
    white : (3,) float64
        Grey value of each channel where light met no tissue.
    haematoxylin, dab : (3,) float64
        Unit vectors of optical density, (red, green, blue).
    nucleus_h : float
        99th percentile of haematoxylin over the tissue, OD.
    """

    white: NDArray[np.float64]
    haematoxylin: NDArray[np.float64]
    dab: NDArray[np.float64]
    nucleus_h: float
    _density: NDArray[np.float32] = field(init=False, repr=False)
    _unmixing: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        third = np.cross(self.haematoxylin, self.dab)
        directions = np.stack([self.haematoxylin, self.dab, third / np.linalg.norm(third)], axis=1)
        object.__setattr__(self, "_unmixing", np.linalg.inv(directions)[:2].astype(np.float32))
        object.__setattr__(self, "_density", _densities(self.white).astype(np.float32)[:, None])

    def unmixed(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the planes of haematoxylin and DAB of a picture.

        Parameters
        ----------
        rgb : (h, w, 3) uint8

        Returns
        -------
        h, dab : (h, w) float32
            Optical densities; below zero where the colour lies beyond the other stain.
        """
        planes = np.empty((2, *rgb.shape[:2]), np.float32)
        # In strips that stay in the processor's cache.
        for top in range(0, len(rgb), _ROWS_AT_ONCE):
            rows = slice(top, top + _ROWS_AT_ONCE)
            both = cv2.transform(cv2.LUT(np.ascontiguousarray(rgb[rows]), self._density), self._unmixing)
            planes[:, rows] = np.moveaxis(both, -1, 0)
        return planes[0], planes[1]


def fit_stains(samples: Sequence[NDArray[np.uint8]]) -> Stains:
    """Fit light and stains once a slide, so that every window is read alike.

    Parameters
    ----------
    samples : sequence of (h, w, 3) uint8
        Pieces of tissue at about 0.5 µm/px, and of the drawn regions where there are any. Some glass belongs
        to them, for the light; white that was filled in where the slide ends does not.

    Returns
    -------
    Stains
        The published directions where too few pixels show a stain.

    Raises
    ------
    JobFailed
        Where there is no sample.
    """
    every = sum(piece.shape[0] * piece.shape[1] for piece in samples)
    if not every:
        raise JobFailed("There is no tissue to fit the stains to: draw a region on tissue and read it again.")
    step = -(-every // _MOST_PIXELS)
    pixels = np.concatenate([piece.reshape(-1, 3)[::step] for piece in samples])
    white = _white_point(pixels)
    table = _densities(white)
    density = np.stack([table[pixels[:, channel], channel] for channel in range(3)], axis=1)
    total = density.sum(axis=1)
    clear = (total > LEAST_OD) & (density.max(axis=1) <= CLIPPED_OD)
    red, blue = density[:, 0], density[:, 2]
    # Products instead of ratios: a channel may be as bright as the light, or brighter.
    brown = density[clear & (total > BROWN_OD) & (red < BROWN_RATIO * blue)]
    blues = density[clear & (red > BLUE_RATIO * blue)]
    dab = _direction(brown, brown[:, 2] - brown[:, 0], DAB)
    haematoxylin = _direction(blues, blues[:, 0] - blues[:, 2], HAEMATOXYLIN)
    bare = Stains(white, haematoxylin, dab, 0.0)
    tissue = pixels[total > TISSUE_OD]
    amount = bare.unmixed(tissue[None])[0] if len(tissue) else np.zeros(1, np.float32)
    return Stains(white, haematoxylin, dab, float(np.percentile(amount, 99)))


def _white_point(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Median of what is brighter than nine tenths of the 99th percentile, a channel."""
    bright = 0.9 * np.percentile(pixels, 99, axis=0)
    return np.array([np.median(pixels[pixels[:, at] >= bright[at], at]) for at in range(3)])


def _densities(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Optical density of each grey value in each channel, (256, 3)."""
    return np.asarray(-np.log10((np.arange(256)[:, None] + 1) / (white + 1)))


def _direction(
    density: NDArray[np.float64], surplus: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Median direction of the purest pixels, shrunk to the prior the more the fewer there are."""
    if not len(density):
        return prior
    length = np.linalg.norm(density, axis=1)
    purity = surplus / length
    purest = purity >= np.quantile(purity, 1 - PUREST)
    median = np.median(density[purest] / length[purest, None], axis=0)
    weight = len(density) / (len(density) + PRIOR_PIXELS)
    mixed = weight * median / np.linalg.norm(median) + (1 - weight) * prior
    return np.asarray(mixed / np.linalg.norm(mixed))
