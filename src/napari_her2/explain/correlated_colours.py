"""Colours of the correlated representation: a channel, the mean of all, or three principal components.

All are chosen once, from a sample of the slide, and hold for every field and every level: the same values
have the same colours wherever the view goes. Pixels without a value are clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.explain.overlays import OverlayInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPRESENTATION = OverlayInfo(
    "representation",
    title="Correlated representation",
    layer_name="correlated representation from H&E ({detail})",
    meaning=(
        "What the model makes of the H&E on its way to a score: channels that were trained to go along with "
        "the IHC of the same place. Computed from H&E; it is no IHC."
    ),
    colours="",
    visible=True,
    on_request=True,
)
LOW, HIGH = 1.0, 99.0
"""Percentiles of the sample that are the ends of the colours."""
COMPONENTS = 3
_STEPS = 256


@dataclass(frozen=True, slots=True, eq=False)
class FieldColours:
    """How d channels become colours: linear in the channels, then to bytes between fixed limits.

    Parameters
    ----------
    name : str
        What is shown, for a person: "channel 3", "mean", "PCA".
    weights : (1 or 3, d) float32
        Of the channels; one row is shown through a colormap, three are red, green and blue.
    low, high : (1 or 3,) float32
        Values that are the ends of the colours; low < high.
    explained : float or None
        Share of the sample's variance that the components hold.
    """

    name: str
    weights: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    explained: float | None = None

    def rgba(self, values: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Colour a field.

        Parameters
        ----------
        values : (d, h, w) float16
            NaN where there is nothing.

        Returns
        -------
        (h, w, 4) uint8
            Clear where there is nothing.
        """
        channels, height, width = values.shape
        shown = self.weights @ values.reshape(channels, -1).astype(np.float32)
        known = np.isfinite(shown).all(axis=0)
        shown -= self.low[:, None]
        shown *= (_STEPS - 1) / (self.high - self.low)[:, None]
        levels = np.where(known, np.clip(np.rint(shown), 0, _STEPS - 1), 0).astype(np.uint8)
        out = np.zeros((height * width, 4), np.uint8)
        out[:, :3] = levels.T if len(levels) == COMPONENTS else _colormap()[levels[0]]
        out[:, 3] = 255
        out[~known] = 0
        return out.reshape(height, width, 4)


def as_channel(sample: NDArray[np.float32], channel: int) -> FieldColours:
    """Show one channel.

    Parameters
    ----------
    sample : (N, d) float32
        Values of the slide, from `CorrelatedPyramid.fit`.
    channel : int
        From 0.

    Returns
    -------
    FieldColours
    """
    weights = np.zeros((1, sample.shape[1]), np.float32)
    weights[0, channel] = 1
    return _with_limits(f"channel {channel}", weights, sample)


def as_mean(sample: NDArray[np.float32]) -> FieldColours:
    """Show the mean of all channels; ``sample`` as for `as_channel`."""
    channels = sample.shape[1]
    return _with_limits("mean", np.full((1, channels), 1 / channels, np.float32), sample)


def as_pca(sample: NDArray[np.float32]) -> FieldColours:
    """Show the first three principal components as red, green and blue.

    Of the covariance of the channels as they are, decomposed exactly. A component and its opposite are
    equally right; the one whose largest weight is positive is taken, so that the same sample always has
    the same colours. Other slides have other components, and their colours cannot be compared.

    Parameters
    ----------
    sample : (N, d) float32
        As for `as_channel`; at least three channels.

    Returns
    -------
    FieldColours
    """
    covariance = np.atleast_2d(np.cov(sample.astype(np.float64), rowvar=False))
    variances, axes = np.linalg.eigh(covariance)
    weights = axes[:, ::-1][:, :COMPONENTS].T
    largest = np.take_along_axis(weights, np.abs(weights).argmax(axis=1)[:, None], axis=1)
    weights = (weights * np.where(largest < 0, -1, 1)).astype(np.float32)
    total = float(variances.sum())
    explained = float(variances[::-1][:COMPONENTS].sum()) / total if total > 0 else None
    return _with_limits("PCA", weights, sample, explained)


def _with_limits(
    name: str, weights: NDArray[np.float32], sample: NDArray[np.float32], explained: float | None = None
) -> FieldColours:
    low, high = np.percentile(sample @ weights.T, [LOW, HIGH], axis=0).astype(np.float32)
    # A channel that is the same everywhere has no contrast to show.
    high = np.where(high > low, high, low + 1).astype(np.float32)
    return FieldColours(name, weights, low, high, explained)


def _colormap() -> NDArray[np.uint8]:
    """(256, 3) uint8: viridis, whose blue, green and yellow H&E has not."""
    steps = np.arange(_STEPS, dtype=np.uint8)[:, None]
    colours: NDArray[np.uint8] = cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return colours
