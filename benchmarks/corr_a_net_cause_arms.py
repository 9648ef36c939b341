"""The arms of `corr_a_net_causes`: networks that differ by one cause or by several, trained and judged."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from corr_a_net_probe import described, read_out
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.models.weights_file import read_weights
from napari_her2.steps import finished
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.cohort.splits import Split
from napari_her2_training.config import find_config, read_config
from napari_her2_training.corr_a_net.arms import Arm, own_network
from napari_her2_training.corr_a_net.config import CorrANetConfig
from napari_her2_training.corr_a_net.fields import FieldStore
from napari_her2_training.corr_a_net.losses import corr_a_net_loss
from napari_her2_training.corr_a_net.predictor import new_predictor
from napari_her2_training.corr_a_net.run import (
    load_network,
    network_steps,
    open_fields,
    predictor_steps,
    save_network,
)
from napari_her2_training.corr_a_net.slide_fields import plan_fields
from napari_her2_training.corr_a_net.training import fit_range
from napari_her2_training.running.cards import round_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_her2_training.corr_a_net.field_run import FieldRun

DEMO = "demo_corr_a_net"
SHORT: Mapping[str, Mapping[str, object]] = {
    "data": {"tile_px": 512, "field_px": 128},
    "network": {"crop_px": 48, "batch_size": 4, "train_batches": 40, "validation_batches": 16, "epochs": 6},
    "predictor": {"crop_px": 96, "train_batches": 50, "epochs": 12},
}
"""Changes to the configuration of the demonstration, for all arms: half as wide fields of the same pixels."""
AT_ONCE = 16
PROBE_FILE = "probe.pickle"
BASE, PLAIN = "H&E alone", "as in the paper"


@dataclass(frozen=True, slots=True)
class Cause:
    """An arm: what is changed of the network of the paper.

    Parameters
    ----------
    stem : str
        "random" or "patches".
    dilation : int
    scaling : str
        "field" or "training".
    longer : int
        Times as many epochs of the network.
    """

    stem: str = "random"
    dilation: int = 1
    scaling: str = "field"
    longer: int = 1


CAUSES: Mapping[str, Cause | None] = {
    BASE: None,
    PLAIN: Cause(),
    "stem learnt from patches": Cause(stem="patches"),
    "dilation 3: sees 35 px": Cause(dilation=3),
    "range of the training": Cause(scaling="training"),
    "three times the epochs": Cause(longer=3),
    "stem and range": Cause(stem="patches", scaling="training"),
    "stem, range and dilation": Cause(stem="patches", scaling="training", dilation=3),
    "stem, range and epochs": Cause(stem="patches", scaling="training", longer=3),
    "all four": Cause(stem="patches", scaling="training", dilation=3, longer=3),
}
"""None is the predictor that looks at the H&E itself."""


def config_of(cause: Cause | None, seed: int, short: Mapping[str, Mapping[str, object]]) -> CorrANetConfig:
    """Return the configuration of an arm."""
    demo = read_config(find_config(DEMO), CorrANetConfig)
    changes: dict[str, dict[str, object]] = {name: dict(keys) for name, keys in short.items()}
    changes.setdefault("network", {})
    epochs = int(str(changes["network"].get("epochs", demo.network.epochs)))
    changes["compute"] = {"seed": seed, "device": "cpu"}
    if cause is not None:
        changes["encoder"] = {"weights": cause.stem}
        changes["network"] |= {
            "dilation": cause.dilation,
            "scaling": cause.scaling,
            "epochs": epochs * cause.longer,
        }
    sections = demo.sections()
    return CorrANetConfig.parse({name: own | changes.get(name, {}) for name, own in sections.items()})


class Arms:
    """The arms of a folder: trained where they are not, and judged.

    Parameters
    ----------
    cohort, unseen : Path
        Manifests.
    out : Path
    short : mapping
        As `SHORT`.
    probe : bool
        Whether a fixed probe reads the score, instead of a predictor that is trained.
    """

    def __init__(
        self,
        cohort: Path,
        unseen: Path,
        out: Path,
        short: Mapping[str, Mapping[str, object]],
        *,
        probe: bool = False,
    ) -> None:
        self.cohort, self.unseen, self.out = cohort, unseen, out
        self.short, self.probe = short, probe

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of an arm."""
        return self.out / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"

    def open(self, name: str, seed: int) -> FieldRun:
        """Open the run of an arm; all runs share one folder of fields."""
        folder, fields = self.folder(name, seed), self.out / "fields"
        fields.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        if not (folder / "fields").exists():
            (folder / "fields").symlink_to(fields.resolve())
        config = config_of(CAUSES[name], seed, self.short)
        return finished(open_fields(config, self.cohort, folder, resume=True))

    def cut(self) -> None:
        """Cut the fields that all arms learn from."""
        run = self.open(BASE, 0)
        finished(run.prepare(*((part, stain) for part in ("train", "validation") for stain in ("he", "ihc"))))

    def train(self, name: str, seed: int) -> dict[str, float]:
        """Train the network and the predictor of an arm, unless they are; return what they cost."""
        record = self.folder(name, seed) / ("cost-probe.json" if self.probe else "cost.json")
        if record.exists():
            known: dict[str, float] = json.loads(record.read_text(encoding="utf-8"))
            return known
        cause, run = CAUSES[name], self.open(name, seed)
        cost: dict[str, float] = {}
        network = None
        if cause is not None:
            network = self.network(name, cause, run, seed)
            steps = run.config.network.epochs * run.config.network.train_batches
            cost["network, s"] = steps * step_seconds(network, run)
            cost["network weights"] = sum(w.numel() for part in learning(network) for w in part.parameters())
        began = time.process_time()
        if self.probe:
            self.fit_probe(name, run, network, seed)
        else:
            finished(predictor_steps(run, arm_of(run, cause), network))
            shutil.rmtree(run.path("representations"))  # 2 GB where fields are whole
        cost["predictor, s"] = time.process_time() - began
        record.write_text(json.dumps(cost), encoding="utf-8")
        return cost

    def fit_probe(self, name: str, run: FieldRun, network: CorrANet | None, seed: int) -> None:
        """Learn to read the score from descriptions of the training fields."""
        he, listed = run.store.images("train", "he"), run.store.listed("train")
        descriptions = described(he, seen_through(network), seed)
        model = read_out(descriptions, np.array(listed.labels), np.array(listed.cases))
        with (self.folder(name, seed) / PROBE_FILE).open("wb") as file:
            pickle.dump(model, file)

    def network(self, name: str, cause: Cause, run: FieldRun, seed: int) -> CorrANet:
        """Train the network of an arm; one that differs in the scaling alone takes another's weights."""
        arm, twin = own_network(run.config), replace(cause, scaling="field")
        other = next((key for key, value in CAUSES.items() if value == twin), None)
        file = run.path("networks") / f"{arm.slug}.safetensors"
        if cause.scaling == "training" and other is not None and not file.exists():
            same = replace(arm, scaling="field")
            trained = self.folder(other, seed) / "networks" / f"{same.slug}.safetensors"
            if trained.exists():
                network = CorrANet(**arm.arguments).eval()
                network.load_state_dict(load_network(trained).state_dict(), strict=False)
                fit_range(network, run.store.images("train", "he"), run.device)
                round_weights(network)
                save_network(file, network, arm)
        return finished(network_steps(run, arm))

    def judge(self, name: str, seed: int) -> np.ndarray:
        """(N, C) probabilities that an arm gives the unseen fields, kept once they are known."""
        folder = self.folder(name, seed)
        record = folder / ("unseen-probe.npy" if self.probe else "unseen.npy")
        if not record.exists():
            run, cause = self.open(name, seed), CAUSES[name]
            arm, network = arm_of(run, cause), None
            if arm.network is not None:
                network = load_network(folder / "networks" / f"{arm.network.slug}.safetensors")
            he = self.unseen_fields().images("test", "he")
            if self.probe:
                with (folder / PROBE_FILE).open("rb") as file:
                    model = pickle.load(file)
                found = model.predict_proba(described(he, seen_through(network), seed))
            else:
                weights = folder / "arms" / arm.architecture / arm.slug / "predictor.safetensors"
                found = predicted(he, network, arm, weights, run)
            np.save(record, found)
        probabilities: np.ndarray = np.load(record)
        return probabilities

    def unseen_fields(self) -> FieldStore:
        """Fields of the unseen cases, by the rule of the training; their IHC stays closed."""
        config = config_of(None, 0, self.short)
        cases, folder = read_manifest(self.unseen, ("he", "ihc")), self.out / "unseen"
        folder.mkdir(parents=True, exist_ok=True)
        # Only the test part is asked for; the plan insists on fields to learn from.
        split = Split(cases[:1], cases[:1], cases)
        fields = finished(plan_fields(split, config.data, self.unseen.parent, folder / "fields.json"))
        store = FieldStore(folder, fields)
        finished(store.prepare("test", "he"))
        return store


