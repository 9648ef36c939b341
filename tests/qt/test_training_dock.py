"""The training dock: what it starts, follows, stops and resumes, and what it survives."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from training_docks import (
    ask,
    epochs_of,
    look_until,
    reopen_napari,
    wait_for,
    wait_for_curves,
)

from napari_her2.training_runs.log import read_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_her2._qt.training.dock import TrainingDock


def test_from_the_start_over_a_stop_to_the_end(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path
) -> None:
    dock = make_training_dock()
    assert not dock.asked.start.isEnabled()
    assert dock.asked.hint.text() == "Choose a table of cases."
    out = ask(dock, manifest)
    assert out == manifest.parent / "training-trains"
    dock.asked.start.click()
    assert dock.run.status.state == "starting"
    assert not dock.asked.isVisibleTo(dock)
    wait_for_curves(qtbot, dock)
    assert [line.label for line in dock.run.curves.loss._lines] == ["training", "validation"]
    assert dock.run.words.text().startswith("Training, fold 1 of 2 · epoch ")
    assert Path(dock.asked.form.out.text) != out  # the next training gets a folder of its own
    dock.run.stop.click()
    wait_for(qtbot, dock, "stopped")
    before = epochs_of(dock)
    assert len(before) < 400
    assert dock.run.resume.isVisibleTo(dock)
    assert not dock.run.stop.isVisibleTo(dock)
    dock.run.resume.click()
    wait_for(qtbot, dock, "finished")
    look_until(qtbot, dock, lambda: len(epochs_of(dock)) == 400)
    assert epochs_of(dock) == list(range(1, 401))
    assert dock.run.words.text() == "Model: tiny.safetensors"
    assert dock.run.export.isVisibleTo(dock)
    assert not dock.run.resume.isVisibleTo(dock)


def test_a_training_outlives_the_dock_and_a_new_dock_follows_it(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path
) -> None:
    dock = make_training_dock()
    out = ask(dock, manifest)
    dock.asked.start.click()
    wait_for_curves(qtbot, dock)
    dock.close()
    assert not dock.run.timer.isActive()
    reopen_napari()
    again = make_training_dock()
    assert again.run.status.state == "running"
    assert again.run.out == out
    assert not again.asked.isVisibleTo(again)
    wait_for_curves(qtbot, again)
    assert epochs_of(again)[0] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_process_that_died_without_a_word_is_told_and_can_be_resumed(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path
) -> None:
    dock = make_training_dock()
    out = ask(dock, manifest)
    dock.asked.start.click()
    wait_for_curves(qtbot, dock)
    os.kill(read_process(out).pid, signal.SIGKILL)
    wait_for(qtbot, dock, "lost")
    assert dock.run.state.text() == "Ended unexpectedly"
    assert "Resume it" in dock.run.words.text()
    dock.run.resume.click()
    wait_for(qtbot, dock, "finished")


def test_one_that_does_not_react_can_be_ended(
    qtbot: QtBot,
    make_training_dock: Callable[[], TrainingDock],
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock = make_training_dock()
    out = ask(dock, manifest, "deaf")
    dock.asked.start.click()
    wait_for(qtbot, dock, "running")
    dock.run.stop.click()
    assert not dock.run.end.isVisibleTo(dock)
    monkeypatch.setattr("napari_her2._qt.training.run._PATIENCE_S", 0.0)
    wait_for(qtbot, dock, "running")
    assert dock.run.end.isVisibleTo(dock)
    dock.run.end.click()
    wait_for(qtbot, dock, "stopped")
    assert read_process(out).state == "lost"
    assert not (out / "stop").exists()
    assert dock.run.resume.isVisibleTo(dock)


def test_one_that_only_starts_is_stopped_at_once(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path
) -> None:
    dock = make_training_dock()
    out = ask(dock, manifest)
    dock.asked.start.click()
    dock.run.stop.click()
    wait_for(qtbot, dock, "stopped")
    assert not (out / "process.json").exists()


@pytest.mark.parametrize(
    ("method", "words"), [("fails", "Row 7: no ihc."), ("refuses", "There is no configuration x.toml.")]
)
def test_why_a_training_failed_is_said_in_words(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path, method: str, words: str
) -> None:
    dock = make_training_dock()
    ask(dock, manifest, method)
    dock.asked.start.click()
    wait_for(qtbot, dock, "failed")
    assert dock.run.words.text() == words
    reopen_napari()
    assert make_training_dock().run.words.text() == words


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "There is no such file."),
        (b"case_id;he;score\n", "not separated by commas"),
        (b"case,he,score\n", "no column case_id"),
        (b"\xff\xfec\x00a\x00", "CSV UTF-8"),
    ],
)
def test_a_broken_table_is_told_where_it_is_chosen(
    make_training_dock: Callable[[], TrainingDock], tmp_path: Path, content: bytes | None, problem: str
) -> None:
    dock = make_training_dock()
    path = tmp_path / "broken.csv"
    if content is not None:
        path.write_bytes(content)
    ask(dock, path)
    assert problem in dock.asked.form.data.words.text()
    assert not dock.asked.start.isEnabled()
    assert not dock.asked.check.isEnabled()


def test_a_folder_with_a_training_is_not_begun_in(
    make_training_dock: Callable[[], TrainingDock], manifest: Path, tmp_path: Path
) -> None:
    dock = make_training_dock()
    ask(dock, manifest)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").touch()
    dock.asked.form.out.edit.setText(str(tmp_path / "old"))
    assert "holds a training already" in dock.asked.form.out.words.text()
    assert not dock.asked.start.isEnabled()
