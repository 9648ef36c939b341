"""Cases with several slides: one bag or one joined answer a case, judged and calibrated by case."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.metrics import accuracy_score

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.inference.device import choose_device
from napari_her2.methods.scoring import score_steps
from napari_her2.models.abmil import ABMIL
from napari_her2.models.card import ModelCard
from napari_her2.models.case_slides import joined_probabilities, promise_refusal
from napari_her2.models.registry import load_model
from napari_her2.models.weights_file import read_weights
from napari_her2.models.wsmcl import WSMCL
from napari_her2.phantom import make_pair
from napari_her2.steps import finished
from napari_her2_training.classes import class_mapping
from napari_her2_training.cohort.bags import SlideBag, joined_bag
from napari_her2_training.cohort.manifest import Case, in_cases
from napari_her2_training.config import read_config
from napari_her2_training.config_sections import DataConfig, EncoderConfig, MeasureConfig
from napari_her2_training.doubt.fit import one_look_a_case
from napari_her2_training.doubt.scored_cases import Scorer
from napari_her2_training.encoder.embedded import EmbeddedSlides
from napari_her2_training.low_resolution.config import LowResolutionConfig
from napari_her2_training.measures.arms import measure
from napari_her2_training.measures.calibration import fit_temperature
from napari_her2_training.measures.joining import fit_joined_temperature, joined_in_cases
from napari_her2_training.measures.predictions import Predictions, read_predictions
from napari_her2_training.mil.config import MILConfig

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = 12
MIL = """
[model]
name = "tiny"
training_data = "numbers made up"
[data]
stain = "he"
classes = "scores"
[head]
width = 8
hidden = 4
epochs = 2
[measure]
resamples = 40
[compute]
device = "cpu"
"""
PAIRS = """
[model]
name = "tiny"
training_data = "numbers made up"
[pairs]
accumulate = 3
[head]
width = 8
heads = 2
landmarks = 8
k = 4
epochs = 1
[measure]
resamples = 2
[compute]
device = "cpu"
"""


def write_cohort(folder: Path, slides: int) -> Path:
    """24 cases of which every third has as many slides; those of a case share one IHC slide."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    rows = ["case_id,he,ihc,score,split"]
    for n in range(24):
        for slide in range(slides if n % 3 == 0 else 1):
            for stain in ("he", "ihc")[: 2 if slide == 0 else 1]:
                features = rng.normal(0, 1, (16 + n % 3 + slide, FEATURES))
                features[:6, n % 4] += 2
                with h5py.File(folder / f"{n}-{slide}-{stain}.h5", "w") as file:
                    file["features"] = features.astype(np.float16)
                    file["coords"] = np.zeros((len(features), 2), np.int64)
            part = ("train", "validation", "test")[n // 8]
            rows.append(f"c{n},{n}-{slide}-he.h5,{n}-0-ihc.h5,{n % 4},{part}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cases") / "several", 3)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cases") / "one", 1)


def trained(folder: Path, method: str, text: str, manifest: Path, slides: str = "", rule: str = "") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    config = folder / "config.toml"
    keys = f'slides = "{slides}"\n' if slides else ""
    keys += f'rule = "{rule}"\n' if rule else ""
    config.write_text(f"{text}{'[cases]' if keys else ''}\n{keys}")
    finished(napari_her2_training.run(method, config, manifest, folder / "out"))
    return folder / "out"


def features_of(manifest: Path, case: str, stain: str) -> list[np.ndarray]:
    """The features of the different slides of a case, as the files hold them."""
    with manifest.open(newline="") as file:
        names = dict.fromkeys(row[stain] for row in csv.DictReader(file) if row["case_id"] == case)
    found = []
    for name in names:
        with h5py.File(manifest.parent / name) as file:
            found.append(file["features"][:])
    return found


@pytest.mark.parametrize(("method", "text"), [("mil", MIL), ("wsmcl", PAIRS)])
def test_with_one_slide_a_case_every_way_trains_the_same_model(
    tmp_path: Path, one: Path, method: str, text: str
) -> None:
    usual = trained(tmp_path / "usual", method, text, one)
    for slides in ("each", "joined bags", "joined answers"):
        other = trained(tmp_path / slides, method, text, one, slides)
        for name in ("tiny.head.safetensors", "predictions.csv"):
            assert (usual / name).read_bytes() == (other / name).read_bytes(), (slides, name)


