"""Memory that is too short to learn in: one sentence that names what to set, and a run that goes on."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2.models.low_resolution import LowResolution
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2_training.attention_mil.config import BagsConfig
from napari_her2_training.attention_mil.training import AttentionMILTask
from napari_her2_training.corr_a_net.config import NetworkConfig, PredictorConfig
from napari_her2_training.corr_a_net.predictor import PredictorTask
from napari_her2_training.corr_a_net.training import CorrANetTask
from napari_her2_training.encoder.config import PretrainingConfig
from napari_her2_training.encoder.pretraining import PatchTask
from napari_her2_training.low_resolution.config import LearningConfig
from napari_her2_training.low_resolution.training import ImageTask
from napari_her2_training.methods import METHODS
from napari_her2_training.mil.config import AggregatorConfig
from napari_her2_training.mil.training import MILTask
from napari_her2_training.running.costs import measure
from napari_her2_training.running.shortage import shortage_named
from napari_her2_training.running.task import Batch, Task
from napari_her2_training.wsmcl.training import WSMCLTask
from training_steps import CPU, fit_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCHES, EPOCHS = 2, 3


class Summing(Task):
    """Adds up what it draws; from a certain batch on, memory is short where ``short`` says so."""

    def __init__(self, short: BaseException | None = None, from_batch: int = 3) -> None:
        super().__init__(seed=0, epochs=EPOCHS, train_batches=BATCHES, validation_batches=1)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.short, self.left = short, from_batch

    def draw(self, epoch: int, number: int) -> Batch:
        return (torch.tensor([1.0 + epoch * BATCHES + number]),)

    def draw_validation(self, number: int) -> Batch:
        return (torch.ones(1),)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.short is not None and self.left < 0:
            raise self.short
        return -(self.weight * batch[0]).sum()

    def judge(self, *batch: torch.Tensor) -> Batch:
        return (self.weight.detach().clone(),)

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        return {"validation_loss": -float(judged[0][0])}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def lighter(self) -> str:
        return "[bags] batch_size = 32"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 768.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_step_that_does_not_fit_ends_in_a_sentence_and_the_run_goes_on(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(JobFailed) as failed:
        fit_until(Summing(error), tmp_path)
    words = str(failed.value)
    assert "[bags] batch_size = 32" in words
    assert "--resume" in words
    assert "CUDA" not in words
    resumed = fit_until(Summing(), tmp_path, resume=True)
    whole = fit_until(Summing(), tmp_path / "whole")
    assert torch.equal(resumed.weight, whole.weight)
    assert float(whole.weight) > 0


def test_other_errors_of_a_step_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fit_until(Summing(RuntimeError("shapes do not match")), tmp_path)


def test_a_dry_run_says_so_before_anything_is_learnt() -> None:
    with pytest.raises(JobFailed, match=r"\[bags\] batch_size = 32") as failed:
        measure(Summing(torch.OutOfMemoryError("out of memory"), from_batch=0), CPU)
    assert "--resume" not in str(failed.value), "nothing was begun"


def test_where_nothing_can_be_lowered_nothing_is_named() -> None:
    class Smallest(Summing):
        def lighter(self) -> str:
            return ""

    with (
        pytest.raises(JobFailed, match="too short") as failed,
        shortage_named(Smallest(), CPU, "Training", begun=True),
    ):
        raise MemoryError
    assert "[" not in str(failed.value)
    assert str(failed.value).endswith(".")


def bags(count: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(features=np.zeros((count, 4), np.float16))]


def image(model: type, **options: object) -> SimpleNamespace:
    return SimpleNamespace(model=model.__new__(model), config=LearningConfig(**options))


LIGHTER = [
    ("attention-mil", AttentionMILTask, SimpleNamespace(bags_config=BagsConfig(batch_size=7)), 3),
    ("attention-mil", PatchTask, SimpleNamespace(config=PretrainingConfig(batch_size=3)), 2),
    ("corr-a-net", CorrANetTask, SimpleNamespace(config=NetworkConfig()), 32),
    ("predictor", PredictorTask, SimpleNamespace(config=PredictorConfig()), 16),
    ("mil", MILTask, SimpleNamespace(config=AggregatorConfig(), train_bags=bags(500)), 250),
    ("mil", MILTask, SimpleNamespace(config=AggregatorConfig(max_tiles=90), train_bags=bags(500)), 45),
    ("wsmcl", WSMCLTask, SimpleNamespace(train_draw=SimpleNamespace(most_tiles=80)), 40),
    ("low-resolution", ImageTask, image(LowResolution), True),
    ("low-resolution", ImageTask, image(LowResolution, checkpointing=True), 2),
    ("patches", ImageTask, image(PatchConvNeXt, checkpointing=True, batch_size=12), 6),
]


@pytest.mark.parametrize(("method", "task", "held", "value"), LIGHTER)
def test_what_a_method_names_is_a_setting_of_its_configuration(
    method: str, task: type[Task], held: SimpleNamespace, value: object
) -> None:
    read = tomllib.loads(task.lighter(held).replace("] ", "]\n"))
    ((section, keys),) = read.items()
    ((_, found),) = keys.items()
    assert found == value
    base = {"model": {"name": "a", "training_data": "b"}}
    changed = METHODS[method].config.parse(base | {section: keys})
    assert changed.sections()[section].items() >= keys.items()


def test_a_smallest_setting_is_not_lowered() -> None:
    assert AttentionMILTask.lighter(SimpleNamespace(bags_config=BagsConfig(batch_size=1))) == ""
    assert PatchTask.lighter(SimpleNamespace(config=PretrainingConfig(batch_size=2))) == ""
