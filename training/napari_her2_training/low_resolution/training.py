"""Training of a ConvNeXt on images of slides, whole ones or tiles: one way for both arms.

Liu et al., A ConvNet for the 2020s, 2022 (arXiv:2201.03545) fine-tune with AdamW and a rate that falls from
block to block; so here, with a warm-up, a cosine and label smoothing. Chauhan et al. (arXiv:2503.22069) say
nothing of how they trained, so all of it is our choice.

Images are mirrored, turned and made a little larger, brighter or stronger in contrast. Hue and saturation
stay as they are: how brown the tissue is, is the signal. The epoch with the best macro F1 over the validation
slides is kept, a later one of equals.

Differences from the paper
--------------------------
- Everything above, of which the abstract says nothing; the norm of the gradient is clipped at 1, as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from napari_her2.methods.patches import fused
from napari_her2.models.low_resolution import VIEWS, dihedral
from napari_her2_training.encoder.augment import orient, vary_light, vary_place
from napari_her2_training.measures.predictions import Predictions
from napari_her2_training.running.draws import epoch_order, inverse_frequencies, seed_of
from napari_her2_training.running.fitting import Fit, at_best, fit
from napari_her2_training.running.machines import steps_an_epoch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2.models.low_resolution import LowResolution
    from napari_her2.models.patch_classifier import PatchConvNeXt
    from napari_her2_training.low_resolution.config import LearningConfig
    from napari_her2_training.low_resolution.slide_images import SlideImages

MONITOR = "validation_macro_f1"
_AUGMENT, _DROP = 0, 1


class ImageTraining(lightning.LightningModule):
    """A ConvNeXt and the images that it learns from.

    Parameters
    ----------
    model : LowResolution or PatchConvNeXt
    train, validation : SlideImages
    config : LearningConfig
    seed : int
    """

    def __init__(
        self,
        model: LowResolution | PatchConvNeXt,
        train: SlideImages,
        validation: SlideImages,
        config: LearningConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.seed = seed
        self.train_images, self.validation_images = train, validation
        self.weights: Tensor
        weights = inverse_frequencies(train.image_labels, model.classes)
        self.register_buffer("weights", weights, persistent=False)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._said: list[Tensor] = []
        if config.checkpointing:
            network: Any = model.network
            network.set_grad_checkpointing()

    @property
    def train_batches(self) -> int:
        """Batches an epoch."""
        return -(-len(self.train_images) // self.config.batch_size)

    @property
    def validation_batches(self) -> int:
        """Batches that hold every validation image."""
        return -(-len(self.validation_images) // self.config.batch_size)

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """Return the loss of batch number ``batch`` of this epoch."""
        epoch, number = self.current_epoch, int(batch)
        if self._order[0] != epoch:
            balanced = self.config.balance == "sampler"
            every = self.train_images.image_labels
            self._order = (epoch, epoch_order(every, balanced=balanced, seed=self.seed, epoch=epoch))
        size = self.config.batch_size
        chosen = self._order[1][number * size : (number + 1) * size]
        draw = torch.Generator().manual_seed(seed_of(self.seed, _AUGMENT, epoch, number))
        images = augmented(self.train_images.batch(chosen), self.config, draw)
        labels = torch.from_numpy(self.train_images.image_labels[chosen]).to(self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.seed, _DROP, epoch, number))
            logits = self.model(_prepared(images, self.device))
        return F.cross_entropy(
            logits.float(),
            labels,
            weight=self.weights if self.config.balance == "weights" else None,
            label_smoothing=self.config.label_smoothing,
        )

    def on_validation_epoch_start(self) -> None:
        """Forget what was said in the last validation."""
        self._said = []

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Judge batch number ``batch``, as it is."""
        number, size = int(batch), self.config.batch_size
        chosen = range(number * size, min((number + 1) * size, len(self.validation_images)))
        images = self.validation_images.batch(chosen).float()
        self._said.append(self.model(_prepared(images, self.device)).float().cpu())

    def on_validation_epoch_end(self) -> None:
        """Log loss and macro F1 over the validation slides."""
        images = self.validation_images
        logits = torch.cat(self._said)
        loss = F.cross_entropy(logits, torch.from_numpy(images.image_labels))
        slides = per_slide(torch.softmax(logits.double(), dim=1), images)["mean"]
        f1 = f1_score(images.labels, slides.argmax(axis=1), average="macro")
        self.log_dict({"validation_loss": loss, MONITOR: torch.tensor(f1, dtype=torch.float32)})

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """AdamW, a rate that falls towards the pixels, warm-up and cosine."""
        config = self.config
        optimiser = torch.optim.AdamW(parameter_groups(self.model.network, config))
        each = steps_an_epoch(self.train_batches, config.accumulate)
        warm, whole = config.warmup_epochs * each, config.epochs * each
        floor = min(1.0, config.last_rate / config.learning_rate)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            done = (step - warm) / max(1, whole - warm)
            return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def augmented(images: Tensor, config: LearningConfig, draw: torch.Generator) -> Tensor:
    """Vary a batch: (B, 3, S, S) uint8 to float on [0, 255], on the CPU, alike on every machine."""
    pixels = orient(images, draw).float()
    if config.turn_degrees or config.scale:
        pixels = vary_place(pixels, config.turn_degrees, config.scale, draw)
    return vary_light(pixels, config.light, draw) if config.light else pixels


