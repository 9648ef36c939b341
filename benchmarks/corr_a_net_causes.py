"""What keeps Corr-A-Net below H&E alone, each cause tried by itself and then together, on phantom fields.

Four causes were named: the stem of random kernels, pixels of the representation that see 15 px, scaling to
the range of each field, and few epochs. Each arm changes the network of the paper by what it is called after;
fields, predictor, protocol and seeds are the same for all of them. The protocol is that of the demonstration,
shortened until two busy cores can train all arms (`corr_a_net_cause_arms.SHORT`).

    napari-her2 phantom --out COHORT --cases 160 --seed 1001 --size-px 3072 --mpp 0.5 --mpp 0.25
    napari-her2 phantom --out UNSEEN --cases 80 --seed 5005 --size-px 3072 --mpp 0.5 --mpp 0.25
    python benchmarks/corr_a_net_causes.py COHORT UNSEEN --out OUT [--arms NAME ...] [--seeds 0 1] [--probe]

With ``--probe`` no predictor is trained: `corr_a_net_probe` reads the score in seconds, free of how a
predictor learns, and tells how much of the score the fields hold for it.

What is finished in OUT is not trained again, so that arms can be added, or trained by several processes. The
table has, for each arm, the processor seconds and the weights it costs, how well it does on fields of cases
that no arm saw, and its differences to H&E alone and to the network of the paper: means over the seeds, with
the 95 % interval of drawing cases anew (fields of a case are alike), alike for both.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.metrics import recall_score

from corr_a_net_cause_arms import BASE, CAUSES, PLAIN, SHORT, Arms
from unseen import macro_auc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DRAWS = 400


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    present = np.unique(labels)
    found = recall_score(labels, probabilities.argmax(1), labels=present, average="macro", zero_division=0)
    return float(found)


MEASURES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "balanced accuracy": balanced_accuracy,
    "macro AUC": macro_auc,
}


def difference(
    own: list[np.ndarray],
    base: list[np.ndarray],
    labels: np.ndarray,
    cases: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], float],
    draws: int = DRAWS,
) -> tuple[float, float, float]:
    """Mean over the seeds of how far an arm is above another, and its 95 % interval, cases drawn anew.

    Parameters
    ----------
    own, base : list of (N, C) float
        Probabilities of the fields, one array for each seed; both arms of a seed belong together.
    labels : (N,) int
    cases : (N,)
        Of which case each field is.
    measure : callable
        Of labels and probabilities.
    """
    names = np.unique(cases)
    of_case = {name: np.flatnonzero(cases == name) for name in names}

    def gain(chosen: np.ndarray) -> float:
        each = [
            measure(labels[chosen], a[chosen]) - measure(labels[chosen], b[chosen])
            for a, b in zip(own, base, strict=True)
        ]
        return float(np.mean(each))

    rng = np.random.default_rng(0)
    values = [
        gain(np.concatenate([of_case[name] for name in rng.choice(names, len(names))])) for _ in range(draws)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    return gain(np.arange(len(labels))), float(low), float(high)


def print_table(arms: Arms, names: list[str], seeds: list[int]) -> dict[str, object]:
    """Print the table of the arms that are finished for all seeds, and return it."""
    listed = arms.unseen_fields().listed("test")
    labels, cases = np.array(listed.labels), np.array(listed.cases)
    print(
        f"\n{len(np.unique(cases))} unseen cases, {len(labels)} fields; {len(seeds)} trainings of each arm\n"
    )
    against = {BASE: "to H&E alone", PLAIN: "to that of the paper"}
    against = {name: words for name, words in against.items() if name in names}
    measured = [
        f"{measure} | {' | '.join(f'{words} (95 %)' for words in against.values())}" for measure in MEASURES
    ]
    print(f"| arm | network: CPU s | weights | predictor: CPU s | {' | '.join(measured)} |")
    print("|---" * (4 + len(MEASURES) * (1 + len(against))) + "|")
    judged_by = {name: [arms.judge(name, seed) for seed in seeds] for name in names}
    table: dict[str, object] = {}
    for name in names:
        costs = [arms.train(name, seed) for seed in seeds]
        cost = {key: float(np.mean([each[key] for each in costs])) for key in costs[0]}
        row: dict[str, object] = {"cost": cost}
        cells = [name, *(f"{cost[key]:.0f}" if key in cost else "" for key in _COSTS)]
        for measure, of in MEASURES.items():
            values = [of(labels, each) for each in judged_by[name]]
            gains = {
                words: difference(judged_by[name], judged_by[other], labels, cases, of)
                for other, words in against.items()
                if other != name
            }
            row[measure] = {"each": values} | gains
            cells.append(", ".join(f"{value:.3f}" for value in values))
            for words in against.values():
                gain = gains.get(words)
                cells.append("" if gain is None else f"{gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})")
        table[name] = row
        print(f"| {' | '.join(cells)} |", flush=True)
    return table


_COSTS = ("network, s", "network weights", "predictor, s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="folder of the cases to learn from")
    parser.add_argument("unseen", type=Path, help="folder of the cases to judge on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=tuple(CAUSES), default=list(CAUSES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--whole", action="store_true", help="the protocol of the demonstration, not shortened"
    )
    parser.add_argument("--probe", action="store_true", help="read the score by a fixed probe, in seconds")
    parser.add_argument("--train-only", action="store_true", help="judge nothing yet")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = Arms(
        options.cohort / "manifest.csv",
        options.unseen / "manifest.csv",
        options.out,
        {} if options.whole else SHORT,
        probe=options.probe,
    )
    arms.cut()
    for seed in options.seeds:
        for name in options.arms:
            print(f"{name}, seed {seed}: {arms.train(name, seed)}", flush=True)
    if options.train_only:
        return
    names = list(dict.fromkeys([BASE, *options.arms]))
    table = print_table(arms, names, options.seeds)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
