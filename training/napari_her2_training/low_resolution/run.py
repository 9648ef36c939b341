"""The low-resolution model and the classifier of patches, from a manifest to a bundle.

Two arms with one backbone and one way of learning: they differ in what they look at, the whole slide as one
small image or patches of it that each learn the class of their slide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_her2.models.low_resolution import VIEWS, LowResolution
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2.steps import Progress
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.doubt.counting import scored_again
from napari_her2_training.encoder.counting import warn_of_download
from napari_her2_training.findings import noted
from napari_her2_training.low_resolution.slide_images import ImageStore, Thumbnails, Tiles
from napari_her2_training.low_resolution.start import IMAGENET, MEASURED_IMAGES, measure_start, start_from
from napari_her2_training.low_resolution.training import ImageTask, predict_images
from napari_her2_training.running.arm import on_cases, run_arm
from napari_her2_training.running.cards import ModelFacts, round_weights
from napari_her2_training.running.ranks import first_alone
from napari_her2_training.running.steps import in_thread
from napari_her2_training.running.trained import TrainedFold

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_her2.models.card import ArgumentValue
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.low_resolution.config import (
        LearningConfig,
        LowResolutionConfig,
        PatchArmConfig,
    )
    from napari_her2_training.low_resolution.slide_images import SlideImages
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.running.arm import ArmRun, Judging

STEP = "network"
_AT_ONCE = 16


def low_resolution_steps(run: ArmRun[LowResolutionConfig]) -> Generator[Progress, None, Path]:
    """Train the low-resolution model on the cases of a run."""
    config, image = run.config, run.config.image
    given: dict[str, ArgumentValue] = {
        "variant": config.network.variant,
        "classes": len(run.classes),
        "size_px": image.size_px,
        "mode": image.mode,
        "whiten": image.whiten,
    }

    def facts(train: SlideImages) -> ModelFacts:
        fixed = image.mode == "fixed"
        return ModelFacts(
            method="low-resolution",
            architecture="LowResolution",
            arguments=given,
            encoder=None,
            stain=config.data.stain_name,
            tile_px=image.size_px,
            # Of slides that fill the image each has its own: that in the middle is told.
            mpp=image.mpp if fixed else round(float(np.median(train.mpp)), 4),
            mpp_range=None if fixed else (round(float(train.mpp.min()), 4), round(float(train.mpp.max()), 4)),
        )

    work = _Work(
        run,
        ImageStore(run.folder.path / "thumbnails", config.data.column, Thumbnails(image, config.data)),
        lambda drop_path: LowResolution(**given, drop_path=drop_path),  # type: ignore[arg-type]
        facts,
        config.learning,
        "",
        "the low-resolution model",
    )
    return (yield from work.steps())


def patches_steps(run: ArmRun[PatchArmConfig]) -> Generator[Progress, None, Path]:
    """Train the classifier of patches on the cases of a run."""
    config, patches = run.config, run.config.patches
    given: dict[str, ArgumentValue] = {
        "variant": config.network.variant,
        "classes": len(run.classes),
        "tile_px": patches.tile_px,
        "fusion": patches.fusion,
    }

    def facts(_: SlideImages) -> ModelFacts:
        return ModelFacts(
            method="patches",
            architecture="PatchConvNeXt",
            arguments=given,
            encoder=None,
            stain=config.data.stain_name,
            tile_px=patches.tile_px,
            mpp=patches.mpp,
            min_tissue=patches.min_tissue,
        )

    work = _Work(
        run,
        ImageStore(
            run.folder.path / "patches",
            config.data.column,
            Tiles(patches, config.data, config.compute.seed),
        ),
        lambda drop_path: PatchConvNeXt(**given, drop_path=drop_path),  # type: ignore[arg-type]
        facts,
        replace(
            config.learning,
            epochs=patches.epochs or config.learning.epochs,
            batch_size=patches.batch_size or config.learning.batch_size,
        ),
        patches.fusion,
        "the patch classifier",
    )
    return (yield from work.steps())


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """An arm on images.

    ``reading`` is how the bundle joins the images of a slide where it has a choice, else empty: then it is
    the mean.
    """

    run: ArmRun[LowResolutionConfig] | ArmRun[PatchArmConfig]
    store: ImageStore
    make: Callable[[float], LowResolution | PatchConvNeXt]
    facts: Callable[[SlideImages], ModelFacts]
    learning: LearningConfig
    reading: str
    what: str

    def steps(self) -> Generator[Progress, None, Path]:
        run, data = self.run, self.run.config.data
        with noted(run.findings):
            self._new_model()  # before slides are read: weights that cannot be had are told at once
        if run.findings is not None:
            yield from self.store.count(run.prepared, run.findings, check=data.check_stains)
        else:
            with first_alone():
                yield from self.store.prepare(run.prepared, f"Reading the {data.stain_name} slides")
        return (yield from run_arm(run, self._train_fold))

    def _train_fold(self, number: int, split: Split) -> Generator[Progress, None, Callable[[], Judging]]:
        run, config, learning = self.run, self.run.config, self.learning
        parts = [part for part in SPLITS if getattr(split, part)]
        images = {part: self.store.of(getattr(split, part), config.data.mapping) for part in parts}
        model = self._new_model()
        if config.network.weights == "random" and run.findings is None:
            measure_start(model, self._spread(images["train"]))
        task = ImageTask(model, images["train"], images["validation"], learning, seed=config.compute.seed)
        every = sum(len(own) for own in images.values())
        slides = sum(len(own.labels) for own in images.values())
        # Scoring them again for what the model is to keep of them takes as long for each.
        times = 1 + scored_again(split, config) / slides
        yield from run.learn(
            task,
            run.step(number, STEP),
            f"Training {self.what}",
            judged=times * self._views * every / learning.batch_size,
            alike=(self.store.cut.side, learning, config.network),
        )

        def judge() -> Judging:
            round_weights(model)
            predictions: dict[str, dict[str, Predictions]] = {}
            for part, own in images.items():
                for reading, given in (yield from self._judge(model, own, part)).items():
                    predictions.setdefault(reading, {})[part] = given
            return TrainedFold(
                model, None, self.facts(images["train"]), predictions, self.reading, uncalibrated=("vote",)
            )

        return judge

    @property
    def _views(self) -> int:
        """Views of each image that are judged, as scoring does: a patch is looked at as it lies."""
        return 1 if self.reading else VIEWS

    def _new_model(self) -> LowResolution | PatchConvNeXt:
        """Return a model with weights that the seed decides, or those that the configuration names."""
        network, findings = self.run.config.network, self.run.findings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run.config.compute.seed)
            model = self.make(network.drop_path)
        name = f"timm:{IMAGENET[network.variant]}"
        if findings is None or not warn_of_download(name, network.weights, findings):
            start_from(model.network, network)
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
        joined = yield from in_thread(
            lambda report: predict_images(
                model,
                images,
                self.run.device,
                lambda done: report(Progress(f"Judging the {part} slides", done, len(images), "images")),
                views=self._views,
                at_once=self.learning.batch_size,
            )
        )
        return joined if self.reading else {"": joined["mean"]}


train_low_resolution = on_cases(low_resolution_steps)
train_patches = on_cases(patches_steps)
