"""Failed cases in a report: each is shown with its own slide, whatever stain the cohort has."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_her2.errors import JobFailed
from napari_her2.inference.doubt import Doubt
from napari_her2.models.bundle import BUNDLED_FOLDER
from napari_her2.phantom import cohort_steps
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.measures.predictions import Part, Predictions
from napari_her2_training.reporting import cases
from napari_her2_training.reporting.cases import misses_of, picture_steps
from napari_her2_training.reporting.evaluation import FinishedRun

MODEL = "demo-low-resolution.safetensors"
CLASSES = ("0", "Low", "High")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """IHC slides of three phantom cases."""
    folder = tmp_path_factory.mktemp("cohort")
    for _ in cohort_steps(folder, cases=3, seed=8, size_px=768):
        pass
    return [case.ihc for case in read_manifest(folder / "manifest.csv", ("ihc",))]


def finished(folder, rows, cases, header="case_id,ihc,score"):
    """A run whose model is wrong about every slide, and whose manifest has the given rows."""
    (folder / "manifest.csv").write_text("\n".join([header, *rows]), "utf-8")
    shutil.copy(BUNDLED_FOLDER / MODEL, folder)
    told = {
        **{"bundle": "written", "stain": "IHC", "judged": "test", "fold": 0, "model": MODEL, "reading": ""},
        "data": str(folder / "manifest.csv"),
    }
    surest_first = np.linspace(0.9, 0.8, len(cases))
    chances = np.stack([1 - surest_first, surest_first, np.zeros(len(cases))], axis=1)
    said = Predictions(tuple(cases), np.zeros(len(cases), np.int64), chances)
    return FinishedRun(folder, told, {Part(0, "test"): said}, CLASSES)


def shown(run):
    steps = picture_steps(run, misses_of(run), most=9, device="cpu")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_cohort_of_ihc_alone_shows_its_failed_cases(slides, tmp_path):
    rows = [f"{number},{path},0" for number, path in enumerate(slides[:2])]
    misses = shown(finished(tmp_path, rows, ["0", "1"]))
    assert [miss.case for miss in misses] == ["0", "1"]
    assert all(len(miss.pictures) == 1 for miss in misses)
    assert all(miss.caption.startswith("Grad-CAM") for miss in misses)


def test_a_failed_case_whose_answer_is_withheld_says_so(slides, tmp_path, monkeypatch):
    score_steps = cases.score_steps

    def unlike(path, *arguments, **options):
        result = yield from score_steps(path, *arguments, **options)
        strange = path == slides[0]
        return replace(result, doubt=Doubt(verdict="unlike", reason="its colours")) if strange else result

    monkeypatch.setattr(cases, "score_steps", unlike)
    rows = [f"{number},{path},0" for number, path in enumerate(slides[:2])]
    first, second = shown(finished(tmp_path, rows, ["0", "1"]))
    assert (first.withheld, second.withheld) == (True, False)
    assert "withheld" in first.caption
    assert "its colours" in first.caption
    assert "withheld" not in second.caption
    assert len(first.pictures) == 1


def test_several_rows_of_a_case_show_their_own_slides(slides, tmp_path):
    rows = [f"a,{slides[0]},0", f"b,{slides[1]},0", f"a,{slides[2]},0"]
    misses = shown(finished(tmp_path, rows, ["a", "b", "a"]))
    assert [miss.case for miss in misses] == ["a", "b", "a"]
    assert slides[0].name in misses[0].caption
    assert slides[2].name in misses[2].caption
    assert len({miss.pictures for miss in misses}) == 3


def test_rows_that_were_not_judged_are_not_counted(slides, tmp_path):
    rows = [f"a,{slides[0]},,0", f"a,,{slides[1]},0", f"a,,{slides[2]},0"]
    misses = shown(finished(tmp_path, rows, ["a", "a"], header="case_id,he,ihc,score"))
    assert [slides[1].name in misses[0].caption, slides[2].name in misses[1].caption] == [True, True]


def test_where_the_manifest_changed_no_slide_of_another_is_shown(slides, tmp_path):
    rows = [f"a,{slides[0]},0", f"a,{slides[1]},0"]
    misses = shown(finished(tmp_path, rows, ["a", "a", "a"]))
    assert all(not miss.pictures and "cannot be told" in miss.caption for miss in misses)


def test_a_table_without_any_column_of_slides_is_refused_by_name(tmp_path):
    (tmp_path / "manifest.csv").write_text("case_id,score\na,0\n", "utf-8")
    with pytest.raises(JobFailed, match="no column he"):
        read_manifest(Path(tmp_path / "manifest.csv"), ())
