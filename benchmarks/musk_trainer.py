"""MUSK1 through ``napari-her2 train mil``: the trainer that users have, on data from outside of pathology.

    python benchmarks/musk_trainer.py                   # ten folds, ABMIL and gated ABMIL
    python benchmarks/musk_trainer.py --folds 2 --epochs 5

`benchmarks/musk.py` follows the published optimiser with many models side by side. Here each fold is a run of
the training module: a manifest with the column ``split`` (a tenth of the bags is tested, another tenth picks
the epoch, the rest teaches), features as HDF5, Adam, one layer of 256 units in front and attention of 64,
the epoch with the best macro F1 of the validation bags. So the protocol is another one than the paper's, and
models learn from 74 bags where its had 83: what is shown is that the trainer learns, not a reproduction.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

import napari_her2_training
from musk import FOLDS, PUBLISHED, Bag, find_data, read_musk
from napari_her2_training.measures.predictions import Part, read_predictions

CONFIG = """
[model]
name = "musk"
training_data = "MUSK1"
[data]
classes = "0: other, 1+: other, 2+: musk, 3+: musk"
[head]
architecture = "{architecture}"
width = 256
hidden = 64
dropout = 0.0
epochs = {epochs}
accumulate = 1
learning_rate = 5e-4
weight_decay = 5e-3
balance = "none"
[measure]
resamples = 0
[compute]
device = "cpu"
seed = {seed}
"""
ARCHITECTURES = {"ABMIL": "abmil-plain", "gated ABMIL": "abmil"}


def write_fold(folder: Path, bags: list[Bag], part: list[str]) -> Path:
    """Write features, standardised by the bags that teach, and the manifest of a fold."""
    seen = np.concatenate([bag.features for bag, own in zip(bags, part, strict=True) if own == "train"])
    mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    deviation = np.where(deviation > 1e-8, deviation, 1.0)
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case_id", "ihc", "score", "split"])
        for number, (bag, own) in enumerate(zip(bags, part, strict=True)):
            with h5py.File(folder / f"{number}.h5", "w") as features:
                features["features"] = ((bag.features - mean) / deviation).astype(np.float32)
                features["coords"] = np.zeros((len(bag.features), 2), np.int64)
            writer.writerow([f"bag{number}", f"{number}.h5", 3 if bag.label else 0, own])
    return path


def accuracy(bags: list[Bag], part: list[str], architecture: str, epochs: int, seed: int) -> float:
    """Train on one fold; return the share of its test bags that are told rightly."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = folder / "musk.toml"
        config.write_text(CONFIG.format(architecture=architecture, epochs=epochs, seed=seed))
        for _ in napari_her2_training.run("mil", config, write_fold(folder, bags, part), folder / "run"):
            pass
        by_part, _ = read_predictions(folder / "run" / "predictions.csv")
        test = by_part[Part(0, "test")]
    return float((test.probabilities.argmax(axis=1) == test.labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=None, help="table of MUSK1, CSV")
    parser.add_argument("--folds", type=int, default=FOLDS, help="so many of the ten")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--json", type=Path, default=None, help="also write every fold's accuracy here")
    options = parser.parse_args()
    data = options.data or find_data()
    if not data.is_file():
        raise SystemExit(f"{data} is absent: give --data, or set NAPARI_HER2_TEST_DATA.")
    torch.set_num_threads(1)
    bags = read_musk(data)
    labels = [bag.label for bag in bags]
    tests = [test for _, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels)]
    print("| model | accuracy | s.e. over folds | published, another protocol | s |\n|---|---|---|---|---|")
    found = {}
    for name, architecture in ARCHITECTURES.items():
        start = time.perf_counter()
        values = []
        for number in range(options.folds):
            part = ["train"] * len(bags)
            for own, kind in ((tests[number], "test"), (tests[(number + 1) % FOLDS], "validation")):
                for bag in own:
                    part[bag] = kind
            values.append(accuracy(bags, part, architecture, options.epochs, number))
        found[name] = values
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        print(
            f"| {name} | {np.mean(values):.3f} | {error:.3f} | {PUBLISHED[name][0]:.3f} | "
            f"{time.perf_counter() - start:.0f} |",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
