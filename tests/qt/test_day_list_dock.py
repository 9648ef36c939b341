"""The dock of a day's list: chosen, changed, run, stopped, found again, and opened with its maps."""

from __future__ import annotations

import csv
import gc
import json
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_her2._napari import day_work
from napari_her2._napari.day_work import OpenedRow
from napari_her2._napari.work import Progress
from napari_her2._qt.day_list import dock as day_dock
from napari_her2._qt.day_list import rows_model
from napari_her2.cohort.day_items import DaySettings
from napari_her2.cohort.day_list import DayList
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.entry import Entry
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.score_job import ScoreJob
from napari_her2.cohort.sources import ModelSource
from napari_her2.desk.own_score import ManualScore
from napari_her2.errors import JobFailed
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._napari.work import Equipment
    from napari_her2._qt.day_list.dock import DayListDock
    from napari_her2.models.card import ModelCard


def result_values(number: int = 0, **changes: object) -> dict[str, object]:
    """A result.json by hand; of an even number certain, of an odd one doubtful."""
    odd = bool(number % 2)
    poor = {"share": 0.125, "reasons": {"pen": 0.125}, "applied": False} if odd else None
    return {
        "slides": [{"slide": f"{number}.svs", "slide_sha256": f"fingerprint {number}", "left_out": poor}],
        "class_scores": {},
        "probabilities": {"0": 0.1, "1+": 0.6, "2+": 0.3},
        **{"task": "t", "label": "1+ (HER2-low)", "score": "1+", "confidence": 0.6, "margin": 0.3},
        **{"abstained": False, "withheld": False, "set": ["1+", "2+"] if odd else ["1+"], "coverage": 0.9},
        **{"familiarity": "familiar", "familiarity_value": 0.5, "doubt": f"doubt of {number}"},
        **{"tiles": 3, "tissue_mm2": 1.0, "model": "m", "warnings": [], "notice": "Research use only."},
        **changes,
    }


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch, card: ModelCard) -> threading.Event:
    """Scoring that writes results by hand as soon as it may; names that begin with "bad" fail."""
    may = threading.Event()
    may.set()

    def steps(job: ScoreJob, bundle: object) -> Iterator[Progress]:
        yield Progress("Embedding tiles", 1, 4, "tiles")
        while not may.is_set():
            time.sleep(0.01)
            yield Progress("Embedding tiles", 2, 4, "tiles")
        if job.path.name.startswith("bad"):
            raise JobFailed("It is damaged: copy it again.")
        folder = job.out / job.path.stem
        folder.mkdir(parents=True, exist_ok=True)
        number = int("0" + "".join(filter(str.isdigit, job.path.stem)))
        (folder / "result.json").write_text(json.dumps(result_values(number)))
        return SlideOutcome(job.path, "done", job.path.stem, folder)

    monkeypatch.setattr(ScoreJob, "steps", steps)
    monkeypatch.setattr(ModelSource, "load", lambda source: SimpleNamespace(card=card))
    monkeypatch.setattr(day_work, "load_torch", lambda: None)
    return may


@pytest.fixture
def make_day_dock(
    qtbot: QtBot, viewer: ViewerModel, equipment: Equipment, monkeypatch: pytest.MonkeyPatch, go: object
) -> Iterator[Callable[[], DayListDock]]:
    made: list[DayListDock] = []

    def finding_equipment(settings: object) -> Iterator[Progress]:
        yield Progress("Looking for models")
        return equipment

    monkeypatch.setattr(day_dock, "finding_equipment", finding_equipment)

    def make() -> DayListDock:
        dock = day_dock.DayListDock(viewer)
        qtbot.addWidget(dock)
        made.append(dock)
        qtbot.waitUntil(lambda: not dock.look_job.running)
        return dock

    yield make
    for dock in made:
        dock.shutdown()
    made.clear()
    gc.collect()


def entries(folder: Path, *names: str) -> DayList:
    for name in names:
        (folder / name).write_bytes(b"x")
    return DayList(tuple(Entry(Path(name).stem, folder / name) for name in names))


