"""A process that tells of itself as a training does, and trains nothing: METHOD --out OUT [--resume]."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error, JobFailed
from napari_her2.steps import Progress
from napari_her2.training_runs.outcome import outcome_line
from napari_her2_training.running.log import Started, logged

if TYPE_CHECKING:
    from collections.abc import Generator

EPOCHS = {"ends": 5, "table": 5}
MOST = 400


def training(method: str, out: Path) -> Generator[Progress, None, Path]:
    done, epochs = out / "done", EPOCHS.get(method, MOST)
    first = len(done.read_text()) if done.exists() else 0
    (out / "run.json").touch()
    if method == "fails":
        raise JobFailed("Row 7: no ihc.")
    for epoch in range(first + 1, epochs + 1):
        values = {
            "train_loss": 1 / epoch,
            "validation_loss": 2 / epoch,
            "validation_auc": 0.7,
        }
        with done.open("a") as file:
            file.write(".")
        note = f"epoch {epoch} of {epochs}: a 1"
        yield Progress(
            "Training", epoch, epochs, "batches", note, values, fold=1, folds=2, epoch=epoch, epochs=epochs
        )
        time.sleep(0 if first else 0.02)
        if method == "deaf":
            time.sleep(600)
    if method != "table":  # which judges no slides
        (out / "predictions.csv").touch()
    return out / "tiny.safetensors"


if __name__ == "__main__":
    method, out = sys.argv[1], Path(sys.argv[2])
    if method == "refuses":
        print(outcome_line("JobFailed", "There is no configuration x.toml."))  # noqa: T201 - as it does
        sys.exit(1)
    resume = "--resume" in sys.argv
    try:
        for _ in logged(training(method, out), out, Started(method, out, out, "cpu", resume=resume)):
            pass
    except Her2Error:
        sys.exit(1)
