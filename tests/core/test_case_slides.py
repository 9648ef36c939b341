"""Several slides of a case give one answer: as one bag, or joined from the answers of each."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from method_bundles import make_mil_bundle
from napari_her2 import open_slide, score_slide
from napari_her2.cohort.case_answer import case_answer
from napari_her2.cohort.case_table import CASES_FILE, case_answers, write_case_table
from napari_her2.cohort.day_cases import cases_for
from napari_her2.cohort.day_items import DaySettings, planned, settings_from
from napari_her2.cohort.day_list import entries_of
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.day_run import score_day_steps
from napari_her2.cohort.run import score_cohort_steps
from napari_her2.cohort.score_job import Case
from napari_her2.errors import ModelError
from napari_her2.export.kept_result import read_kept
from napari_her2.export.result_files import KEPT_NAME, finished_result, is_of_result
from napari_her2.export.tables import result_values, write_result
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps
from napari_her2.inference.judging import redoubted
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.result import CaseOf
from napari_her2.methods.catalogue import METHODS
from napari_her2.methods.rebuilding import rebuilt
from napari_her2.methods.scoring import again, score_steps
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.bundle import load_bundle
from napari_her2.models.card import SLIDE
from napari_her2.phantom import make_pair
from napari_her2.reports.replay import replay_steps
from napari_her2.steps import finished
from scored import CLASSES, make_result, make_slide, with_doubt


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Another H&E and IHC slide of the case."""
    return make_pair(tmp_path_factory.mktemp("second"), "more", score="1+", seed=6, size_px=1024, mpp=0.5)


@pytest.fixture(scope="module")
def mil_model(tmp_path_factory):
    return make_mil_bundle(tmp_path_factory.mktemp("mil") / "abmil.safetensors", "abmil")


def features_of(path, bundle):
    with open_slide(path) as slide:
        grid = slide.tile_grid(96, 0.5)
        keep = slide.tissue("auto").keep(grid, 0.5)
        steps = embed_steps(slide, bundle.encoder, grid, keep, choose_device("cpu"))
        return torch.from_numpy(np.asarray(finished(steps).features)).float()


def in_one_bag(paths, model, **options):
    further = [(path, "H&E", None) for path in paths[1:]]
    case = CaseOf("7", len(paths), "joined bags")
    return finished(score_steps(paths[0], model, further=further, case=case, device="cpu", **options))


@pytest.mark.usefixtures("features_are_kept")
def test_a_joined_bag_is_one_bag_of_the_features_of_both_slides(he_slide, second, mil_model, precision):
    bundle = load_bundle(mil_model)
    result = in_one_bag([he_slide, second.he], bundle)
    each = [features_of(path, bundle) for path in (he_slide, second.he)]
    with torch.inference_mode():
        output = bundle.head(torch.cat(each))
        alone = [torch.softmax(bundle.head(own).logits.double(), -1).numpy() for own in each]
    by_hand = torch.softmax(output.logits.double(), -1).numpy()
    np.testing.assert_allclose(list(result.probabilities.values()), by_hand, atol=1e-6)
    assert result.precision == precision
    assert [len(scored.table) for scored in result.slides] == [len(own) for own in each]
    attention = np.concatenate([scored.table.attention for scored in result.slides])
    np.testing.assert_allclose(attention, output.attention.numpy(), atol=1e-7)
    for scored, own in zip(result.slides, alone, strict=True):
        np.testing.assert_allclose(list(scored.alone.values()), own, atol=1e-6)
    assert not score_slide(he_slide, bundle, device="cpu").slides[0].alone


