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

import lightning
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
from napari_her2_training.running.fitting import Fit, at_best, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2_training.corr_a_net.config import PredictorConfig

MONITOR = "validation_balanced_accuracy"
_AUGMENT, _HINTS, _DROPOUT = 0, 1, 2


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


class PredictorTraining(lightning.LightningModule):
    """A predictor and the fields that it learns from.

    Parameters
    ----------
    predictor : Predictor
    train, validation : LabelledFields
    config : PredictorConfig
    seed : int
    """

    def __init__(
        self,
        predictor: Predictor,
        train: LabelledFields,
        validation: LabelledFields,
        config: PredictorConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.config = config
        self.options = loss_options(config)
        self.seed = seed
        self.train_fields, self.validation_fields = train, validation
        self.lambda_: Tensor
        self.weights: Tensor
        # A run that resumes needs the present weight of doubt: it travels with the checkpoint.
        self.register_buffer("lambda_", torch.tensor(config.first_lambda))
        weights = class_weights(torch.from_numpy(train.labels), predictor.classes)
        self.register_buffer("weights", weights if config.weighted else torch.ones_like(weights))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._said: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """Return the loss of batch number ``batch`` of this epoch."""
        epoch, number = self.current_epoch, int(batch)
        count, size = len(self.train_fields), self.config.batch_size
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(count))
        chosen = self._order[1][np.arange(number * size, (number + 1) * size) % count]
        fields = self._augmented(chosen, np.random.default_rng([self.seed, epoch, number, _AUGMENT]))
        labels = torch.from_numpy(self.train_fields.labels[chosen]).to(self.device)
        hints = draw_hints(len(chosen), self.options, generator=self._generator(_HINTS, epoch, number))
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_seed_of(self.seed, _DROPOUT, epoch, number))
            output = self.predictor(fields)
        terms = predictor_loss(
            output,
            labels,
            self.lambda_,
            hinted=hints.to(self.device),
            weights=self.weights,
            options=self.options,
        )
        self.lambda_ = next_lambda(self.lambda_, terms.confidence, self.options)
        return terms.total

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Judge batch number ``batch``: without hints, and as it is."""
        number, size = int(batch), self.config.batch_size
        chosen = range(number * size, min((number + 1) * size, len(self.validation_fields)))
        output = self.predictor(self.validation_fields.batch(list(chosen)).to(self.device))
        labels = torch.from_numpy(self.validation_fields.labels[list(chosen)]).to(self.device)
        terms = predictor_loss(
            output, labels, self.lambda_, hinted=None, weights=self.weights, options=self.options
        )
        self._said.append((labels.cpu().numpy(), output.logits.argmax(dim=1).cpu().numpy()))
        self.log("validation_loss", terms.classification.float(), on_epoch=True, batch_size=len(labels))

    def on_validation_epoch_end(self) -> None:
        """Log the mean recall over the classes that occur."""
        labels, said = (np.concatenate(values) for values in zip(*self._said, strict=True))
        self._said.clear()
        value = recall_score(labels, said, labels=np.unique(labels), average="macro", zero_division=0)
        self.log(MONITOR, torch.tensor(value, dtype=torch.float32))

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Adam, its rate falling along a cosine."""
        optimizer = torch.optim.Adam(
            self.predictor.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.config.epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _augmented(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        whole = self.train_fields.stacks[0].shape[2]
        side = self.config.crop_px or whole
        squares = []
        for number in chosen.tolist():
            y, x = rng.integers(0, whole - side + 1, 2).tolist()
            turns, flipped = int(rng.integers(4)), bool(rng.integers(2))
            squares.append(self.train_fields.square(number, (y, x), side, turns=turns, flipped=flipped))
        fields = torch.stack(squares).to(self.device)
        jitter = self.config.jitter
        strength, contrast = (
            torch.from_numpy(rng.uniform(1 - jitter, 1 + jitter, (len(chosen), 1, 1, 1))).to(fields)
            for _ in range(2)
        )
        means = fields.mean(dim=(2, 3), keepdim=True)
        return ((fields - means) * contrast + means).mul(strength).clamp_(0, 1)

    def _generator(self, *what: int) -> torch.Generator:
        return torch.Generator().manual_seed(_seed_of(self.seed, *what))


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


def train_predictor(
    module: PredictorTraining,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    stage: str,
    resume: bool,
) -> Predictor:
    """Train and return the predictor of the epoch with the best validation balanced accuracy, frozen.

    Parameters
    ----------
    module : PredictorTraining
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
    Predictor
    """
    config = module.config
    wanted = Fit(
        stage=stage,
        folder=folder,
        epochs=config.epochs,
        train_batches=config.train_batches or -(-len(module.train_fields) // config.batch_size),
        validation_batches=-(-len(module.validation_fields) // config.batch_size),
        monitor=MONITOR,
        mode="max",
        accumulate=config.accumulate,
        clip=None,
        ties="last",
    )
    state = fit(module, wanted, device, report, resume=resume)
    return at_best(module.predictor, state, "predictor")


def _seed_of(seed: int, *what: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=what).generate_state(1, np.uint64)[0] >> 1)
