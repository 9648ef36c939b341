"""Drawn shapes as they are kept: GeoJSON that any program reads as regions, with what makes each exact.

A feature holds the outline as it was drawn, (x, y) in level-0 pixels. What GeoJSON has no word for (that a
shape is an ellipse, on which layer it lies, that it is only proposed) stands in its property "napari_her2".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from napari_her2.inference.region_files import FARTHEST_PX, MAX_POINTS
from napari_her2.inference.region_kinds import KINDS, LONGEST_NAME, Region, valid_area
from napari_her2.outside import MiB, Reading, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

PROPOSED = "proposal"
"""Kind of a shape that nobody has accepted yet; a region has none of that kind."""
SHAPES = ("polygon", "rectangle", "ellipse", "path", "line")
"""What can be drawn; the last two enclose nothing."""
_OPEN = ("path", "line")
_OWN = "napari_her2"
_CORNERS = 4
_GREY = (150, 150, 150)
_NAME = "The file of the kept regions"
_KEPT = Reading(limit=512 * MiB, advice="it is left as it is, and its regions cannot be brought back")


@dataclass(frozen=True, slots=True, eq=False)
class KeptShape:
    """One drawn shape.

    Parameters
    ----------
    outline_px0 : (N, 2) float64
        (y, x) in level-0 pixels, counted from the corner of the slide; the first point is not repeated.
    shape : str
        One of `SHAPES`.
    kind : str
        A key of `napari_her2.inference.region_kinds.KINDS`, or `PROPOSED`.
    name : str
        Of the region; empty where it has none.
    layer : str
        Name of the layer that it was drawn on: shapes of one layer come back on one.
    box_px0 : (4, 2) float64 or None
        Corners of the box around an ellipse, (y, x); None for every other shape.
    """

    outline_px0: NDArray[np.float64]
    shape: str = "polygon"
    kind: str = "tumour"
    name: str = ""
    layer: str = ""
    box_px0: NDArray[np.float64] | None = None

    @property
    def key(self) -> tuple[str, str, bytes]:
        """The same for shapes that are the same: what it is, and where."""
        return self.shape, self.kind, self.outline_px0.tobytes()

    @property
    def region(self) -> Region | None:
        """The region that it is; None of a line, and of what is only proposed."""
        if self.shape in _OPEN or self.kind == PROPOSED or len(self.outline_px0) < 3:
            return None
        area = valid_area(shapely.Polygon(self.outline_px0[:, ::-1]))
        return None if area.is_empty else Region(area, self.name, self.kind)


def shapes_geojson(shapes: Iterable[KeptShape]) -> str:
    """Return shapes as the text of a GeoJSON file.

    Parameters
    ----------
    shapes : iterable of KeptShape
    """
    features = [_feature(shape) for shape in shapes]
    return json.dumps(
        {"type": "FeatureCollection", "features": features}, ensure_ascii=False, allow_nan=False
    )


def read_shapes(data: bytes) -> tuple[KeptShape, ...]:
    """Read what `shapes_geojson` wrote.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    tuple of KeptShape

    Raises
    ------
    JobFailed
        If it is damaged, cut off, or holds something that was never drawn on a slide.
    """
    content = _KEPT.parsed_json(_KEPT.text_of(data, _NAME), _NAME)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise _KEPT.refusal(_NAME, "holds no regions")
    try:
        shapes = tuple(_shape(feature) for feature in features)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _KEPT.refusal(_NAME, "holds something that is no region") from error
    if sum(len(shape.outline_px0) for shape in shapes) > MAX_POINTS:
        raise _KEPT.refusal(_NAME, f"holds more than {MAX_POINTS:,} points")
    return shapes


def _feature(shape: KeptShape) -> dict[str, Any]:
    points = _listed(shape.outline_px0)
    is_open = shape.shape in _OPEN
    kind = KINDS.get(shape.kind)
    own: dict[str, Any] = {"shape": shape.shape, "kind": shape.kind, "layer": shape.layer}
    if shape.box_px0 is not None:
        own["box"] = _listed(shape.box_px0)
    title, colour = ("Proposed", _GREY) if kind is None else (kind.qupath_class, kind.colour)
    return {
        "type": "Feature",
        "geometry": {
            "type": "LineString" if is_open else "Polygon",
            "coordinates": points if is_open else [[*points, *points[:1]]],
        },
        "properties": {
            "objectType": "annotation",
            "name": shape.name,
            "classification": {"name": title, "color": list(colour)},
            _OWN: own,
        },
    }


def _shape(feature: Any) -> KeptShape:  # noqa: ANN401 - JSON
    properties, held = feature["properties"], feature["geometry"]["coordinates"]
    own = properties[_OWN]
    shape, kind = own["shape"], own["kind"]
    if shape not in SHAPES or (kind not in KINDS and kind != PROPOSED):
        raise ValueError("a shape or a kind that is not known")
    points = _points(held if shape in _OPEN else held[0][:-1])
    box = own.get("box")
    corners = None if box is None else _points(box)
    if (shape == "ellipse") != (corners is not None) or (corners is not None and len(corners) != _CORNERS):
        raise ValueError("an ellipse without its box")
    return KeptShape(
        points, shape, kind, _text(properties.get("name", "")), _text(own.get("layer", "")), corners
    )


def _points(listed: Any) -> NDArray[np.float64]:  # noqa: ANN401 - JSON
    """(N, 2) points (y, x) of pairs (x, y)."""
    for x, y in listed:
        if type(x) not in (int, float) or type(y) not in (int, float):
            raise TypeError("a position is no two numbers")
    points = np.array(listed, np.float64).reshape(-1, 2)
    if not len(points) or np.abs(points).max() > FARTHEST_PX:
        raise ValueError("no position on a slide")
    return np.ascontiguousarray(points[:, ::-1])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is no text")
    return shown(value, LONGEST_NAME)


def _listed(points: NDArray[np.float64]) -> list[list[float]]:
    listed: list[list[float]] = points[:, ::-1].tolist()
    return listed
