"""The temperature of demo-corr-a-net, fitted as its training fits it, on the validation cases of its cohort.

    python benchmarks/calibrate_fields.py FOLDER [--write]

Makes (once, in FOLDER) the 32 cases that the demonstration configuration keeps for validation, cuts the very
fields that the training drew of them, lets the bundled model judge them, and prints what its card says from
them. The model chose its epoch by these cases and learnt from none of them. With --write the bundled model
gets the new card; its weights stay bit for bit. `scripts/train-demos` makes card and weights anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from napari_her2.inference.device import Device
from napari_her2.models.bundle import BUNDLED_FOLDER, CARD_KEY, FORMAT, ModelBundle, load_bundle
from napari_her2.models.registry import write_hash_list
from napari_her2.models.weights_file import read_weights, write_weights
from napari_her2.phantom.cohort import cohort_plan
from napari_her2.phantom.pair import make_pair, pair_paths
from napari_her2_training.cohort.manifest import Case
from napari_her2_training.cohort.splits import Split, make_splits
from napari_her2_training.config import find_config, read_config
from napari_her2_training.corr_a_net.bundle import joined, predictions_of
from napari_her2_training.corr_a_net.config import CorrANetConfig
from napari_her2_training.corr_a_net.fields import FieldStore
from napari_her2_training.corr_a_net.measures import judge
from napari_her2_training.corr_a_net.predictor import LabelledFields
from napari_her2_training.corr_a_net.slide_fields import Places, SlideFields, find_fields
from napari_her2_training.measures.arms import all_measures
from napari_her2_training.measures.calibration import fit_temperature

MODEL = BUNDLED_FOLDER / "demo-corr-a-net.safetensors"
CASES, TEST, SEED, SIZE_PX, SCANNERS = 160, 80, 1001, 3072, (0.5, 0.25)
"""Of the cohort that the demonstration models learn from; see its configuration."""
PART = "validation"
ON_CARD = ("macro AUC", "accuracy")
CPU = Device(torch.device("cpu"), "cpu", "chosen here")


def validation_cases(folder: Path, config: CorrANetConfig) -> Split:
    """Split the cohort as its training did, and make the slides of the validation cases."""
    planned = cohort_plan(CASES, SEED, TEST)
    cases, scale = [], {}
    for number, case in enumerate(planned):
        pair = pair_paths(folder, case.case_id)
        split = "test" if case.test else None
        cases.append(Case(number + 2, case.case_id, pair.he, pair.ihc, case.score, split=split))
        scale[case.case_id] = (case, SCANNERS[number % len(SCANNERS)])
    split = make_splits(cases, config.data)[0]
    for wanted in split.validation:
        case, mpp = scale[wanted.case_id]
        if not pair_paths(folder, case.case_id).complete:
            make_pair(folder, case.case_id, score=case.score, seed=case.seed, size_px=SIZE_PX, mpp=mpp)
    return split


def validation_fields(folder: Path, config: CorrANetConfig) -> FieldStore:
    """Cut the fields that the training drew of these cases."""
    split, places = validation_cases(folder / "cohort", config), []
    for number, case in enumerate(split.validation, start=len(split.train)):
        rng = np.random.default_rng([config.data.seed, number])
        corners = find_fields(case, PART, config.data, folder / "cohort", rng).tolist()
        places.append(Places(case, tuple((y, x) for y, x in corners)))
    store = FieldStore(folder / "fields", SlideFields({PART: places}, config.data))
    for _ in store.prepare(PART, "he"):
        pass
    return store


def calibrated(bundle: ModelBundle, store: FieldStore, config: CorrANetConfig) -> ModelBundle:
    """Return the bundle with what these fields say on its card."""
    card, listed = bundle.card, store.listed(PART)
    judged = judge(bundle.head, LabelledFields((store.images(PART, "he"),), store.labels(PART)), CPU)
    slides, fields = joined(judged, listed), predictions_of(judged, listed)
    temperature = fit_temperature(slides.labels, slides.probabilities)
    figures = {}
    for what, given in (("slides", replace(slides, temperature=temperature)), ("fields", fields)):
        found = all_measures(given.labels, given.calibrated, card.classes)
        figures |= {f"{PART} {what}: {name}": round(found[name], 4) for name in ON_CARD}
    note = (
        f"temperature fitted after the training, on the {len(slides.cases)} slides of the validation cases, "
        f"{len(fields.cases)} fields"
    )
    known, _, _ = card.training_data.partition("; temperature fitted")
    return replace(
        bundle,
        card=replace(
            card,
            temperatures={"slide": temperature},
            min_tissue=config.data.min_tissue,
            metrics={**card.metrics, **figures},
            training_data=f"{known}; {note}",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the cases and their fields")
    parser.add_argument("--write", action="store_true", help="give the bundled model the new card")
    options = parser.parse_args()
    config = read_config(find_config("demo_corr_a_net"), CorrANetConfig)
    (options.folder / "cohort").mkdir(parents=True, exist_ok=True)
    store = validation_fields(options.folder, config)
    card = calibrated(load_bundle(MODEL), store, config).card
    print(f"temperature {card.temperatures['slide']:.4f}, min_tissue {card.min_tissue}")
    print(card.training_data)
    for name, value in card.metrics.items():
        print(f"{name}: {value}")
    if options.write:
        write_weights(MODEL, read_weights(MODEL).tensors, {CARD_KEY: card.to_json(), "format": FORMAT})
        write_hash_list()


if __name__ == "__main__":
    main()
