"""What each option of a training changes on phantom cases: against the default, seed by seed.

    python benchmarks/training_options.py                  # 20 cases to learn, 20 to judge: 15 minutes
    python benchmarks/training_options.py --only "class weights" --seeds 5 --csv runs.csv

Every run judges the same balanced test cases, which teach nothing and choose nothing; a seed gives the split
of the others into training and validation, the first weights and every draw. An option and its default share
the seeds, so their differences are paired; the interval is that of Student at 95 % over the seeds: it says
how far training varies on these cases, not what other cases would give. "beyond chance" are measures whose
interval leaves 0 out still when all rows are counted (Bonferroni). Log loss is that of the calibrated
probabilities, less is better; AUC is the mean over the classes, each against the others.

Runs on kept features have the encoder of the demonstration model, which learnt from other phantom cases, or
with --features random an AlexNet of random weights, from which a head learns next to nothing here. Runs that
let an encoder learn patches take the smallest network of timm. What is measured is whether an option does
what it should in this program: morphology and stains of the phantom are drawn, and no figure here says what
an option gives on tissue.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

from napari_her2.models.encoders import build_encoder
from napari_her2.phantom.cohort import cohort_steps
from napari_her2.steps import finished
from napari_her2_training.measures.predictions import Part, read_predictions
from napari_her2_training.methods import find_method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_her2_training.measures.predictions import Predictions

Sections = dict[str, dict[str, Any]]
CLASSES = 4
CONFIDENCE = 0.95
QUIET: Sections = {
    "model": {"name": "options", "training_data": "phantom"},
    "data": {"check_stains": False, "stratified": True},
    "measure": {"resamples": 0},
    "doubt": {"familiarity": False, "sets": False},
    "compute": {"device": "cpu"},
}
DEMO = {"name": "model:demo-attention-mil"}
FROZEN: dict[str, Any] = {}
"""Stands for the encoder of runs on kept features, which --features chooses."""
BAGS = {"size": 30, "batch_size": 16, "train_batches": 20, "validation_batches": 6}
ATTENTION: Sections = {"encoder": FROZEN, "bags": BAGS, "head": {"epochs": 15}, "data": {"validation": 0.4}}
MIL: Sections = {
    "encoder": FROZEN,
    "tiles": {"tile_px": 96},
    "head": {"epochs": 20},
    "data": {"stain": "he", "classes": "scores", "validation": 0.4},
}
PATCHES: Sections = ATTENTION | {
    "encoder": {"name": "timm:test_resnet", "weights": "random"},
    "pretraining": {"epochs": 4, "patches_per_slide": 50, "batch_size": 64, "learning_rate": 1e-3},
}
TUNED: Sections = {
    "pretraining": {"epochs": 2, "patches_per_slide": 50, "batch_size": 64, "blocks": 2},
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """An option beside its default.

    Parameters
    ----------
    name : str
    words : str
        What is compared, for the table.
    method : str
    default : Sections
        Configuration without the option.
    option : Sections
        What it changes.
    rare : bool
        Whether classes 0 and 3+ are thinned among the cases to learn from.
    """

    name: str
    words: str
    method: str
    default: Sections
    option: Sections = field(default_factory=dict)
    rare: bool = False


COMPARISONS = (
    Comparison(
        "early stop", "[stopping] patience 3, of 15 epochs", "attention-mil", ATTENTION,
        {"stopping": {"patience": 3}},
    ),
    Comparison(
        "guidance", "[head] guidance 0.5 with outlines", "attention-mil", ATTENTION,
        {"head": {"guidance": 0.5}, "pretraining": {"regions": "{case_id}_tumour.geojson"}},
    ),
    Comparison(
        "early stop, ABMIL", "[stopping] patience 5, of 20 epochs", "mil", MIL, {"stopping": {"patience": 5}}
    ),
    Comparison(
        "kept epoch", "[head] keep error and loss, not macro F1", "mil", MIL,
        {"head": {"keep": "error and loss"}},
    ),
    Comparison(
        "class weights", "[head] balance weights, not none; rare classes", "mil",
        MIL | {"head": {"epochs": 20, "balance": "none"}}, {"head": {"balance": "weights"}}, rare=True,
    ),
    Comparison(
        "class sampler", "[head] balance sampler, not none; rare classes", "mil",
        MIL | {"head": {"epochs": 20, "balance": "none"}}, {"head": {"balance": "sampler"}}, rare=True,
    ),
    Comparison(
        "pre-training", "[pretraining] epochs 4, not 0", "attention-mil",
        PATCHES | {"pretraining": {}}, PATCHES,
    ),
    Comparison(
        "stain augmentation", "[pretraining] stain_jitter 0.15, not 0", "attention-mil",
        PATCHES | {"pretraining": PATCHES["pretraining"] | {"stain_jitter": 0.0}},
        {"pretraining": {"stain_jitter": 0.15}},
    ),
    Comparison(
        "scale augmentation", "[pretraining] scale_jitter 0.2, not 0", "attention-mil", PATCHES,
        {"pretraining": {"scale_jitter": 0.2}},
    ),
    Comparison(
        "fine-tuning", "[pretraining] blocks 2 of the demonstration's encoder, not frozen", "attention-mil",
        ATTENTION | {"encoder": DEMO}, TUNED,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run gave on the test cases, and its processor seconds."""

    auc: float
    loss: float
    seconds: float


