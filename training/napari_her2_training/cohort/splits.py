"""Cases split into parts to learn from, to choose the epoch and to judge by, a case never into two."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sklearn.model_selection import KFold, StratifiedKFold, StratifiedShuffleSplit

from napari_her2.errors import JobFailed
from napari_her2_training.classes import ish_positive
from napari_her2_training.cohort.manifest import CALIBRATION, SPLITS, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2_training.classes import ClassMapping
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.config_sections import CasesConfig


@dataclass(frozen=True, slots=True)
class Split:
    """Cases to learn from, to choose the epoch with, and to measure on; no case is in two of them.

    No network sees those of calibration before it is finished, and nothing is chosen or measured by them.
    """

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...] = ()
    calibration: tuple[Case, ...] = ()


def check_ish(cases: Sequence[Case], mapping: ClassMapping) -> None:
    """Refuse results of ISH that cannot be read or contradict each other, where the classes rest on them.

    Raises
    ------
    JobFailed
        Naming the row.
    """
    if not mapping.ish:
        return
    first: dict[str, tuple[Case, bool | None]] = {}
    for case in cases:
        try:
            positive = ish_positive(case.ish)
        except JobFailed as error:
            raise JobFailed(f"Row {case.row} of the manifest: {error}") from error
        before, known = first.setdefault(case.case_id, (case, positive))
        if positive != known:
            raise JobFailed(
                f"Row {case.row} of the manifest: case {case.case_id} has ish {case.ish!r}, in row "
                f"{before.row} {before.ish!r}. Give a case one result."
            )


def make_splits(cases: Sequence[Case], config: CasesConfig) -> tuple[Split, ...]:
    """Split cases for training: by the manifest's own columns, else by the configuration.

    Returns
    -------
    tuple of Split
        One a fold.

    Raises
    ------
    JobFailed
        A split is empty, or too small to hold every class.
    """
    check_ish(cases, config.mapping)
    apart = tuple(case for case in cases if case.split == CALIBRATION)
    if any(case.split in ("train", "validation") for case in cases):
        chosen = {name: tuple(case for case in cases if case.split == name) for name in SPLITS}
        splits = [Split(chosen["train"], chosen["validation"], chosen["test"], apart)]
    else:
        test = tuple(case for case in cases if case.split == "test")
        learn = tuple(case for case in cases if case.split is None)
        if not test:
            learn, test = _hold_out(learn, config.test, config)
        if any(case.fold is not None for case in learn):
            folds = sorted({case.fold for case in learn if case.fold is not None})
            splits = [
                Split(
                    tuple(case for case in learn if case.fold != fold),
                    tuple(case for case in learn if case.fold == fold),
                    test,
                    apart,
                )
                for fold in folds
            ]
        elif config.folds > 1:
            splits = [Split(*pair, test, apart) for pair in _k_folds(learn, config)]
        else:
            splits = [Split(*_hold_out(learn, config.validation, config), test, apart)]
    _check_splits(splits, config)
    return tuple(splits)


def fold_name(number: int, folds: int) -> str:
    """Return what a fold is called in messages, counted from 1."""
    return f"fold {number + 1}" if folds > 1 else "the split"


def absent_classes(cases: Sequence[Case], mapping: ClassMapping) -> tuple[str, ...]:
    """Return the classes that none of the cases has."""
    present = {label_of(case, mapping) for case in cases}
    return tuple(name for number, name in enumerate(mapping.names) if number not in present)


def _ids(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(case.case_id for case in cases))


def _among(cases: Sequence[Case], ids: Sequence[str]) -> tuple[Case, ...]:
    wanted = set(ids)
    return tuple(case for case in cases if case.case_id in wanted)


def _hold_out(
    cases: Sequence[Case], share: float, config: CasesConfig
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Split off a share of the cases, each class in proportion."""
    if share == 0:
        return tuple(cases), ()
    ids = _ids(cases)
    labels = {case.case_id: label_of(case, config.mapping) for case in cases}
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=share, random_state=config.seed)
    try:
        rest, held = next(splitter.split(ids, [labels[name] for name in ids]))
    except ValueError as error:
        raise JobFailed(
            f"{len(ids)} cases are too few to hold out {share:.0%} of every class: add cases, "
            f"or give the splits in the manifest."
        ) from error
    return _among(cases, [ids[i] for i in rest]), _among(cases, [ids[i] for i in held])


def _k_folds(cases: Sequence[Case], config: CasesConfig) -> list[tuple[tuple[Case, ...], tuple[Case, ...]]]:
    """K-fold over shuffled cases; plain, as the protocol of attention MIL has it, unless stratified."""
    ids = _ids(cases)
    if len(ids) < config.folds:
        raise JobFailed(f"{len(ids)} cases cannot be split into {config.folds} folds: add cases.")
    labels = {case.case_id: label_of(case, config.mapping) for case in cases}
    kind = StratifiedKFold if config.stratified else KFold
    try:
        splitter = kind(config.folds, shuffle=True, random_state=config.seed)
        with warnings.catch_warnings():
            # A class with fewer cases than folds is absent from some: the check of the splits says so.
            warnings.filterwarnings("ignore", message="The least populated class")
            folds = list(splitter.split(ids, [labels[name] for name in ids]))
    except ValueError as error:
        raise JobFailed(
            f"No class has the {config.folds} cases that as many folds need: add cases, or lower "
            f"[data] folds."
        ) from error
    return [(_among(cases, [ids[i] for i in a]), _among(cases, [ids[i] for i in b])) for a, b in folds]


def _check_splits(splits: Sequence[Split], config: CasesConfig) -> None:
    """Refuse folds that lack cases, or a class to learn: all that is wrong is told at once."""
    faults = []
    for number, split in enumerate(splits):
        what = fold_name(number, len(splits))
        absent = absent_classes(split.train, config.mapping)
        if absent:
            faults.append(f"No case of {', '.join(absent)} to train on in {what}: add cases, or change it.")
        faults += [
            f"{what.capitalize()} has no {part} cases: add cases, or change it."
            for part in ("train", "validation")
            if not getattr(split, part)
        ]
    if faults:
        raise JobFailed(" ".join(faults))
