"""The whole way from a manifest to a WSMCL bundle, and to a table of ablations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.card import PAIR
from napari_her2_training.cohort.bags import precision_of
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import SPLITS, label_of
from napari_her2_training.measures.arms import read_measured
from napari_her2_training.running.arm import ArmRun, TrainedFold, open_arm, run_arm
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.fitting import fit_steps
from napari_her2_training.running.runs import open_run
from napari_her2_training.wsmcl.ablations import write_variants
from napari_her2_training.wsmcl.pairs import PairDraw, check_pairs, judged_pairs
from napari_her2_training.wsmcl.slides import read_cohort
from napari_her2_training.wsmcl.training import (
    WSMCLTask,
    new_model,
    predict_pairs,
    predict_slides,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.inference.result import Progress
    from napari_her2.models.wsmcl import WSMCL
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.wsmcl.config import WSMCLConfig
    from napari_her2_training.wsmcl.pairs import PairedSlides
    from napari_her2_training.wsmcl.slides import Cohort

FUSION = "fusion"
HEADS: Mapping[str, str] = {FUSION: "H&E and IHC", "H&E": "H&E alone", "IHC": "IHC alone"}
"""The heads, and what each one looks at."""
VARIANTS = "ablations"
BASE = "base"


def train_wsmcl(
    config: WSMCLConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train WSMCL from a manifest, and its variants after it.

    Parameters
    ----------
    config : WSMCLConfig
    data : Path
        The manifest.
    out : Path
        Folder of the run; that of a variant lies in ``out/ablations``.
    resume : bool
        Variants that are finished are not trained again.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The bundle of the best fold; where slides cannot be scored with it, the weights of its head.
    """
    modes = {config.pairs.mode, *(variant.config.pairs.mode for variant in config.variants)}
    run = open_arm(
        config,
        data,
        out,
        resume=resume,
        needed=("he", "ihc") if "same-case" in modes else (),
        check=lambda cases, splits: _check(cases, splits, modes, config.data.classes),
    )
    cohort = yield from read_cohort(run.cases, config, run.device.reader)
    path = yield from _train(run, cohort, "")
    if config.variants:
        folders = {BASE: out}
        for variant in config.variants:
            folder = folders[variant.name] = out / VARIANTS / variant.name
            own = open_run(folder, variant.config, data, resume=run.folder.resume)
            yield from _train(replace(run, config=variant.config, folder=own), cohort, variant.name)
        write_variants(
            out / f"{VARIANTS}.csv", {name: read_measured(folder) for name, folder in folders.items()}
        )
    return path


def _check(cases: Sequence[Case], splits: Sequence[Split], modes: set[str], mapping: str) -> None:
    """Find what would stop the training later."""
    for split in splits:
        for part in SPLITS:
            for mode in modes:
                check_pairs(getattr(split, part), part, mode, mapping)
        if len({label_of(case, mapping) for case in split.validation}) < 2:
            raise JobFailed(
                "The validation cases are all of one class, which cannot tell the best epoch: add cases, or "
                "change the split."
            )
    from_files(cases, "he")
    from_files(cases, "ihc")


def _train(run: ArmRun[WSMCLConfig], cohort: Cohort, variant: str) -> Generator[Progress, None, Path]:
    work = _Work(run, cohort, f"Training WSMCL ({variant})" if variant else "Training WSMCL")
    return (yield from run_arm(run, work.train_fold))


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A run, or a variant of it, on slides that are read."""

    run: ArmRun[WSMCLConfig]
    cohort: Cohort
    stage: str

    def train_fold(self, number: int, split: Split) -> Generator[Progress, None, TrainedFold]:
        run, config, seed = self.run, self.run.config, self.run.config.compute.seed
        slides = {part: self.cohort.of(cases) for part in SPLITS if (cases := getattr(split, part))}
        model = new_model(
            config.head,
            he_features=self.cohort.width("he"),
            ihc_features=self.cohort.width("ihc"),
            classes=len(run.classes),
            seed=seed,
        )
        draw = PairDraw(slides["train"], config.pairs, classes=len(run.classes), seed=seed)
        pairs = judged_pairs(slides["validation"], config.pairs.mode, seed)
        task = WSMCLTask(
            model, draw, pairs, config.head, config.loss, accumulate=config.pairs.accumulate, seed=seed
        )
        yield from fit_steps(
            task,
            run.folder.step(number, "head"),
            run.device,
            stage=self.stage,
            resume=run.folder.resume,
        )
        said: dict[str, dict[str, Predictions]] = {}
        for part, own in slides.items():
            for head, given in _judge(model, own, config).items():
                said.setdefault(head, {})[part] = given
        same_class = config.pairs.mode == "same-class"
        return TrainedFold(
            model,
            self.cohort.encoder,
            self._facts(model),
            said,
            reading=FUSION,
            heads=HEADS,
            no_bundle=_no_bundle(config, self.cohort),
            unit="cases",
            note="slides of one class paired" if same_class else "",
        )

    def _facts(self, model: WSMCL) -> ModelFacts:
        config, encoder = self.run.config, self.cohort.encoder
        arguments = {
            "he_features": model.he.features,
            "ihc_features": model.ihc.features,
            "width": config.head.width,
            "heads": config.head.heads,
            "landmarks": config.head.landmarks,
            "classes": model.classes,
            "k": config.head.k,
        }
        return ModelFacts(
            method="wsmcl",
            architecture="WSMCL",
            # Scoring knows one kind; no bundle is written of the others.
            arguments=arguments
            if config.head.attention == "auto"
            else arguments | {"attention": config.head.attention},
            encoder=None if encoder is None else encoder.spec,
            stain=PAIR,
            tile_px=config.data.tile_px,
            mpp=config.data.mpp,
            min_tissue=config.data.min_tissue,
            precision=precision_of(self.cohort.bags.values()),
        )


def _judge(model: WSMCL, slides: PairedSlides, config: WSMCLConfig) -> dict[str, Predictions]:
    """Let each head judge: the pairs, and the slides alone."""
    found = {}
    pairs = judged_pairs(slides, config.pairs.mode, config.compute.seed)
    if pairs:
        found[FUSION] = predict_pairs(model, pairs)
    if bags := slides.of("he"):
        found["H&E"] = predict_slides(model, bags, "he")
    if bags := slides.of("ihc"):
        found["IHC"] = predict_slides(model, bags, "ihc")
    return found


def _no_bundle(config: WSMCLConfig, cohort: Cohort) -> str:
    """Why slides cannot be scored with the model, empty where they can."""
    if cohort.encoder is None:
        return (
            "The features come from files, and which encoder made them is not known here: the weights of "
            "the head are saved, but no model that scores slides."
        )
    if config.head.attention != "auto":
        return (
            f"[head] attention is {config.head.attention!r}, and scoring knows 'auto' alone: the weights of "
            f"the head are saved, but no model that scores slides."
        )
    return ""
