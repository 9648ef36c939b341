"""What is true about a phantom case: the score, the cells behind it, and where the tumour is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely import build_area
from shapely.geometry import MultiLineString, Polygon, box, mapping
from skimage.measure import find_contours

from napari_her2.phantom.case import PLAIN
from napari_her2.phantom.layout import NODE_UM, Layout
from napari_her2.whole_files import replaced_file

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.phantom.case import Case, MembraneMix, Score
    from napari_her2.phantom.cells import Census

GUIDELINE = "ASCO/CAP 2018, affirmed 2023"
TRUTH_VERSION = 1
_STATEMENT = "synthetic: no patient, no tissue, no staining; for demonstration, training and tests only"


def score_by_criteria(mix: MembraneMix) -> Score:
    """Score percentages of membrane staining by the ASCO/CAP criteria."""
    if mix.intense_complete > 0.1:
        return "3+"
    if mix.intense_complete + mix.weak_moderate_complete > 0.1:
        return "2+"
    if mix.intense_complete + mix.weak_moderate_complete + mix.faint_incomplete > 0.1:
        return "1+"
    return "0"


def tumour_polygons(layout: Layout, shape: tuple[int, int], mpp: float) -> list[Polygon]:
    """Outlines of the tumour nests, (x, y) in level-0 px, within the slide.

    Parameters
    ----------
    shape : (2,) int
        Height and width of level 0 in px.
    """
    plane = np.minimum(layout.tumour, layout.section - 4)
    padded = np.pad(plane, 1, constant_values=-1.0)
    lines = [(line[:, ::-1] - 0.5) * (NODE_UM / mpp) for line in find_contours(padded, 0.0) if len(line) >= 4]
    # Even-odd: a contour within a contour is a hole, and one within a hole an island again.
    region = build_area(MultiLineString(lines))
    region = region.intersection(box(0, 0, shape[1], shape[0])).simplify(0.5 / mpp)
    parts = region.geoms if hasattr(region, "geoms") else [region]
    return [part for part in parts if isinstance(part, Polygon) and part.area > 0]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replaced_file(path) as file:
        file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_regions(path: Path, polygons: list[Polygon]) -> None:
    """Write tumour regions as GeoJSON that QuPath reads as annotations."""
    features = [
        {
            "type": "Feature",
            "geometry": mapping(polygon),
            "properties": {
                "objectType": "annotation",
                "name": f"Tumour {number}",
                "classification": {"name": "Tumour", "color": [200, 0, 0]},
            },
        }
        for number, polygon in enumerate(polygons, start=1)
    ]
    _write_json(path, {"type": "FeatureCollection", "features": features})


def write_truth(
    path: Path,
    case_id: str,
    case: Case,
    census: Census,
    area_mm2: float,
    shape: tuple[int, int],
    mpp: float,
) -> None:
    """Write the truth of a case as JSON."""
    percentages = {name: round(100 * share, 3) for name, share in asdict(census.mix).items()}
    _write_json(
        path,
        {
            "case_id": case_id,
            "synthetic": True,
            "statement": _STATEMENT,
            "version": TRUTH_VERSION,
            "guideline": GUIDELINE,
            "score": case.score,
            "percent_of_tumour_cells": percentages,
            "tumour_cells": census.cells,
            "tumour_area_mm2": round(area_mm2, 6),
            "seed": case.seed,
            "size_px": list(shape),
            "mpp": mpp,
            "morphology": asdict(case.morphology),
            "stain": {"he": asdict(case.he), "ihc": asdict(case.ihc)},
            # Files of plain cases stay what they were.
            **({} if case.levels == PLAIN else {"membranes": case.levels.name}),
        },
    )
