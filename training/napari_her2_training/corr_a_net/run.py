"""Corr-A-Net and its predictors from fields to files: the ways that single runs and the table share.

``OUT/fields`` holds the fields, ``OUT/networks`` the Corr-A-Nets, ``OUT/representations`` what they make of
H&E, ``OUT/arms`` the predictors. What is finished is not made again when a run resumes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import JobFailed, ModelError
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.models.squeeze_excitation import SqueezeExcitation
from napari_her2.models.weights_file import check_tensors, read_weights, write_weights
from napari_her2.steps import Progress
from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.cohort.outlines import check_outlines
from napari_her2_training.cohort.splits import Split
from napari_her2_training.cohort.table import Table, read_table
from napari_her2_training.corr_a_net.arms import STAINS_OF, Arm, NetworkArm, own_network
from napari_her2_training.corr_a_net.bci_folder import BCIFolder, is_bci_folder
from napari_her2_training.corr_a_net.bundle import trained_fold
from napari_her2_training.corr_a_net.field_run import FieldRun
from napari_her2_training.corr_a_net.fields import FieldStore
from napari_her2_training.corr_a_net.measures import Judged, judge
from napari_her2_training.corr_a_net.predictor import (
    LabelledFields,
    PredictorTask,
    new_predictor,
)
from napari_her2_training.corr_a_net.slide_fields import plan_fields
from napari_her2_training.corr_a_net.training import (
    PATCHES,
    CorrANetTask,
    fit_range,
    new_network,
    represent_steps,
)
from napari_her2_training.encoder.counting import warn_of_download
from napari_her2_training.files import OWN_FILES, write_json
from napari_her2_training.findings import Enough, noted
from napari_her2_training.measures.arms import METRICS_FILE
from napari_her2_training.running.arm import run_arm
from napari_her2_training.running.cards import round_weights
from napari_her2_training.running.machines import choose_machines
from napari_her2_training.running.ranks import first_alone
from napari_her2_training.running.runs import RunFolder, open_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from numpy.typing import NDArray

    from napari_her2.models.predictors import Predictor
    from napari_her2_training.corr_a_net.config import CorrANetConfig, StemConfig
    from napari_her2_training.corr_a_net.fields import FieldSource
    from napari_her2_training.findings import Findings
    from napari_her2_training.running.arm import Judging

METHOD = "corr-a-net"


def open_fields(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
) -> Generator[Progress, None, FieldRun]:
    """Begin or resume a run, and list its fields.

    Parameters
    ----------
    config : CorrANetConfig
    data : Path
        Manifest of registered slides, or a folder of patches (`napari_her2_training.corr_a_net.bci_folder`).
    out : Path
    resume : bool
    findings : Findings, optional
        Nothing is cut, and nothing written.
    """
    own, fields = config.data, out / "fields"
    patches: BCIFolder | None = None
    table = Table((), (Split((), ()),))
    if is_bci_folder(data):
        patches = BCIFolder(data, own)
        if findings is not None:
            patches.tell(findings)
    else:
        table = read_table(data, ("he", "ihc"), own, findings)
        check_outlines(own.regions, "[data] regions", table.judged, data.parent, findings)
    device = choose_machines(config.compute, findings)
    folder = RunFolder(out, resume) if findings else open_run(out, config, data, resume=resume)
    source: FieldSource
    if patches is not None:
        source = patches
    elif table.splits:
        with first_alone():
            source = yield from plan_fields(
                table.splits[0], own, data.parent, fields / "fields.json", findings
            )
    else:
        raise Enough
    store = FieldStore(fields, source, findings)
    run = FieldRun(config, data, table, folder, device, findings, store=store)
    if findings is not None:
        findings.facts["Fields"] = ", ".join(f"{part} {count:,}" for part, count in run.counts.items())
        findings.disk_bytes += sum(run.counts.values()) * 2 * 3 * own.field_px**2
        if not all(run.counts[part] for part in ("train", "validation")):
            raise Enough
    return run


def network_steps(run: FieldRun, arm: NetworkArm) -> Generator[Progress, None, CorrANet]:
    """Train a Corr-A-Net, or load the one that is finished."""
    path = run.path("networks") / f"{arm.slug}{SUFFIX}"
    if run.made(path):
        return load_network(path)
    parts = ("train", "validation")
    yield from run.prepare(*((part, stain) for part in parts for stain in STAINS_OF["H&E+IHC"]))
    train, validation = ((run.store.images(part, "he"), run.store.images(part, "ihc")) for part in parts)
    own, seed = run.config.network, run.config.compute.seed
    network = new_network(_stem(run), arm, seed=seed)
    side = run.config.data.field_px
    yield from run.learn(
        CorrANetTask(
            network, train, validation, own, seed=seed, learn_stem=run.config.encoder.weights == PATCHES
        ),
        run.path("networks", arm.slug),
        f"Training Corr-A-Net ({arm.name})",
        # All fields are represented whole.
        judged=sum(run.counts.values()) / own.batch_size * (side / (own.crop_px or side)) ** 2,
        alike=arm,
    )
    if run.findings is not None:
        run.findings.disk_bytes += sum(run.counts.values()) * arm.dim * side**2 * 2  # representations
        return network
    round_weights(network)
    fit_range(network, train[0], run.device)
    round_weights(network)
    with first_alone() as first:
        if first:
            save_network(path, network, arm)
    return network


def _stem(run: FieldRun) -> StemConfig:
    """Return the stem of a network; where it is only counted, one whose weights need no download."""
    stem, findings = run.config.encoder, run.findings
    if findings is None:
        return stem
    with findings.noted():
        if (
            stem.weights not in ("random", "pretrained", PATCHES)
            and not Path(stem.weights).expanduser().is_file()
        ):
            raise JobFailed(f"There is no file {stem.weights}: [encoder] weights must name one.")
    warn_of_download(stem.name, stem.weights, findings)
    return replace(stem, weights="random")


def represent(
    run: FieldRun, network: CorrANet, arm: NetworkArm, *parts: str
) -> Generator[Progress, None, None]:
    """Write the representations of the H&E fields of parts. No IHC is read."""
    for part in parts:
        if len(run.store.listed(part)):
            yield from run.prepare((part, "he"))
            if run.findings is None:
                with first_alone():
                    yield from represent_steps(
                        network,
                        run.store.images(part, "he"),
                        representations_file(run, arm, part),
                        run.device,
                        stage=f"Representing H&E ({arm.name}, {part})",
                    )


def representations_file(run: FieldRun, arm: NetworkArm, part: str) -> Path:
    """Return where the representations of a part are kept."""
    return run.path("representations", arm.slug) / f"{part}.npy"


def fields_of(run: FieldRun, arm: Arm, part: str) -> LabelledFields:
    """Return what the predictor of an arm looks at; all of it was made before."""
    stacks: tuple[NDArray[Any], ...]
    if arm.network is None:
        stacks = tuple(run.store.images(part, stain) for stain in STAINS_OF[arm.input])
    elif run.findings is None:
        stacks = (np.load(representations_file(run, arm.network, part), mmap_mode="r"),)
    else:
        side = run.config.data.field_px
        stacks = (np.broadcast_to(np.float16(0.5), (run.counts[part], arm.network.dim, side, side)),)
    return LabelledFields(stacks, run.store.labels(part))


def predictor_steps(
    run: FieldRun, arm: Arm, network: CorrANet | None
) -> Generator[Progress, None, tuple[Predictor, dict[str, LabelledFields]]]:
    """Train the predictor of an arm, or load what is finished.

    Parameters
    ----------
    run : FieldRun
    arm : Arm
    network : CorrANet or None
        With a correlated arm.

    Returns
    -------
    tuple of Predictor and dict of str to LabelledFields
        With the weights that are kept, and what it looks at in each part.
    """
    parts = tuple(dict.fromkeys(("train", "validation", run.judged)))
    if network is not None and arm.network is not None:
        yield from represent(run, network, arm.network, *parts)
    else:
        yield from run.prepare(*((part, stain) for part in parts for stain in STAINS_OF[arm.input]))
    fields = {part: fields_of(run, arm, part) for part in parts}
    config, seed = run.config.predictor, run.config.compute.seed
    train, validation = fields["train"], fields["validation"]
    predictor = new_predictor(
        arm.architecture, channels=train.channels, size_px=run.config.data.field_px, seed=seed
    )
    weights = run.path("arms", arm.architecture, arm.slug) / f"predictor{SUFFIX}"
    if run.made(weights):
        given = read_weights(weights).tensors
        check_tensors(predictor.state_dict(), given, weights.name)
        predictor.load_state_dict(dict(given))
        return predictor.requires_grad_(False).eval(), fields
    yield from run.learn(
        PredictorTask(predictor, train, validation, config, seed=seed),
        weights.parent,
        f"Training {arm.architecture} on {arm.name}",
        judged=run.counts["test"] / config.batch_size,
        alike=arm.architecture,  # what an arm looks at changes the first layer alone
    )
    if run.findings is None:
        round_weights(predictor)
        with first_alone() as first:
            if first:
                write_weights(weights, predictor.state_dict(), {"method": "predictor", "arm": arm.name})
    return predictor, fields


def judge_steps(
    run: FieldRun, arm: Arm, predictor: Predictor, fields: Mapping[str, LabelledFields]
) -> Generator[Progress, None, dict[str, Judged]]:
    """Let a predictor judge the validation fields, and those of the part that is judged, unless it did."""
    folder = run.path("arms", arm.architecture, arm.slug)
    judged: dict[str, Judged] = {}
    for part in fields:
        if part == "train":
            continue
        record = folder / ("judged.npz" if part == run.judged else f"judged-{part}.npz")
        if not record.exists():
            yield Progress("Measuring", unit="fields", note=f"{arm.name}, {part}")
            judge(predictor, fields[part], run.device).save(record)
        judged[part] = Judged.load(record)
    return judged


def save_network(path: Path, network: CorrANet, arm: NetworkArm) -> None:
    """Write a Corr-A-Net: weights that predictors and comparisons are built on, not a model that scores."""
    write_weights(path, network.state_dict(), {"method": METHOD, "arguments": json.dumps(arm.arguments)})


def load_network(path: Path) -> CorrANet:
    """Read what `save_network` wrote.

    Raises
    ------
    ModelError
        If it is something else, or damaged.
    """
    given = read_weights(path)
    try:
        arguments = OWN_FILES.parsed_json(given.metadata["arguments"], path)
        arm = NetworkArm(
            int(arguments["dim"]),
            bool(arguments["attention"]),
            int(arguments.get("dilation", 1)),
            str(arguments.get("scaling", "field")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path.name} is no Corr-A-Net: give the file that training it wrote.") from error
    network = CorrANet(**arm.arguments)  # type: ignore[arg-type]
    check_tensors(network.state_dict(), given.tensors, path.name)
    network.load_state_dict(dict(given.tensors))
    return network.requires_grad_(False).eval()


def arm_of(network: CorrANet) -> NetworkArm:
    """Return what kind a network is."""
    attention = isinstance(network.weigh_he, SqueezeExcitation)
    return NetworkArm(network.dim, attention, network.dilation, network.scaling)


def train_corr_a_net(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
) -> Generator[Progress, None, Path]:
    """Train Corr-A-Net and write what it makes of all H&E fields; see `napari_her2_training.run`.

    The IHC of the test fields is never read.

    Returns
    -------
    Path
        The weights, for [predictor] network.
    """
    run = yield from open_fields(config, data, out, resume=resume, findings=findings)
    arm = own_network(config)
    network = yield from network_steps(run, arm)
    yield from represent(run, network, arm, *SPLITS)
    path = out / f"{config.model.name}{SUFFIX}"
    with first_alone() as first:
        if first and findings is None:
            save_network(path, network, arm)
            summary = {"model": path.name, "device": run.device.name, "fields": run.counts}
            write_json(out / METRICS_FILE, summary)
    return path


def train_field_predictor(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
) -> Generator[Progress, None, Path]:
    """Train a predictor on one input; see `napari_her2_training.run`.

    Returns
    -------
    Path
        The model that scores slides, or the predictor's weights where it needs IHC.
    """
    wanted = config.predictor
    network = None
    arm = Arm(wanted.architecture, wanted.input)
    if wanted.input == "correlated":
        arm = replace(arm, network=own_network(config))
        with noted(findings):
            if not wanted.network:
                raise JobFailed(
                    "[predictor] input is 'correlated': name the file that training Corr-A-Net wrote in "
                    "network."
                )
            network = load_network(Path(wanted.network).expanduser())
            arm = replace(arm, network=arm_of(network))
            round_weights(network)  # of an older training
    run = yield from open_fields(config, data, out, resume=resume, findings=findings)

    def train_fold(_number: int, _split: Split) -> Generator[Progress, None, Callable[[], Judging]]:
        predictor, fields = yield from predictor_steps(run, arm, network)

        def judging() -> Judging:
            judged = yield from judge_steps(run, arm, predictor, fields)
            return trained_fold(run, arm, network, predictor, judged)

        return judging

    return (yield from run_arm(run, train_fold))
