"""Files that are no kept result: refused in one sentence, whatever is in them."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kept_differences import differences
from napari_her2.errors import JobFailed
from napari_her2.export.kept_arrays import PACKING
from napari_her2.export.kept_result import KEPT_NAME, read_kept, write_kept
from napari_her2.export.tables import write_result
from scored import make_field_result, make_image_result, make_result, with_doubt

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult


FIXTURES = [HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def whole() -> bytes:
    """The bytes of a kept result with a bit of everything."""
    return packed(with_doubt(make_field_result()))


def packed(result: SlideResult) -> bytes:
    """A result as the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / KEPT_NAME
        write_kept(result, path)
        return path.read_bytes()


def refused(content: bytes, path: Path) -> str:
    """Why a file is refused: one plain sentence that names it."""
    path.write_bytes(content)
    with pytest.raises(JobFailed) as failure:
        read_kept(path)
    message = str(failure.value)
    assert path.name in message
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 300
    return message


def read_or_refused(path: Path) -> SlideResult | str:
    """A result, or the one sentence in which a file is refused."""
    try:
        return read_kept(path)
    except JobFailed as failure:
        message = str(failure)
    assert path.name in message
    assert "\n" not in message
    return message


def repacked(content: bytes, change: Any = None, **members: bytes | None) -> bytes:
    """The same file with its tree changed, and with other members; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", **PACKING) as new:
        for name in old.namelist():
            held: bytes | None = old.read(name)
            if name == "tree.json" and change is not None:
                tree = json.loads(held or b"")
                held = json.dumps(change(tree) or tree).encode()
            held = members.get(name.replace("/", "_").replace(".", "_"), held)
            if held is not None:
                new.writestr(name, held)
    return out.getvalue()


@settings(max_examples=40, deadline=None, suppress_health_check=FIXTURES)
@given(st.data())
def test_a_file_cut_short_is_refused(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    refused(whole[: data.draw(st.integers(0, len(whole) - 1))], tmp_path / "cut.her2")


@settings(max_examples=80, deadline=None, suppress_health_check=FIXTURES)
@given(st.data())
def test_a_flipped_byte_is_refused_or_changes_nothing(
    whole: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    place, bits = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    content = bytearray(whole)
    content[place] ^= bits
    path = tmp_path / "flipped.her2"
    path.write_bytes(content)
    back = read_or_refused(path)
    if not isinstance(back, str):  # a byte that says nothing: a time, the system that wrote it
        path.write_bytes(whole)
        assert differences(read_kept(path), back) == []


KINDS = ["tuple", "mapping", "array", "value", "path", "x"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KINDS), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=FIXTURES)
@given(st.data())
def test_any_field_may_hold_anything(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    def change(tree: dict[str, Any]) -> None:
        held = tree["values"][data.draw(st.integers(0, len(tree["values"]) - 1))]["fields"]
        held[data.draw(st.sampled_from(sorted(held)))] = data.draw(VALUES)

    path = tmp_path / "changed.her2"
    path.write_bytes(repacked(whole, change))
    back = read_or_refused(path)
    if not isinstance(back, str):  # what is read can be used
        assert back.overlays
        write_result(replace(back, slides=(replace(back.slides[0], name="x"),)), tmp_path / "out")


@pytest.mark.parametrize("digits", [None, 17, 18, -1])
def test_columns_are_written_with_digits_that_numbers_have(
    digits: int | None, whole: bytes, tmp_path: Path
) -> None:
    def change(tree: dict[str, Any]) -> None:
        for value in tree["values"]:
            if value["class"] == "explain.overlays.Column":
                value["fields"]["significant"] = digits

    path = tmp_path / "digits.her2"
    content = repacked(whole, change)
    if digits in (18, -1):
        refused(content, path)
    else:
        path.write_bytes(content)
        assert (write_result(read_kept(path), tmp_path / "out") / "tiles.csv").is_file()


def test_a_newer_version_is_named_and_left_alone(whole: bytes, tmp_path: Path) -> None:
    def newer(tree: dict[str, Any]) -> dict[str, Any]:
        return tree | {"version": 2, "written_by": "9.1"}

    assert "napari-her2 9.1: update" in refused(repacked(whole, newer), tmp_path / "newer.her2")

    def field(tree: dict[str, Any]) -> None:
        tree["values"][-1]["fields"]["mitoses"] = 3

    assert "'mitoses'" in refused(repacked(whole, field), tmp_path / "field.her2")


def test_a_file_from_before_a_class_moved_is_read(whole: bytes, tmp_path: Path) -> None:
    def before(tree: dict[str, Any]) -> None:
        for value in tree["values"]:
            value["class"] = value["class"].replace("inference.scored_slide.", "inference.result.")

    old, new = tmp_path / "old.her2", tmp_path / "new.her2"
    old.write_bytes(repacked(whole, before))
    new.write_bytes(whole)
    assert differences(read_kept(new), read_kept(old)) == []


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "inference.job.ScoringJob", "", 3, None])
def test_a_foreign_class_is_never_built(name: object, whole: bytes, tmp_path: Path) -> None:
    def foreign(tree: dict[str, Any]) -> None:
        tree["values"].insert(0, {"class": name, "fields": {"command": "false"}})

    assert "does not know" in refused(repacked(whole, foreign), tmp_path / "foreign.her2")


def test_what_is_no_result_at_all_is_refused(whole: bytes, tmp_path: Path) -> None:
    for content in (
        b"",
        b"{}",
        b"PK\x05\x06" + 18 * b"\0",
        zipped("a.txt", b"a"),
        zipped("tree.json", b"[]"),
    ):
        refused(content, tmp_path / "no.her2")
    refused(repacked(whole, lambda tree: tree | {"format": "x"}), tmp_path / "other.her2")
    refused(repacked(whole, lambda tree: tree | {"root": 0}), tmp_path / "root.her2")
    refused(repacked(whole, lambda tree: tree | {"values": {}}), tmp_path / "none.her2")
    refused(repacked(whole, lambda tree: tree | {"values": [0]}), tmp_path / "odd.her2")
    refused(repacked(whole, arrays_0_npy=None), tmp_path / "without.her2")
    with pytest.raises(JobFailed, match=r"nowhere\.her2"):
        read_kept(tmp_path / "nowhere.her2")
    with pytest.raises(JobFailed):
        read_kept(tmp_path)


def zipped(name: str, content: bytes) -> bytes:
    """A zip file of one member."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def npy(array: np.ndarray, **header: Any) -> bytes:
    """An array as .npy, with another header."""
    out = io.BytesIO()
    held = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | header
    np.lib.format.write_array_header_1_0(out, held)
    return out.getvalue() + array.tobytes()


