"""A result kept as one file: everything comes back, of every method, and nothing comes of a bad file."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from every_method import NAMES
from napari_her2.errors import JobFailed
from napari_her2.explain.cells import CellBorders
from napari_her2.explain.overlays import OverlayInfo
from napari_her2.export.kept_arrays import PACKING
from napari_her2.export.kept_classes import fits
from napari_her2.export.kept_result import KEPT_NAME, read_kept, write_kept
from napari_her2.export.tables import write_result
from napari_her2.inference.judging import redoubted
from napari_her2.methods.catalogue import METHODS
from scored import make_field_result, make_image_result, make_pair, make_result, with_doubt

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult

FIXTURES = [HealthCheck.function_scoped_fixture]


def differences(a: Any, b: Any, place: str = "result") -> list[str]:
    """Every place in which two results differ, down to the bits of their arrays."""
    if type(a) is not type(b):
        return [f"{place}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return [] if same else [place]
    if is_dataclass(a):
        each = [(of.name, getattr(a, of.name), getattr(b, of.name)) for of in fields(a)]
    elif isinstance(a, dict):
        if list(a) != list(b):
            return [f"{place}: its keys"]
        each = [(key, a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{place}: how many"]
        each = [(str(number), *pair) for number, pair in enumerate(zip(a, b, strict=True))]
    else:
        return [] if a == b or (a != a and b != b) else [f"{place}: {a!r} and {b!r}"]
    return [line for name, x, y in each for line in differences(x, y, f"{place}.{name}")]


def files_of(folder: Path) -> dict[str, Any]:
    """Content of each file; members of archives by name, whose times differ."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".npz", ".her2", ".zip"):
            with zipfile.ZipFile(path) as archive:
                found[name] = {of: archive.read(of) for of in archive.namelist()}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_every_method_has_a_result_here(results) -> None:
    assert {result.method for result in results.values()} == set(METHODS)
    assert results["ensemble"].doubt.spread is not None
    assert results["withheld"].doubt.hidden
    assert results["pair"].heads
    assert len(results["low-resolution-images"].thumbnails) > 1
    assert results["cells"].score
    assert results["familiar"].doubt.answer is not None


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_comes_back(name: str, results, tmp_path: Path) -> None:
    result = results[name]
    path = tmp_path / KEPT_NAME
    write_kept(result, path)
    back = read_kept(path)
    assert differences(result, back) == []
    assert differences(result.overlays, back.overlays) == []
    assert back.slides[0].maps[0].grid is back.slides[0].maps[1].grid
    assert files_of(write_result(result, tmp_path / "a")) == files_of(write_result(back, tmp_path / "b"))
    wishes = {"coverage": 0.8, "min_familiarity": 0.0, "show_withheld": True}
    assert differences(redoubted(result, **wishes), redoubted(back, **wishes)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_holds_what_may_be_seen(name: str, results, tmp_path: Path) -> None:
    result = results[name]
    folder = write_result(result, tmp_path / "a")
    back = read_kept(folder / KEPT_NAME)
    assert json.loads((folder / "result.json").read_text())["kept"] == KEPT_NAME
    assert files_of(folder) == files_of(write_result(back, tmp_path / "b"))
    if result.doubt.hidden:
        assert (back.score, back.probabilities, back.limits.reason) == ("", {}, "")
    else:
        assert differences(result, back) == []


def test_cells_are_the_same_ones_everywhere(results, tmp_path: Path) -> None:
    write_kept(results["cells"], tmp_path / KEPT_NAME)
    (slide,) = read_kept(tmp_path / KEPT_NAME).slides
    (borders,) = slide.extras
    assert isinstance(borders, CellBorders)
    assert borders.reading is slide.cells  # or other rules would be judged, and not be shown
    judged = METHODS["ihc-rules"].rejudged(
        read_kept(tmp_path / KEPT_NAME), replace(slide.cells.rules, gain=2.0), ""
    )
    again = METHODS["ihc-rules"].rejudged(results["cells"], replace(slide.cells.rules, gain=2.0), "")
    assert differences(judged, again) == []


def test_an_open_slide_is_found_by_its_content(tmp_path: Path) -> None:
    result = make_pair()
    write_kept(result, tmp_path / KEPT_NAME)
    he, ihc = result.slides
    back = read_kept(tmp_path / KEPT_NAME, {ihc.fingerprint: "open", "another": "other"})
    assert [slide.slide_id for slide in back.slides] == [he.slide_id, "open"]
    assert back.seen_from("open").slide == ihc.name


def test_the_same_result_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_kept(make_result(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@dataclass(frozen=True, eq=False)
class Centres:
    """A geometry that a method brings along."""

    points_px0: np.ndarray
    info: OverlayInfo
    class_name: str | None = None


def test_what_is_not_in_the_list_is_refused_unless_its_method_brings_it(tmp_path: Path, monkeypatch) -> None:
    result = make_result()
    drawn = Centres(np.array([[1.0, 2.0]]), OverlayInfo("centres"))
    slide = replace(result.slides[0], extras=(drawn,))
    with pytest.raises(ValueError, match=r"extras of ScoredSlide|Centres"):
        write_kept(replace(result, slides=(slide,)), tmp_path / KEPT_NAME)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(type(METHODS[result.method]), "drawings", (Centres,))
    write_kept(replace(result, slides=(slide,)), tmp_path / KEPT_NAME)
    assert differences(drawn, read_kept(tmp_path / KEPT_NAME).slides[0].extras[0]) == []
    monkeypatch.undo()
    with pytest.raises(JobFailed, match="does not know"):
        read_kept(tmp_path / KEPT_NAME)


def test_objects_are_not_kept_as_arrays_or_values(tmp_path: Path) -> None:
    result = make_result()
    for measures in ({"a": object()}, {"a": np.array([1.0])}, {1: "a"}):
        with pytest.raises(ValueError, match=r"measures of SlideResult"):
            write_kept(replace(result, measures=measures), tmp_path / KEPT_NAME)
    named = np.array(["a", None], object)
    table = replace(result.table, attention=named)
    with pytest.raises(ValueError, match="attention"):
        write_kept(replace(result, slides=(replace(result.slides[0], table=table),)), tmp_path / KEPT_NAME)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    write_kept(make_result(), tmp_path / KEPT_NAME)
    before = (tmp_path / KEPT_NAME).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(JobFailed, match="No space left on device") as failure:
        write_kept(make_image_result(), tmp_path / KEPT_NAME)
    assert str(failure.value).count(". ") == 0
    assert [path.name for path in tmp_path.iterdir()] == [KEPT_NAME]
    assert (tmp_path / KEPT_NAME).read_bytes() == before


# What is no result.


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
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tuple", "mapping", "array", "value", "path", "x"]), inner, max_size=2
        )
    ),
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


@pytest.mark.parametrize(
    ("value", "hint", "right"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (np.int64(3), int, True),
        ("a", str | None, True),
        (None, str | None, True),
        (2, str | None, False),
        ((1, 2), tuple[int, ...], True),
        ((1, "2"), tuple[int, ...], False),
        ((1, "2"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        ({"a": (1,)}, dict[str, tuple[int, ...]], True),
        ({"a": 1}, dict[str, tuple[int, ...]], False),
        ({"a": [1, {"b": None}]}, Any, True),
        (np.zeros(2), Any, False),
        (np.zeros(2, np.float32), np.ndarray[Any, np.dtype[np.float32]], True),
        (np.zeros(2), np.ndarray[Any, np.dtype[np.float32]], False),
        (np.zeros(2), np.ndarray[Any, np.dtype[np.floating]], True),
    ],
)
def test_values_are_told_from_those_of_other_types(value: object, hint: object, right: bool) -> None:
    assert fits(value, hint) is right
