"""The training dock: what it checks, exports and reports, and what it says where something is missing."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import pytest
from training_docks import (
    TIMEOUT_MS,
    ask,
    end_all,
    epochs_of,
    look_until,
    wait_for,
    wait_for_curves,
)

from napari_her2._napari.session import session_of
from napari_her2._qt.training import dock as training_dock
from napari_her2._qt.training import new_training
from napari_her2.errors import JobFailed, ModelNameTaken
from napari_her2.steps import Progress
from napari_her2.training_runs import processes as training_runs
from napari_her2.training_runs import work as training_work
from napari_her2.training_runs.outcome import outcome_line
from napari_her2.training_runs.work import CheckReport

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.training.dock import TrainingDock


def reporting(report: CheckReport) -> object:
    def checking(request: object) -> Generator[Progress, None, CheckReport]:
        yield Progress("Checking")
        return report

    return checking


def test_faults_are_named_and_nothing_is_started_before_they_are_mended(
    qtbot: QtBot,
    make_training_dock: Callable[[], TrainingDock],
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dock = make_training_dock()
    ask(dock, manifest)
    faults = tuple(f"Row {row}: no <he>." for row in range(2, 30))
    monkeypatch.setattr(new_training, "checking", reporting(CheckReport(faults)))
    dock.asked.check.click()
    qtbot.waitUntil(lambda: dock.asked.checked.report is not None)
    text = dock.asked.checked.text.text()
    assert "28 faults" in text
    assert "Row 2: no &lt;he&gt;." in text
    assert "and 8 more" in text
    assert not dock.asked.start.isEnabled()
    dock.asked.form.device.setCurrentIndex(3)
    assert dock.asked.checked.report is None
    facts = (("Cases", "0: 3"), ("Estimated time", "13 minutes"))
    good = CheckReport((), ("No fold column.",), facts, ("Estimated time",))
    monkeypatch.setattr(new_training, "checking", reporting(good))
    dock.asked.check.click()
    qtbot.waitUntil(lambda: dock.asked.checked.report is not None)
    text = dock.asked.checked.text.text()
    assert "Nothing is wrong" in text
    assert text.index("No fold column.") < text.index("13 minutes") < text.index("0: 3")
    assert dock.asked.start.isEnabled()


def result_of(steps: Generator[Progress, None, CheckReport]) -> CheckReport:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_check_runs_in_a_process_that_a_cancel_ends(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"kind": "check", "faults": ["Row 2: no he."], "warnings": [], "facts": {"cases": "1"}}
    told |= {"estimates": ["cases"], "seconds": 5.0, "memory_bytes": None}
    request = training_runs.RunRequest("wsmcl", "wsmcl", str(manifest), "out")

    def answering(code: str) -> None:
        monkeypatch.setattr(training_work, "train_command", lambda *_: [sys.executable, "-c", code])

    answering(f"import sys; print('a library'); print({json.dumps(json.dumps(told))}); sys.exit(1)")
    steps = training_work.checking(request)
    assert result_of(steps) == CheckReport(("Row 2: no he.",), (), (("cases", "1"),), ("cases",))
    answering(f"print({outcome_line('JobFailed', '[head] has no key epoch.')!r})")
    with pytest.raises(JobFailed, match=r"^\[head\] has no key epoch\.$"):
        list(training_work.checking(request))
    answering("import no_such_module")
    with pytest.raises(JobFailed, match="no_such_module"):
        list(training_work.checking(request))
    started: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(training_work.subprocess, "Popen", Kept)
    answering("import time; time.sleep(600)")
    steps = training_work.checking(request)
    next(steps)
    steps.close()
    assert [process.returncode is not None for process in started] == [True]


def test_an_exported_model_appears_in_the_scoring_dock(
    qtbot: QtBot,
    make_training_dock: Callable[[], TrainingDock],
    make_dock: object,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scoring = make_dock()
    dock = make_training_dock()
    asked: list[tuple[Path, bool, bool]] = []

    def exporting(out: Path, *, ensemble: bool, force: bool) -> Generator[Progress, None, str]:
        asked.append((out, ensemble, force))
        yield Progress("Exporting the model")
        if not force:
            raise ModelNameTaken("Another model called tiny is installed.")
        return "tiny was installed."

    monkeypatch.setattr(training_dock, "exporting_run", exporting)
    out = ask(dock, manifest, "ends")
    (out / "fold1").mkdir(parents=True)
    dock.asked.start.click()
    wait_for(qtbot, dock, "finished")
    dock.run.together.setChecked(True)
    dock.run.export.click()
    qtbot.waitUntil(lambda: dock.message.action.text() == "Replace it")
    with qtbot.waitSignal(scoring.look_job.returned):
        dock.message.action.click()
    assert asked == [(out, True, False), (out, True, True)]
    assert dock.exported.text() == "tiny was installed. HER2 Scoring offers it now."
    assert dock.scroll.widget().minimumSizeHint().width() <= dock.minimumWidth()  # nothing is cut off


def test_what_judged_no_slides_offers_no_model_and_no_report(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path
) -> None:
    dock = make_training_dock()
    ask(dock, manifest, "table")
    dock.asked.start.click()
    wait_for(qtbot, dock, "finished")
    assert not dock.run.export.isVisibleTo(dock)
    assert not dock.run.report.isVisibleTo(dock)
    assert dock.run.folder.isVisibleTo(dock)


def test_a_report_is_written_where_there_is_none_and_opened(
    qtbot: QtBot,
    make_training_dock: Callable[[], TrainingDock],
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def reporting_run(out: Path) -> Generator[Progress, None, Path]:
        yield Progress("Writing the report")
        (out / "report.html").touch()
        return out / "report.html"

    monkeypatch.setattr(training_dock, "reporting_run", reporting_run)
    monkeypatch.setattr(
        "napari_her2._qt.training.run.QDesktopServices.openUrl", lambda url: opened.append(url.toLocalFile())
    )
    dock = make_training_dock()
    out = ask(dock, manifest, "ends")
    dock.asked.start.click()
    wait_for(qtbot, dock, "finished")
    assert dock.run.report.text() == "Write report"
    dock.run.report.click()
    qtbot.waitUntil(lambda: bool(opened))
    assert dock.run.report.text() == "Open report"
    dock.run.report.click()
    assert opened == [str(out / "report.html")] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="programs of POSIX")
def test_what_the_command_of_the_export_says_is_for_those_who_click(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answering(code: str) -> None:
        monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "python", code)))

    answering(f"echo '{outcome_line('ModelNameTaken', 'There is another model called tiny.')}'; exit 1")
    with pytest.raises(ModelNameTaken, match=r"^There is another model called tiny\.$"):
        list(training_work.exporting_run(tmp_path))
    answering(f"echo Other words; printf '{outcome_line('model', '%s')}' \"$*\"")
    said = result_of(training_work.exporting_run(tmp_path, ensemble=True, force=True))
    assert said == f"-m napari_her2 export {tmp_path} --install --json --ensemble --force"


def write_program(path: Path, code: str) -> Path:
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return path


def test_a_training_of_another_computer_is_not_ended_from_here(
    make_training_dock: Callable[[], TrainingDock],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"state": "running", "pid": 4, "host": "elsewhere", "started": 1.0, "method": "trains"}
    (tmp_path / "process.json").write_text(json.dumps(told))
    monkeypatch.setattr("napari_her2.training_runs.log.is_alive", lambda out: True)
    dock = make_training_dock()
    dock.open_folder(tmp_path)
    assert dock.run.state.text().startswith("Running for")
    dock.run.end_wanted.emit()
    assert dock.message.text.text() == "This training runs on the computer elsewhere: end it there."


def test_a_folder_without_a_training_is_refused_in_words(
    make_training_dock: Callable[[], TrainingDock], tmp_path: Path
) -> None:
    dock = make_training_dock()
    dock.open_folder(tmp_path)
    assert "There is no training in" in dock.message.text.text()
    assert dock.no_run.isVisibleTo(dock)


def test_without_the_training_extra_it_says_what_to_install(
    make_training_dock: Callable[[], TrainingDock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_runs, "find_spec", lambda name: None if name == "lightning" else object())
    dock = make_training_dock()
    assert 'pip install "napari-her2[training]"' in dock.message.text.text()
    assert "(lightning)" in dock.message.text.text()
    assert not dock.asked.start.isEnabled()


def test_a_damaged_list_of_trainings_keeps_no_dock_from_opening(
    make_training_dock: Callable[[], TrainingDock],
) -> None:
    training_runs.state_file().write_text('{"format": 1, "runs": [{"out": 3}]}')
    dock = make_training_dock()
    assert dock.no_run.isVisibleTo(dock)
    training_runs.state_file().write_text("[")
    assert training_runs.known_runs() == ()


def test_the_latest_trainings_are_kept_each_once(tmp_path: Path) -> None:
    for number in [*range(25), 24, 3]:
        training_runs.remember(training_runs.RunRequest("wsmcl", "", "m.csv", str(tmp_path / str(number))))
    kept = [run.folder.name for run in training_runs.known_runs()]
    assert kept == ["3", "24", *(str(number) for number in range(23, 5, -1))]


def test_it_fits_a_small_screen_and_can_be_read_aloud(
    make_training_dock: Callable[[], TrainingDock],
) -> None:
    dock = make_training_dock()
    hint = dock.minimumSizeHint()
    assert hint.width() <= 400
    assert hint.height() <= 500
    form = dock.asked.form
    for widget in (form.data.edit, form.method, form.config, form.out.edit, form.device, dock.runs):
        assert widget.accessibleName()
        assert widget.focusPolicy() != widget.focusPolicy().NoFocus


def test_it_goes_without_the_garbage_collector(
    qtbot: QtBot, make_training_dock: Callable[[], TrainingDock], manifest: Path
) -> None:
    """What only the collector can free it frees in any thread, and Qt ends the program then."""
    gc.collect()
    gc.disable()
    try:
        dock = make_training_dock()
        ask(dock, manifest)
        dock.asked.start.click()
        wait_for(qtbot, dock, "running")
        ref = weakref.ref(dock)
        dock.close()
        del dock
        assert ref() is None
    finally:
        gc.enable()


def test_docks_of_one_viewer_share_its_session(
    make_training_dock: Callable[[], TrainingDock], viewer: ViewerModel
) -> None:
    assert make_training_dock().session is session_of(viewer)


CONFIG = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
validation = 0.5
[bags]
size = 5
batch_size = 4
train_batches = 4
validation_batches = 1
[head]
epochs = 80
[compute]
device = "cpu"
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_training_from_slides_to_a_model(
    qtbot: QtBot, viewer: ViewerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real methods and processes of their own that load PyTorch."""
    from napari_her2.phantom import cohort_steps

    for _ in cohort_steps(tmp_path, cases=8, seed=3, size_px=768):
        pass
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    dock = training_dock.TrainingDock(viewer)
    qtbot.addWidget(dock)
    try:
        qtbot.waitUntil(lambda: not dock.list_job.running, timeout=TIMEOUT_MS)
        dock.asked.form.data.edit.setText(str(tmp_path / "manifest.csv"))
        dock.asked.form.method.setCurrentIndex(dock.asked.form.method.findData("attention-mil"))
        dock.asked.form.choose_config(str(config))
        dock.asked.check.click()
        qtbot.waitUntil(lambda: dock.asked.checked.report is not None, timeout=TIMEOUT_MS)
        assert dock.asked.checked.report.faults == ()
        assert dict(dock.asked.checked.report.facts)["Estimated time"]
        dock.asked.start.click()
        wait_for_curves(qtbot, dock)
        dock.run.stop.click()
        wait_for(qtbot, dock, "stopped")
        dock.run.resume.click()
        wait_for(qtbot, dock, "finished")
        look_until(qtbot, dock, lambda: len(epochs_of(dock)) == 80)
        assert epochs_of(dock) == list(range(1, 81))
        assert dock.run.status.record.bundle.is_file()
    finally:
        dock.shutdown()
        end_all()