def test_a_joined_bag_is_judged_as_the_features_of_all_slides_of_its_case(
    tmp_path: Path, several: Path
) -> None:
    out = trained(tmp_path, "mil", MIL, several, "joined bags")
    weights = read_weights(out / "tiny.head.safetensors")
    told = json.loads((out / "metrics.json").read_text())
    assert told["unit"] == "cases"
    assert told["cases"] == [{"train": 8, "validation": 8, "test": 8}]
    predictions, _ = read_predictions(out / "predictions.csv")
    given = {part.part: own for part, own in predictions.items()}
    assert {part: len(own.cases) for part, own in given.items()} == dict.fromkeys(given, 8)
    assert all(len(set(own.cases)) == 8 for own in given.values())
    arguments = json.loads(weights.metadata["arguments"])
    model = ABMIL(
        features=FEATURES, classes=4, widths=(arguments["width"],), hidden=arguments["hidden"], gated=True
    )
    model.load_state_dict(weights.tensors)
    for case, said in zip(given["test"].cases, given["test"].probabilities, strict=True):
        bag = torch.from_numpy(np.concatenate(features_of(several, case, "he"))).float()
        by_hand = torch.softmax(model.eval()(bag).logits.detach().double(), dim=-1).numpy()
        np.testing.assert_allclose(said, by_hand, atol=1e-6)
    values = told["measured"][""]["test"]
    assert (values["slides"], values["cases"]) == (8, 8)


def test_slides_of_each_stain_are_joined_for_pairs_and_a_shared_slide_counts_once(
    tmp_path: Path, several: Path
) -> None:
    out = trained(tmp_path, "wsmcl", PAIRS, several, "joined bags")
    weights = read_weights(out / "tiny.head.safetensors")
    model = WSMCL(**json.loads(weights.metadata["arguments"]))
    model.load_state_dict(weights.tensors)
    predictions, _ = read_predictions(out / "predictions.csv")
    (given,) = [own for part, own in predictions.items() if (part.part, part.reading) == ("test", "fusion")]
    assert len(given.cases) == len(set(given.cases)) == 8
    for case, said in zip(given.cases, given.probabilities, strict=True):
        bags = [torch.from_numpy(np.concatenate(features_of(several, case, of))) for of in ("he", "ihc")]
        assert len(features_of(several, case, "ihc")) == 1
        by_hand = torch.softmax(model.eval()(*bags).logits.detach().double(), dim=-1).numpy()
        np.testing.assert_allclose(said, by_hand, atol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "highest"])
