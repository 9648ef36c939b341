"""Cells as files: read back by parsers that know nothing of how they were written."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import shapely

from cells_by_hand import areas_um2, reading_by_hand
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import CLASSES, Rules
from napari_her2.cells.table import Cells
from napari_her2.export import cells as cell_export
from napari_her2.export.cells import cell_files, write_cells_csv, write_cells_geojson
from napari_her2.export.tables import write_result
from napari_her2.inference.regions import read_named_regions

MPP = (0.25, 0.24)  # pixels that are no squares: an exchange of the axes would show
QUPATH_PROPERTIES = {"objectType", "classification", "measurements"}
"""Of those that QuPath reads from the properties of a feature (qupath.lib.io.QuPathTypeAdapters)."""


@pytest.fixture(scope="module")
def reading():
    return reading_by_hand(
        300, 4, regions=("left, upper", "=cmd()"), outside=0.1, rules=Rules(gain=1.3), calibration="Lab A"
    )


def features_of(path):
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["type"] == "FeatureCollection"
    return content["features"]


# -- cells.geojson


def test_every_cell_of_a_region_is_a_detection_with_the_keys_of_qupath(reading, tmp_path):
    path = tmp_path / "cells.geojson"
    write_cells_geojson(path, reading, MPP)
    features = features_of(path)
    assert len(features) == int((reading.region >= 0).sum())
    for feature in features:
        assert set(feature) == {"type", "geometry", "properties"}
        assert feature["type"] == "Feature"
        assert set(feature["properties"]) <= QUPATH_PROPERTIES
        assert feature["properties"]["objectType"] == "detection"
        kind = feature["properties"]["classification"]
        assert isinstance(kind["name"], str)
        assert len(kind["color"]) == 3
        assert all(type(value) is int and 0 <= value <= 255 for value in kind["color"])
        measured = feature["properties"]["measurements"]
        assert all(isinstance(name, str) and type(value) in (int, float) for name, value in measured.items())


def test_outlines_are_those_of_the_cells_in_pixels_of_the_slide(reading, tmp_path):
    path = tmp_path / "cells.geojson"
    write_cells_geojson(path, reading, MPP)
    outlines = shapely.get_parts(shapely.from_geojson(path.read_text(encoding="utf-8")))
    assert shapely.is_valid(outlines).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(outlines)).all()  # RFC 7946, 3.1.6
    chosen = reading.region >= 0
    expected = areas_um2(reading.cells.border_um)[chosen] / (MPP[0] * MPP[1])
    assert shapely.area(outlines) == pytest.approx(expected, rel=2e-4)
    for feature, outline in zip(features_of(path), outlines, strict=True):
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        assert len(feature["geometry"]["coordinates"]) == 1
        number = feature["properties"]["measurements"]["Cell"]
        y_um, x_um = reading.cells.centre_um[number]
        assert outline.contains(shapely.Point(x_um / MPP[1], y_um / MPP[0]))
        east = ring[0]  # the first ray goes to the right
        assert east[0] * MPP[1] == pytest.approx(x_um + float(reading.cells.border_um[number, 0]), abs=0.01)
        assert east[1] * MPP[0] == pytest.approx(y_um, abs=0.01)


def test_measurements_and_classes_are_those_of_the_reading(reading, tmp_path):
    path = tmp_path / "cells.geojson"
    write_cells_geojson(path, reading, MPP)
    seen = set()
    for feature in features_of(path):
        held = feature["properties"]["measurements"]
        at = held["Cell"]
        left_out = bool(reading.left_out[at])
        seen.add(left_out)
        name = feature["properties"]["classification"]["name"]
        assert name == ("Ignore*" if left_out else f"HER2 {CLASSES[reading.classes[at]]}")
        assert held["Region"] == reading.region[at] + 1
        assert held["Membrane: Completeness"] == float(reading.completeness[at])  # 32nds, exact
        assert held["Membrane: Mass OD·µm"] == pytest.approx(float(reading.raw_mass[at]), abs=6e-5)
        assert held["Membrane: Mass / gain OD·µm"] == pytest.approx(
            float(reading.raw_mass[at]) / 1.3, abs=6e-5
        )
        assert held["Cell: Area µm^2"] == pytest.approx(float(reading.cells.area_um2[at]), abs=6e-3)
        assert held["Cytoplasm: DAB OD mean"] == pytest.approx(
            float(reading.cells.cytoplasm_dab[at]), abs=6e-5
        )
        assert held["Nucleus: Hematoxylin OD"] == pytest.approx(float(reading.cells.nucleus_h[at]), abs=6e-5)
    assert seen == {True, False}


def test_classes_have_a_colour_each(reading, tmp_path):
    path = tmp_path / "cells.geojson"
    write_cells_geojson(path, reading, MPP)
    kinds = {
        (
            feature["properties"]["classification"]["name"],
            tuple(feature["properties"]["classification"]["color"]),
        )
        for feature in features_of(path)
    }
    assert {name for name, _ in kinds} == {"HER2 0", "HER2 1+", "HER2 2+", "HER2 3+", "Ignore*"}
    assert len({colour for _, colour in kinds}) == 5


def test_our_own_reader_of_regions_reads_the_outlines_too(reading, tmp_path):
    path = tmp_path / "cells.geojson"
    write_cells_geojson(path, reading, MPP)
    regions = read_named_regions(path)
    assert len(regions) == int((reading.region >= 0).sum())
    assert sum(not region.included for region in regions) == int(
        (reading.left_out & (reading.region >= 0)).sum()
    )


def test_no_cell_or_one_is_still_geojson_and_a_table(tmp_path):
    none = CellReading(Cells.none(), np.zeros(0, np.int16), (), np.zeros(0, bool))
    path, table = tmp_path / "cells.geojson", tmp_path / "cells.csv"
    write_cells_geojson(path, none, MPP)
    write_cells_csv(table, none, MPP)
    assert features_of(path) == []
    assert len(table.read_text().splitlines()) == 1
    write_cells_geojson(path, reading_by_hand(1, left_out=0.0), MPP)
    assert len(features_of(path)) == 1


def test_cells_without_extent_or_with_what_is_no_number_stay_valid(tmp_path):
    reading = reading_by_hand(6, left_out=0.0)
    border = reading.cells.border_um.copy()
    border[0] = 0
    border[1, ::2] = 0
    border[2, 5] = np.nan
    mass = reading.cells.mass.copy()
    mass[3] = np.nan
    reading = replace(reading, cells=replace(reading.cells, border_um=border, mass=mass))
    path = tmp_path / "cells.geojson"
    write_cells_geojson(path, reading, MPP)
    outlines = shapely.get_parts(shapely.from_geojson(path.read_text(encoding="utf-8")))
    assert len(outlines) == 6
    assert shapely.is_valid(outlines).all()
    assert len(features_of(path)) == 6


def test_a_zip_holds_the_same_file(reading, tmp_path):
    plain, packed = tmp_path / "cells.geojson", tmp_path / "cells.geojson.zip"
    write_cells_geojson(plain, reading, MPP)
    write_cells_geojson(packed, reading, MPP)
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["cells.geojson"]
        assert archive.read("cells.geojson") == plain.read_bytes()
    assert packed.stat().st_size < plain.stat().st_size / 2


def test_cells_are_written_a_part_at_a_time(tmp_path, monkeypatch):
    """What is held at once does not grow with the cells: the file is many times larger."""
    monkeypatch.setattr(cell_export, "_CELLS_AT_ONCE", 200)
    reading = reading_by_hand(6000, left_out=0.1)
    assert len(reading.classes) == 6000
    for write, name in ((write_cells_geojson, "cells.geojson"), (write_cells_csv, "cells.csv")):
        path = tmp_path / name
        tracemalloc.start()
        write(path, reading, MPP)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if name == "cells.geojson":
            assert peak < path.stat().st_size / 3
        assert peak < 3_000_000


# -- cells.csv


def test_the_table_holds_every_cell_with_its_units(reading, tmp_path):
    path = tmp_path / "cells.csv"
    write_cells_csv(path, reading, MPP)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert len(rows) == len(reading.cells)
    for at, row in enumerate(rows):
        y_um, x_um = reading.cells.centre_um[at].tolist()
        assert int(row["cell"]) == at
        assert float(row["x_um"]) == pytest.approx(x_um, abs=6e-3)
        assert float(row["y_um"]) == pytest.approx(y_um, abs=6e-3)
        assert float(row["x_px0"]) == pytest.approx(x_um / MPP[1], abs=6e-3)
        assert float(row["y_px0"]) == pytest.approx(y_um / MPP[0], abs=6e-3)
        number = int(reading.region[at])
        assert row["region"] == ("left, upper", "'=cmd()", "")[number]  # no formula in a spreadsheet
        assert row["class"] == CLASSES[reading.classes[at]]
        assert row["left_out"] == str(int(reading.left_out[at]))
        assert float(row["completeness"]) == float(reading.completeness[at])
        assert float(row["mass_od_um"]) == pytest.approx(float(reading.raw_mass[at]), abs=6e-5)
        assert float(row["mass_over_gain_od_um"]) * 1.3 == pytest.approx(float(row["mass_od_um"]), abs=2e-4)
        assert float(row["gain"]) == 1.3
        assert float(row["area_um2"]) == pytest.approx(float(reading.cells.area_um2[at]), abs=6e-3)
        assert float(row["cytoplasm_dab_od"]) == pytest.approx(
            float(reading.cells.cytoplasm_dab[at]), abs=6e-5
        )
        assert float(row["nucleus_haematoxylin_od"]) == pytest.approx(
            float(reading.cells.nucleus_h[at]), abs=6e-5
        )


def test_percentages_can_be_counted_from_the_table_again(reading, tmp_path):
    path = tmp_path / "cells.csv"
    write_cells_csv(path, reading, MPP)
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    counted = [row["class"] for row in rows if row["region"] and row["left_out"] == "0"]
    for place, name in enumerate(CLASSES):
        assert counted.count(name) == int((reading.classes[reading.counted] == place).sum())


def test_without_drawn_regions_the_column_is_empty(tmp_path):
    path = tmp_path / "cells.csv"
    write_cells_csv(path, reading_by_hand(20, regions=()), MPP)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert {row["region"] for row in rows} == {""}


# -- which files a slide has


def test_a_slide_has_files_of_cells_where_it_has_cells(reading, tmp_path, monkeypatch):
    def slide(cells):
        return SimpleNamespace(bounds_px0=(0.0, 0.0), cells=cells, grid=SimpleNamespace(slide_mpp=MPP))

    assert cell_files(slide(None)) == ()
    names = [name for name, _ in cell_files(slide(reading))]
    assert names == ["cells.csv", "cells.geojson"]
    monkeypatch.setattr(cell_export, "ZIPPED_FROM", 300)
    files = dict(cell_files(slide(reading)))
    assert list(files) == ["cells.csv", "cells.geojson.zip"]
    for name, write in files.items():
        write(tmp_path / name)
    assert zipfile.is_zipfile(tmp_path / "cells.geojson.zip")


def test_a_result_folder_holds_them_and_a_newer_result_without_cells_takes_them_away(
    scored, reading, tmp_path
):
    with_cells = replace(scored, slides=(replace(scored.slides[0], cells=reading),))
    folder = write_result(with_cells, tmp_path)
    values = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert values["slides"][0]["files"] == ["cells.csv", "cells.geojson"]
    assert len(features_of(folder / "cells.geojson")) == int((reading.region >= 0).sum())
    rows = csv.DictReader(io.StringIO((folder / "cells.csv").read_text(encoding="utf-8")))
    x_px0 = [float(row["x_px0"]) for row in rows]
    mpp = scored.grid.slide_mpp[1]
    assert x_px0 == pytest.approx((reading.cells.centre_um[:, 1] / mpp).tolist(), abs=6e-3)
    write_result(scored, tmp_path)
    assert not (folder / "cells.csv").exists()
    assert not (folder / "cells.geojson").exists()
