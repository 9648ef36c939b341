"""A predictor of fields ends as every training ends: calibrated, and told is what scoring says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2 import score_slide
from napari_her2.models.bundle import load_bundle
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.corr_a_net.bundle import joined
from napari_her2_training.corr_a_net.fields import FieldList
from napari_her2_training.corr_a_net.measures import Judged
from napari_her2_training.measures.calibration import fit_temperature
from napari_her2_training.measures.predictions import Part, read_predictions
from napari_her2_training.reporting.evaluation import read_run

CONFIG = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
tile_px = 256
field_px = 64
mpp = 0.5
min_tissue = 0.3
validation = 0.5
[network]
dim = 8
crop_px = 32
batch_size = 4
train_batches = 2
epochs = 1
[predictor]
architecture = "tinynet-e"
input = "H&E"
batch_size = 8
epochs = 2
[measure]
resamples = 20
wanted_accuracy = 0.2
[compute]
device = "cpu"
"""


@pytest.fixture(scope="module")
def cohort(cohort_of, tmp_path_factory):
    return cohort_of(8, tmp_path_factory.mktemp("cohort")).parent


def train(folder, method, data, config):
    folder.mkdir()
    file = folder / "config.toml"
    file.write_text(config)
    steps = napari_her2_training.run(method, file, data, folder / "run")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module", params=["H&E", "correlated"])
def model(request, cohort, tmp_path_factory):
    """A trained predictor of an input, as a bundle in the folder of its run."""
    folder, config = tmp_path_factory.mktemp("runs"), CONFIG
    if request.param == "correlated":
        network = train(folder / "network", "corr-a-net", cohort / "manifest.csv", CONFIG)
        config = CONFIG.replace('input = "H&E"', f'input = "correlated"\nnetwork = "{network}"')
    return train(folder / "predictor", "predictor", cohort / "manifest.csv", config)


def test_the_card_says_what_every_card_says(model):
    card = load_bundle(model).card
    said, _ = read_predictions(model.parent / "predictions.csv")
    own = said[Part(0, "validation")]
    assert card.temperatures == {"slide": own.temperature}
    assert own.temperature == pytest.approx(fit_temperature(own.labels, own.probabilities))
    assert own.temperature != 1
    assert card.min_tissue == 0.3
    assert card.min_confidence is not None
    assert "classes 0: 0" in card.training_data
    assert card.metrics["validation slides: accuracy"] == pytest.approx(
        np.mean(own.calibrated.argmax(1) == own.labels), abs=1e-4
    )
    assert "validation fields: balanced accuracy" in card.metrics


def test_what_is_told_of_a_slide_is_what_scoring_says_of_it(model, cohort):
    said, classes = read_predictions(model.parent / "predictions.csv")
    own = said[Part(0, "validation")]
    cases = {case.case_id: case for case in read_manifest(cohort / "manifest.csv")}
    assert len(own.cases) == 4
    for case, told in zip(own.cases, own.calibrated, strict=True):
        result = score_slide(cases[case].he, model, device="cpu", cache=False)
        # Fields are kept as bytes for training, and as float in scoring.
        np.testing.assert_allclose([result.probabilities[name] for name in classes], told, atol=5e-3)


def test_figures_are_those_of_the_weights_that_are_saved(model):
    """A bundle holds weights in 16 bits: judged by them again, fields say what the run told of them."""
    run = read_run(model.parent)
    head = load_bundle(model).head
    fields = np.load(model.parent / "fields" / "validation-he.npy")
    with torch.inference_mode():
        said = head(torch.from_numpy(fields).float() / 255).probabilities.numpy()
    # A representation is kept in 16 bits for the predictor.
    np.testing.assert_allclose(run.of("validation", "fields")[0].probabilities, said, atol=2e-3)


def test_a_run_of_fields_has_a_record_and_a_report(model):
    told = json.loads((model.parent / "metrics.json").read_text("utf-8"))
    assert (told["unit"], told["model"], told["bundle"]) == ("slides", model.name, "written")
    assert told["field_counts"]["validation"] > 4
    for _ in napari_her2_training.report(model.parent, cases=0):
        pass
    assert (model.parent / "report.html").exists()


def test_a_slide_is_the_mean_of_its_fields_weighted_by_confidence():
    chances = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
    confidence = np.array([0.9, 0.1, 0.5])
    judged = Judged(
        np.array([0, 0, 1]),
        np.log(chances).astype(np.float32),
        np.log(confidence / (1 - confidence)).astype(np.float32),
    )
    found = joined(judged, FieldList((0, 0, 1), ("a", "a", "a"), (0, 0, 1)))
    assert found.cases == ("a", "a")
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.probabilities[0], [0.76, 0.24], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[1], [0.1, 0.9], atol=1e-6)


def test_the_bundled_model_is_calibrated():
    from napari_her2.models.registry import load_model

    card = load_model("demo-corr-a-net").card
    assert card.temperatures.keys() == {"slide"}
    assert card.min_tissue == 0.5
