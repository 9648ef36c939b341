"""Dry runs of Corr-A-Net, of a predictor, and of the table of both."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed
from napari_her2.inference.result import Progress
from napari_her2.models.class_scores import SCORES
from napari_her2.slide.macenko import fit_slide
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.corr_a_net.arms import STAINS_OF, Arm, NetworkArm, network_arms, predictor_arms
from napari_her2_training.corr_a_net.bci_folder import BCIFolder, is_bci_folder
from napari_her2_training.corr_a_net.run import has_attention, load_network
from napari_her2_training.corr_a_net.slide_fields import find_fields, read_fields
from napari_her2_training.dry_run.bags import MEASURING
from napari_her2_training.dry_run.cases import check_regions, read_table
from napari_her2_training.dry_run.costs import network_cost, predictor_cost
from napari_her2_training.dry_run.slides import Counted, look_at_slides, warn_of_download
from napari_her2_training.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_her2.slide.reader import Slide
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.corr_a_net.config import CorrANetConfig
    from napari_her2_training.dry_run.costs import Cost
    from napari_her2_training.dry_run.findings import Findings
    from napari_her2_training.running.machines import Machines

_FIELDS_TIMED = 4
_UNMEASURED = "too large to be measured on a CPU"


class FieldCounter:
    """Counts the fields of a case, and reads some of the first one, with a stopwatch.

    Attributes
    ----------
    seconds : float or None
        For a field.
    per_slide : float
        For the fit of the stain of a slide.
    """

    def __init__(self, config: CorrANetConfig, folder: Path, part_of: Mapping[int, str]) -> None:
        self.config, self.folder, self.part_of = config, folder, part_of
        self.seconds: float | None = None
        self.per_slide = 0.0
        self._number = 0

    def __call__(self, slide: Slide, case: Case) -> Counted:
        """Count the fields of a case; the IHC of a test case stays closed."""
        data = self.config.data
        rng = np.random.default_rng([data.seed, self._number])
        self._number += 1
        corners = find_fields(case, self.part_of[case.row], data, self.folder, rng)
        if self.seconds is None and len(corners):
            began = time.perf_counter()
            fit_slide(slide, mpp=data.mpp)
            self.per_slide = time.perf_counter() - began
            some = corners[:_FIELDS_TIMED]
            began = time.perf_counter()
            read_fields(slide, some, tile_px=data.tile_px, mpp=data.mpp)
            self.seconds = (time.perf_counter() - began) / len(some)
        return Counted(len(corners))


def check_corr_a_net(
    config: CorrANetConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of Corr-A-Net; see `check_attention_mil`."""
    counts = yield from _look(config, data, findings)
    arm = NetworkArm(config.network.dim, config.network.attention)
    yield from _networks((arm,), config, counts, device, findings)