@pytest.fixture
def ready(make_day_dock: Callable[[], DayListDock], tmp_path: Path) -> DayListDock:
    """A dock with three cases, of which the second fails, a model and a folder."""
    dock = make_day_dock()
    dock.form.source.paths = (tmp_path,)
    dock.form.take(entries(tmp_path, "1.svs", "bad2.svs", "3.svs"))
    dock.form.models.tick(("hand-model",))
    dock.form.out.edit.setText(str(tmp_path / "out"))
    return dock


def run(qtbot: QtBot, dock: DayListDock) -> None:
    with qtbot.waitSignal(dock.run_job.running_changed, check_params_cb=lambda running: not running):
        dock.start()


def shown(dock: DayListDock, column: int) -> list[str]:
    proxy = dock.rows.shown
    return [str(proxy.data(proxy.index(row, column))) for row in range(proxy.rowCount())]


def test_the_dock_says_what_is_missing_before_a_list_can_start(
    make_day_dock: Callable[[], DayListDock], tmp_path: Path
) -> None:
    dock = make_day_dock()
    assert "slides" in dock.run.stage.text()
    dock.form.take(entries(tmp_path, "1.svs"))
    assert "model" in dock.run.stage.text()
    assert not dock.run.start.isEnabled()
    dock.form.models.tick(("hand-model",))
    assert "folder" in dock.run.stage.text()
    dock.form.out.edit.setText(str(tmp_path / "out"))
    assert dock.run.start.isEnabled()


def test_what_is_dropped_is_paired_and_what_is_no_slide_refused_with_its_reason(
    qtbot: QtBot, make_day_dock: Callable[[], DayListDock], tmp_path: Path
) -> None:
    for name in ("7_HE.svs", "7_HER2.svs"):
        (tmp_path / name).write_text("this is no slide")
    dock = make_day_dock()
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path))])
    place, none = QPointF(5, 5), Qt.KeyboardModifier.NoModifier
    event = QDropEvent(place, Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, none)
    with qtbot.waitSignal(dock.list_job.returned):
        dock.dropEvent(event)
    (entry,) = dock.form.cases.model.entries
    assert (entry.he.name, entry.ihc.name) == ("7_HE.svs", "7_HER2.svs")
    assert "not a slide" in entry.problem
    model = dock.form.cases.model
    assert "refused" in model.data(model.index(0, 3))
    assert "1 refused" in dock.form.source.words.text()


def test_a_list_runs_to_rows_with_scores_and_one_reason(
    qtbot: QtBot, ready: DayListDock, tmp_path: Path
) -> None:
    run(qtbot, ready)
    assert shown(ready, rows_model.STATE) == ["done", "failed", "done"]
    assert shown(ready, rows_model.SCORE) == ["1+ (1+ or 2+)", "", "1+ (1+ or 2+)"]
    assert shown(ready, rows_model.QUALITY)[0] == "12.5% poor, scored (pen 12%)"
    assert shown(ready, rows_model.REASON)[1] == "It is damaged: copy it again."
    assert "2 done, 1 failed" in ready.run.summary.text()
    assert (tmp_path / "out/day_list.csv").is_file()
    assert not ready.new.isChecked()


def test_pause_finishes_the_slide_and_start_goes_on(
    qtbot: QtBot, ready: DayListDock, go: threading.Event
) -> None:
    go.clear()
    ready.start()
    qtbot.waitUntil(lambda: ready.day is not None and shown(ready, rows_model.STATE)[0] != "waiting")
    qtbot.waitUntil(lambda: "50%" in shown(ready, rows_model.STATE)[0])
    with qtbot.waitSignal(ready.run_job.returned):
        ready.run.pause.click()
        go.set()
    assert shown(ready, rows_model.STATE) == ["done", "waiting", "waiting"]
    run(qtbot, ready)
    assert shown(ready, rows_model.STATE) == ["done", "failed", "done"]


