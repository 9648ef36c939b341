"""From a finished run to one model: its best fold, or all folds together."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_her2.errors import JobFailed
from napari_her2.models.architectures import ARCHITECTURES, MEMBERS
from napari_her2.models.bundle import load_bundle
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.registry import add_model, list_models
from napari_her2_training.measures.arms import measure
from napari_her2_training.measures.predictions import pooled
from napari_her2_training.reporting.evaluation import in_words, read_run
from napari_her2_training.reporting.slides import model_of_fold
from napari_her2_training.running.cards import save_checked
from napari_her2_training.running.saving import ON_CARD

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from napari_her2.models.bundle import ModelBundle
    from napari_her2_training.reporting.evaluation import FinishedRun


def export_run(
    folder: Path, *, ensemble: bool = False, name: str = "", install: bool = False, force: bool = False
) -> Path:
    """Return the model of a run, made from all folds where that is wanted.

    Parameters
    ----------
    folder : Path
        Of a finished run.
    ensemble : bool, default False
        All folds answer together, each calibrated by itself; otherwise the best fold by its validation cases.
    name : str, optional
        Of the model, in place of that of the run. A model that is to be installed and has the name of one
        that comes with the package is named after the folder too, unless it is given another.
    install : bool, default False
        Whether it is added to the models of the user, where the docks find it.
    force : bool, default False
        Replaces an installed model of the same name.

    Returns
    -------
    Path
        The bundle; in the folder of the run, or where it was installed.

    Raises
    ------
    JobFailed, ModelError
        If the run has no model that scores slides, or its folds cannot answer together.
    """
    run = read_run(folder)
    if run.record["bundle"] != "written":
        raise JobFailed(f"There is no model to export. {run.record['bundle']}")
    path = run.folder / str(run.record["model"])
    if install and not name:
        name = _free(path.name.removesuffix(SUFFIX), folder, ensemble=ensemble)
    if ensemble:
        path = _join(run, name)
    elif name:
        path = _renamed(path, name)
    return add_model(path, force=force).path if install else path


def _free(name: str, folder: Path, *, ensemble: bool) -> str:
    """Name for a model that would have that of one that comes with the package; empty for any other.

    So is whoever tries a configuration of ours: the model is named after the folder too.
    """
    if not any(entry.name == name and entry.origin == "bundled" for entry in list_models()):
        return ""
    words = f"{name}-{folder.resolve().name}{'-ensemble' if ensemble else ''}".lower()
    return re.sub(r"[^a-z0-9._-]+", "-", words)[:64]


def _renamed(path: Path, name: str) -> Path:
    bundle = load_bundle(path)
    target = path.with_name(f"{name}{SUFFIX}")
    card = replace(bundle.card, name=name)
    save_checked(target, card, bundle.encoder, bundle.head, bundle.familiarity, bundle.answer_sets)
    return target


def _join(run: FinishedRun, name: str) -> Path:
    """Write the ensemble of all folds."""
    if len(run.folds) < 2:
        raise JobFailed(
            "The run has one fold, and nothing to join: export its model, or train with several folds."
        )
    members = [load_bundle(model_of_fold(run, fold)) for fold in run.folds]
    first = members[0]
    join = ARCHITECTURES[first.card.architecture].ensemble
    if join is None:
        raise JobFailed(
            f"Models of {first.card.method} answer alone: export the best fold. Slide models on tile "
            f"features can be joined."
        )
    _check_alike(members)
    head = join([member.head for member in members])
    _set_temperatures(head, members)
    seen = first.card.familiarity
    card = replace(
        first.card,
        name=name or f"{run.record['model'].removesuffix(SUFFIX)}-ensemble",
        arguments={**first.card.arguments, MEMBERS: len(members)},
        # Each member is calibrated inside.
        temperatures={},
        min_confidence=_least([member.card.min_confidence for member in members]),
        training_data=f"{first.card.training_data}; {len(members)} such folds answer together",
        metrics=_metrics(run),
        # All look at tiles through one encoder, so what is unlike the cases of one fold is unlike for all.
        familiarity=seen and replace(seen, made_from=f"{seen.made_from} (of the first fold)"),
        # What validated one of them, the others learnt from: cases of calibration alone could promise.
        answer_sets=None,
    )
    target = run.folder / f"{card.name}{SUFFIX}"
    save_checked(target, card, first.encoder, head, first.familiarity)
    return target


def _check_alike(members: list[ModelBundle]) -> None:
    """Refuse folds that look at tiles through different encoders."""
    encoders = {member.patch_encoder.fingerprint() for member in members}
    if len(encoders) > 1:
        raise JobFailed(
            "Each fold pre-trained an encoder of its own, so they cannot answer together: export the best "
            "fold, or pre-train one encoder first and train on it."
        )


def _set_temperatures(head: nn.Module, members: list[ModelBundle]) -> None:
    heads: tuple[str, ...] = head.heads  # type: ignore[assignment]
    temperatures = [[member.card.temperature(name) for name in heads] for member in members]
    with torch.no_grad():
        head.temperatures.copy_(torch.tensor(temperatures))  # type: ignore[operator]


def _least(values: list[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else None


def _metrics(run: FinishedRun) -> dict[str, float]:
    """Measures of the folds together on the test slides; of validation slides each fold has seen some."""
    found: dict[str, float] = {}
    for reading in run.readings:
        given = run.of("test", reading)
        if not given:
            continue
        measured = measure([pooled(list(given.values()))], run.classes, replace(run.settings(), resamples=0))
        words = f", {in_words(reading, run.record)}" if reading else ""
        found |= {
            f"test slides{words}: {name}": round(measured.measures[name].value, 4)
            for name in ON_CARD
            if name in measured.measures
        }
    return found
