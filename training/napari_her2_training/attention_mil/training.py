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

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_her2.models.attention_mil import AttentionMIL
from napari_her2_training.cohort.bags import draw_batch
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task, batch_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_her2_training.attention_mil.config import BagsConfig, HeadConfig
    from napari_her2_training.cohort.bags import SlideBag

STAGE = "Training the attention head"


class AttentionMILTask(Task):
    """An attention head and the bags that it learns from."""

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
        super().__init__(
            seed=seed,
            epochs=head_config.epochs,
            train_batches=bags_config.train_batches,
            validation_batches=bags_config.validation_batches,
        )
        self.head = head
        self.head_config, self.bags_config = head_config, bags_config
        self._train, self._validation = train, validation

    def draw(self, epoch: int, number: int) -> Batch:
        """Bags of training slides: features, labels and which tiles are tumour."""
        return self._bags(self._train, [self.seed, epoch, number])

    def draw_validation(self, number: int) -> Batch:
        """Bags of validation slides."""
        return self._bags(self._validation, [self.bags_config.validation_seed, number])

    def loss(self, *batch: Tensor) -> Tensor:
        """Cross-entropy of the bags, and the guidance by tumour outlines where it is wanted."""
        features, labels, tumour = batch
        logits, all_votes, scores = self.in_parts(self._numbers, features)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        if not self.head_config.guidance:
            return loss
        votes = all_votes.float() + self.head.classifier.bias
        guide = attention_loss(scores.float(), tumour) + vote_loss(votes, labels, tumour)
        return loss + self.head_config.guidance * guide

    def judge(self, *batch: Tensor) -> Batch:
        """Loss of a batch."""
        return (self.loss(*batch),)

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Mean loss."""
        losses = [loss for (loss,) in judged]
        return {self.monitor: batch_mean(losses, [self.bags_config.batch_size] * len(losses))}

    @property
    def most_parts(self) -> int:
        """A part is a bag at least."""
        return self.bags_config.batch_size

    def _numbers(self, features: Tensor) -> tuple[Tensor, ...]:
        output = self.head(features)
        return output.logits, output.votes, output.scores

    def lighter(self) -> str:
        """Fewer bags a batch."""
        return halved("[bags] batch_size", self.bags_config.batch_size)

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, without a schedule."""
        return torch.optim.Adam(
            self.parameters(), lr=self.head_config.learning_rate, weight_decay=self.head_config.weight_decay
        )

    def _bags(self, bags: Sequence[SlideBag], seeds: list[int]) -> Batch:
        own = self.bags_config
        rng = np.random.default_rng(seeds)
        return draw_batch(bags, bags_per_batch=own.batch_size, size=own.size, rng=rng)


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
    mixed = tumour.any(dim=1) & ~tumour.all(dim=1)
    if not bool(mixed.any()):
        return scores.new_zeros(())
    inside = scores.masked_fill(~tumour, -torch.inf)[mixed].logsumexp(dim=1)
    return (scores[mixed].logsumexp(dim=1) - inside).mean()


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
