"""The way of a model from a split to its bundle, its predictions and its measures: the same for all methods.

Each method writes its way once. Where it is given `Findings`, nothing is learnt or written: it is counted.

``OUT/predictions.csv`` holds the predictions of every slide, ``OUT/metrics.json`` the measures; it is written
last and means that the run is finished: resuming does not train it again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.case_slides import EACH, JOINED_ANSWERS, JOINED_BAGS
from napari_her2.steps import Progress, passed_on
from napari_her2_training.cohort.checks import add_case_slides, split_warnings
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.cohort.table import Table, read_table
from napari_her2_training.config import CasesRunConfig
from napari_her2_training.doubt.counting import count_doubt
from napari_her2_training.files import OWN_FILES
from napari_her2_training.measures.arms import METRICS_FILE, measure_predictions
from napari_her2_training.measures.calibration import fit_temperature
from napari_her2_training.measures.joining import fit_joined_temperature, joined_in_cases
from napari_her2_training.measures.predictions import Part, write_predictions
from napari_her2_training.running.learning import learn_steps
from napari_her2_training.running.machines import choose_machines
from napari_her2_training.running.ranks import first_alone
from napari_her2_training.running.record import write_record
from napari_her2_training.running.runs import RunFolder, open_run
from napari_her2_training.running.saving import (
    doubt_record,
    fitted_doubt,
    keep_doubt,
    measured_alone,
    save_model,
)
from napari_her2_training.running.trained import TrainedFold

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.doubt.fit import FittedDoubt
    from napari_her2_training.findings import Findings
    from napari_her2_training.measures.predictions import Predictions, PredictionsByPart
    from napari_her2_training.running.machines import Machines
    from napari_her2_training.running.task import Task

SLIDES_FILE = "slide_predictions.csv"
"""What was said of each slide, where ``predictions.csv`` has one answer a case that joins them."""
CHOSEN_BY = "macro AUC"
"""The fold that is best by this measure of its validation slides gives the bundle."""
Config = TypeVar("Config", bound=CasesRunConfig)
Other = TypeVar("Other", bound=CasesRunConfig)


@dataclass(frozen=True, slots=True, eq=False)
class ArmRun(Generic[Config]):
    """What all steps of a run share.

    Parameters
    ----------
    config : CasesRunConfig
    data : Path
        The manifest.
    table : Table
        Its cases, split.
    folder : RunFolder
    device : Machines
        On which networks learn, and slides are embedded.
    findings : Findings or None
        Hears of what the run would find and take; then nothing is learnt, and nothing written.
    """

    config: Config
    data: Path
    table: Table
    folder: RunFolder
    device: Machines
    findings: Findings | None = None

    @property
    def splits(self) -> tuple[Split, ...]:
        """One a fold."""
        return self.table.splits

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.config.data.mapping.names

    @property
    def prepared(self) -> tuple[Case, ...]:
        """Cases whose slides are read before anything learns; those of calibration are only counted then."""
        return self.table.judged if self.findings is None else self.table.used

    def step(self, number: int, name: str) -> Path:
        """Return the folder for the checkpoints of a step of a fold."""
        return self.folder.path / f"fold{number}" / name

    def beside(self, config: Other, folder: Path) -> ArmRun[Other]:
        """Begin or resume another run on the same cases: an arm that is compared with others."""
        if self.findings is not None:
            return ArmRun(config, self.data, self.table, RunFolder(folder, False), self.device, self.findings)
        own = open_run(folder, config, self.data, resume=self.folder.resume)
        return ArmRun(config, self.data, self.table, own, self.device)

    def learn(
        self,
        task: Task,
        folder: Path,
        stage: str,
        *,
        judged: float = 0.0,
        what: str = "learning",
        alike: Hashable = None,
    ) -> Generator[Progress, None, None]:
        """Train the network of a task in a folder of the run, or count it; see `learn_steps`."""
        task.patience = self.config.stopping.patience
        yield from learn_steps(
            task,
            folder,
            self.device,
            self.findings,
            stage=stage,
            resume=self.folder.resume,
            judged=judged,
            what=what,
            alike=alike,
        )


Judging = Generator[Progress, None, TrainedFold]
"""Lets a trained fold judge its slides."""
TrainFold = Callable[[int, "Split"], Generator[Progress, None, Callable[[], Judging]]]
"""Trains one fold, given its number and its split; what it gives is called where the fold is to judge."""


def on_cases(
    steps: Callable[[ArmRun[Any]], Generator[Progress, None, Path]],
    check: Callable[[Table, Any, Path, Findings | None], None] | None = None,
) -> Callable[..., Generator[Progress, None, Path]]:
    """Return what runs a method that learns from a table of cases; see `napari_her2_training.methods.Run`.

    The manifest is read and split, and a run is begun or resumed.

    Parameters
    ----------
    steps : callable
        Takes the run, and returns its model.
    check : callable, optional
        Refuses a table that the method cannot learn from, before anything is written. Takes the table, the
        configuration and the folder of the manifest.
    """

    def train(
        config: CasesRunConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
    ) -> Generator[Progress, None, Path]:
        table = read_table(data, config.needed, config.data, findings)
        if findings is not None:
            add_case_slides(table.cases, config.cases, findings)
        if check is not None:
            check(table, config, data.parent, findings)
        machines = choose_machines(config.compute, findings)
        folder = RunFolder(out, resume) if findings else open_run(out, config, data, resume=resume)
        return (yield from steps(ArmRun(config, data, table, folder, machines, findings)))

    return train


def run_arm(run: ArmRun[Any], train_fold: TrainFold) -> Generator[Progress, None, Path]:
    """Train all folds, measure them, and write what comes out.

    Returns
    -------
    Path
        The bundle of the best fold; where slides cannot be scored with it, the weights of its head.
    """
    if run.findings is not None:
        for number, split in enumerate(run.splits):
            yield from train_fold(number, split)
        count_doubt(run.splits, run.config, run.findings)
        return run.folder.path
    out, finished = run.folder.path, run.folder.path / METRICS_FILE
    if finished.exists():
        yield Progress("Training", note="finished before")
        path: Path = out / str(OWN_FILES.json_object(finished, "model")["model"])
        return path
    for warning in split_warnings(run.table.cases, run.splits, run.config.data.mapping):
        yield Progress("Splitting the cases", note=warning)
    folds: list[TrainedFold] = []
    for number, split in enumerate(run.splits):
        judge = yield from passed_on(train_fold(number, split), _of_fold(number, len(run.splits)))
        with first_alone() as first:
            if first:
                folds.append(calibrated((yield from judge()), run.config))
    with first_alone() as first:
        return (yield from _ending(run, folds)) if first else out


def _ending(run: ArmRun[Any], folds: Sequence[TrainedFold]) -> Generator[Progress, None, Path]:
    """Measure what trained folds said, and write it with the model of the best one."""
    out = run.folder.path
    if folds[0].no_bundle:
        yield Progress("Saving the weights alone", note=folds[0].no_bundle)
    predictions: PredictionsByPart = {
        Part(number, part, reading): given
        for number, fold in enumerate(folds)
        for reading, parts in fold.predictions.items()
        for part, given in parts.items()
    }
    of_slides: PredictionsByPart = {
        Part(number, part, reading): given
        for number, fold in enumerate(folds)
        for reading, parts in fold.of_slides.items()
        for part, given in parts.items()
    }
    if of_slides:
        write_predictions(out / SLIDES_FILE, of_slides, run.classes)
    yield Progress("Measuring", note="intervals from resampled cases")
    found = measure_predictions(predictions, run.classes, run.config.measure)
    # By validation alone: what the test cases say must not choose what is tested.
    best = max(range(len(folds)), key=lambda number: _rank(folds[number], run.config))
    chosen, name = folds[best], run.config.model.name
    path = out / f"{name}{f'.{chosen.weights}' if chosen.no_bundle else ''}{SUFFIX}"
    kept: dict[int, FittedDoubt] = {}
    remarks: dict[int, list[str]] = {}
    for number, (fold, split) in enumerate(zip(folds, run.splits, strict=True)):
        own = out / path.name.replace(name, f"{name}-fold{number}", 1) if len(folds) > 1 else path
        save_model(own, fold, split, run.config)
        left_out = remarks[number] = []
        fitting = fitted_doubt(own, fold, split, run.config, run.device.reader, left_out)
        kept[number] = yield from passed_on(fitting, _of_fold(number, len(folds), every=True))
        keep_doubt(own, kept[number])
    if len(folds) > 1:
        save_model(path, chosen, run.splits[best], run.config)
        keep_doubt(path, kept[best])
    write_record(
        out,
        path,
        predictions,
        run.config,
        measured=found,
        record={
            "method": chosen.facts.method,
            "stain": chosen.facts.stain,
            "data": str(run.data.resolve()),
            "fold": best,
            "bundle": chosen.no_bundle or "written",
            "reading": chosen.reading,
            "heads": dict(chosen.heads),
            "unit": chosen.unit,
            "device": run.device.name,
            "parameters": sum(p.numel() for p in chosen.model.parameters()),
            "doubt": [doubt_record(kept[number], remarks[number]) for number in range(len(folds))],
            "cases": [fold.counts or _counts(split) for fold, split in zip(folds, run.splits, strict=True)],
            **chosen.record,
        },
    )
    return path


def _of_fold(number: int, count: int, *, every: bool = False) -> Callable[[Progress], Progress]:
    """Give reports the number of their fold, where there are several: those of what learns, or every one."""

    def numbered(step: Progress) -> Progress:
        mine = count > 1 and bool(step.epochs or every)
        return replace(step, fold=number + 1, folds=count) if mine else step

    return numbered


def calibrated(fold: TrainedFold, config: CasesRunConfig) -> TrainedFold:
    """Give every reading the temperature that its validation slides ask for, and join slides in cases.

    Returns
    -------
    TrainedFold
        As it was, unless the configuration wants one or the other.
    """
    joins = config.cases.slides == JOINED_ANSWERS
    predictions: dict[str, Mapping[str, Predictions]] = {}
    for reading, parts in fold.predictions.items():
        given = parts.get("validation")
        predictions[reading] = parts
        if given is None or reading in fold.uncalibrated or not config.measure.calibrate:
            continue
        if joins and reading not in fold.of_parts:
            temperature = fit_joined_temperature(given, config.cases.rule)
        else:
            temperature = fit_temperature(given.labels, given.probabilities)
        predictions[reading] = {part: replace(own, temperature=temperature) for part, own in parts.items()}
    return by_case(replace(fold, predictions=predictions), config)


def by_case(fold: TrainedFold, config: CasesRunConfig) -> TrainedFold:
    """Let a calibrated fold answer of cases, where several slides of one are together.

    Returns
    -------
    TrainedFold
        The same where each slide is a case of its own.
    """
    if config.cases.slides == EACH or fold.unit not in ("slides", "pairs", "cases"):
        return fold
    if config.cases.slides == JOINED_BAGS:  # it judged cases
        return replace(fold, unit="cases")
    found: dict[str, Mapping[str, Predictions]] = {
        reading: parts
        if reading in fold.of_parts
        else {part: joined_in_cases(own, config.cases.rule) for part, own in parts.items()}
        for reading, parts in fold.predictions.items()
    }
    return replace(fold, predictions=found, of_slides=fold.predictions, unit="cases")


def _counts(split: Split) -> dict[str, int]:
    return {part: len({case.case_id for case in getattr(split, part)}) for part in SPLITS}


def _rank(fold: TrainedFold, config: CasesRunConfig) -> float:
    found = measured_alone(fold, fold.reading, config)["validation"].measures.get(CHOSEN_BY)
    return found.value if found else 0.0
