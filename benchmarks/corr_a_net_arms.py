"""How well the arms of a Corr-A-Net table do on phantom cases that no training saw.

Takes the folder of a ``train corr-a-net-table`` run, cuts fields of a cohort from another seed by the run's
own rule (as many a slide, as much tumour), lets every finished arm judge them, and prints markdown.

    python benchmarks/corr_a_net_arms.py RUN

Of fields: accuracy, balanced accuracy with a 95 % interval, macro AUC, MCC, mean effective confidence. Of
cases: the mean of the probabilities of a case's fields, weighted by confidence, as scoring does. The
intervals draw cases anew, not fields, since fields of a case are alike. Then the correlated arm against H&E
alone on the same cases, the correlation of representations with IHC, and the drop in accuracy with its
control.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from sklearn.metrics import recall_score

from napari_her2.inference.device import choose_device
from napari_her2.models.weights_file import read_weights
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.cohort.splits import Split
from napari_her2_training.cohort.table import Table
from napari_her2_training.corr_a_net.arms import STAINS_OF, Arm, predictor_arms
from napari_her2_training.corr_a_net.config import CorrANetConfig
from napari_her2_training.corr_a_net.field_run import FieldRun
from napari_her2_training.corr_a_net.fields import FieldStore
from napari_her2_training.corr_a_net.measures import Judged, correlations_of, drop_of, judge, measures_of
from napari_her2_training.corr_a_net.predictor import LabelledFields, new_predictor
from napari_her2_training.corr_a_net.representation_metrics import compare_paired
from napari_her2_training.corr_a_net.run import load_network
from napari_her2_training.corr_a_net.slide_fields import plan_fields
from napari_her2_training.corr_a_net.table import CONFIG_FILE
from napari_her2_training.corr_a_net.training import represent_steps
from napari_her2_training.running.runs import RunFolder
from unseen import UNSEEN_SEED, unseen_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2.inference.device import Device
    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.models.predictors import Predictor
    from napari_her2.steps import Progress
    from napari_her2_training.corr_a_net.arms import NetworkArm
    from unseen import Case

PART = "test"
T = TypeVar("T")
DRAWS = 1000


def finished(steps: Generator[Progress, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def unseen_run(config: CorrANetConfig, manifest: Path, cache: Path, device: Device) -> FieldRun:
    """All cases as the part that is judged."""
    cases = read_manifest(manifest, ("he", "ihc"))
    cache.mkdir(parents=True, exist_ok=True)
    # Only the test part is there; plan_fields insists on fields to learn from.
    split = Split(cases[:1], cases[:1], cases)
    fields = finished(plan_fields(split, config.data, manifest.parent, cache / "fields.json"))
    folder = RunFolder(cache, resume=True)
    return FieldRun(config, manifest, Table(cases, (split,)), folder, device, store=FieldStore(cache, fields))


def case_means(judged: Judged, cases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and confidence-weighted probabilities of each case."""
    labels, rows = [], []
    for case in np.unique(cases):
        own = cases == case
        weights = judged.confidence[own]
        rows.append((weights[:, None] * judged.probabilities[own]).sum(0) / weights.sum())
        labels.append(judged.labels[own][0])
    return np.array(labels), np.stack(rows)


def balanced(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0))


