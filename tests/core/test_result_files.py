"""Whose files the folder of a result holds, and what becomes of them: replaced, kept, put back, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.table import write_score_table
from napari_her2.errors import JobFailed
from napari_her2.export.atomic import put_back, whole_folder
from napari_her2.export.request import Request
from napari_her2.export.result_files import finished_result, is_of_result, result_folder
from napari_her2.export.tables import write_result
from scored import make_image_result, make_pair, make_result, make_slide

OF_A_SLIDE = {"tiles.csv", "maps.npz", "regions.geojson"}
REQUEST = Request(("f",), "m" * 64, {"stain": "check"}, "1")
needs_links = pytest.mark.skipif(os.name == "nt", reason="links and named pipes of POSIX")


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_nothing_of_an_older_result_stays_under_a_newer_one_of_another_kind(tmp_path):
    slide = make_slide()
    folder = write_result(make_pair(slide), tmp_path)
    assert (folder / "IHC" / "maps.npz").exists()
    assert write_result(make_image_result(slide, images=2), tmp_path) == folder
    assert names(folder) == {"result.json", "result.her2", "image-1.png", "image-2.png"} | OF_A_SLIDE
    write_result(make_result(slide), tmp_path)
    assert names(folder) == {"result.json", "result.her2"} | OF_A_SLIDE


def test_files_of_others_stay_also_in_the_folder_of_a_stain(tmp_path):
    slide = make_slide()
    folder = write_result(make_pair(slide), tmp_path)
    strangers = {
        "manual.json",
        "image-1.txt",
        "image-a.png",
        "IHC/notes.txt",
        "IHC/more/tiles.csv",
        "old/result.json",
    }
    for name in strangers:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    write_result(make_result(slide), tmp_path)
    assert {name for name in names(folder) if (folder / name).is_file()} == {
        *strangers,
        "result.json",
        "result.her2",
        *OF_A_SLIDE,
    }
    assert all((folder / name).read_text() == name for name in strangers)
    assert hidden(tmp_path) == []


def test_every_name_that_results_have_is_theirs_and_no_other():
    for name in ("result.json", "tiles.csv", "maps.npz", "regions.geojson", "image-12.png", "IHC", "H&E"):
        assert is_of_result((name,))
    assert is_of_result(("IHC", "image-1.png"))
    for parts in (("manual.json",), ("image-x.png",), ("other", "tiles.csv"), ("IHC", "x", "tiles.csv")):
        assert not is_of_result(parts)


@needs_links
def test_links_and_pipes_in_an_older_folder_stay_what_they_are(tmp_path):
    slide, out = make_slide(), tmp_path / "out"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "big.bin").write_bytes(bytes(1000))
    (elsewhere / "tiles.csv").write_text("of somebody else")
    folder = write_result(make_pair(slide), out)
    links = {"data": elsewhere, "up": "..", "loop": "loop", "gone": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    # Names of ours that lead elsewhere: the links go, what they lead to stays.
    (folder / "tiles.csv").unlink()
    (folder / "tiles.csv").symlink_to(elsewhere / "tiles.csv")
    shutil.rmtree(folder / "IHC")
    (folder / "IHC").symlink_to(elsewhere)
    write_result(make_pair(slide), out)
    assert {name: os.readlink(folder / name) for name in links} == {k: str(v) for k, v in links.items()}
    assert (folder / "pipe").is_fifo()
    assert not (folder / "tiles.csv").is_symlink()
    assert not (folder / "IHC").is_symlink()
    assert names(elsewhere) == {"big.bin", "tiles.csv"}
    assert (elsewhere / "tiles.csv").read_text() == "of somebody else"


@needs_links
def test_a_folder_that_is_a_link_is_left_alone(tmp_path):
    written = write_result(make_result(), tmp_path / "there")
    (tmp_path / "out").mkdir()
    link = tmp_path / "out" / written.name
    link.symlink_to(written)
    before = names(written)
    with pytest.raises(JobFailed, match="is a link"):
        write_result(make_result(), tmp_path / "out")
    assert link.is_symlink()
    assert names(written) == before


def test_a_folder_of_somebody_where_a_file_of_ours_goes_is_refused_and_kept(tmp_path):
    folder = write_result(make_result(), tmp_path)
    (folder / "image-1.png").mkdir()
    (folder / "image-1.png" / "thesis.txt").write_text("years")
    with pytest.raises(JobFailed, match=r"image-1\.png is a folder"):
        write_result(make_result(), tmp_path)
    assert (folder / "image-1.png" / "thesis.txt").read_text() == "years"


# A child that writes a folder over an older one and is killed at the given event of the file system.
CHILD = """
import os, signal, sys
from pathlib import Path
from napari_her2.export.atomic import whole_folder
target, last = Path(sys.argv[1]), int(sys.argv[2])
seen = 0
def kill(event, arguments):
    global seen
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "open", "os.scandir", "os.listdir"):
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
sys.addaudithook(kill)
with whole_folder(target, lambda parts: parts[0] in ("result", "IHC") and parts[-1] != "notes") as folder:
    (folder / "result").write_text("new")
    (folder / "second").write_text("new")
