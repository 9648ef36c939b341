"""What a finished run leaves beside its model: predictions.csv, and metrics.json, which is written last."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from napari_her2.training_runs.files import PREDICTIONS_FILE
from napari_her2_training.files import write_json
from napari_her2_training.measures.arms import METRICS_FILE, judged_part
from napari_her2_training.measures.predictions import write_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_her2_training.config import CasesRunConfig
    from napari_her2_training.measures.arms import Measured
    from napari_her2_training.measures.predictions import PredictionsByPart

VERSIONS = ("napari-her2", "torch", "timm", "lightning", "numpy")
"""Of the packages that what comes out depends on."""


def write_record(
    out: Path,
    path: Path,
    predictions: PredictionsByPart,
    config: CasesRunConfig,
    *,
    measured: Mapping[str, Mapping[str, Measured]],
    record: Mapping[str, object],
) -> None:
    """Write what a finished run leaves beside its model: predictions.csv, and metrics.json last.

    Parameters
    ----------
    out : Path
        Folder of the run.
    path : Path
        Its model.
    predictions : dict of Part to Predictions
    config : CasesRunConfig
    measured : mapping of str to mapping of str to Measured
        Reading, part.
    record : mapping
        What else a report tells: method, stain, data, fold, bundle, reading, heads, unit, device,
        parameters, cases.
    """
    classes = config.data.mapping.names
    write_predictions(out / PREDICTIONS_FILE, predictions, classes)
    write_json(
        out / METRICS_FILE,
        {
            "model": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            **record,
            "classes": list(classes),
            "named": config.data.mapping.named,
            "mapping": config.data.mapping.in_words(),
            "judged": judged_part(predictions),
            "measured": {
                reading: {part: values.to_json() for part, values in parts.items()}
                for reading, parts in measured.items()
            },
            "config": config.sections(),
            "published": [asdict(entry) for entry in config.published],
            "versions": {name: version(name) for name in VERSIONS},
        },
    )
