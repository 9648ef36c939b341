"""Training of WSMCL on pairs of embedded slides.

Shi et al. 2025 (PMID 39919535), with the published code (HFUT-miaLab/WSMCL) as the reference: one pair of
slides at a time, gradients summed over five of them, Adam without a schedule, 100 epochs, the epoch with
the best macro AUC of the head for both slides on validation kept, a later one where they tie.

Differences from the published code
-----------------------------------
- Everything random follows from one seed, dropout too: a resumed training ends with the same weights.
- Slides can be thinned to some of their tiles each time they are learnt from.
- Slides alone are judged too, each by its own head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.models.wsmcl import WSMCL
from napari_her2_training.cohort.bags import predictions_of
from napari_her2_training.measures.metrics import macro_auc
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task, batch_mean
from napari_her2_training.wsmcl.losses import LossOptions, wsmcl_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2.inference.device import Device
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.wsmcl.config import LossConfig, PairedHeadConfig
    from napari_her2_training.wsmcl.pairs import Pair, PairDraw


class WSMCLTask(Task):
    """WSMCL and the pairs that it learns from.

    Parameters
    ----------
    model : WSMCL
    train : PairDraw
    validation : sequence of Pair
    head : PairedHeadConfig
    loss : LossConfig
    accumulate : int
        Pairs a step of the optimiser.
    seed : int
    """

    monitor, mode, ties, clip = "validation_macro_auc", "max", "last", None

    def __init__(
        self,
        model: WSMCL,
        train: PairDraw,
        validation: Sequence[Pair],
        head: PairedHeadConfig,
        loss: LossConfig,
        *,
        accumulate: int = 1,
        seed: int,
    ) -> None:
        super().__init__(
            seed=seed,
            epochs=head.epochs,
            train_batches=len(train),
            validation_batches=len(validation),
            accumulate=accumulate,
        )
        self.model = model
        self.head = head
        self.options = loss_options(loss)
        self.train_draw, self.validation_pairs = train, validation
        self._pairs: tuple[int, list[Pair]] = (-1, [])
        # A slide of one tile has no top and bottom to contrast: its pair does not move the scale.
        self.whole = not loss.contrastive or train.fewest_tiles > 1

    def draw(self, epoch: int, number: int) -> Batch:
        """Features of both slides of a pair, thinned where that is wanted, and their label."""
        if self._pairs[0] != epoch:
            self._pairs = (epoch, self.train_draw.epoch(epoch))
        pair = self._pairs[1][number]
        # Each slide with a stream of its own.
        he = self.train_draw.thinned(pair.he, epoch, 2 * number)
        ihc = self.train_draw.thinned(pair.ihc, epoch, 2 * number + 1)
        return torch.from_numpy(he), torch.from_numpy(ihc), torch.tensor(pair.label)

    def draw_validation(self, number: int) -> Batch:
        """Draw a whole pair."""
        pair = self.validation_pairs[number]
        he, ihc = torch.from_numpy(pair.he.features), torch.from_numpy(pair.ihc.features)
        return he, ihc, torch.tensor(pair.label)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """Loss of a pair."""
        he, ihc, label = batch
        return wsmcl_loss(self.model(he, ihc), label, self.model.log_scale, self.options).total

    def judge(self, *batch: torch.Tensor) -> Batch:
        """Loss and probabilities of a pair."""
        he, ihc, label = batch
        output = self.model(he, ihc)
        terms = wsmcl_loss(output, label, self.model.log_scale, self.options)
        return terms.total, output.probabilities.cpu().double()

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Mean loss and macro AUC of the head for both slides."""
        labels = np.array([pair.label for pair in self.validation_pairs])
        found = np.stack([probabilities.numpy() for _, probabilities in judged])
        return {
            "validation_loss": batch_mean([loss for loss, _ in judged], [1] * len(judged)),
            self.monitor: macro_auc(labels, found),
        }

    def lighter(self) -> str:
        """Fewer tiles of a slide."""
        return halved("[pairs] max_tiles", self.train_draw.most_tiles)

    def optimiser(self) -> torch.optim.Optimizer:
        """Adam, without a schedule."""
        return torch.optim.Adam(
            self.parameters(), lr=self.head.learning_rate, weight_decay=self.head.weight_decay
        )


def loss_options(config: LossConfig) -> LossOptions:
    """Return the options of the loss that a configuration asks for."""
    return LossOptions(
        fusion=config.fusion,
        ihc=config.ihc,
        he=config.he,
        contrastive=config.contrastive,
        distillation=config.distillation,
        detach_teacher=config.detach_teacher,
        anchors="top" if config.anchors == "top" else "both",
    )


def new_model(
    config: PairedHeadConfig, *, he_features: int, ihc_features: int, classes: int, seed: int
) -> WSMCL:
    """Build WSMCL with random weights that the seed alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WSMCL(
            he_features=he_features,
            ihc_features=ihc_features,
            width=config.width,
            heads=config.heads,
            landmarks=config.landmarks,
            classes=classes,
            k=config.k,
            attention=config.attention,  # type: ignore[arg-type]
        )


def predict_pairs(model: WSMCL, pairs: Sequence[Pair], device: Device) -> Predictions:
    """Judge pairs by the head for both slides.

    Parameters
    ----------
    model : WSMCL
    pairs : sequence of Pair
    device : Device

    Returns
    -------
    Predictions
        By the case of the H&E slide.
    """
    given = [{"he": pair.he, "ihc": pair.ihc} for pair in pairs]
    return predictions_of([pair.he for pair in pairs], _logits(model, given, device))


def predict_slides(model: WSMCL, bags: Sequence[SlideBag], stain: Stain, device: Device) -> Predictions:
    """Judge single slides by the head of their stain."""
    return predictions_of(bags, _logits(model, [{stain: bag} for bag in bags], device))


def _logits(model: WSMCL, given: Sequence[dict[str, SlideBag]], device: Device) -> torch.Tensor:
    where = device.torch_device
    model.to(where)
    with torch.inference_mode():
        rows = [
            model(**{stain: torch.from_numpy(bag.features).to(where) for stain, bag in slides.items()}).logits
            for slides in given
        ]
    model.cpu()
    return torch.stack(rows).cpu()