"""


def owned(parts):
    return parts[0] in ("result", "IHC") and parts[-1] != "notes"


def an_older(target):
    (target / "IHC").mkdir(parents=True)
    (target / "result").write_text("old")
    (target / "manual").write_text("mine")
    (target / "IHC" / "result").write_text("old")
    (target / "IHC" / "notes").write_text("mine too")


@needs_links
def test_wherever_a_run_is_killed_the_next_one_finds_everything_again(tmp_path):
    killed_between = 0
    for last in range(200):
        out = tmp_path / str(last)
        target = out / "case-1"
        an_older(target)
        done = subprocess.run([sys.executable, "-c", CHILD, str(target), str(last)], check=False)
        killed_between += not target.exists()
        put_back(target, owned)
        assert (target / "result").read_text() in ("old", "new")
        assert (target / "manual").read_text() == "mine"
        assert (target / "IHC" / "notes").read_text() == "mine too"
        with whole_folder(target, owned) as folder:
            (folder / "result").write_text("newer")
        kept = {"result", "manual", "IHC", "IHC/notes"}
        assert kept <= names(target) <= kept | {"second"}
        assert (target / "result").read_text() == "newer"
        assert not [name for name in hidden(out) if any((out / name).iterdir())]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert last > 10
    assert killed_between >= 1


def test_what_a_run_left_between_two_renames_is_a_finished_result_again(tmp_path):
    folder = write_result(make_result(), tmp_path, REQUEST)
    (folder / "manual.json").write_text("mine")
    workshop = tmp_path / f".{folder.name}-ab12_xyz"
    (workshop / "new").mkdir(parents=True)
    folder.rename(workshop / "old")
    found = result_folder(folder.name, make_result().slide_sha256, make_result().slide_sha256_head, tmp_path)
    assert finished_result(found, REQUEST) is not None
    assert (found / "manual.json").read_text() == "mine"
    assert hidden(tmp_path) == []


def test_the_workshop_of_a_run_that_is_alive_is_left_to_it(tmp_path):
    target = tmp_path / "case-1"
    an_older(target)
    with whole_folder(target, owned) as folder:
        (folder / "result").write_text("new")
        put_back(target, owned)
        assert folder.exists()
    assert (target / "result").read_text() == "new"


def test_hidden_folders_of_others_are_none_of_ours(tmp_path):
    for name in (".case-1-ab12", ".case-1-b-ab12_xyz", ".case-1-ab12_xyz"):
        (tmp_path / name / "old").mkdir(parents=True)
        (tmp_path / name / "thesis.txt").write_text("years")
    put_back(tmp_path / "case-1", owned)
    assert not (tmp_path / "case-1").exists()
    assert len(hidden(tmp_path)) == 3


@pytest.mark.parametrize(
    "missing", ["tiles.csv", "maps.npz", "regions.geojson", "IHC/tiles.csv", "IHC/maps.npz"]
)
def test_a_result_of_which_a_file_is_gone_is_not_finished(missing, tmp_path):
    folder = write_result(make_pair(), tmp_path, REQUEST)
    assert finished_result(folder, REQUEST) is not None
    (folder / missing).unlink()
    assert finished_result(folder, REQUEST) is None


def test_a_result_of_which_an_image_is_empty_is_not_finished(tmp_path):
    folder = write_result(make_image_result(images=2), tmp_path, REQUEST)
    assert finished_result(folder, REQUEST) is not None
    (folder / "image-2.png").write_bytes(b"")
    assert finished_result(folder, REQUEST) is None


HOSTILE = {
    "brackets": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "list": "[]",
    "warnings": {"warnings": 5},
    "label": {"label": ["2+"]},
    "slides": {"slides": 7},
    "slide": {"slides": ["x"]},
    "stain": {"slides": [{"slide": "a", "stain": "../..", "images": []}]},
    "images": {"slides": [{"slide": "a", "stain": "H&E", "images": 3}]},
    "confidence": {"confidence": 10**400},
    "digits": '{"confidence": ' + "1" * 5000 + "}",
    "probabilities": {"probabilities": {"0": [1]}},
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_result_is_none_of_ours_and_breaks_nothing(fault, tmp_path):
    folder = write_result(make_result(), tmp_path, REQUEST)
    path, given = folder / "result.json", HOSTILE[fault]
    if isinstance(given, dict):
        given = json.dumps(json.loads(path.read_text("utf-8")) | given)
    path.write_bytes(given if isinstance(given, bytes) else given.encode())
    # A score is part of the table alone: what is finished is decided without it.
    in_table = fault in ("confidence", "probabilities", "label")
    assert in_table or finished_result(folder, REQUEST) is None
    failed = SlideOutcome.failure(tmp_path / "b.svs", JobFailed("gone"))
    table = write_score_table(tmp_path, [failed]).read_text("utf-8")
    assert "b.svs" in table
    if not isinstance(HOSTILE[fault], dict):
        with pytest.raises(JobFailed, match="something other than a result"):
            write_result(make_result(), tmp_path)


@needs_links
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_a_result_that_is_no_file_is_not_read(kind, tmp_path):
    folder = write_result(make_result(), tmp_path, REQUEST)
    path = folder / "result.json"
    path.rename(tmp_path / "kept.json")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "kept.json")
    else:
        path.mkdir()
    assert finished_result(folder, REQUEST) is None
    assert "case-1" not in write_score_table(tmp_path, []).read_text("utf-8")
    with pytest.raises(JobFailed, match="something other than a result"):
        write_result(make_result(), tmp_path)
