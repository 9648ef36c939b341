"""The way of a model from a split to its bundle, its predictions and its measures: the same for all methods.

Each method writes its way once. Where it is given `Findings`, nothing is learnt or written: it is counted.

``OUT/predictions.csv`` holds the predictions of every slide, ``OUT/metrics.json`` the measures; it is written
last and means that the run is finished: resuming does not train it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_her2.inference.result import Progress
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.card import SLIDE
from napari_her2.models.weights_file import write_weights
from napari_her2.steps import passed_on
from napari_her2_training.cohort.checks import split_warnings
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.cohort.table import Table, read_table
from napari_her2_training.config import CasesRunConfig
from napari_her2_training.files import OWN_FILES
from napari_her2_training.measures.arms import METRICS_FILE, measure_predictions
from napari_her2_training.measures.calibration import fit_temperature, least_confidence, risk_coverage
from napari_her2_training.measures.predictions import Part
from napari_her2_training.running.cards import ModelFacts, Trust, make_card, save_checked, split_sizes
from napari_her2_training.running.learning import learn_steps
from napari_her2_training.running.machines import choose_machines
from napari_her2_training.running.ranks import first_alone
from napari_her2_training.running.record import write_record
from napari_her2_training.running.runs import RunFolder, open_run

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.findings import Findings
    from napari_her2_training.measures.arms import Measured
    from napari_her2_training.measures.predictions import Predictions, PredictionsByPart
    from napari_her2_training.running.machines import Machines
    from napari_her2_training.running.task import Task

TASKS: Mapping[str, str] = {
    "H&E": "H&E-based prediction of the HER2 IHC score",
    "IHC": "HER2 IHC score of the slide",
}
ON_CARD = ("macro AUC", "macro F1", "accuracy", "quadratic kappa")
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


@dataclass(frozen=True, slots=True, eq=False)
class TrainedFold:
    """What training leaves of a fold.

    Parameters
    ----------
    model : nn.Module
        Frozen, on the CPU.
    encoder : PatchEncoder or None
    facts : ModelFacts
    predictions : mapping of str to mapping of str to Predictions
        Reading, part.
    reading : str
        That of the bundle.
    heads : mapping of str to str
        Readings that are heads of one model, and what each looks at, in words. Others are ways to read the
        same model, of which a bundle has one.
    no_bundle : str
        Why slides cannot be scored with it, empty where they can.
    uncalibrated : tuple of str
        Readings whose probabilities are none that a temperature could mend.
    unit : str
        What was judged.
    note : str
        What else the card is to say of the training.
    weights : str
        What the file of the weights alone is called after, where there is no bundle.
    counts : mapping of str to int or None
        What each part holds, where it is not the slides of the split.
    sizes : str
        The same in words for the card.
    figures : mapping of str to float
        Further ones for the card.
    record : mapping
        What else a report tells.
    """

    model: nn.Module
    encoder: PatchEncoder | None
    facts: ModelFacts
    predictions: Mapping[str, Mapping[str, Predictions]]
    reading: str = ""
    heads: Mapping[str, str] = field(default_factory=dict)
    no_bundle: str = ""
    uncalibrated: tuple[str, ...] = ()
    unit: str = "slides"
    note: str = ""
    weights: str = "head"
    counts: Mapping[str, int] | None = None
    sizes: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, object] = field(default_factory=dict)


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
    yield Progress("Measuring", note="intervals from resampled cases")
    found = measure_predictions(predictions, run.classes, run.config.measure)
    # By validation alone: what the test cases say must not choose what is tested.
    best = max(range(len(folds)), key=lambda number: _rank(folds[number], run.config))
    chosen, name = folds[best], run.config.model.name
    path = out / f"{name}{f'.{chosen.weights}' if chosen.no_bundle else ''}{SUFFIX}"
    for number, fold in enumerate(folds if len(folds) > 1 else ()):
        save_model(
            out / path.name.replace(name, f"{name}-fold{number}", 1), fold, run.splits[number], run.config
        )
    save_model(path, chosen, run.splits[best], run.config)
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
            "cases": [fold.counts or _counts(split) for fold, split in zip(folds, run.splits, strict=True)],
            **chosen.record,
        },
    )
    return path


def _of_fold(number: int, count: int) -> Callable[[Progress], Progress]:
    """Give the reports of what learns the number of the fold that it learns in, where there are several."""

    def numbered(step: Progress) -> Progress:
        return replace(step, fold=number + 1, folds=count) if step.epochs and count > 1 else step

    return numbered


def calibrated(fold: TrainedFold, config: CasesRunConfig) -> TrainedFold:
    """Give every reading the temperature that its validation slides ask for.

    Returns
    -------
    TrainedFold
        The same, unless the configuration wants it.
    """
    if not config.measure.calibrate:
        return fold
    predictions: dict[str, Mapping[str, Predictions]] = {}
    for reading, parts in fold.predictions.items():
        given = parts.get("validation")
        if given is None or reading in fold.uncalibrated:
            predictions[reading] = parts
            continue
        temperature = fit_temperature(given.labels, given.probabilities)
        predictions[reading] = {part: replace(own, temperature=temperature) for part, own in parts.items()}
    return replace(fold, predictions=predictions)


def save_model(path: Path, fold: TrainedFold, split: Split, config: CasesRunConfig) -> None:
    """Write the bundle of a fold, or its weights alone where slides cannot be scored with it.

    Parameters
    ----------
    path : Path
    fold : TrainedFold
        Calibrated.
    split : Split
    config : CasesRunConfig

    Raises
    ------
    ModelError
        If it cannot be written, or not be loaded again.
    """
    if fold.no_bundle:
        told = {"method": fold.facts.method, "arguments": json.dumps(dict(fold.facts.arguments))}
        write_weights(path, fold.model.state_dict(), told)
        return
    sizes = f"{fold.sizes or split_sizes(split, fold.unit)}; classes {config.data.mapping.in_words()}"
    card = make_card(
        config.model,
        config.data.mapping,
        fold.facts,
        sizes=f"{sizes}; {fold.note}" if fold.note else sizes,
        metrics={**_on_card(fold, config), **fold.figures},
        task=config.model.task or TASKS[fold.facts.stain],
        trust=trust_of(fold, config),
    )
    save_checked(path, card, fold.encoder, fold.model)


def trust_of(fold: TrainedFold, config: CasesRunConfig) -> Trust:
    """Say how far the answers of a calibrated fold are to be believed, by its validation slides."""
    names = {reading: reading for reading in fold.heads} if fold.heads else {fold.reading: SLIDE}
    given = {
        reading: parts["validation"] for reading, parts in fold.predictions.items() if "validation" in parts
    }
    temperatures = {name: given[reading].temperature for reading, name in names.items() if reading in given}
    own = given[fold.reading]
    curve = risk_coverage(own.labels, own.calibrated)
    return Trust(temperatures, least_confidence(curve, config.measure.wanted_accuracy))


def _counts(split: Split) -> dict[str, int]:
    return {part: len({case.case_id for case in getattr(split, part)}) for part in SPLITS}


def _measured(fold: TrainedFold, reading: str, config: CasesRunConfig) -> dict[str, Measured]:
    """Measures of one fold alone, by part, without intervals."""
    own = {Part(0, part, reading): given for part, given in fold.predictions[reading].items()}
    return measure_predictions(own, config.data.mapping.names, replace(config.measure, resamples=0))[reading]


def _rank(fold: TrainedFold, config: CasesRunConfig) -> float:
    found = _measured(fold, fold.reading, config)["validation"].measures.get(CHOSEN_BY)
    return found.value if found else 0.0


def _on_card(fold: TrainedFold, config: CasesRunConfig) -> dict[str, float]:
    names = (*ON_CARD, *(f"recall {name}" for name in config.data.mapping.names))
    found: dict[str, float] = {}
    for reading, words in fold.heads.items() if fold.heads else {fold.reading: ""}.items():
        measured = _measured(fold, reading, config)
        for part in SPLITS[1:]:
            if part not in measured:
                continue
            what = f"{part} {fold.unit}, {words}" if words else f"{part} {fold.unit}"
            values = measured[part].measures
            found |= {f"{what}: {name}": round(values[name].value, 4) for name in names if name in values}
    return found
