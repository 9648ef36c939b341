"""What a model keeps of what it has seen, and what it can promise, invented for tests."""

from __future__ import annotations

import numpy as np

from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.card import BOTH, SLIDE
from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard
from napari_her2.models.familiarity import (
    APPEARANCE,
    FEATURES,
    TILE_COUNTS,
    Familiarity,
    FeatureSpace,
    SlideSpace,
)

FAMILIARITY_CARD = FamiliarityCard(20, 8, 1, "20 training and 8 validation slides")
PAIR_HEADS = (BOTH, "H&E", "IHC")


def space(dim=1024, directions=6, references=10, slides=8, seed=0):
    """Make a space around the origin; its slides lie at distances around 0.5."""
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.normal(size=(dim, directions)))[0].T
    return FeatureSpace(
        mean=rng.normal(size=dim).astype(np.float32),
        components=rows.astype(np.float16).astype(np.float32),
        scale=rng.uniform(0.5, 2, directions).astype(np.float32),
        rest=float(np.float32(0.7)),
        references=rng.normal(size=(references, directions)).astype(np.float16).astype(np.float32),
        reach=rng.uniform(0.5, 2, references).astype(np.float32),
        tile_limit=float(np.float32(1.9)),
        slides=(np.exp(rng.normal(0, 0.1, (slides, 2))) * (0.5, 0.8)).astype(np.float32),
        whole=SlideSpace(
            turn=(2 * np.eye(directions)).astype(np.float32),
            places=rng.normal(size=(5, directions)).astype(np.float16).astype(np.float32),
            known=np.exp(rng.normal(0, 0.1, (slides, len(TILE_COUNTS), 3))).astype(np.float32),
        ),
    )


def familiarity(dim=1024, stains=("H&E",), appearance=40):
    """Make the spaces of features and of appearance, for each stain."""
    spaces = {(stain, FEATURES): space(dim, seed=at) for at, stain in enumerate(stains)}
    if appearance:
        spaces |= {(stain, APPEARANCE): space(appearance, seed=9 + at) for at, stain in enumerate(stains)}
    return Familiarity(spaces)


def answer_sets(classes=("0", "1+", "2+", "3+"), heads=(SLIDE,), each=10, seed=0):
    """Make calibration cases, as many of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), each)
    given = {
        head: CalibrationCases(rng.uniform(0, 0.9, len(labels)).astype(np.float32), labels) for head in heads
    }
    counts = {head: dict.fromkeys(classes, each) for head in heads}
    return AnswerSets(given), AnswerSetsCard(counts, "validation and calibration cases")
