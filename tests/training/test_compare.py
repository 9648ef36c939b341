"""The comparison: every arm from slides to a bundle, by one split, resumed arm by arm."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

import napari_her2_training
from napari_her2.errors import JobFailed, ModelError
from napari_her2.models.aggregator import SlideAggregator
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.registry import load_model
from napari_her2_training.cohort.bags import SlideBag, predict_bags
from napari_her2_training.measures.predictions import read_predictions
from napari_her2_training.mil.config import AGGREGATORS, AggregatorConfig, MILLossConfig
from napari_her2_training.mil.training import MILTask, new_aggregator
from training_steps import CPU, fit_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2.steps import Progress

CLASSES = ("0", "Low", "High")
FEATURES = 12
CONFIG = """
[compare]
arms = "low-resolution, patches, abmil"
[model]
name = "tiny"
training_data = "synthetic IHC slides (phantom)"
[doubt]
familiarity = false
sets = false
[data]
classes = "low"
validation = 0.34
test = 0.25
[image]
size_px = 64
[patches]
tile_px = 64
mpp = 1.0
per_slide = 3
epochs = 1
fusion = "vote"
[network]
variant = "atto"
drop_path = 0.0
[learning]
epochs = 1
batch_size = 4
[tiles]
tile_px = 96
[encoder]
name = "model:demo-attention-mil"
[head]
width = 8
hidden = 8
epochs = 2
max_tiles = 16
[measure]
resamples = 4
[compute]
device = "cpu"
"""


def finish(steps: Generator[Progress, None, Path]) -> tuple[list[Progress], Path]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def bags(count: int, seed: int) -> list[SlideBag]:
    """Half of the tiles tell the class of the slide, the others are noise."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        features = rng.normal(0, 1, (20 + number % 3, FEATURES))
        features[: len(features) // 2, number % 3] += 5
        out.append(SlideBag(f"c{number}", number % 3, features.astype(np.float16)))
    return out


@pytest.mark.parametrize("name", AGGREGATORS)
def test_each_slide_model_learns_by_its_loss_and_its_card_builds_it(name: str, tmp_path: Path) -> None:
    config = AggregatorConfig(
        architecture=name,
        width=16,
        hidden=8,
        epochs=5,
        accumulate=1,
        max_tiles=12,
        learning_rate=1e-2,
        dropout=0.0,
    )
    head, architecture, arguments = new_aggregator(config, features=FEATURES, classes=3, seed=0)
    assert isinstance(head, SlideAggregator)
    built = ARCHITECTURES[architecture].make(**arguments)
    assert {k: v.shape for k, v in built.state_dict().items()} == {
        k: v.shape for k, v in head.state_dict().items()
    }
    assert set(arguments) == set(ARCHITECTURES[architecture].arguments)
    fit_until(MILTask(head, bags(18, 1), bags(6, 2), config, MILLossConfig(sampled=4), seed=0), tmp_path)
    found = predict_bags(head, bags(12, 3), CPU)
    assert found.cases[:2] == ("c0", "c1")
    assert (found.probabilities.argmax(1) == found.labels).mean() > 0.9


def test_all_arms_by_one_split_and_only_what_is_missing_is_trained_again(
    cohort_of: Callable[[int, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_PRECISION", "bfloat16")
    cohort, out, config = tmp_path / "cohort", tmp_path / "out", tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    manifest = cohort_of(12, cohort)
    _, path = finish(napari_her2_training.run("compare", config, manifest, out))
    with path.open(newline="") as file:
        table = {row["arm"]: row for row in csv.DictReader(file)}
    assert list(table) == ["low-resolution", "patches (mean)", "patches (vote)", "abmil"]
    assert {row["judged on"] for row in table.values()} == {"test"}
    told = json.loads((out / "compare.json").read_text())
    assert told["mapping"] == "0: 0, 1+: Low, 2+: Low, 3+: High"
    found = {}
    for arm in ("low-resolution", "patches", "abmil"):
        said, classes = read_predictions(out / "arms" / arm / "predictions.csv")
        assert classes == CLASSES
        found[arm] = {part.part: sorted(given.cases) for part, given in said.items()}
    assert found["low-resolution"] == found["patches"] == found["abmil"]
    assert {part: len(cases) for part, cases in found["abmil"].items()} == {
        "train": 5,
        "validation": 4,
        "test": 3,
    }
    assert all(np.sum(row["confusion"]) == 3 for row in told["rows"])
    page = out / "report.html"
    text = page.read_text()
    for words in ("Research use only", "3 cases are few", "patches (vote)", "recall 1+/2+ (ISH unknown)"):
        assert words in text
    page.unlink()
    assert finish(napari_her2_training.report(out))[1] == page
    assert page.read_text() == text
    with pytest.raises(JobFailed, match=r"holds several models: choose one of .*arms/abmil"):
        napari_her2_training.export(out)
    assert {file.name for file in out.glob("*.png")} == {
        f"confusion_{name}.png" for name in ("low-resolution", "patches_mean", "patches_vote", "abmil")
    }
    for arm, method in (("low-resolution", "low-resolution"), ("patches", "patches"), ("abmil", "abmil")):
        card = load_model(out / "arms" / arm / f"tiny-{arm}.safetensors").card
        assert (card.method, card.stain, card.classes) == (method, "IHC", CLASSES)
        assert (card.mpp_range is None) == (arm != "low-resolution")
        assert card.precision == ("bfloat16" if arm == "abmil" else None)
        assert card.class_scores == {"0": ("0",), "Low": ("1+", "2+"), "High": ("3+",)}
        assert "5 slides to train on, 4 to choose the epoch, 3 held out" in card.training_data
    config.write_text(CONFIG.replace('abmil"', 'abmil, dsmil"', 1))
    again, _ = finish(napari_her2_training.run("compare", config, manifest, out, resume=True))
    assert {step.stage for step in again if step.unit == "batches"} == {"Training dsmil"}
    assert len((out / "table.csv").read_text().splitlines()) == 6
    config.write_text(CONFIG.replace("size_px = 64", "size_px = 96"))
    with pytest.raises(JobFailed, match="began with another config"):
        next(napari_her2_training.run("compare", config, manifest, out, resume=True))


MIL = """
[model]
name = "tiny"
training_data = "numbers made up"
[data]
classes = "low"
folds = 2
test = 0.0
ish = true
[head]
architecture = "clam-mb"
width = 8
hidden = 8
epochs = 1
[measure]
resamples = 3
[compute]
device = "cpu"
"""


def test_features_from_files_give_a_head_and_folds_their_spread(tmp_path: Path) -> None:
    scores = ("0", "2+", "3+")
    lines = ["case_id,ihc,score,ish"]
    for number, bag in enumerate(bags(18, 1)):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["features"] = bag.features.astype(np.float32)
        ish = "negative" if number % 3 == 1 else ""
        lines.append(f"{bag.case_id},{number}.h5,{scores[bag.label]},{ish}")
    lines[-1] = "c17,17.h5,2+,positive"
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(lines))
    config, out = tmp_path / "mil.toml", tmp_path / "out"
    config.write_text(MIL)
    _, path = finish(napari_her2_training.run("mil", config, manifest, out))
    assert path.name == "tiny.head.safetensors"
    told = json.loads((out / "metrics.json").read_text())
    assert told["mapping"].endswith("2+ with a positive ISH: High")
    measured = told["measured"][""]["validation"]
    assert (measured["folds"], measured["cases"]) == (2, 18)
    assert np.sum(measured["confusion"], axis=1).tolist() == [6, 6, 6]
    assert measured["measures"]["accuracy"]["sd"] is not None


def test_weights_that_cannot_be_had_are_told_before_a_slide_is_read(tmp_path: Path) -> None:
    rows = ["case_id,ihc,score"]
    for number in range(12):
        (tmp_path / f"{number}.svs").write_text(f"no slide {number}")
        rows.append(f"{number},{number}.svs,{('0', '1+', '2+', '3+')[number % 4]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG.replace("drop_path = 0.0", 'weights = "gone.safetensors"'))
    with pytest.raises(ModelError, match=r"gone\.safetensors"):
        finish(napari_her2_training.run("compare", config, tmp_path / "manifest.csv", tmp_path / "out"))
