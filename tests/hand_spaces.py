"""Spaces of what a model has seen, made by hand: distances in them are plain ones."""

from __future__ import annotations

import numpy as np

from napari_her2.models.familiarity import FeatureSpace

SPREAD = np.exp(np.linspace(-0.2, 0.2, 9))


def around(centre, medians, uppers, limit=1.0) -> FeatureSpace:
    """A space whose distance is the plain one to a point, with slides of these quantiles."""
    dim = len(centre)
    return FeatureSpace(
        mean=np.asarray(centre, np.float32),
        components=np.eye(1, dim, dtype=np.float32),
        scale=np.ones(1, np.float32),
        rest=1.0,
        references=np.zeros((1, 1), np.float32),
        reach=np.ones(1, np.float32),
        tile_limit=limit,
        slides=np.stack([medians * SPREAD / limit, uppers * SPREAD / limit], axis=1).astype(np.float32),
    )


def space_for(features, verdict: str) -> FeatureSpace:
    """A space to which a slide of these features is so familiar."""
    centre = features.astype(np.float64).mean(axis=0)
    far = np.linalg.norm(features.astype(np.float64) - centre, axis=1)
    median, upper = np.quantile(far, (0.5, 0.9))
    whole, part = {"familiar": (1, 1), "in part": (1, 20), "unlike": (20, 20)}[verdict]
    return around(centre, median / whole, upper / part, limit=float(np.quantile(far, 0.99)) / whole)
