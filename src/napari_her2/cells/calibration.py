"""The gain of a laboratory, from control tissue: how strong the membranes of a 3+ control come out.

Optical densities do not carry over from one laboratory, antibody or scanner to another. A control that is
known to be 3+ and was stained in the same run gives one factor, by which every membrane mass is divided.
Controls of 0, 1+ and 2+, where there are any, are judged with that factor, as a check in words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.cells.rules import CLASSES, Rules, classes
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

REFERENCE_MASS = 0.70
"""Median membrane mass of the complete cells of 3+ tissue, OD·µm, that a gain of 1 stands for.

Measured on one 3+ breast case and one 3+ core: a start, and no standard."""
COMPLETE_FROM = 0.65
"""Share of stained sectors from which a cell of a control counts as complete."""
LEAST_CELLS = 50
"""Complete cells of a 3+ control that a gain needs, and cells of another control that a check needs."""
MOST_PERCENT = 10.0
"""Of the cells of a control: a class of more than that share counts, as in the criteria."""
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, eq=False)
class ControlCells:
    """Cells measured in a control.

    Parameters
    ----------
    level : str
        What it is known to be, one of `napari_her2.cells.rules.CLASSES`.
    completeness : (N,) float32
        Share of stained sectors of each cell.
    raw_mass : (N,) float32
        Mean membrane mass of each cell without a gain, OD·µm.
    """

    level: str
    completeness: NDArray[np.float32]
    raw_mass: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Control:
    """How a control came out under the gain.

    Parameters
    ----------
    level : str
        What it is known to be.
    cells, complete : int
        Cells, and those of them that are complete.
    raw_mass : float
        Median raw mass of the complete cells, OD·µm; 0 where there are none.
    percentages : tuple of float
        Of the cells, of each class from 0 to 3+.
    """

    level: str
    cells: int
    complete: int
    raw_mass: float
    percentages: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A gain, and where it is from.

    Parameters
    ----------
    name : str
        Chosen by the user.
    gain : float
        By which membrane masses are divided.
    date : str
        Day, as 2026-11-28.
    slide, slide_fingerprint : str
        Name of the slide that the controls are on, and the hash of its content.
    cells : int
        Complete cells of the 3+ control, that the gain is from.
    laboratory, antibody, scanner : str
        As the user wrote them; empty where not.
    mpp : float
        µm/px of the slide.
    controls : tuple of Control
    remarks : tuple of str
        What is in doubt, in sentences.
    version : str
        Of napari-her2.

    Raises
    ------
    JobFailed
        If a value cannot be.
    """

    name: str
    gain: float
    date: str
    slide: str
    slide_fingerprint: str
    cells: int
    laboratory: str = ""
    antibody: str = ""
    scanner: str = ""
    mpp: float = 0.0
    controls: tuple[Control, ...] = ()
    remarks: tuple[str, ...] = ()
    version: str = ""

    def __post_init__(self) -> None:
        if checked_name(self.name) != self.name:
            raise JobFailed("The name of a calibration neither begins nor ends with a space.")
        Rules(gain=self.gain)

    def values(self) -> dict[str, Any]:
        """Return all fields, ready for strict JSON."""
        return asdict(self)

    @property
    def words(self) -> str:
        """One line: name, gain, and where it is from."""
        made = ", ".join(text for text in (self.laboratory, self.antibody, self.scanner) if text)
        of = f" ({made})" if made else ""
        return f"{self.name}{of}: gain {self.gain:.3f} from {self.cells:,} cells of {self.slide}, {self.date}"


def checked_name(name: str) -> str:
    """Return the name of a calibration without the space around it.

    Raises
    ------
    JobFailed
        If it is empty, too long, or holds what cannot be printed.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise JobFailed(f"Give the calibration a name of 1 to {LONGEST_NAME} printable characters.")
    return name


def gain_from(completeness: NDArray[np.floating], raw_mass: NDArray[np.floating]) -> float:
    """Gain from the cells of a 3+ control.

    Parameters
    ----------
    completeness : (N,) float
        Share of stained sectors of each cell.
    raw_mass : (N,) float
        Mean membrane mass of each cell without a gain, OD·µm.

    Returns
    -------
    float
        Median raw mass of the complete cells over `REFERENCE_MASS`.

    Raises
    ------
    JobFailed
        If there are too few complete cells, or their membranes are too weak or too strong to be a 3+ control.
    """
    complete = np.asarray(completeness) >= np.float32(COMPLETE_FROM)
    count = int(complete.sum())
    if count < LEAST_CELLS:
        raise JobFailed(
            f"The 3+ control holds {count:,} cell{'s' if count != 1 else ''} with a complete membrane of "
            f"{len(complete):,}, and a calibration needs {LEAST_CELLS}: draw more of the control, and check "
            f"that it is the 3+ control, in focus."
        )
    gain = float(np.median(np.asarray(raw_mass, np.float64)[complete])) / REFERENCE_MASS
    try:
        Rules(gain=gain)
    except JobFailed as error:
        raise JobFailed(
            f"The membranes of the 3+ control give a gain of {gain:.3g}, which no 3+ control has: check that "
            f"the regions lie on the 3+ control of an IHC slide."
        ) from error
    return gain


def judged_controls(
    controls: Sequence[ControlCells],
) -> tuple[float, tuple[Control, ...], tuple[str, ...]]:
    """Gain of the 3+ control, and how all controls come out under it.

    Parameters
    ----------
    controls : sequence of ControlCells
        One of them 3+.

    Returns
    -------
    (float, tuple of Control, tuple of str)
        The gain, the controls in the order of their level, strongest first, and what is in doubt.

    Raises
    ------
    JobFailed
        If there is no 3+ control, or it gives no gain.
    """
    known = {control.level: control for control in controls}
    if "3+" not in known:
        raise JobFailed("There is no 3+ control among the regions: draw one, and call it 3+.")
    gain = gain_from(known["3+"].completeness, known["3+"].raw_mass)
    judged = tuple(_judged(known[level], gain) for level in reversed(CLASSES) if level in known)
    return gain, judged, tuple(remark for control in judged for remark in _remarks(control))


def _judged(control: ControlCells, gain: float) -> Control:
    found = classes(control.completeness, control.raw_mass, Rules(gain=gain))
    counts = np.bincount(found, minlength=len(CLASSES))
    shares = tuple((100 * counts / max(len(found), 1)).tolist())
    masses = control.raw_mass[control.completeness >= np.float32(COMPLETE_FROM)]
    median = float(np.median(masses.astype(np.float64))) if len(masses) else 0.0
    return Control(control.level, len(found), len(masses), median, shares)


def _remarks(control: Control) -> list[str]:
    """Say where a control does not come out as what it is known to be."""
    level, doubt = control.level, "check the control, its outline and the staining of the run"
    if control.cells < LEAST_CELLS:
        return [f"The {level} control holds {control.cells} cells, too few to check the gain by."]
    place, remarks = CLASSES.index(level), list[str]()
    above, reached = sum(control.percentages[place + 1 :]), sum(control.percentages[place:])
    if above > MOST_PERCENT:
        remarks.append(f"In the {level} control {above:.0f} % of the cells come out above {level}: {doubt}.")
    if place and reached <= MOST_PERCENT:
        which = f"{level} or above" if level != CLASSES[-1] else level
        remarks.append(
            f"In the {level} control only {reached:.0f} % of the cells come out as {which}: {doubt}."
        )
    return remarks
