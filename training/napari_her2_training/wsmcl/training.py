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

from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from napari_her2.models.wsmcl import WSMCL
from napari_her2_training.cohort.bags import predictions_of
from napari_her2_training.measures.metrics import macro_auc
from napari_her2_training.running.fitting import Fit, at_best, fit
from napari_her2_training.wsmcl.losses import LossOptions, wsmcl_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.wsmcl.config import LossConfig, PairedHeadConfig
    from napari_her2_training.wsmcl.pairs import Pair, PairDraw

MONITOR = "validation_macro_auc"
DROPOUT = 1


class WSMCLTraining(lightning.LightningModule):
    """WSMCL and the pairs that it learns from.

    Parameters
    ----------
    model : WSMCL
    train : PairDraw
    validation : sequence of Pair
    head : PairedHeadConfig
    loss : LossConfig
    seed : int
    """

    def __init__(
        self,
        model: WSMCL,
        train: PairDraw,
        validation: Sequence[Pair],
        head: PairedHeadConfig,
        loss: LossConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.options = loss_options(loss)
        self.seed = seed
        self.train_draw, self.validation_pairs = train, validation
        self._pairs: tuple[int, list[Pair]] = (-1, [])
        self._seen: list[NDArray[np.float64]] = []

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        """Return the loss of pair number ``batch`` of this epoch."""
        epoch, number = self.current_epoch, int(batch)
        if self._pairs[0] != epoch:
            self._pairs = (epoch, self.train_draw.epoch(epoch))
        pair = self._pairs[1][number]
        # Each slide with a stream of its own.
        he = self._tensor(self.train_draw.thinned(pair.he, epoch, 2 * number))
        ihc = self._tensor(self.train_draw.thinned(pair.ihc, epoch, 2 * number + 1))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(_seed_of(self.seed, DROPOUT, epoch, number))
            output = self.model(he, ihc)
        label = torch.tensor(pair.label, device=self.device)
        return wsmcl_loss(output, label, self.model.log_scale, self.options).total

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        """Score pair number ``batch`` whole, and log its loss."""
        pair = self.validation_pairs[int(batch)]
        output = self.model(self._tensor(pair.he.features), self._tensor(pair.ihc.features))
        label = torch.tensor(pair.label, device=self.device)
        terms = wsmcl_loss(output, label, self.model.log_scale, self.options)
        self._seen.append(output.probabilities.double().cpu().numpy())
        self.log("validation_loss", terms.total.float(), on_epoch=True, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Log the macro AUC of the head for both slides."""
        labels = np.array([pair.label for pair in self.validation_pairs])
        self.log(MONITOR, torch.tensor(macro_auc(labels, np.stack(self._seen)), dtype=torch.float32))
        self._seen.clear()

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """Adam, without a schedule."""
        return torch.optim.Adam(
            self.parameters(), lr=self.head.learning_rate, weight_decay=self.head.weight_decay
        )

    def _tensor(self, features: NDArray[np.float16]) -> torch.Tensor:
        return torch.from_numpy(features).to(self.device)


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


def train_model(
    module: WSMCLTraining,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    stage: str,
    accumulate: int,
    resume: bool,
) -> WSMCL:
    """Train and return the model of the epoch with the best validation macro AUC, frozen.

    Parameters
    ----------
    module : WSMCLTraining
    folder : Path
        For the checkpoints: best.ckpt and last.ckpt.
    device : Device
    report : callable
    stage : str
        Named in the progress.
    accumulate : int
        Pairs a step of the optimiser.
    resume : bool
        Go on from last.ckpt where there is one.

    Returns
    -------
    WSMCL
    """
    wanted = Fit(
        stage=stage,
        folder=folder,
        epochs=module.head.epochs,
        train_batches=len(module.train_draw),
        validation_batches=len(module.validation_pairs),
        monitor=MONITOR,
        mode="max",
        accumulate=accumulate,
        clip=None,
        ties="last",
    )
    state = fit(module, wanted, device, report, resume=resume)
    return at_best(module.model, state, "model")


def predict_pairs(model: WSMCL, pairs: Sequence[Pair]) -> Predictions:
    """Judge pairs by the head for both slides.

    Parameters
    ----------
    model : WSMCL
    pairs : sequence of Pair

    Returns
    -------
    Predictions
        By the case of the H&E slide.
    """
    with torch.inference_mode():
        rows = [
            model(torch.from_numpy(pair.he.features), torch.from_numpy(pair.ihc.features)).logits
            for pair in pairs
        ]
    return predictions_of([pair.he for pair in pairs], torch.stack(rows))


def predict_slides(model: WSMCL, bags: Sequence[SlideBag], stain: Stain) -> Predictions:
    """Judge single slides by the head of their stain.

    Parameters
    ----------
    model : WSMCL
    bags : sequence of SlideBag
    stain : {"he", "ihc"}

    Returns
    -------
    Predictions
    """
    with torch.inference_mode():
        rows = [model(**{stain: torch.from_numpy(bag.features)}).logits for bag in bags]
    return predictions_of(bags, torch.stack(rows))


def _seed_of(seed: int, *what: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=what).generate_state(1, np.uint64)[0] >> 1)
