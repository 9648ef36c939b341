"""One name for a slide everywhere, and two slides never share one because of a dot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from napari_her2.cohort import embed_cohort_steps, score_cohort_steps
from napari_her2.slide.names import slide_name
from napari_her2.slide.reader import open_slide


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("case-7.svs", "case-7"),
        ("case-7.SVS", "case-7"),
        ("a.b.tiff", "a.b"),
        ("case.ome.tif", "case.ome"),
        ("case.ome.tiff", "case.ome"),
        ("scan.ndpi", "scan"),
        ("scan.mrxs", "scan"),
        ("core.png", "core"),
        ("1.2.840.1.dcm", "1.2.840.1"),
        ("1.2.840.2.dcm", "1.2.840.2"),
        ("1.2.840.113", "1.2.840.113"),
        ("case v1.2", "case v1.2"),
        (".tif", ".tif"),
        ("...svs", "...svs"),
    ],
)
def test_an_ending_is_one_of_a_kind_of_slide(file, name):
    assert slide_name(Path(file)) == name


def test_a_folder_is_named_in_full(tmp_path):
    for name in ("1.2.3.4", "1.2.3.5", "study.dcm"):
        (tmp_path / name).mkdir()
        assert slide_name(tmp_path / name) == name


def finish(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_slides_that_differ_after_a_dot_have_results_and_features_of_their_own(
    he_slide, tiny_model, tmp_path
):
    slides = [tmp_path / "1.2.3.4", tmp_path / "1.2.3.5"]
    for path in slides:
        shutil.copy(he_slide, path)
    out = tmp_path / "out"
    report = finish(score_cohort_steps(slides, tiny_model, out, device="cpu", min_tissue=0.4))
    assert [outcome.state for outcome in report.outcomes] == ["done", "done"]
    assert all((out / path.name / "result.json").exists() for path in slides)
    report = finish(embed_cohort_steps(slides, tiny_model, tmp_path / "features", device="cpu"))
    assert {path.name for path in (tmp_path / "features").iterdir()} == {"1.2.3.4.h5", "1.2.3.5.h5"}
    with open_slide(slides[0]) as slide:
        assert slide.name == "1.2.3.4"


def test_a_failed_slide_takes_no_other_out_of_the_table(he_slide, tiny_model, tmp_path):
    slide = tmp_path / "1.2.3.4"
    shutil.copy(he_slide, slide)
    finish(
        score_cohort_steps(
            [slide, tmp_path / "1.2.3.5"], tiny_model, tmp_path / "out", device="cpu", min_tissue=0.4
        )
    )
    lines = (tmp_path / "out" / "scores.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["1.2.3.4", "1.2.3.5"]
