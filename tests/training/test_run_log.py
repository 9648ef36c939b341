"""A training tells of itself in its folder, and the plugin reads it: what is told, and how it ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2.errors import JobFailed, JobStopped
from napari_her2.models.weights_file import read_weights
from napari_her2.steps import Progress
from napari_her2.training_runs.files import PROGRESS_FILE
from napari_her2.training_runs.log import LogTail, read_process
from napari_her2_training.command import train_steps
from napari_her2_training.methods import METHODS
from napari_her2_training.running.log import Started, logged

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

STARTED = Started("wsmcl", Path("config.toml"), Path("manifest.csv"), "cpu")
RESUMED = Started("wsmcl", Path("config.toml"), Path("manifest.csv"), "cpu", resume=True)
ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def steps_of(reports: Iterable[Progress], end: Path | Exception) -> Generator[Progress, None, Path]:
    yield from reports
    if isinstance(end, Exception):
        raise end
    return end


def finish(steps: Generator[Progress, None, Path]) -> Path:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def epoch(number: int, loss: float, stage: str = "Training") -> Progress:
    values = {"train_loss": loss}
    return Progress(stage, number, 9, "batches", f"epoch {number}", values, epoch=number, epochs=9)


def read_all(tail: LogTail) -> list[Progress]:
    found = []
    while True:
        entries, more = tail.read()
        found += [entry.progress for entry in entries]
        if not more:
            return found


def points(tail: LogTail) -> dict[str, list[tuple[int, float]]]:
    read_all(tail)
    return {stage.title: list(stage.curves[0].points) for stage in tail.stages}


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    told = [
        Progress("Embedding the train slides", 3, 10, "slides", "µ and 2+"),
        Progress("Measuring", note="intervals"),
        epoch(1, 0.25),
        Progress("Training", 9, 9, "batches"),
    ]
    before = time.time()
    steps = logged(steps_of(told, tmp_path / "m.safetensors"), tmp_path, STARTED)
    assert next(steps) == told[0]
    running = read_process(tmp_path)
    assert (running.state, running.pid, running.method) == ("running", os.getpid(), "wsmcl")
    assert (running.device, running.data) == ("cpu", str(Path("manifest.csv").resolve()))
    assert before <= running.started <= time.time()
    assert finish(steps) == tmp_path / "m.safetensors"
    ended = read_process(tmp_path)
    assert (ended.state, ended.bundle) == ("finished", tmp_path / "m.safetensors")
    assert read_all(LogTail(tmp_path)) == told


def test_batches_are_thinned_and_epochs_are_not(tmp_path: Path) -> None:
    told = [
        report
        for number in range(1, 101)
        for report in (*[Progress("Training", number, 1000, "batches")] * 20, epoch(number, 1 / number))
    ]
    finish(logged(steps_of(told, tmp_path), tmp_path, STARTED))
    found = read_all(LogTail(tmp_path))
    assert [report.epoch for report in found if report.values] == list(range(1, 101))
    assert sum(not report.values for report in found) < 50


def test_a_half_written_line_is_skipped_and_what_follows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"
    finish(logged(steps_of([epoch(1, 0.5)], tmp_path), tmp_path, STARTED))
    tail = LogTail(tmp_path)
    assert points(tail) == {"Training": [(1, 0.5)]}
    with file.open("ab") as log:
        log.write('{"time": 1.0, "stage": "Träi'.encode()[:-1])  # killed within a line, within a letter
    assert read_all(tail) == []
    finish(logged(steps_of([epoch(2, 0.25)], tmp_path), tmp_path, RESUMED))
    assert points(tail) == {"Training": [(1, 0.5), (2, 0.25)]}
    assert points(LogTail(tmp_path)) == points(tail)


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    finish(logged(steps_of([], tmp_path), tmp_path, STARTED))
    file, tail = tmp_path / "progress.jsonl", LogTail(tmp_path)
    line = '{"time": 1.0, "stage": "Training", "values": {"epoch": 1, "auc": null, "loss": 2}}\n'
    for part in (line[:30], line[30:]):
        assert read_all(tail) == []
        with file.open("a") as log:
            log.write(part)
    assert points(tail) == {"Training": [(1, 2.0)]}


def test_a_start_that_does_not_resume_begins_new_curves_and_folds_of_one_name_are_told_apart(
    tmp_path: Path,
) -> None:
    tail = LogTail(tmp_path)
    finish(logged(steps_of([epoch(1, 9.0), epoch(2, 9.0)], tmp_path), tmp_path, STARTED))
    assert points(tail) == {"Training": [(1, 9.0), (2, 9.0)]}
    told = [epoch(1, 0.5), epoch(2, 0.4), epoch(1, 0.6), epoch(2, float("nan")), epoch(1, 0.1, "Other")]
    finish(logged(steps_of(told, tmp_path), tmp_path, STARTED))
    expected = {"Training (1)": [(1, 0.5), (2, 0.4)], "Training (2)": [(1, 0.6)], "Other": [(1, 0.1)]}
    assert points(tail) == points(LogTail(tmp_path)) == expected


def test_folds_are_told_by_number(tmp_path: Path) -> None:
    told = [replace(epoch(number, 1.0), fold=fold, folds=2) for fold in (1, 2) for number in (1, 2)]
    finish(logged(steps_of(told, tmp_path), tmp_path, STARTED))
    tail = LogTail(tmp_path)
    assert read_all(tail) == told
    assert [(own.stage, own.title) for own in tail.stages] == [
        ("Training", "Training, fold 1 of 2"),
        ("Training", "Training, fold 2 of 2"),
    ]


def test_the_log_of_an_older_version_is_read(tmp_path: Path) -> None:
    """The number of an epoch stood among its measures, that of a fold in words."""
    lines = [
        {"time": 1.0, "stage": f"Training, fold {fold} of 2", "done": 5, "total": 9, "unit": "batches"}
        | {"note": f"epoch {number} of 2: loss 1", "values": {"epoch": number, "loss": 1.0}}
        for fold in (1, 2)
        for number in (1, 2)
    ]
    (tmp_path / PROGRESS_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    both = [(1, 1.0), (2, 1.0)]
    assert points(LogTail(tmp_path)) == {"Training, fold 1 of 2": both, "Training, fold 2 of 2": both}


def test_a_log_of_hours_is_read_in_pieces(tmp_path: Path) -> None:
    many = [epoch(number, 1.0) for number in range(1, 3001)]
    finish(logged(steps_of(many, tmp_path), tmp_path, STARTED))
    tail = LogTail(tmp_path)
    entries, more = tail.read()
    assert more
    assert 100 < len(entries) < 2000
    assert [report.epoch for report in read_all(tail)][-1] == 3000
    assert len(points(tail)["Training"]) == 3000


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (JobFailed("Row 7: no ihc."), r"Row 7: no ihc\."),
        (RuntimeError("out of memory\nand more"), "not foreseen: out of memory .RuntimeError."),
    ],
)
def test_why_it_failed_is_told(tmp_path: Path, error: Exception, message: str) -> None:
    with pytest.raises(type(error)):
        finish(logged(steps_of([], error), tmp_path, STARTED))
    record = read_process(tmp_path)
    assert record.state == "failed"
    assert re.search(message, record.message)


def test_closing_it_stops_it_after_its_own_end(tmp_path: Path) -> None:
    states = []

    def work() -> Generator[Progress, None, Path]:
        try:
            yield Progress("Training")
            yield Progress("Training")
        finally:
            states.append(read_process(tmp_path).state)
        return tmp_path

    steps = logged(work(), tmp_path, STARTED)
    next(steps)
    steps.close()
    assert states == ["running"]
    assert read_process(tmp_path).state == "stopped"


def test_two_trainings_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_her2_training.running.log._SECONDS_FOR_THE_LOCK", 0.0)
    first = logged(steps_of([Progress("Training")] * 3, tmp_path), tmp_path, STARTED)
    next(first)
    with pytest.raises(JobFailed, match="A training is running in"):
        next(logged(steps_of([Progress("Training")], tmp_path), tmp_path, RESUMED))
    assert read_process(tmp_path).state == "running"
    assert finish(first) == tmp_path


def test_only_the_first_process_of_several_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SimpleNamespace(
        read=METHODS["mil"].read,
        file=METHODS["mil"].file,
        load=lambda: lambda *_, **__: steps_of([epoch(1, 1.0)], tmp_path),
    )
    monkeypatch.setitem(METHODS, "mil", steps)  # type: ignore[arg-type]
    config, out = tmp_path / "c.toml", tmp_path / "out"
    config.write_text('[model]\nname = "t"\ntraining_data = "x"\n[compute]\ndevices = 2\n')
    monkeypatch.setattr("napari_her2_training.running.ranks.wait", lambda: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    finish(train_steps("mil", config=config, data=tmp_path / "m.csv", out=out))
    assert not out.exists()
    monkeypatch.setenv("LOCAL_RANK", "0")
    finish(train_steps("mil", config=config, data=tmp_path / "m.csv", out=out))
    assert (out / PROGRESS_FILE).exists()


ENDLESS = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from napari_her2.steps import Progress
from napari_her2_training.running.log import Started, logged

def endless():
    try:
        (out / "begun").touch()
        while True:
            yield Progress("Training")
            time.sleep(0.02)
    finally:
        (out / "closed").touch()

out = Path(sys.argv[1])
def train_steps(method, **_):
    return logged(endless(), out, Started(method, out, out))

sys.modules["napari_her2_training.command"] = SimpleNamespace(train_steps=train_steps)
sys.argv = ["napari-her2", "train", "wsmcl", "--out", str(out)]
from napari_her2.cli import main
main()
"""