def test_answers_are_joined_by_the_rule_and_slides_learn_as_ever(
    tmp_path: Path, several: Path, rule: str
) -> None:
    each = trained(tmp_path / "each", "mil", MIL, several)
    out = trained(tmp_path / "joined", "mil", MIL, several, "joined answers", rule)
    name = "tiny.head.safetensors"
    assert (each / name).read_bytes() == (out / name).read_bytes()
    cases, _ = read_predictions(out / "predictions.csv")
    slides, _ = read_predictions(out / "slide_predictions.csv")
    before, _ = read_predictions(each / "predictions.csv")
    for part, own in slides.items():
        np.testing.assert_array_equal(own.probabilities, before[part].probabilities)
        joined = cases[part]
        told = softmax(np.log(own.probabilities) / own.temperature, axis=1)
        for case, said in zip(joined.cases, joined.calibrated, strict=True):
            rows = told[np.array(own.cases) == case]
            highest = rows[np.argmax(rows @ [0, 1, 2, 3])]
            np.testing.assert_allclose(said, rows.mean(axis=0) if rule == "mean" else highest, atol=1e-9)
    (test,) = [own for part, own in cases.items() if part.part == "test"]
    told = json.loads((out / "metrics.json").read_text())["measured"][""]["test"]
    accuracy = accuracy_score(test.labels, test.calibrated.argmax(axis=1))
    assert told["measures"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert np.sum(told["confusion"]) == 8


def said_of_slides(cases: int = 30, seed: int = 1) -> Predictions:
    rng = np.random.default_rng(seed)
    names = [f"c{n}" for n in range(cases) for _ in range(1 + n % 3)]
    labels = np.array([int(name[1:]) % 4 for name in names])
    logits = rng.normal(0, 2, (len(names), 4))
    logits[np.arange(len(names)), labels] += 1.5
    return Predictions(tuple(names), labels, softmax(logits, axis=1))


@pytest.mark.parametrize("rule", ["mean", "highest"])
def test_the_temperature_is_that_at_which_cases_are_most_likely(rule: str) -> None:
    given = said_of_slides()
    names = np.array(given.cases)

    def cost(temperature: float) -> float:
        logs = np.log(given.probabilities) / temperature
        rows = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        total = np.log(temperature) ** 2 / 2
        for case in dict.fromkeys(given.cases):
            own = rows[names == case]
            answer = own.mean(axis=0) if rule == "mean" else own[np.argmax(own @ [0, 1, 2, 3])]
            total -= np.log(answer[given.labels[names == case][0]])
        return total

    found = fit_joined_temperature(given, rule)
    assert cost(found) <= min(map(cost, np.geomspace(0.1, 10, 60))) + (1e-6 if rule == "mean" else 0.5)
    if rule == "mean":
        assert found != pytest.approx(fit_temperature(given.labels, given.probabilities), rel=1e-3)


def test_one_slide_a_case_is_calibrated_as_slides_are() -> None:
    given = said_of_slides()
    alone = np.unique(given.cases, return_index=True)[1]
    single = Predictions(
        tuple(given.cases[at] for at in alone), given.labels[alone], given.probabilities[alone]
    )
    assert fit_joined_temperature(single, "mean") == fit_temperature(single.labels, single.probabilities)
    joined = joined_in_cases(single, "mean")
    assert joined.cases == single.cases
    np.testing.assert_array_equal(joined.probabilities, single.probabilities)


def test_intervals_come_of_whole_cases_that_are_drawn_by_hand() -> None:
    joined = joined_in_cases(said_of_slides(), "mean")
    config = MeasureConfig(resamples=60, confidence=0.9, seed=7)
    found = measure([joined], ("0", "1+", "2+", "3+"), config).measures["accuracy"]
    assert len(joined.cases) == len(set(joined.cases)) == 30
    right = joined.probabilities.argmax(axis=1) == joined.labels
    drawn = np.random.default_rng(7).integers(0, 30, (60, 30))
    accuracies = right[drawn].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(accuracies, [0.05, 0.95])))


def test_a_joined_bag_holds_the_tiles_of_its_slides_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bags = [
        SlideBag("a", 2, rng.normal(size=(n, 3)).astype(np.float16), outline, "bfloat16")
        for n, outline in ((4, None), (3, np.array([True, False, True])))
    ]
    joined = joined_bag(bags)
    np.testing.assert_array_equal(joined.features, np.concatenate([bag.features for bag in bags]))
    assert joined.tumour is not None
    assert joined.tumour.tolist() == [False] * 4 + [True, False, True]
    assert (joined.case_id, joined.label, joined.precision) == ("a", 2, "bfloat16")
    assert joined_bag(bags[:1]) is bags[0]
    paths = [tmp_path / name for name in ("1.h5", "2.h5", "i.h5")]
    for path in paths:
        path.touch()
    rows = [Case(2, "a", paths[0], paths[2], "2+"), Case(3, "a", paths[1], paths[2], "2+")]
    slides = EmbeddedSlides(EncoderConfig(), DataConfig(), 0, joined=True)
    slides.bags = {("he", 2): bags[0], ("he", 3): bags[1], ("ihc", 2): bags[0], ("ihc", 3): bags[0]}
    slides.tiles = {key: len(bag.features) for key, bag in slides.bags.items()}
    (of_case,) = slides.of(rows, "he")
    assert len(of_case.features) == 7
    assert slides.of(rows, "he")[0] is of_case
    assert np.shares_memory(slides.bags["he", 3].features, of_case.features)
    assert [len(bag.features) for bag in slides.of(rows, "ihc")] == [4]
    assert slides.sizes(rows, "he") == {2: 7, 3: 7}
    assert [len(own) for own in in_cases([*rows, Case(4, "b", paths[0], None, "0")])] == [2, 1]


