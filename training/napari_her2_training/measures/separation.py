"""How well a number tells two groups apart: the area under the ROC curve, with an interval.

Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2, 2006
(doi:10.1002/sim.2324), method 5: the area solves a score equation with the variance of Hanley and McNeil
(1982), each group as large as their mean. Unlike the bootstrap it leaves doubt where the groups do not
overlap at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from napari_her2_training.measures.arms import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TINY = 1e-9


def separation(usual: NDArray[np.floating], strange: NDArray[np.floating], confidence: float) -> Measure:
    """Measure how often a strange value is above a usual one; equal ones count half.

    Parameters
    ----------
    usual, strange : (M,), (N,) float
        At least one of each.
    confidence : float
        Of the interval.

    Returns
    -------
    Measure
        1 where all strange ones are above, 0.5 where they do not differ.
    """
    labels = np.repeat([0, 1], [len(usual), len(strange)])
    area = float(roc_auc_score(labels, np.concatenate([usual, strange])))
    z = float(norm.ppf((1 + confidence) / 2))

    def beyond(true: float) -> float:
        """How far the area found is from a true one, in its deviations, beyond what is allowed."""
        return abs(area - true) - z * float(np.sqrt(_variance(true, len(usual), len(strange))))

    # At 0 and 1 themselves nothing varies, so that they solve it too: what is wanted lies beside them.
    low = brentq(beyond, 0.0, min(area, 1 - _TINY)) if area > 0 else 0.0
    high = brentq(beyond, max(area, _TINY), 1.0) if area < 1 else 1.0
    return Measure(area, low=float(low), high=float(high))


def _variance(area: float, usual: int, strange: int) -> float:
    others = (usual + strange) / 2 - 1
    pairs = 1 + others * ((1 - area) / (2 - area) + area / (1 + area))
    return area * (1 - area) * pairs / (usual * strange)
