"""Scales read from headers by ourselves, where the library that opens a file reads none, or fails on them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from napari_her2.slide.facts import UM_PER_UNIT, as_float

_UM_PER_TIFF_UNIT = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}
_IMAGEJ_UNIT = re.compile(r"^unit=(.*)$", re.MULTILINE)


def tag_scale(unit: object, y: object, x: object, description: str = "") -> tuple[float | None, float | None]:
    """Scale from the resolution tags of a TIFF.

    Parameters
    ----------
    unit : object
        ResolutionUnit.
    y, x : object
        YResolution and XResolution, pixels per unit; a number, or numerator and denominator.
    description : str
        ImageDescription; ImageJ writes its unit there.

    Returns
    -------
    tuple of float or None
        (y, x) µm/px; None where they are not stated: no unit, a zero, 0/0.
    """
    per_unit = _UM_PER_TIFF_UNIT.get(int(unit)) if isinstance(unit, (int, float)) else None
    if description.startswith("ImageJ="):
        named = _IMAGEJ_UNIT.search(description)
        per_unit = UM_PER_UNIT.get(named[1].strip().replace("\\u00B5", "µ")) if named else None
    ratio_y, ratio_x = _ratio(y), _ratio(x)
    if per_unit is None or ratio_y is None or ratio_x is None:
        return None, None
    return per_unit / ratio_y, per_unit / ratio_x


def _ratio(value: object) -> float | None:
    if isinstance(value, tuple):
        return as_float(value[0] / value[1]) if len(value) == 2 and value[1] else None
    return as_float(value)


def aperio_fields(description: str) -> dict[str, str]:
    """Fields of the header that Aperio scanners write, ``key = value`` between bars; the last of a name.

    Parameters
    ----------
    description : str
        ImageDescription of the first directory.
    """
    pairs = (part.partition("=") for part in description.split("|")[1:])
    return {key.strip(): value.strip(" \t\r\n\0") for key, equals, value in pairs if equals}


def leica_scale(xml: str) -> tuple[float | None, float | None]:
    """Scale of the scanned areas of a Leica SCN file: their extent on the glass over their pixels.

    Parameters
    ----------
    xml : str
        ImageDescription of the first directory.

    Returns
    -------
    tuple of float or None
        (y, x) µm/px of the finest area; None where the XML does not state it.
    """
    try:
        collection = ElementTree.fromstring(xml).find("{*}collection")
    except (ElementTree.ParseError, ValueError):
        return None, None
    scales = []
    for image in () if collection is None else collection.iterfind("{*}image"):
        pixels, view = image.find("{*}pixels"), image.find("{*}view")
        if pixels is None or view is None:
            continue
        sides = [(as_float(view.get(name)), as_float(pixels.get(name))) for name in ("sizeY", "sizeX")]
        y, x = (nm / px / 1000 if nm and px else None for nm, px in sides)
        if y and x:
            scales.append((y, x))
    return min(scales, default=(None, None), key=lambda scale: scale[1])
