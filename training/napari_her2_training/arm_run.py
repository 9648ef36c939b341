"""The way of one arm from a split to its bundle, its predictions and its measures: the same for all arms.

``OUT/predictions.csv`` holds what was said of every slide, ``OUT/metrics.json`` the measures; it is written
last and means that the arm is finished: resuming does not train it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from napari_her2.inference.device import choose_device
from napari_her2.inference.result import Progress
from napari_her2.models.bundle import SUFFIX
from napari_her2.models.weights_file import write_weights
from napari_her2_training.arm_measures import judged_part, measure_said
from napari_her2_training.arms_config import ArmConfig
from napari_her2_training.cards import ModelFacts, make_card, save_checked, split_sizes
from napari_her2_training.manifest import SPLITS, make_splits, read_manifest
from napari_her2_training.predictions import PREDICTIONS_FILE, Part, write_predictions
from napari_her2_training.runs import METRICS_FILE, open_run, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from napari_her2.inference.device import Device
    from napari_her2.models.encoders import PatchEncoder
    from napari_her2_training.arm_measures import Measured
    from napari_her2_training.manifest import Case, Split
    from napari_her2_training.predictions import Predictions, Said
    from napari_her2_training.runs import RunFolder

TASKS: Mapping[str, str] = {
    "H&E": "H&E-based prediction of the HER2 IHC score",
    "IHC": "HER2 IHC score of the slide",
}
ON_CARD = ("macro AUC", "macro F1", "accuracy", "quadratic kappa")
CHOSEN_BY = "macro F1"
Config = TypeVar("Config", bound=ArmConfig)


@dataclass(frozen=True, slots=True, eq=False)
class ArmRun(Generic[Config]):
    """What all steps of a run share.

    Parameters
    ----------
    config : ArmConfig
    cases : tuple of Case
    splits : tuple of Split
    folder : RunFolder
    device : Device
    """

    config: Config
    cases: tuple[Case, ...]
    splits: tuple[Split, ...]
    folder: RunFolder
    device: Device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.config.data.mapping.names


@dataclass(frozen=True, slots=True, eq=False)
class TrainedFold:
    """What training leaves of a fold.

    Parameters
    ----------
    model : nn.Module
        Frozen, on the CPU.
    encoder : PatchEncoder or None
    facts : ModelFacts
    said : mapping of str to mapping of str to Predictions
        Reading, part.
    reading : str
        That of the bundle.
    no_bundle : str
        Why slides cannot be scored with it, empty where they can.
    """

    model: nn.Module
    encoder: PatchEncoder | None
    facts: ModelFacts
    said: Mapping[str, Mapping[str, Predictions]]
    reading: str = ""
    no_bundle: str = ""


def open_arm(config: Config, data: Path, out: Path, *, resume: bool) -> ArmRun[Config]:
    """Read the manifest, split it, and begin or resume a run.

    Parameters
    ----------
    config : ArmConfig
    data : Path
        The manifest.
    out : Path
    resume : bool

    Returns
    -------
    ArmRun
    """
    cases = read_manifest(data, (config.data.column,))
    splits = make_splits(cases, config.data)
    device = choose_device(config.compute.device)
    if device.torch_device.type == "cpu":
        # Small networks gain nothing there, and lose digits.
        device = replace(device, autocast_dtype=None)
    return ArmRun(config, cases, splits, open_run(out, config, data, resume=resume), device)


def run_arm(
    run: ArmRun[Config], train_fold: Callable[[int, Split], Generator[Progress, None, TrainedFold]]
) -> Generator[Progress, None, Path]:
    """Train all folds of an arm, measure them, and write what comes out.

    Parameters
    ----------
    run : ArmRun
    train_fold : callable
        Trains one fold, given its number and its split.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The bundle of the best fold; where slides cannot be scored with it, the weights of its head.
    """
    out, finished = run.folder.path, run.folder.path / METRICS_FILE
    if finished.exists():
        yield Progress("Training", note="finished before")
        path: Path = out / json.loads(finished.read_text(encoding="utf-8"))["model"]
        return path
    folds: list[TrainedFold] = []
    for number, split in enumerate(run.splits):
        folds.append((yield from train_fold(number, split)))
    said: Said = {
        Part(number, part, reading): given
        for number, fold in enumerate(folds)
        for reading, parts in fold.said.items()
        for part, given in parts.items()
    }
    yield Progress("Measuring", note="intervals from resampled cases")
    found = measure_said(said, run.classes, run.config.measure)
    # By validation alone: what the test cases say must not choose what is tested.
    best = max(range(len(folds)), key=lambda number: _rank(said, number, folds[number].reading, run))
    name = run.config.model.name
    for number, fold in enumerate(folds if len(folds) > 1 else ()):
        _save(out, f"{name}-fold{number}", number, fold, said, run)
    path = _save(out, name, best, folds[best], said, run)
    write_predictions(out / PREDICTIONS_FILE, said, run.classes)
    write_json(
        finished,
        {
            "model": path.name,
            "fold": best,
            "bundle": folds[best].no_bundle or "written",
            "reading": folds[best].reading,
            "device": run.device.name,
            "classes": list(run.classes),
            "mapping": run.config.data.mapping.told(),
            "parameters": sum(p.numel() for p in folds[best].model.parameters()),
            "cases": [_counts(split) for split in run.splits],
            "judged": judged_part(said),
            "measured": {
                reading: {part: measured.told() for part, measured in parts.items()}
                for reading, parts in found.items()
            },
        },
    )
    return path


def _counts(split: Split) -> dict[str, int]:
    return {part: len({case.case_id for case in getattr(split, part)}) for part in SPLITS}


def _of_fold(said: Said, number: int, reading: str, run: ArmRun[Config]) -> dict[str, Measured]:
    """Measures of one fold alone, by part, without intervals."""
    own = {key: given for key, given in said.items() if (key.fold, key.reading) == (number, reading)}
    return measure_said(own, run.classes, replace(run.config.measure, resamples=0))[reading]


def _rank(said: Said, number: int, reading: str, run: ArmRun[Config]) -> float:
    return _of_fold(said, number, reading, run)["validation"].measures[CHOSEN_BY].value


def _save(out: Path, name: str, number: int, fold: TrainedFold, said: Said, run: ArmRun[Config]) -> Path:
    if fold.no_bundle:
        path = out / f"{name}.head{SUFFIX}"
        told = {"method": fold.facts.method, "arguments": json.dumps(dict(fold.facts.arguments))}
        write_weights(path, fold.model.state_dict(), told)
        return path
    config = run.config
    measured = _of_fold(said, number, fold.reading, run)
    card = make_card(
        config.model,
        config.data.mapping,
        fold.facts,
        sizes=f"{split_sizes(run.splits[number], 'slides')}; classes {config.data.mapping.told()}",
        metrics=_on_card(measured, run.classes),
        task=config.model.task or TASKS[config.data.stain_name],
    )
    path = out / f"{name}{SUFFIX}"
    save_checked(path, card, fold.encoder, fold.model)
    return path


def _on_card(measured: Mapping[str, Measured], classes: Sequence[str]) -> dict[str, float]:
    names = (*ON_CARD, *(f"recall {name}" for name in classes))
    return {
        f"{part} slides: {name}": round(measured[part].measures[name].value, 4)
        for part in SPLITS[1:]
        if part in measured
        for name in names
        if name in measured[part].measures
    }
