"""Glass and ink on a thumbnail: the white point, optical density, and what a pen drew.

Both are properties of light going through glass, so both are answered in optical density
(Beer and Lambert): stains and inks differ there by the ratio of their absorbances, however thick they lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHITE = np.array([255.0, 255.0, 255.0], np.float32)
FLAT_SD = 2.5
"""Glass is flat: grey-level standard deviation in 7 x 7 pixels below which a bright pixel may be glass."""
MAX_TINT = 20
"""Glass is nearly colourless: largest spread between its channels, grey levels."""

MIN_PEN_PX0 = 120
"""A stroke of a pen is at least this broad, level-0 pixels: nuclei and single glands are not."""


def darkest(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the lowest of the three channels, (h, w) uint8; ten times faster than over a last axis of 3."""
    return np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def brightest(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the highest of the three channels, (h, w) uint8."""
    return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def local_sd(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure the standard deviation of grey in a 7 x 7 window.

    Parameters
    ----------
    rgb : (h, w, 3) uint8

    Returns
    -------
    (h, w) float32
        Grey levels.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # Centred first: the variance of values near 240 would drown in float32 rounding.
    grey -= grey.mean()
    mean = cv2.blur(grey, (7, 7))
    return np.asarray(np.sqrt(np.maximum(cv2.blur(grey * grey, (7, 7)) - mean * mean, 0)), np.float32)


def white_point(rgb: NDArray[np.uint8], rough: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Colour of bare glass, estimated from bright, nearly colourless, flat pixels.

    Scanners differ: glass comes out as 234, 233, 242 as well as 250, 250, 250, and a saturation threshold
    made for white glass takes the first for tissue. Pure white (255) is what readers fill the
    unscanned parts with, and counts as glass only where there is nothing else.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    rough : (h, w) float32, optional
        `local_sd` of the same picture, where it is known already.

    Returns
    -------
    (3,) float32
        255 in each channel where the picture shows no glass.
    """
    low, high = darkest(rgb), brightest(rgb)
    glass = (low > 180) & (high - low <= MAX_TINT) & ((local_sd(rgb) if rough is None else rough) < FLAT_SD)
    scanned = glass & (low < 255)
    enough = 0.002 * low.size
    if scanned.sum() < enough:
        return WHITE.copy()
    level = np.bincount(low[scanned], minlength=256).astype(np.float64)
    # The brightest of the strong modes: where pale tissue outnumbers the glass, glass is still brighter.
    smooth = np.convolve(level, np.ones(5), mode="same")
    mode = int(np.flatnonzero(smooth >= 0.25 * smooth.max())[-1])
    near = scanned & (np.abs(low.astype(np.int16) - mode) <= 4)
    return np.asarray([np.median(plane[near]) for plane in cv2.split(rgb)], np.float32)


def optical_density(rgb: NDArray[np.uint8], white: NDArray[np.float32]) -> NDArray[np.float32]:
    """Absorbance of each channel against the glass: log10(white / pixel), never below 0.

    Parameters
    ----------
    rgb : (..., 3) uint8
    white : (3,) float32

    Returns
    -------
    (..., 3) float32
    """
    return np.stack(density_planes(rgb, white), axis=-1)


def density_planes(rgb: NDArray[np.uint8], white: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return `optical_density` as three planes, one a channel."""
    # One table of 256 values a channel: a logarithm per pixel would cost more than all the rest.
    table = np.maximum(np.log10(white) - np.log10(np.maximum(np.arange(256.0), 1))[:, None], 0)
    table = table.astype(np.float32)
    return [np.take(table[:, c], rgb[..., c]) for c in range(3)]


def pen_marks(rgb: NDArray[np.uint8], white: NDArray[np.float32], downsample: float) -> NDArray[np.bool_]:
    """Blue, green, red and black ink, and dust out of focus, as broad marks.

    Haematoxylin, eosin and DAB never let green through better than both other channels, never absorb
    red far more than green unless thinly, and never absorb green and blue strongly with no red; inks do.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    white : (3,) float32
        Colour of the glass.
    downsample : float
        Level-0 pixels per pixel.

    Returns
    -------
    (h, w) bool
        Slightly widened, since the rim of a mark is blurred ink.
    """
    red, green, blue = density_planes(cv2.medianBlur(rgb, 5), white)
    lowest, highest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    strong = (
        ((red > 0.2) & (red > 1.5 * green) & (blue < 0.45 * red))  # blue
        | ((red > 0.25) & (red > 1.12 * green) & (blue > 0.85 * green))  # green
        | ((green > 0.6) & (blue > 0.75 * green) & (red < 0.3 * green) & (blue < 1.3 * green))  # red
        | ((red + green + blue > 0.9) & (highest - lowest < 0.18 * highest))  # black
    )
    weak = ((red > 0.1) & (red > 1.3 * green) & (blue < 0.55 * red)) | (
        (red > 0.2) & (red > 1.02 * green) & (blue > 0.8 * green)
    )
    open_by = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    seeds = cv2.morphologyEx(strong.astype(np.uint8), cv2.MORPH_OPEN, open_by)
    ink = _grown(_broad(seeds, MIN_PEN_PX0 / 2 / downsample), (strong | weak).astype(np.uint8))
    wide = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return np.asarray(wide, np.bool_)


def _broad(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Leave the connected parts that hold a disc of a radius: a pen is broad, a nucleus is not."""
    if not mask.any():
        return mask
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    inside = np.flatnonzero(mask)
    depth = np.zeros(count, np.float32)
    np.maximum.at(depth, labels.ravel()[inside], cv2.distanceTransform(mask, cv2.DIST_L2, 3).ravel()[inside])
    keep = (depth >= max(radius, 2.0)).astype(np.uint8)
    keep[0] = 0
    return np.asarray(keep[labels], np.uint8)


def _grown(seeds: NDArray[np.uint8], into: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Find the connected parts of one mask that touch the other."""
    if not seeds.any():
        return seeds
    count, labels = cv2.connectedComponents(into, connectivity=8)
    keep = np.zeros(count, np.uint8)
    keep[np.unique(labels[seeds > 0])] = 1
    keep[0] = 0
    return np.asarray(keep[labels] | seeds, np.uint8)