def joined(*parts: Mapping[str, Mapping[str, Any]]) -> Sections:
    """Join configurations, section by section; the last one that sets a key has it."""
    found: Sections = {}
    for part in parts:
        for section, keys in part.items():
            found[section] = {**found.get(section, {}), **keys}
    return found


def judge(test: Predictions) -> tuple[float, float]:
    """Return macro AUC and log loss of test cases."""
    auc = roc_auc_score(np.eye(CLASSES)[test.labels], test.probabilities, average="macro")
    return float(auc), float(log_loss(test.labels, test.calibrated, labels=range(CLASSES)))


class Runs:
    """Trains configurations on a cohort; one that was trained already is not trained again.

    Parameters
    ----------
    folder : Path
        For its cohort and the runs.
    cases, test : int
        Cases to learn from, and to judge.
    size_px : int
    features : str
        "demo" or "random": the encoder of runs on kept features.
    """

    def __init__(self, folder: Path, *, cases: int, test: int, size_px: int, features: str) -> None:
        self.folder, self.frozen = folder, dict(DEMO)
        steps = cohort_steps(folder, cases=cases, test=test, seed=31, size_px=size_px, mpp=0.5)
        self.manifests = {False: finished(steps), True: folder / "rare.csv"}
        thin(self.manifests[False], self.manifests[True])
        if features == "random":
            state = build_encoder("alexnet", tile_px=96, seed=5).backbone.state_dict()
            weights = folder / "alexnet.safetensors"
            save_file({key: value.contiguous() for key, value in state.items()}, weights)
            self.frozen = {"name": "alexnet", "weights": str(weights)}
        self.known: dict[str, Judged] = {}

    def run(self, method: str, sections: Sections, seed: int, *, rare: bool) -> Judged:
        """Train and judge a configuration with a seed."""
        seeded = joined(QUIET, sections, {"data": {"seed": seed}, "compute": {"seed": seed}})
        seeded["encoder"] = seeded["encoder"] or self.frozen
        key = repr((method, seeded, rare))
        if key not in self.known:
            out, known = self.folder / f"run{len(self.known)}", find_method(method)
            began = time.process_time()
            config = known.config.parse(seeded)
            finished(known.load()(config, self.manifests[rare], out, resume=False))
            parts, _ = read_predictions(out / "predictions.csv")
            seconds = time.process_time() - began
            self.known[key] = Judged(*judge(parts[Part(0, "test")]), seconds)
        return self.known[key]


