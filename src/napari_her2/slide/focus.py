"""How sharp an image of stained tissue is, measured from its pixels, whatever is stained and how strongly.

The energy of the gradient of tissue falls with the scale at which it is looked at by a power law, and blur
adds to that scale in squares: E(scale) = c (scale² + blur²)^-h. Three scales give two ratios of energies, in
which the strength of the stain (c) drops out; the ratio of their logarithms is free of the steepness of the
spectrum (h) too, which differs between nuclei, membranes and stroma, and depends on the blur alone. So the
blur comes out in µm. Comparing an edge with itself blurred once more is after Zhuo and Sim 2011
(doi:10.1016/j.patcog.2011.03.009), who assume single steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES_UM = (0.35, 0.7, 1.4)
"""At which gradients are taken: the finest that 0.5 µm/px shows, and each twice the one before."""
WIDE_SCALES_UM = (1.0, 2.0, 4.0)
WIDE_FROM_UM = 1.8
WIDE_LEAST_ENERGY = 1e-8
LEAST_ENERGY = 1e-6
"""Mean square of the gradient at the coarsest scale, OD² per px², below which there is no edge to judge."""
MOST_UM = 4.0
"""Blur that is not told from more."""
OPERATOR_PX2 = 0.375
"""What the gradient of 3 x 3 pixels adds to the scale itself: 1/3 along it and 1/2 across it, in the share in
which both take part."""
_BLURS = np.linspace(0, MOST_UM, 401)


def focus_of(
    plane: NDArray[np.float32],
    cell_px: int,
    mpp: float = 0.5,
    *,
    scales_um: tuple[float, float, float] = SCALES_UM,
    least_energy: float = LEAST_ENERGY,
) -> NDArray[np.float32]:
    """How blurred the tissue in each square of a plane is.

    Parameters
    ----------
    plane : (h, w) float32
        Optical density of the stains: haematoxylin plus DAB.
    cell_px : int
        Side of a square, pixels; what is left over at the right and the bottom is not judged.
    mpp : float
        µm per pixel.
    scales_um : tuple of float
        At which gradients are taken, the finest first.
    least_energy : float
        See `LEAST_ENERGY`.

    Returns
    -------
    (h // cell_px, w // cell_px) float32
        Standard deviation of the blur, µm: 0 to 0.45 on sharp slides; nan where nothing has an edge.
    """
    fine, middle, coarse = (_energy(plane, scale / mpp, cell_px) for scale in scales_um)
    seen = coarse >= least_energy
    blur = np.full(seen.shape, np.nan, np.float32)
    first, second = np.log(fine[seen] / middle[seen]), np.log(middle[seen] / coarse[seen])
    # The coarsest scale of what lies deeper than any blur may hold more energy: that is no edge either.
    ratio = np.where(second > 0, first / np.maximum(second, 1e-9), np.nan)
    blur[seen] = np.interp(-ratio, -_expected(_BLURS, OPERATOR_PX2 * mpp**2, scales_um), _BLURS)
    return blur


def wide_focus_of(plane: NDArray[np.float32], cell_px: int, mpp: float = 0.5) -> NDArray[np.float32]:
    """How blurred tissue is, also where the noise of the camera is all that is fine.

    Noise has edges at the finest scale, so that at a blur of 3 µm and more `focus_of` takes it for sharp
    tissue. At scales of `WIDE_SCALES_UM` noise is averaged out; but there the size of nuclei counts too, and
    sharp tissue gives 0 to 1.7 µm. So what the wide scales say is taken from `WIDE_FROM_UM` on.

    Parameters
    ----------
    plane, cell_px, mpp
        As of `focus_of`; the mean optical density of the channels will do.

    Returns
    -------
    (h // cell_px, w // cell_px) float32
        Standard deviation of the blur, µm; nan where nothing has an edge.
    """
    fine = focus_of(plane, cell_px, mpp)
    wide = focus_of(plane, cell_px, mpp, scales_um=WIDE_SCALES_UM, least_energy=WIDE_LEAST_ENERGY)
    return np.where(np.nan_to_num(wide) > WIDE_FROM_UM, np.fmax(fine, wide), fine)


def _expected(
    blur_um: NDArray[np.float64], operator_um2: float, scales_um: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Ratio of the logarithms of both ratios of energies, which falls with the blur from 1 towards 1/4."""
    fine, middle, coarse = (blur_um**2 + scale**2 + operator_um2 for scale in scales_um)
    return np.asarray(np.log(middle / fine) / np.log(coarse / middle))


def _energy(plane: NDArray[np.float32], sigma_px: float, cell_px: int) -> NDArray[np.float64]:
    """Mean square of the gradient in each square, at a scale."""
    soft = cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    down = cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    right = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    cv2.multiply(down, down, down)
    cv2.accumulateSquare(right, down)
    rows, cols = (length // cell_px for length in plane.shape)
    whole = down[: rows * cell_px, : cols * cell_px]
    if not rows or not cols:
        return np.zeros((rows, cols))
    return np.asarray(cv2.resize(whole, (cols, rows), interpolation=cv2.INTER_AREA), np.float64)
