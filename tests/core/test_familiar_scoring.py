"""Slides scored and judged by what a model has seen and can promise: spaces and sets made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch

from hand_spaces import around, space_for
from napari_her2 import open_slide, score_slide
from napari_her2.export.tables import write_result
from napari_her2.inference import familiarity as room
from napari_her2.inference.appearance import LENGTH
from napari_her2.inference.assemble import redoubted
from napari_her2.inference.device import choose_device
from napari_her2.inference.doubt import NOTHING_KNOWN
from napari_her2.inference.embed import embed_steps
from napari_her2.inference.familiarity import drawn_features
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.options import ScoringOptions
from napari_her2.inference.presentation import trust_line
from napari_her2.methods.catalogue import method_of
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.bundle import load_bundle
from napari_her2.models.card import SLIDE
from napari_her2.models.card_doubt import FamiliarityCard
from napari_her2.models.ensemble import MILEnsemble
from napari_her2.models.familiarity import APPEARANCE, FEATURES, Familiarity
from napari_her2.steps import finished
from small_files import make_bundle

pytestmark = pytest.mark.usefixtures("features_are_kept")


def cases(*scores: float, classes: int = 4, each: int = 20) -> AnswerSets:
    """Calibration cases of which a class has these scores, in turn."""
    labels = np.repeat(np.arange(classes), each)
    return AnswerSets({SLIDE: CalibrationCases(np.resize(scores, len(labels)).astype(np.float32), labels)})


def with_doubt(bundle, features=None, verdict="familiar", sets=None, stain="H&E"):
    spaces = {} if features is None else {(stain, FEATURES): space_for(features, verdict)}
    return replace(bundle, familiarity=Familiarity(spaces) if spaces else None, answer_sets=sets)


def signatures_of(slide, bundle):
    """Score with somebody collecting signatures."""
    found = []
    job = ScoringJob(slide, None, bundle, None, choose_device("cpu"), ScoringOptions(), signatures=found)
    return finished(method_of(bundle.card).score(job)), found


@pytest.fixture(scope="module")
def slide(he_slide):
    """Opened once: finding its tissue takes longer than all else."""
    with open_slide(he_slide) as opened:
        yield opened


@pytest.fixture(scope="module")
def bundle(tiny_model):
    """A model that is sure enough to answer without a set."""
    cold = load_bundle(tiny_model)
    return replace(cold, card=replace(cold.card, temperatures={"slide": 0.1}))


@pytest.fixture(scope="module")
def scored(slide, bundle):
    result = score_slide(slide, bundle, device="cpu", cache=False)
    assert result.confidence > 0.5
    return result


@pytest.fixture(scope="module")
def features(slide, bundle, scored):
    """Features of the tiles that `scored` rests on."""
    grid = scored.slides[0].grid
    keep = np.zeros(grid.shape, bool)
    keep[tuple(scored.table.index.T)] = True
    return finished(embed_steps(slide, bundle.encoder, grid, keep, choose_device("cpu"))).features


def score(slide, model, **options):
    return score_slide(slide, model, device="cpu", **options)


def test_a_model_that_kept_nothing_is_not_known_and_no_pixel_is_read_for_it(
    slide, bundle, scored, monkeypatch
):
    def read(*_, **__):
        raise AssertionError("pixels were read")

    monkeypatch.setattr(room, "appearance_steps", read)
    result = score(slide, bundle)
    assert result.probabilities == scored.probabilities
    assert result.slides[0].familiarity is NOTHING_KNOWN
    assert (result.doubt.verdict, result.doubt.withheld, result.doubt.answer) == ("not known", False, None)
    assert math.isnan(result.doubt.familiarity)
    assert "unfamiliar" not in {of.kind for of in result.overlays}
    assert result.label == scored.label
    line = trust_line(result)
    assert "whether the slide looks like what the model learnt from is not known" in line
    assert "how often such answers are right is not known" in line


@pytest.mark.parametrize("verdict", ["familiar", "in part", "unlike"])
def test_a_slide_is_as_familiar_as_its_tiles_lie_among_those_of_validation(
    slide, bundle, features, scored, verdict
):
    result = score(slide, with_doubt(bundle, features, verdict))
    known = result.slides[0].familiarity
    assert (known.verdict, result.doubt.verdict) == (verdict, verdict)
    assert result.probabilities == scored.probabilities
    assert result.doubt.withheld == result.abstained == (verdict == "unlike")
    space = space_for(features, verdict)
    by_hand = np.linalg.norm(features.astype(np.float64) - space.mean, axis=1) / space.tile_limit
    np.testing.assert_allclose(known.distances, by_hand, rtol=1e-3)
    assert known.unfamiliar == pytest.approx((by_hand > 1).mean())
    assert bool(known.reason) == (verdict != "familiar")


def test_the_map_shows_how_far_off_each_tile_is(slide, bundle, features, tmp_path):
    result = score(slide, with_doubt(bundle, features, "in part"))
    known, shown = result.slides[0].familiarity, result.map("unfamiliar")
    np.testing.assert_array_equal(shown.at(result.table.index), known.distances)
    assert np.isfinite(shown.values).sum() == len(result.table)
    assert shown.info.visible
    assert not score(slide, with_doubt(bundle, features)).map("unfamiliar").info.visible
    header, first = (write_result(result, tmp_path) / "tiles.csv").read_text().splitlines()[:2]
    column = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(column["unfamiliar"]) == pytest.approx(known.distances[0], rel=1e-3)


def test_an_answer_on_a_strange_slide_is_withheld_and_shown_when_asked_for(slide, bundle, features, scored):
    model = with_doubt(bundle, features, "unlike", cases(0.0))
    hidden, shown = score(slide, model), score(slide, model, show_withheld=True)
    words = "withheld: the slide is unlike what the model learnt from"
    assert (hidden.label, hidden.score) == (words, scored.score)
    assert shown.label == f"{scored.label}, {words}"
    assert hidden.reason == shown.reason == "the slide is unlike what the model learnt from"
    assert hidden.abstained
    assert shown.abstained
    assert (hidden.doubt.shown_anyway, shown.doubt.shown_anyway) == (False, True)
    assert hidden.with_ish("negative") == shown.with_ish("negative") == ""
    for line in (trust_line(hidden), trust_line(shown)):
        assert "no promise holds" in line
        assert "its cells and patterns (20 times as far off" in line
        assert "hold the truth" not in line


def test_with_least_familiarity_0_nothing_is_withheld_and_nothing_becomes_familiar(
    slide, bundle, features, scored
):
    result = score(slide, with_doubt(bundle, features, "unlike"), min_familiarity=0)
    assert (result.doubt.verdict, result.doubt.withheld, result.abstained) == ("unlike", False, False)
    assert result.label == scored.label
    assert "the slide is unlike what the model learnt from: its cells" in trust_line(result)


def test_pixels_described_by_another_version_are_not_compared(slide, bundle, features):
    spaces = {
        ("H&E", FEATURES): space_for(features, "familiar"),
        ("H&E", APPEARANCE): around(np.full(LENGTH, 1e3), 1e-3, 1e-3),
    }
    model = replace(bundle, familiarity=Familiarity(spaces))
    assert score(slide, model).doubt.verdict == "unlike"
    older = FamiliarityCard(10, 9, 99, "10 training and 9 validation slides")
    model = replace(model, card=replace(bundle.card, familiarity=older))
    result = score(slide, model)
    assert result.doubt.verdict == "not known"
    assert set(result.slides[0].familiarity.by_space) == {FEATURES}


def test_only_what_is_scored_counts(slide, bundle, features, scored):
    top = scored.table.index[:, 0] <= 6
    centre = features[top].astype(np.float64).mean(axis=0)
    far = np.linalg.norm(features[top].astype(np.float64) - centre, axis=1)
    space = around(centre, np.median(far), np.quantile(far, 0.9))
    model = replace(bundle, familiarity=Familiarity({("H&E", FEATURES): space}))
    result = score(slide, model, regions=[shapely.box(0, 0, 1536, 700)])
    np.testing.assert_allclose(result.slides[0].familiarity.distances, far, rtol=1e-3)


@pytest.mark.parametrize(
    ("beyond", "verdict", "words"),
    [
        (0.0, "familiar", "and so do 100 % of the tiles in the regions"),
        (0.25, "in part", "the tissue in the regions is unlike what the model learnt from in part: "),
        (0.75, "unlike", "cells and patterns in 7"),
    ],
)
def test_regions_are_judged_by_the_whole_slide_and_their_own_tiles(
    slide, bundle, features, scored, beyond, verdict, words
):
    """Share of the tiles in the region that lie beyond the limit of tiles, counted here."""
    top = scored.table.index[:, 0] <= 12
    centre = features.astype(np.float64).mean(axis=0)
    far = np.linalg.norm(features.astype(np.float64) - centre, axis=1)
    limit = float(np.quantile(far[top], 1 - beyond)) * (1.01 if beyond == 0 else 1)
    space = around(centre, np.median(far), np.quantile(far, 0.9), limit=limit)
    model = replace(bundle, familiarity=Familiarity({("H&E", FEATURES): space}))
    result = score(slide, model, regions=[shapely.box(0, 0, 1536, 1250)], min_familiarity=0.01)
    known = result.slides[0].familiarity
    assert known.spaces[FEATURES].inside == pytest.approx((far[top] > limit).mean(), abs=0.02)
    assert known.value > 0.3  # by tiles of the whole slide, which is familiar
    assert (known.verdict, result.doubt.only_inside) == (verdict, verdict != "familiar")
    assert words in trust_line(result)
    assert result.abstained == (verdict == "unlike")
    if verdict == "unlike":
        assert result.label == "withheld: the tissue in the regions is unlike what the model learnt from"


def test_inside_regions_of_a_strange_slide_nothing_is_familiar(slide, bundle, features):
    model = with_doubt(bundle, features, "unlike", cases(0.0))
    result = score(slide, model, regions=[shapely.box(0, 0, 1536, 1250)])
    assert result.doubt.verdict == "unlike"
    assert not result.doubt.only_inside
    assert result.label == "withheld: the slide is unlike what the model learnt from"
    assert "of the slide as a whole" in result.doubt.reason


def test_a_slide_of_one_tile_is_judged_and_stays_indeterminate(slide, bundle, features, scored):
    y, x = scored.table.origins_px0[40].tolist()
    one = [shapely.box(x + 20, y + 20, x + 76, y + 76)]
    for verdict in ("familiar", "unlike"):
        result = score(slide, with_doubt(bundle, features, verdict, cases(0.0)), regions=one)
        assert len(result.slides[0].familiarity.distances) == len(result.table) == 1
        assert result.label.startswith("indeterminate: only 1 tiles of tissue, at least 100 are needed")
        assert result.label.endswith("; the slide is unlike what the model learnt from") == (
            verdict == "unlike"
        )
        assert (result.doubt.verdict, result.abstained) == (verdict, True)
        assert result.doubt.answer is not None


def test_sets_are_worded_by_how_much_they_leave_open(slide, bundle, scored):
    by_chance = sorted(scored.probabilities.values(), reverse=True)
    single = score(slide, with_doubt(bundle, sets=cases(0.0)))
    assert single.doubt.answer.classes == (scored.score,)
    assert single.label == scored.label
    several = score(slide, with_doubt(bundle, sets=cases(by_chance[0] + 1e-6)))
    names = several.doubt.answer.classes
    assert 1 < len(names) < 4
    assert several.label == f"{', '.join(names[:-1])} or {names[-1]} (prediction)"
    assert not several.abstained
    line = trust_line(several)
    assert line.startswith(f"{', '.join(names[:-1])} or {names[-1]} · ")
    assert "90 % of cases like the 80 it was calibrated on" in line
    every = score(slide, with_doubt(bundle, sets=cases(1.0)))
    assert every.label == "indeterminate: none of the scores can be left out at 90 %"
    assert every.abstained
    assert every.score == scored.score
    few = score(slide, with_doubt(bundle, sets=cases(0.0, each=1)))
    assert few.label == scored.label
    assert "nothing is promised: 90 % cannot be promised from 4 calibration cases" in trust_line(few)


def test_a_probability_that_somebody_asks_for_goes_before_the_set_and_the_usual_one_does_not(slide, bundle):
    assert score(slide, with_doubt(bundle, sets=cases(0.0)), min_confidence=1.0).abstained
    card = replace(bundle.card, temperatures={"slide": 100.0})  # of which no probability reaches a half
    warm = replace(bundle, card=card)
    assert score(slide, warm).label == "indeterminate: no class reaches a probability of 50%"
    assert not score(slide, with_doubt(warm, sets=cases(0.0))).abstained
    asked = replace(warm, card=replace(card, min_confidence=0.4))
    assert score(slide, with_doubt(asked, sets=cases(0.0))).abstained


@pytest.mark.parametrize("verdict", ["familiar", "in part", "unlike"])
@pytest.mark.parametrize(
    "wishes",
    [
        {"coverage": 0.8, "min_familiarity": 0.0, "show_withheld": False},
        {"coverage": 0.99, "min_familiarity": 0.6, "show_withheld": True},
        {"coverage": 0.85, "min_familiarity": 1e-12, "show_withheld": True},
    ],
)
def test_judged_again_is_as_scored_again(slide, bundle, features, verdict, wishes):
    sets = cases(*np.linspace(0, 1, 20))
    model = with_doubt(bundle, features, verdict, sets)
    anew, again = score(slide, model, **wishes), redoubted(score(slide, model), **wishes)
    for name in ("label", "reason", "abstained", "doubt", "score", "probabilities"):
        assert getattr(anew, name) == getattr(again, name), name
    of = [result.slides[0].familiarity for result in (anew, again)]
    assert (of[0].verdict, of[0].reason) == (of[1].verdict, of[1].reason)
    shown = [result.map("unfamiliar").info.visible for result in (anew, again)]
    assert shown[0] == shown[1] == (of[0].verdict != "familiar")
    assert trust_line(anew) == trust_line(again)


def test_a_slide_of_which_nothing_changes_is_the_same_one(slide, bundle, features):
    result = score(slide, with_doubt(bundle, features))
    again = redoubted(result, coverage=0.8, min_familiarity=0.02, show_withheld=False)
    assert again.slides[0] is result.slides[0]


def test_signatures_hold_drawn_tiles_of_what_was_scored(slide, bundle, features, scored):
    result, (signature,) = signatures_of(slide, bundle)
    assert result.probabilities == scored.probabilities
    assert (signature.slide, signature.stain) == (scored.slide, "H&E")
    np.testing.assert_array_equal(signature.features, features.astype(np.float32))
    assert signature.appearance.shape[1] == LENGTH
    many = np.arange(2000.0).reshape(1000, 2)
    drawn = drawn_features(many)
    assert drawn.shape == (256, 2)
    assert (np.diff(drawn[:, 0]) > 0).all()
    np.testing.assert_array_equal(drawn, drawn_features(many))
    assert set(map(tuple, drawn)) <= set(map(tuple, many))


def test_an_ensemble_tells_how_far_its_models_part(slide, tmp_path):
    single = load_bundle(make_bundle(tmp_path / "one.safetensors", temperatures={"slide": 1.7}))
    torch.manual_seed(3)
    members = [type(single.head)() for _ in range(3)]
    with torch.no_grad():
        for member in members:
            member.classifier.weight.mul_(60)
    model = replace(single, head=MILEnsemble(members).eval())
    result, (signature,) = signatures_of(slide, model)
    with torch.inference_mode():
        bag = torch.from_numpy(signature.features)
        each = torch.stack([torch.softmax(member(bag).logits.double() / 1.7, -1) for member in members])
    spread = result.doubt.spread
    assert spread.models == 3
    by_hand = each.numpy().std(axis=0, ddof=1)
    np.testing.assert_allclose([spread.sd[name] for name in result.classes], by_hand, atol=1e-5)
    names = [result.classes[at] for at in each.argmax(dim=1).tolist()]
    assert spread.agree == names.count(result.score)
    bars = method_of(model.card).bars(result)
    np.testing.assert_allclose(list(bars.spread.values()), by_hand, atol=1e-5)
    assert "3 models" in bars.whiskers
    apart = replace(result, doubt=replace(result.doubt, spread=replace(spread, agree=1)))
    assert f"only 1 of 3 models name {result.score}" in trust_line(apart)
    again = redoubted(result, coverage=0.9, min_familiarity=0.01, show_withheld=False)
    assert again.doubt.spread == spread


def test_whiskers_of_one_model_do_not_pass_for_its_certainty(scored):
    bars = method_of(load_bundle_card(scored)).bars(scored)
    assert "20 random bags of 100 tiles" in bars.whiskers
    assert "not how sure the model is" in bars.tip
    assert list(bars.spread.values()) == pytest.approx(scored.uncertainty.sd.tolist())


def load_bundle_card(result):
    """What `method_of` asks of a card."""
    return type("Card", (), {"method": result.method, "name": result.model})


def test_what_an_ish_result_would_mean_is_said_of_the_whole_set(slide, bundle, scored):
    result = score(slide, with_doubt(bundle, sets=cases(0.0)))
    several = replace(
        result, doubt=replace(result.doubt, answer=replace(result.doubt.answer, classes=("2+", "3+")))
    )
    assert several.with_ish("negative") == (
        "With ISH negative: 2+ would be HER2-low; the model cannot tell 2+ from 3+."
    )
