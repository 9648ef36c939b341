"""Whether an image allows membranes to be read: each doubt as a sentence that says what to do next.

The limits were set on seven IHC cores and two other IHC fields of two scanners, at 0.5 µm/px: sharp and
blurred, with haematoxylin or DAB taken out, weakened and strengthened.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.cells.criteria import too_few
from napari_her2.cells.stains import CLIPPED_OD, LEAST_OD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.cells.stains import Stains
    from napari_her2.slide.stain import Stain

COARSEST_MPP = 0.6
"""µm per pixel above which membranes are not seen."""
MOST_BLUR_UM = 0.9
"""Blur of the sharpest fifth above which there is no score: that of sharp slides blurred by 0.85 µm, which
leaves less than half of the mass of a membrane, and less of its completeness."""
SOFT_UM = 0.45
"""Blur above which an image is called soft: sharp slides have 0 to 0.4, blurred by 0.5 µm 0.46 to 0.72."""
OUT_UM = 1.1
"""Blur above which a square is out of focus whatever lies in it: broad membranes alone do not reach it."""
MOST_OUT, TOO_MUCH_OUT = 0.2, 0.5
"""Share of the area that may be out of focus without a word, and with a score."""
LEAST_NUCLEUS_H = 0.06
"""Haematoxylin of nuclei, OD: without counterstain 0.01 to 0.06 was left, with a usual one 0.24 and above."""
NO_BROWN, HARDLY_BROWN = 0.042, 0.10
"""Strongest DAB of the tissue, OD: up to 0.033 where all DAB was taken out, 0.13 in the palest core."""
BROWN_OD = 0.3
MOST_CLIPPED = 0.10
"""Share of brown pixels that may be too dark to be measured: at most 0.002 as found, 0.13 at three times the
DAB of a 3+ core."""
_MOST_PIXELS = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class QualityFacts:
    """What is known of an image before its cells are judged.

    Parameters
    ----------
    cells : int
        Counted cells.
    mpp : tuple of 2 float or None
        (y, x) µm per pixel of the slide itself; None where unknown.
    nucleus_h : float
        99th percentile of the optical density of haematoxylin over the tissue, as `Stains` has it.
    blur_um : (rows, cols) float32
        From `napari_her2.slide.focus.focus_of`, over what was read; may be empty.
    brown, clipped : float
        From `brown_of`.
    dark : bool
        A dark background, from `napari_her2.slide.stain.dark_background`.
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


def brown_of(samples: Sequence[NDArray[np.uint8]], stains: Stains) -> tuple[float, float]:
    """How brown tissue is, and how much of the brown is too dark to be measured.

    Parameters
    ----------
    samples : sequence of (h, w, 3) uint8
        Those that the stains were fitted to.
    stains : Stains

    Returns
    -------
    brown : float
        99.9th percentile of the optical density of DAB over the tissue, of 3 x 3 pixels each, so that it is
        not that of the camera's noise; 0 without tissue.
    clipped : float
        Share of the brown pixels with a channel darker than can be measured, 0 to 1.
    """
    found, dark = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    white = stains.white.astype(np.float32) + 1
    step = ceil(sqrt(sum(piece[..., 0].size for piece in samples) / _MOST_PIXELS)) or 1
    for piece in samples:
        soft = cv2.blur(stains.unmixed(piece)[1], (3, 3))[::step, ::step]
        density = -np.log10((piece[::step, ::step].astype(np.float32) + 1) / white)
        tissue = density.sum(axis=2) > LEAST_OD
        found.append(soft[tissue])
        dark.append(density.max(axis=2)[tissue] > CLIPPED_OD)
    dab, clipped = np.concatenate(found), np.concatenate(dark)
    if not len(dab):
        return 0.0, 0.0
    brown = dab >= BROWN_OD
    return float(np.percentile(dab, 99.9)), float(clipped[brown].mean()) if brown.any() else 0.0


