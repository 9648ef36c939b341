"""A day's list of real slides: by the command line, killed, gone on with, and opened again."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.cohort.day_file import DAY_FILE
from napari_her2.cohort.day_items import DaySettings
from napari_her2.cohort.day_list import entries_of, entries_steps
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.day_rows import row_facts
from napari_her2.cohort.day_run import score_day_steps
from napari_her2.cohort.sources import ModelSource
from napari_her2.errors import JobFailed, SlideError
from napari_her2.inference.options import ScoringOptions
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = DaySettings(ScoringOptions(min_tissue=0.4), device="cpu")


def states(queue):
    return [item.state for item in queue.items]


@pytest.fixture(scope="module")
def day(he_slide, tmp_path_factory):
    """Three slides to score, one that is none, one that the list misses."""
    folder = tmp_path_factory.mktemp("day")
    for name in ("1_HE.svs", "2_HE.svs", "3_HE.svs"):
        shutil.copy(he_slide, folder / name)
    (folder / "4_HE.svs").write_bytes(he_slide.read_bytes()[:900])
    rows = "".join(f"{number},{number}_HE.svs\n" for number in (1, 2, 3, 4, 5))
    (folder / "list.csv").write_text(f"case_id,he\n{rows}")
    return folder


def command(day, tiny_model, out, *more):
    listed = ("--list", day / "list.csv", "--model", tiny_model, "--out", out)
    return [str(part) for part in ("score", *listed, "--device", "cpu", "--min-tissue", "0.4", *more)]


def test_a_killed_list_goes_on_and_every_row_has_its_state(day, tiny_model, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_her2", *command(day, tiny_model, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and '"done"' not in _text(out / DAY_FILE) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = DayQueue(out)
    assert left.counts()["done"] in (1, 2)
    before = {
        item.folder: (out / item.folder / "result.json").stat().st_mtime_ns
        for item in left.items
        if item.folder
    }
    result = CliRunner().invoke(app, command(day, tiny_model, out))
    assert result.exit_code == 1  # of the two that were refused
    queue = DayQueue(out)
    assert states(queue) == ["done"] * 3 + ["skipped"] * 2
    reasons = [item.reason for item in queue.items if item.state == "skipped"]
    assert all(reasons)
    assert "no file" in reasons[1]
    for folder, written in before.items():
        assert (out / folder / "result.json").stat().st_mtime_ns == written
    with (out / "day_list.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == states(queue)
    assert len({row["result"] for row in rows[:3]}) == 1  # the same slide three times
    assert all("Research use only" in row["notice"] for row in rows)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_list_gives_what_scoring_alone_gives(day, tiny_model, tmp_path):
    alone = ["score", day / "1_HE.svs", "--model", tiny_model, "--out", tmp_path / "alone"]
    options = ["--device", "cpu", "--min-tissue", "0.4"]
    assert CliRunner().invoke(app, [str(part) for part in (*alone, *options)]).exit_code == 0
    entries = finished(entries_steps(day / "1_HE.svs"))
    queue = DayQueue.begin(
        tmp_path / "list", entries, [(tiny_model, ModelSource(tiny_model).card())], OPTIONS
    )
    finished(score_day_steps(queue))
    one, two = (
        json.loads((folder / "1_HE/result.json").read_text("utf-8"))
        for folder in (tmp_path / "alone", tmp_path / "list/tiny")
    )
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_a_row_is_opened_from_its_files_and_nothing_is_scored(day, tiny_model, tmp_path, monkeypatch):
    from napari_her2._napari.day_work import opening_day, opening_row

    models = [(tiny_model, ModelSource(tiny_model).card())]
    source = shutil.copy(day / "1_HE.svs", tmp_path / "1_HE.svs")
    queue = DayQueue.begin(tmp_path / "out", entries_of(source), models, OPTIONS)
    finished(score_day_steps(queue))
    monkeypatch.setattr("napari_her2.methods.scoring.score_steps", None)
    shown = finished(opening_day(tmp_path / "out"))
    assert shown.facts[0].answer == row_facts(queue.folder_of(queue.items[0])).answer
    opened = finished(opening_row(shown, 0))
    (slide,) = opened.slides
    try:
        assert opened.result.slides[0].slide_id == slide.slide_id
        assert opened.result.overlays
        assert opened.result.label == shown.facts[0].answer
    finally:
        slide.close()
    (tmp_path / "1_HE.svs").write_bytes((day / "1_HE.svs").read_bytes() + b"more")
    with pytest.raises(SlideError, match="changed since"):
        finished(opening_row(shown, 0))
    (queue.folder_of(queue.items[0]) / "result.her2").unlink()
    with pytest.raises(JobFailed, match="no result"):
        finished(opening_row(shown, 0))


def test_a_dry_run_shows_the_pairs_and_scores_nothing(day, tiny_model, tmp_path):
    result = CliRunner().invoke(app, command(day, tiny_model, tmp_path / "out", "--dry-run"))
    assert result.exit_code == 0
    assert "3 single slides, 2 refused" in result.output
    assert not (tmp_path / "out").exists()
