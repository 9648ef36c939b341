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
        self._before = [(_statistics(layer), _seen(layer).clone()) for layer in self._layers]

    def join(self) -> None:
        """Give the layers, after the step, the statistics of the batches of all processes."""
        if not self._layers:
            return
        # A layer may have seen several batches in the step, or none.
        steps = [_seen(layer) - seen for layer, (_, seen) in zip(self._layers, self._before, strict=True)]
        kept = torch.cat(
            [
                torch.full_like(before, 1 - float(layer.momentum or 0)) ** times
                for layer, (before, _), times in zip(self._layers, self._before, steps, strict=True)
            ]
        )
        value = torch.cat([before for before, _ in self._before])
        moves = in_order(torch.cat([_statistics(layer) for layer in self._layers]) - kept * value)
        for move in moves:
            value = kept * value + move
        sizes = [len(before) for before, _ in self._before]
        for layer, times, joined in zip(self._layers, steps, torch.split(value, sizes), strict=True):
            mean, variance = joined.chunk(2)
            for own, new in ((layer.running_mean, mean), (layer.running_var, variance)):
                if own is not None:
                    own.copy_(new)
            _seen(layer).add_(times * (len(moves) - 1))


def _statistics(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return torch.cat([part for part in (layer.running_mean, layer.running_var) if part is not None])


def _seen(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return layer.num_batches_tracked if layer.num_batches_tracked is not None else torch.zeros(())
