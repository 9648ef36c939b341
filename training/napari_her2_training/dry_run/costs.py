"""What learning takes: one step of the very task that the run trains, on made-up data, with a stopwatch.

On a CPU a step is measured on a part of a batch, or on smaller images, and scaled: what convolutions and
attention over landmarks take grows with both. Everything here is in memory; no step of the run is made.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.encode import is_out_of_memory
from napari_her2.models.low_resolution import LowResolution
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2_training.attention_mil.training import AttentionMILTask, new_head
from napari_her2_training.cohort.bags import SlideBag
from napari_her2_training.corr_a_net.predictor import LabelledFields, PredictorTask, new_predictor
from napari_her2_training.corr_a_net.training import CorrANetTask, new_network
from napari_her2_training.encoder.patches import Patches
from napari_her2_training.encoder.pretraining import PatchTask
from napari_her2_training.low_resolution.training import ImageTask
from napari_her2_training.mil.training import MILTask, new_aggregator
from napari_her2_training.wsmcl.pairs import PairDraw, PairedSlides
from napari_her2_training.wsmcl.training import WSMCLTask, new_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.attention_mil.config import BagsConfig, HeadConfig
    from napari_her2_training.corr_a_net.arms import NetworkArm
    from napari_her2_training.corr_a_net.config import NetworkConfig, PredictorConfig, StemConfig
    from napari_her2_training.encoder.config import PretrainingConfig
    from napari_her2_training.low_resolution.config import LearningConfig
    from napari_her2_training.low_resolution.slide_images import SlideImages
    from napari_her2_training.mil.config import AggregatorConfig, MILLossConfig
    from napari_her2_training.running.task import Task
    from napari_her2_training.wsmcl.config import WSMCLConfig

_LONG_ENOUGH = 0.3
_MOST_TIMES = 7
_CPU_BATCH = 8
_CPU_SIDE = 128
_CPU_TILES = 4096
_CPU_PARAMETERS = 100_000_000
"""Larger networks are not measured on a CPU: one step alone would take a minute."""
_WEIGHTS = 4
"""Copies of the weights while learning: themselves, their gradient, and two moments of Adam."""
_CHECKPOINTS = 2
_IN_CHECKPOINT = 3
"""best.ckpt and last.ckpt, each with the weights and two moments."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a unit of learning takes.

    Parameters
    ----------
    train, validate : float or None
        Seconds a unit (a batch, a slide or an image); None where it was not measured.
    parameters : int
        That learn.
    """

    train: float | None
    validate: float | None
    parameters: int

    @property
    def memory_bytes(self) -> int:
        """Of weights, gradients and moments."""
        return self.parameters * 4 * _WEIGHTS

    @property
    def disk_bytes(self) -> int:
        """Of the checkpoints of one fit, and of the weights that are saved at the end."""
        return self.parameters * 4 * (_CHECKPOINTS * _IN_CHECKPOINT + 1)

    def total(self, *, train: float, validate: float) -> float | None:
        """Seconds for so many units; None where they were not measured."""
        if self.train is None or self.validate is None:
            return None
        return self.train * train + self.validate * validate

    def scaled(self, factor: float) -> Cost:
        """Return the cost of a unit that takes so many times as long."""
        if self.train is None or self.validate is None:
            return self
        return Cost(self.train * factor, self.validate * factor, self.parameters)


def measure(task: Task, device: Device) -> Cost:
    """Run a step of training and one of validation, after another one that is not counted.

    Parameters
    ----------
    task : Task
        Thrown away afterwards.
    device : Device

    Returns
    -------
    Cost

    Raises
    ------
    JobFailed
        If the memory of the device is too short for a batch.
    """
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    where = device.torch_device
    if where.type == "cpu" and parameters > _CPU_PARAMETERS:
        return Cost(None, None, parameters)
    try:
        # The layout that convolutions learn in; others have no weights that it touches.
        task.to(memory_format=torch.channels_last)
        return _timed(task.to(where), device, parameters)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise JobFailed(
            f"The memory of {device.name} is too short for one batch: lower batch_size in the configuration, "
            f"or choose another device."
        ) from error


def _timed(task: Task, device: Device, parameters: int) -> Cost:
    given: Any = task.optimiser()
    optimiser = given["optimizer"] if isinstance(given, dict) else given
    where, low = device.torch_device, device.autocast_dtype

    def train() -> None:
        batch = (part.to(where) for part in task.draw(0, 0))
        with torch.autocast(where.type, dtype=low, enabled=low is not None):
            loss: Any = task.loss(*batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def validate() -> None:
        batch = (part.to(where) for part in task.draw_validation(0))
        with torch.no_grad(), torch.autocast(where.type, dtype=low, enabled=low is not None):
            task.judge(*batch)

    task.train()
    train()
    taken = _clock(train, device)
    task.eval()
    return Cost(taken, _clock(validate, device), parameters)


def _clock(work: Callable[[], None], device: Device) -> float:
    """Seconds that work takes: in the middle of some times where it is short."""
    taken: list[float] = []
    while sum(taken) < _LONG_ENOUGH and len(taken) < _MOST_TIMES:
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _wait(device: Device) -> None:
    if device.torch_device.type == "cuda":
        torch.cuda.synchronize(device.torch_device)


def _fewer(batch: int, device: Device) -> int:
    """Return the size of the batch that is measured."""
    return min(batch, _CPU_BATCH) if device.torch_device.type == "cpu" else batch


def _made_up_bags(count: int, tiles: int, width: int, classes: int) -> list[SlideBag]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(max(1, tiles), width)).astype(np.float16)
    tumour = np.zeros(len(features), np.bool_)
    return [SlideBag(str(number), number % classes, features, tumour) for number in range(count)]


def attention_cost(head: HeadConfig, bags: BagsConfig, *, width: int, classes: int, device: Device) -> Cost:
    """Cost of a batch of bags."""
    made = _made_up_bags(classes, bags.size, width, classes)
    task = AttentionMILTask(new_head(width, head.hidden, classes, 0), made, made, head, bags, seed=0)
    return measure(task, device)


def pretraining_cost(
    encoder: PatchEncoder, config: PretrainingConfig, *, classes: int, device: Device
) -> Cost:
    """Cost of a patch."""
    count = _fewer(config.batch_size, device)
    side = encoder.spec.tile_px
    images = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)
    made = Patches(images, np.arange(count, dtype=np.int64) % classes)
    own = replace(config, batch_size=count)
    task = PatchTask(encoder, made, made, own, classes=classes, seed=0)
    return measure(task, device).scaled(1 / count)


def wsmcl_cost(
    config: WSMCLConfig, *, widths: tuple[int, int], tiles: int, classes: int, device: Device
) -> Cost:
    """Cost of a pair of slides with so many tiles each."""
    thinned = min(tiles, config.pairs.max_tiles or tiles)
    measured = min(thinned, _CPU_TILES) if device.torch_device.type == "cpu" else thinned
    slides = PairedSlides(
        _made_up_bags(classes, measured, widths[0], classes),
        _made_up_bags(classes, measured, widths[1], classes),
    )
    own = replace(config.pairs, mode="same-case")
    model = new_model(config.head, he_features=widths[0], ihc_features=widths[1], classes=classes, seed=0)
    draw = PairDraw(slides, own, classes=classes, seed=0)
    task = WSMCLTask(model, draw, slides.cases(), config.head, config.loss, seed=0)
    cost = measure(task, device).scaled(max(1, thinned) / max(1, measured))
    if cost.validate is None:
        return cost
    # Validation is not thinned.
    return replace(cost, validate=cost.validate * max(1, tiles) / max(1, thinned))


def aggregator_cost(
    head: AggregatorConfig, loss: MILLossConfig, *, width: int, tiles: int, classes: int, device: Device
) -> Cost:
    """Cost of a slide with so many tiles."""
    thinned = min(tiles, head.max_tiles or tiles)
    measured = min(thinned, _CPU_TILES) if device.torch_device.type == "cpu" else thinned
    made = _made_up_bags(classes, measured, width, classes)
    model, _, _ = new_aggregator(head, features=width, classes=classes, seed=0)
    task = MILTask(model, made, made, replace(head, max_tiles=0), loss, seed=0)
    cost = measure(task, device).scaled(max(1, thinned) / max(1, measured))
    if cost.validate is None:
        return cost
    return replace(cost, validate=cost.validate * max(1, tiles) / max(1, thinned))


class _MadeUpImages:
    """Images in memory that look to `ImageTask` like those of slides."""

    def __init__(self, count: int, side: int, classes: int) -> None:
        self.image_labels: NDArray[np.int64] = np.arange(count, dtype=np.int64) % classes
        self._images = torch.randint(0, 255, (count, 3, side, side), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.image_labels)

    def batch(self, numbers: Sequence[int] | NDArray[np.integer]) -> torch.Tensor:
        """(B, 3, S, S) uint8 of some of them."""
        return self._images[torch.as_tensor(np.asarray(list(numbers)))]


def image_cost(
    variant: str, learning: LearningConfig, *, side: int, patches: bool, classes: int, device: Device
) -> Cost:
    """Cost of an image of a slide, or of a patch, by a ConvNeXt."""
    on_cpu = device.torch_device.type == "cpu"
    measured = min(side, _CPU_SIDE) if on_cpu else side
    count = min(learning.batch_size, 2) if on_cpu else learning.batch_size
    made = cast("SlideImages", _MadeUpImages(count, measured, classes))
    model: LowResolution | PatchConvNeXt
    if patches:
        model = PatchConvNeXt(variant=variant, classes=classes, tile_px=measured)
    else:
        model = LowResolution(variant=variant, classes=classes, size_px=measured)
    task = ImageTask(model, made, made, replace(learning, batch_size=count), seed=0)
    return measure(task, device).scaled((side / measured) ** 2 / count)


def _made_up_fields(count: int, channels: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, channels, side, side), np.uint8)


def network_cost(
    stem: StemConfig, config: NetworkConfig, arm: NetworkArm, *, field_px: int, device: Device
) -> Cost:
    """Cost of a pair of fields by Corr-A-Net."""
    side = config.crop_px or field_px
    measured = min(side, _CPU_SIDE) if device.torch_device.type == "cpu" else side
    count = min(config.batch_size, 2) if device.torch_device.type == "cpu" else config.batch_size
    made = _made_up_fields(count, 3, measured), _made_up_fields(count, 3, measured)
    # Its own weights change nothing of the time, and are not downloaded for it.
    network = new_network(replace(stem, weights="random"), dim=arm.dim, attention=arm.attention, seed=0)
    own = replace(config, batch_size=count, crop_px=0)
    cost = measure(CorrANetTask(network, made, made, own, seed=0), device)
    return cost.scaled((side / measured) ** 2 / count)


def predictor_cost(
    architecture: str, channels: int, config: PredictorConfig, *, field_px: int, device: Device
) -> Cost:
    """Cost of a field by a predictor."""
    count = min(config.batch_size, 2) if device.torch_device.type == "cpu" else config.batch_size
    made = LabelledFields((_made_up_fields(count, channels, field_px),), np.arange(count, dtype=np.int64) % 4)
    predictor = new_predictor(architecture, channels=channels, size_px=field_px, seed=0)
    own = replace(config, batch_size=count)
    return measure(PredictorTask(predictor, made, made, own, seed=0), device).scaled(1 / count)
