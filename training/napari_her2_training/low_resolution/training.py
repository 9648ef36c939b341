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

import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from napari_her2.methods.patches import fused
from napari_her2.models.low_resolution import VIEWS, dihedral
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2_training.encoder.augment import orient, vary_light, vary_place
from napari_her2_training.measures.predictions import Predictions
from napari_her2_training.running.draws import EpochOrder, inverse_frequencies, seed_of
from napari_her2_training.running.machines import steps_an_epoch
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.models.low_resolution import LowResolution
    from napari_her2_training.low_resolution.config import LearningConfig
    from napari_her2_training.low_resolution.slide_images import SlideImages

_AUGMENT = 0


class ImageTask(Task):
    """A ConvNeXt and the images that it learns from."""

    monitor, mode, ties = "validation_macro_f1", "max", "last"
    channels_last = any_side = True

    def __init__(
        self,
        model: LowResolution | PatchConvNeXt,
        train: SlideImages,
        validation: SlideImages,
        config: LearningConfig,
        *,
        seed: int,
    ) -> None:
        super().__init__(
            seed=seed,
            epochs=config.epochs,
            train_batches=-(-len(train) // config.batch_size),
            validation_batches=-(-len(validation) // config.batch_size),
            accumulate=config.accumulate,
        )
        self.model = model
        self.config = config
        self.train_images, self.validation_images = train, validation
        self.weights: Tensor
        weights = inverse_frequencies(train.image_labels, model.classes)
        self.register_buffer("weights", weights, persistent=False)
        self._order = EpochOrder(train.image_labels, balanced=config.balance == "sampler", seed=seed)
        if config.checkpointing:
            network: Any = model.network
            network.set_grad_checkpointing()

    def draw(self, epoch: int, number: int) -> Batch:
        """Images, augmented, and their labels."""
        size = self.config.batch_size
        chosen = self._order.of(epoch)[number * size : (number + 1) * size]
        draw = torch.Generator().manual_seed(seed_of(self.seed, _AUGMENT, epoch, number))
        images = augmented(self.train_images.batch(chosen), self.config, draw)
        return images, torch.from_numpy(self.train_images.image_labels[chosen])

    def draw_validation(self, number: int) -> Batch:
        """Images as they are."""
        size = self.config.batch_size
        last = min((number + 1) * size, len(self.validation_images))
        return (self.validation_images.batch(range(number * size, last)),)

    def loss(self, *batch: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels."""
        images, labels = batch
        return F.cross_entropy(
            self._logits(images),
            labels,
            weight=self.weights if self.config.balance == "weights" else None,
            label_smoothing=self.config.label_smoothing,
        )

    def judge(self, *batch: Tensor) -> Batch:
        """Logits of images."""
        return (self._logits(batch[0].float()).cpu(),)

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Loss over the validation images and macro F1 over the slides."""
        images = self.validation_images
        logits = torch.cat([logits for (logits,) in judged])
        loss = F.cross_entropy(logits, torch.from_numpy(images.image_labels))
        slides = per_slide(torch.softmax(logits.double(), dim=1), images)["mean"]
        f1 = float(f1_score(images.labels, slides.argmax(axis=1), average="macro"))
        return {"validation_loss": float(loss), self.monitor: f1}

    @property
    def most_parts(self) -> int:
        """A part is an image at least: layers are normalised within each image."""
        return self.config.batch_size

    def _logits(self, images: Tensor) -> Tensor:
        # Prepared before it is parted: in place, and a part is computed twice.
        (logits,) = self.in_parts(lambda part: (self.model(part),), _prepared(images))
        return logits.float()

    def lighter(self) -> str:
        """Activations computed twice, which gives the same weights; then fewer images a batch."""
        if not self.config.checkpointing:
            return "[learning] checkpointing = true"
        # Patches have a size of batch of their own, which goes before the other.
        section = "patches" if isinstance(self.model, PatchConvNeXt) else "learning"
        return halved(f"[{section}] batch_size", self.config.batch_size)

    def optimiser(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """AdamW, a rate that falls towards the pixels, warm-up and cosine."""
        config = self.config
        optimiser = torch.optim.AdamW(parameter_groups(self.model.network, config))
        each = steps_an_epoch(self.train_batches, self.accumulate)
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
                share = {"params": parameters, "lr": rate * factor, "weight_decay": group["weight_decay"]}
                groups.append(share)
    return groups


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
            pixels = _prepared(batch.to(device.torch_device))
            seen = [one for _, one in zip(range(min(views, VIEWS)), dihedral(pixels), strict=False)]
            probabilities = [torch.softmax(model(one).cpu().double(), dim=1) for one in seen]
            parts.append(torch.stack(probabilities).mean(dim=0))
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


def _prepared(pixels: Tensor) -> Tensor:
    """(B, 3, S, S) float on [0, 255] to [0, 1], in the layout that convolutions like."""
    return pixels.div_(255).contiguous(memory_format=torch.channels_last)
