"""Two slides of a case laid on each other by what is on them: rotation, then affine, then how far off it is.

All of it is deterministic: the same two slides give the same alignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.registration.affine import Alignment
from napari_her2.registration.refining import refining_steps
from napari_her2.registration.residuals import (
    JUDGED,
    MEASURED,
    BlockSize,
    Residuals,
    residuals_of,
)
from napari_her2.registration.rotations import placing_steps
from napari_her2.registration.views import VIEW_PX, View, common_mpp, view_of_picture, view_steps
from napari_her2.slide.tissue import find_tissue
from napari_her2.steps import finished, passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide

LEAST_AGREEMENT = 0.4
"""Share of the blocks of tissue that have to be found near their place. In trials serial sections of one
block had 0.50 to 1.00 and phantoms of different cases at most 0.25 (`benchmarks/registration.py`)."""
CHANCE = 0.15
"""Share that is found near its place where there is nothing in common."""
SURE = 1e-3
"""Probability below which as many blocks as were found are no chance; few blocks have to agree better."""
FINDING, READING = "Finding the tissue", "Reading the slides"
TURNING, ALIGNING, MEASURING = "Trying rotations", "Aligning", "Measuring the error"


class Step(NamedTuple):
    """What is being done, and how far it is: ``done`` of ``total``, 0 where that is not known."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ErrorMap:
    """How far the aligned slides still lie apart, over the fixed slide.

    Parameters
    ----------
    error_um : (rows, columns) float32
        µm; NaN where there is no tissue, or nothing could be found again on the other slide.
    centre_um : tuple of float
        (y, x) of the centre of the first value, µm from the centre of the first pixel of the fixed slide.
    pitch_um : tuple of float
        (y, x) µm from one value to the next.
    reach_um : float
        Greatest error along an axis that could have been found.
    """

    error_um: NDArray[np.float32]
    centre_um: tuple[float, float]
    pitch_um: tuple[float, float]
    reach_um: float

    @property
    def median_um(self) -> float:
        """Median over the slide; NaN where nothing could be measured."""
        known = self.error_um[np.isfinite(self.error_um)]
        return float(np.median(known)) if known.size else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How two slides lie on each other, or why that cannot be told.

    Parameters
    ----------
    alignment : Alignment
        From the moving slide to the fixed one; the identity where it is refused.
    agreement : float
        Share of the blocks of tissue that were found near where the alignment puts them, 0 to 1.
    error : ErrorMap or None
        None where it is refused.
    reason : str
        Why the slides cannot be aligned, for a person; empty where they are.
    """

    alignment: Alignment
    agreement: float = 0.0
    error: ErrorMap | None = None
    reason: str = ""

    @property
    def error_um(self) -> float:
        """Median error over the slide; NaN where there is none."""
        return float("nan") if self.error is None else self.error.median_um


def register_steps(fixed: Slide, moving: Slide) -> Generator[Step, None, Registration]:
    """Align two slides of one case, stained alike or not.

    Parameters
    ----------
    fixed, moving : Slide
        With their µm/px.

    Yields
    ------
    Step
        Closing the generator cancels.

    Returns
    -------
    Registration
        With a reason where the slides cannot be aligned.

    Raises
    ------
    SlideError
        A slide states no µm/px, or cannot be read.
    """
    tissues: list[TissueMask] = []
    for slide in (fixed, moving):
        yield Step(FINDING, len(tissues), 2)
        tissue = find_tissue(slide)
        if tissue.box_px0() is None:
            return _refused(f"There is no tissue to align by on {slide.name}: look at the slide.")
        tissues.append(tissue)
    mpp = common_mpp((fixed, moving), (tissues[0], tissues[1]))
    views = []
    for slide, tissue in zip((fixed, moving), tissues, strict=True):
        reports = view_steps(slide, tissue, mpp)
        views.append((yield from passed_on(reports, lambda report: Step(READING, *report))))
    return (yield from _views_steps(views[0], views[1]))


def register_pictures(
    fixed: NDArray[np.uint8], moving: NDArray[np.uint8], fixed_mpp: float, moving_mpp: float
) -> Registration:
    """Align two pictures that are at hand.

    Parameters
    ----------
    fixed, moving : (h, w, 3) uint8
    fixed_mpp, moving_mpp : float
        µm per pixel.

    Returns
    -------
    Registration
        Of µm from the centres of the first pixels.
    """
    mpp = max(max(fixed.shape[:2]) * fixed_mpp, max(moving.shape[:2]) * moving_mpp) / VIEW_PX
    views = view_of_picture(fixed, fixed_mpp, mpp), view_of_picture(moving, moving_mpp, mpp)
    return finished(_views_steps(*views))


def _views_steps(fixed: View, moving: View) -> Generator[Step, None, Registration]:
    for view, which in ((fixed, "the slide that stays"), (moving, "the slide that moves")):
        if not view.tissue.any() or not view.density.any():
            return _refused(f"There is no tissue to align by on {which}: look at the slide.")
    rotations = placing_steps(fixed.density, moving.density)
    candidates = yield from passed_on(rotations, lambda report: Step(TURNING, *report))
    refining = refining_steps(fixed.density, moving.density, candidates)
    placings = yield from passed_on(refining, lambda report: Step(ALIGNING, *report))
    if not placings:
        return _refused("The tissue of the two slides has nothing in common: are they of one case?")
    judged: list[tuple[Residuals, NDArray[np.float64]]] = []
    for placing in placings:
        yield Step(MEASURING, len(judged), len(placings) + 1)
        judged.append((_compared(fixed, moving, placing.matrix, JUDGED), placing.matrix))
    best, matrix = max(judged, key=lambda of: of[0].near / max(of[0].count, 1))
    reason = _unlike(best)
    agreement = best.near / max(best.count, 1)
    if reason:
        return _refused(reason, agreement)
    yield Step(MEASURING, len(placings), len(placings) + 1)
    try:
        alignment = Alignment(_affine(fixed.matrix @ matrix @ np.linalg.inv(moving.matrix)))
    except JobFailed as error:
        return _refused(str(error), agreement)
    return Registration(alignment, agreement, _error_map(_compared(fixed, moving, matrix, MEASURED), fixed))


def _unlike(judged: Residuals) -> str:
    """Why what an alignment lays on each other is not the same tissue; empty where it is."""
    if CHANCE**judged.count > SURE:
        return (
            "The two slides have too little tissue in common to tell whether they lie on each other: align "
            "them by 3 points."
        )
    agreement = judged.near / judged.count
    if agreement < LEAST_AGREEMENT or _chance_of(judged) > SURE:
        return (
            f"The structure of the two slides agrees in {agreement:.0%} of the tissue only, hardly more than "
            f"in slides of different cases: check that they are of one block, or align them by 3 points."
        )
    return ""


def _chance_of(judged: Residuals) -> float:
    """Probability that so many blocks are near their place by chance: the upper tail of the binomial."""
    from scipy.special import betainc  # of which scipy.stats makes it, after half a second of importing

    return float(betainc(judged.near, judged.count - judged.near + 1, CHANCE)) if judged.near else 1.0


def _compared(fixed: View, moving: View, matrix: NDArray[np.float64], size: BlockSize) -> Residuals:
    """Look for the blocks of the fixed view on the other one, laid on it by pixels of the views."""
    flipped = matrix[[1, 0]][:, [1, 0, 2]]  # OpenCV counts (x, y)
    extent = fixed.density.shape[::-1]
    moved = np.asarray(cv2.warpAffine(moving.density, flipped, extent), np.float32)
    cover = np.asarray(cv2.warpAffine(np.ones_like(moving.density), flipped, extent) > 0.5)
    return residuals_of(fixed.density, moved, fixed.tissue, cover, size)


def _error_map(measured: Residuals, fixed: View) -> ErrorMap:
    first = fixed.matrix @ (*(2 * [(measured.size.side - 1) / 2]), 1.0)
    pitch = measured.size.step * np.diag(fixed.matrix)[:2]
    # Along the axes of the picture, whose pixels are as good as square.
    error = measured.distance_px * np.float32(fixed.pixel_um)
    return ErrorMap(
        error,
        (float(first[0]), float(first[1])),
        (float(pitch[0]), float(pitch[1])),
        measured.size.reach * fixed.pixel_um,
    )


def _affine(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = matrix.copy()
    whole[2] = (0.0, 0.0, 1.0)
    return whole


def _refused(reason: str, agreement: float = 0.0) -> Registration:
    return Registration(Alignment.identity(), agreement, None, reason)