def thin(manifest: Path, out: Path) -> None:
    """Write the manifest without most of the cases of 0 and 3+ that are learnt from: every third is left."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seen = {"0": 0, "3+": 0}
    kept = []
    for row in rows:
        if row["split"] != "test" and row["score"] in seen:
            seen[row["score"]] += 1
            if seen[row["score"]] % 3 != 1:
                continue
        kept.append(row)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)


def interval(differences: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Return the mean of paired differences, and its interval by Student's t."""
    values = np.asarray(differences)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return mean, mean - half, mean + half


def row_of(made: Comparison, pairs: Sequence[tuple[Judged, Judged]], rows: int) -> str:
    """Return the row of a comparison."""
    cells = [made.name, made.words, str(len(pairs))]
    beyond = []
    for name, digits in (("auc", 3), ("loss", 3)):
        before = [getattr(default, name) for default, _ in pairs]
        differences = [getattr(other, name) - getattr(default, name) for default, other in pairs]
        mean, low, high = interval(differences)
        _, lowest, highest = interval(differences, 1 - (1 - CONFIDENCE) / rows)
        cells.append(f"{np.mean(before):.{digits}f}")
        cells.append(f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})")
        if lowest > 0 or highest < 0:
            beyond.append({"auc": "AUC", "loss": "log loss"}[name])
    cells.append(", ".join(beyond) or "none")
    cells.append(f"{np.mean([own.seconds for pair in pairs for own in pair]):.0f}")
    return f"| {' | '.join(cells)} |"


def compare(runs: Runs, wanted: Iterable[Comparison], seeds: int, log: Path | None) -> None:
    """Print the table, a row a comparison, and write every run."""
    wanted = tuple(wanted)
    print(
        "| option | against | seeds | AUC | difference | log loss | difference | beyond chance | s a run |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    lines = []
    for made in wanted:
        pairs = []
        for seed in range(seeds):
            pair = [
                runs.run(made.method, sections, seed, rare=made.rare)
                for sections in (made.default, joined(made.default, made.option))
            ]
            pairs.append((pair[0], pair[1]))
            lines += [
                [made.name, which, seed, own.auc, own.loss, own.seconds]
                for which, own in zip(("default", "option"), pair, strict=True)
            ]
        print(row_of(made, pairs, len(wanted)), flush=True)
    if log is not None:
        with log.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["option", "which", "seed", "macro AUC", "log loss", "processor seconds"])
            writer.writerows(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20, help="phantom cases to learn from")
    parser.add_argument("--test", type=int, default=20, help="phantom cases to judge")
    parser.add_argument("--size-px", type=int, default=1024)
    parser.add_argument("--features", choices=("demo", "random"), default="demo", help="of kept features")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=[made.name for made in COMPARISONS], action="append")
    parser.add_argument("--csv", type=Path, default=None, help="also write every run here")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("an interval takes two seeds at least")
    torch.set_num_threads(1)
    began = time.process_time()
    wanted = [made for made in COMPARISONS if not options.only or made.name in options.only]
    with tempfile.TemporaryDirectory() as scratch:
        # Features are kept from run to run, but nothing of a user's.
        os.environ["NAPARI_HER2_CACHE"] = str(Path(scratch, "cache"))
        os.environ["NAPARI_HER2_ENCODERS"] = str(Path(scratch, "encoders"))
        runs = Runs(
            Path(scratch),
            cases=options.cases,
            test=options.test,
            size_px=options.size_px,
            features=options.features,
        )
        print(
            f"{options.cases} phantom cases to learn from, {options.test} to judge, {options.size_px} px, "
            f"{options.seeds} seeds; PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n"
        )
        compare(runs, wanted, options.seeds, options.csv)
    print(f"\n{time.process_time() - began:,.0f} s of processor")


if __name__ == "__main__":
    main()