def test_stop_and_closing_leave_a_list_that_goes_on(
    qtbot: QtBot,
    ready: DayListDock,
    make_day_dock: Callable[[], DayListDock],
    go: threading.Event,
    tmp_path: Path,
) -> None:
    go.clear()
    ready.start()
    qtbot.waitUntil(lambda: ready.day is not None and "running" in str(ready.day.queue.items[0]))
    with qtbot.waitSignal(ready.run_job.cancelled):
        ready.run.stop.click()
    assert shown(ready, rows_model.STATE) == ["waiting"] * 3
    ready.start()
    qtbot.waitUntil(lambda: ready.day is not None and "running" in str(ready.day.queue.items[0]))
    ready.shutdown()
    assert [item.state for item in DayQueue(tmp_path / "out").items] == ["waiting"] * 3
    go.set()
    again = make_day_dock()
    with qtbot.waitSignal(again.open_job.returned):
        again.open_list(tmp_path / "out")
    run(qtbot, again)
    assert shown(again, rows_model.STATE) == ["done", "failed", "done"]


def test_what_failed_is_tried_again(
    qtbot: QtBot, ready: DayListDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(qtbot, ready)
    quick = ScoreJob.steps
    monkeypatch.setattr(
        ScoreJob,
        "steps",
        lambda job, bundle: quick(replace(job, case=replace(job.case, path=Path("4.svs"))), bundle),
    )
    with qtbot.waitSignal(ready.run_job.returned):
        ready.run.retry.click()
    assert shown(ready, rows_model.STATE) == ["done"] * 3
    assert not ready.run.retry.isEnabled()


def test_a_marked_row_is_left_out_or_waits_again(qtbot: QtBot, ready: DayListDock) -> None:
    run(qtbot, ready)
    ready.rows.view.selectRow(1)
    assert ready.rows.retry.isEnabled()
    assert not ready.rows.open.isEnabled()
    assert "It is damaged" in ready.rows.details.text()
    with qtbot.waitSignal(ready.change_job.returned):
        ready.rows.retry.click()
    assert shown(ready, rows_model.STATE)[1] == "waiting"
    with qtbot.waitSignal(ready.change_job.returned):
        ready.rows.leave.click()
    assert shown(ready, rows_model.STATE)[1] == "skipped"


def long_day(tmp_path: Path, card: ModelCard, count: int) -> day_work.Day:
    listed = tuple(Entry(f"case {number:04}", tmp_path / f"{number}.svs") for number in range(count))
    queue = DayQueue.begin(tmp_path / "long", listed, [("hand-model", card)], DaySettings())
    day = day_work.Day(queue)
    for number in range(count):
        folder = tmp_path / "one"
        folder.mkdir(exist_ok=True)
        (folder / "result.json").write_text(
            json.dumps(result_values(number, familiarity_value=number / count))
        )
        day.facts[number] = day_work.row_facts(folder)
    return day


def test_rows_are_found_by_words_state_and_doubt_and_sorted_by_any_column(
    make_day_dock: Callable[[], DayListDock], card: ModelCard, tmp_path: Path
) -> None:
    dock = make_day_dock()
    dock.show_day(long_day(tmp_path, card, 200))
    view = dock.rows
    view.text.setText("CASE 19 hand")
    view.filter()
    assert len(shown(dock, rows_model.CASE)) == 12  # 19, 119 and 190 to 199
    view.text.setText("0190")
    view.filter()
    assert shown(dock, rows_model.CASE) == ["case 0190"]
    view.text.setText("019")
    view.filter()
    assert len(shown(dock, rows_model.CASE)) == 11  # 0019 and 0190 to 0199
    view.doubtful.setChecked(True)
    assert len(shown(dock, rows_model.CASE)) == 6
    assert view.count.text() == "6 of 200 rows"
    view.state.setCurrentIndex(view.state.findData("failed"))
    assert shown(dock, rows_model.CASE) == []
    view.state.setCurrentIndex(0)
    view.text.clear()
    view.doubtful.setChecked(False)
    view.filter()
    view.view.sortByColumn(rows_model.FAMILIARITY, Qt.SortOrder.DescendingOrder)
    assert shown(dock, rows_model.CASE)[:2] == ["case 0199", "case 0198"]
    view.view.sortByColumn(rows_model.DOUBT, Qt.SortOrder.AscendingOrder)
    assert int(shown(dock, rows_model.CASE)[0][-4:]) % 2 == 1  # sets of two scores come first
    view.view.sortByColumn(rows_model.CASE, Qt.SortOrder.DescendingOrder)
    assert shown(dock, rows_model.CASE)[0] == "case 0199"


def test_an_own_score_stands_in_its_row_and_in_the_table(
    qtbot: QtBot,
    make_day_dock: Callable[[], DayListDock],
    card: ModelCard,
    viewer: ViewerModel,
    add_slide: Callable[..., object],
    tmp_path: Path,
) -> None:
    dock = make_day_dock()
    day = long_day(tmp_path, card, 4)
    slide = make_slide()
    result = make_result(slide)
    add_slide(slide)
    dock.session.set_result(result, day_dock.OverlayLook())
    fingerprint = result.slides[0].fingerprint
    day.facts[2] = replace(day.facts[2], fingerprints=(fingerprint,))
    dock.show_day(day)
    dock.session.set_manual(result.slide_id, ManualScore("2+", "negative", "=1+1"))
    assert shown(dock, rows_model.OWN) == ["", "", "2+, ISH negative", ""]
    dock.rows.view.sortByColumn(rows_model.CASE, Qt.SortOrder.DescendingOrder)
    for name in ("table.csv", "table.xlsx"):
        with qtbot.waitSignal(dock.table_job.returned):
            dock.write_table(tmp_path / name)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["case 0003", "case 0002", "case 0001", "case 0000"]
    assert (rows[1]["own score"], rows[1]["own note"]) == ("2+", "'=1+1")
    assert zipfile.is_zipfile(tmp_path / "table.xlsx")


def test_enter_opens_a_row_with_its_maps_and_scores_nothing(
    qtbot: QtBot, ready: DayListDock, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(qtbot, ready)
    slide, asked = make_slide(), []
    slide.path = Path("1.svs")

    def opening_row(day: object, number: int) -> Iterator[Progress]:
        asked.append(number)
        yield Progress("Opening 1.svs")
        return OpenedRow((slide,), make_result(slide))

    monkeypatch.setattr(day_dock, "opening_row", opening_row)
    ready.rows.view.sortByColumn(rows_model.CASE, Qt.SortOrder.DescendingOrder)
    ready.rows.view.selectRow(ready.rows.shown.numbers().index(0))
    with qtbot.waitSignal(ready.row_job.returned):
        qtbot.keyClick(ready.rows.view, Qt.Key.Key_Return)
    assert asked == [0]
    assert ready.session.shown(slide.slide_id) is not None
    qtbot.waitUntil(lambda: len(viewer.layers) > 2)


def test_a_withheld_answer_is_not_in_its_row(
    make_day_dock: Callable[[], DayListDock], card: ModelCard, tmp_path: Path
) -> None:
    dock = make_day_dock()
    day = long_day(tmp_path, card, 1)
    hidden = result_values(
        0, withheld=True, shown_anyway=False, label="withheld: the slide is unlike", set=["3+"]
    )
    (tmp_path / "one/result.json").write_text(json.dumps(hidden | {"score": "3+"}))
    day.facts[0] = day_work.row_facts(tmp_path / "one")
    dock.show_day(day)
    texts = [shown(dock, column)[0] for column in range(len(rows_model.COLUMNS))]
    assert not any("3+" in text for text in texts)
    assert texts[rows_model.SCORE].startswith("withheld")


def test_certificates_without_a_cluster_are_refused(ready: DayListDock) -> None:
    ready.form.cluster.fields[1].setText("ca.pem")
    ready.form.cluster.fields[2].setText("me.pem")
    ready.start()
    assert "address" in ready.message.text.text()
    assert not ready.run_job.running
