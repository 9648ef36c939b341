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
from napari_her2.inference.result import Progress
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.models.squeeze_excitation import SqueezeExcitation
from napari_her2.models.weights_file import check_tensors, read_weights, write_weights
from napari_her2_training.cohort.manifest import SPLITS, read_manifest
from napari_her2_training.cohort.splits import Split, make_splits
from napari_her2_training.corr_a_net.arms import STAINS_OF, Arm, NetworkArm
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
    CorrANetTask,
    new_network,
    represent_steps,
)
from napari_her2_training.files import OWN_FILES, write_json
from napari_her2_training.measures.arms import METRICS_FILE
from napari_her2_training.running.arm import TrainedFold, run_arm
from napari_her2_training.running.cards import round_weights
from napari_her2_training.running.fitting import fit_steps
from napari_her2_training.running.machines import choose_machines
from napari_her2_training.running.runs import open_run

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from numpy.typing import NDArray

    from napari_her2.models.predictors import Predictor
    from napari_her2_training.cohort.manifest import Case
    from napari_her2_training.corr_a_net.config import CorrANetConfig

METHOD = "corr-a-net"


def open_fields(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, FieldRun]:
    """Begin or resume a run, and list its fields.

    Parameters
    ----------
    config : CorrANetConfig
    data : Path
        Manifest of registered slides, or a folder of patches (`napari_her2_training.corr_a_net.bci_folder`).
    out : Path
    resume : bool

    Yields
    ------
    Progress

    Returns
    -------
    FieldRun
    """
    folder: BCIFolder | None = None
    cases: tuple[Case, ...] = ()
    splits: tuple[Split, ...] = (Split((), ()),)
    if is_bci_folder(data):
        folder = BCIFolder(data, config.data)
    else:
        cases = read_manifest(data, ("he", "ihc"))
        splits = make_splits(cases, config.data)
    device = choose_machines(config.compute)
    run = open_run(out, config, data, resume=resume)
    fields = run.path / "fields"
    fields.mkdir(exist_ok=True)
    source = folder or (yield from plan_fields(splits[0], config.data, data.parent, fields / "fields.json"))
    return FieldRun(config, data, cases, splits, run, device, FieldStore(fields, source))


def network_steps(run: FieldRun, arm: NetworkArm) -> Generator[Progress, None, CorrANet]:
    """Train a Corr-A-Net, or load the one that is finished."""
    path = run.path("networks") / f"{arm.slug}{SUFFIX}"
    if path.exists():
        return load_network(path)
    parts = ("train", "validation")
    yield from run.prepare(*((part, stain) for part in parts for stain in STAINS_OF["H&E+IHC"]))
    train, validation = ((run.store.images(part, "he"), run.store.images(part, "ihc")) for part in parts)
    config, seed = run.config, run.config.compute.seed
    network = new_network(config.encoder, dim=arm.dim, attention=arm.attention, seed=seed)
    yield from fit_steps(
        CorrANetTask(network, train, validation, config.network, seed=seed),
        run.path("networks", arm.slug),
        run.device,
        stage=f"Training Corr-A-Net ({arm.name})",
        resume=run.folder.resume,
    )
    round_weights(network)
    save_network(path, network, arm)
    return network


def represent(
    run: FieldRun, network: CorrANet, arm: NetworkArm, *parts: str
) -> Generator[Progress, None, None]:
    """Write the representations of the H&E fields of parts. No IHC is read."""
    for part in parts:
        if len(run.store.listed(part)):
            yield from run.prepare((part, "he"))
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
    if arm.network is not None:
        stacks: tuple[NDArray[Any], ...] = (
            np.load(representations_file(run, arm.network, part), mmap_mode="r"),
        )
    else:
        stacks = tuple(run.store.images(part, stain) for stain in STAINS_OF[arm.input])
    return LabelledFields(stacks, run.store.labels(part))


