"""Training of slide models on frozen features: one way for all architectures, each with its own loss.

One slide a time, as all their authors do, gradients summed over a few; Adam. The epoch with the best macro F1
over the validation slides is kept, a later one of equals. Losses are those of
`napari_her2_training.mil.losses`.

Differences from the paper
--------------------------
- One protocol for all architectures, where each paper has an optimiser, a schedule and a rule of stopping of
  its own (TransMIL: Lookahead with RAdam, DSMIL: a cosine): what is compared is the architecture.
- Slides can be thinned to some of their tiles each time they are learnt from; the order of rows stays.
- The norm of the gradient is clipped at 1, for all alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
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
from napari_her2_training.running.draws import epoch_order, inverse_frequencies, seed_of
from napari_her2_training.running.fitting import Fit, at_best, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2.models.card import ArgumentValue
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.mil.config import AggregatorConfig, MILLossConfig

MONITOR = "validation_macro_f1"
_THIN, _DROP = 0, 1
_WIDTH, _HIDDEN = 512, 256
_QUERY = 128
_LANDMARKS = 256


class MILTraining(lightning.LightningModule):
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
        super().__init__()
        self.head = head
        self.config = config
        self.options = loss_options(loss)
        self.seed = seed
        self.train_bags, self.validation_bags = tuple(train), tuple(validation)
        self.labels = np.array([bag.label for bag in train], np.int64)
        self.weights = inverse_frequencies(self.labels, int(self.labels.max()) + 1)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._said: list[NDArray[np.float64]] = []

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """Return the loss of slide number ``batch`` of this epoch."""
        epoch, number = self.current_epoch, int(batch)
        if self._order[0] != epoch:
            balanced = self.config.balance == "sampler"
            self._order = (epoch, epoch_order(self.labels, balanced=balanced, seed=self.seed, epoch=epoch))
        bag = self.train_bags[int(self._order[1][number])]
        features = bag.features
        if 0 < self.config.max_tiles < len(features):
            rng = np.random.default_rng([self.seed, epoch, number, _THIN])
            features = features[np.sort(draw_tiles(len(features), self.config.max_tiles, rng))]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.seed, _DROP, epoch, number))
            output = self.head(torch.from_numpy(features).to(self.device))
        label = torch.tensor(bag.label, device=self.device)
        loss = mil_loss(output, label, self.options).total
        return loss * float(self.weights[bag.label]) if self.config.balance == "weights" else loss

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Score validation slide number ``batch`` whole, and log its loss."""
        bag = self.validation_bags[int(batch)]
        output = self.head(torch.from_numpy(bag.features).to(self.device))
        label = torch.tensor(bag.label, device=self.device)
        self._said.append(output.probabilities.double().cpu().numpy())
        loss = mil_loss(output, label, self.options).total
        self.log("validation_loss", loss.float(), on_epoch=True, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Log the macro F1 over the validation slides."""
        labels = [bag.label for bag in self.validation_bags]
        f1 = f1_score(labels, np.stack(self._said).argmax(axis=1), average="macro")
        self.log(MONITOR, torch.tensor(f1, dtype=torch.float32))
        self._said.clear()

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Adam, without a schedule."""
        return torch.optim.Adam(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )


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
            clam = CLAM(**sizes, width=width, hidden=hidden, multi_branch=several, dropout=config.dropout)
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


def train_aggregator(
    module: MILTraining,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    stage: str,
    resume: bool,
) -> nn.Module:
    """Train and return the slide model of the epoch with the best validation macro F1, frozen.

    Parameters
    ----------
    module : MILTraining
    folder : Path
        For the checkpoints: best.ckpt and last.ckpt.
    device : Device
    report : callable
    stage : str
        Named in the progress.
    resume : bool
        Go on from last.ckpt where there is one.

    Returns
    -------
    nn.Module
    """
    wanted = Fit(
        stage=stage,
        folder=folder,
        epochs=module.config.epochs,
        train_batches=len(module.train_bags),
        validation_batches=len(module.validation_bags),
        monitor=MONITOR,
        mode="max",
        accumulate=module.config.accumulate,
        ties="last",
    )
    state = fit(module, wanted, device, report, resume=resume)
    return at_best(module.head, state, "head")
