"""The card of a trained model, put together in one place for all methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from napari_her2.models.bundle import load_bundle, save_bundle
from napari_her2.models.card import NOTICE, ModelCard
from napari_her2.models.case_slides import EACH, JOINED_ANSWERS, MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from napari_her2.models.answer_sets import AnswerSets
    from napari_her2.models.card import ArgumentValue, EncoderSpec
    from napari_her2.models.familiarity import Familiarity
    from napari_her2.models.patch_encoder import PatchEncoder
    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.config_sections import CaseSlidesConfig, ModelConfig


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card says of the network; see `napari_her2.models.card.ModelCard`."""

    method: str
    architecture: str
    arguments: Mapping[str, ArgumentValue]
    encoder: EncoderSpec | None
    stain: str
    tile_px: int
    mpp: float
    min_tissue: float | None = None
    mpp_range: tuple[float, float] | None = None
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """What a card says of how far an answer is to be believed.

    Parameters
    ----------
    temperatures : mapping of str to float
        By head; see `napari_her2.models.card.ModelCard`.
    min_confidence : float or None
    """

    temperatures: Mapping[str, float] = field(default_factory=dict)
    min_confidence: float | None = None


def make_card(
    model: ModelConfig,
    mapping: ClassMapping,
    facts: ModelFacts,
    *,
    sizes: str,
    metrics: Mapping[str, float],
    task: str = "",
    trust: Trust | None = None,
    cases: CaseSlidesConfig | None = None,
) -> ModelCard:
    """Put a card together.

    Parameters
    ----------
    model : ModelConfig
        Its texts.
    mapping : ClassMapping
    facts : ModelFacts
    sizes : str
        What it was trained on, in numbers; see `split_sizes`.
    metrics : mapping of str to float
    task : str, optional
        In place of that of the configuration.
    trust : Trust, optional
    cases : CaseSlidesConfig, optional
        What several slides of a case are to the model; by default each is one of its own.
    """
    return ModelCard(
        name=model.name,
        version=model.version,
        method=facts.method,
        architecture=facts.architecture,
        arguments=dict(facts.arguments),
        encoder=facts.encoder,
        stain=facts.stain,
        tile_px=facts.tile_px,
        mpp=facts.mpp,
        classes=mapping.names,
        class_scores=mapping.findings,
        task=task or model.task,
        training_data=f"{model.training_data} ({sizes}; napari-her2 {version('napari-her2')})",
        licence=model.licence,
        intended_use=model.intended_use,
        guideline=model.guideline,
        notice=f"{NOTICE} {model.notice}".strip(),
        metrics=metrics,
        temperatures=trust.temperatures if trust else {},
        min_confidence=trust.min_confidence if trust else None,
        min_tissue=facts.min_tissue,
        mpp_range=facts.mpp_range,
        precision=facts.precision,
        case_slides=EACH if cases is None else cases.slides,
        # Of bags, and of slides each by itself, no answers are joined.
        case_rule=cases.rule if cases is not None and cases.slides == JOINED_ANSWERS else MEAN,
    )


def split_sizes(split: Split, unit: str) -> str:
    """Say how many of each part there were: "4 slides to train on, 2 to choose the epoch, 2 held out"."""

    def count(cases: Sequence[Case]) -> int:
        return len({case.case_id for case in cases}) if unit == "cases" else len(cases)

    sizes = f"{count(split.train)} {unit} to train on, {count(split.validation)} to choose the epoch"
    sizes = f"{sizes}, {count(split.test)} held out" if split.test else sizes
    return f"{sizes}, {count(split.calibration)} to calibrate" if split.calibration else sizes


def round_weights(model: nn.Module) -> None:
    """Round weights to float16, as a bundle holds those of a network that takes pixels.

    What is measured afterwards is what scoring will say.
    """
    state = {
        key: value.half().to(value.dtype) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)


def save_checked(
    path: Path,
    card: ModelCard,
    encoder: PatchEncoder | None,
    model: nn.Module,
    familiarity: Familiarity | None = None,
    answer_sets: AnswerSets | None = None,
) -> None:
    """Write a bundle and load it again: what cannot be loaded is no result.

    Raises
    ------
    ModelError
        If it cannot be written, or not be loaded again.
    """
    save_bundle(path, card, encoder, model, familiarity=familiarity, answer_sets=answer_sets)
    load_bundle(path, encoder_needed=encoder is not None)
