"""Calibrations for the dock: made from drawn controls in a thread, kept, and applied to a result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2._napari.region_kinds import CONTROL
from napari_her2.errors import JobFailed
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.cells.calibration import Calibration
    from napari_her2.inference.regions import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.reader import Slide

UNCALIBRATED = 1.0
"""The gain where there is no calibration."""


@dataclass(frozen=True, slots=True)
class CalibrationNames:
    """What the user calls a calibration, and notes with it.

    Parameters
    ----------
    name, laboratory, antibody, scanner : str
    """

    name: str
    laboratory: str = ""
    antibody: str = ""
    scanner: str = ""


def making_calibration(
    slide: Slide, regions: Sequence[Region], names: CalibrationNames, *, replace_same: bool = False
) -> Generator[Progress, None, Calibration]:
    """Read the cells of the controls, work out the gain and keep it.

    Parameters
    ----------
    slide : Slide
    regions : sequence of Region
        Those of the kind control are the controls; what is left out otherwise is left out of them too.
    names : CalibrationNames
    replace_same : bool
        Whether it may take the place of another one of its name.

    Raises
    ------
    CalibrationKept
        If there is one of that name, before anything is read.
    """
    yield Progress("Looking at the controls")
    from napari_her2.cells.calibration_store import check_free, keep_calibration
    from napari_her2.inference.calibrating import calibrating

    check_free(names.name, replace=replace_same)
    made = yield from calibrating(
        slide,
        controls_among(regions),
        names.name,
        laboratory=names.laboratory,
        antibody=names.antibody,
        scanner=names.scanner,
    )
    keep_calibration(made, replace=replace_same)
    return made


def controls_among(regions: Sequence[Region]) -> list[Region]:
    """Return the controls, and what is left out of them; never the tumour.

    Raises
    ------
    JobFailed
        If no control is drawn.
    """
    if not any(region.kind == CONTROL for region in regions):
        raise JobFailed(
            "No control tissue is drawn: draw the 3+ control under Region, as control tissue 3+, first."
        )
    return [region for region in regions if not region.included]


def controls_in_words(regions: Sequence[Region]) -> str:
    """Say which controls are drawn: "3+ (2 regions), 0 (1 region)"; empty where there are none."""
    names = [region.name for region in regions if region.kind == CONTROL]
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{name} ({count} region{'s' if count > 1 else ''})" for name, count in counts.items())


def recalibrated(result: SlideResult, calibration: Calibration | None) -> SlideResult:
    """Judge the cells of a result with the gain of a calibration; the thresholds stay as they are.

    Parameters
    ----------
    result : SlideResult
        Of a method that reads cells.
    calibration : Calibration or None
        None for none.

    Raises
    ------
    JobFailed
        If the result holds no cells.
    """
    from napari_her2.methods.catalogue import METHODS

    reading = result.slides[0].cells
    if reading is None:
        raise JobFailed("This result holds no cells that a calibration could be applied to: score the slide.")
    gain, name = (UNCALIBRATED, "") if calibration is None else (calibration.gain, calibration.name)
    return METHODS[result.method].rejudged(result, replace(reading.rules, gain=gain), name)
