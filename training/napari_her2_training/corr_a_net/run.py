"""Corr-A-Net and its predictors from fields to files: the ways that single runs and the table share.

``OUT/fields`` holds the fields, ``OUT/networks`` the Corr-A-Nets, ``OUT/representations`` what they make of
H&E, ``OUT/arms`` the predictors. What is finished is not made again when a run resumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import JobFailed, ModelError
from napari_her2.inference.result import Progress
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.models.squeeze_excitation import SqueezeExcitation
from napari_her2.models.weights_file import check_tensors, read_weights, write_weights
from napari_her2_training.cohort.manifest import SPLITS, STAINS, read_manifest
from napari_her2_training.cohort.splits import make_splits
from napari_her2_training.corr_a_net.arms import STAINS_OF, Arm, NetworkArm
from napari_her2_training.corr_a_net.bci_folder import BCIFolder, is_bci_folder
from napari_her2_training.corr_a_net.bundle import save_field_model
from napari_her2_training.corr_a_net.fields import FieldStore
from napari_her2_training.corr_a_net.measures import Judged, judge, measures_of
from napari_her2_training.corr_a_net.predictor import (
    LabelledFields,
    PredictorTraining,
    new_predictor,
    train_predictor,
)
from napari_her2_training.corr_a_net.slide_fields import plan_fields
from napari_her2_training.corr_a_net.training import (
    CorrANetTraining,
    new_network,
    represent_steps,
    train_network,
)
from napari_her2_training.files import write_json
from napari_her2_training.measures.arms import METRICS_FILE, measure_said
from napari_her2_training.measures.predictions import Part, Predictions
from napari_her2_training.running.machines import choose_machines
from napari_her2_training.running.record import write_record
from napari_her2_training.running.runs import open_run
from napari_her2_training.running.steps import in_thread

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.models.predictors import Predictor
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.corr_a_net.config import CorrANetConfig
    from napari_her2_training.running.runs import RunFolder

METHOD = "corr-a-net"


@dataclass(frozen=True, slots=True, eq=False)
class FieldRun:
    """What all steps of a run share.

    Parameters
    ----------
    config : CorrANetConfig
    store : FieldStore
    folder : RunFolder
    device : Device
    """

    config: CorrANetConfig
    store: FieldStore
    folder: RunFolder
    device: Device

    @property
    def judged(self) -> str:
        """The part that arms are judged on: "test" where there is one."""
        return "test" if len(self.store.listed("test")) else "validation"

    @property
    def counts(self) -> dict[str, int]:
        """Fields of each part."""
        return {part: len(self.store.listed(part)) for part in SPLITS}

    def path(self, *parts: str) -> Path:
        """Return a folder of the run, made when absent."""
        folder = self.folder.path.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def prepare(self, *wanted: tuple[str, Stain]) -> Generator[Progress, None, None]:
        """Cut fields of parts and stains that are not there yet."""
        for part, stain in wanted:
            if len(self.store.listed(part)):
                yield from self.store.prepare(part, stain)


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
    if is_bci_folder(data):
        folder: BCIFolder | None = BCIFolder(data, config.data)
    else:
        folder = None
        split = make_splits(read_manifest(data, ("he", "ihc")), config.data)[0]
    device = choose_machines(config.compute)
    run = open_run(out, config, data, resume=resume)
    fields = run.path / "fields"
    fields.mkdir(exist_ok=True)
    source = folder or (yield from plan_fields(split, config.data, data.parent, fields / "fields.json"))
    return FieldRun(config, FieldStore(fields, source), run, device)


def network_steps(run: FieldRun, arm: NetworkArm) -> Generator[Progress, None, CorrANet]:
    """Train a Corr-A-Net, or load the one that is finished."""
    path = run.path("networks") / f"{arm.slug}{SUFFIX}"
    if path.exists():
        return load_network(path)
    parts = ("train", "validation")
    yield from run.prepare(*((part, stain) for part in parts for stain in STAINS_OF["H&E+IHC"]))
    train, validation = ((run.store.images(part, "he"), run.store.images(part, "ihc")) for part in parts)
    config, seed = run.config, run.config.compute.seed
    module = CorrANetTraining(
        new_network(config.encoder, dim=arm.dim, attention=arm.attention, seed=seed),
        train,
        validation,
        config.network,
        seed=seed,
    )
    folder = run.path("networks", arm.slug)
    network = yield from in_thread(
        lambda report: train_network(
            module,
            folder,
            run.device,
            report,
            stage=f"Training Corr-A-Net ({arm.name})",
            resume=run.folder.resume,
        )
    )
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
) -> Generator[Progress, None, tuple[Predictor, Judged]]:
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
    tuple of Predictor and Judged
        What it says of the fields of the part that is judged.
    """
    folder = run.path("arms", arm.architecture, arm.slug)
    weights, record = folder / f"predictor{SUFFIX}", folder / "judged.npz"
    config, seed = run.config, run.config.compute.seed
    parts = ("train", "validation", run.judged)
    if network is not None and arm.network is not None:
        yield from represent(run, network, arm.network, *parts)
    else:
        yield from run.prepare(*((part, stain) for part in parts for stain in STAINS_OF[arm.input]))
    train, validation, judged = (fields_of(run, arm, part) for part in parts)
    predictor = new_predictor(
        arm.architecture, channels=train.channels, size_px=config.data.field_px, seed=seed
    )
    if weights.exists() and record.exists():
        given = read_weights(weights).tensors
        check_tensors(predictor.state_dict(), given, weights.name)
        predictor.load_state_dict(dict(given))
        return predictor.requires_grad_(False).eval(), Judged.load(record)
    module = PredictorTraining(predictor, train, validation, config.predictor, seed=seed)
    predictor = yield from in_thread(
        lambda report: train_predictor(
            module,
            folder,
            run.device,
            report,
            stage=f"Training {arm.architecture} on {arm.name}",
            resume=run.folder.resume,
        )
    )
    yield Progress("Measuring", unit="fields", note=f"{arm.name}, {run.judged}")
    found = judge(predictor, judged, run.device)
    found.save(record)
    write_weights(weights, predictor.state_dict(), {"method": "predictor", "arm": arm.name})
    return predictor, found


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
        arguments = json.loads(given.metadata["arguments"])
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
    run = yield from open_fields(config, data, out, resume=resume)
    predictor, judged = yield from predictor_steps(run, arm, network)
    path = out / f"{config.model.name}{SUFFIX}"
    if arm.deployable:
        save_field_model(path, config, arm, network, predictor, run.counts, {run.judged: judged})
    else:
        path = path.with_name(f"{config.model.name}.predictor{SUFFIX}")
        write_weights(path, predictor.state_dict(), {"method": "predictor", "arm": arm.name})
    fields = Predictions(run.store.listed(run.judged).cases, judged.labels, judged.probabilities)
    said = {Part(0, run.judged): fields}
    write_record(
        out,
        path,
        said,
        config,
        measured=measure_said(said, config.data.mapping.names, config.measure),
        told={
            "method": "corr-a-net",
            "stain": "+".join(STAINS[stain] for stain in STAINS_OF[arm.input]) if network is None else "H&E",
            "data": str(data.resolve()),
            "fold": 0,
            "bundle": "written" if arm.deployable else "It looks at IHC too, and scoring gives it H&E alone.",
            "reading": "",
            "heads": {},
            "unit": "fields",
            "device": run.device.name,
            "parameters": sum(p.numel() for p in predictor.parameters()),
            "cases": [run.counts],
            "arm": arm.name,
            **measures_of(judged),
        },
    )
    return path
