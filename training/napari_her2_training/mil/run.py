"""A slide model on frozen features, from a manifest to a bundle.

Slides are embedded once, into the cache that scoring uses too, or come as files of features; then the encoder
is not known here, and what is saved is the head alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.case_slides import JOINED_BAGS
from napari_her2.steps import Progress
from napari_her2_training.cohort.bags import precision_of, predict_bags
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.encoder.embedded import EmbeddedSlides
from napari_her2_training.mil.training import MILTask, new_aggregator
from napari_her2_training.running.arm import on_cases, run_arm
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.trained import TrainedFold

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.mil.config import MILConfig
    from napari_her2_training.running.arm import ArmRun, Judging

STEP = "head"


def slides_of(config: MILConfig) -> EmbeddedSlides:
    """Return the slides that slide models of a configuration learn from."""
    joined = config.cases.slides == JOINED_BAGS
    return EmbeddedSlides(config.encoder, config.embedding, config.compute.seed, joined=joined)


def mil_steps(run: ArmRun[MILConfig], slides: EmbeddedSlides) -> Generator[Progress, None, Path]:
    """Train a slide model.

    Parameters
    ----------
    run : ArmRun
        The column of its stain names slides, or files of features.
    slides : EmbeddedSlides
        Those that another arm embedded are not embedded again.
    """
    yield from slides.prepare(run.prepared, (run.config.data.column,), run.device.reader, run.findings)
    return (yield from run_arm(run, lambda number, split: _train_fold(number, split, run, slides)))


def _train_fold(
    number: int, split: Split, run: ArmRun[MILConfig], slides: EmbeddedSlides
) -> Generator[Progress, None, Callable[[], Judging]]:
    config, seed, stain = run.config, run.config.compute.seed, run.config.data.column
    bags = {part: slides.of(cases, stain) for part in SPLITS if (cases := getattr(split, part))}
    head, architecture, arguments = new_aggregator(
        config.head, features=slides.width(stain), classes=len(run.classes), seed=seed
    )
    task = MILTask(head, bags["train"], bags["validation"], config.head, config.loss, seed=seed)
    stage = f"Training {config.head.architecture}"
    yield from run.learn(task, run.step(number, STEP), stage, alike=config.head)

    def judge() -> Judging:
        yield Progress("Judging the slides")
        known = slides.known
        facts = ModelFacts(
            method=ARCHITECTURES[architecture].method,
            architecture=architecture,
            arguments=arguments,
            encoder=known.spec,
            stain=config.data.stain_name,
            tile_px=known.tile_px or config.tiles.tile_px,
            mpp=known.mpp or config.tiles.mpp,
            min_tissue=slides.min_tissue,
            precision=precision_of(slides.bags.values()),
        )
        predictions = {"": {part: predict_bags(head, own, run.device) for part, own in bags.items()}}
        return TrainedFold(
            head,
            slides.encoder,
            facts,
            predictions,
            no_bundle=known.unknown,
            no_doubt=slides.no_doubt,
            note=known.remark,
        )

    return judge


train_mil = on_cases(lambda run: mil_steps(run, slides_of(run.config)))
"""To the bundle of the best fold; of features from files, to the weights of its head."""
