"""A withheld answer on every road from a slide to a table: Python, command line, skipped, shown anyway."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from doubtful_bundles import CASES, doubtful_bundle
from napari_her2 import score_slide
from napari_her2.cli import app
from napari_her2.models.card import NOTICE


def run(*arguments):
    done = CliRunner().invoke(app, [str(item) for item in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def result_in(out, slide):
    return json.loads((out / slide.stem / "result.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("doubtful")
    return {
        name: doubtful_bundle(tiny_model, folder / f"{name}.safetensors", strange=name == "strange")
        for name in ("strange", "usual")
    }


def test_a_familiar_slide_is_answered_by_a_set_with_its_promise(models, he_slide, tmp_path):
    said = run("score", he_slide, "--model", models["usual"], "--out", tmp_path, "--device", "cpu")
    values = result_in(tmp_path, he_slide)
    assert values["familiarity"] == "familiar"
    assert values["score"] in values["set"]
    assert (values["coverage"], values["set_cases"]) == (0.9, CASES)
    assert values["doubt"].split(" · ")[0] in said.replace("\n", "")
    assert "P(2+)" in said


def test_more_coverage_gives_no_smaller_set(models, he_slide, tmp_path):
    sizes = []
    for percent in (80, 90, 99):
        run("score", he_slide, "--model", models["usual"], "--out", tmp_path, "--coverage", percent)
        values = result_in(tmp_path, he_slide)
        assert values["coverage"] == percent / 100
        sizes.append(len(values["set"]))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_an_unlike_slide_is_withheld_in_words_and_shown_only_when_asked(models, he_slide, tmp_path):
    arguments = ("score", he_slide, "--model", models["strange"], "--out", tmp_path, "--device", "cpu")
    said = run(*arguments)
    values = result_in(tmp_path, he_slide)
    assert (values["withheld"], values["score"], values["probabilities"]) == (True, "", {})
    for text in (NOTICE, "withheld", "unlike", "--show-withheld"):
        assert text in said
    assert "P(" not in said
    assert "margin" not in said
    skipped = run(*arguments, "--skip-finished")
    assert "finished" in skipped
    assert "--show-withheld" in skipped
    shown = run(*arguments, "--skip-finished", "--show-withheld")
    assert "P(2+)" in shown
    assert "add --show-withheld" not in shown
    values = result_in(tmp_path, he_slide)
    assert (values["withheld"], values["shown_anyway"]) == (True, True)
    assert "withheld" in values["label"]
    assert values["score"]


def test_where_nothing_may_be_withheld_nothing_is(models, he_slide, tmp_path):
    arguments = ("score", he_slide, "--model", models["strange"], "--out", tmp_path, "--device", "cpu")
    run(*arguments, "--min-familiarity", "0")
    values = result_in(tmp_path, he_slide)
    assert (values["withheld"], values["min_familiarity"]) == (False, 0)
    assert values["familiarity"] == "unlike"
    assert values["probabilities"]
    assert "no promise holds" in values["doubt"]


def test_python_has_the_same_wishes(models, he_slide):
    hidden = score_slide(he_slide, models["strange"], device="cpu")
    assert hidden.doubt.hidden
    assert hidden.label.startswith("withheld")
    shown = score_slide(he_slide, models["strange"], device="cpu", show_withheld=True, coverage=0.99)
    assert shown.doubt.withheld
    assert not shown.doubt.hidden
    assert shown.doubt.answer.coverage == 0.99


def test_the_table_of_a_cohort_begins_with_what_is_withheld(models, small_pair, he_slide, tmp_path):
    import shutil

    other = tmp_path / "a-other.svs"
    shutil.copy(he_slide, other)
    with other.open("ab") as file:
        file.write(b"x" * 16)
    out = tmp_path / "out"
    run("score", other, "--model", models["usual"], "--out", out, "--device", "cpu")
    broken = tmp_path / "0-broken.svs"
    broken.write_text("text")
    arguments = ["score", he_slide, broken, "--model", models["strange"], "--out", out, "--device", "cpu"]
    for more, expected in (
        ([], [he_slide.name, other.name, broken.name]),
        (["--sort", "name"], [*sorted([he_slide.name, other.name]), broken.name]),
    ):
        done = CliRunner().invoke(app, [str(item) for item in [*arguments, *more]])
        assert done.exit_code == 1
        with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        assert [row["slide"] for row in table] == expected
    wrong = CliRunner().invoke(app, [str(item) for item in [*arguments, "--sort", "luck"]])
    assert wrong.exit_code == 2
