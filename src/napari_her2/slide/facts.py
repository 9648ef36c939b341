"""What a slide file says about itself: µm/px and where it comes from, objective, vendor.

Nothing is guessed: a value that is missing or makes no physical sense is "not stated".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_STATED = "not stated"
GIVEN_BY_USER = "given by the user"

# Brightfield scanners sample at 0.1 to 1 µm/px; overviews kept as slides reach some 30 µm/px.
# Below and above these limits the number is an error of the writer (72 dpi is 353 µm/px).
MIN_MPP = 0.05
MAX_MPP = 100.0

_UM_PER_UNIT = {
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
    """

    vendor: str | None
    objective: float | None
    mpp: tuple[float, float] | None
    mpp_source: str
    icc_profile: bytes | None
    warnings: tuple[str, ...] = ()


def as_float(value: object) -> float | None:
    """Return the finite positive number that a header field holds, or None."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def plausible_mpp(mpp: tuple[float, float]) -> bool:
    """Whether both (y, x) µm/px can be those of a slide."""
    return all(MIN_MPP <= value <= MAX_MPP for value in mpp)


def checked_mpp(y: object, x: object, source: str) -> tuple[tuple[float, float] | None, str, tuple[str, ...]]:
    """Judge the µm/px that a header states.

    Parameters
    ----------
    y, x : object
        Fields of the header; None where there are none.
    source : str
        Where they come from.

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
    if mpp_y is not None and mpp_x is not None and plausible_mpp((mpp_y, mpp_x)):
        return (mpp_y, mpp_x), source, ()
    return (
        None,
        NOT_STATED,
        (
            f"The file states {_shown(x)} x {_shown(y)} µm/px ({source}), which no scanner makes: it is "
            f"ignored; give the right µm/px.",
        ),
    )


def _shown(value: object) -> str:
    number = as_float(value)
    return str(value) if number is None else f"{number:.4g}"


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
        return (
            _physical_size(pixels.attrib, "PhysicalSizeY"),
            _physical_size(pixels.attrib, "PhysicalSizeX"),
            _ome_objective(root, image),
        )
    return None


def _physical_size(attributes: Mapping[str, str], name: str) -> object:
    if name not in attributes:
        return None
    scale = _UM_PER_UNIT.get(attributes.get(f"{name}Unit", "µm"))
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
