"""Training of a predictor on fields, by one protocol whatever it looks at.

Dutta et al. 2025 (medRxiv preprint): class-weighted cross-entropy with hints and a budget for doubt, Adam at
1e-4, its rate falling along a cosine. The epoch of the best balanced accuracy on validation fields is kept,
the later one of equals.

Differences from the paper
--------------------------
- One protocol for all arms, 100 epochs with batches of 32: paper and code leave it open, or have others for
  other arms, which then differ in more than what they look at.
- Fields are mirrored and turned by right angles, and their strength and contrast changed by up to a tenth,
  alike for all arms. A correlated representation is made of the field as it is, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import recall_score
from torch import Tensor

from napari_her2.models.predictors import Predictor
from napari_her2_training.corr_a_net.predictor_losses import (
    PredictorLossOptions,
    class_weights,
    draw_hints,
    next_lambda,
    predictor_loss,
)
from napari_her2_training.corr_a_net.training import turned
from napari_her2_training.running.draws import EpochOrder, seed_of
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task, batch_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_her2_training.corr_a_net.config import PredictorConfig

_AUGMENT, _HINTS = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFields:
    """What a predictor looks at, with its classes.

    Parameters
    ----------
    stacks : tuple of (N, C, f, f) uint8 or float16
        Joined along their channels; bytes are taken to [0, 1].
    labels : (N,) int64
    """

    stacks: tuple[NDArray[Any], ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Channels of a field."""
        return sum(int(stack.shape[1]) for stack in self.stacks)

    def batch(self, chosen: Sequence[int] | NDArray[np.integer]) -> Tensor:
        """(B, C, f, f) float32 of some of the fields."""
        return torch.stack([self.field(int(number)) for number in chosen])

    def field(self, number: int) -> Tensor:
        """(C, f, f) float32 of a field."""
        side = self.stacks[0].shape[2]
        return self.square(number, (0, 0), side, turns=0, flipped=False)

    def square(self, number: int, corner: tuple[int, int], side: int, *, turns: int, flipped: bool) -> Tensor:
        """(C, side, side) float32 of a square of a field, turned by right angles and mirrored."""
        y, x = corner
        parts = []
        for stack in self.stacks:
            cut = np.asarray(stack[number, :, y : y + side, x : x + side])
            part = torch.from_numpy(np.array(turned(cut, turns, flipped))).float()
            parts.append(part / 255 if stack.dtype == np.uint8 else part)
        return torch.cat(parts)


class PredictorTask(Task):
    """A predictor and the fields that it learns from."""

    monitor, mode, ties, clip = "validation_balanced_accuracy", "max", "last", None
    stream = 2

    def __init__(
        self,
        predictor: Predictor,
        train: LabelledFields,
        validation: LabelledFields,
        config: PredictorConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__(
            seed=seed,
            epochs=config.epochs,
            train_batches=config.train_batches or -(-len(train) // config.batch_size),
            validation_batches=-(-len(validation) // config.batch_size),
            accumulate=config.accumulate,
        )
        self.predictor = predictor
        self.config = config
        self.options = loss_options(config)
        self.train_fields, self.validation_fields = train, validation
        self.lambda_: Tensor
        self.weights: Tensor
        # A run that resumes needs the present weight of doubt: it travels with the checkpoint.
        self.register_buffer("lambda_", torch.tensor(config.first_lambda))
        weights = class_weights(torch.from_numpy(train.labels), predictor.classes)
        self.register_buffer("weights", weights if config.weighted else torch.ones_like(weights))
        self._order = EpochOrder(train.labels, balanced=False, seed=seed)
        self._confidence: Tensor | None = None

    def draw(self, epoch: int, number: int) -> Batch:
        """Squares of fields, their labels, who is given a hint, and how strength and contrast change."""
        size, order = self.config.batch_size, self._order.of(epoch)
        chosen = order[np.arange(number * size, (number + 1) * size) % len(order)]
        rng = np.random.default_rng([self.seed, epoch, number, _AUGMENT])
        fields = self._squares(chosen, rng)
        jitter = self.config.jitter
        strength, contrast = (
            torch.from_numpy(rng.uniform(1 - jitter, 1 + jitter, (len(chosen), 1, 1, 1))).float()
            for _ in range(2)
        )
        generator = torch.Generator().manual_seed(seed_of(self.seed, _HINTS, epoch, number))
        hints = draw_hints(len(chosen), self.options, generator=generator)
        return fields, torch.from_numpy(self.train_fields.labels[chosen]), hints, strength, contrast

    def draw_validation(self, number: int) -> Batch:
        """Fields as they are, and their labels."""
        size, own = self.config.batch_size, self.validation_fields
        chosen = list(range(number * size, min((number + 1) * size, len(own))))
        return own.batch(chosen), torch.from_numpy(own.labels[chosen])

    def loss(self, *batch: Tensor) -> Tensor:
        """Classification with hints, and the price of doubt."""
        fields, labels, hints, strength, contrast = batch
        means = fields.mean(dim=(2, 3), keepdim=True)
        fields = ((fields - means) * contrast + means).mul(strength).clamp_(0, 1)
        terms = predictor_loss(
            self.predictor(fields),
            labels,
            self.lambda_,
            hinted=hints,
            weights=self.weights,
            options=self.options,
        )
        self._confidence = terms.confidence.detach()
        return terms.total

    def follow(self, in_order: Callable[[Tensor], Sequence[Tensor]]) -> None:
        """Raise or lower the weight of doubt by the confidence in each batch."""
        if self._confidence is not None:
            for confidence in in_order(self._confidence):
                self.lambda_ = next_lambda(self.lambda_, confidence, self.options)

    def judge(self, *batch: Tensor) -> Batch:
        """Loss without hints, predicted classes and labels."""
        fields, labels = batch
        output = self.predictor(fields)
        terms = predictor_loss(
            output, labels, self.lambda_, hinted=None, weights=self.weights, options=self.options
        )
        return terms.classification.float(), output.logits.argmax(dim=1).cpu(), labels.cpu()

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Mean loss, and the mean recall over the classes that occur."""
        losses, found, labels = zip(*judged, strict=True)
        true = torch.cat(labels).numpy()
        recall = recall_score(
            true, torch.cat(found).numpy(), labels=np.unique(true), average="macro", zero_division=0
        )
        return {
            "validation_loss": batch_mean(losses, [len(part) for part in labels]),
            self.monitor: float(recall),
        }

    def lighter(self) -> str:
        """Fewer fields a batch."""
        return halved("[predictor] batch_size", self.config.batch_size)

    def optimiser(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Adam, its rate falling along a cosine."""
        optimizer = torch.optim.Adam(
            self.predictor.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.config.epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _squares(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        whole = self.train_fields.stacks[0].shape[2]
        side = self.config.crop_px or whole
        squares = []
        for number in chosen.tolist():
            y, x = rng.integers(0, whole - side + 1, 2).tolist()
            turns, flipped = int(rng.integers(4)), bool(rng.integers(2))
            squares.append(self.train_fields.square(number, (y, x), side, turns=turns, flipped=flipped))
        return torch.stack(squares)


def loss_options(config: PredictorConfig) -> PredictorLossOptions:
    """Return the options of the loss that a configuration asks for."""
    return PredictorLossOptions(
        first_lambda=config.first_lambda, budget=config.budget, hinted=config.hinted, focal=config.focal
    )


def new_predictor(architecture: str, *, channels: int, size_px: int, seed: int) -> Predictor:
    """Build a predictor of the four scores with weights that the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Predictor(architecture=architecture, channels=channels, size_px=size_px)