def start_endless(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    # The state is told before the first step of the training, which alone has anything to close.
    while not (out / "begun").exists() or (record := read_process(out)) is None or record.state != "running":
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@ON_POSIX
def test_a_process_that_was_killed_is_lost_whoever_has_its_number_now(tmp_path: Path) -> None:
    with start_endless(tmp_path) as process:
        process.kill()
    assert read_process(tmp_path).state == "lost"
    told = json.loads((tmp_path / "process.json").read_text())
    (tmp_path / "process.json").write_text(json.dumps(told | {"pid": os.getpid()}))
    assert read_process(tmp_path).state == "lost"


@ON_POSIX
def test_sigterm_ends_the_command_as_ctrl_c_does(tmp_path: Path) -> None:
    with start_endless(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors == "napari-her2: Cancelled. Go on with --resume.\n"
    assert (tmp_path / "closed").exists()
    assert read_process(tmp_path).state == "stopped"


def test_a_stop_file_ends_the_command_with_a_plain_line(tmp_path: Path) -> None:
    with start_endless(tmp_path) as process:
        (tmp_path / "stop").touch()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert (
        errors == "napari-her2: The training was stopped as asked; it can be resumed. Go on with --resume.\n"
    )
    assert (tmp_path / "closed").exists()
    assert not (tmp_path / "stop").exists()


CONFIG = """
[model]
name = "tiny"
training_data = "numbers made up"
[pairs]
max_tiles = 16
[head]
width = 8
heads = 2
landmarks = 8
k = 4
epochs = 4
[compute]
device = "cpu"
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(1)
    lines = ["case_id,he,ihc,score"]
    for case in range(16):
        for stain in ("he", "ihc"):
            with h5py.File(folder / f"{case}-{stain}.h5", "w") as file:
                file["features"] = rng.normal(case % 4, 1, (20, 6)).astype(np.float32)
                file["coords"] = np.zeros((20, 2), np.int64)
        lines.append(f"c{case},{case}-he.h5,{case}-ihc.h5,{case % 4}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    (folder / "config.toml").write_text(CONFIG)
    return folder


def train(features: Path, out: Path, *, resume: bool = False) -> Generator[Progress, None, Path]:
    config, data = features / "config.toml", features / "manifest.csv"
    return napari_her2_training.run("wsmcl", config, data, out, resume=resume)


def test_a_stop_file_ends_a_training_that_then_resumes_to_the_same_weights(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_her2_training.running.log._SECONDS_BETWEEN_LOOKS", 0.0)
    whole = finish(train(features, tmp_path / "whole"))
    out = tmp_path / "stopped"

    def until_the_second_epoch() -> None:
        for report in train(features, out):
            if report.values:
                (out / "stop").touch()

    with pytest.raises(JobStopped, match="it can be resumed"):
        until_the_second_epoch()
    assert read_process(out).state == "stopped"
    assert not (out / "metrics.json").exists()
    resumed = finish(train(features, out, resume=True))
    weights = read_weights(whole).tensors
    for name, value in read_weights(resumed).tensors.items():
        assert torch.equal(value, weights[name]), name
    tail, straight = LogTail(out), LogTail(tmp_path / "whole")
    # The epochs before the stop and those after it are one curve, that of a training never stopped.
    assert points(tail) == points(straight)
    assert [epoch for epoch, _ in points(tail)["Training WSMCL"]] == [1, 2, 3, 4]


def test_a_run_that_is_not_to_be_resumed_keeps_what_it_told(features: Path, tmp_path: Path) -> None:
    finish(train(features, tmp_path))
    told = (tmp_path / "process.json").read_text()
    with pytest.raises(JobFailed, match="holds a run already"):
        finish(train(features, tmp_path))
    assert (tmp_path / "process.json").read_text() == told
