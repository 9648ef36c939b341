"""What a user asks of the doubt: coverage, least familiarity, withheld answers; on every road to scoring."""

from __future__ import annotations

import json

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.cohort import Case, score_cohort_steps
from napari_her2.cohort.score_job import ScoreJob
from napari_her2.commands.shares import coverage_of, least_familiarity_of
from napari_her2.errors import JobFailed
from napari_her2.inference.options import ScoringOptions
from napari_her2.steps import finished


def run(*arguments):
    return CliRunner().invoke(app, [str(item) for item in arguments])


@given(st.integers(80, 99))
@settings(max_examples=20, deadline=None)
def test_a_coverage_is_read_as_a_share_and_as_per_cent(percent):
    forms = (f"0.{percent}", f"{percent}", f"{percent}%", f" {percent} % ", f"{percent}.0")
    assert {coverage_of(text) for text in forms} == {percent / 100}


@pytest.mark.parametrize(
    "text",
    ["0.79", "0.995", "1", "1.0", "79", "100", "99.5", "0", "-0.9", "nan", "inf", "", "%", "most", "0.9%"],
)
def test_any_other_coverage_is_wrong_usage_in_one_sentence(text, tmp_path):
    with pytest.raises(typer.BadParameter, match="a coverage is a number from"):
        coverage_of(text)
    done = run("score", "a.svs", "--model", "m", "--out", tmp_path, f"--coverage={text}")
    assert done.exit_code == 2
    assert "--coverage" in done.stderr


@pytest.mark.parametrize("text", ["-0.01", "1", "1.5", "nan", "inf", "", "some"])
def test_a_least_familiarity_that_is_no_share_is_wrong_usage(text, tmp_path):
    done = run("score", "a.svs", "--model", "m", "--out", tmp_path, f"--min-familiarity={text}")
    assert done.exit_code == 2
    assert "--min-familiarity" in done.stderr
    assert least_familiarity_of("0") == 0
    assert least_familiarity_of("0.05") == 0.05


@pytest.mark.parametrize("wish", [{"coverage": 0.7}, {"coverage": 90}, {"min_familiarity": 1.0}])
def test_options_that_make_no_sense_are_refused_before_a_slide_is_opened(wish, tmp_path):
    with pytest.raises(JobFailed, match=r"80% to 99%|least familiarity"):
        finished(score_cohort_steps(["/gone.svs"], "demo-attention-mil", tmp_path, **wish))


def test_a_result_remembers_what_was_wished_and_another_wish_is_another_request(
    he_slide, tiny_model, tmp_path
):
    def score(**wishes):
        steps = score_cohort_steps(
            [he_slide], tiny_model, tmp_path, device="cpu", skip_finished=True, **wishes
        )
        (outcome,) = finished(steps).outcomes
        assert outcome.error is None
        values = json.loads((tmp_path / he_slide.stem / "result.json").read_text("utf-8"))
        return outcome.state, {name: values["request"]["options"][name] for name in WISHES}

    assert score() == ("done", {"coverage": 0.9, "min_familiarity": 0.01, "show_withheld": False})
    assert score()[0] == "skipped"
    for name, value in WISHES.items():
        state, kept = score(**{name: value})
        assert (state, kept[name]) == ("done", value)
        assert score(**{name: value})[0] == "skipped"


WISHES = {"coverage": 0.95, "min_familiarity": 0.0, "show_withheld": True}


def test_every_option_of_scoring_reaches_the_method_from_a_job(he_slide, tiny_model, tmp_path, monkeypatch):
    """The same job runs here and, pickled, on a worker."""
    import pickle

    from napari_her2.methods import scoring
    from napari_her2.models.bundle import load_bundle

    wishes = ScoringOptions(**WISHES, cache=False)
    seen = []

    class Seen(Exception):
        pass

    class Method:
        takes_pair = False

        def explains(self, card):
            return frozenset()

        def score(self, job):
            seen.append(job.options)
            raise Seen

    monkeypatch.setattr(scoring, "method_of", lambda card: Method())
    job = pickle.loads(pickle.dumps(ScoreJob(Case(he_slide), tmp_path, wishes, "cpu")))
    with pytest.raises(Seen):
        finished(job.steps(load_bundle(tiny_model)))
    assert seen == [wishes]


def test_the_command_line_hands_its_wishes_to_the_cohort(monkeypatch, tmp_path):
    seen = {}

    def steps(slides, model, out, **options):
        seen.update(options)
        raise JobFailed("seen")
        yield

    monkeypatch.setattr("napari_her2.cohort.run.score_cohort_steps", steps)
    arguments = ("score", "a.svs", "--model", "m", "--out", tmp_path)
    run(*arguments, "--coverage", "95", "--min-familiarity", "0", "--show-withheld")
    assert {name: seen[name] for name in WISHES} == WISHES
    run(*arguments)
    assert ScoringOptions(**{name: seen[name] for name in WISHES}) == ScoringOptions()
