"""From a finished run to its report and its model: what is told was measured, and is what scoring says."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score
from tifffile import imwrite as write_tiff

import napari_her2_training
from napari_her2 import score_slide
from napari_her2.errors import JobFailed
from napari_her2.inference.appearance import VERSION
from napari_her2.inference.device import choose_device
from napari_her2.inference.job import ScoringJob
from napari_her2.inference.options import ScoringOptions
from napari_her2.methods.catalogue import method_of
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.bundle import save_bundle, with_doubt
from napari_her2.models.card import SLIDE
from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard
from napari_her2.models.familiarity import APPEARANCE, FEATURES, Familiarity
from napari_her2.models.registry import list_models, load_model
from napari_her2.slide.reader import open_slide
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.doubt.spaces import fit_space
from napari_her2_training.measures.predictions import Part, Predictions, pooled, read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2.inference.doubt import Signature
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.steps import Progress

CONFIG = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
stain = "he"
classes = "binary"
folds = 2
test = 0.25
[tiles]
tile_px = 96
[encoder]
name = "model:demo-attention-mil"
[head]
architecture = "abmil"
width = 16
hidden = 8
epochs = 3
[measure]
resamples = 50
wanted_accuracy = 0.5
[compute]
device = "cpu"
"""


def finish(steps: Generator[Progress, None, Path]) -> Path:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def run(cohort_of: Callable[[int, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    manifest = cohort_of(12, folder)
    config = folder / "tiny.toml"
    config.write_text(CONFIG)
    finish(napari_her2_training.run("mil", config, manifest, folder / "run"))
    return folder / "run"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_and_its_tables_tell_what_was_measured(run: Path) -> None:
    page = finish(napari_her2_training.report(run, cases=1)).read_text()
    assert page.count("Research use only") >= 1
    assert "Cases that the model is wrong about" in page
    assert page.count('alt="Training abmil, fold 1 of 2"') == 2  # loss and measure over the epochs
    said, classes = read_predictions(run / "predictions.csv")
    together = pooled([said[Part(fold, "test")] for fold in (0, 1)])
    limit = binomtest(0, len(set(together.cases))).proportion_ci(0.9, "exact").high  # 95 % on one side
    assert f"as many as {limit:.0%} of all cases" in page
    rows = {(row["over"], row["measure"]): row for row in table(run / "measures.csv")}
    chances = together.calibrated
    assert float(rows["pooled", "macro AUC"]["value"]) == pytest.approx(
        roc_auc_score(together.labels, chances[:, 1]), abs=1e-9
    )
    assert float(rows["pooled", "MCC"]["value"]) == pytest.approx(
        matthews_corrcoef(together.labels, chances.argmax(1)), abs=1e-9
    )
    first = said[Part(0, "test")]
    assert float(rows["fold 1", "accuracy"]["value"]) == accuracy_score(
        first.labels, first.calibrated.argmax(1)
    )
    assert {"fold 1", "fold 2", "mean over the folds", "pooled"} == {over for over, _ in rows}
    low, high = (float(rows["pooled", "accuracy"][name]) for name in ("low", "high"))
    assert low <= float(rows["pooled", "accuracy"]["value"]) <= high
    # Failed cases are those of the fold that gives the bundle.
    best = json.loads((run / "metrics.json").read_text())["fold"]
    own = said[Part(best, "test")]
    wrong = {
        case
        for case, label, row in zip(own.cases, own.labels, own.calibrated, strict=True)
        if row.argmax() != label
    }
    assert {row["case"] for row in table(run / "failed.csv")} == wrong
    assert all(case in page for case in wrong)
    # At most one of them is shown with its slide.
    assert page.count('alt="slide and map"') == min(1, len(wrong))
    risk = table(run / "risk_coverage.csv")
    assert float(risk[-1]["coverage"]) == 1
    assert set(classes) == {"negative", "positive"}


def test_scoring_says_what_the_run_predicted(run: Path) -> None:
    cases = {case.case_id: case for case in read_manifest(run.parent / "manifest.csv")}
    told = json.loads((run / "metrics.json").read_text())
    said, classes = read_predictions(run / "predictions.csv")
    model = load_model(run / "tiny.safetensors")
    assert model.card.temperatures == {"slide": pytest.approx(said[Part(told["fold"], "test")].temperature)}
    assert model.card.min_confidence is not None
    given = said[Part(told["fold"], "validation")]
    for case, row in list(zip(given.cases, given.calibrated, strict=True))[:3]:
        result = score_slide(cases[case].he, model, device="cpu")
        np.testing.assert_allclose([result.probabilities[name] for name in classes], row, atol=1e-5)
    assert ScoringOptions().least_confidence(model.card) == model.card.min_confidence
    assert ScoringOptions(min_confidence=0.1).least_confidence(model.card) == 0.1


def test_all_folds_together_are_a_model_that_docks_and_scripts_find(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path / "models"))
    path = napari_her2_training.export(run, ensemble=True, install=True)
    assert path.parent == tmp_path / "models"
    assert "tiny-ensemble" in [entry.name for entry in list_models()]
    model = load_model("tiny-ensemble")
    assert model.card.arguments["members"] == 2
    said, classes = read_predictions(run / "predictions.csv")
    together = pooled([said[Part(fold, "test")] for fold in (0, 1)])
    cases = {case.case_id: case for case in read_manifest(run.parent / "manifest.csv")}
    result = score_slide(cases[together.cases[0]].he, model, device="cpu")
    np.testing.assert_allclose(
        [result.probabilities[name] for name in classes], together.probabilities[0], atol=1e-5
    )
    assert model.card.metrics["test slides: accuracy"] == pytest.approx(
        accuracy_score(together.labels, together.probabilities.argmax(1)), abs=1e-4
    )
    named = napari_her2_training.export(run, name="other")
    assert load_model(named).card.name == "other"


def test_a_model_with_the_name_of_one_of_ours_is_named_after_its_folder_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_MODELS", str(tmp_path / "models"))
    own = Path(shutil.copytree(run, tmp_path / "My Cohort"))
    told = json.loads((own / "metrics.json").read_text())
    bundle = load_model(own / told["model"])
    card = replace(bundle.card, name="demo-low-resolution", familiarity=None, answer_sets=None)
    save_bundle(own / "demo-low-resolution.safetensors", card, bundle.encoder, bundle.head)
    (own / "metrics.json").write_text(json.dumps(told | {"model": "demo-low-resolution.safetensors"}))
    napari_her2_training.export(own, install=True)
    assert load_model("demo-low-resolution-my-cohort").card.metrics == bundle.card.metrics


def seen_by(model: ModelBundle, path: Path) -> tuple[Signature, dict[str, float]]:
    signatures: list[Signature] = []
    with open_slide(path) as slide:
        job = ScoringJob(
            slide, None, model, None, choose_device("cpu"), ScoringOptions(), signatures=signatures
        )
        result = finish(method_of(model.card).score(job))
    return signatures[0], dict(result.probabilities)


def with_what_it_learnt(run: Path, target: Path) -> Path:
    """A copy of the run whose bundle keeps what it has seen, and the answers that its sets are made from."""
    own = Path(shutil.copytree(run, target))
    told = json.loads((own / "metrics.json").read_text())
    cases = {case.case_id: case for case in read_manifest(run.parent / "manifest.csv")}
    said, classes = read_predictions(own / "predictions.csv")
    path = own / f"tiny-fold{told['fold']}.safetensors"
    model = load_model(path)
    looks = {
        part: [seen_by(model, cases[case].he) for case in said[Part(told["fold"], part)].cases]
        for part in ("train", "validation")
    }
    spaces = {
        ("H&E", kind): fit_space(
            *([getattr(one, kind) for one, _ in looks[part]] for part in ("train", "validation")), seed=0
        )
        for kind in (FEATURES, APPEARANCE)
    }
    chances = np.array([[of[name] for name in classes] for _, of in looks["validation"]])
    labels = said[Part(told["fold"], "validation")].labels
    doubt = (
        Familiarity(spaces),
        FamiliarityCard(len(looks["train"]), len(labels), VERSION, "some slides"),
        AnswerSets({SLIDE: CalibrationCases.of(chances, labels)}),
        AnswerSetsCard({SLIDE: dict(Counter(classes[label] for label in labels))}, "its own answers"),
    )
    for name in (path, own / told["model"]):
        with_doubt(name, name, *doubt)
    return own


def test_sets_of_the_bundle_are_those_of_its_predictions(run: Path, tmp_path: Path) -> None:
    finish(napari_her2_training.report(run, cases=0))
    own = with_what_it_learnt(run, tmp_path / "own")
    page = finish(napari_her2_training.report(own, cases=0)).read_text()
    assert "it was calibrated on: its own answers." in page
    # Scoring says what the run predicted, so its sets are the same.
    assert table(own / "sets.csv") == table(run / "sets.csv")
    assert {row["promise"] for row in table(own / "sets.csv")} == {"0.8"}  # four or five cases are few
    assert "90 % cannot be promised" in page


def test_strange_slides_are_scored_and_told_from_the_judged_ones(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    cases = read_manifest(run.parent / "manifest.csv")
    page = finish(napari_her2_training.report(run, cases=0, strange=run.parent)).read_text()
    assert "keeps nothing of what it learnt from" in page
    assert not (run / "familiarity.csv").exists()
    own = with_what_it_learnt(run, tmp_path / "own")
    for number in range(3):
        with open_slide(cases[number].he) as slide:
            turned = slide.read(0, 0, 0, *slide.shape)[:, :, [2, 0, 1]]
            told = {"PhysicalSizeX": slide.mpp[1], "PhysicalSizeY": slide.mpp[0], "axes": "YXS"}
        write_tiff(folder / f"turned{number}.ome.tif", turned, photometric="rgb", metadata=told, ome=True)
    (folder / "broken.svs").write_bytes(b"II*\0 no slide")
    shutil.copy(json.loads((own / "metrics.json").read_text())["data"], folder)
    page = finish(napari_her2_training.report(own, cases=0, device="cpu", strange=folder)).read_text()
    rows = table(own / "familiarity.csv")
    judged = [float(row["familiarity"]) for row in rows if row["group"] == "judged"]
    strange = [float(row["familiarity"]) for row in rows if row["group"] == "strange" and row["familiarity"]]
    assert (len(judged), len(strange)) == (3, 3)
    assert {row["slide"] for row in rows if not row["familiarity"]} == {"broken.svs"}
    area = mannwhitneyu(judged, strange).statistic / 9
    assert area == 1
    measured = next(row for row in table(own / "measures.csv") if row["measure"] == "AUROC")
    assert float(measured["value"]) == pytest.approx(area)
    assert float(measured["low"]) < 1
    assert f"AUROC of familiarity {area:.3f}" in page
    assert "3 strange and 3 judged ones" in page
    assert "Of 1 further slide it is not known" in page
    assert 'alt="familiarity of judged and strange slides"' in page


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="holds no finished training"):
        finish(napari_her2_training.report(tmp_path))
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(JobFailed, match="damaged"):
        napari_her2_training.export(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(JobFailed, match="judged no slides"):
        finish(napari_her2_training.report(tmp_path))


def test_folds_are_pooled_by_the_mean_of_their_calibrated_logits() -> None:
    first = Predictions(("a", "a", "b"), np.array([0, 0, 1]), np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]))
    second = Predictions(
        ("b", "a", "a"), np.array([1, 0, 0]), np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]), temperature=2.0
    )
    found = pooled([first, second])
    assert found.cases == ("a", "a", "b")
    # The first slide of case a: logits log 4 and log 9 / 2.
    mean = (np.log(4) + np.log(9) / 2) / 2
    assert found.probabilities[0, 0] == pytest.approx(1 / (1 + np.exp(-mean)))
    assert found.labels.tolist() == [0, 0, 1]
    alone = pooled([first])
    np.testing.assert_allclose(alone.probabilities, first.probabilities)
