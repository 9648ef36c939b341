"""One method under several configurations: a table of runs, the best by validation first."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2.steps import finished
from napari_her2_training.config import config_values
from napari_her2_training.measures.predictions import Part, read_predictions
from napari_her2_training.mil.config import MILConfig
from napari_her2_training.sweep import read_variations, sweep_steps, variants_of

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[model]
name = "swept"
training_data = "made up"
[data]
classes = "binary"
[head]
architecture = "abmil"
width = 8
hidden = 4
epochs = 2
[measure]
resamples = 0
[compute]
device = "cpu"
"""
VARY = ["head.learning_rate=1e-6,0.02", "head.architecture=abmil,dsmil"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases as features in files: half of the tiles of a positive case tell it."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    (folder / "swept.toml").write_text(CONFIG)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["case_id", "ihc", "score", "split"])
        for number in range(24):
            tiles = rng.normal(0, 1, (12, 6))
            tiles[:6, 0] += 2.0 * (number % 2)
            with h5py.File(folder / f"{number}.h5", "w") as held:
                held["features"] = tiles.astype(np.float32)
                held["coords"] = np.zeros((12, 2), np.int64)
            part = ("train", "validation", "test")[number // 8]
            table.writerow([f"case{number}", f"{number}.h5", "3+" if number % 2 else "0", part])
    return folder


def swept(features: Path, out: Path, *, vary: list[str] = VARY, resume: bool = False) -> Path:
    return finished(
        sweep_steps(
            "mil",
            vary,
            out=out,
            config=features / "swept.toml",
            data=features / "manifest.csv",
            resume=resume,
        )
    )


def test_every_combination_is_trained_and_the_best_by_validation_stands_first(
    features: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with swept(features, out).open(newline="") as file:
        rows = list(csv.DictReader(file))
    given = {(row["head.learning_rate"], row["head.architecture"]) for row in rows}
    assert len(rows) == len(given) == 4
    for row in rows:  # measured anew, by scikit-learn, from what each run said of its cases
        parts, _ = read_predictions(out / "runs" / row["run"] / "predictions.csv")
        for part in ("validation", "test"):
            own = parts[Part(0, part)]
            auc = roc_auc_score(own.labels, own.probabilities[:, 1])
            assert float(row[f"{part} macro AUC"]) == pytest.approx(auc, abs=1e-4)
    by_validation = [float(row["validation macro AUC"]) for row in rows]
    assert by_validation == sorted(by_validation, reverse=True)
    page = (out / "report.html").read_text()
    assert all(f"<td>{row['run']}</td>" in page for row in rows)
    assert "Research use only" in page
    assert "choose nothing" in page

    # What is finished is left alone when it goes on, and a new value is added to it.
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/metrics.json")}
    (out / "runs" / "003" / "metrics.json").unlink()
    swept(features, out, resume=True)
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/metrics.json")}
    assert {path.parent.name for path in after if after[path] != before[path]} == {"003"}
    with pytest.raises(JobFailed, match="holds a sweep already"):
        swept(features, out)
    with pytest.raises(JobFailed, match="began with another config"):
        swept(features, out, vary=["head.learning_rate=0.5,0.02", VARY[1]], resume=True)


def test_the_command(features: Path, tmp_path: Path) -> None:
    arguments = ["train", "mil", "--config", str(features / "swept.toml"), "--out", str(tmp_path / "out")]
    arguments += ["--data", str(features / "manifest.csv"), "--sweep", "head.width=4,8"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "table.csv").exists()
    assert CliRunner().invoke(app, [*arguments, "--dry-run"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("head.width", "varies nothing"),
        ("width=1,2", "varies nothing"),
        ("head.=1", "varies nothing"),
        ("head.width=8,8", "a value twice"),
    ],
)
def test_what_varies_nothing_is_named(text: str, problem: str) -> None:
    with pytest.raises(JobFailed, match=problem):
        read_variations([text])


def test_values_are_read_as_in_a_configuration() -> None:
    found = read_variations(["a.b=1, 0.5,true, text, 1e-3"])
    assert found == {"a.b": [1, 0.5, True, "text", 0.001]}
    with pytest.raises(JobFailed, match="varied twice"):
        read_variations(["a.b=1", "a.b=2"])


def test_each_configuration_is_checked_before_the_first_is_trained(features: Path, tmp_path: Path) -> None:
    values = config_values(features / "swept.toml")
    with pytest.raises(JobFailed, match=r"With head\.witdh 4: .*did you mean 'width'"):
        variants_of(values, {"head.witdh": [4]}, MILConfig.parse)
    with pytest.raises(JobFailed, match="1 to 1,000 runs"):
        variants_of(values, {"head.width": range(1, 2000)}, MILConfig.parse)
    with pytest.raises(JobFailed, match="no table of cases"):
        finished(sweep_steps("encoder", ["head.width=1"], out=tmp_path / "out"))
