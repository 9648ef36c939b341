"""The table of Dutta et al. 2025 for whatever data it is given: every arm by one protocol, then measured.

Corr-A-Net for each width, with and without attention; a predictor for each architecture and each input; on
the test fields weighted precision and recall, balanced accuracy, MCC, areas under ROC and precision-recall
curve, mean effective confidence in its readings, strata of confidence, correlation of the representations
with IHC, and the drop in accuracy under Grad-CAM. Arms that are finished are not trained again on resuming.

``table.csv``, ``strata.csv``, ``correlations.csv`` and ``drops.csv`` in the folder of the run hold the
numbers, PNG files beside them the pictures. Each arm that needs H&E alone also becomes a model, in
``models``; that of [network] and [predictor] is the model of the run.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.export.tables import without_nan
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.class_scores import SCORES
from napari_her2.steps import Progress
from napari_her2.whole_files import whole_file
from napari_her2_training.corr_a_net.arms import predictor_arms
from napari_her2_training.corr_a_net.bundle import trained_fold
from napari_her2_training.corr_a_net.measures import correlations_of, drop_of, measures_of
from napari_her2_training.corr_a_net.plots import draw_plots
from napari_her2_training.corr_a_net.representation_metrics import compare_paired
from napari_her2_training.corr_a_net.run import (
    fields_of,
    judge_steps,
    network_steps,
    open_fields,
    predictor_steps,
    represent,
    representations_file,
)
from napari_her2_training.doubt.counting import count_doubt
from napari_her2_training.files import OWN_FILES, write_csv, write_json
from napari_her2_training.measures.arms import METRICS_FILE
from napari_her2_training.running.arm import calibrated
from napari_her2_training.running.ranks import first_alone, is_first
from napari_her2_training.running.saving import doubt_record, fitted_doubt, keep_doubt, save_model

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from napari_her2.models.corr_a_net import CorrANet
    from napari_her2.models.predictors import Predictor
    from napari_her2_training.corr_a_net.arms import Arm, NetworkArm
    from napari_her2_training.corr_a_net.config import CorrANetConfig
    from napari_her2_training.corr_a_net.field_run import FieldRun
    from napari_her2_training.corr_a_net.measures import Judged
    from napari_her2_training.findings import Findings
    from napari_her2_training.running.trained import TrainedFold

CONFIG_FILE, DOUBT_FILE = "config.json", "doubt.json"
_MEASURES = "measures.json"
_CORRELATIONS = ("luminance", "dab", "hidden", "control")


def train_table(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
) -> Generator[Progress, None, Path]:
    """Train and measure all arms; see `napari_her2_training.run`.

    Returns
    -------
    Path
        The model of the run where one of its arms needs H&E alone; else the table.
    """
    run = yield from open_fields(config, data, out, resume=resume, findings=findings)
    arms = predictor_arms(config)
    if findings is not None:
        findings.facts["Arms"] = f"{len(arms)}: {', '.join(sorted({arm.name for arm in arms}))}"
        findings.leave_out("Grad-CAM and the drop in accuracy of each arm")
        count_doubt(run.splits, config, findings)
    elif is_first():
        write_json(out / CONFIG_FILE, asdict(config))
    networks: dict[NetworkArm, CorrANet] = {}
    measured: dict[Arm, dict[str, Any]] = {}
    # The first correlated arm is that of [network]: the model of the run.
    own = next((arm for arm in arms if arm.deployable and arm.network is not None), None)
    for arm in arms:
        network = None
        if arm.network is not None:
            if arm.network not in networks:
                networks[arm.network] = yield from network_steps(run, arm.network)
            network = networks[arm.network]
        predictor, fields = yield from predictor_steps(run, arm, network)
        if findings is None:
            with first_alone() as first:
                if first:
                    judged = yield from judge_steps(run, arm, predictor, fields)
                    if arm.deployable:
                        fold = trained_fold(run, arm, network, predictor, judged)
                        yield from _save(run, arm, calibrated(fold, config), own=arm == own)
                    measured[arm] = yield from _measured(run, arm, predictor, judged[run.judged])
    with first_alone() as first:
        if first and findings is None:
            yield from _ending(run, networks, measured)
    return out / ("table.csv" if own is None else f"{config.model.name}{SUFFIX}")


def _save(run: FieldRun, arm: Arm, fold: TrainedFold, *, own: bool) -> Generator[Progress, None, None]:
    """Write the model of an arm; where it is that of the run once more, and both with what it has seen.

    Scoring all slides takes minutes for each arm, and those that are only compared are not for use.
    """
    path = run.path("models", arm.architecture) / f"{arm.slug}{SUFFIX}"
    save_model(path, fold, run.splits[0], run.config)
    if own:
        remarks: list[str] = []
        kept = yield from fitted_doubt(path, fold, run.splits[0], run.config, run.device.reader, remarks)
        for each in (path, run.folder.path / f"{run.config.model.name}{SUFFIX}"):
            save_model(each, fold, run.splits[0], run.config)
            keep_doubt(each, kept)
        write_json(run.folder.path / DOUBT_FILE, doubt_record(kept, remarks))


def _ending(
    run: FieldRun, networks: Mapping[NetworkArm, CorrANet], measured: Mapping[Arm, dict[str, Any]]
) -> Generator[Progress, None, None]:
    """Write tables, pictures and metrics.json."""
    out = run.folder.path
    found = yield from _correlations(run, networks)
    _write_tables(out, measured, found)
    draw_plots(out, [(arm.name, arm.architecture, of_arm) for arm, of_arm in measured.items()], found)
    write_json(
        out / METRICS_FILE,
        {
            "device": run.device.name,
            "judged": run.judged,
            "fields": run.counts,
            "arms": [
                {"predictor": arm.architecture, "input": arm.name, **of_arm}
                for arm, of_arm in measured.items()
            ],
            "correlations": {name: _mean_of(values) for name, values in found.items()},
            "attention against none": _attention_or_none(networks, found),
        },
    )


def _measured(
    run: FieldRun, arm: Arm, predictor: Predictor, judged: Judged
) -> Generator[Progress, None, dict[str, Any]]:
    """Measures of an arm, with its drop in accuracy; kept, since Grad-CAM takes its time."""
    path = run.path("arms", arm.architecture, arm.slug) / _MEASURES
    if path.exists():
        known: dict[str, Any] = OWN_FILES.json_object(path)
        return known
    yield Progress("Measuring", unit="fields", note=f"{arm.name}: drop in accuracy")
    fields = fields_of(run, arm, run.judged)
    of_arm = measures_of(judged) | {
        "drop": drop_of(predictor, fields, run.device, seed=run.config.compute.seed)
    }
    write_json(path, of_arm)
    return of_arm


def _correlations(
    run: FieldRun, networks: Mapping[NetworkArm, CorrANet]
) -> Generator[Progress, None, dict[str, Mapping[str, np.ndarray]]]:
    """By the name of the network, a value for each field; the IHC of the judged part is read here."""
    found: dict[str, Mapping[str, np.ndarray]] = {}
    for arm, network in networks.items():
        path = run.path("representations", arm.slug) / "correlations.npz"
        if not path.exists():
            yield from run.prepare((run.judged, "he"), (run.judged, "ihc"))
            yield from represent(run, network, arm, run.judged)
            yield Progress("Measuring", unit="fields", note=f"correlation with IHC ({arm.name})")
            values = correlations_of(
                network,
                np.load(representations_file(run, arm, run.judged), mmap_mode="r"),
                run.store.images(run.judged, "he"),
                run.store.images(run.judged, "ihc"),
                run.device,
            )
            with whole_file(path) as file:
                np.savez(file, **asdict(values))
        with np.load(path, allow_pickle=False) as file:
            found[arm.name] = {name: file[name] for name in _CORRELATIONS}
    return found


def _mean_of(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(of.mean()) for name, of in values.items()}


def _attention_or_none(
    networks: Mapping[NetworkArm, CorrANet], found: Mapping[str, Mapping[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """Wilcoxon's test of each width, on the same fields."""
    rows = []
    for arm in networks:
        plain = next((other for other in networks if other.dim == arm.dim and not other.attention), None)
        if not arm.attention or plain is None:
            continue
        for name in _CORRELATIONS[:-1]:
            compared = compare_paired(found[arm.name][name], found[plain.name][name])
            rows.append({"dim": arm.dim, "with": name, **without_nan(asdict(compared))})
    return rows


