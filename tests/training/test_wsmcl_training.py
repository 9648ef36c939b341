"""WSMCL learns from pairs, resumes where it was killed, and the whole way from features or slides holds."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.models.registry import load_model
from napari_her2.models.weights_file import read_weights
from napari_her2.models.wsmcl import WSMCL
from napari_her2_training.cohort.bags import SlideBag
from napari_her2_training.measures.predictions import read_predictions
from napari_her2_training.running.learner import Learner
from napari_her2_training.wsmcl.config import LossConfig, PairedHeadConfig, PairsConfig
from napari_her2_training.wsmcl.pairs import PairDraw, PairedSlides
from napari_her2_training.wsmcl.training import (
    WSMCLTask,
    new_model,
    predict_pairs,
    predict_slides,
)
from training_steps import CPU, fit_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2.steps import Progress

FEATURES = 12


def features_of(label: int, tiles: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the tiles tell the class of the slide, the others are noise."""
    features = rng.normal(0, 1, (tiles, FEATURES))
    features[rng.choice(tiles, tiles // 2, replace=False), label] += 5
    return features.astype(np.float16)


def slides(count: int, seed: int) -> PairedSlides:
    rng = np.random.default_rng(seed)
    he, ihc = (
        [SlideBag(f"c{n}", n % 4, features_of(n % 4, 24 + n % 5, rng)) for n in range(count)]
        for _ in range(2)
    )
    return PairedSlides(he, ihc)


def training(
    epochs: int, *, rate: float = 3e-3, max_tiles: int = 0, kind: type[WSMCLTask] = WSMCLTask
) -> WSMCLTask:
    head = PairedHeadConfig(width=16, heads=2, landmarks=64, k=4, epochs=epochs, learning_rate=rate)
    model = new_model(head, he_features=FEATURES, ihc_features=FEATURES, classes=4, seed=0)
    draw = PairDraw(slides(32, 1), PairsConfig(max_tiles=max_tiles), classes=4, seed=0)
    return kind(model, draw, slides(12, 2).cases(), head, LossConfig(), accumulate=3, seed=0)


def fitted(task: WSMCLTask, folder: Path, *, resume: bool = False, until: int | None = None) -> WSMCL:
    return fit_until(task, folder, resume=resume, until=until).model


def test_it_learns_what_the_tiles_tell_and_each_head_says_it(tmp_path: Path) -> None:
    model = fitted(training(6), tmp_path)
    unseen = slides(32, 3)
    labels = np.arange(32) % 4
    assert (predict_pairs(model, unseen.cases(), CPU).probabilities.argmax(1) == labels).mean() > 0.95
    # Chance is 1/4. H&E has no loss of its own: it learns from the head of IHC, more slowly.
    for stain, least in (("he", 0.5), ("ihc", 0.95)):
        found = predict_slides(model, unseen.of(stain), stain, CPU).probabilities  # type: ignore[arg-type]
        assert (found.argmax(1) == labels).mean() > least
    # H&E alone is what the model says when it is given the H&E slide alone.
    alone = model(torch.from_numpy(unseen.of("he")[0].features))
    np.testing.assert_allclose(
        predict_slides(model, unseen.of("he"), "he", CPU).probabilities[0],
        alone.probabilities.detach(),
        atol=1e-6,
    )
    assert alone.head == "H&E"


def test_the_last_of_equally_good_epochs_is_kept_and_none_after_it_was_better(tmp_path: Path) -> None:
    values: list[float] = []

    class Watched(WSMCLTask):
        def measures(self, judged):
            found = super().measures(judged)
            values.append(found["validation_macro_auc"])
            return found

    fitted(training(6, kind=Watched), tmp_path)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"]
    assert values.count(max(values)) > 1  # or the test tells nothing
    assert kept == max(n for n, value in enumerate(values) if value == max(values))


def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = fitted(training(3, max_tiles=10), tmp_path / "whole")
    fitted(training(3, max_tiles=10), tmp_path / "killed", until=32 + 5)
    resumed = fitted(training(3, max_tiles=10), tmp_path / "killed", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_gradients_are_summed_over_the_pairs_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(Learner, "on_train_batch_end", lambda self, *_: steps.append(self.global_step))
    fitted(training(1), tmp_path)
    # Every third of 32 pairs, and what is left at the end of the epoch.
    assert steps == [(n + 1) // 3 for n in range(31)] + [11]


CONFIG = """
[model]
name = "tiny"
training_data = "numbers made up"
[data]
folds = 2
test = 0.25
[pairs]
max_tiles = 16
[head]
width = 8
heads = 2
landmarks = 8
k = 4
epochs = 2
learning_rate = 3e-3
[compute]
device = "cpu"
"""
ABLATIONS = """
[[ablation]]
name = "without MACL"
loss.contrastive = 0
[[ablation]]
name = "k 2"
head.k = 2
"""


def write_cohort(folder: Path, count: int = 24, *, rows: dict[int, str] | None = None) -> Path:
    """H&E as HDF5, IHC as tensors of another length."""
    rng = np.random.default_rng(4)
    lines = ["case_id,he,ihc,score"]
    for n in range(count):
        with h5py.File(folder / f"{n}.h5", "w") as file:
            file["features"] = features_of(n % 4, 20, rng).astype(np.float32)
            file["coords"] = np.zeros((20, 2), np.int64)
        torch.save(torch.from_numpy(features_of(n % 4, 18, rng)[:, :10].copy()).float(), folder / f"{n}.pth")
        lines.append((rows or {}).get(n, f"c{n},{n}.h5,{n}.pth,{n % 4}"))
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def finish(steps: Generator[Progress, None, Path]) -> tuple[list[Progress], Path]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def run(folder: Path, text: str, manifest: Path, *, resume: bool = False) -> tuple[list[Progress], Path]:
    config = folder / "config.toml"
    config.write_text(text)
    return finish(napari_her2_training.run("wsmcl", config, manifest, folder / "out", resume=resume))


def test_from_features_to_measures_and_a_table_of_ablations(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    seen, path = run(tmp_path, CONFIG + ABLATIONS, manifest)
    # Nobody knows what made the features: no slide can be scored with it, so there is no bundle.
    assert path.name == "tiny.head.safetensors"
    assert any("which encoder made them is not known" in step.note for step in seen)
    head = read_weights(path)
    model = WSMCL(**json.loads(head.metadata["arguments"]))
    model.load_state_dict(head.tensors)
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert told["cases"] == [{"train": 9, "validation": 9, "test": 6}] * 2
    assert set(told["measured"]) == {"fusion", "H&E", "IHC"}
    assert {"accuracy", "macro AUC", "macro F1"} <= set(told["measured"]["IHC"]["test"]["measures"])
    said, _ = read_predictions(tmp_path / "out" / "predictions.csv")
    values = [
        roc_auc_score(given.labels, given.calibrated, multi_class="ovr")
        for part, given in said.items()
        if (part.part, part.reading) == ("test", "fusion")
    ]
    measured = told["measured"]["fusion"]["test"]["measures"]["macro AUC"]
    assert (measured["value"], measured["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    with (tmp_path / "out" / "ablations.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["variant"] for row in table if (row["cases"], row["head"]) == ("test", "fusion")] == [
        "base",
        "without MACL",
        "k 2",
    ]
    assert float(table[0]["macro AUC"]) == pytest.approx(
        told["measured"]["fusion"]["train"]["measures"]["macro AUC"]["value"], abs=1e-4
    )


def test_a_finished_variant_is_not_trained_again_and_more_can_be_added(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path)
    first, _ = run(tmp_path, CONFIG + ABLATIONS.split('[[ablation]]\nname = "k 2"')[0], manifest)
    assert any(step.stage.startswith("Training WSMCL (without MACL)") for step in first)
    table = (tmp_path / "out" / "ablations.csv").read_text()
    again, _ = run(tmp_path, CONFIG + ABLATIONS, manifest, resume=True)
    trained = {(step.stage, step.fold, step.folds) for step in again if step.epochs}
    assert trained == {("Training WSMCL (k 2)", fold, 2) for fold in (1, 2)}
    assert (tmp_path / "out" / "ablations.csv").read_text().startswith(table)
    changed = CONFIG + ABLATIONS.replace("contrastive = 0", "contrastive = 0.5")
    with pytest.raises(JobFailed, match=r"without MACL began with another config"):
        run(tmp_path, changed, manifest, resume=True)


def test_stains_of_different_people_are_paired_by_class(tmp_path: Path) -> None:
    rows = {n: f"c{n},{n}.h5,,{n % 4}" if n < 12 else f"c{n},,{n}.pth,{n % 4}" for n in range(24)}
    manifest = write_cohort(tmp_path, rows=rows)
    text = CONFIG.replace("folds = 2\ntest = 0.25", "").replace("[pairs]", '[pairs]\nmode = "same-class"')
    lines = manifest.read_text().splitlines()
    parts = ["split", *("validation" if n % 12 >= 8 else "train" for n in range(24))]
    manifest.write_text("\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True)))
    run(tmp_path, text, manifest)
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(told["measured"]) == {"fusion", "H&E", "IHC"}
    assert np.sum(told["measured"]["fusion"]["validation"]["confusion"]) == 4
    with pytest.raises(JobFailed, match="Row 2: no ihc"):
        run(tmp_path, text.replace("same-class", "same-case"), manifest)
    without = [line for line in manifest.read_text().splitlines() if ".pth,2" not in line]
    manifest.write_text("\n".join(without))
    with pytest.raises(JobFailed, match=r"No IHC slide of 2\+ among the train cases to pair"):
        run(tmp_path, text, manifest)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c5,5.h5,,1", "Row 7: no ihc"),
        ("c5,5.h5,none.pth,1", r"Row 7: ihc none\.pth does not exist"),
        ("c5,5.h5,5.h5,1", r"Row 7: he and ihc are the same file, 5\.h5"),
        ("c5,5.h5,4.pth,1", r"Row 7: the slide 4\.pth is that of case c4 in row 6 already"),
        ("c5,slide.svs,5.pth,1", r"Row 7 of the manifest: he slide\.svs is one of slides, those before it"),
        (
            "c5,5.h5,short.pth,1",
            "Row 7 of the manifest, case c5: the IHC features have length 3, those before it",
        ),
        ("c5,5.h5,pickle.pth,1", r"Row 7 of the manifest, case c5: pickle\.pth holds more than a tensor"),
        ("c5,empty.h5,5.pth,1", "Row 7 of the manifest, case c5: .* has no dataset 'features'"),
        ("c5,text.h5,5.pth,1", r"Row 7 of the manifest, case c5: text\.h5 is damaged, or no HDF5 file"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "slide.svs").touch()
    torch.save(torch.zeros(9, 3), tmp_path / "short.pth")
    torch.save({"run": CPU}, tmp_path / "pickle.pth")
    h5py.File(tmp_path / "empty.h5", "w").close()
    (tmp_path / "text.h5").write_text("no features")
    with pytest.raises(JobFailed, match=message):
        run(tmp_path, CONFIG, write_cohort(tmp_path, rows={5: row}))


SLIDES = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
tile_px = 96
validation = 0.5
[encoder]
name = "model:demo-attention-mil"
[head]
width = 8
heads = 2
epochs = 1
[compute]
device = "cpu"
"""


def test_from_slides_to_a_bundle_that_shares_its_encoder(
    cohort_of: Callable[[int, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HER2_PRECISION", "float32")
    cohort_of(8, tmp_path)
    _, path = run(tmp_path, SLIDES, tmp_path / "manifest.csv")
    bundle = load_model(path)
    assert (bundle.card.method, bundle.card.stain) == ("wsmcl", "H&E+IHC")
    assert bundle.card.precision == "float32"
    assert "4 cases to train on, 4 to choose the epoch" in bundle.card.training_data
    assert path.stat().st_size < 1_000_000  # the encoder alone has 5 MB
    shared = load_model("demo-attention-mil").encoder
    assert bundle.encoder.fingerprint() == shared.fingerprint()
    assert set(bundle.card.metrics) >= {
        "validation cases, H&E and IHC: macro AUC",
        "validation cases, H&E alone: macro F1",
        "validation cases, IHC alone: accuracy",
    }
    again = run(tmp_path, SLIDES, tmp_path / "manifest.csv", resume=True)[1]
    assert again.read_bytes() == path.read_bytes()