def predictor_steps(
    run: FieldRun, arm: Arm, network: CorrANet | None
) -> Generator[Progress, None, tuple[Predictor, dict[str, Judged]]]:
    """Train the predictor of an arm and let it judge, or load what is finished.

    Parameters
    ----------
    run : FieldRun
    arm : Arm
    network : CorrANet or None
        With a correlated arm.

    Yields
    ------
    Progress

    Returns
    -------
    tuple of Predictor and dict of str to Judged
        With the weights that are kept, and what it says with them of the validation fields and of those of
        the part that is judged.
    """
    folder = run.path("arms", arm.architecture, arm.slug)
    parts = tuple(dict.fromkeys(("train", "validation", run.judged)))
    if network is not None and arm.network is not None:
        yield from represent(run, network, arm.network, *parts)
    else:
        yield from run.prepare(*((part, stain) for part in parts for stain in STAINS_OF[arm.input]))
    fields = {part: fields_of(run, arm, part) for part in parts}
    predictor = yield from _trained_predictor(run, arm, folder / f"predictor{SUFFIX}", fields)
    judged: dict[str, Judged] = {}
    for part in parts[1:]:
        record = folder / ("judged.npz" if part == run.judged else f"judged-{part}.npz")
        if not record.exists():
            yield Progress("Measuring", unit="fields", note=f"{arm.name}, {part}")
            judge(predictor, fields[part], run.device).save(record)
        judged[part] = Judged.load(record)
    return predictor, judged


def _trained_predictor(
    run: FieldRun, arm: Arm, weights: Path, fields: Mapping[str, LabelledFields]
) -> Generator[Progress, None, Predictor]:
    config, seed = run.config, run.config.compute.seed
    train = fields["train"]
    predictor = new_predictor(
        arm.architecture, channels=train.channels, size_px=config.data.field_px, seed=seed
    )
    if weights.exists():
        given = read_weights(weights).tensors
        check_tensors(predictor.state_dict(), given, weights.name)
        predictor.load_state_dict(dict(given))
        return predictor.requires_grad_(False).eval()
    yield from fit_steps(
        PredictorTask(predictor, train, fields["validation"], config.predictor, seed=seed),
        weights.parent,
        run.device,
        stage=f"Training {arm.architecture} on {arm.name}",
        resume=run.folder.resume,
    )
    round_weights(predictor)
    write_weights(weights, predictor.state_dict(), {"method": "predictor", "arm": arm.name})
    return predictor


def save_network(path: Path, network: CorrANet, arm: NetworkArm) -> None:
    """Write a Corr-A-Net: weights that predictors and comparisons are built on, not a model that scores."""
    arguments = json.dumps({"dim": arm.dim, "attention": arm.attention})
    write_weights(path, network.state_dict(), {"method": METHOD, "arguments": arguments})


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
        dim, attention = int(arguments["dim"]), bool(arguments["attention"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path.name} is no Corr-A-Net: give the file that training it wrote.") from error
    network = CorrANet(dim=dim, attention=attention)
    check_tensors(network.state_dict(), given.tensors, path.name)
    network.load_state_dict(dict(given.tensors))
    return network.requires_grad_(False).eval()


def has_attention(network: CorrANet) -> bool:
    """Whether squeeze-excitation weighs the channels of a network."""
    return isinstance(network.weigh_he, SqueezeExcitation)


def train_corr_a_net(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool
) -> Generator[Progress, None, Path]:
    """Train Corr-A-Net and write what it makes of all H&E fields; see `napari_her2_training.run`.

    The IHC of the test fields is never read.

    Returns
    -------
    Path
        The weights, for [predictor] network.
    """
    run = yield from open_fields(config, data, out, resume=resume)
    arm = NetworkArm(config.network.dim, config.network.attention)
    network = yield from network_steps(run, arm)
    yield from represent(run, network, arm, *SPLITS)
    path = out / f"{config.model.name}{SUFFIX}"
    save_network(path, network, arm)
    write_json(
        out / METRICS_FILE,
        {
            "model": path.name,
            "device": run.device.name,
            "fields": run.counts,
        },
    )
    return path


def train_field_predictor(
    config: CorrANetConfig, data: Path, out: Path, *, resume: bool
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
        if not wanted.network:
            raise JobFailed(
                "[predictor] input is 'correlated': name the file that training Corr-A-Net wrote in network."
            )
        network = load_network(Path(wanted.network).expanduser())
        arm = replace(arm, network=NetworkArm(network.dim, has_attention(network)))
        round_weights(network)  # of an older training
    run = yield from open_fields(config, data, out, resume=resume)

    def train_fold(_number: int, _split: Split) -> Generator[Progress, None, TrainedFold]:
        predictor, judged = yield from predictor_steps(run, arm, network)
        return trained_fold(run, arm, network, predictor, judged)

    return (yield from run_arm(run, train_fold))