@pytest.mark.usefixtures("features_are_kept")
def test_a_result_of_a_joined_bag_is_written_kept_and_replayed(he_slide, second, mil_model, tmp_path):
    result = in_one_bag([he_slide, second.he], mil_model)
    folder = write_result(result, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["H&E 2"]
    assert is_of_result(("H&E 2", "tiles.csv"))
    assert not is_of_result(("other 2",))
    values = json.loads((folder / "result.json").read_text())
    assert values["case"]["case_id"] == "7"
    assert [slide["slide"] for slide in values["slides"]] == [he_slide.name, second.he.name]
    assert values["slides"][1]["probabilities"] == pytest.approx(dict(result.slides[1].alone))
    kept = read_kept(folder / KEPT_NAME)
    assert kept.case == result.case
    assert kept.slides[1].alone == result.slides[1].alone
    answer = case_answer([values])
    assert answer is not None
    assert (answer.label, answer.case_id) == (result.label, "7")
    assert [slide.name for slide in answer.slides] == [he_slide.name, second.he.name]
    assert "alone" in answer.slides[0].answer
    assert finished(replay_steps(folder)).found == ()
    write_result(result, tmp_path / "out")  # in place of the older one


@pytest.mark.usefixtures("features_are_kept")
def test_regions_change_the_answer_of_the_bag_and_not_whose_it_is(he_slide, second, mil_model):
    kept: list = []
    whole = in_one_bag([he_slide, second.he], mil_model, kept=kept)
    same = again(kept[0], None)
    assert same.case == whole.case
    assert same.probabilities == pytest.approx(whole.probabilities, abs=1e-6)
    assert len(same.slides) == 2
    with open_slide(he_slide) as first, open_slide(second.he) as other:
        made = finished(rebuilt(whole, [first, other]))
    assert again(made, None).probabilities == pytest.approx(whole.probabilities, abs=1e-6)
    assert again(made, None).case == whole.case


def test_further_slides_are_refused_where_they_cannot_be_one_bag(he_slide, second, mil_model, small_pair):
    with pytest.raises(ModelError, match="the same slide: give each slide of a case once"):
        in_one_bag([he_slide, he_slide], mil_model)
    steps = score_steps(he_slide, mil_model, further=[(small_pair.ihc, "IHC", None)], device="cpu")
    with pytest.raises(ModelError, match="is given as IHC: leave it out"):
        finished(steps)
    steps = score_steps(small_pair.ihc, "ihc-rules", further=[(second.ihc, "IHC", None)], device="cpu")
    with pytest.raises(ModelError, match="score each by itself, and join the answers"):
        finished(steps)


def values_of(name, probabilities, *, way="joined answers", rule="mean", scorings=2, calibrated=None, **more):
    """What result.json holds of a slide of case 7, by a model that was calibrated on 99 cases."""
    rng = np.random.default_rng(3)
    chances = rng.dirichlet([1, 1, 1, 1], 99)
    cases = CalibrationCases.of(chances, np.arange(99) % 4)
    result = make_result(make_slide(name=name))
    score = max(probabilities, key=probabilities.get)
    result = with_doubt(replace(result, probabilities=probabilities, score=score), **more)
    if more.get("verdict") in ("in part", "unlike"):  # by the upper tenth of its tiles
        known = [replace(of.familiarity, upper=1e-5) for of in result.slides]
        slides = [replace(of, familiarity=one) for of, one in zip(result.slides, known, strict=True)]
        result = replace(result, slides=tuple(slides))
    learnt = calibrated or (way, rule)
    result = replace(
        result,
        case=CaseOf("7", scorings, way, rule),
        answer_sets=AnswerSets({SLIDE: cases}),
        limits=replace(result.limits, case_slides=learnt[0], case_rule=learnt[1]),
    )
    result = redoubted(result, coverage=0.8, min_familiarity=0.05, show_withheld=False)
    values = result_values(result)
    # As of a scoring, which notes what was asked.
    from napari_her2.export import case as written
    from napari_her2.inference.asked import Asked

    asked = Asked((), "m", None, "", None, ScoringOptions(coverage=0.8), "cpu", "auto", "2", 1)
    return json.loads(json.dumps(values | written.case_values(replace(result, asked=asked))))


ONE = {"0": 0.05, "1+": 0.15, "2+": 0.6, "3+": 0.2}
OTHER = {"0": 0.0, "1+": 0.05, "2+": 0.15, "3+": 0.8}


@pytest.mark.parametrize("rule", ["mean", "highest"])
def test_answers_are_joined_as_numpy_joins_them(rule):
    answer = case_answer([values_of("a", ONE, rule=rule), values_of("b", OTHER, rule=rule)])
    rows = np.array([list(ONE.values()), list(OTHER.values())])
    by_hand = rows.mean(axis=0) if rule == "mean" else rows[1]
    np.testing.assert_allclose(list(answer.probabilities.values()), by_hand, atol=1e-12)
    assert answer.score == CLASSES[int(by_hand.argmax())]
    assert [slide.name for slide in answer.slides] == ["a.svs", "b.svs"]
    # The set, by hand: classes join from neighbour to neighbour until the limit of 80 % is passed.
    limits = values_of("a", ONE, rule=rule)["case"]["promise"]["limits"]
    order, low, high = [int(by_hand.argmax())], int(by_hand.argmax()), int(by_hand.argmax())
    while len(order) < 4:
        below = by_hand[low - 1] if low else -1
        above = by_hand[high + 1] if high < 3 else -1
        order.append(low - 1 if below >= above else high + 1)
        low, high = min(order), max(order)
    passed = np.concatenate([[0.0], np.cumsum(by_hand[order])[:-1]])
    inside = {CLASSES[at] for at, value in zip(order, passed, strict=True) if value <= limits[CLASSES[at]]}
    assert inside <= set(answer.answer_set)
    assert "99" in answer.promise
    assert answer.coverage == 0.8


def test_nothing_is_promised_of_cases_that_were_answered_otherwise():
    each = ("each", "mean")
    rows = [values_of(name, of, calibrated=each) for name, of in (("a", ONE), ("b", OTHER))]
    answer = case_answer(rows)
    assert answer.answer_set == ()
    assert "calibrated on each slide by itself, and this is one answer of 2 slides" in answer.doubt
    # Its slides are answered as the model learnt, so they keep theirs.
    assert rows[0]["set"]
    # A model of whole cases promises nothing of one of several slides.
    of_cases = values_of("a", ONE)
    assert of_cases["set"] is None
    assert "one of 2 slides of its case" in of_cases["doubt"]
    assert values_of("a", ONE, scorings=1)["set"]


def test_a_case_is_as_familiar_as_its_least_familiar_slide(tmp_path):
    rows = [values_of("a", ONE), values_of("b", OTHER, verdict="in part")]
    assert (case_answer(rows).familiarity, case_answer(rows).familiarity_value) == ("in part", 0.2)
    strange = [values_of("a", ONE), values_of("b", OTHER, verdict="unlike")]
    withheld = case_answer(strange)
    assert withheld.withheld
    assert (withheld.score, withheld.probabilities, withheld.answer_set) == ("", {}, ())
    assert withheld.label == "withheld: a slide of the case is unlike what the model learnt from"
    missing = case_answer([values_of("a", ONE)])
    assert missing.label == "indeterminate: 1 of 2 slides of the case has no result"
    assert not missing.probabilities
    assert case_answer([values_of("a", ONE, way="each")]) is None
    write_case_table(tmp_path / CASES_FILE, [withheld, case_answer(rows)])
    with (tmp_path / CASES_FILE).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["withheld"] for row in table] == ["yes", "no"]
    assert table[0]["P(2+)"] == table[0]["set"] == table[0]["confidence"] == ""
    assert table[1]["slides"] == "a.svs | b.svs"
    write_case_table(tmp_path / CASES_FILE, [])
    assert not (tmp_path / CASES_FILE).exists()


