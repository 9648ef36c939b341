"""A model that knows what it has seen and what it can promise, made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.bundle import load_bundle, with_doubt
from napari_her2.models.card import SLIDE
from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard
from napari_her2.models.familiarity import FEATURES, Familiarity, FeatureSpace

if TYPE_CHECKING:
    from pathlib import Path

CASES = 160


def doubtful_bundle(model: Path, out: Path, *, strange: bool) -> Path:
    """Write a model with another doubt.

    Slides of validation lay a thousandth of a limit away, so that any slide is unlike, or a thousand limits,
    so that any slide is familiar. Sets are of 160 cases, of which most have their truth at the top.
    """
    bundle = load_bundle(model)
    card, rng = bundle.card, np.random.default_rng(5)
    features = bundle.encoder.spec.dim
    spread = np.exp(0.1 * rng.standard_normal((20, 2))) * (1e-3 if strange else 1e3)
    space = FeatureSpace(
        mean=np.zeros(features, np.float32),
        components=np.eye(2, features, dtype=np.float32),
        scale=np.ones(2, np.float32),
        rest=1.0,
        references=np.zeros((1, 2), np.float32),
        reach=np.ones(1, np.float32),
        tile_limit=1.0,
        slides=np.sort(spread, axis=1).astype(np.float32),
    )
    labels = np.sort(np.arange(CASES) % len(card.classes))
    scores = np.where(rng.random(CASES) < 0.7, 0, rng.random(CASES)).astype(np.float32)
    counts = {name: CASES // len(card.classes) for name in card.classes}
    with_doubt(
        model,
        out,
        Familiarity({(card.stain, FEATURES): space}),
        FamiliarityCard(20, 20, None, "20 training and 20 validation slides"),
        AnswerSets({SLIDE: CalibrationCases(scores, labels)}),
        AnswerSetsCard({SLIDE: counts}, "calibration cases"),
    )
    return out
