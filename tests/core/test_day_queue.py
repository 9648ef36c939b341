"""A day's list at work: every row with its state and reason, whatever stops it on the way."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from napari_her2.cells.rules import Rules
from napari_her2.cohort import day_queue
from napari_her2.cohort.day_file import DAY_FILE, append_item, read_day
from napari_her2.cohort.day_items import DaySettings, Item, entry_from, entry_values, item_from, settings_from
from napari_her2.cohort.day_list import entries_of
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.day_rows import reading_rows, row_facts
from napari_her2.cohort.day_run import score_day_steps
from napari_her2.cohort.day_table import COLUMNS, OwnScore, day_records, write_day_csv, write_day_xlsx
from napari_her2.cohort.entry import Entry
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.score_job import ScoreJob
from napari_her2.cohort.sources import ModelSource
from napari_her2.errors import JobFailed
from napari_her2.inference.options import ScoringOptions
from napari_her2.slide.quality_limits import QualityLimits
from napari_her2.steps import Progress, finished

OPTIONS = DaySettings(ScoringOptions(min_tissue=0.4), device="cpu")


@pytest.fixture
def model(tiny_model):
    return tiny_model, ModelSource(tiny_model).card()


@pytest.fixture
def quick(monkeypatch):
    """Scoring that computes nothing; slides whose name begins with "bad" fail. Returns what was begun."""
    begun = []

    def steps(job, bundle):
        begun.append(job)
        yield Progress("Finding tissue", 0, 2, "tiles")
        yield Progress("Embedding tiles", 1, 2, "tiles")
        if job.path.name.startswith("bad"):
            raise JobFailed("It is damaged.")
        folder = job.out / job.path.stem
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text("{}")
        return SlideOutcome(job.path, "done", job.path.stem, folder)

    monkeypatch.setattr(ScoreJob, "steps", steps)
    return begun


@pytest.fixture
def cases(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / "day" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "day" / name).write_bytes(b"x")
        return entries_of(tmp_path / "day")

    return make


def states(queue):
    return [item.state for item in queue.items]


def test_rows_are_done_or_failed_with_their_reason(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "bad.svs", "c.svs"), [model], OPTIONS)
    assert states(queue) == ["waiting"] * 3
    assert finished(score_day_steps(queue))["done"] == 2
    assert states(queue) == ["done", "failed", "done"]
    assert queue.items[1].reason == "It is damaged."
    assert all(item.started and item.seconds is not None for item in queue.items)
    assert queue.items[0].folder == "tiny/a"
    assert DayQueue(tmp_path / "out").items == queue.items
    assert sorted(set(queue.changes)) == [0, 1, 2]


def test_only_what_failed_is_tried_again(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "bad.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    assert queue.retry() == 1
    assert states(DayQueue(tmp_path / "out")) == ["done", "waiting"]
    finished(score_day_steps(queue))
    assert [job.path.name for job in quick] == ["a.svs", "bad.svs", "bad.svs"]


def test_a_slide_with_a_problem_can_be_tried_again_when_it_is_mended(cases, quick, model, tmp_path):
    found = cases("a.svs", "b.svs")
    broken = replace(found.entries[1], problem="There is no file b.svs: check the path.")
    queue = DayQueue.begin(tmp_path / "out", [found.entries[0], broken], [model], OPTIONS)
    assert (queue.items[1].state, queue.items[1].reason) == ("skipped", broken.problem)
    finished(score_day_steps(queue))
    assert len(quick) == 1
    assert queue.retry() == 1
    finished(score_day_steps(DayQueue(tmp_path / "out")))
    assert [job.path.name for job in quick] == ["a.svs", "b.svs"]


def test_a_pause_waits_for_the_slide_that_runs(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    for step in score_day_steps(queue):
        if step.number == 0 and step.outcome is None:
            queue.pause()
    assert states(queue) == ["done", "waiting"]
    finished(score_day_steps(queue))
    assert states(queue) == ["done", "done"]


def test_a_stop_puts_the_slide_that_runs_back(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    steps = score_day_steps(queue)
    while queue.items[0].state != "running":
        next(steps)
    assert read_states(tmp_path / "out")[-1]["state"] == "running"
    steps.close()
    assert states(queue) == ["waiting", "waiting"]
    assert DayQueue(tmp_path / "out").items[0].lost == 0


def read_states(folder):
    return [json.loads(line) for line in (folder / DAY_FILE).read_text().splitlines()[1:]]


def test_a_model_is_loaded_once_for_all_its_slides(cases, quick, model, tmp_path, monkeypatch):
    loaded = []
    load = ModelSource.load
    monkeypatch.setattr(ModelSource, "load", lambda source: loaded.append(source.name) or load(source))
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs", "c.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    assert len(loaded) == 1


def test_several_models_each_take_their_slide(tmp_path, quick):
    models = [(name, ModelSource(name).card()) for name in ("demo-attention-mil", "demo-low-resolution")]
    he, ihc, alone = (tmp_path / name for name in ("1_HE.svs", "1_HER2.svs", "2_HE.svs"))
    for path in (he, ihc, alone):
        path.write_bytes(b"x")
    queue = DayQueue.begin(tmp_path / "out", entries_of([he, ihc, alone]), models, OPTIONS)
    assert states(queue) == ["waiting", "waiting", "waiting", "skipped"]
    assert "IHC" in queue.items[3].reason
    finished(score_day_steps(queue))
    assert [job.path for job in quick] == [he, alone, ihc]  # a model after the other
    assert queue.items[1].folder == "demo-low-resolution/1_HER2"


def test_slides_of_one_name_keep_their_results_apart(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("mon/x.svs", "tue/x.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    folders = [queue.folder_of(item) for item in queue.items]
    assert len(set(folders)) == 2
    assert all((folder / "result.json").is_file() for folder in folders)


def test_another_list_of_the_same_folder_keeps_what_is_done(cases, quick, model, tmp_path):
    found = cases("a.svs", "b.svs")
    finished(score_day_steps(DayQueue.begin(tmp_path / "out", found, [model], OPTIONS)))
    more = cases("a.svs", "b.svs", "c.svs")
    queue = DayQueue.begin(tmp_path / "out", more, [model], OPTIONS)
    assert states(queue) == ["done", "done", "waiting"]
    other = DaySettings(ScoringOptions(min_tissue=0.6), device="cpu")
    assert states(DayQueue.begin(tmp_path / "out", more, [model], other)) == ["waiting"] * 3
    shutil.rmtree(tmp_path / "out/tiny/a")
    assert states(DayQueue.begin(tmp_path / "out", more, [model], OPTIONS)) == ["waiting"] * 3


def test_a_result_that_is_gone_is_waited_for_again(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    shutil.rmtree(tmp_path / "out/tiny/a")
    assert states(DayQueue(tmp_path / "out")) == ["waiting", "done"]


def test_a_slide_that_ends_the_program_twice_is_not_begun_again(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    for _ in range(2):
        append_item(queue.folder, 0, replace(queue.items[0], state="running", started=1.5))
        queue = DayQueue(queue.folder)
        assert queue.items[0].state == "waiting"
    finished(score_day_steps(queue))
    assert states(queue) == ["failed", "done"]
    assert "ended 2 times" in queue.items[0].reason
    queue.retry()
    finished(score_day_steps(queue))
    assert states(queue) == ["done", "done"]


def test_nobody_else_works_on_a_list_at_the_same_time(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs"), [model], OPTIONS)
    steps = score_day_steps(queue)
    next(steps)
    for action in (score_day_steps(DayQueue(tmp_path / "out")).__next__, queue.retry):
        with pytest.raises(JobFailed, match="being worked on"):
            action()
    steps.close()
    finished(score_day_steps(DayQueue(tmp_path / "out")))


def test_what_is_left_out_by_a_person_is_skipped(cases, quick, model, tmp_path):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    queue.leave_out([0])
    finished(score_day_steps(queue))
    assert states(queue) == ["skipped", "done"]


def test_a_model_that_cannot_be_loaded_fails_its_rows_alone(cases, quick, model, tmp_path):
    gone = tmp_path / "gone.safetensors"
    shutil.copy(model[0], gone)
    card = replace(model[1], name="gone")
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs"), [(gone, card), model], OPTIONS)
    gone.unlink()
    finished(score_day_steps(queue))
    assert states(queue) == ["failed", "done"]
    assert "gone" in queue.items[0].reason


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_file_that_was_cut_while_it_was_written_loses_its_last_line_alone(
    cases, quick, model, tmp_path, cut
):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    path = tmp_path / "out" / DAY_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    again = DayQueue(tmp_path / "out")
    assert again.items[0] == queue.items[0]
    finished(score_day_steps(again))
    assert states(DayQueue(tmp_path / "out")) == ["done", "done"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace("napari-her2 day list", "something else"),
        lambda text: "[]\n" + text,
        lambda text: text.replace('"entry": 0', '"entry": 9'),
        lambda text: text.replace('"state": "done"', '"state": "fine"'),
        lambda text: text.replace("tiny/a", "../a"),
        lambda text: text + '{"item": 7}\n{"item": 0}\n',
        lambda text: "",
    ],
)
def test_a_file_of_something_else_is_refused_in_words(cases, quick, model, tmp_path, damage):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    path = tmp_path / "out" / DAY_FILE
    path.write_text(damage(path.read_text()) + "\n")
    with pytest.raises(JobFailed):
        read_day(tmp_path / "out")


def test_values_survive_the_way_through_the_file(tmp_path):
    entry = Entry("c", tmp_path / "é \udcff.svs", None, 0.25, None, None, False, "table", "x (y)", "n", "")
    assert entry_from(json.loads(json.dumps(entry_values(entry)))) == entry
    item = Item(0, 0, "failed", "why", 12.5, 3.25, "", 1)
    assert item_from(json.loads(json.dumps(item.values())), 1, 1) == item
    limits = QualityLimits(most_blur_um=1.5)
    chosen = DaySettings(
        ScoringOptions(leave_out_poor=True, quality_limits=limits, rules=Rules(gain=1.5)), "cpu"
    )
    assert settings_from(json.loads(json.dumps(chosen.values()))) == chosen


def test_a_full_disk_stops_the_list_and_loses_nothing(cases, quick, model, tmp_path, monkeypatch):
    queue = DayQueue.begin(tmp_path / "out", cases("a.svs", "b.svs"), [model], OPTIONS)
    write = day_queue.append_item

    def full(folder, number, item):
        if number == 1:
            raise JobFailed(f"{folder} cannot be written (No space left on device): free space.")
        write(folder, number, item)

    monkeypatch.setattr(day_queue, "append_item", full)
    with pytest.raises(JobFailed, match="No space left"):
        finished(score_day_steps(queue))
    monkeypatch.undo()
    assert states(DayQueue(tmp_path / "out")) == ["done", "waiting"]


def test_tables_hold_text_as_text_and_numbers_as_numbers(cases, quick, model, tmp_path, scored):
    from napari_her2.export.tables import write_result

    queue = DayQueue.begin(tmp_path / "out", cases("=HYPERLINK(1).svs", "x.svs"), [model], OPTIONS)
    finished(score_day_steps(queue))
    facts = finished(reading_rows(queue, range(2)))
    assert facts == {0: None, 1: None}  # results that say nothing
    facts[0] = row_facts(write_result(scored, tmp_path / "real"))
    own = lambda row: OwnScore("2+", "", "=1+1") if row.fingerprints else OwnScore()  # noqa: E731
    records = day_records(queue, facts, own)
    write_day_csv(tmp_path / "t.csv", records)
    write_day_xlsx(tmp_path / "t.xlsx", records)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not any(re.match(r"\s*[=+@]", cell) for row in rows for cell in row.values())
    sheet = read_xlsx(tmp_path / "t.xlsx")
    assert sheet[0] == list(COLUMNS)
    first = dict(zip(COLUMNS, sheet[1], strict=True))
    assert first["H&E slide"] == "'=HYPERLINK(1).svs"
    assert first["own note"] == "'=1+1"
    assert first["own score"] == "2+"
    assert first["result"] == scored.label or "withheld" in first["result"]
    assert isinstance(first["seconds"], float)
    assert "<f>" not in zipfile.ZipFile(tmp_path / "t.xlsx").read("xl/worksheets/sheet1.xml").decode()


def read_xlsx(path):
    """The cells of the first sheet, by its own XML."""
    with zipfile.ZipFile(path) as book:
        shared = [
            "".join(item.itertext()) for item in ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        ]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    rows = []
    for row in sheet.iterfind("{*}sheetData/{*}row"):
        cells = [""] * len(COLUMNS)
        for cell in row.iterfind("{*}c"):
            column = re.match("[A-Z]+", cell.get("r"))[0]
            at = sum((ord(letter) - 64) * 26**power for power, letter in enumerate(reversed(column))) - 1
            value = cell.findtext("{*}v")
            cells[at] = shared[int(value)] if cell.get("t") == "s" else float(value)
        rows.append(cells)
    return rows


POOR = {"share": 0.25, "reasons": {"pen": 0.25, "fold": 0.0}, "applied": True}


def test_a_withheld_answer_is_withheld_in_its_row(tmp_path):
    values = {
        "slides": [{"slide": "a.svs", "slide_sha256": "f" * 64, "left_out": POOR}],
        "class_scores": {},
        "probabilities": {},
        **{"task": "t", "label": "withheld: unlike", "score": "3+", "confidence": 0.9, "margin": 0.8},
        **{"abstained": False, "withheld": True, "shown_anyway": False, "set": ["3+"], "doubt": "unlike"},
        **{"familiarity": "unlike", "familiarity_value": 0.001},
        **{"tiles": 3, "tissue_mm2": 1.0, "model": "m", "warnings": [], "notice": "n"},
    }
    (tmp_path / "result.json").write_text(json.dumps(values), "utf-8")
    facts = row_facts(tmp_path)
    assert (facts.score, facts.answer_set, facts.withheld, facts.doubtful) == ("", "", True, True)
    assert "3+" not in repr(facts)
    assert (facts.poor, facts.poor_for, facts.poor_left_out) == (0.25, "pen 25%", True)
    (tmp_path / "result.json").write_text("{", "utf-8")
    assert row_facts(tmp_path) is None
