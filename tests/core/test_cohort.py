"""Cohorts on one machine: what a slide's files remember, and what is left alone the next time."""

from __future__ import annotations

import csv
import json
import shutil

import h5py
import pytest
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.cohort import Case, embed_cohort_steps, score_cohort_steps
from napari_her2.cohort.outcome import SlideOutcome
from napari_her2.cohort.score_job import ScoreJob
from napari_her2.cohort.table import write_score_table
from napari_her2.errors import JobFailed
from napari_her2.steps import Progress


def finish(steps):
    """The report, and the outcomes in the order in which they were told."""
    told = []
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value, told
        told += [step.outcome] if step.outcome is not None else []


def score(slides, model, out, **options):
    return finish(score_cohort_steps(slides, model, out, device="cpu", **options))


@pytest.fixture(scope="module")
def finished(he_slide, tiny_model, tmp_path_factory):
    """A folder with the result of the H&E slide."""
    out = tmp_path_factory.mktemp("finished")
    report, _ = score([he_slide], tiny_model, out, min_tissue=0.4)
    assert [outcome.state for outcome in report.outcomes] == ["done"]
    return out


@pytest.fixture
def again(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def state(slides, model, out, **options):
    report, _ = score(slides, model, out, **({"skip_finished": True, "min_tissue": 0.4} | options))
    return [outcome.state for outcome in report.outcomes]


def test_what_is_finished_is_left_alone_and_told(he_slide, tiny_model, again):
    written = again / he_slide.stem / "result.json"
    before = written.stat().st_mtime_ns
    report, told = score([he_slide], tiny_model, again, skip_finished=True, min_tissue=0.4)
    assert told == list(report.outcomes)
    assert report.outcomes[0].state == "skipped"
    assert dict(report.outcomes[0].facts)["result"] == json.loads(written.read_text("utf-8"))["label"]
    assert "Research use only" in dict(report.outcomes[0].facts)["notice"]
    assert written.stat().st_mtime_ns == before


def test_device_and_batches_do_not_make_another_answer(he_slide, tiny_model, again):
    assert state([he_slide], tiny_model, again, batch_size=7, cache=False) == ["skipped"]


def test_without_being_asked_nothing_is_left_alone(he_slide, tiny_model, again):
    assert state([he_slide], tiny_model, again, skip_finished=False) == ["done"]


def test_other_options_are_another_request(he_slide, tiny_model, again):
    assert state([he_slide], tiny_model, again, min_confidence=0.9) == ["done"]
    assert state([Case(he_slide, mpp=0.5)], tiny_model, again) == ["done"]


def test_another_stain_that_the_user_names_is_another_request(he_slide, tiny_model, again):
    assert state([he_slide], tiny_model, again, stain="H&E") == ["done"]
    assert state([he_slide], tiny_model, again, stain="H&E") == ["skipped"]
    assert state([he_slide], tiny_model, again) == ["done"]


@pytest.mark.parametrize("damage", ["model_sha256", "version", "slides", None])
def test_a_result_of_something_else_is_not_taken(he_slide, tiny_model, again, damage):
    path = again / he_slide.stem / "result.json"
    values = json.loads(path.read_text("utf-8"))
    if damage is None:
        del values["request"]  # as written by the dock, or by an older version
    else:
        values["request"][damage] = "another"
    path.write_text(json.dumps(values), "utf-8")
    assert state([he_slide], tiny_model, again) == ["done"]


def test_other_regions_in_the_same_file_are_another_request(he_slide, tiny_model, tmp_path):
    regions = tmp_path / "regions.geojson"

    def draw(side):
        square = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
        regions.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}), "utf-8")

    draw(1200)
    case = Case(he_slide, regions=regions)
    assert state([case], tiny_model, tmp_path / "out") == ["done"]
    assert state([case], tiny_model, tmp_path / "out") == ["skipped"]
    draw(1400)
    assert state([case], tiny_model, tmp_path / "out") == ["done"]


def test_a_slide_that_fails_stops_no_other(he_slide, tiny_model, tmp_path):
    report, told = score([tmp_path / "absent.svs", he_slide], tiny_model, tmp_path / "out")
    assert [outcome.state for outcome in told] == ["failed", "done"]
    assert "no file" in str(report.of("failed")[0].error)
    assert report.of("done")[0].written == tmp_path / "out" / he_slide.stem