def test_an_array_that_claims_to_be_huge_takes_no_memory(whole: bytes, tmp_path: Path) -> None:
    ones = np.ones(4, np.float32)
    for claimed in ({"shape": (1 << 40,)}, {"shape": (1 << 62, 1 << 62)}, {"shape": (-4,)}, {"descr": "|O"}):
        refused(repacked(whole, arrays_0_npy=npy(ones, **claimed)), tmp_path / "huge.her2")
    for content in (b"", b"\x93NUMPY", npy(ones)[:-1], npy(ones) + b"x", npy(ones, descr="<U4")):
        refused(repacked(whole, arrays_0_npy=content), tmp_path / "odd.her2")


def test_a_bomb_is_refused_before_it_is_unpacked(whole: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("napari_her2.export.kept_arrays._FREE_BYTES", 1 << 20)
    zeros = np.zeros(200 << 18, np.float32)
    assert "too large" in refused(repacked(whole, arrays_0_npy=npy(zeros)), tmp_path / "bomb.her2")


def test_arrays_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    result = make_result()
    slide, table = result.slides[0], result.table
    wrong = [
        replace(slide, table=replace(table, index=table.index + 1000)),
        replace(slide, table=replace(table, index=table.index[:, 0])),
        replace(slide, table=replace(table, attention=table.attention[:3])),
        replace(slide, table=replace(table, evidence=table.evidence[:, :2])),
        replace(slide, maps=(replace(slide.maps[0], values=slide.maps[0].values[1:]),)),
        replace(slide, grid=replace(slide.grid, tile_px=1, mpp=1e-4)),
        replace(slide, grid=replace(slide.grid, slide_mpp=(float("inf"), 1.0))),
    ]
    for number, each in enumerate(wrong):
        content = packed(replace(result, slides=(each,)))
        refused(content, tmp_path / f"{number}.her2")
    (image,) = make_image_result().slides
    seen = replace(image.thumbnails[0], rgb=image.thumbnails[0].rgb[1:])
    refused(
        packed(replace(make_image_result(), slides=(replace(image, thumbnails=(seen,)),))),
        tmp_path / "image.her2",
    )
    refused(packed(replace(result, probabilities={"4+": 1.0})), tmp_path / "chances.her2")
    refused(packed(replace(result, slides=())), tmp_path / "none.her2")


def test_cells_that_do_not_go_together_are_refused(results, tmp_path: Path) -> None:
    result = results["cells"]
    (slide,) = result.slides
    reading = slide.cells
    for wrong in (
        replace(reading, region=reading.region[1:]),
        replace(reading, region=reading.region + np.int16(5)),
        replace(reading, cells=replace(reading.cells, mass=reading.cells.mass[:, :8])),
        replace(reading, cells=replace(reading.cells, centre_um=reading.cells.centre_um * np.nan)),
    ):
        broken = replace(slide, cells=wrong, extras=())
        refused(packed(replace(result, slides=(broken,))), tmp_path / "cells.her2")
