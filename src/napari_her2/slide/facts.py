"""What a slide file says about itself: µm/px and where it comes from, objective, vendor.

Nothing is guessed: a value that is missing or makes no physical sense is "not stated".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from xml.etree import ElementTree

from napari_her2.slide.scanner_habits import habit_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Stated: TypeAlias = tuple[str, object, object]
"""A place of a header that states a scale: where, and its (y, x) fields."""

NOT_STATED = "not stated"
GIVEN_BY_USER = "given by the user"
TIFF_RESOLUTION = "TIFF resolution"

# Brightfield scanners sample at 0.1 to 1 µm/px; overviews kept as slides reach some 30 µm/px.
# Below and above these limits the number is an error of the writer (72 dpi is 353 µm/px).
MIN_MPP = 0.05
MAX_MPP = 100.0

# A glass slide is 75 x 25 mm, some are 26 x 77: no scan is larger than it by a fifth.
_GLASS_UM = (90_000.0, 30_000.0)
# Resolutions of screens, printers and document scanners, dots per inch: image editors write them into files
# whose scale they do not know. As px/cm they come rounded, so 0.2 % apart is the same.
_PRINT_DPI = (
    *(72, 75, 90, 96, 100, 120, 144, 150, 180, 192, 200, 220, 240, 250, 266, 288, 300, 350, 360, 400, 450),
    *(480, 500, 600, 720, 800, 900, 1000, 1200, 1440, 1600, 1800, 2000, 2400, 2880, 3000, 3200, 3600, 4000),
    *(4800, 6400, 7200, 9600, 12800),
)
_SAME_DPI = 2e-3
_MOST_STRETCHED = 4.0  # pixels of scanners are square, or nearly; line scanners at worst some times as long
# Objectives are coarse: 20x is 0.346 µm/px on one scanner and 0.5 on another. What two places of one header
# say of the same pixels is no matter of scanners.
_CONTRADICTION = 1.5
_SAME_SCALE = 1.15

_NUMBER = re.compile(
    r"\+?([0-9]+[.,]?[0-9]*|[.,][0-9]+)(e[+-]?[0-9]{1,3})?\s*(x|×|um|µm|μm|microns?)?(/(px|pixel))?",
    re.IGNORECASE,
)

UM_PER_UNIT = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "Å": 1e-4,
    "in": 25400.0,
}


@dataclass(frozen=True, slots=True)
class StatedScale:
    """What one place of a header says of the scale, where it is believed.

    Parameters
    ----------
    source : str
        The place, in words: "OME-XML".
    mpp : tuple of float
        (y, x) µm per level-0 pixel.
    """

    source: str
    mpp: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What the header of a slide states.

    Parameters
    ----------
    vendor : str or None
        Maker of the scanner or of the format.
    objective : float or None
        Magnification of the objective.
    mpp : tuple of float or None
        (y, x) µm per level-0 pixel.
    mpp_source : str
        Where the µm/px comes from, in words.
    icc_profile : bytes or None
        Colour profile.
    warnings : tuple of str
        What a user should know, a sentence each.
    stated : tuple of StatedScale
        All that the header says of the scale and that can be true, what is used first.
    scale_problem : str
        In which way it contradicts itself about the scale, a sentence; empty where it does not.
    scale_doubts : tuple of str
        Those of the warnings that are about the scale: no concern of who knows it better.
    """

    vendor: str | None
    objective: float | None
    mpp: tuple[float, float] | None
    mpp_source: str
    icc_profile: bytes | None
    warnings: tuple[str, ...] = ()
    stated: tuple[StatedScale, ...] = ()
    scale_problem: str = ""
    scale_doubts: tuple[str, ...] = ()


def as_float(value: object) -> float | None:
    """Return the finite positive number that a header field holds, or None.

    A decimal comma is understood, and a unit that may follow the number: "0,4990", "20x", "0.25 µm".
    """
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip(" \t\r\n\0\"'"))
        if found is None:
            return None
        value = found[1].replace(",", ".") + (found[2] or "")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def plausible_mpp(mpp: tuple[float, float]) -> bool:
    """Whether both (y, x) µm/px can be those of a slide."""
    return all(MIN_MPP <= value <= MAX_MPP for value in mpp)


def checked_mpp(
    y: object, x: object, source: str, shape: tuple[int, int] | None = None
) -> tuple[tuple[float, float] | None, str, tuple[str, ...]]:
    """Judge the µm/px that a header states.

    Parameters
    ----------
    y, x : object
        Fields of the header; None where there are none.
    source : str
        Where they come from.
    shape : tuple of int, optional
        (height, width) of level 0, pixels: what would not fit on glass is not believed.

    Returns
    -------
    mpp : tuple of float or None
        (y, x) µm/px, None where they are missing or impossible.
    source : str
    warnings : tuple of str
    """
    if y is None and x is None:
        return None, NOT_STATED, ()
    mpp_y, mpp_x = as_float(y), as_float(x)
    if mpp_y is None or mpp_x is None or not plausible_mpp((mpp_y, mpp_x)) or _stretched(mpp_y, mpp_x):
        reason = "which no scanner makes"
    elif source == TIFF_RESOLUTION and _for_printing(mpp_y) and _for_printing(mpp_x):
        reason = f"which is {25400 / mpp_x:.0f} dots per inch, a resolution for printing"
    elif shape is not None and not _fits_on_glass((mpp_y, mpp_x), shape):
        size = f"{shape[1] * mpp_x / 1000:.0f} x {shape[0] * mpp_y / 1000:.0f} mm"
        reason = f"which makes {size}, more than fits on glass"
    else:
        return (mpp_y, mpp_x), source, ()
    stated = f"The file states {_shown(x)} x {_shown(y)} µm/px ({source}), {reason}"
    return None, NOT_STATED, (f"{stated}: it is ignored; give the right µm/px.",)


