"""The training dock: what it checks, starts, follows, stops and resumes, and what it survives."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from napari_her2._napari import training_runs, training_work
from napari_her2._napari.session import session_of
from napari_her2._napari.training_log import read_process
from napari_her2._napari.training_work import CheckReport, ConfigChoice, MethodChoice
from napari_her2._qt import new_training, training_dock
from napari_her2.errors import ModelNameTaken
from napari_her2.inference.result import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.training_dock import TrainingDock

SCRIPT = Path(__file__).with_name("tiny_training.py")
METHODS = tuple(
    MethodChoice(name, f"What {name} learns from", (ConfigChoice("tiny", "The tiny protocol."),))
    for name in ("trains", "ends", "table", "fails", "deaf", "refuses")
)
TIMEOUT_MS = 240_000  # a busy machine takes a minute to load PyTorch


def reopen_napari() -> None:
    """What napari knew of its processes is gone when it is opened again: only their folders tell."""
    training_runs._LEAVING.extend(child.process for child in training_runs._CHILDREN.values())
    training_runs._CHILDREN.clear()


def end_all() -> None:
    children = [child.process for child in training_runs._CHILDREN.values()]
    for process in (*children, *training_runs._LEAVING):
        process.kill()
        process.wait()
    training_runs._CHILDREN.clear()
    training_runs._LEAVING.clear()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text("case_id,he,ihc,score\nc1,a.svs,,0\n")
    return path


@pytest.fixture
def make_training_dock(
    qtbot: QtBot, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], TrainingDock]]:
    """Docks whose trainings are processes that train nothing; none of them is left behind."""
    made: list[weakref.ref[TrainingDock]] = []

    def train_command(request: object, *more: str) -> list[str]:
        return [sys.executable, str(SCRIPT), request.method, request.out, *more]

    def listing() -> Generator[Progress, None, tuple[MethodChoice, ...]]:
        yield Progress("Looking for the methods")
        return METHODS

    monkeypatch.setattr(training_runs, "train_command", train_command)
    monkeypatch.setattr(training_dock, "listing_methods", listing)

    def make() -> TrainingDock:
        dock = training_dock.TrainingDock(viewer)
        qtbot.addWidget(dock)
        made.append(weakref.ref(dock))
        qtbot.waitUntil(lambda: not dock.list_job.running)
        return dock

    yield make
    for ref in made:
        dock = ref()
        if dock is not None:
            dock.shutdown()
    end_all()
    del dock
    gc.collect()


def wait_for(qtbot: QtBot, dock: TrainingDock, state: str) -> None:
    def reached() -> bool:
        dock.run.poll()
        return dock.run.status.state == state

    qtbot.waitUntil(reached, timeout=TIMEOUT_MS)


def ask(dock: TrainingDock, manifest: Path, method: str = "trains") -> Path:
    dock.asked.form.data.edit.setText(str(manifest))
    dock.asked.form.method.setCurrentIndex([choice.name for choice in METHODS].index(method))
    return Path(dock.asked.form.out.text)


def epochs_of(dock: TrainingDock) -> list[int]:
    stages = dock.run.curves._stages
    return [epoch for epoch, _ in stages[0].curves[0].points] if stages else []


def wait_for_curves(qtbot: QtBot, dock: TrainingDock) -> None:
    def drawn() -> bool:
        dock.run.poll()
        return len(epochs_of(dock)) > 2

    qtbot.waitUntil(drawn, timeout=TIMEOUT_MS)


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
    qtbot.waitUntil(lambda: dock.run.poll() or len(epochs_of(dock)) == 400)
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
    monkeypatch.setattr("napari_her2._qt.training_run._PATIENCE_S", 0.0)
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
    good = CheckReport((), ("No fold column.",), (("Cases", "0: 3"), ("Estimated time", "13 minutes")))
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
    told = {"faults": ["Row 2: no he."], "facts": [["cases", "1"]], "seconds": 5.0, "memory_bytes": None}
    request = training_runs.RunRequest("wsmcl", "wsmcl", str(manifest), "out")

    def answering(code: str) -> None:
        monkeypatch.setattr(training_work, "train_command", lambda *_: [sys.executable, "-c", code])

    answering(f"import sys; print({json.dumps(json.dumps(told))}); sys.exit(1)")
    steps = training_work.checking(request)
    assert result_of(steps) == CheckReport(("Row 2: no he.",), (), (("cases", "1"),))
    answering("import sys; sys.exit('napari-her2: [head] has no key epoch.')")
    with pytest.raises(training_work.JobFailed, match=r"^\[head\] has no key epoch\.$"):
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
        "napari_her2._qt.training_run.QDesktopServices.openUrl", lambda url: opened.append(url.toLocalFile())
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

    taken = "There is another model called tiny. To replace it, add --force."
    answering(f"echo 'napari-her2: {taken}' >&2; exit 1")
    with pytest.raises(ModelNameTaken, match=r"^There is another model called tiny\.$"):
        list(training_work.exporting_run(tmp_path))
    answering('echo Other words; echo "$@"')
    said = result_of(training_work.exporting_run(tmp_path, ensemble=True, force=True))
    assert said == f"-m napari_her2 export {tmp_path} --install --ensemble --force"


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
    monkeypatch.setattr("napari_her2._napari.training_log.is_alive", lambda out: True)
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
        qtbot.waitUntil(lambda: dock.run.poll() or len(epochs_of(dock)) == 80)
        assert epochs_of(dock) == list(range(1, 81))
        assert dock.run.status.record.bundle.is_file()
    finally:
        dock.shutdown()
        end_all()
