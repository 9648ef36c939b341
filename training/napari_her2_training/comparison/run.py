"""The comparison: all arms on the same cases, split once, measured alike, one after the other.

``OUT/arms/NAME`` is the run of an arm, with bundle, predictions and measures; one that is finished
is not trained again on resuming, and arms can be added to the list later. ``OUT/table.csv`` has a row for
each arm and reading, ``OUT/compare.json`` all measures with their intervals, ``OUT/confusion_NAME.png``
what is taken for what, and ``OUT/report.html`` all of it on a page.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from napari_her2.steps import Progress
from napari_her2_training.comparison.page import COMPARISON_FILE, IN_TABLE, Row, write_comparison_page
from napari_her2_training.files import OWN_FILES, write_csv, write_json
from napari_her2_training.findings import noted
from napari_her2_training.low_resolution.config import LowResolutionConfig, PatchArmConfig
from napari_her2_training.low_resolution.run import low_resolution_steps, patches_steps
from napari_her2_training.measures.arms import METRICS_FILE, Measured
from napari_her2_training.mil.config import MILConfig
from napari_her2_training.mil.run import mil_steps, slides_of
from napari_her2_training.reporting.plots import save_confusion
from napari_her2_training.running.arm import on_cases
from napari_her2_training.running.ranks import first_alone

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_her2_training.arm_config import ArmConfig
    from napari_her2_training.comparison.config import CompareConfig
    from napari_her2_training.encoder.embedded import EmbeddedSlides
    from napari_her2_training.running.arm import ArmRun

Own = TypeVar("Own", bound="ArmConfig")
ARMS_FOLDER = "arms"


def comparison_steps(run: ArmRun[CompareConfig]) -> Generator[Progress, None, Path]:
    """Train and measure all arms.

    Returns
    -------
    Path
        The table.
    """
    config, out, findings = run.config, run.folder.path, run.findings
    slides = slides_of(config.of(MILConfig))
    names = config.compare.names
    if findings is not None:
        findings.facts["Arms"] = ", ".join(names)
    for number, name in enumerate(names):
        yield Progress("Comparing", number, len(names), "arms", name)
        with noted(findings):
            yield from _train(name, run, out / ARMS_FOLDER / name, slides)
    with first_alone() as first:
        if first and findings is None:
            rows = [row for name in names for row in _rows(name, out / ARMS_FOLDER / name)]
            _write(out, rows, config, run.classes)
            write_comparison_page(out)
    yield Progress("Comparing", len(names), len(names), "arms")
    return out / "table.csv"


def _train(
    name: str, run: ArmRun[CompareConfig], folder: Path, slides: EmbeddedSlides
) -> Generator[Progress, None, Path]:
    config = run.config
    if name == "low-resolution":
        low = _named(config.of(LowResolutionConfig), name)
        return (yield from low_resolution_steps(run.beside(low, folder)))
    if name == "patches":
        patches = _named(config.of(PatchArmConfig), name)
        return (yield from patches_steps(run.beside(patches, folder)))
    mil = _named(config.of(MILConfig), name)
    mil = replace(mil, head=replace(mil.head, architecture=name))
    return (yield from mil_steps(run.beside(mil, folder), slides))


def _named(config: Own, arm: str) -> Own:
    """Give the model of an arm a name of its own."""
    name = f"{config.model.name}-{arm}" if config.model.name != arm else arm
    return replace(config, model=replace(config.model, name=name))


def _rows(arm: str, folder: Path) -> list[Row]:
    record = OWN_FILES.json_object(folder / METRICS_FILE, "judged", "measured", "parameters")
    judged = record["judged"]
    return [
        Row(arm, reading, record["parameters"], judged, Measured.of_json(parts[judged]))
        for reading, parts in record["measured"].items()
    ]


def _write(out: Path, rows: Sequence[Row], config: CompareConfig, classes: Sequence[str]) -> None:
    mapping = config.data.mapping
    write_csv(out / "table.csv", [_cells(row, classes) for row in rows])
    write_json(
        out / COMPARISON_FILE,
        {
            "name": config.model.name,
            "notice": config.model.notice,
            "classes": list(classes),
            "named": mapping.named,
            "mapping": mapping.in_words(),
            "published": [asdict(entry) for entry in config.published],
            "stain": config.data.stain_name,
            "measure": asdict(config.measure),
            "rows": [
                {"arm": row.arm, "reading": row.reading, "parameters": row.parameters, "judged": row.judged}
                | row.measured.to_json()
                for row in rows
            ],
        },
    )
    for row in rows:
        slug = re.sub(r"[^a-z0-9-]+", "_", row.name).strip("_")
        save_confusion(
            out / f"confusion_{slug}.png", row.measured.confusion, tuple(mapping.named.values()), row.name
        )


def _cells(row: Row, classes: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {
        "arm": row.name,
        "parameters": row.parameters,
        "judged on": row.judged,
        "cases": row.measured.cases,
        "slides": row.measured.slides,
        "folds": row.measured.folds,
    }
    for name in (*IN_TABLE, *(f"recall {name}" for name in classes)):
        found = row.measured.measures.get(name)
        cells |= {
            name: None if found is None else found.value,
            f"{name} low": None if found is None else found.low,
            f"{name} high": None if found is None else found.high,
        }
        if row.measured.folds > 1:
            cells[f"{name} SD"] = None if found is None else found.sd
    return cells


train_comparison = on_cases(comparison_steps)