def _write_tables(
    out: Path, measured: Mapping[Arm, Mapping[str, Any]], found: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    rows, strata, drops = [], [], []
    for arm, of_arm in measured.items():
        named = {"predictor": arm.architecture, "input": arm.name}
        rows.append(
            named
            | {key: of_arm[key] for key in of_arm if not isinstance(of_arm[key], dict | list)}
            | {f"auc_{score}": v for score, v in zip(SCORES, of_arm["class_auc"], strict=True)}
            | {f"pr_auc_{score}": v for score, v in zip(SCORES, of_arm["class_pr_auc"], strict=True)}
            | {f"mec_{key}": value for key, value in of_arm["mec"].items()}
            | {f"softmax_mec_{key}": value for key, value in of_arm["softmax_mec"].items()}
        )
        strata += [named | {key: stratum[key] for key in _STRATUM} for stratum in of_arm["strata"]]
        drops.append(named | of_arm["drop"])
    correlations = [{"network": name, **_mean_of(values)} for name, values in found.items()]
    for name, table in (
        ("table", rows),
        ("strata", strata),
        ("drops", drops),
        ("correlations", correlations),
    ):
        if table:
            write_csv(out / f"{name}.csv", table)


_STRATUM = ("name", "fields", "share", "accuracy", "auc")
