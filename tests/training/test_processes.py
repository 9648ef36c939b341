"""Trainings as processes of their own: killed and resumed, and several that learn together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2.models.weights_file import read_weights
from napari_her2_training.config import ComputeConfig
from napari_her2_training.running.machines import Machines, choose_machines, own_share
from napari_her2_training.running.ranks import is_first, together

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[model]
name = "tiny"
training_data = "numbers made up"
[data]
validation = 0.25
test = 0.0
[head]
architecture = "abmil"
width = 8
hidden = 4
epochs = {epochs}
accumulate = {accumulate}
[measure]
resamples = 0
[compute]
device = "cpu"
devices = {devices}
strategy = "{strategy}"
"""


def write_cohort(folder: Path, count: int = 48) -> Path:
    rng = np.random.default_rng(2)
    lines = ["case_id,ihc,score"]
    for n in range(count):
        features = rng.normal(0, 1, (12, 6))
        features[:6, n % 4] += 2
        with h5py.File(folder / f"{n}.h5", "w") as file:
            file["features"] = features.astype(np.float32)
            file["coords"] = np.zeros((12, 2), np.int64)
        lines.append(f"c{n},{n}.h5,{n % 4}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def command(folder: Path, out: str, **settings: object) -> list[str]:
    config = folder / f"{out}.toml"
    given = {"epochs": 3, "accumulate": 4, "devices": 1, "strategy": "auto"} | settings
    config.write_text(CONFIG.format(**given))
    names = ["--config", str(config), "--data", str(folder / "manifest.csv"), "--out", str(folder / out)]
    return [sys.executable, "-m", "napari_her2", "train", "mil", *names]


def here(folder: Path, out: str, *, resume: bool = False, **settings: object) -> None:
    """Train in this process: starting one takes longer than the training."""
    arguments = command(folder, out, **settings)
    config, data = arguments[6], arguments[8]
    for _ in napari_her2_training.run("mil", config, data, folder / out, resume=resume):
        pass


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_weights(folder / "tiny.head.safetensors").tensors)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_training_killed_by_the_system_ends_with_the_same_weights_when_resumed(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    here(tmp_path, "whole", epochs=60)
    child = subprocess.Popen(command(tmp_path, "killed", epochs=60), stderr=subprocess.DEVNULL)
    reached = tmp_path / "killed" / "fold0" / "head" / "last.ckpt"
    while not reached.exists():
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    epoch = torch.load(reached, weights_only=True)["epoch"]
    assert epoch < 59
    here(tmp_path, "killed", resume=True, epochs=60)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    same = [(tmp_path / out / "predictions.csv").read_text() for out in ("whole", "killed")]
    assert same[0] == same[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Lightning's processes on a CPU need POSIX")
def test_two_processes_learn_what_one_learns_with_twice_the_accumulation(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    here(tmp_path, "one", accumulate=4)
    finish(command(tmp_path, "two", accumulate=2, devices=2, strategy="ddp"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)
    # One of them wrote what comes out, once.
    assert len(list((tmp_path / "two").glob("*.safetensors"))) == 1
    assert len((tmp_path / "two" / "predictions.csv").read_text().splitlines()) == 49


def test_batches_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(own_share(5)) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(list(own_share(11)))
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_the_first_of_several_processes_writes_and_one_alone_always(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)

    def first(**compute: int) -> bool:
        with together(ComputeConfig(**compute), []):
            return is_first()

    assert first(devices=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not first(devices=2)
    monkeypatch.delenv("LOCAL_RANK")
    # One of several tasks of a scheduler, each of which is a training by itself.
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not first(nodes=2)
    assert first()


def test_one_device_is_alone_and_more_are_not() -> None:
    assert choose_machines(ComputeConfig(device="cpu")).alone
    several = choose_machines(ComputeConfig(device="cpu", devices=2, strategy="ddp"))
    assert isinstance(several, Machines)
    assert (several.alone, several.strategy, several.autocast_dtype) == (False, "ddp", None)
