"""Where the µm/px of a slide can be known from: its header, the habit of its scanner, a line of known length.

Nothing is chosen here: a person does, and every result says from what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_her2.errors import SlideError
from napari_her2.number_words import counted
from napari_her2.slide.facts import MAX_MPP, MIN_MPP, plausible_mpp
from napari_her2.slide.scanner_habits import MAGNIFICATIONS, habit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.facts import StatedScale

MEASURED = "measured"
"""Begins the words of every scale that was measured on the slide."""
_LEAST_LINE_PX = 3.0


class Scaled(Protocol):
    """What is asked of a slide; `napari_her2.slide.reader.Slide` has it."""

    @property
    def mpp(self) -> tuple[float, float] | None:
        """(y, x) µm/px."""

    @property
    def mpp_given(self) -> bool:
        """Whether a person gave it."""

    @property
    def vendor(self) -> str | None:
        """Maker of the scanner."""

    @property
    def objective(self) -> float | None:
        """Magnification."""

    @property
    def stated_scales(self) -> tuple[StatedScale, ...]:
        """What the header says."""

    @property
    def header_contradiction(self) -> str:
        """In which way it contradicts itself."""


@dataclass(frozen=True, slots=True)
class ScaleSource:
    """A place that the µm/px of a slide can be known from.

    Parameters
    ----------
    name : str
        Tells it from the others of a slide.
    title : str
        As it is offered and noted: "Aperio header".
    mpp : tuple of float
        (y, x) µm per level-0 pixel.
    reason : str
        Why it may be right, and how far: a sentence.
    """

    name: str
    title: str
    mpp: tuple[float, float]
    reason: str


@dataclass(frozen=True, slots=True)
class Ruler:
    """Something of known length on slides.

    Parameters
    ----------
    name : str
    title : str
        As it is offered.
    noun : str
        As it is counted: "erythrocyte".
    length_um : float or None
        None where whoever measures has to say it.
    reason : str
        How well the length is known, a sentence.
    """

    name: str
    title: str
    noun: str
    length_um: float | None
    reason: str


RULERS = (
    Ruler(
        "scale bar",
        "scale bar in the image",
        "scale bar",
        None,
        "Draw a line from end to end of the bar, and type the length that is written at it.",
    ),
    # 6.2 to 8.2 µm fresh (Turgeon, Clinical Hematology); about 7, from 6 to 8, in sections stained with H&E
    # (UNSW Embryology, "Blood Cell Histology"), where fixation and embedding shrink it.
    Ruler(
        "erythrocyte",
        "erythrocytes (7 µm)",
        "erythrocyte",
        7.0,
        "Draw a line across each of some five round red cells. In fixed sections they are about 7 µm wide, "
        "6 to 8: the µm/px are known to some 15 %, a scale bar is better.",
    ),
    Ruler(
        "other",
        "something else",
        "structure of known length",
        None,
        "Draw a line over what you know the length of (a tissue core, a ruler on the glass), and type it.",
    ),
)


@dataclass(frozen=True, slots=True)
class MeasuredScale:
    """µm/px from lines over something of known length.

    Parameters
    ----------
    mpp : float
    spread : float
        Standard deviation of the lines over their mean; 0 of a single line.
    lines : int
    words : str
        What it was measured on: "measured on 3 erythrocytes".
    """

    mpp: float
    spread: float
    lines: int
    words: str


def sources_of(slide: Scaled) -> tuple[ScaleSource, ...]:
    """Known sources of the µm/px of a slide, the most trustworthy first.

    Parameters
    ----------
    slide : Slide

    Returns
    -------
    tuple of ScaleSource
        Empty only where nothing at all is known. Without a magnification there is a habit for each usual one.
    """
    found = [
        ScaleSource(f"header {at}", stated.source, stated.mpp, "The file states it.")
        for at, stated in enumerate(slide.stated_scales)
    ]
    for magnification in (slide.objective,) if slide.objective else MAGNIFICATIONS:
        habit = habit_of(slide.vendor, magnification)
        whose = f"{habit.maker} scanners" if habit.maker else "most scanners"
        known = (
            f"The file states an objective of {magnification:g}×"
            if slide.objective
            else f"If it was scanned at {magnification:g}×, which the file does not say"
        )
        found.append(
            ScaleSource(
                f"habit {magnification:g}x",
                f"usual at {magnification:g}×" + (f" ({habit.maker})" if habit.maker else ""),
                (habit.mpp, habit.mpp),
                f"{known}: {whose} then make about {habit.mpp:.4g} µm/px. A habit, not a measurement: others "
                f"differ by up to a third.",
            )
        )
    return tuple(found)


def scale_problem(slide: Scaled) -> str:
    """Say why the µm/px of a slide cannot be used as they are; empty where they can.

    Parameters
    ----------
    slide : Slide

    Returns
    -------
    str
        A sentence: they are missing, or the header contradicts itself. What a person gave is no problem.
    """
    if slide.mpp is None:
        return "The µm/px of the slide are not known: choose a source under Slide, or measure them."
    if slide.mpp_given:
        return ""
    return slide.header_contradiction


def measured_scale(
    lines_px0: Sequence[NDArray[np.floating]], ruler: Ruler, length_um: float
) -> MeasuredScale:
    """Work out µm/px from lines over something of known length.

    Parameters
    ----------
    lines_px0 : sequence of (N, 2) float
        Points of each line in level-0 pixels; of a line of several pieces the pieces are added.
    ruler : Ruler
    length_um : float
        Of what each line was drawn over, µm.

    Returns
    -------
    MeasuredScale
        The length over the mean length of the lines: pixels are taken as square.

    Raises
    ------
    SlideError
        If there is no line, one is too short, or the µm/px that follow can be those of no slide.
    """
    lengths = np.array([np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in lines_px0])
    if not len(lengths):
        raise SlideError(f"No line is drawn yet: draw one over a {ruler.noun} of known length.")
    if lengths.min() < _LEAST_LINE_PX:
        raise SlideError(
            "One of the lines is shorter than three pixels: delete it, or zoom in and draw it anew."
        )
    if not np.isfinite(length_um) or length_um <= 0:
        raise SlideError(f"Type how long the {ruler.noun} is, in µm.")
    mpp = float(length_um / lengths.mean())
    if not plausible_mpp((mpp, mpp)):
        raise SlideError(
            f"{length_um:g} µm over {lengths.mean():,.0f} px make {mpp:.3g} µm/px, which no slide has "
            f"({MIN_MPP:g} to {MAX_MPP:g}): check the length and its unit."
        )
    spread = float(lengths.std(ddof=1) / lengths.mean()) if len(lengths) > 1 else 0.0
    words = f"{MEASURED} on {counted(len(lengths), ruler.noun, _more(ruler.noun))}"
    return MeasuredScale(mpp, spread, len(lengths), f"{words} of {length_um:g} µm")


def _more(noun: str) -> str:
    return noun.replace("structure", "structures", 1) if noun.startswith("structure") else f"{noun}s"