def stated_facts(
    *,
    vendor: str | None,
    objective: object,
    mpp: tuple[object, object],
    source: str,
    shape: tuple[int, int],
    icc_profile: bytes | None,
    warnings: tuple[str, ...] = (),
    others: Sequence[Stated] = (),
) -> SlideFacts:
    """Judge what a header states, and put it together.

    Parameters
    ----------
    vendor : str or None
    objective : object
        Field of the header.
    mpp : tuple of object
        (y, x) fields of the header, None where there are none.
    source : str
        Where the µm/px comes from.
    shape : tuple of int
        (height, width) of level 0, pixels.
    icc_profile : bytes or None
    warnings : tuple of str
        What is known already; doubts about the scale are added.
    others : sequence of (str, object, object)
        Other places of the header that state a scale: where, and their (y, x) fields. They are not used, but
        compared with.
    """
    power = as_float(objective)
    judged, used, doubts = checked_mpp(*mpp, source, shape)
    places = [(name, checked_mpp(y, x, name, shape)[0]) for name, y, x in ((source, *mpp), *others)]
    stated = tuple(StatedScale(name, found) for name, found in places if found is not None)
    problem = "" if judged is None else _contradiction(vendor, power, judged, stated)
    doubts += (problem,) if problem else ()
    warnings = (*warnings, *doubts)
    return SlideFacts(vendor, power, judged, used, icc_profile, warnings, stated, problem, doubts)


def _stretched(mpp_y: float, mpp_x: float) -> bool:
    return not 1 / _MOST_STRETCHED <= mpp_y / mpp_x <= _MOST_STRETCHED


def _for_printing(mpp: float) -> bool:
    return any(abs(25400 / mpp / dpi - 1) < _SAME_DPI for dpi in _PRINT_DPI)


def _fits_on_glass(mpp: tuple[float, float], shape: tuple[int, int]) -> bool:
    longer, shorter = sorted((mpp[0] * shape[0], mpp[1] * shape[1]), reverse=True)
    return longer <= _GLASS_UM[0] and shorter <= _GLASS_UM[1]


def _contradiction(
    vendor: str | None, objective: float | None, mpp: tuple[float, float], stated: Sequence[StatedScale]
) -> str:
    """Return the sentence about what does not go together in a header; empty where all does."""
    for other in stated:
        if any(_apart(a, b) > _SAME_SCALE for a, b in zip(mpp, other.mpp, strict=True)):
            return (
                f"The file states {mpp[1]:.4g} µm/px ({stated[0].source}) and {other.mpp[1]:.4g} µm/px "
                f"({other.source}): one of them is wrong; choose the right one, or measure it."
            )
    if objective is None:
        return ""
    size = math.sqrt(mpp[0] * mpp[1])
    usual = {habit_of(vendor, objective).mpp, habit_of(None, objective).mpp}
    if min(_apart(size, habit) for habit in usual) <= _CONTRADICTION:
        return ""
    return (
        f"The file states an objective of {objective:g}x, which makes about {min(usual):.2g} µm/px, and "
        f"{mpp[1]:.4g} µm/px: one of them is wrong; check, and give the right µm/px if it is another."
    )


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _shown(value: object) -> str:
    number = as_float(value)
    return str(value)[:40] if number is None else f"{number:.4g}"


def ome_facts(xml: str, shape: tuple[int, int]) -> tuple[object, object, float | None] | None:
    """Physical pixel size and objective from OME-XML.

    Parameters
    ----------
    xml : str
        The OME-XML of the file.
    shape : tuple of int
        (height, width) of level 0, pixels: says which Image of the XML is meant.

    Returns
    -------
    tuple or None
        µm/px in y, µm/px in x (None where not stated), objective; None where no Image fits.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    for image in root.iterfind("{*}Image"):
        pixels = image.find("{*}Pixels")
        if pixels is None or (pixels.get("SizeY"), pixels.get("SizeX")) != (str(shape[0]), str(shape[1])):
            continue
        return image_facts(root, image)
    return None


def image_facts(root: ElementTree.Element, image: ElementTree.Element) -> tuple[object, object, float | None]:
    """Physical pixel size and objective of one Image of an OME-XML; see `ome_facts`."""
    pixels = image.find("{*}Pixels")
    attributes = {} if pixels is None else pixels.attrib
    return (
        _physical_size(attributes, "PhysicalSizeY"),
        _physical_size(attributes, "PhysicalSizeX"),
        _ome_objective(root, image),
    )


def _physical_size(attributes: Mapping[str, str], name: str) -> object:
    if name not in attributes:
        return None
    scale = UM_PER_UNIT.get(attributes.get(f"{name}Unit", "µm"))
    if scale is None:  # "pixel", "reference frame": no physical size
        return None
    number = as_float(attributes[name])
    return attributes[name] if number is None else number * scale


def _ome_objective(root: ElementTree.Element, image: ElementTree.Element) -> float | None:
    settings = image.find("{*}ObjectiveSettings")
    if settings is None:
        return None
    for objective in root.iterfind(".//{*}Objective"):
        if objective.get("ID") == settings.get("ID"):
            return as_float(objective.get("NominalMagnification"))
    return None
