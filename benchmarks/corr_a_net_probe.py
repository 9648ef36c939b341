"""How much of the score a fixed probe reads from fields: in seconds, where a predictor takes minutes.

Fields pass 5 x 5 kernels that are drawn at random once, at two scales, as Dempster et al. (ROCKET, 2020,
arXiv:1910.13051) do with series; of what each answers, the means of the positive and negative part and
the standard deviation are kept. A logistic regression on these learns the score, its penalty chosen by
cross-validation over the training cases. Nothing of it depends on a learning rate or on epochs, so that
differences are those of what the fields hold, as far as local contrast and strength go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS, SIDE_PX = 32, 5
SCALES = ((1, 2), (3, 4))
"""Dilation of the kernels, and at which pixels they are applied."""
PENALTIES = (0.001, 0.01, 0.1)
AT_ONCE = 16


def described(fields: np.ndarray, represent: Callable[[torch.Tensor], torch.Tensor], seed: int) -> np.ndarray:
    """Describe fields by what random kernels answer to them.

    Parameters
    ----------
    fields : (N, 3, f, f) uint8
    represent : callable
        (B, 3, f, f) float in [0, 1] to (B, C, f, f) float in [0, 1].
    seed : int
        Of the kernels.

    Returns
    -------
    (N, 6 * 32 + C) float32
    """
    rows = []
    banks: list[torch.Tensor] | None = None
    with torch.inference_mode():
        for first in range(0, len(fields), AT_ONCE):
            batch = torch.from_numpy(np.array(fields[first : first + AT_ONCE])).float() / 255
            seen = represent(batch)
            banks = banks or kernels(seen.shape[1], seed)
            parts = [seen.mean(dim=(2, 3))]
            for bank, (dilation, stride) in zip(banks, SCALES, strict=True):
                answers = F.conv2d(seen, bank, dilation=dilation, stride=stride)
                parts += [
                    answers.clamp_min(0).mean(dim=(2, 3)),
                    answers.clamp_max(0).mean(dim=(2, 3)),
                    answers.std(dim=(2, 3)),
                ]
            rows.append(torch.cat(parts, dim=1).numpy())
    return np.concatenate(rows)


def kernels(channels: int, seed: int) -> list[torch.Tensor]:
    """(32, channels, 5, 5) for each scale; each sums to zero over its pixels in every channel."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(KERNELS, channels, SIDE_PX, SIDE_PX, generator=generator) for _ in SCALES]
    return [bank - bank.mean(dim=(2, 3), keepdim=True) for bank in drawn]


def read_out(descriptions: np.ndarray, labels: np.ndarray, cases: np.ndarray) -> Pipeline:
    """Learn classes from descriptions.

    Parameters
    ----------
    descriptions : (N, D) float
    labels : (N,) int
    cases : (N,)
        Fields of a case are left out together when the penalty is chosen.

    Returns
    -------
    Pipeline
        Of scikit-learn, with ``predict_proba``.
    """
    strengths = [{"logisticregression__C": [strength]} for strength in PENALTIES]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    search = GridSearchCV(model, strengths, scoring="neg_log_loss", cv=GroupKFold(3))
    search.fit(descriptions, labels, groups=cases)
    best: Pipeline = search.best_estimator_
    return best