def test_methods_without_bags_refuse_to_join_them(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[model]\nname = "m"\ntraining_data = "t"\n[cases]\nslides = "joined bags"\n')
    with pytest.raises(JobFailed, match="use 'joined answers'"):
        read_config(config, LowResolutionConfig)
    plain = tmp_path / "plain.toml"
    plain.write_text('[model]\nname = "m"\ntraining_data = "t"\n')
    usual = read_config(plain, MILConfig)
    assert usual.digest() != read_config(config, MILConfig).digest()
    # A run that began before there was this section goes on.
    assert "cases" in usual.sections()
    plain.write_text(plain.read_text() + '[cases]\nslides = "each"\n')
    assert read_config(plain, MILConfig).digest() == usual.digest()


def test_promises_hold_for_what_they_were_calibrated_on() -> None:
    each, bags, mean, highest = (
        ("each", "mean"),
        ("joined bags", "mean"),
        ("joined answers", "mean"),
        ("joined answers", "highest"),
    )
    for way in (each, bags, mean, highest):
        assert promise_refusal(way, way, 3) == ""
        assert all(promise_refusal(way, other, 1) == "" for other in (each, bags, mean, highest))
    assert "one answer of 2 slides" in promise_refusal(each, mean, 2)
    assert "one of 2 slides of its case" in promise_refusal(mean, each, 2)
    assert "highest" in promise_refusal(highest, mean, 2)


def test_cards_name_the_way_and_older_ones_stay_the_text_they_were(several: Path) -> None:
    card = ModelCard(
        name="m", version="1", method="abmil", architecture="ABMIL", arguments={}, encoder=None, stain="H&E",
        tile_px=96, mpp=0.5, classes=("0", "3+"), task="t", training_data="d", licence="l",
        intended_use="i", guideline="g",
    )  # fmt: skip
    assert "case_" not in card.to_json()
    assert ModelCard.from_json(card.to_json()).case_slides == "each"
    with pytest.raises(ValueError, match="no rule"):
        joined_probabilities(np.eye(2), "median")


@pytest.fixture(scope="module")
def slides_of_a_case(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("slides")
    return [make_pair(folder / str(n), f"s{n}", score="2+", seed=n, size_px=1024, mpp=0.5).he for n in (3, 4)]


@pytest.mark.parametrize("way", ["joined bags", "joined answers", "each"])
def test_what_a_model_keeps_is_calibrated_on_cases_as_they_are_answered(
    slides_of_a_case: list[Path], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(slides_of_a_case[0].parent / "cache"))
    bundle = load_model("demo-attention-mil")
    bundle = replace(bundle, card=replace(bundle.card, case_slides=way))
    cpu = choose_device("cpu")
    rows = [Case(n, "a", path, None, "2+") for n, path in enumerate(slides_of_a_case, start=2)]
    scorer = Scorer(bundle, class_mapping("scores"), cpu)
    remarks: list[str] = []
    (found,) = finished(scorer.case_steps(rows, "validation", remarks))
    assert remarks == []
    assert len(found.signatures) == 2
    further = [(slides_of_a_case[1], "H&E", None)]
    if way == "joined bags":
        joined = finished(score_steps(slides_of_a_case[0], bundle, further=further, device="cpu"))
        by_hand = list(joined.probabilities.values())
    else:
        each = [finished(score_steps(path, bundle, device="cpu")) for path in slides_of_a_case]
        by_hand = np.mean([list(of.probabilities.values()) for of in each], axis=0)
    np.testing.assert_allclose(found.probabilities["slide"], by_hand, atol=1e-6)
    (kept,) = one_look_a_case([found], seed=0)
    assert len(kept.signatures) == 1