def by_cases(cases: np.ndarray, measure: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """95 % interval of a measure of fields, cases drawn anew."""
    rng = np.random.default_rng(0)
    names = np.unique(cases)
    of_case = {name: np.flatnonzero(cases == name) for name in names}
    values = [
        measure(np.concatenate([of_case[name] for name in rng.choice(names, len(names))]))
        for _ in range(DRAWS)
    ]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def judged_by(run: FieldRun, folder: Path, arm: Arm) -> tuple[Judged, Predictor, LabelledFields] | None:
    """Let a finished arm judge the unseen fields; None where it is not finished."""
    weights = folder / "arms" / arm.architecture / arm.slug / "predictor.safetensors"
    if not weights.exists():
        return None
    for stain in STAINS_OF[arm.input]:
        finished(run.prepare((PART, stain)))
    if arm.network is None:
        stacks = tuple(run.store.images(PART, stain) for stain in STAINS_OF[arm.input])
    else:
        stacks = (represented(run, folder, arm.network)[1],)
    fields = LabelledFields(stacks, run.store.labels(PART))
    predictor = new_predictor(
        arm.architecture, channels=fields.channels, size_px=run.config.data.field_px, seed=0
    )
    predictor.load_state_dict(dict(read_weights(weights).tensors))
    predictor.requires_grad_(False).eval()
    return judge(predictor, fields, run.device), predictor, fields


def network_file(folder: Path, arm: NetworkArm) -> Path:
    return folder / "networks" / f"{arm.slug}.safetensors"


def represented(run: FieldRun, folder: Path, arm: NetworkArm) -> tuple[CorrANet, np.ndarray]:
    """Return a network, and what it makes of the unseen H&E fields."""
    network = load_network(network_file(folder, arm))
    made = run.store.folder / f"{arm.slug}.npy"
    finished(represent_steps(network, run.store.images(PART, "he"), made, run.device, stage=""))
    return network, np.load(made, mmap_mode="r")


def percent(drop: dict[str, float | None], name: str) -> str:
    value = drop.get(name)
    return "" if value is None else f"{value:.1f}"


def print_arms(folder: Path, cohort: list[Case], *, with_drop: bool = True) -> dict[str, object]:
    """Print, and return, how the finished arms of a run do on fields of cases that they never saw."""
    config = CorrANetConfig.parse(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    device = replace(choose_device(config.compute.device), autocast_dtype=None)
    # The fields follow from [data] and the cohort: others must not meet those of this one.
    manifest = cohort[0].he.parent / "manifest.csv"
    named = hashlib.sha256(config.digest().encode() + manifest.read_bytes()).hexdigest()
    run = unseen_run(config, manifest, folder / f"unseen-{named[:12]}", device)
    cases = np.array(run.store.listed(PART).cases)
    print(f"\n{len(np.unique(cases))} unseen cases, {len(cases)} fields\n")
    print(
        "| arm | fields: accuracy | balanced accuracy | 95 % | macro AUC | MCC | MEC "
        "| cases: balanced accuracy | drop, % | control, % |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    printed: dict[str, object] = {}
    predictions: dict[Arm, np.ndarray] = {}
    for arm in predictor_arms(config):
        found = judged_by(run, folder, arm)
        if found is None:
            continue
        judged, predictor, fields = found
        drop = drop_of(predictor, fields, run.device, seed=0) if with_drop else {}
        labels, predictions[arm] = judged.labels, judged.logits.argmax(1)
        measures = measures_of(judged)
        low, high = by_cases(
            cases, lambda chosen, s=predictions[arm], y=labels: balanced(y[chosen], s[chosen])
        )
        of_cases = case_means(judged, cases)
        case_ba = balanced(of_cases[0], of_cases[1].argmax(1))
        printed[f"{arm.architecture}, {arm.name}"] = measures | {
            "drop": drop, "interval": [low, high], "cases": case_ba
        }  # fmt: skip
        print(
            f"| {arm.name}, {arm.architecture} | {measures['weighted_recall']:.3f} "
            f"| {measures['balanced_accuracy']:.3f} | {low:.3f} to {high:.3f} | {measures['auc']:.3f} "
            f"| {measures['mcc'] or 0:.3f} | {measures['mec']['signed']:.3f} | {case_ba:.3f} "
            f"| {percent(drop, 'soft_percent')} | {percent(drop, 'soft_control_percent')} |",
            flush=True,
        )
    printed["gains"] = gains(predictions, run.store.labels(PART), cases)
    printed["correlations"] = correlations(run, folder, config)
    return printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a table run")
    parser.add_argument("--folder", type=Path, help="of the unseen cohort; by default in the user's cache")
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--seed", type=int, default=UNSEEN_SEED)
    parser.add_argument("--size", type=int, default=3072, help="side of a slide, pixels")
    parser.add_argument("--no-drop", action="store_true", help="leave out Grad-CAM, which takes longest")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    cohort = unseen_cases(options.folder, options.cases, options.seed, options.size)
    printed = print_arms(options.run, cohort, with_drop=not options.no_drop)
    if options.json:
        options.json.write_text(json.dumps(printed, indent=1, ensure_ascii=False), encoding="utf-8")


def gains(of_arms: dict[Arm, np.ndarray], labels: np.ndarray, cases: np.ndarray) -> dict[str, list[float]]:
    """Each correlated arm against H&E alone."""
    found = {}
    for arm, own in of_arms.items():
        plain = of_arms.get(Arm(arm.architecture, "H&E"))
        if arm.network is None or plain is None:
            continue

        def gain(chosen: np.ndarray, a: np.ndarray = own, b: np.ndarray = plain) -> float:
            return balanced(labels[chosen], a[chosen]) - balanced(labels[chosen], b[chosen])

        low, high = by_cases(cases, gain)
        found[arm.name] = [gain(np.arange(len(labels))), low, high]
        gain_words = f"{found[arm.name][0]:+.3f} ({low:+.3f} to {high:+.3f})"
        print(f"\n{arm.name} above H&E alone, balanced accuracy of fields: {gain_words}")
    return found


def correlations(run: FieldRun, folder: Path, config: CorrANetConfig) -> dict[str, object]:
    """Correlation with IHC of the finished networks, whether or not a predictor of theirs is finished."""
    trained = {arm.network for arm in predictor_arms(config) if arm.network is not None}
    networks = {arm for arm in trained if network_file(folder, arm).exists()}
    if not networks:
        return {}
    finished(run.prepare((PART, "he"), (PART, "ihc")))
    values = {}
    print("\n| network | mean abs. r with IHC brightness | control | with DAB | hidden layers |")
    print("|---|---|---|---|---|")
    for arm in sorted(networks, key=lambda arm: (arm.dim, not arm.attention)):
        network, representations = represented(run, folder, arm)
        found = correlations_of(
            network,
            representations,
            run.store.images(PART, "he"),
            run.store.images(PART, "ihc"),
            run.device,
        )
        values[arm] = found
        print(
            f"| {arm.name} | {found.luminance.mean():.3f} | {found.control.mean():.3f} "
            f"| {found.dab.mean():.3f} | {found.hidden.mean():.3f} |"
        )
    printed: dict[str, object] = {arm.name: float(of.luminance.mean()) for arm, of in values.items()}
    for arm, of in values.items():
        plain = next(
            (values[other] for other in values if other.dim == arm.dim and not other.attention), None
        )
        if arm.attention and plain is not None:
            compared = compare_paired(of.luminance, plain.luminance)
            printed[f"d={arm.dim}: p"] = compared.p_value
            both = f"attention {compared.first:.3f} against none {compared.second:.3f}"
            print(f"\nd={arm.dim}, {both}: p = {compared.p_value:.2g} (Wilcoxon, paired)")
    return printed


if __name__ == "__main__":
    main()
