"""The low-resolution model and the classifier of patches, from a manifest to a bundle.

Two arms with one backbone and one way of learning: they differ in what they look at, the whole slide as one
small image or patches of it that each learn the class of their slide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.inference.result import Progress
from napari_her2.models.low_resolution import VIEWS, LowResolution
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2_training.cohort.manifest import SPLITS, STAINS
from napari_her2_training.low_resolution.slide_images import ImageStore, cut_thumbnails, cut_tiles
from napari_her2_training.low_resolution.start import MEASURED_IMAGES, measure_start, start_from
from napari_her2_training.low_resolution.training import ImageTask, predict_images
from napari_her2_training.running.arm import TrainedFold, open_arm, run_arm
from napari_her2_training.running.cards import ModelFacts, round_weights
from napari_her2_training.running.fitting import fit_steps
from napari_her2_training.running.steps import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.low_resolution.config import (
        ConvNeXtConfig,
        LearningConfig,
        LowResolutionConfig,
        PatchArmConfig,
    )
    from napari_her2_training.low_resolution.slide_images import SlideImages
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.running.arm import ArmRun

STEP = "network"
_AT_ONCE = 16


def train_low_resolution(
    config: LowResolutionConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train the low-resolution model; see `napari_her2_training.run`.

    Returns
    -------
    Path
        The bundle of the best fold.
    """
    run = open_arm(config, data, out, resume=resume, needed=(config.data.column,))
    image = config.image
    store = ImageStore(out / "thumbnails", config.data.column, cut_thumbnails(image, config.data))

    def make(classes: int, drop_path: float) -> LowResolution:
        return LowResolution(
            variant=config.network.variant,
            classes=classes,
            size_px=image.size_px,
            mode=image.mode,
            whiten=image.whiten,
            drop_path=drop_path,
        )

    def facts(train: SlideImages) -> ModelFacts:
        fixed = image.mode == "fixed"
        return ModelFacts(
            method="low-resolution",
            architecture="LowResolution",
            arguments={
                "variant": config.network.variant,
                "classes": len(run.classes),
                "size_px": image.size_px,
                "mode": image.mode,
                "whiten": image.whiten,
            },
            encoder=None,
            stain=config.data.stain_name,
            tile_px=image.size_px,
            # Of slides that fill the image each has its own: that in the middle is told.
            mpp=image.mpp if fixed else round(float(np.median(train.mpp)), 4),
            mpp_range=None if fixed else (round(float(train.mpp.min()), 4), round(float(train.mpp.max()), 4)),
        )

    work = _Work(run, store, make, facts, config.network, config.learning, "", "the low-resolution model")
    return (yield from run_arm(run, work.train_fold))


def train_patches(
    config: PatchArmConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train the classifier of patches; see `napari_her2_training.run`.

    Returns
    -------
    Path
        The bundle of the best fold.
    """
    run = open_arm(config, data, out, resume=resume, needed=(config.data.column,))
    patches = config.patches
    store = ImageStore(
        out / "patches", config.data.column, cut_tiles(patches, config.data, config.compute.seed)
    )
    learning = replace(
        config.learning,
        epochs=patches.epochs or config.learning.epochs,
        batch_size=patches.batch_size or config.learning.batch_size,
    )

    def make(classes: int, drop_path: float) -> PatchConvNeXt:
        return PatchConvNeXt(
            variant=config.network.variant,
            classes=classes,
            tile_px=patches.tile_px,
            fusion=patches.fusion,
            drop_path=drop_path,
        )

    def facts(_: SlideImages) -> ModelFacts:
        return ModelFacts(
            method="patches",
            architecture="PatchConvNeXt",
            arguments={
                "variant": config.network.variant,
                "classes": len(run.classes),
                "tile_px": patches.tile_px,
                "fusion": patches.fusion,
            },
            encoder=None,
            stain=config.data.stain_name,
            tile_px=patches.tile_px,
            mpp=patches.mpp,
            min_tissue=patches.min_tissue,
        )

    work = _Work(run, store, make, facts, config.network, learning, patches.fusion, "the patch classifier")
    return (yield from run_arm(run, work.train_fold))


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """An arm on images.

    ``reading`` is how the bundle joins the images of a slide where it has a choice, else empty: then it is
    the mean.
    """

    run: ArmRun[LowResolutionConfig] | ArmRun[PatchArmConfig]
    store: ImageStore
    make: Callable[[int, float], LowResolution | PatchConvNeXt]
    facts: Callable[[SlideImages], ModelFacts]
    network: ConvNeXtConfig
    learning: LearningConfig
    reading: str
    what: str

    def train_fold(self, number: int, split: Split) -> Generator[Progress, None, TrainedFold]:
        run, config = self.run, self.run.config
        model = self._new_model()  # before slides are read: weights that cannot be had are told at once
        parts = [part for part in SPLITS if getattr(split, part)]
        stain = STAINS[config.data.column]
        for part in parts:
            yield from self.store.prepare(getattr(split, part), f"Reading the {part} {stain} slides")
        images = {part: self.store.of(getattr(split, part), config.data.mapping) for part in parts}
        if self.network.weights == "random":
            measure_start(model, self._spread(images["train"]))
        task = ImageTask(
            model, images["train"], images["validation"], self.learning, seed=config.compute.seed
        )
        yield from fit_steps(
            task,
            run.folder.step(number, STEP),
            run.device,
            stage=f"Training {self.what}",
            resume=run.folder.resume,
        )
        round_weights(model)
        said: dict[str, dict[str, Predictions]] = {}
        for part, own in images.items():
            for reading, given in (yield from self._judge(model, own, part)).items():
                said.setdefault(reading, {})[part] = given
        return TrainedFold(
            model, None, self.facts(images["train"]), said, self.reading, uncalibrated=("vote",)
        )

    def _new_model(self) -> LowResolution | PatchConvNeXt:
        """Return a model with weights that the seed decides, or those that the configuration names."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run.config.compute.seed)
            model = self.make(len(self.run.classes), self.network.drop_path)
        if self.network.weights != "random":
            start_from(model.network, self.network)
        return model

    def _spread(self, images: SlideImages) -> Iterator[Tensor]:
        """Training images, spread over all of them, as a model takes them."""
        count = len(images)
        chosen = np.unique(np.linspace(0, count - 1, min(count, MEASURED_IMAGES)).astype(np.int64))
        for first in range(0, len(chosen), _AT_ONCE):
            yield images.batch(chosen[first : first + _AT_ONCE]).float() / 255

    def _judge(
        self, model: LowResolution | PatchConvNeXt, images: SlideImages, part: str
    ) -> Generator[Progress, None, dict[str, Predictions]]:
        """Let the arm judge slides, by reading."""
        # As scoring does: a patch is looked at as it lies.
        views = 1 if self.reading else VIEWS
        joined = yield from in_thread(
            lambda report: predict_images(
                model,
                images,
                self.run.device,
                lambda done: report(Progress(f"Judging the {part} slides", done, len(images), "images")),
                views=views,
                at_once=self.learning.batch_size,
            )
        )
        return joined if self.reading else {"": joined["mean"]}