@pytest.mark.parametrize("error", [ValueError("nobody foresaw this"), MemoryError(), RecursionError("deep")])
def test_an_unforeseen_error_of_one_slide_stops_no_other(error, he_slide, tiny_model, tmp_path, monkeypatch):
    other = shutil.copy(he_slide, tmp_path / "other.svs")

    def steps(job, bundle):
        yield Progress("Finding tissue")
        if job.path == other:
            raise error
        return SlideOutcome(job.path, "done", "done")

    monkeypatch.setattr(ScoreJob, "steps", steps)
    report, _ = score([other, he_slide], tiny_model, tmp_path / "out")
    assert [outcome.state for outcome in report.outcomes] == ["failed", "done"]
    assert report.outcomes[0].error is error
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8", newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == [str(error)]


def test_several_slides_share_a_table_with_those_that_failed(he_slide, tiny_model, small_pair, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app,
        ["score", str(he_slide), str(tmp_path / "absent.svs"), "--model", str(tiny_model), "--out", str(out)],
    )
    assert done.exit_code == 1
    assert "All of them in one table" in done.output
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert set(rows) == {he_slide.name, "absent.svs"}
    told = json.loads((out / he_slide.stem / "result.json").read_text("utf-8"))
    row = rows[he_slide.name]
    assert (row["result"], row["task"]) == (told["label"], told["task"])
    assert "Research use only" in row["notice"]
    for name, value in told["probabilities"].items():
        assert float(row[f"P({name})"]) == pytest.approx(value, abs=1e-4)
    assert "no file" in rows["absent.svs"]["error"]


def test_slides_of_one_name_are_refused_before_any_is_scored(he_slide, tiny_model, tmp_path):
    with pytest.raises(JobFailed, match="Two slides are called"):
        score([he_slide, tmp_path / he_slide.name], tiny_model, tmp_path / "out")


def test_an_interrupted_cohort_says_how_to_go_on(he_slide, tiny_model, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", interrupted)
    command = ["score", he_slide, "other.svs", "--model", tiny_model, "--out", tmp_path]
    result = CliRunner().invoke(app, [str(item) for item in command])
    assert result.exit_code == 130
    assert "the same command with --skip-finished goes on" in result.stderr


def test_finished_features_are_left_alone(he_slide, tiny_model, tmp_path):
    def embed(**options):
        steps = embed_cohort_steps([he_slide], tiny_model, tmp_path, device="cpu", **options)
        return finish(steps)[0].outcomes[0].state

    assert embed(skip_finished=True) == "done"
    assert embed(skip_finished=True) == "skipped"
    assert embed(skip_finished=True, min_tissue=0.8) == "done"
    with h5py.File(tmp_path / f"{he_slide.stem}.h5", "a") as file:
        del file.attrs["request"]
    assert embed(skip_finished=True, min_tissue=0.8) == "done"


def test_two_slides_of_one_name_would_share_a_file(tiny_model, tmp_path):
    with pytest.raises(JobFailed, match="called x"):
        finish(embed_cohort_steps(["a/x.svs", "b/x.svs"], tiny_model, tmp_path))


def test_the_table_names_classes_by_what_the_model_says_they_hold(tmp_path):
    told = {
        "slides": [{"slide": "a.svs"}],
        "class_scores": {"no": ["0"], "Low": ["1+"], "High": ["2+", "3+"]},
        "probabilities": {"no": 0.1, "Low": 0.7, "High": 0.2},
        **{"task": "t", "label": "1+", "score": "Low", "confidence": 0.7, "margin": 0.5, "abstained": False},
        **{"tiles": 3, "tissue_mm2": 1.0, "model": "m", "warnings": [], "notice": "n"},
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(json.dumps(told), "utf-8")
    for name, text in {"b": "{}", "c": "[1]", "d": json.dumps(told | {"class_scores": None})}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text, "utf-8")  # of something else
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "result.json").write_text(json.dumps(told), "utf-8")
    failed = SlideOutcome.failure(tmp_path / "e.svs", JobFailed("gone"))
    with write_score_table(tmp_path, [failed]).open(newline="", encoding="utf-8") as file:
        row, lost = csv.DictReader(file)
    assert (lost["slide"], lost["score"], lost["error"]) == ("e.svs", "", "gone")
    assert row["score"] == "1+"
    assert row["P(no (0))"] == "0.1000"
    assert row["P(High (2+/3+, ISH unknown))"] == "0.2000"