def overall_blur(blur_um: NDArray[np.float32]) -> float:
    """Blur of an image: that of the sharpest fifth of its squares, µm; nan where none can be judged.

    What lies in the other squares may have no sharp edge of its own, as folds and broad membranes.

    Parameters
    ----------
    blur_um : array of float32
        From `napari_her2.slide.focus.focus_of`; not finite where a square cannot be judged.
    """
    judged = blur_um[np.isfinite(blur_um)]
    return float(np.percentile(judged, 20)) if len(judged) else float("nan")


def quality_reasons(facts: QualityFacts) -> tuple[str, ...]:
    """Why an image gives no score, in sentences with what to do next; empty where it does.

    Parameters
    ----------
    facts : QualityFacts

    Returns
    -------
    tuple of str
    """
    wrong = _wrong_slide(facts)
    if wrong:
        return (wrong,)  # all else would only follow from it
    return tuple(filter(None, (_scale(facts), too_few(facts.cells), _focus(facts), *_stains(facts))))


def quality_warnings(facts: QualityFacts) -> tuple[str, ...]:
    """Say what to keep in mind beside a score, in sentences; empty where there is nothing.

    Parameters
    ----------
    facts : QualityFacts

    Returns
    -------
    tuple of str
    """
    if _wrong_slide(facts):
        return ()
    found = []
    blur, out = overall_blur(facts.blur_um), _out_of_focus(facts.blur_um)
    if SOFT_UM < blur <= MOST_BLUR_UM:
        found.append(
            f"The image is soft (blurred by {blur:.2f} µm; sharp slides by less than 0.4 µm), so membranes "
            f"look weaker than they are: a calibration has to come from a control of the same scan."
        )
    if MOST_OUT < out <= TOO_MUCH_OUT and not blur > MOST_BLUR_UM:
        found.append(
            f"{out:.0%} of the area is out of focus: leave it out of the tumour regions, or scan it again."
        )
    if NO_BROWN <= facts.brown < HARDLY_BROWN:
        found.append(
            "There is hardly any brown: check that this is the HER2 slide and its control is stained."
        )
    return tuple(found)


def _wrong_slide(facts: QualityFacts) -> str:
    if facts.dark:
        return "The background is dark, as in fluorescence: cells are read in brightfield HER2 IHC alone."
    if facts.looks_like == "H&E":
        return "The slide looks like H&E, not IHC: open the HER2 IHC slide of the case."
    return ""


def _scale(facts: QualityFacts) -> str:
    if facts.mpp is None:
        return "The slide does not state its µm per pixel: enter it, and read the cells again."
    if max(facts.mpp) > COARSEST_MPP:
        coarse = f"Membranes cannot be seen at {max(facts.mpp):.3g} µm/px"
        return f"{coarse}: use a scan of {COARSEST_MPP} µm/px or finer."
    return ""


def _focus(facts: QualityFacts) -> str:
    blur, out = overall_blur(facts.blur_um), _out_of_focus(facts.blur_um)
    if blur > MOST_BLUR_UM:
        found = f"The image is out of focus (blurred by {blur:.2f} µm, at most {MOST_BLUR_UM} µm is allowed)"
    elif out > TOO_MUCH_OUT:
        found = f"{out:.0%} of the area is out of focus"
    else:
        return ""
    return f"{found}, so membranes look weaker than they are: scan the slide again."


def _out_of_focus(blur_um: NDArray[np.float32]) -> float:
    judged = blur_um[np.isfinite(blur_um)]
    return float(np.mean(judged > OUT_UM)) if len(judged) else 0.0


def _stains(facts: QualityFacts) -> tuple[str, ...]:
    found = []
    if facts.nucleus_h < LEAST_NUCLEUS_H:
        found.append(
            f"The counterstain is too weak to find nuclei (haematoxylin {max(facts.nucleus_h, 0):.2f} OD, at "
            f"least {LEAST_NUCLEUS_H} is needed): counterstain the slide and scan it again."
        )
    if facts.brown < NO_BROWN:
        found.append(
            "There is no brown anywhere: check that this is the HER2 slide and that its control is stained."
        )
    if facts.clipped > MOST_CLIPPED:
        found.append(
            f"The slide is over-stained ({facts.clipped:.0%} of the brown is too dark to be measured), so "
            f"membranes cannot be told from cytoplasm: stain another section."
        )
    return tuple(found)
