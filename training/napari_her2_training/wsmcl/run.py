"""The whole way from a manifest to a WSMCL bundle, and to a table of ablations."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.card import PAIR
from napari_her2.models.case_slides import JOINED_BAGS
from napari_her2.steps import Progress
from napari_her2_training.cohort.bags import precision_of
from napari_her2_training.cohort.features import from_files
from napari_her2_training.cohort.manifest import SPLITS, STAINS, label_of
from napari_her2_training.config_sections import NO_DOUBT
from napari_her2_training.encoder.embedded import EmbeddedSlides
from napari_her2_training.findings import noted
from napari_her2_training.measures.arms import read_measured
from napari_her2_training.running.arm import on_cases, run_arm
from napari_her2_training.running.cards import ModelFacts
from napari_her2_training.running.ranks import first_alone
from napari_her2_training.running.trained import TrainedFold
from napari_her2_training.wsmcl.ablations import write_variants
from napari_her2_training.wsmcl.pairs import PairDraw, PairedSlides, check_pairs, judged_pairs
from napari_her2_training.wsmcl.training import (
    WSMCLTask,
    new_model,
    predict_pairs,
    predict_slides,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.models.wsmcl import WSMCL
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.cohort.table import Table
    from napari_her2_training.findings import Findings
    from napari_her2_training.measures.predictions import Predictions
    from napari_her2_training.running.arm import ArmRun, Judging
    from napari_her2_training.wsmcl.config import WSMCLConfig

FUSION = "fusion"
HEADS: Mapping[str, str] = {FUSION: "H&E and IHC", "H&E": "H&E alone", "IHC": "IHC alone"}
"""The heads, and what each one looks at."""
VARIANTS = "ablations"
BASE = "base"

SAME_CLASS = "slides of one class paired"


def wsmcl_steps(run: ArmRun[WSMCLConfig]) -> Generator[Progress, None, Path]:
    """Train WSMCL, and its variants after it, in ``OUT/ablations``; those that are finished are left alone.

    Returns
    -------
    Path
        The bundle of the best fold; where slides cannot be scored with it, the weights of its head.
    """
    config, out, findings = run.config, run.folder.path, run.findings
    joined = config.cases.slides == JOINED_BAGS
    slides = EmbeddedSlides(config.encoder, config.data, config.compute.seed, joined=joined)
    yield from slides.prepare(run.prepared, tuple(STAINS), run.device.reader, findings)
    if findings is not None:
        _warn_of_small(slides, 2 * config.head.k, findings)
    path = yield from run_arm(run, partial(_train_fold, run, slides, "Training WSMCL"))
    folders = {BASE: out}
    for variant in config.variants:
        folder = folders[variant.name] = out / VARIANTS / variant.name
        # Variants are compared, and not for use: what they would keep of their cases takes its time.
        own = run.beside(replace(variant.config, doubt=NO_DOUBT), folder)
        yield from run_arm(own, partial(_train_fold, own, slides, f"Training WSMCL ({variant.name})"))
    with first_alone() as first:
        if config.variants and first and findings is None:
            measured = {name: read_measured(folder) for name, folder in folders.items()}
            write_variants(out / f"{VARIANTS}.csv", measured)
    return path


def _check(table: Table, config: WSMCLConfig, _: Path, findings: Findings | None) -> None:
    """Find what would stop the training later."""
    mapping = config.data.mapping
    for split in table.splits:
        for part in SPLITS:
            for mode in config.modes:
                with noted(findings):
                    check_pairs(getattr(split, part), part, mode, mapping)
        with noted(findings):
            if len({label_of(case, mapping) for case in split.validation}) < 2:
                raise JobFailed(
                    "The validation cases are all of one class, which cannot tell the best epoch: add cases, "
                    "or change the split."
                )
    for stain in STAINS:
        with noted(findings):
            from_files(table.used, stain)


def _warn_of_small(slides: EmbeddedSlides, wanted: int, findings: Findings) -> None:
    small = {key: count for key, count in slides.tiles.items() if count < wanted}
    if small:
        _, row = min(small, key=small.__getitem__)
        findings.warn(
            f"{len(small)} slides have fewer than {wanted} tiles, twice [head] k: fewer of theirs are "
            f"contrasted. The smallest is in row {row}."
        )


def _train_fold(
    run: ArmRun[WSMCLConfig], slides: EmbeddedSlides, stage: str, number: int, split: Split
) -> Generator[Progress, None, Callable[[], Judging]]:
    config, seed = run.config, run.config.compute.seed
    paired = {part: _paired(slides, cases) for part in SPLITS if (cases := getattr(split, part))}
    model = new_model(
        config.head,
        he_features=slides.width("he"),
        ihc_features=slides.width("ihc"),
        classes=len(run.classes),
        seed=seed,
    )
    draw = PairDraw(paired["train"], config.pairs, classes=len(run.classes), seed=seed)
    pairs = judged_pairs(paired["validation"], config.pairs.mode, seed)
    task = WSMCLTask(
        model, draw, pairs, config.head, config.loss, accumulate=config.pairs.accumulate, seed=seed
    )
    yield from run.learn(
        task,
        run.step(number, "head"),
        stage,
        alike=(config.head, config.pairs.max_tiles),
    )

    def judge() -> Judging:
        yield Progress("Judging the slides")
        predictions: dict[str, dict[str, Predictions]] = {}
        for part, own in paired.items():
            for head, given in _judge(model, own, config, run.device).items():
                predictions.setdefault(head, {})[part] = given
        same_class = config.pairs.mode == "same-class"
        return TrainedFold(
            model,
            slides.encoder,
            _facts(model, config, slides),
            predictions,
            reading=FUSION,
            heads=HEADS,
            no_bundle=slides.no_bundle,
            no_doubt=slides.no_doubt,
            unit="cases" if _one_row_a_case(split) else "pairs",
            note="; ".join(words for words in (SAME_CLASS if same_class else "", slides.note) if words),
        )

    return judge


def _one_row_a_case(split: Split) -> bool:
    rows = [case for part in SPLITS for case in getattr(split, part)]
    return len({case.case_id for case in rows}) == len(rows)


def _paired(slides: EmbeddedSlides, cases: Sequence[Case]) -> PairedSlides:
    together = slides.together(cases)
    he, ihc = ([slides.bag_of(rows, stain) for rows in together] for stain in STAINS)
    return PairedSlides(he, ihc)


def _facts(model: WSMCL, config: WSMCLConfig, slides: EmbeddedSlides) -> ModelFacts:
    known = slides.known
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
        # Left out where it is usual, so that the card stays the text it was.
        arguments=arguments
        if config.head.attention == "auto"
        else arguments | {"attention": config.head.attention},
        encoder=known.spec,
        stain=PAIR,
        tile_px=known.tile_px or config.data.tile_px,
        mpp=known.mpp or config.data.mpp,
        min_tissue=slides.min_tissue,
        precision=precision_of(slides.bags.values()),
    )


def _judge(model: WSMCL, slides: PairedSlides, config: WSMCLConfig, device: Device) -> dict[str, Predictions]:
    """Let each head judge: the pairs, and the slides alone."""
    found = {}
    pairs = judged_pairs(slides, config.pairs.mode, config.compute.seed)
    if pairs:
        found[FUSION] = predict_pairs(model, pairs, device)
    if bags := slides.of("he"):
        found["H&E"] = predict_slides(model, bags, "he", device)
    if bags := slides.of("ihc"):
        found["IHC"] = predict_slides(model, bags, "ihc", device)
    return found


train_wsmcl = on_cases(wsmcl_steps, _check)
