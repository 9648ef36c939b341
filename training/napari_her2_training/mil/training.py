"""Training of slide models on frozen features: one way for all architectures, each with its own loss.

One slide a time, as all their authors do, gradients summed over a few; Adam, or SGD. The epoch with the best
macro F1 over the validation slides is kept, a later one of equals, or that of the lowest error and loss.
Losses are those of `napari_her2_training.mil.losses`.

Differences from the paper
--------------------------
- One protocol for all architectures, where each paper has an optimiser, a schedule and a rule of stopping of
  its own (TransMIL: Lookahead with RAdam, DSMIL: a cosine): what is compared is the architecture.
- Slides can be thinned to some of their tiles each time they are learnt from; the order of rows stays.
- The norm of the gradient is clipped at 1, for all alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import f1_score

from napari_her2.models.abmil import ABMIL
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.clam import CLAM
from napari_her2.models.dsmil import DSMIL
from napari_her2.models.transmil import TransMIL
from napari_her2_training.cohort.bags import draw_tiles
from napari_her2_training.mil.config import TRANSMIL_HEADS
from napari_her2_training.mil.losses import MILLossOptions, mil_loss
from napari_her2_training.running.draws import EpochOrder, inverse_frequencies
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task, batch_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from napari_her2.models.card import ArgumentValue
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.mil.config import AggregatorConfig, MILLossConfig

_THIN = 0
_WIDTH, _HIDDEN = 512, 256
_QUERY = 128
_LANDMARKS = 256
MOMENTUM = 0.9


class MILTask(Task):
    """A slide model and the bags that it learns from.

    Parameters
    ----------
    head : nn.Module
        A `napari_her2.models.aggregator.SlideAggregator`.
    train, validation : sequence of SlideBag
    config : AggregatorConfig
    loss : MILLossConfig
    seed : int
    """

    def __init__(
        self,
        head: nn.Module,
        train: Sequence[SlideBag],
        validation: Sequence[SlideBag],
        config: AggregatorConfig,
        loss: MILLossConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__(
            seed=seed,
            epochs=config.epochs,
            train_batches=len(train),
            validation_batches=len(validation),
            accumulate=config.accumulate,
        )
        self.head = head
        self.config = config
        by_error = config.keep == "error and loss"
        self.monitor = "validation_error_then_loss" if by_error else "validation_macro_f1"
        self.mode, self.ties = ("min", "first") if by_error else ("max", "last")
        self.options = loss_options(loss)
        self.train_bags, self.validation_bags = tuple(train), tuple(validation)
        labels = np.array([bag.label for bag in train], np.int64)
        self.weights: Tensor
        weights = inverse_frequencies(labels, int(labels.max()) + 1)
        self.register_buffer("weights", weights, persistent=False)
        self._order = EpochOrder(labels, balanced=config.balance == "sampler", seed=seed)

    def draw(self, epoch: int, number: int) -> Batch:
        """Features and label of one slide, thinned where that is wanted."""
        bag = self.train_bags[int(self._order.of(epoch)[number])]
        features = bag.features
        if 0 < self.config.max_tiles < len(features):
            rng = np.random.default_rng([self.seed, epoch, number, _THIN])
            features = features[np.sort(draw_tiles(len(features), self.config.max_tiles, rng))]
        return torch.from_numpy(features), torch.tensor(bag.label)

    def draw_validation(self, number: int) -> Batch:
        """Draw a whole slide."""
        bag = self.validation_bags[number]
        return torch.from_numpy(bag.features), torch.tensor(bag.label)

    def loss(self, *batch: Tensor) -> Tensor:
        """Loss of a slide by that of its architecture, weighted by its class where that is wanted."""
        features, label = batch
        loss = mil_loss(self.head(features), label, self.options).total
        return loss * self.weights[label] if self.config.balance == "weights" else loss

    def judge(self, *batch: Tensor) -> Batch:
        """Loss and probabilities of a slide."""
        features, label = batch
        output = self.head(features)
        return mil_loss(output, label, self.options).total, output.probabilities.cpu().double()

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Mean loss and macro F1 over the validation slides."""
        labels = np.array([bag.label for bag in self.validation_bags])
        found = np.stack([probabilities.numpy() for _, probabilities in judged]).argmax(axis=1)
        loss = batch_mean([loss for loss, _ in judged], [1] * len(judged))
        measured = {
            "validation_loss": loss,
            "validation_macro_f1": float(f1_score(labels, found, average="macro")),
        }
        if self.monitor not in measured:
            # One number in the order of both: wrong answers, and below them the loss brought into [0, 1).
            measured[self.monitor] = float((found != labels).sum()) + loss / (1 + loss)
        return measured

    def lighter(self) -> str:
        """Fewer tiles of a slide."""
        most = max(len(bag.features) for bag in self.train_bags)
        return halved("[head] max_tiles", min(most, self.config.max_tiles or most))

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, or SGD with momentum, without a schedule."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        if self.config.optimiser == "sgd":
            return torch.optim.SGD(self.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=decay)
        return torch.optim.Adam(self.parameters(), lr=rate, weight_decay=decay)


def loss_options(config: MILLossConfig) -> MILLossOptions:
    """Return the options of the loss that a configuration asks for."""
    return MILLossOptions(
        bag_weight=config.bag_weight,
        sampled=config.sampled,
        instance_loss="svm" if config.instance_loss == "svm" else "cross-entropy",
        stream_weight=config.stream_weight,
    )


def new_aggregator(
    config: AggregatorConfig, *, features: int, classes: int, seed: int
) -> tuple[nn.Module, str, dict[str, ArgumentValue]]:
    """Build a slide model with random weights that the seed alone decides.

    Parameters
    ----------
    config : AggregatorConfig
    features : int
        Length of a tile's feature vector.
    classes : int
    seed : int

    Returns
    -------
    head : nn.Module
    architecture : str
        Key of `napari_her2.models.architectures.ARCHITECTURES`.
    arguments : dict
        What its card says that it is built with.
    """
    name, sizes = config.architecture, {"features": features, "classes": classes}
    width, hidden = config.width or _WIDTH, config.hidden or _HIDDEN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "attention-mil":
            attention = AttentionMIL(features=features, hidden=hidden, classes=classes)
            return attention, "AttentionMIL", {**sizes, "hidden": hidden}
        if name in ("abmil", "abmil-plain"):
            gated = name == "abmil"
            abmil = ABMIL(**sizes, widths=(width,), hidden=hidden, gated=gated, dropout=config.dropout)
            return abmil, "ABMIL", {**sizes, "width": width, "hidden": hidden, "gated": gated}
        if name in ("clam-sb", "clam-mb"):
            several = name == "clam-mb"
            clam = CLAM(
                features=features,
                classes=classes,
                width=width,
                hidden=hidden,
                multi_branch=several,
                dropout=config.dropout,
            )
            return clam, "CLAM", {**sizes, "width": width, "hidden": hidden, "multi_branch": several}
        if name == "dsmil":
            query = config.hidden or _QUERY
            dsmil = DSMIL(features=features, classes=classes, hidden=query)
            return dsmil, "DSMIL", {**sizes, "hidden": query, "project_values": False, "average": False}
        transmil = TransMIL(
            features=features, classes=classes, width=width, heads=TRANSMIL_HEADS, landmarks=_LANDMARKS
        )
        shape = {"width": width, "heads": TRANSMIL_HEADS, "landmarks": _LANDMARKS}
        return transmil, "TransMIL", {**sizes, **shape, "attention": "auto", "faithful": False}
