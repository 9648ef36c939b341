"""Whether an image allows a reading of membranes: focus, stains, resolution; each doubt as a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.stain import Stain

FOCUS_HALO_UM = 4.0
"""Pixels beyond the area that `blur_of` needs, so that its values do not depend on the window."""
_FINE_UM, _COARSE_UM = 0.5, 1.0


def focus_of(plane: NDArray[np.float32], cell_px: int, mpp: float = 0.5) -> NDArray[np.float32]:
    """How blurred the edges in each square of a plane are.

    Parameters
    ----------
    plane : (h, w) float32
        Optical density: haematoxylin plus DAB.
    cell_px : int
        Side of a square, pixels; what is left over at the right and the bottom is not looked at.
    mpp : float
        µm per pixel.

    Returns
    -------
    (h // cell_px, w // cell_px) float32
        Standard deviation of the blur, µm: about 0.5 in a sharp image; nan where nothing has an edge.
    """
    fine, coarse = (_edge_energy(plane, scale / mpp, cell_px) for scale in (_FINE_UM, _COARSE_UM))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (fine / coarse) ** 2
        square = (_COARSE_UM**2 - ratio * _FINE_UM**2) / (ratio - 1)
    return np.asarray(np.where(coarse > 1e-5, np.sqrt(np.maximum(square, 0)), np.nan), np.float32)


def _edge_energy(plane: NDArray[np.float32], sigma_px: float, cell_px: int) -> NDArray[np.float64]:
    soft = cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    energy = cv2.Scharr(soft, cv2.CV_32F, 1, 0) ** 2 + cv2.Scharr(soft, cv2.CV_32F, 0, 1) ** 2
    rows, cols = (length // cell_px for length in plane.shape)
    squares = energy[: rows * cell_px, : cols * cell_px].reshape(rows, cell_px, cols, cell_px)
    return np.asarray(squares.mean(axis=(1, 3), dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class QualityFacts:
    """What is known of an image before its cells are judged.

    Parameters
    ----------
    cells : int
        Counted cells.
    mpp : tuple of 2 float, optional
        (y, x) µm per pixel of the slide itself; None where unknown.
    nucleus_h : float
        99th percentile of the optical density of haematoxylin over the tissue.
    blur_um : (rows, cols) float32
        From `focus_of`, over what was read; may be empty.
    brown : float
        99.9th percentile of the optical density of DAB over the tissue.
    clipped : float
        Share of the brown pixels that are too dark to be measured.
    dark : bool
        A dark background, as of fluorescence.
    looks_like : str
        Stain guessed from the colour of the tissue: "H&E", "IHC" or "unknown".
    """

    cells: int
    mpp: tuple[float, float] | None
    nucleus_h: float
    blur_um: NDArray[np.float32]
    brown: float
    clipped: float
    dark: bool = False
    looks_like: Stain = "IHC"


def quality_reasons(facts: QualityFacts) -> tuple[str, ...]:
    """Why an image gives no score, in sentences with what to do next; empty where it does.

    Parameters
    ----------
    facts : QualityFacts

    Returns
    -------
    tuple of str
    """
    reasons = []
    if facts.mpp is None:
        reasons.append("The slide does not state its µm per pixel: enter it, then read again.")
    elif max(facts.mpp) > 0.6:
        reasons.append(
            f"Membranes cannot be seen at {max(facts.mpp):.2f} µm/px: use a scan of 0.6 µm/px or finer."
        )
    return tuple(reasons)


def quality_warnings(facts: QualityFacts) -> tuple[str, ...]:
    """Say what to keep in mind beside a score, in sentences; empty where there is nothing.

    Parameters
    ----------
    facts : QualityFacts

    Returns
    -------
    tuple of str
    """
    del facts
    return ()
