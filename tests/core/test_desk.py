"""What is kept of a slide: read back as it was, never written over where it cannot be read."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.desk import store
from napari_her2.desk.kept_shapes import KeptShape, read_shapes, shapes_geojson
from napari_her2.desk.kept_slide import (
    GivenScale,
    KeptLook,
    KeptSlide,
    SlideView,
    read_slide,
    slide_json,
    time_in_words,
)
from napari_her2.desk.own_score import ManualScore
from napari_her2.desk.store import Desk
from napari_her2.errors import JobFailed
from napari_her2.inference.regions import read_named_regions

if TYPE_CHECKING:
    from pathlib import Path

FINGERPRINT = "ab" * 32
SQUARE = KeptShape(np.array([[10.5, 10.25], [10.5, 50.1], [30.7, 50.1], [30.7, 10.25]]), name="tumour 1")
FULL = KeptSlide(
    FINGERPRINT,
    scale=GivenScale((0.25, 0.26), "measured on 3 erythrocytes", "2026-11-28T19:02:11+01:00"),
    regions=(SQUARE, replace(SQUARE, kind="dcis", name="left <b>", layer="regions · case")),
    results={"demo": "0123456789abcdef.her2"},
    chosen="demo",
    calibration="lab A",
    own_score=ManualScore("2+", "pending", "a note\nof two lines"),
    view=SlideView((123.5, -4.0), 0.125),
    look=KeptLook(0.4, {"attention": False}),
)


def same(one: KeptSlide, other: KeptSlide) -> bool:
    """Whether all is equal, times aside; shapes hold arrays."""
    shapes = [shapes_geojson(kept.regions) for kept in (one, other)]
    rest = [
        replace(kept, regions=(), time="", results=dict(kept.results), look=None) for kept in (one, other)
    ]
    looks = [(kept.look and (kept.look.opacity, dict(kept.look.visible))) for kept in (one, other)]
    return shapes[0] == shapes[1] and rest[0] == rest[1] and looks[0] == looks[1]


def test_all_of_a_slide_comes_back(tmp_path: Path) -> None:
    Desk(tmp_path / "desk").keep(FULL)
    kept = Desk(tmp_path / "desk").read(FINGERPRINT)
    assert same(kept, FULL)
    assert kept.time
    assert Desk(tmp_path / "desk").read("cd" * 32) is None
    assert len(Desk(tmp_path / "desk")) == 1


def test_what_is_kept_is_its_owners_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    desk.keep(FULL)
    for path in (desk.folder, *desk.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert FINGERPRINT not in str(list(desk.folder.rglob("*")))  # names say nothing of the slide


def test_a_change_leaves_what_others_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.keep(FULL)
    Desk(tmp_path).change(FINGERPRINT, lambda kept: replace(kept, own_score=ManualScore("3+")))
    assert same(desk.read(FINGERPRINT), replace(FULL, own_score=ManualScore("3+")))
    desk.change(FINGERPRINT, lambda kept: kept, regions=())
    assert desk.read(FINGERPRINT).regions == ()


_numbers = st.floats(-1e6, 1e6, allow_nan=False)
_outlines = st.lists(st.tuples(_numbers, _numbers), min_size=3, max_size=12)


@settings(max_examples=30, deadline=None)
@given(
    outline=_outlines,
    kind=st.sampled_from(["tumour", "dcis", "control", "proposal"]),
    shape=st.sampled_from(["polygon", "rectangle", "path", "line"]),
    name=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20),
)
def test_shapes_come_back_to_the_last_digit(
    outline: list[tuple[float, float]], kind: str, shape: str, name: str
) -> None:
    drawn = KeptShape(np.array(outline), shape, kind, name, "a layer")
    (back,) = read_shapes(shapes_geojson([drawn]).encode())
    assert np.array_equal(back.outline_px0, drawn.outline_px0)
    assert (back.shape, back.kind, back.name, back.layer) == (shape, kind, name, "a layer")


def test_regions_are_what_an_independent_reader_makes_of_the_file(tmp_path: Path) -> None:
    bow = KeptShape(np.array([[0.0, 0.0], [10.0, 10.0], [10.0, 0.0], [0.0, 10.0]]), name="crosses itself")
    line = KeptShape(np.array([[0.0, 0.0], [5.0, 5.0]]), "line")
    proposed = replace(SQUARE, kind="proposal")
    Desk(tmp_path).keep(replace(FULL, regions=(SQUARE, bow, line, proposed)))
    path = Desk(tmp_path).place(FINGERPRINT) / store.REGIONS_FILE
    features = json.loads(path.read_text())["features"]
    assert shapely.from_geojson(json.dumps(features[0]["geometry"])).equals_exact(
        shapely.Polygon(SQUARE.outline_px0[:, ::-1])
    )
    shapes = Desk(tmp_path).read(FINGERPRINT).regions
    regions = [region for shape in shapes if (region := shape.region) is not None]
    assert [region.name for region in regions] == ["tumour 1", "crosses itself"]
    assert regions[1].area.area == pytest.approx(50)  # two triangles
    read = read_named_regions(path)  # as any file of regions
    assert [region.name for region in read][:2] == ["tumour 1", "crosses itself"]
    assert read[1].area.equals(regions[1].area)


def _newer(path: Path) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"format": 99, "version": "9.9"}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_newer, r"newer version .*\(9\.9\)"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "damaged"),
        (lambda path: path.write_text('{"kind": "something else"}'), "not written by napari-her2"),
        (lambda path: path.write_text("[" * 100_000), "nested"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "text"),
        (lambda path: path.write_text(""), "damaged"),
        (lambda path: path.write_text(slide_json(replace(FULL, fingerprint="cd" * 32))), "another slide"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_and_never_written_over(
    tmp_path: Path, spoil: object, words: str
) -> None:
    desk = Desk(tmp_path)
    desk.keep(FULL)
    path = desk.place(FINGERPRINT) / store.SLIDE_FILE
    spoil(path)
    spoilt = path.read_bytes()
    regions = (path.parent / store.REGIONS_FILE).read_bytes()
    with pytest.raises(JobFailed, match=words):
        desk.read(FINGERPRINT)
    assert path.read_bytes() == spoilt  # reading moves nothing
    desk.change(FINGERPRINT, lambda kept: replace(kept, chosen="x"), regions=[SQUARE])
    assert desk.read(FINGERPRINT).chosen == "x"
    (aside,) = tmp_path.glob("*.aside-*")
    assert (aside / store.SLIDE_FILE).read_bytes() == spoilt
    assert (aside / store.REGIONS_FILE).read_bytes() == regions
    assert len(desk) == 1
    desk.forget(FINGERPRINT)
    assert list(tmp_path.glob("*/*")) == []


@pytest.mark.parametrize(
    "change",
    [
        {"results": {"demo": "../../secret.her2"}},
        {"scale": {"mpp": [0.25, float("1e9")], "source": "", "time": ""}},
        {"own_score": {"score": "5+", "ish": "", "note": ""}},
        {"view": {"centre_px0": [1, 2], "zoom": 0}},
        {"view": {"centre_px0": [1, 2, 3], "zoom": 1}},
        {"look": {"opacity": 7, "visible": {}}},
        {"results": []},
        {"chosen": "x" * 10_000},
    ],
)
def test_values_that_nobody_kept_are_refused(change: dict[str, object]) -> None:
    values = json.loads(slide_json(FULL)) | change
    with pytest.raises(JobFailed, match="damaged"):
        read_slide(json.dumps(values).encode(), FINGERPRINT)


def test_regions_cut_in_half_are_said_and_set_aside_and_the_rest_comes_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.keep(FULL)
    path = desk.place(FINGERPRINT) / store.REGIONS_FILE
    path.write_bytes(path.read_bytes()[:100])
    kept = Desk(tmp_path).read(FINGERPRINT)
    assert kept.regions == ()
    assert kept.own_score == FULL.own_score
    assert "kept regions is damaged" in kept.problems[0]
    Desk(tmp_path).change(FINGERPRINT, lambda kept: kept, regions=[SQUARE])
    (aside,) = path.parent.glob("regions.geojson.aside-*")
    assert aside.stat().st_size == 100
    assert len(Desk(tmp_path).read(FINGERPRINT).regions) == 1


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    desk, other = Desk(tmp_path / "desk"), tmp_path / "other.json"
    desk.keep(FULL)
    path = desk.place(FINGERPRINT) / store.SLIDE_FILE
    path.rename(other)
    path.symlink_to(other)
    before = other.read_bytes()
    with pytest.raises(JobFailed, match="link"):
        desk.read(FINGERPRINT)
    desk.keep(replace(FULL, chosen=""))
    assert other.read_bytes() == before


def test_a_full_disk_is_said_and_what_was_kept_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    desk.keep(FULL)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(JobFailed, match=r"No space left on device.*free space"):
            desk.keep(replace(FULL, regions=(SQUARE,), chosen=""))
    assert same(desk.read(FINGERPRINT), FULL)
    assert [path.name for path in desk.place(FINGERPRINT).iterdir() if path.name.startswith(".")] == []
    desk.keep(replace(FULL, chosen=""))
    assert desk.read(FINGERPRINT).chosen == ""


_KEEPER = textwrap.dedent(
    """
    import sys
    from dataclasses import replace
    from pathlib import Path
    import numpy as np
    from napari_her2.desk.kept_shapes import KeptShape
    from napari_her2.desk.own_score import ManualScore
    from napari_her2.desk.store import Desk

    desk = Desk(Path(sys.argv[1]))
    outline = np.random.default_rng(0).uniform(0, 1e5, (2000, 2))
    for number in range(1, 10_000):
        shapes = [KeptShape(outline, name=str(number))] * number
        desk.change(
            "f" * 64, lambda kept: replace(kept, own_score=ManualScore(note=str(number))), shapes
        )
        print(number, flush=True)
    """
)


@pytest.mark.parametrize("actions", [2, 5])
def test_a_program_that_is_killed_loses_at_most_its_last_action(tmp_path: Path, actions: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    done = 0
    for line in process.stdout:
        done = int(line)
        if done >= actions:
            time.sleep(0.003 * actions)  # in the midst of the next one
            process.send_signal(signal.SIGKILL)
            break
    done = max([done, *(int(line) for line in process.stdout)])
    process.wait()
    process.stdout.close()
    kept = Desk(tmp_path).read("f" * 64)
    assert kept.problems == ()
    assert int(kept.own_score.note) in (done, done + 1)
    assert len(kept.regions) in (done, done + 1)
    Desk(tmp_path).change("f" * 64, lambda kept: replace(kept, chosen="after"))  # no lock is left
    assert Desk(tmp_path).read("f" * 64).chosen == "after"


def test_two_programs_that_write_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from dataclasses import replace
        from pathlib import Path
        from napari_her2.desk.store import Desk
        for number in range(25):
            name = f"{sys.argv[2]}{number}"
            file = f"{int(sys.argv[3]) * 100 + number:016x}.her2"
            Desk(Path(sys.argv[1])).change(
                "f" * 64, lambda kept: replace(kept, results={**kept.results, name: file})
            )
        """
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name, str(at)])
        for at, name in enumerate("ab")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(Desk(tmp_path).read("f" * 64).results) == 50


def test_a_result_that_is_not_named_any_more_is_deleted(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.keep(FULL)
    file = desk.place(FINGERPRINT) / FULL.results["demo"]
    file.write_bytes(b"kept")
    desk.change(FINGERPRINT, lambda kept: replace(kept, chosen=""))
    assert file.exists()
    desk.change(FINGERPRINT, lambda kept: replace(kept, results={}))
    assert not file.exists()


def test_words_of_what_is_kept() -> None:
    assert FULL.words() == "2 regions, the result of demo, µm/px, your own score"
    assert KeptSlide("", view=FULL.view).words() == ""
    assert not KeptSlide("", view=FULL.view).holds_work
    assert FULL.scale.words == "measured on 3 erythrocytes, 2026-11-28 19:02"
    assert time_in_words("no time") == "no time"
