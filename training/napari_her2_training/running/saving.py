"""The model of a trained fold, written: its card, and what it keeps of its cases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.models.bundle import load_bundle, with_doubt
from napari_her2.models.card import SLIDE
from napari_her2.models.weights_file import write_weights
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.doubt.fit import FittedDoubt, doubt_steps, fit_familiarity
from napari_her2_training.measures.arms import measure_predictions
from napari_her2_training.measures.calibration import least_confidence, risk_coverage
from napari_her2_training.measures.predictions import Part
from napari_her2_training.running.cards import Trust, make_card, save_checked, split_sizes

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from napari_her2.inference.device import Device
    from napari_her2.steps import Progress
    from napari_her2_training.cohort.splits import Split
    from napari_her2_training.config import CasesRunConfig
    from napari_her2_training.measures.arms import Measured
    from napari_her2_training.running.trained import TrainedFold

TASKS: Mapping[str, str] = {
    "H&E": "H&E-based prediction of the HER2 IHC score",
    "IHC": "HER2 IHC score of the slide",
}
ON_CARD = ("macro AUC", "macro F1", "accuracy", "quadratic kappa")


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
        metadata = {"method": fold.facts.method, "arguments": json.dumps(dict(fold.facts.arguments))}
        write_weights(path, fold.model.state_dict(), metadata)
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
        cases=config.cases if fold.unit == "cases" else None,
    )
    save_checked(path, card, fold.encoder, fold.model)


def keep_doubt(path: Path, fitted: FittedDoubt) -> None:
    """Write a bundle again, with what it keeps of its cases; its weights stay as they are.

    Raises
    ------
    ModelError
        If it cannot be written, or not be loaded again.
    """
    if any(part is not None for part in fitted):
        with_doubt(path, path, *fitted)
        load_bundle(path)


def doubt_record(fitted: FittedDoubt, remarks: Sequence[str]) -> dict[str, object]:
    """Say what a bundle keeps of its cases, for the record of a run."""
    familiarity, sets = fitted.familiarity_card, fitted.answer_sets_card
    return {
        "familiarity": "" if familiarity is None else familiarity.made_from,
        "sets": "" if sets is None else sets.made_from,
        "remarks": list(remarks),
    }


def fitted_doubt(
    path: Path,
    fold: TrainedFold,
    split: Split,
    config: CasesRunConfig,
    device: Device,
    remarks: list[str],
) -> Generator[Progress, None, FittedDoubt]:
    """Fit what the bundle of a fold is to keep of its cases.

    Parameters
    ----------
    path : Path
        The bundle.
    fold : TrainedFold
    split : Split
    config : CasesRunConfig
    device : Device
        On which slides are scored.
    remarks : list of str
        Gets what had to be left out, and why.

    Returns
    -------
    FittedDoubt
        Nothing, where the configuration wants nothing, or there is no bundle.
    """
    seed = config.compute.seed
    if not config.doubt.wanted:
        return FittedDoubt()
    if fold.no_bundle:
        remarks.append(f"There is no model to keep anything of its cases. {fold.no_bundle}")
        return FittedDoubt()
    if fold.no_doubt:
        remarks.append(fold.no_doubt)
        return FittedDoubt()
    if fold.looks is not None:
        if not config.doubt.familiarity:
            return FittedDoubt()
        looks = yield from fold.looks(config.doubt.slides)
        if config.doubt.sets:
            remarks.append(f"There are no sets of scores: which {fold.unit} are of one slide is not known.")
        return FittedDoubt(*fit_familiarity(looks, remarks, seed=seed, unit=fold.unit.removesuffix("s")))
    return (
        yield from doubt_steps(
            path,
            split.train,
            split.validation,
            split.calibration,
            config.data.mapping,
            device,
            seed=seed,
            config=config.doubt,
            any_stain=not config.data.check_stains,
            remarks=remarks,
        )
    )


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


def measured_alone(fold: TrainedFold, reading: str, config: CasesRunConfig) -> dict[str, Measured]:
    """Measure one fold alone, by part, without intervals."""
    own = {Part(0, part, reading): given for part, given in fold.predictions[reading].items()}
    return measure_predictions(own, config.data.mapping.names, replace(config.measure, resamples=0))[reading]


def _on_card(fold: TrainedFold, config: CasesRunConfig) -> dict[str, float]:
    names = (*ON_CARD, *(f"recall {name}" for name in config.data.mapping.names))
    found: dict[str, float] = {}
    for reading, words in fold.heads.items() if fold.heads else {fold.reading: ""}.items():
        measured = measured_alone(fold, reading, config)
        for part in SPLITS[1:]:
            if part not in measured:
                continue
            what = f"{part} {fold.unit}, {words}" if words else f"{part} {fold.unit}"
            values = measured[part].measures
            found |= {f"{what}: {name}": round(values[name].value, 4) for name in names if name in values}
    return found
