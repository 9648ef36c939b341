"""A training as a process of its own, killed and resumed; which of several writes, and what each looks at."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2.models.weights_file import read_weights
from napari_her2_training.config_sections import ComputeConfig
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
epochs = 3
accumulate = 4
[measure]
resamples = 0
[compute]
device = "cpu"
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


# The command, which waits in the midst of the second epoch to be killed.
CHILD = textwrap.dedent("""
    import time
    from napari_her2.cli import main
    from napari_her2_training.running.learner import Learner

    learnt = Learner.on_train_batch_end

    def wait(self, *given):
        learnt(self, *given)
        if self.current_epoch == 1 and given[-1] == 5:
            print("waiting", flush=True)
            time.sleep(600)

    Learner.on_train_batch_end = wait
    main()
""")


def command(folder: Path, out: str) -> list[str]:
    """Arguments of the command."""
    config = folder / f"{out}.toml"
    config.write_text(CONFIG)
    names = ["--config", str(config), "--data", str(folder / "manifest.csv"), "--out", str(folder / out)]
    return ["train", "mil", *names]


def train(folder: Path, out: str, *, resume: bool = False) -> float:
    """Train in this process: starting one takes longer than the training. Return the share done at first."""
    _, method, _, config, _, data, _, to = command(folder, out)
    steps = list(napari_her2_training.run(method, config, data, to, resume=resume))
    first = next(step for step in steps if step.unit == "batches")
    return first.done / first.total


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_weights(folder / "tiny.head.safetensors").tensors)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_training_killed_by_the_system_ends_with_the_same_weights_when_resumed(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    assert train(tmp_path, "whole") < 1 / 3
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *command(tmp_path, "killed")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert any(line.strip() == "waiting" for line in child.stdout), "it ended before it could be killed"
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "metrics.json").exists()
    reached = torch.load(tmp_path / "killed" / "fold0" / "head" / "last.ckpt", weights_only=True)
    assert reached["epoch"] == 0
    # The epoch that was finished, of three, is not learnt again.
    assert train(tmp_path, "killed", resume=True) > 1 / 3
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    same = [(tmp_path / out / "predictions.csv").read_text() for out in ("whole", "killed")]
    assert same[0] == same[1]


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