def arm_of(run: FieldRun, cause: Cause | None) -> Arm:
    architecture = run.config.predictor.architecture
    if cause is None:
        return Arm(architecture, "H&E")
    return Arm(architecture, "correlated", own_network(run.config))


def seen_through(network: CorrANet | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what makes of H&E fields what a predictor looks at."""
    if network is None:
        return lambda fields: fields
    return lambda fields: network.to_predictor(network.represent(fields))


def predicted(he: np.ndarray, network: CorrANet | None, arm: Arm, weights: Path, run: FieldRun) -> np.ndarray:
    """(N, C) probabilities that a trained predictor gives fields."""
    channels = 3 if network is None else network.channels
    predictor = new_predictor(arm.architecture, channels=channels, size_px=run.config.data.field_px, seed=0)
    predictor.load_state_dict(dict(read_weights(weights).tensors))
    predictor.eval()
    represent, found = seen_through(network), []
    with torch.inference_mode():
        for first in range(0, len(he), AT_ONCE):
            fields = torch.from_numpy(np.array(he[first : first + AT_ONCE])).float() / 255
            found.append(predictor(represent(fields)).probabilities.numpy())
    return np.concatenate(found)


def learning(network: CorrANet) -> list[torch.nn.Module]:
    """Return the parts of a network that learn: all but the stem."""
    return [part for name, part in network.named_children() if name != "stem"]


def step_seconds(network: CorrANet, run: FieldRun) -> float:
    """Processor seconds of a step of the training of a network: the least of five."""
    own = deepcopy(network).train()
    for part in learning(own):
        part.requires_grad_(True)
    size, side = run.config.network.batch_size, run.config.network.crop_px
    he, ihc = torch.rand(2, size, 3, side, side, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(5):
        began = time.process_time()
        corr_a_net_loss(own(he, ihc)).total.backward()
        seconds.append(time.process_time() - began)
    return min(seconds)
