"""A trained predictor of fields as a model that scores slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.field_model import FieldModel
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.corr_a_net.measures import measures_of
from napari_her2_training.running.cards import ModelFacts, make_card, save_checked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.models.predictors import Predictor
    from napari_her2_training.corr_a_net.arms import Arm
    from napari_her2_training.corr_a_net.config import CorrANetConfig
    from napari_her2_training.corr_a_net.measures import Judged

_ON_CARD: Mapping[str, str] = {
    "balanced_accuracy": "balanced accuracy",
    "weighted_recall": "accuracy",
    "auc": "macro AUC",
    "mcc": "MCC",
}


def save_field_model(
    path: Path,
    config: CorrANetConfig,
    arm: Arm,
    network: CorrANet | None,
    predictor: Predictor,
    counts: Mapping[str, int],
    judged: Mapping[str, Judged],
) -> None:
    """Write the bundle of an arm that needs H&E alone.

    Parameters
    ----------
    path : Path
    config : CorrANetConfig
    arm : Arm
    network : CorrANet or None
        With a correlated arm.
    predictor : Predictor
    counts : mapping of str to int
        Fields of each part of the data.
    judged : mapping of str to Judged
        What it said of a part.

    Raises
    ------
    ModelError
        If it cannot be written, or not be loaded again.
    """
    arguments: dict[str, str | int | bool] = {
        "predictor": arm.architecture,
        "classes": predictor.classes,
        "dim": config.network.dim if arm.network is None else arm.network.dim,
        "attention": config.network.attention if arm.network is None else arm.network.attention,
        "channels_from": "H&E" if arm.network is None else "correlated",
        "field_px": config.data.field_px,
    }
    model = FieldModel(**arguments)  # type: ignore[arg-type]
    model.predictor = predictor
    if network is not None:
        model.network = network
    sizes = ", ".join(f"{counts[part]} fields {words}" for part, words in _WORDS.items() if counts.get(part))
    metrics: dict[str, float] = {}
    for part, said in judged.items():
        found = measures_of(said)
        values = {words: found[key] for key, words in _ON_CARD.items()} | {"MEC": found["mec"]["signed"]}
        metrics |= {f"{part} fields: {name}": round(v, 4) for name, v in values.items() if v is not None}
    facts = ModelFacts(
        method="corr-a-net",
        architecture="FieldModel",
        arguments=arguments,
        encoder=None,
        stain="H&E",
        tile_px=config.data.tile_px,
        mpp=config.data.mpp,
    )
    card = make_card(config.model, config.data.mapping, facts, sizes=sizes, metrics=metrics)
    save_checked(path, card, None, model)


_WORDS = dict(zip(SPLITS, ("to train on", "to choose the epoch", "held out"), strict=True))
