"""Many ABMIL models of one shape, learning side by side from single bags: what `musk.py` spends its time on.

PyTorch takes half a millisecond to record and go back through a network of this size, which computes for a
tenth of that. So the gradients of the published network (equations 7 to 9 of arXiv:1802.04712, cross-entropy
over two logits) are written out here, for a few models at a time, whose weights then stay in the processor's
cache. A test holds them to `napari_her2.models.abmil.ABMIL` under autograd and `torch.optim.SGD`; answers
are those of ABMIL itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.func import functional_call
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.abmil import ABMIL

LAYERS = ("embed.0", "embed.3", "embed.6")
"""The three layers in front, each with ReLU behind it."""


class SideBySide:
    """Models that learn by SGD with momentum, one bag a step.

    Parameters
    ----------
    heads : sequence of ABMIL
        Three layers in front, two classes, no dropout.
    rate, momentum, decay : float
    """

    def __init__(self, heads: Sequence[ABMIL], *, rate: float, momentum: float, decay: float) -> None:
        self.head, self.gated = heads[0], heads[0].attend.gate is not None
        self._rate, self._momentum, self._decay = rate, momentum, decay
        rows = [torch.cat([part.detach().flatten() for part in head.parameters()]) for head in heads]
        self._all = torch.stack(rows)
        self._gradient, self._speed = torch.zeros_like(self._all), torch.zeros_like(self._all)
        self.weights, self._gradients = self._named(self._all), self._named(self._gradient)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of each parameter, (models, ...), into (models, all of them)."""
        found, at = {}, 0
        for name, part in self.head.named_parameters():
            found[name] = flat[:, at : at + part.numel()].view(-1, *part.shape)
            at += part.numel()
        return found

    def _linear(self, name: str, given: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1), given, weight.transpose(1, 2))

    def _keep(self, name: str, gradient: Tensor, given: Tensor) -> None:
        """Write the gradients of a layer, from that of what it gave (models, K, out)."""
        torch.bmm(gradient.transpose(1, 2), given, out=self._gradients[f"{name}.weight"])
        torch.sum(gradient, 1, out=self._gradients[f"{name}.bias"])

    def step(self, bag: Tensor, label: int, learning: Sequence[int]) -> None:
        """Learn from one bag (models, K, D), in the models numbered in ``learning``; no other changes."""
        layers = [bag]
        for name in LAYERS:
            layers.append(self._linear(name, layers[-1]).relu_())
        tiles = layers[-1]
        direction = self._linear("attend.project", tiles).tanh_()
        gate = self._linear("attend.gate", tiles).sigmoid_() if self.gated else None
        hidden = direction if gate is None else direction * gate
        attention = self._linear("attend.score", hidden).softmax(1)
        pooled = attention.transpose(1, 2) @ tiles
        of_logits = self._linear("classifier", pooled).softmax(2)
        of_logits[:, :, label] -= 1
        self._keep("classifier", of_logits, pooled)
        of_pooled = of_logits @ self.weights["classifier.weight"]
        of_attention = tiles @ of_pooled.transpose(1, 2)
        of_scores = attention * (of_attention - (attention * of_attention).sum(1, keepdim=True))
        self._keep("attend.score", of_scores, hidden)
        of_hidden = of_scores * self.weights["attend.score.weight"]
        of_tiles = attention * of_pooled
        of_direction = of_hidden if gate is None else of_hidden * gate
        of_direction = of_direction * (1 - direction * direction)
        self._keep("attend.project", of_direction, tiles)
        of_tiles = torch.baddbmm(of_tiles, of_direction, self.weights["attend.project.weight"])
        if gate is not None:
            of_gate = of_hidden * direction * gate * (1 - gate)
            self._keep("attend.gate", of_gate, tiles)
            of_tiles = torch.baddbmm(of_tiles, of_gate, self.weights["attend.gate.weight"])
        for number in (3, 2, 1):
            of_tiles.mul_(layers[number] > 0)
            self._keep(LAYERS[number - 1], of_tiles, layers[number - 1])
            if number > 1:
                of_tiles = of_tiles @ self.weights[f"{LAYERS[number - 1]}.weight"]
        self._move(learning)

    def _move(self, learning: Sequence[int]) -> None:
        torch._fused_sgd_(
            [self._all[number] for number in learning],
            [self._gradient[number] for number in learning],
            [self._speed[number] for number in learning],
            weight_decay=self._decay,
            momentum=self._momentum,
            lr=self._rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )

    @torch.inference_mode()
    def judge(
        self, model: int, instances: Tensor, starts: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Tell whether a model is wrong on each bag, and its loss there.

        Parameters
        ----------
        model : int
        instances : (N, D) float32
            Of all bags, one after the other.
        starts : (bags,) int64
            Where each bag begins.
        labels : (bags,) int64

        Returns
        -------
        (bags,) bool and (bags,) float32
        """
        own = {name: part[model] for name, part in self.weights.items()}
        logits = functional_call(
            _Bags(self.head), {f"head.{k}": v for k, v in own.items()}, (instances, starts)
        )
        truth = torch.from_numpy(labels)
        losses = F.cross_entropy(logits, truth, reduction="none")
        return (logits.argmax(dim=-1) != truth).numpy(), losses.numpy()


class _Bags(torch.nn.Module):
    """An ABMIL that answers for many bags in one batch: its own tiles, joined by bag."""

    def __init__(self, head: ABMIL) -> None:
        super().__init__()
        self.head = head

    def forward(self, instances: Tensor, starts: NDArray[np.int64]) -> Tensor:
        scores, votes = self.head.tiles(instances)
        ends = [*starts[1:].tolist(), len(instances)]
        sizes = torch.tensor([end - start for start, end in zip(starts.tolist(), ends, strict=True)])
        bag = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        scores = scores.squeeze(-1)
        most = torch.full((len(sizes),), -math.inf).scatter_reduce(0, bag, scores, "amax")
        weights = (scores - most[bag]).exp()
        total = torch.zeros(len(sizes)).index_add(0, bag, weights)
        joined = torch.zeros(len(sizes), votes.shape[-1])
        joined = joined.index_add(0, bag, (weights / total[bag]).unsqueeze(-1) * votes)
        return joined + self.head.classifier.bias
