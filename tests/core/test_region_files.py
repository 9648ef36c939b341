"""Region files of any origin: all that hold polygons are read, the others refused in one sentence."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import shapely

from napari_her2.errors import JobFailed
from napari_her2.inference.regions import MAX_CROSSINGS, read_regions, tiles_inside
from napari_her2.slide.grid import TileGrid
from napari_her2_training.cohort.outlines import tumour_share


def square(x, y, side):
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry):
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}


def collection(*geometries):
    return {"type": "FeatureCollection", "features": [feature(geometry) for geometry in geometries]}


A = polygon(square(0, 0, 1000))
HOLE = polygon(square(0, 0, 2000), square(500, 500, 1000))
LINE = {"type": "LineString", "coordinates": [[0, 0], [900, 900]]}
BOTH = {"type": "MultiPolygon", "coordinates": [A["coordinates"], [square(1200, 1200, 600)]]}
BOW = polygon([[0, 0], [1000, 1000], [1000, 0], [0, 1000], [0, 0]])

READABLE = {
    "bare": (A, 1e6),
    "feature": (feature(A), 1e6),
    "list": ([feature(A)], 1e6),
    "hole": (collection(HOLE), 3e6),
    "both": (collection(BOTH), 1.36e6),
    "line beside it": (collection(LINE, A), 1e6),
    "collection in a feature": (collection({"type": "GeometryCollection", "geometries": [A, LINE]}), 1e6),
    "collection in a collection": (
        {"type": "GeometryCollection", "geometries": [{"type": "GeometryCollection", "geometries": [A]}]},
        1e6,
    ),
    "bow tie": (collection(BOW), 5e5),
    "no geometry beside it": ({"type": "FeatureCollection", "features": [feature(None), feature(A)]}, 1e6),
    "no features beside it": ([{"type": "FeatureCollection", "features": None}, A], 1e6),
    "heights": (collection(polygon([[x, y, 7] for x, y in square(0, 0, 1000)])), 1e6),
    "not closed": (collection(polygon(square(0, 0, 1000)[:-1])), 1e6),
    "two points beside it": (collection(polygon([[0, 0], [10, 10]]), A), 1e6),
    "empty polygon beside it": (collection(polygon(), A), 1e6),
    "hole of one point": (collection(polygon(square(0, 0, 1000), [[5, 5]])), 1e6),
    "in µm": (collection(polygon([[x * 0.5, y * 0.5] for x, y in square(0, 0, 1000)])), 2.5e5),
    "left of the slide": (collection(polygon(square(-5000, -5000, 1000))), 1e6),
}


@pytest.mark.parametrize(("content", "area"), READABLE.values(), ids=READABLE)
def test_all_that_hold_polygons_are_read(tmp_path, content, area):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(content))
    found = read_regions(path)
    assert sum(item.area for item in found) == pytest.approx(area)
    assert all(item.is_valid and item.geom_type in ("Polygon", "MultiPolygon") for item in found)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_is_read(tmp_path, encoding):
    path = tmp_path / "r.geojson"
    path.write_bytes(json.dumps(feature(A) | {"name": "Gewächs"}, ensure_ascii=False).encode(encoding))
    assert [item.area for item in read_regions(path)] == [1e6]


def test_a_compressed_file_is_read_as_far_as_a_file_may_be_large(tmp_path, monkeypatch):
    path = tmp_path / "r.geojson.gz"
    text = json.dumps(collection(A)).encode()
    path.write_bytes(gzip.compress(text))
    assert [item.area for item in read_regions(path)] == [1e6]
    path.write_bytes(gzip.compress(text)[:-12])
    with pytest.raises(JobFailed, match="cut off"):
        read_regions(path)
    path.write_bytes(gzip.compress(b"[" + b" " * (300 * 2**20) + b"]", 9))
    with pytest.raises(JobFailed, match="larger than 256 MB when unpacked"):
        read_regions(path)


NUMBER = "9" * 400
REFUSED = {
    "NaN": (json.dumps(A).replace("1000", "NaN", 1), "NaN"),
    "infinite": (json.dumps(A).replace("1000", "1e999", 1), "no number"),
    "400 digits": (json.dumps(A).replace("1000", NUMBER, 1), "more than 19 digits"),
    "5,000 digits": (json.dumps(A).replace("1000", "9" * 5000, 1), "more than 19 digits"),
    "far away": (json.dumps(A).replace("1000", "1e12", 1), "which no slide has"),
    "texts": (json.dumps(A).replace("1000", '"1000"', 1), "not GeoJSON"),
    "truth": (json.dumps(A).replace("1000", "true", 1), "not GeoJSON"),
    "unknown type": ('{"type": "Circle", "coordinates": [1, 2]}', "'Circle'"),
    "type that is none": ('{"type": [], "coordinates": [1, 2]}', "not GeoJSON"),
    "type with an escape": ('{"type": "\\u001b[2J"}', "no geometry"),
    "half a character": ('{"type": "\\ud800"}', "half a character"),
    "one number": ('{"type": "Polygon", "coordinates": [[[1], [2], [3]]]}', "no two numbers"),
    "flat": ('{"type": "Polygon", "coordinates": [1, 2, 3]}', "not GeoJSON"),
    "no coordinates": ('{"type": "Polygon"}', "missing"),
    "empty list": ("[]", "holds no polygon"),
    "no features": ('{"type": "FeatureCollection", "features": []}', "holds no polygon"),
    "features that are none": ('{"type": "FeatureCollection", "features": [5]}', "not GeoJSON"),
    "lines only": (json.dumps(collection(LINE)), "holds no polygon"),
    "on one line": (json.dumps(polygon([[0, 0], [5, 5], [9, 9]])), "holds no polygon"),
    "brackets": ("[" * 100_000, "nested"),
    "deep": ("[" * 200 + "]" * 200, "nested"),
    "nothing": ("", "no JSON"),
    "zeros": ("\0" * 100, "NUL"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_region_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "r.geojson"
    path.write_text(text)
    with pytest.raises(JobFailed, match=message) as caught:
        read_regions(path)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 300
    assert "r.geojson" in line


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_bytes(b'{"type": "\xff\xfa"}')
    with pytest.raises(JobFailed, match="UTF-8"):
        read_regions(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "r.geojson")
    code = (
        "import sys\nfrom napari_her2.cohort.score_job import _digest\n"
        "from napari_her2.inference.regions import read_regions\n"
        "from pathlib import Path\nassert _digest(Path(sys.argv[1])) == ''\nread_regions(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r.geojson")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert "JobFailed: r.geojson is no file" in done.stderr


def test_a_folder_and_a_name_that_cannot_be_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.geojson", "a\0b", tmp_path / ("x" * 5000)):
        with pytest.raises(JobFailed, match=r"could not be read|is no file"):
            read_regions(path)


def test_a_scribble_that_would_cost_hours_is_refused(tmp_path):
    """Random lines cross each other in the square of their number: 2 MB of them in 10^9 places."""
    points = np.random.default_rng(0).integers(0, 100_000, (60_000, 2)).tolist()
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(polygon(points)))
    with pytest.raises(JobFailed, match=f"cross each other in over {MAX_CROSSINGS:,} places"):
        read_regions(path)


def test_a_fine_outline_that_crosses_itself_here_and_there_is_read(tmp_path):
    rng = np.random.default_rng(0)
    points = [
        [
            20_000 + (10_000 + rng.normal(0, 2)) * math.cos(t),
            20_000 + (10_000 + rng.normal(0, 2)) * math.sin(t),
        ]
        for t in np.sort(rng.uniform(0, 2 * math.pi, 20_000)) + rng.normal(0, 1e-4, 20_000)
    ]
    assert not shapely.Polygon(points).is_valid
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(polygon(points)))
    assert sum(item.area for item in read_regions(path)) == pytest.approx(math.pi * 1e8, rel=1e-2)


def test_many_cells_side_by_side_are_read(tmp_path):
    path = tmp_path / "r.geojson"
    cells = (polygon(square(x, y, 10)) for x in range(0, 1000, 10) for y in range(0, 1000, 10))
    path.write_text(json.dumps(collection(*cells)))
    found = read_regions(path)
    assert len(found) == 10_000
    assert tiles_inside(found, TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5)).all()


def test_an_outline_that_crosses_itself_is_taken_as_tumour_too(tmp_path):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(BOW))
    share = tumour_share(path, TileGrid((1000, 1000), (0.5, 0.5), 100, 0.5))
    assert share.sum() == pytest.approx(50)