def check_predictor(
    config: CorrANetConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of a predictor; see `check_attention_mil`."""
    wanted = config.predictor
    arm = Arm(wanted.architecture, wanted.input)
    if wanted.input == "correlated":
        with findings.noted():
            if not wanted.network:
                raise JobFailed(
                    "[predictor] input is 'correlated': name the file that training Corr-A-Net wrote in "
                    "network."
                )
            network = load_network(Path(wanted.network).expanduser())
            arm = replace(arm, network=NetworkArm(network.dim, has_attention(network)))
    counts = yield from _look(config, data, findings)
    yield from _predictors((arm,), config, counts, device, findings)


def check_table(
    config: CorrANetConfig, data: Path, device: Machines | None, findings: Findings
) -> Generator[Progress, None, None]:
    """Check a training of the table of arms; see `check_attention_mil`."""
    counts = yield from _look(config, data, findings)
    arms = predictor_arms(config)
    findings.facts["Arms"] = f"{len(arms)}: {', '.join(sorted({arm.name for arm in arms}))}"
    if "correlated" in config.inputs:
        yield from _networks(network_arms(config), config, counts, device, findings)
    yield from _predictors(arms, config, counts, device, findings)
    findings.leave_out("Grad-CAM and the drop in accuracy of each arm")


def _look(
    config: CorrANetConfig, data: Path, findings: Findings
) -> Generator[Progress, None, dict[str, int]]:
    """Return the fields of each part; none where the data are at fault."""
    if is_bci_folder(data):
        counts = yield from _look_at_patches(config, data, findings)
    else:
        counts = yield from _look_at_cases(config, data, findings)
    if not counts:
        return {}
    findings.facts["Fields"] = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    side = config.data.field_px
    findings.disk_bytes += sum(counts.values()) * 2 * 3 * side**2
    empty = [part for part in ("train", "validation") if not counts[part]]
    findings.faults += [
        f"The {part} slides hold no field of {config.data.tile_px} px with enough tissue." for part in empty
    ]
    return {} if empty else counts


def _look_at_patches(
    config: CorrANetConfig, data: Path, findings: Findings
) -> Generator[Progress, None, dict[str, int]]:
    yield Progress("Looking at the patches")
    counts = dict.fromkeys(SPLITS, 0)
    folder = findings.attempt(lambda: BCIFolder(data, config.data))
    if folder is None:
        return {}
    with findings.noted():
        for part in SPLITS:
            labels = folder.listed(part).labels
            counts[part] = len(labels)
            told = ", ".join(f"{labels.count(number)} of {name}" for number, name in enumerate(SCORES))
            findings.facts[f"Patches ({part})"] = f"{len(labels):,} ({told})"
            patch = folder.parts[part][0]
            for path in (patch.he, patch.ihc):
                began = time.perf_counter()
                image = read_picture(path, folders=2)
                taken = time.perf_counter() - began
                side = config.data.tile_px
                if image.shape[:2] != (side, side):
                    size = f"{image.shape[1]} x {image.shape[0]} px"
                    raise JobFailed(f"{path.name} is {size}; [data] tile_px is {side}.")
                findings.spend("cutting fields", taken * len(labels))
        findings.warn(
            "Names of the patches say nothing of patients: those of one may lie on both sides of the split, "
            "and figures are kinder than those of unseen patients."
        )
    return counts


def _look_at_cases(
    config: CorrANetConfig, data: Path, findings: Findings
) -> Generator[Progress, None, dict[str, int]]:
    table = read_table(data, ("he", "ihc"), config.data, findings)
    if not table.splits:
        return {}
    check_regions(config.data.regions, "[data] regions", table.used, data.parent, findings)
    split = table.splits[0]
    ordered = [(case, part) for part in SPLITS for case in getattr(split, part)]
    part_of = {case.row: part for case, part in ordered}
    counter = FieldCounter(config, data.parent, part_of)
    cases = [case for case, _ in ordered]
    seen = yield from look_at_slides(cases, "he", counter, findings, check=False, may_be_empty=True)
    counts = dict.fromkeys(SPLITS, 0)
    for slide in seen:
        counts[part_of[slide.case.row]] += slide.counted.taken
    if counter.seconds is not None:
        fields = sum(counts.values()) * 2
        findings.spend("cutting fields", counter.seconds * fields + counter.per_slide * len(seen))
    return counts


def _networks(
    arms: Sequence[NetworkArm],
    config: CorrANetConfig,
    counts: Mapping[str, int],
    device: Machines | None,
    findings: Findings,
) -> Generator[Progress, None, None]:
    stem, own = config.encoder, config.network
    if stem.weights == "pretrained":
        warn_of_download(stem.name, stem.weights, findings)
    elif stem.weights != "random" and not Path(stem.weights).expanduser().is_file():
        findings.faults.append(f"There is no file {stem.weights}: [encoder] weights must name one.")
    if device is None or not counts:
        return
    side, every = config.data.field_px, sum(counts.values())
    train, validation = _each_epoch(counts, own.batch_size, own.train_batches, own.validation_batches)
    most = 0
    for arm in arms:
        yield Progress(MEASURING, note=arm.name)
        with findings.noted():
            cost = network_cost(stem, own, arm, field_px=side, device=device)
            whole = (side / (own.crop_px or side)) ** 2
            findings.spend(
                "learning",
                cost.total(train=own.epochs * train, validate=own.epochs * validation + every * whole),
                _UNMEASURED,
            )
            most = max(most, cost.memory_bytes)
            findings.disk_bytes += cost.disk_bytes + every * arm.dim * side**2 * 2
    findings.memory_bytes += most


def _predictors(
    arms: Sequence[Arm],
    config: CorrANetConfig,
    counts: Mapping[str, int],
    device: Machines | None,
    findings: Findings,
) -> Generator[Progress, None, None]:
    if device is None or not counts:
        return
    own, costs = config.predictor, dict[str, "Cost"]()
    train, validation = _each_epoch(counts, own.batch_size, own.train_batches, 0)
    for arm in arms:
        with findings.noted():
            if arm.architecture not in costs:
                yield Progress(MEASURING, note=arm.architecture)
                # What an arm looks at changes the first layer alone.
                channels = 3 * len(STAINS_OF[arm.input]) if arm.network is None else arm.network.dim
                costs[arm.architecture] = predictor_cost(
                    arm.architecture, channels, own, field_px=config.data.field_px, device=device
                )
            cost = costs[arm.architecture]
            findings.spend(
                "learning",
                cost.total(
                    train=own.epochs * train, validate=own.epochs * validation + counts.get("test", 0)
                ),
                f"{arm.architecture} is {_UNMEASURED}",
            )
            findings.disk_bytes += cost.disk_bytes
    findings.memory_bytes += max((cost.memory_bytes for cost in costs.values()), default=0)


def _each_epoch(
    counts: Mapping[str, int], batch: int, train_batches: int, validation_batches: int
) -> tuple[int, int]:
    """Fields an epoch to learn from and to check with; 0 batches take every field once."""
    train, validation = counts["train"], counts["validation"]
    return (
        train_batches * batch if train_batches else -(-train // batch) * batch,
        min(validation, validation_batches * batch) if validation_batches else validation,
    )
