"""Exports: strict, complete, and whole or not there at all."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
from shapely.geometry import box, shape

from napari_her2.errors import JobFailed
from napari_her2.export.features import FeatureSource, write_features
from napari_her2.export.tables import write_result
from napari_her2.inference.embeddings import Embeddings
from napari_her2.slide.grid import TileGrid
from napari_her2.whole_files import check_writable, whole_file
from scored import make_field_result, make_result, without_attention

CONTRACT = {
    *(
        "slide",
        "slide_sha256",
        "slide_sha256_head",
        "model",
        "task",
        "score",
        "label",
        "probabilities",
        "confidence",
    ),
    *(
        "abstained",
        "tiles",
        "mpp",
        "tile_px",
        "tissue_mm2",
        "device",
        "seconds",
        "warnings",
        "version",
        "notice",
    ),
}


@pytest.fixture(scope="module")
def written(scored, tmp_path_factory):
    return write_result(scored, tmp_path_factory.mktemp("out"))


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def test_the_folder_is_named_after_the_slide_and_holds_its_files(written, scored):
    assert written.name == scored.slide
    names = {path.name for path in written.iterdir()}
    assert names == {"result.json", "result.her2", "tiles.csv", "maps.npz", "regions.geojson"}
    assert [path.name for path in written.parent.iterdir()] == [scored.slide]


def test_result_json_has_the_keys_that_others_rely_on(written, scored):
    values = json.loads((written / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert values.keys() >= CONTRACT
    assert math.isclose(sum(values["probabilities"].values()), 1, abs_tol=1e-9)
    assert values["score"] == max(values["probabilities"], key=values["probabilities"].get)
    assert values["tiles"] == len(scored.table)
    assert values["confidence"] == values["probabilities"][values["score"]]
    assert values["training_data"] == "nothing: random weights"
    assert values["notice"] == "Research use only. Not for diagnosis or treatment decisions."


def test_numbers_that_json_cannot_hold_become_null(scored, tmp_path):
    slide = replace(scored.slides[0], tissue_mm2=float("nan"))
    odd = replace(scored, slides=(slide,), seconds={"embed": float("inf")})
    text = (write_result(odd, tmp_path) / "result.json").read_text(encoding="utf-8")
    values = json.loads(text, parse_constant=refuse)
    assert values["tissue_mm2"] is None
    assert values["seconds"] == {"embed": None}


def test_tiles_csv_has_a_row_a_tile_with_its_numbers(written, scored):
    with (written / "tiles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(scored.table)
    evidence = np.array([[float(row[f"evidence_logit_{name}"]) for name in scored.classes] for row in rows])
    assert np.allclose(evidence, scored.table.evidence, rtol=1e-6)
    assert np.isclose(sum(float(row["attention_weight"]) for row in rows), 1, atol=1e-5)
    best = max(rows, key=lambda row: float(row["attention_weight"]))
    assert float(best["attention_percentile"]) == 1.0
    for row in rows[::37]:
        assert (int(row["x_px0"]), int(row["y_px0"])) == (96 * int(row["column"]), 96 * int(row["row"]))
        assert float(row["x_um"]) == 48 * int(row["column"])


def test_maps_come_back_from_the_archive(written, scored):
    with np.load(written / "maps.npz", allow_pickle=False) as maps:
        assert np.array_equal(maps["attention"], scored.map("attention").values, equal_nan=True)
        assert np.array_equal(maps["evidence_3+"], scored.map("evidence", "3+").values, equal_nan=True)
        assert maps["tile_um"] == 48.0


def test_regions_are_geojson_with_honest_names_inside_the_slide(written, scored):
    content = json.loads((written / "regions.geojson").read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["type"] == "FeatureCollection"
    kinds = [feature["properties"]["classification"]["name"] for feature in content["features"]]
    assert set(kinds) <= {"Tissue", "Used by the model (attention)", f"Evidence for {scored.score}"}
    assert not any("positive" in kind.lower() for kind in kinds)
    slide = box(-1, -1, 1537, 1537)
    assert all(slide.contains(shape(feature["geometry"])) for feature in content["features"])
    assert all(feature["properties"]["objectType"] == "annotation" for feature in content["features"])
    first = content["features"][kinds.index("Used by the model (attention)")]
    row, col = scored.table.index[int(scored.table.attention.argmax())]
    assert shape(first["geometry"]).bounds == (96 * col, 96 * row, 96 * col + 96, 96 * row + 96)


def test_a_newer_result_replaces_the_older_and_keeps_what_others_wrote(scored, tmp_path):
    folder = write_result(scored, tmp_path)
    (folder / "manual.json").write_text("mine")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("too")
    write_result(replace(scored, label="new"), tmp_path)
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["label"] == "new"
    assert (folder / "manual.json").read_text() == "mine"
    assert (folder / "notes" / "a.txt").read_text() == "too"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_folder_with_something_else_is_left_alone(scored, tmp_path):
    (tmp_path / scored.slide).mkdir()
    (tmp_path / scored.slide / "thesis.txt").write_text("years")
    with pytest.raises(JobFailed, match="something other"):
        write_result(scored, tmp_path)
    assert (tmp_path / scored.slide / "thesis.txt").read_text() == "years"


def test_another_slide_of_the_same_name_is_not_overwritten(scored, tmp_path):
    write_result(scored, tmp_path)
    with pytest.raises(JobFailed, match="another slide of the same name"):
        write_result(replace(scored, slides=(replace(scored.slides[0], fingerprint="0" * 64),)), tmp_path)


def test_nothing_is_left_where_writing_fails(scored, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_her2.export.tables.np.savez_compressed", full)
    with pytest.raises(JobFailed, match="No space left"):
        write_result(scored, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_said_before_and_after(scored, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(JobFailed, match="out"):
        check_writable(tmp_path / "out" / "deeper")
    with pytest.raises(JobFailed, match="out"):
        write_result(scored, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    target = tmp_path / "a.h5"
    target.write_text("old")

    def write():
        with whole_file(target) as path:
            path.write_text("new, but")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_features_are_written_x_first_as_clam_and_trident_read_them(tmp_path):
    grid = TileGrid((4000, 6000), (0.25, 0.25), 96, 0.5)
    index = np.array([[0, 3], [2, 1]])
    features = np.array([[1, 2, 3], [4, 5, 6]], np.float16)
    embeddings = Embeddings(features, index, np.empty((0, 2), np.int64), 0, "", "")
    source = FeatureSource("case", "f" * 64, "a" * 64, "alexnet", "e" * 64, "1")
    write_features(tmp_path / "case.h5", embeddings, grid, source)
    with h5py.File(tmp_path / "case.h5") as file:
        assert file["features"].dtype == np.float32
        assert file["features"][:].tolist() == [[1, 2, 3], [4, 5, 6]]
        assert file["coords"][:].tolist() == [[3 * 192, 0], [192, 2 * 192]]
        assert file["coords"].attrs["patch_size"] == 96
        assert file["coords"].attrs["patch_size_level0"] == 192
        assert (file["coords"].attrs["level0_width"], file["coords"].attrs["level0_height"]) == (6000, 4000)
        assert file["coords"].attrs["mpp"] == 0.5


@pytest.mark.parametrize(
    ("slide_mpp", "mpp", "objective", "expected"),
    [
        (0.25, 0.5, None, (40, 20)),  # by the steps of µm/px that TRIDENT has
        (0.2508, 0.5, 20.0, (20, 20)),  # what the slide states of its objective goes first
        (0.5, 8.0, None, (20, None)),
        (4.0, 8.0, None, (None, None)),
    ],
)
def test_features_have_the_attributes_of_trident(slide_mpp, mpp, objective, expected, tmp_path):
    grid = TileGrid((40000, 60000), (slide_mpp, slide_mpp), 96, mpp)
    embeddings = Embeddings(
        np.ones((1, 3), np.float16), np.array([[0, 0]]), np.empty((0, 2), np.int64), 0, "", ""
    )
    source = FeatureSource("case", "f" * 64, "a" * 64, "uni", "e" * 64, "1", objective)
    write_features(tmp_path / "case.h5", embeddings, grid, source)
    with h5py.File(tmp_path / "case.h5") as file:
        attributes = file["coords"].attrs
        found = tuple(attributes.get(f"{name}_magnification") for name in ("level0", "target"))
        assert found == expected
        assert (file["features"].attrs["encoder"], attributes["overlap"], attributes["name"]) == (
            "uni",
            0,
            "case",
        )


@pytest.mark.parametrize("by_tile", [False, True])
def test_a_method_without_attention_exports_none(by_tile, tmp_path):
    made = make_field_result() if by_tile else make_result()
    result = without_attention(made)
    folder = write_result(result, tmp_path)
    with (folder / "tiles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    place = {"row", "column", "x_px0", "y_px0", "width_px0", "height_px0", "x_um", "y_um", "side_um"}
    assert rows[0].keys() == place | {f"probability_{name}" for name in result.classes if by_tile}
    assert len(rows) == len(result.table)
    maps = np.load(folder / "maps.npz")
    assert not [name for name in maps.files if "attention" in name or "confidence" in name]
    regions = (folder / "regions.geojson").read_text(encoding="utf-8")
    assert "attention" not in regions
    assert json.loads(regions)["features"] == []
