"""Whether probabilities are as often right as they say: temperature scaling, its measures, and abstention.

Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, 2017 (arXiv:1706.04599): one number
divides the logits, fitted on validation slides by their likelihood.

Differences from the paper
--------------------------
Cohorts of slides are small, and where a model is right about every validation slide the likelihood alone asks
for endless confidence. So the logarithm of the temperature is held near 0 by as much as one slide weighs (a
normal prior of deviation 1), and lies between 1/10 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BINS = 10
_WIDEST = np.log(10.0)
TINY = 1e-300
"""A double holds it: what a network all but rules out must not become likelier here than it is in scoring."""


def scaled(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Divide logits by a temperature, given the probabilities that they make.

    Parameters
    ----------
    probabilities : (N, C) float
    temperature : float

    Returns
    -------
    (N, C) float64
    """
    given = np.asarray(probabilities, np.float64)
    return given if temperature == 1 else np.exp(_log_scaled(given, temperature))


def fit_temperature(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float:
    """Find the temperature at which slides are most likely, with a little caution.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float

    Returns
    -------
    float
        Above 1: the model is too sure of itself.
    """
    own = np.arange(len(labels))

    def loss(temperature: float) -> float:
        return float(-_log_scaled(np.asarray(probabilities, np.float64), temperature)[own, labels].sum())

    return fit_log_temperature(loss)


def fit_log_temperature(loss: Callable[[float], float]) -> float:
    """Return the temperature of the least loss, held near 1 by as much as one slide weighs.

    Parameters
    ----------
    loss : callable
        Takes a temperature, returns minus the logarithm of the likelihood.
    """

    def cost(log_temperature: float) -> float:
        return loss(float(np.exp(log_temperature))) + log_temperature**2 / 2

    found = minimize_scalar(cost, bounds=(-_WIDEST, _WIDEST), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _log_scaled(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    logits = np.log(np.maximum(probabilities, TINY)) / temperature
    normalised: NDArray[np.float64] = logits - logsumexp(logits, axis=1, keepdims=True)
    return normalised


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How often slides are right that are said to be right so often, in bins of equal width.

    Parameters
    ----------
    probability, right : (bins,) float64
        Mean probability of the top class, and share of those slides that are of it; NaN in an empty bin.
    slides : (bins,) int64
    error : float
        Expected calibration error: the mean distance of the two, weighted by slides.
    """

    probability: NDArray[np.float64]
    right: NDArray[np.float64]
    slides: NDArray[np.int64]
    error: float


def reliability(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> Reliability:
    """Measure calibration of the top class.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    """
    top = probabilities.max(axis=1)
    hit = probabilities.argmax(axis=1) == labels
    # A probability on the border of two bins belongs to the lower one, as Guo et al. have it.
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        probability, right = (np.bincount(bins, weights=of, minlength=BINS) / count for of in (top, hit))
    error = float(np.nansum(np.abs(probability - right) * count) / len(labels))
    return Reliability(probability, right, count, error)


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """What withholding the least sure answers buys.

    Parameters
    ----------
    threshold : (K,) float64
        Probabilities of the top class, falling: slides that reach it are answered.
    coverage : (K,) float64
        Share of the slides that are answered.
    risk : (K,) float64
        Share of those that are wrong.
    area : float
        Mean risk over the coverage, "AURC" (Geifman and El-Yaniv, 2017, arXiv:1705.08500).
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    area: float


def risk_coverage(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> RiskCoverage:
    """Measure the risk at every coverage.

    Parameters
    ----------
    labels : (N,) int
    probabilities : (N, C) float
    """
    top = np.asarray(probabilities.max(axis=1), np.float64)
    wrong = probabilities.argmax(axis=1) != labels
    order = np.argsort(-top, kind="stable")
    answered = np.arange(1, len(top) + 1)
    risks = np.cumsum(wrong[order]) / answered
    last = np.flatnonzero(np.append(np.diff(top[order]) != 0, True))  # equal ones are answered together
    return RiskCoverage(top[order][last], answered[last] / len(top), risks[last], float(risks.mean()))


def least_confidence(curve: RiskCoverage, wanted: float) -> float | None:
    """Return the lowest threshold at which as many answers are right as wanted.

    Parameters
    ----------
    curve : RiskCoverage
    wanted : float
        Share of the answers that has to be right.

    Returns
    -------
    float or None
        None where no threshold reaches it, or 0 was wanted.
    """
    good = np.flatnonzero(curve.risk <= 1 - wanted + 1e-9)
    if not wanted or not len(good):
        return None
    # Half way to the next slide, so that rounding does not withhold the last answer that is wanted.
    return float(curve.threshold[good[-1] : good[-1] + 2].mean())
