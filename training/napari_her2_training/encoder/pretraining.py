"""Pre-training of the patch encoder: it learns to tell the labels of patches, then loses its classifier.

Labelled patches come from the slides themselves and inherit the slide's score; where the tumour is known,
patches outside it form a class of their own, so that the encoder learns what tells tumour from the rest.
Cross-entropy, AdamW, flips and turns, varied stain, light and sharpness;
the epoch of the best validation AUC is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_her2.errors import JobFailed
from napari_her2.models.encoder_contracts import contract_of
from napari_her2.models.patch_encoder import PatchEncoder
from napari_her2.models.token_pooling import pooled, prefix_tokens, to_input
from napari_her2_training.encoder.augment import orient, vary_light, vary_place, vary_sharpness, vary_stain
from napari_her2_training.encoder.last_blocks import freeze_all_but_last, keep_frozen_still
from napari_her2_training.measures.metrics import macro_auc
from napari_her2_training.running.cards import round_weights
from napari_her2_training.running.draws import EpochOrder
from napari_her2_training.running.machines import steps_an_epoch
from napari_her2_training.running.shortage import halved
from napari_her2_training.running.task import Batch, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2_training.encoder.config import PretrainingConfig
    from napari_her2_training.encoder.patches import LabelledPatches

STAGE = "Pre-training the encoder"


class PatchTask(Task):
    """An encoder with a linear classifier on top, and the patches that it learns from."""

    monitor, mode = "patch_auc", "max"
    channels_last = True

    def __init__(
        self,
        encoder: PatchEncoder,
        train: LabelledPatches,
        validation: LabelledPatches,
        config: PretrainingConfig,
        *,
        classes: int,
        seed: int,
    ) -> None:
        super().__init__(
            seed=seed,
            epochs=config.epochs,
            # The last incomplete one is left out.
            train_batches=max(1, len(train.labels) // config.batch_size),
            validation_batches=-(-len(validation.labels) // config.batch_size),
        )
        self.encoder = encoder.unfreeze()
        if config.blocks:
            freeze_all_but_last(encoder, config.blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(encoder.spec.dim, classes)
        self.config = config
        self._train, self._validation = train, validation
        self.weights: Tensor
        # Rare classes count as much as frequent ones in the mean over the classes, which is what is judged.
        counts = np.bincount(train.labels, minlength=classes)
        weights = np.where(counts > 0, len(train.labels) / np.maximum(counts, 1), 0.0) ** 0.5
        self.register_buffer("weights", torch.tensor(weights / weights.max()).float(), persistent=False)
        self._order = EpochOrder(train.labels, balanced=False, seed=seed)
        self.train()  # by itself: Lightning leaves modes as it finds them

    def train(self, mode: bool = True) -> PatchTask:
        """Enter training mode; blocks that do not learn keep their running statistics."""
        super().train(mode)
        if self.config.blocks:
            keep_frozen_still(self.encoder)
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of patches (B, 3, t, t) float on [0, 255]."""
        encoder = self.encoder
        pixels = to_input(pixels, encoder.spec.input_px, encoder.spec.resized_px)
        prepared = (pixels - encoder.shift) * encoder.gain
        output = encoder.backbone(prepared.contiguous(memory_format=torch.channels_last))
        features = pooled(output, encoder.spec.pooling, prefix_tokens(encoder.backbone))
        return self.classifier(self.dropout(features))  # type: ignore[no-any-return]

    def draw(self, epoch: int, number: int) -> Batch:
        """Patches, augmented, and their labels."""
        config = self.config
        size = config.batch_size
        index = np.sort(self._order.of(epoch)[number * size : (number + 1) * size])
        # In this order for every machine: the augmentation is drawn on the CPU.
        draw = torch.Generator().manual_seed(hash((self.seed, epoch, number)) & 0x7FFFFFFF)
        pixels = orient(torch.from_numpy(self._train.images[index]).permute(0, 3, 1, 2), draw).float()
        if config.stain_jitter:
            pixels = vary_stain(pixels, config.stain_jitter, draw)
        if config.colour_jitter:
            pixels = vary_light(pixels, config.colour_jitter, draw)
        if config.scale_jitter:
            pixels = vary_place(pixels, 0.0, config.scale_jitter, draw)
        if config.sharpness_jitter or config.noise:
            pixels = vary_sharpness(pixels, config.sharpness_jitter, config.noise, draw)
        return pixels, torch.from_numpy(self._train.labels[index])

    def draw_validation(self, number: int) -> Batch:
        """Patches as they are, and their labels."""
        part = slice(number * self.config.batch_size, (number + 1) * self.config.batch_size)
        images = torch.from_numpy(self._validation.images[part]).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self._validation.labels[part])

    def loss(self, *batch: Tensor) -> Tensor:
        """Weighted cross-entropy."""
        pixels, labels = batch
        return nn.functional.cross_entropy(self._logits(pixels), labels, weight=self.weights)

    def judge(self, *batch: Tensor) -> Batch:
        """Logits and labels of patches."""
        images, labels = batch
        return self._logits(images.float()).cpu(), labels.cpu()

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        """Loss, macro AUC and accuracy over all validation patches."""
        logits, labels = (torch.cat(parts) for parts in zip(*judged, strict=True))
        return {
            "patch_loss": float(nn.functional.cross_entropy(logits, labels)),
            self.monitor: macro_auc(labels.numpy(), torch.softmax(logits, 1).numpy()),
            "patch_accuracy": float((logits.argmax(1) == labels).float().mean()),
        }

    @property
    def most_parts(self) -> int:
        """A part is a patch at least, of networks that normalise nothing over a batch."""
        over_batches = any(isinstance(module, _BatchNorm) for module in self.encoder.modules())
        return 1 if over_batches else self.config.batch_size

    def _logits(self, pixels: Tensor) -> Tensor:
        (logits,) = self.in_parts(lambda part: (self(part),), pixels)
        return logits.float()

    def lighter(self) -> str:
        """Fewer patches a batch."""
        # Batches are normalised over patches: one alone has no deviation.
        return halved("[pretraining] batch_size", self.config.batch_size, least=2)

    def optimiser(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """AdamW with one tenth of the steps for warm-up and cosine decay after it."""
        optimiser = torch.optim.AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        steps = self.config.epochs * steps_an_epoch(self.train_batches, self.accumulate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=self.config.learning_rate,
            total_steps=steps + (2 if steps == 9 else 1),  # of 10 steps a tenth has no length to divide by
            pct_start=0.1,
            cycle_momentum=False,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rounded(self) -> PatchEncoder:
        """Return the encoder, frozen, its weights as the float16 of a bundle holds them.

        The head must learn from the features that scoring will see.
        """
        round_weights(self.encoder.backbone)
        return self.encoder.freeze()


def prepared_encoder(encoder: PatchEncoder, train: LabelledPatches, *, blocks: int = 0) -> PatchEncoder:
    """Give an encoder the mean and standard deviation of the patches it will learn from.

    Where only its last blocks learn, the first go on seeing pixels as they learnt to.
    """
    if blocks:
        return PatchEncoder(replace(encoder.spec, weights="bundled"), encoder.backbone)
    mean, std = train.mean_std()
    return PatchEncoder(replace(encoder.spec, mean=mean, std=std, weights="bundled"), encoder.backbone)


def check_scale(encoder: PatchEncoder, mpp: float, jitter: float) -> None:
    """Refuse patches of a µm/px that the encoder was not made for, as its contract has it.

    Raises
    ------
    JobFailed
    """
    if not jitter or not encoder.spec.contract:
        return
    low, high = contract_of(encoder.spec.contract).mpp_range
    if mpp * (1 - jitter) < low - 1e-9 or mpp * (1 + jitter) > high + 1e-9:
        raise JobFailed(
            f"{encoder.spec.contract} was made for {low:g} to {high:g} µm/px: with patches of {mpp:g} µm/px, "
            f"[pretraining] scale_jitter {jitter:g} leaves that. Lower it."
        )


def start_well(encoder: PatchEncoder, seed: int) -> None:
    """Draw random weights that keep the signal's size through rectified layers (He et al. 2015)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in encoder.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def patch_probabilities(
    task: PatchTask, patches: LabelledPatches, device: Device, report: Callable[[int], None]
) -> NDArray[np.float64]:
    """Class probabilities of patches, in full precision and as they lie.

    Parameters
    ----------
    task : PatchTask
        Trained.
    patches : LabelledPatches
    device : Device
    report : callable
        Called with the number of patches that are done.

    Returns
    -------
    (N, C) float64
    """
    task = task.to(device.torch_device).eval()
    size, found = task.config.batch_size, []
    with torch.inference_mode():
        for first in range(0, len(patches.labels), size):
            pixels = torch.from_numpy(patches.images[first : first + size]).permute(0, 3, 1, 2).float()
            logits = task(pixels.to(device.torch_device)).cpu().double()
            found.append(torch.softmax(logits, dim=1))
            report(first + len(pixels))
    task.cpu()
    return torch.cat(found).numpy()
