"""A sweep: one method under several configurations, on the same cases and split, as one table and one page.

``OUT/runs/NNN`` is the run of a configuration, with bundle, predictions and measures; one that is finished is
not trained again on resuming. ``OUT/table.csv`` has a row for each, the best by its validation cases first,
``OUT/report.html`` the same as a page. Test cases are measured and shown, and choose nothing.
"""

from __future__ import annotations

import copy
import itertools
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.models.card import NOTICE
from napari_her2.outside import shown
from napari_her2.steps import Progress, passed_on
from napari_her2.training_runs.files import REPORT_FILE, RUN_FILE
from napari_her2_training.config import CasesRunConfig, RunConfig, config_values
from napari_her2_training.files import OWN_FILES, write_csv
from napari_her2_training.measures.arms import METRICS_FILE, Measured
from napari_her2_training.methods import find_method
from napari_her2_training.reporting.html import write_page
from napari_her2_training.running.log import Started, logged

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

RUNS_FOLDER = "runs"
MOST_RUNS = 1000
CHOSEN_BY = "macro AUC"
IN_TABLE = ("macro AUC", "macro F1", "balanced accuracy", "quadratic kappa")
_PARTS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Variant:
    """A configuration of a sweep.

    Parameters
    ----------
    name : str
        Of its folder: "003".
    changes : mapping of str to object
        The keys that it sets: {"head.learning_rate": 0.001}.
    config : RunConfig
    """

    name: str
    changes: Mapping[str, object]
    config: RunConfig

    @property
    def words(self) -> str:
        """What it changes: "head.learning_rate 0.001, head.width 64"."""
        return ", ".join(f"{key} {value}" for key, value in self.changes.items())


