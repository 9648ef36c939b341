"""A calibration from the controls that a person drew on a slide: their cells are read, and give a gain."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.areas import DrawnArea
from napari_her2.cells.bystanders import bystanders
from napari_her2.cells.calibration import Calibration, ControlCells, checked_name, judged_controls
from napari_her2.cells.criteria import LEAST_CELLS as ENOUGH_CELLS
from napari_her2.cells.quality import COARSEST_MPP, QualityFacts, quality_reasons, quality_warnings
from napari_her2.cells.rules import CLASSES, Rules, completeness, membrane_mass
from napari_her2.errors import JobFailed, SlideError
from napari_her2.inference.cell_reading import read_cells
from napari_her2.inference.fit import refuse_unstained, slide_stain
from napari_her2.inference.regions import Region, as_regions, joined, labelled, placed
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_her2.inference.cell_reading import ReadCells
    from napari_her2.inference.regions import Regions
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress

_HER2 = re.compile(r"her[\s-]?2(?:/neu)?", re.IGNORECASE)
_LEVEL = re.compile(r"(?<![\d.])([123])\s*\+|(?<![\d.+])0(?![\w.+])|^\s*([123])\s*$")


def calibrating(
    slide: Slide,
    regions: Regions,
    name: str,
    *,
    laboratory: str = "",
    antibody: str = "",
    scanner: str = "",
    cache: bool = True,
) -> Generator[Progress, None, Calibration]:
    """Work out a calibration; nothing is kept yet (`napari_her2.cells.calibration_store`).

    Parameters
    ----------
    slide : Slide
        IHC, with control tissue.
    regions : Path, str or sequence of Region and shapely polygons
        The controls, see `controls_of`; what is excluded otherwise (folds, necrosis) is left out of them.
    name : str
        To keep it by.
    laboratory, antibody, scanner : str
        Noted with it.
    cache : bool
        Whether cells are looked up and kept on disk.

    Yields
    ------
    Progress
        Closing the generator cancels.

    Returns
    -------
    Calibration

    Raises
    ------
    SlideError, JobFailed
        If the slide or the controls allow no calibration.
    """
    name = checked_name(name)
    drawn = as_regions(placed(regions, slide))
    controls = controls_of(drawn)
    _check(slide)
    # The controls take the place of the tumour, and what is excluded otherwise is left out of them.
    where = [replace(region, kind="tumour") for held in controls.values() for region in held]
    where += [region for region in drawn if not region.included and region.kind != "control"]
    area = DrawnArea(joined(where))
    read = yield from read_cells(slide, area, cache=cache)
    doubts = _doubts(slide, read, area)
    cells, rules = read.cells, Rules()
    number = labelled(cells.centre_um.astype(np.float64) / slide.known_mpp, where)
    place_of = np.repeat(np.arange(len(controls)), [len(held) for held in controls.values()])
    level = np.where((number >= 0) & ~bystanders(cells, rules), place_of[number], -1)
    complete, mass = completeness(cells, rules), membrane_mass(cells)
    gain, judged, remarks = judged_controls(
        [
            ControlCells(of, complete[level == place], mass[level == place])
            for place, of in enumerate(controls)
        ]
    )
    return Calibration(
        name=name,
        gain=gain,
        date=datetime.now(UTC).date().isoformat(),
        slide=slide.name,
        slide_fingerprint=slide.fingerprint,
        cells=next(control.complete for control in judged if control.level == "3+"),
        laboratory=laboratory.strip(),
        antibody=antibody.strip(),
        scanner=scanner.strip(),
        mpp=float(np.mean(slide.known_mpp)),
        controls=judged,
        remarks=(*doubts, *remarks),
        version=__version__,
    )


def controls_of(regions: Sequence[Region]) -> dict[str, tuple[Region, ...]]:
    """Which of the drawn regions are controls, by what they are known to be.

    Parameters
    ----------
    regions : sequence of Region
        Those of the kind control; all that are not excluded where there is none of that kind.

    Returns
    -------
    dict of str to tuple of Region
        Each of "3+", "2+", "1+" and "0" that was drawn, read from the names ("3+", "control 1+", "0"). A lone
        region without such a name is the 3+ control.

    Raises
    ------
    JobFailed
        If there is no 3+ control, or it is not said what a region is.
    """
    found = [region for region in regions if region.kind == "control"]
    found = found or [region for region in regions if region.included]
    if not found:
        raise JobFailed("No control is drawn: draw a region around the 3+ control, and call it 3+.")
    controls: dict[str, list[Region]] = {}
    for region in found:
        level = level_of(region.name)
        if not level and len(found) > 1:
            raise JobFailed(
                f'It is not said what the control "{region.name}" is: name each control 3+, 2+, 1+ or 0.'
            )
        controls.setdefault(level or "3+", []).append(region)
    if "3+" not in controls:
        raise JobFailed("There is no 3+ control among the regions: draw one, and call it 3+.")
    return {level: tuple(controls[level]) for level in reversed(CLASSES) if level in controls}


def level_of(name: str) -> str:
    """Return the score that the name of a control says; empty where it says none, or two.

    Examples
    --------
    >>> level_of("HER2 3+"), level_of("control 0"), level_of("2"), level_of("breast")
    ('3+', '0', '2+', '')
    """
    found = _LEVEL.finditer(_HER2.sub(" ", name))  # the 2 of HER2 is no score
    levels = {f"{digit}+" if (digit := match[1] or match[2]) else "0" for match in found}
    return levels.pop() if len(levels) == 1 else ""


def _check(slide: Slide) -> None:
    """Refuse what shows no membranes before anything is read of it."""
    mpp = max(slide.known_mpp)
    if mpp > COARSEST_MPP:
        raise SlideError(
            f"Membranes cannot be seen at {mpp:.2f} µm/px: use a scan of {COARSEST_MPP} µm/px or finer."
        )
    tissue = slide.tissue("auto")
    refuse_unstained(slide, tissue, "auto", override=False)
    if slide_stain(slide, tissue, "auto") == "H&E":
        raise SlideError(f"{slide.name} looks like H&E: draw the controls on the HER2 IHC slide.")


def _doubts(slide: Slide, read: ReadCells, area: DrawnArea) -> tuple[str, ...]:
    """Return what to keep in mind of the image; JobFailed where no membrane can be read of it."""
    squares = np.argwhere(np.isfinite(read.focus))
    side = np.array(read.square_um) / slide.known_mpp
    boxes = np.concatenate([squares * side, (squares + 1) * side], axis=1)
    facts = QualityFacts(
        cells=max(len(read.cells), ENOUGH_CELLS),  # of too few, the gain itself says how many there are
        mpp=slide.known_mpp,
        nucleus_h=read.fit.stains.nucleus_h,
        blur_um=read.focus[tuple(squares[area.meets(boxes)].T)][None],
        brown=read.fit.brown,
        clipped=read.fit.clipped,
    )
    if reasons := quality_reasons(facts):
        raise JobFailed(" ".join(reasons))
    return quality_warnings(facts)
