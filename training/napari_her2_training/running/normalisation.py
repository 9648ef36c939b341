"""Running statistics of batch normalisation when several processes learn together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_her2_training.running.ranks import in_order

if TYPE_CHECKING:
    from torch import Tensor


class RunningStatistics:
    """Joins the running means and variances of a step, as if one process had seen its batches in their order.

    Each process moves them by its own batch: r becomes (1 - m) r + m s, with the statistic s of the batch
    and the momentum m. What it has before and after the step gives m s; those of all give the result.

    Parameters
    ----------
    network : nn.Module
        Ahead of the step.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = [
            layer
            for layer in network.modules()
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
            and layer.training
            and layer.running_mean is not None
            and layer.momentum is not None
        ]
        self._before = self._values()

    def join(self) -> None:
        """Give the layers, after the step, the statistics of the batches of all processes."""
        if not self._layers:
            return
        kept = 1 - torch.cat([torch.full_like(part, m) for m, part in self._parts()])
        value = self._before
        moves = in_order(self._values() - kept * value)
        for move in moves:
            value = kept * value + move
        parts = [part for _, part in self._parts()]
        for part, joined in zip(parts, torch.split(value, [len(part) for part in parts]), strict=True):
            part.copy_(joined)
        for layer in self._layers:
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked += len(moves) - 1

    def _values(self) -> Tensor:
        return torch.cat([part for _, part in self._parts()]) if self._layers else torch.empty(0)

    def _parts(self) -> list[tuple[float, Tensor]]:
        """Momentum and statistics of each layer."""
        return [
            (float(layer.momentum or 0), part)
            for layer in self._layers
            for part in (layer.running_mean, layer.running_var)
            if part is not None
        ]