def read_variations(given: Sequence[str]) -> dict[str, list[object]]:
    """Read which keys take which values.

    Parameters
    ----------
    given : sequence of str
        Each "section.key=value,value,...": numbers, true, false, or texts.

    Returns
    -------
    dict of str to list
        By key, in the order given.

    Raises
    ------
    JobFailed
        Naming the one that cannot be read.
    """
    found: dict[str, list[object]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        key = key.strip()
        if not equals or key.count(".") != 1 or not all(key.split(".")):
            raise JobFailed(f"{shown(text)!r} varies nothing: give section.key=value,value, and so on.")
        if key in found:
            raise JobFailed(f"{shown(key)} is varied twice: give all of its values at once.")
        found[key] = [_value(value.strip()) for value in values.split(",")]
        if len(set(map(str, found[key]))) < len(found[key]):
            raise JobFailed(f"{shown(key)} is given a value twice.")
    return found


def _value(text: str) -> object:
    """Read a number or a truth value as TOML has it; all else is a text."""
    try:
        read = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return read if isinstance(read, bool | int | float | str) else text


def variants_of(
    values: Mapping[str, Any], variations: Mapping[str, Sequence[object]], parse: Callable[..., RunConfig]
) -> list[Variant]:
    """Make every combination of values, each checked before the first one is trained.

    Parameters
    ----------
    values : mapping
        Of the configuration that is varied: sections, keys, values.
    variations : mapping
        As `read_variations` gives them.
    parse : callable
        Makes a configuration of values.

    Raises
    ------
    JobFailed
        If one of them is refused, or there are none or too many.
    """
    count = 1
    for options in variations.values():
        count *= len(options)
    if not variations or count > MOST_RUNS:
        raise JobFailed(f"A sweep has 1 to {MOST_RUNS:,} runs, not {count if variations else 0:,}.")
    found: list[Variant] = []
    for number, chosen in enumerate(itertools.product(*variations.values())):
        own: dict[str, Any] = copy.deepcopy(dict(values))
        changes = dict(zip(variations, chosen, strict=True))
        for key, value in changes.items():
            section, _, name = key.partition(".")
            own.setdefault(section, {})[name] = value
        try:
            config = parse(own)
        except JobFailed as error:
            words = ", ".join(f"{key} {value}" for key, value in changes.items())
            raise JobFailed(f"With {shown(words)}: {error}") from error
        found.append(Variant(f"{number:03d}", changes, config))
    return found


def sweep_steps(
    method: str,
    vary: Sequence[str],
    *,
    out: Path,
    config: Path | None = None,
    data: Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Generator[Progress, None, Path]:
    """Train a method under every combination of values, and compare what comes out.

    Parameters
    ----------
    method : str
    vary : sequence of str
        As `read_variations` takes them.
    out, config, data, resume, device
        As for `napari_her2_training.command.train_steps`.

    Yields
    ------
    Progress

    Returns
    -------
    Path
        The table.

    Raises
    ------
    JobFailed
        If the method has no table of cases, or a configuration is refused.
    """
    known = find_method(method)
    if not issubclass(known.config, CasesRunConfig):
        raise JobFailed(f"{method} learns from no table of cases, so its runs cannot be compared by cases.")
    base, place = known.read(config, data, device)
    if base.compute.devices != 1 or base.compute.nodes != 1:
        raise JobFailed("The runs of a sweep learn on one device each: set [compute] devices and nodes to 1.")
    variants = variants_of(config_values(known.file(config)), read_variations(vary), known.config.parse)
    if not resume and (out / RUNS_FOLDER).exists():
        raise JobFailed(f"{out} holds a sweep already: go on with --resume, or choose another folder.")
    started = Started(method, known.file(config), place, base.compute.device, resume=resume)
    train, compute = known.load(), base.compute

    def all_of_them() -> Generator[Progress, None, Path]:
        for number, variant in enumerate(variants):
            yield Progress("Sweeping", number, len(variants), "runs", variant.words)
            folder = out / RUNS_FOLDER / variant.name
            own = replace(variant.config, compute=replace(variant.config.compute, device=compute.device))
            steps = train(own, place, folder, resume=(folder / RUN_FILE).exists())
            yield from passed_on(steps, _named(variant, number, len(variants)))
        return _write(out, variants, base)

    return (yield from logged(all_of_them(), out, started))


def _named(variant: Variant, number: int, count: int) -> Callable[[Progress], Progress]:
    def renamed(step: Progress) -> Progress:
        note = f"run {number + 1} of {count}: {variant.words}{f'; {step.note}' if step.note else ''}"
        return replace(step, note=note)

    return renamed


@dataclass(frozen=True, slots=True)
class _Row:
    variant: Variant
    measured: Mapping[str, Measured]

    def value(self, part: str, name: str) -> float | None:
        found = self.measured[part].measures.get(name) if part in self.measured else None
        return None if found is None else found.value


def _write(out: Path, variants: Sequence[Variant], base: RunConfig) -> Path:
    rows = sorted((_row(out, variant) for variant in variants), key=_rank)
    parts = [part for part in _PARTS if any(part in row.measured for row in rows)]
    table = out / "table.csv"
    cells = [
        {"run": row.variant.name, **row.variant.changes}
        | {f"{part} {name}": row.value(part, name) for part in parts for name in IN_TABLE}
        for row in rows
    ]
    write_csv(table, cells)
    first = rows[0].measured[parts[0]]
    write_page(
        out / REPORT_FILE,
        "sweep",
        {
            "name": base.model.name,
            "notice": f"{NOTICE} {base.model.notice}".strip(),
            "folder": out.name,
            "keys": list(variants[0].changes),
            "parts": parts,
            "measures": list(IN_TABLE),
            "cases": {
                part: max(r.measured[part].cases for r in rows if part in r.measured) for part in parts
            },
            "folds": first.folds,
            "runs": [
                {
                    "name": row.variant.name,
                    "values": [str(value) for value in row.variant.changes.values()],
                    "cells": [_cell(row.value(part, name)) for part in parts for name in IN_TABLE],
                }
                for row in rows
            ],
        },
    )
    return table


def _row(out: Path, variant: Variant) -> _Row:
    file = out / RUNS_FOLDER / variant.name / METRICS_FILE
    record = OWN_FILES.json_object(file, "measured", "reading")
    found = record["measured"]
    parts = found[record["reading"]] if record["reading"] in found else next(iter(found.values()))
    return _Row(variant, {part: Measured.of_json(own) for part, own in parts.items()})


def _rank(row: _Row) -> tuple[float, str]:
    """Best by validation first; a run whose measure is not known comes last."""
    value = row.value("validation", CHOSEN_BY)
    return (float("inf") if value is None else -value, row.variant.name)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
