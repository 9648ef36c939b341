"""Pre-training of the patch encoder: it learns to tell the labels of patches, then loses its classifier.

Labelled patches come from the slides themselves and inherit the slide's score; where the tumour is known,
patches outside it form a class of their own, so that the encoder learns what tells tumour from the rest.
Cross-entropy, AdamW, flips and turns, varied stain, light and sharpness;
the epoch of the best validation AUC is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch import nn

from napari_her2.models.encoders import PatchEncoder
from napari_her2_training.encoder.augment import orient, vary_light, vary_sharpness, vary_stain
from napari_her2_training.measures.metrics import macro_auc
from napari_her2_training.running.draws import seed_of
from napari_her2_training.running.fitting import Fit, fit
from napari_her2_training.running.machines import steps_an_epoch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2_training.encoder.config import PretrainingConfig
    from napari_her2_training.encoder.patches import LabelledPatches

STAGE = "Pre-training the encoder"
_DROP = 1


class PatchClassifier(lightning.LightningModule):
    """An encoder with a linear classifier on top, and the patches that it learns from.

    Parameters
    ----------
    encoder : PatchEncoder
    train, validation : LabelledPatches
    config : PretrainingConfig
    classes : int
    seed : int
    """

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
        super().__init__()
        self.encoder = encoder.unfreeze()
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(encoder.spec.dim, classes)
        self.config = config
        self.seed = seed
        self._train, self._validation = train, validation
        # Rare classes count as much as frequent ones in the mean over the classes, which is what is judged.
        counts = np.bincount(train.labels, minlength=classes)
        weights = np.where(counts > 0, len(train.labels) / np.maximum(counts, 1), 0.0) ** 0.5
        self.register_buffer("weights", torch.tensor(weights / weights.max()).float(), persistent=False)
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def train_batches(self) -> int:
        """Batches an epoch; the last incomplete one is left out."""
        return max(1, len(self._train.labels) // self.config.batch_size)

    @property
    def validation_batches(self) -> int:
        """Batches that hold every validation patch."""
        return -(-len(self._validation.labels) // self.config.batch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of patches (B, 3, t, t) float on [0, 255]."""
        prepared = (pixels - self.encoder.shift) * self.encoder.gain
        features = self.encoder.backbone(prepared.contiguous(memory_format=torch.channels_last))
        return self.classifier(self.dropout(features))  # type: ignore[no-any-return]

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        """Draw batch number ``batch`` of this epoch and return its loss."""
        order = np.random.default_rng([self.seed, self.current_epoch]).permutation(len(self._train.labels))
        size = self.config.batch_size
        index = np.sort(order[int(batch) * size : (int(batch) + 1) * size])
        # In this order for every machine: the augmentation is drawn on the CPU.
        draw = torch.Generator().manual_seed(hash((self.seed, self.current_epoch, int(batch))) & 0x7FFFFFFF)
        images = torch.from_numpy(self._train.images[index]).permute(0, 3, 1, 2)
        with torch.autocast(self.device.type, enabled=False):
            pixels = orient(images, draw).float()
            if self.config.stain_jitter:
                pixels = vary_stain(pixels, self.config.stain_jitter, draw)
            if self.config.colour_jitter:
                pixels = vary_light(pixels, self.config.colour_jitter, draw)
            if self.config.sharpness_jitter or self.config.noise:
                pixels = vary_sharpness(pixels, self.config.sharpness_jitter, self.config.noise, draw)
        labels = torch.from_numpy(self._train.labels[index]).to(self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # Dropout too follows from seed, epoch and batch: a resumed training must not draw anew.
            torch.manual_seed(seed_of(self.seed, _DROP, self.current_epoch, int(batch)))
            logits = self(pixels.to(self.device))
        return nn.functional.cross_entropy(logits.float(), labels, weight=self.weights)

    def on_validation_epoch_start(self) -> None:
        """Forget the predictions of the last validation."""
        self._seen = []

    def validation_step(self, batch: Tensor, _: int) -> None:
        """Predict one batch of validation patches."""
        size = self.config.batch_size
        part = slice(int(batch) * size, (int(batch) + 1) * size)
        pixels = torch.from_numpy(self._validation.images[part]).permute(0, 3, 1, 2).float()
        logits = self(pixels.to(self.device)).float().cpu()
        self._seen.append((logits, torch.from_numpy(self._validation.labels[part])))

    def on_validation_epoch_end(self) -> None:
        """Log loss, accuracy and macro AUC over all validation patches."""
        logits = torch.cat([part for part, _ in self._seen])
        labels = torch.cat([part for _, part in self._seen])
        loss = nn.functional.cross_entropy(logits, labels)
        auc = macro_auc(labels.numpy(), torch.softmax(logits, 1).numpy())
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({"patch_loss": loss, "patch_auc": auc, "patch_accuracy": accuracy})

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - what Lightning takes
        """AdamW with one tenth of the steps for warm-up and cosine decay after it."""
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        steps = self.config.epochs * steps_an_epoch(self.train_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=self.config.learning_rate,
            total_steps=steps + 1,
            pct_start=0.1,
            cycle_momentum=False,
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def prepared_encoder(encoder: PatchEncoder, train: LabelledPatches) -> PatchEncoder:
    """Give an encoder the mean and standard deviation of the patches it will learn from."""
    mean, std = train.mean_std()
    return PatchEncoder(replace(encoder.spec, mean=mean, std=std, weights="bundled"), encoder.backbone)


def start_well(encoder: PatchEncoder, seed: int) -> None:
    """Draw random weights that keep the signal's size through rectified layers (He et al. 2015)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in encoder.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def pretrain(
    module: PatchClassifier,
    folder: Path,
    device: Device,
    report: Callable[[Progress], None],
    *,
    of_fold: str = "",
    resume: bool,
) -> PatchEncoder:
    """Pre-train and return the encoder of the best epoch, frozen, its weights as float16 holds them.

    Parameters
    ----------
    module : PatchClassifier
    folder : Path
        For the checkpoints.
    device : Device
    report : callable
    of_fold : str
        Which fold it is, for a person.
    resume : bool

    Returns
    -------
    PatchEncoder
        That of the module, whose classifier is then that of the best epoch too.
    """
    wanted = Fit(
        stage=f"{STAGE}{of_fold}",
        folder=folder,
        epochs=module.config.epochs,
        train_batches=module.train_batches,
        validation_batches=module.validation_batches,
        monitor="patch_auc",
        mode="max",
    )
    state = fit(module.to(memory_format=torch.channels_last), wanted, device, report, resume=resume)
    module.cpu().load_state_dict(state)
    encoder = module.encoder
    # The bundle stores float16: the head must learn from the features that scoring will see.
    rounded = {
        key: value.half().float() if value.is_floating_point() else value
        for key, value in encoder.backbone.state_dict().items()
    }
    encoder.backbone.load_state_dict(rounded)
    return encoder.freeze()


def patch_probabilities(
    module: PatchClassifier, patches: LabelledPatches, device: Device, report: Callable[[int], None]
) -> NDArray[np.float64]:
    """Class probabilities of patches, in full precision and as they lie.

    Parameters
    ----------
    module : PatchClassifier
        As `pretrain` left it.
    patches : LabelledPatches
    device : Device
    report : callable
        Called with the number of patches that are done.

    Returns
    -------
    (N, C) float64
    """
    module = module.to(device.torch_device).eval()
    size, found = module.config.batch_size, []
    with torch.inference_mode():
        for first in range(0, len(patches.labels), size):
            pixels = torch.from_numpy(patches.images[first : first + size]).permute(0, 3, 1, 2).float()
            logits = module(pixels.to(device.torch_device)).double()
            found.append(torch.softmax(logits, dim=1).cpu())
            report(first + len(pixels))
    module.cpu()
    return torch.cat(found).numpy()
