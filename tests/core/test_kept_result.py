"""A result kept as one file: everything comes back, of every method."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from every_method import NAMES
from kept_differences import differences
from napari_her2.errors import JobFailed
from napari_her2.explain.cells import CellBorders
from napari_her2.explain.overlays import OverlayInfo
from napari_her2.export.kept_classes import fits
from napari_her2.export.kept_result import KEPT_NAME, read_kept, write_kept
from napari_her2.export.tables import write_result
from napari_her2.inference.judging import redoubted
from napari_her2.methods.catalogue import METHODS
from scored import make_image_result, make_pair, make_result

if TYPE_CHECKING:
    from pathlib import Path


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
