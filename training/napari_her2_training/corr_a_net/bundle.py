"""A trained predictor of fields as a training leaves it: its model, and its predictions of slides and fields.

A slide is judged as scoring judges it: by the mean of its fields, weighted by the confidence in each. That is
what gets a temperature. Patches of a folder belong to no slide and are judged one by one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.models.field_model import FieldModel, join_fields
from napari_her2_training.cohort.manifest import SPLITS, STAINS
from napari_her2_training.corr_a_net.arms import STAINS_OF, NetworkArm
from napari_her2_training.corr_a_net.bci_folder import BCIFolder
from napari_her2_training.corr_a_net.field_looks import field_looks
from napari_her2_training.corr_a_net.measures import measures_of
from napari_her2_training.measures.predictions import Predictions
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.trained import TrainedFold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.models.predictors import Predictor
    from napari_her2_training.corr_a_net.arms import Arm
    from napari_her2_training.corr_a_net.config import CorrANetConfig
    from napari_her2_training.corr_a_net.field_run import FieldRun
    from napari_her2_training.corr_a_net.fields import FieldList
    from napari_her2_training.corr_a_net.measures import Judged

FIELDS = "fields"
"""The reading of single fields, beside that of slides."""
_ON_CARD: Mapping[str, str] = {
    "balanced_accuracy": "balanced accuracy",
    "weighted_recall": "accuracy",
    "auc": "macro AUC",
    "mcc": "MCC",
}
_WORDS = dict(zip(SPLITS, ("to train on", "to choose the epoch", "held out"), strict=True))


def trained_fold(
    run: FieldRun, arm: Arm, network: CorrANet | None, predictor: Predictor, judged: Mapping[str, Judged]
) -> TrainedFold:
    """Put together what the training of a predictor leaves.

    Parameters
    ----------
    run : FieldRun
    arm : Arm
    network : CorrANet or None
        With a correlated arm.
    predictor : Predictor
        Its weights, and those of the network, are those that the bundle will hold.
    judged : mapping of str to Judged
        Its predictions of the fields of each part, "validation" among them.

    Returns
    -------
    TrainedFold
        Not calibrated.
    """
    config, counts = run.config, run.counts
    listed = {part: run.store.listed(part) for part in judged}
    fields = {part: predictions_of(own, listed[part]) for part, own in judged.items()}
    slides = {part: joined(own, listed[part]) for part, own in judged.items()}
    of_slides = bool(run.table.cases)
    facts = _facts(arm, predictor, config, of_slides=of_slides)
    whole = _field_model(facts, network, predictor) if arm.deployable else None
    looks = None
    if whole is not None and isinstance(run.store.source, BCIFolder):
        source, seed = run.store.source, config.compute.seed
        looks = partial(field_looks, run.store, source, whole, run.device.reader, seed=seed)
    return TrainedFold(
        model=predictor if whole is None else whole,
        encoder=None,
        facts=facts,
        predictions={"": slides, FIELDS: fields} if of_slides else {"": fields},
        no_bundle="" if arm.deployable else "It looks at IHC too, and scoring gives it H&E alone.",
        uncalibrated=(FIELDS,),
        of_parts=(FIELDS,) if of_slides else ("",),
        unit="slides" if of_slides else FIELDS,
        weights="predictor",
        counts=None if of_slides else counts,
        sizes=", ".join(f"{counts[part]} fields {words}" for part, words in _WORDS.items() if counts[part]),
        figures=_figures(judged),
        record={"arm": arm.name, "field_counts": counts, **measures_of(judged[run.judged])},
        looks=looks,
    )


def predictions_of(judged: Judged, listed: FieldList) -> Predictions:
    """Return the predictions of fields, one by one."""
    return Predictions(listed.cases, judged.labels, judged.probabilities)


def joined(judged: Judged, listed: FieldList) -> Predictions:
    """Return the predictions of slides, each by the mean of its fields as scoring takes it."""
    numbers = np.array(listed.slides)
    probabilities = torch.from_numpy(judged.probabilities)
    confidence = torch.from_numpy(judged.confidence)
    slides, first = np.unique(numbers, return_index=True)
    rows = [join_fields(probabilities[numbers == slide], confidence[numbers == slide])[1] for slide in slides]
    return Predictions(
        tuple(listed.cases[at] for at in first), judged.labels[first], torch.stack(rows).numpy()
    )


def _facts(arm: Arm, predictor: Predictor, config: CorrANetConfig, *, of_slides: bool) -> ModelFacts:
    own = NetworkArm(config.network.dim, config.network.attention) if arm.network is None else arm.network
    return ModelFacts(
        method="corr-a-net",
        architecture="FieldModel",
        arguments={
            "predictor": arm.architecture,
            "classes": predictor.classes,
            **own.arguments,
            "channels_from": "H&E" if arm.network is None else "correlated",
            "field_px": config.data.field_px,
        },
        encoder=None,
        stain="+".join(STAINS[stain] for stain in STAINS_OF[arm.input]),
        tile_px=config.data.tile_px,
        mpp=config.data.mpp,
        # Patches of a folder were cut by others: how much of them is tissue was never asked.
        min_tissue=config.data.min_tissue if of_slides else None,
    )


def _field_model(facts: ModelFacts, network: CorrANet | None, predictor: Predictor) -> FieldModel:
    model = FieldModel(**facts.arguments)  # type: ignore[arg-type]
    model.predictor = predictor
    if network is not None:
        model.network = network
    return model


def _figures(judged: Mapping[str, Judged]) -> dict[str, float]:
    """Measures of single fields, as the paper has them, for the card."""
    found: dict[str, float] = {}
    for part, own in judged.items():
        measures = measures_of(own)
        values = {words: measures[key] for key, words in _ON_CARD.items()} | {
            "MEC": measures["mec"]["signed"]
        }
        found |= {f"{part} fields: {name}": round(v, 4) for name, v in values.items() if v is not None}
    return found
