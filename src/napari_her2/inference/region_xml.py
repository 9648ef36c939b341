"""Regions as ImageScope (Aperio) and NDP.view (Hamamatsu) write them: XML, of any origin.

ImageScope counts pixels of level 0 from the upper left corner of the slide. A layer is an ``Annotation``,
whose name, or whose colour, is its class; a region with ``NegativeROA`` is cut out of the others there.
NDP.view counts nanometres from the centre of the glass.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.inference.region_frame import NO_FRAME
from napari_her2.inference.region_kinds import (
    KINDS,
    LONGEST_NAME,
    Region,
    kind_of_class,
    name_by_class,
    valid_area,
)
from napari_her2.inference.xml_tree import read_xml
from napari_her2.outside import MiB, Reading, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray

    from napari_her2.inference.region_frame import RegionFrame

XML_FILES = Reading(
    limit=256 * MiB, advice="export the regions again from the program that they were drawn with"
)
MOST_POINTS = 2_000_000
FARTHEST_PX = 1e9
_ENCLOSING = {"0", "1", "2"}  # polygon or freehand, rectangle, ellipse; others are arrows and rulers
_RECTANGLE, _ELLIPSE = "1", "2"
_SCALE_TOLERANCE = 0.05
_CORNERS = 72


def read_xml_regions(path: Path | str, frame: RegionFrame = NO_FRAME) -> list[Region]:
    """Read regions of ImageScope or NDP.view, told apart by what the file holds.

    Parameters
    ----------
    path : Path or str
        An .xml or .ndpa file.
    frame : RegionFrame
        Of the slide that they were drawn on.

    Returns
    -------
    list of Region
        (x, y) in level-0 pixels, valid.

    Raises
    ------
    JobFailed
        If it cannot be read, holds no closed region, or needs what the slide does not state.
    """
    root = read_xml(path, XML_FILES)
    if root.tag == "Annotations":
        regions = list(_aperio(path, root, frame))
    elif root.tag == "annotations":
        regions = list(_hamamatsu(path, root, frame))
    else:
        raise XML_FILES.refusal(path, f"holds {shown(root.tag, 40)!r}, not regions of ImageScope or NDP.view")
    if not regions:
        raise JobFailed(f"{shown(Path(path).name)} holds no closed region: draw at least one.")
    return regions


def _aperio(path: Path | str, root: Element, frame: RegionFrame) -> Iterator[Region]:
    _refuse_other_scale(path, root.get("MicronsPerPixel"), frame)
    points = _Points(path)
    for layer in root.iter("Annotation"):
        class_name, kind = _class_of_layer(layer)
        drawn = [
            (region, area)
            for region in layer.iter("Region")
            if (area := _aperio_area(region, points)) is not None
        ]
        cut = [area for region, area in drawn if region.get("NegativeROA") == "1"]
        kept = [(region, area) for region, area in drawn if region.get("NegativeROA") != "1"]
        if not kept:  # nothing to be cut out of: it is left out of whatever else is drawn
            yield from (Region(area, class_name, "other") for area in cut)
        for region, area in kept:
            left = valid_area(shapely.difference(area, shapely.union_all(cut))) if cut else area
            if not left.is_empty:
                name = _text(region.get("Text")) or name_by_class(class_name)
                yield Region(left, name, kind, class_name=class_name)


def _class_of_layer(layer: Element) -> tuple[str, str]:
    """Class of a layer of ImageScope, by its name, else by its colour; and the kind that it means."""
    name = _text(layer.get("Name"))
    if not name:
        name = next(
            (_text(of.get("Value")) for of in layer.iter("Attribute") if of.get("Name") == "Description"), ""
        )
    if name:
        return name, kind_of_class(name)
    try:
        number = int(layer.get("LineColor", ""))
    except ValueError:
        number = -1
    colour = (number & 255, number >> 8 & 255, number >> 16 & 255)  # as Windows has it: blue is the highest
    return "", next((kind.name for kind in KINDS.values() if kind.colour == colour), "tumour")


def _aperio_area(region: Element, points: _Points) -> Any:  # noqa: ANN401 - a shapely geometry
    kind = region.get("Type", "0")
    if kind not in _ENCLOSING:
        return None
    corners = points.of((of.get("X"), of.get("Y")) for of in region.iter("Vertex"))
    return _enclosed(corners, boxed=kind == _RECTANGLE and len(corners) == 2, round_=kind == _ELLIPSE)


def _hamamatsu(path: Path | str, root: Element, frame: RegionFrame) -> Iterator[Region]:
    points = _Points(path)
    for view in root.iter("ndpviewstate"):
        drawn = view.find("annotation")
        if drawn is None or _text_of(view, "coordformat") not in ("", "nanometers"):
            continue
        corners = _hamamatsu_outline(drawn, points)
        if corners is None:
            continue
        area = _enclosed(frame.px_of_nm(corners, Path(path).name))
        class_name = _text_of(view, "title")
        if area is not None:
            yield Region(area, name_by_class(class_name), kind_of_class(class_name), class_name=class_name)


def _hamamatsu_outline(drawn: Element, points: _Points) -> NDArray[np.float64] | None:
    """(N, 2) nanometres (x, y); None of what encloses nothing."""
    kind = drawn.get("type")
    if kind == "circle":
        circle = points.of([(drawn.findtext("x"), drawn.findtext("y")), (drawn.findtext("radius"), "0")])
        return np.asarray(circle[0] + circle[1, 0] * _unit_circle(), np.float64)
    if kind != "freehand" or (drawn.findtext("closed") or "1").strip() != "1":
        return None
    return points.of((of.findtext("x"), of.findtext("y")) for of in drawn.iter("point"))


def _enclosed(corners: NDArray[np.float64], *, boxed: bool = False, round_: bool = False) -> Any:  # noqa: ANN401
    """Return what corners enclose; None for nothing."""
    if len(corners) and (boxed or round_):
        low, high = corners.min(axis=0), corners.max(axis=0)
        if boxed:
            corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
        else:
            corners = (low + high) / 2 + (high - low) / 2 * _unit_circle()
    if len(corners) < 3:
        return None
    area = valid_area(shapely.Polygon(corners))
    return None if area.is_empty else area


def _unit_circle() -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


class _Points:
    """Positions of a file, checked and counted."""

    def __init__(self, path: Path | str) -> None:
        self._path, self._count = path, 0

    def of(self, pairs: Any) -> NDArray[np.float64]:  # noqa: ANN401 - pairs of texts
        """(N, 2) positions."""
        found = []
        for x, y in pairs:
            self._count += 1
            if self._count > MOST_POINTS:
                raise XML_FILES.refusal(self._path, f"holds more than {MOST_POINTS:,} points")
            try:
                found.append((float(x), float(y)))
            except (TypeError, ValueError) as problem:
                raise XML_FILES.refusal(self._path, "has a position that is no two numbers") from problem
            if not all(isfinite(of) and abs(of) <= FARTHEST_PX for of in found[-1]):
                raise XML_FILES.refusal(self._path, "has a position that no slide has")
        return np.array(found, np.float64).reshape(-1, 2)


def _refuse_other_scale(path: Path | str, stated: str | None, frame: RegionFrame) -> None:
    try:
        mpp = float(stated or "nan")
    except ValueError:
        return
    if frame.mpp is None or not isfinite(mpp) or mpp <= 0:
        return
    known = frame.mpp[1]
    if abs(mpp / known - 1) > _SCALE_TOLERANCE:
        raise JobFailed(
            f"{shown(Path(path).name)} was drawn on a slide of {mpp:.4g} µm/px, and this one has "
            f"{known:.4g}: choose the file of this slide, or check its µm/px."
        )


def _text(value: str | None) -> str:
    return shown(value or "", LONGEST_NAME).strip()


def _text_of(parent: Element, name: str) -> str:
    return _text(parent.findtext(name))
