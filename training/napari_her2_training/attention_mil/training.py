"""Training of attention MIL on embedded slides.

Abdulsadig, Williams and Burlutskiy, Leveraging transfer learning and multiple instance learning for HER2
automatic scoring of H&E whole slide images, 2024 (arXiv:2411.05028): frozen encoder, batches of 64 bags of
100 tiles, unweighted cross-entropy, Adam.

Differences from the paper
--------------------------
- The authors' scripts augment pixels while the head learns; here slides are embedded once, so that the
  head sees each tile as it is. Pre-training of the encoder augments instead.
- Where tumour outlines are known, attention and votes may be guided by them ([head] guidance); the paper
  has none.
- The epoch of the lowest validation loss is kept, and the last one beside it.
- The norm of the gradient is clipped at 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch import nn

from napari_her2.models.attention_mil import AttentionMIL
from napari_her2_training.cohort.bags import draw_batch
from napari_her2_training.running.fitting import Fit, at_best, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2_training.attention_mil.config import BagsConfig, HeadConfig
    from napari_her2_training.cohort.bags import SlideBag

STAGE = "Training the attention head"


class AttentionMILTraining(lightning.LightningModule):
    """An attention head and the bags that it learns from.

    Parameters
    ----------
    head : AttentionMIL
    train, validation : sequence of SlideBag
    head_config : HeadConfig
    bags_config : BagsConfig
    seed : int
    """

    def __init__(
        self,
        head: AttentionMIL,
        train: Sequence[SlideBag],
        validation: Sequence[SlideBag],
        head_config: HeadConfig,
        bags_config: BagsConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.head = head
        self.head_config, self.bags_config = head_config, bags_config
        self.seed = seed
        self._train, self._validation = train, validation

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """Draw batch number ``batch`` of this epoch and return its loss."""
        rng = np.random.default_rng([self.seed, self.current_epoch, int(batch)])
        return self._loss(self._train, rng)

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Log the loss of one batch of validation bags: the same bags in every epoch."""
        rng = np.random.default_rng([self.bags_config.validation_seed, int(batch)])
        loss = self._loss(self._validation, rng)
        self.log("validation_loss", loss, on_epoch=True, batch_size=self.bags_config.batch_size)

    def _loss(self, bags: Sequence[SlideBag], rng: np.random.Generator) -> Tensor:
        features, labels, tumour = draw_batch(
            bags, bags_per_batch=self.bags_config.batch_size, size=self.bags_config.size, rng=rng
        )
        labels, tumour = labels.to(self.device), tumour.to(self.device)
        output = self.head(features.to(self.device))
        loss = nn.functional.cross_entropy(output.logits.float(), labels)
        if not self.head_config.guidance:
            return loss
        votes = output.votes.float() + self.head.classifier.bias
        guide = attention_loss(output.scores.float(), tumour) + vote_loss(votes, labels, tumour)
        return loss + self.head_config.guidance * guide

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Adam, without a schedule."""
        return torch.optim.Adam(
            self.parameters(), lr=self.head_config.learning_rate, weight_decay=self.head_config.weight_decay
        )


def attention_loss(scores: Tensor, tumour: Tensor) -> Tensor:
    """-log of the attention on tumour tiles, over the bags that hold some and are not all tumour.

    Parameters
    ----------
    scores : (B, K) float
        Attention before the softmax.
    tumour : (B, K) bool

    Returns
    -------
    () float
    """
    told = tumour.any(dim=1) & ~tumour.all(dim=1)
    if not bool(told.any()):
        return scores.new_zeros(())
    inside = scores.masked_fill(~tumour, -torch.inf)[told].logsumexp(dim=1)
    return (scores[told].logsumexp(dim=1) - inside).mean()


def vote_loss(votes: Tensor, labels: Tensor, tumour: Tensor) -> Tensor:
    """Cross-entropy of what each tumour tile by itself says, against the label of its slide.

    Parameters
    ----------
    votes : (B, K, C) float
        With the bias.
    labels : (B,) int64
    tumour : (B, K) bool

    Returns
    -------
    () float
    """
    if not bool(tumour.any()):
        return votes.new_zeros(())
    return nn.functional.cross_entropy(votes[tumour], labels[:, None].expand(tumour.shape)[tumour])


def new_head(features: int, hidden: int, classes: int, seed: int) -> AttentionMIL:
    """Build a head with random weights that the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttentionMIL(features=features, hidden=hidden, classes=classes)


def train_head(
    module: AttentionMILTraining,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    of_fold: str = "",
    resume: bool,
) -> AttentionMIL:
    """Train and return the head of the epoch with the lowest validation loss, frozen.

    Parameters
    ----------
    module : AttentionMILTraining
    folder : Path
        For the checkpoints: best.ckpt and last.ckpt.
    device : Device
    report : callable
    of_fold : str
        Which fold it is, for a person.
    resume : bool
        Go on from last.ckpt where there is one.

    Returns
    -------
    AttentionMIL
    """
    wanted = Fit(
        stage=f"{STAGE}{of_fold}",
        folder=folder,
        epochs=module.head_config.epochs,
        train_batches=module.bags_config.train_batches,
        validation_batches=module.bags_config.validation_batches,
        monitor="validation_loss",
        mode="min",
    )
    state = fit(module, wanted, device, report, resume=resume)
    return at_best(module.head, state, "head")