def test_a_case_of_one_slide_has_a_row_beside_those_that_are_joined(tmp_path):
    def kept(name, values, case_id):
        folder = tmp_path / name
        folder.mkdir()
        values["case"]["case_id"] = case_id
        (folder / "result.json").write_text(json.dumps(values))
        return folder

    one = kept("a", values_of("a", ONE), "7")
    other = kept("b", values_of("b", OTHER), "7")
    alone = kept("c", values_of("c", OTHER, way="each", scorings=1), "8")
    apart = kept("d", values_of("d", ONE, way="each"), "9")  # one of two, answered each by itself
    folders = [one, alone, other, apart]
    assert [answer.case_id for answer in case_answers(folders)] == ["7"]
    joined, lone = case_answers(folders, lone=True)
    assert (joined.case_id, lone.case_id) == ("7", "8")
    values = json.loads((alone / "result.json").read_text())
    assert (lone.label, lone.score, lone.probabilities) == (values["label"], "3+", OTHER)
    assert list(lone.answer_set) == values["set"]
    assert [slide.name for slide in lone.slides] == ["c.svs"]
    assert case_answers([alone, apart], lone=True) == []  # nothing is joined: the list has it all
    write_case_table(tmp_path / CASES_FILE, [joined, lone])
    with (tmp_path / CASES_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["7", "8"]
    assert rows[1]["joined"] == "the case has one slide"


def test_measured_scores_join_to_the_highest():
    method = METHODS["ihc-rules"]
    assert method.joined_score(["1+", "3+", "2+"], CLASSES) == "3+"
    assert method.joined_score(["1+", "?"], CLASSES) == ""
    assert METHODS["abmil"].joined_score(["1+"], CLASSES) == ""


def write_list(folder, small_pair, second):
    path = folder / "list.csv"
    path.write_text(
        "case_id,he,ihc\n"
        f"7,{small_pair.he},{small_pair.ihc}\n"
        f"7,{second.he},{small_pair.ihc}\n"
        f"8,{second.he.parent / 'gone.svs'},\n"
    )
    return path


def test_rows_of_one_case_are_planned_together(tmp_path, small_pair, second, mil_model):
    entries = entries_of(write_list(tmp_path, small_pair, second)).entries
    card = load_bundle(mil_model).card
    apart = cases_for(entries, card)
    assert [case.of for case in apart[:2]] == [CaseOf("7", 2, "joined answers")] * 2
    bags = cases_for(entries, replace(card, case_slides="joined bags"))
    assert [one.path for one in bags[0].further] == [second.he]
    assert "as one bag of case 7" in bags[1]
    assert "no file" in bags[2]
    items = planned(entries, [card], "joined bags")
    assert [item.state for item in items] == ["waiting", "skipped", "skipped"]
    each = cases_for(entries, card, "each")
    assert each[0].of == CaseOf("7", 2, "each")
    # An IHC slide of two rows is scored once.
    ihc = cases_for(entries, replace(card, stain="IHC"))
    assert ihc[0].path == small_pair.ihc
    assert "scored once" in ihc[1]
    pairs = cases_for(entries, replace(card, stain="H&E+IHC", method="wsmcl", case_slides="joined bags"))
    assert (pairs[0].ihc, [one.stain for one in pairs[0].further]) == (small_pair.ihc, ["H&E"])
    settings = DaySettings(case_slides="joined bags")
    assert settings_from(settings.values()) == settings
    assert "case_slides" not in DaySettings().values()


@pytest.mark.usefixtures("features_are_kept")
@pytest.mark.parametrize("way", ["joined answers", "joined bags"])
def test_a_list_ends_with_one_answer_a_case(tmp_path, small_pair, second, mil_model, way):
    entries = entries_of(write_list(tmp_path, small_pair, second)).entries
    card = load_bundle(mil_model).card
    settings = DaySettings(device="cpu", case_slides=way)
    queue = DayQueue.begin(tmp_path / "out", entries, [(mil_model, card)], settings)
    finished(score_day_steps(queue))
    (answer,) = queue.case_answers()
    assert (answer.case_id, len(answer.slides)) == ("7", 2)
    if way == "joined answers":
        of_slides = [score_slide(path, mil_model, device="cpu") for path in (small_pair.he, second.he)]
        by_hand = np.mean([list(of.probabilities.values()) for of in of_slides], axis=0)
    else:
        joined = in_one_bag([small_pair.he, second.he], mil_model)
        by_hand = list(joined.probabilities.values())
    np.testing.assert_allclose(list(answer.probabilities.values()), by_hand, atol=1e-6)
    assert answer.task == card.task
    # The same list goes on: nothing is scored twice.
    again = DayQueue.begin(tmp_path / "out", entries, [(mil_model, card)], settings)
    assert again.counts()["waiting"] == 0


@pytest.mark.usefixtures("features_are_kept")
def test_a_cohort_with_named_cases_has_a_table_of_them(tmp_path, small_pair, second, mil_model):
    of = CaseOf("7", 2, "joined answers")
    cases = [Case(path, of=of) for path in (small_pair.he, second.he)]
    steps = score_cohort_steps(cases, mil_model, tmp_path, device="cpu")
    report = finished(steps)
    assert [outcome.state for outcome in report.outcomes] == ["done", "done"]
    with (tmp_path / CASES_FILE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "7"
    found = case_answers([outcome.written for outcome in report.outcomes])
    assert float(row["confidence"]) == pytest.approx(found[0].confidence, abs=1e-4)
    again = finished(score_cohort_steps(cases, mil_model, tmp_path, device="cpu", skip_finished=True))
    assert [outcome.state for outcome in again.outcomes] == ["skipped", "skipped"]
    assert finished_result is not None