def parameter_groups(network: torch.nn.Module, config: LearningConfig) -> list[dict[str, Any]]:
    """Make the groups of an optimiser: a rate for each block, no decay of biases and normalisations.

    Parameters
    ----------
    network : nn.Module
        A ConvNeXt of timm.
    config : LearningConfig

    Returns
    -------
    list of dict
        With "params", "lr" and "weight_decay".
    """
    from timm.optim import param_groups_layer_decay

    head = {id(parameter) for name, parameter in network.named_parameters() if name.startswith("head.")}
    groups = []
    for group in param_groups_layer_decay(
        network, weight_decay=config.weight_decay, layer_decay=config.layer_decay
    ):
        rate = config.learning_rate * group["lr_scale"]
        for own, factor in ((True, 1.0), (False, config.body_rate_factor)):
            parameters = [one for one in group["params"] if (id(one) in head) == own]
            if parameters:
                told = {"params": parameters, "lr": rate * factor, "weight_decay": group["weight_decay"]}
                groups.append(told)
    return groups


def train_images(
    module: ImageTraining,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    stage: str,
    resume: bool,
) -> LowResolution | PatchConvNeXt:
    """Train and return the model of the epoch with the best validation macro F1, frozen.

    Parameters
    ----------
    module : ImageTraining
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
    LowResolution or PatchConvNeXt
    """
    wanted = Fit(
        stage=stage,
        folder=folder,
        epochs=module.config.epochs,
        train_batches=module.train_batches,
        validation_batches=module.validation_batches,
        monitor=MONITOR,
        mode="max",
        accumulate=module.config.accumulate,
        ties="last",
    )
    state = fit(module.to(memory_format=torch.channels_last), wanted, device, report, resume=resume)
    return at_best(module.model, state, "model")


def predict_images(
    model: LowResolution | PatchConvNeXt,
    images: SlideImages,
    device: Device,
    report: Callable[[int], None],
    *,
    views: int,
    at_once: int,
) -> dict[str, Predictions]:
    """Judge slides, in full precision.

    Parameters
    ----------
    model : LowResolution or PatchConvNeXt
    images : SlideImages
    device : Device
    report : callable
        Called with the number of images that are done.
    views : int
        Turned and mirrored views of each image whose probabilities are averaged; 1: as it lies.
    at_once : int
        Images a batch.

    Returns
    -------
    dict of str to Predictions
        How the images of a slide are joined: "mean" and "vote".
    """
    model = model.to(device.torch_device).eval()
    parts: list[Tensor] = []
    with torch.inference_mode():
        for first in range(0, len(images), at_once):
            batch = images.batch(range(first, min(first + at_once, len(images)))).float()
            pixels = _prepared(batch, device.torch_device)
            seen = [one for _, one in zip(range(min(views, VIEWS)), dihedral(pixels), strict=False)]
            said = [torch.softmax(model(one).double(), dim=1) for one in seen]
            parts.append(torch.stack(said).mean(dim=0).cpu())
            report(min(first + at_once, len(images)))
    model.cpu()
    joined = per_slide(torch.cat(parts), images)
    return {rule: Predictions(images.cases, images.labels, given) for rule, given in joined.items()}


def per_slide(probabilities: Tensor, images: SlideImages) -> dict[str, NDArray[np.float64]]:
    """Join the images of each slide, as scoring does: whole-slide images weigh as much as they hold tissue.

    Parameters
    ----------
    probabilities : (images, C) float64
    images : SlideImages

    Returns
    -------
    dict of str to (slides, C) float64
        By "mean" and by "vote".
    """
    weights = torch.from_numpy(images.weights)[:, None]
    every = [images.of_slide(number) for number in range(len(images.labels))]
    return {
        "mean": torch.stack([(weights[own] * probabilities[own]).sum(dim=0) for own in every]).numpy(),
        "vote": torch.stack([fused(probabilities[own], "vote") for own in every]).numpy(),
    }


def _prepared(pixels: Tensor, device: torch.device) -> Tensor:
    """(B, 3, S, S) float on [0, 255] to [0, 1], on the device, in the layout that convolutions like."""
    return pixels.to(device).div_(255).contiguous(memory_format=torch.channels_last)
