"""Whether maps of explanation show what a predictor needs: the drop in accuracy, beside a control.

Dutta et al. 2025 (Corr-A-Net, Eq. 11): a field is multiplied by its map on [0, 1] and classified again; if
the map shows what matters, little accuracy is lost::

    drop = 100 (accuracy - accuracy of masked fields) / accuracy

A bright map passes for a good one, as it hides little. So each map is also moved around the field by a
random way (what leaves on one side comes back on the other): same mean, same values, same texture, elsewhere.
Only what the true map drops less than the moved one speaks for it. One field alone is measured by
`napari_her2.explain.faithfulness`.

Differences from the paper
--------------------------
- It does not say whether the drop is relative or in points, nor whether the map is cut at a threshold: both
  drops are given, for the map as it is and for its upper half. The control is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_her2.errors import JobFailed
from napari_her2.explain.masks import move_maps, upper_half

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedBatch:
    """Fields with their maps.

    Parameters
    ----------
    fields : (B, d, H, W) float
        What the predictor takes.
    labels : (B,) int64
    maps : (B, H, W) float
        What explains the predicted class, 0 to 1, at the size of the fields.
    """

    fields: Tensor
    labels: Tensor
    maps: Tensor


@dataclass(frozen=True, slots=True)
class MaskedAccuracy:
    """Accuracy with and without a mask.

    Parameters
    ----------
    whole, masked : float
        0 to 1.
    """

    whole: float
    masked: float

    @property
    def drop_percent(self) -> float:
        """Loss as percentage of the accuracy without a mask, the figure of the paper; NaN where that is 0."""
        return 100 * (self.whole - self.masked) / self.whole if self.whole else math.nan

    @property
    def drop_points(self) -> float:
        """Loss in percentage points."""
        return 100 * (self.whole - self.masked)


@dataclass(frozen=True, slots=True)
class DropInAccuracy:
    """What masking by maps costs, beside the same maps moved elsewhere.

    Parameters
    ----------
    fields : int
    soft, soft_control : MaskedAccuracy
        Fields multiplied by the map.
    half, half_control : MaskedAccuracy
        Only the half of the pixels kept where the map is highest.
    """

    fields: int
    soft: MaskedAccuracy
    soft_control: MaskedAccuracy
    half: MaskedAccuracy
    half_control: MaskedAccuracy


def drop_in_accuracy(
    batches: Iterable[ExplainedBatch],
    predict: Callable[[Tensor], Tensor],
    *,
    repeats: int = 5,
    seed: int = 0,
) -> DropInAccuracy:
    """Measure the drop in accuracy.

    Parameters
    ----------
    batches : iterable of ExplainedBatch
        Taken one at a time: maps can be made on the way.
    predict : callable
        (B, d, H, W) float to (B, C) logits or probabilities, of a predictor in evaluation mode.
    repeats : int, default 5
        How often each map is moved; the controls are means over them.
    seed : int, default 0

    Returns
    -------
    DropInAccuracy
        Accuracies NaN where there is no field.

    Raises
    ------
    JobFailed
        If maps do not fit their fields, or leave [0, 1].
    """
    if repeats < 1:
        raise JobFailed(f"The control moves each map at least once, not {repeats} times.")
    generator = torch.Generator().manual_seed(seed)
    whole = soft = half = soft_moved = half_moved = count = 0

    def right(batch: ExplainedBatch, masks: Tensor | None = None) -> int:
        fields = batch.fields if masks is None else batch.fields * masks[:, None].to(batch.fields)
        with torch.inference_mode():
            return int((predict(fields).argmax(dim=1) == batch.labels).sum())

    for batch in batches:
        _check(batch)
        upper = upper_half(batch.maps, generator=generator)
        count += len(batch.labels)
        whole += right(batch)
        soft += right(batch, batch.maps)
        half += right(batch, upper)
        for _ in range(repeats):
            soft_moved += right(batch, move_maps(batch.maps, generator=generator))
            half_moved += right(batch, move_maps(upper, generator=generator))

    def accuracy(masked: int, times: int = 1) -> MaskedAccuracy:
        if not count:
            return MaskedAccuracy(math.nan, math.nan)
        return MaskedAccuracy(whole / count, masked / (count * times))

    return DropInAccuracy(
        fields=count,
        soft=accuracy(soft),
        soft_control=accuracy(soft_moved, repeats),
        half=accuracy(half),
        half_control=accuracy(half_moved, repeats),
    )


def _check(batch: ExplainedBatch) -> None:
    fields, maps = batch.fields, batch.maps
    fits = fields.ndim == 4 and maps.shape == (len(fields), *fields.shape[2:])
    if not fits or batch.labels.shape != (len(fields),):
        raise JobFailed(
            f"Maps of shape {tuple(maps.shape)} and labels of shape {tuple(batch.labels.shape)} do not fit "
            f"fields of shape {tuple(fields.shape)}: give one of each for a field, maps at its size."
        )
    # Asked this way round, NaN is refused too.
    if len(maps) and not bool(((maps >= 0) & (maps <= 1)).all()):
        raise JobFailed("Maps lie between 0 and 1: scale them before they are used as masks.")
