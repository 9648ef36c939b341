"""A slide model on frozen features, from a manifest to a bundle.

Slides are embedded once, into the cache that scoring uses too, or come as files of features; then the encoder
is not known here, and what is saved is the head alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2.models.architectures import ARCHITECTURES
from napari_her2_training.cohort.bags import precision_of, predict_bags
from napari_her2_training.cohort.embedding import embed_cases, read_cases
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import SPLITS, STAINS
from napari_her2_training.encoder.make import frozen_encoder
from napari_her2_training.mil.training import MILTask, new_aggregator
from napari_her2_training.running.arm import TrainedFold, open_arm, run_arm
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.fitting import fit_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.inference.result import Progress
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.cohort.bags import SlideBag
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.mil.config import MILConfig
    from napari_her2_training.running.arm import ArmRun

STEP = "head"
_UNKNOWN_ENCODER = (
    "The features come from files, and which encoder made them is not known here: the weights of the head "
    "are saved, but no model that scores slides."
)


@dataclass(slots=True, eq=False)
class Embedded:
    """The slides of a cohort as bags, embedded when they are first asked for.

    Several arms with the same tiles and the same encoder may share one.

    Attributes
    ----------
    bags : dict of int to SlideBag
        By the row of the manifest.
    encoder : PatchEncoder or None
        None before anything was embedded, and where features came from files.
    """

    bags: dict[int, SlideBag] = field(default_factory=dict)
    encoder: PatchEncoder | None = None

    def prepare(
        self, cases: Sequence[Case], config: MILConfig, device: Device
    ) -> Generator[Progress, None, None]:
        """Embed, or read, the slides that are not there yet.

        Parameters
        ----------
        cases : sequence of Case
        config : MILConfig
        device : Device

        Yields
        ------
        Progress
        """
        missing = [case for case in cases if case.row not in self.bags]
        if not missing:
            return
        stain = config.data.column
        data = config.embedding
        if from_files(cases, stain):
            stage = f"Reading the features of the {STAINS[stain]} slides"
            found = yield from read_cases(missing, data, stage=stage, stain=stain)
        else:
            if self.encoder is None:
                self.encoder = frozen_encoder(config.encoder, data.tile_px, config.compute.seed)
            stage = f"Embedding the {STAINS[stain]} slides"
            found = yield from embed_cases(missing, self.encoder, data, device, stage=stage, stain=stain)
        self.bags |= {case.row: bag for case, bag in zip(missing, found, strict=True)}

    def of(self, cases: Sequence[Case]) -> list[SlideBag]:
        """Return the bags of cases that were prepared."""
        return [self.bags[case.row] for case in cases]


def train_mil(
    config: MILConfig, data: Path, out: Path, *, resume: bool, embedded: Embedded | None = None
) -> Generator[Progress, None, Path]:
    """Train a slide model; see `napari_her2_training.run`.

    Parameters
    ----------
    config : MILConfig
    data : Path
        The manifest; the column of the stain names slides, or files of features.
    out : Path
    resume : bool
    embedded : Embedded, optional
        Slides that another arm embedded.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The bundle of the best fold; of features from files, the weights of its head.
    """
    run = open_arm(config, data, out, resume=resume, needed=(config.data.column,))
    slides = Embedded() if embedded is None else embedded
    return (yield from run_arm(run, lambda number, split: _train_fold(number, split, run, slides)))


def _train_fold(
    number: int, split: Split, run: ArmRun[MILConfig], slides: Embedded
) -> Generator[Progress, None, TrainedFold]:
    config, seed = run.config, run.config.compute.seed
    yield from slides.prepare(run.cases, config, run.device.reader)
    bags = {part: slides.of(cases) for part in SPLITS if (cases := getattr(split, part))}
    width = int(bags["train"][0].features.shape[1])
    head, architecture, arguments = new_aggregator(
        config.head, features=width, classes=len(run.classes), seed=seed
    )
    task = MILTask(head, bags["train"], bags["validation"], config.head, config.loss, seed=seed)
    yield from fit_steps(
        task,
        run.folder.step(number, STEP),
        run.device,
        stage=f"Training {config.head.architecture}",
        resume=run.folder.resume,
    )
    facts = ModelFacts(
        method=ARCHITECTURES[architecture].method,
        architecture=architecture,
        arguments=arguments,
        encoder=None if slides.encoder is None else slides.encoder.spec,
        stain=config.data.stain_name,
        tile_px=config.tiles.tile_px,
        mpp=config.tiles.mpp,
        min_tissue=config.tiles.min_tissue,
        precision=precision_of(slides.bags.values()),
    )
    said = {"": {part: predict_bags(head, own) for part, own in bags.items()}}
    why = "" if slides.encoder is not None else _UNKNOWN_ENCODER
    return TrainedFold(head, slides.encoder, facts, said, no_bundle=why)
