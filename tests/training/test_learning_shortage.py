"""Memory that is too short to learn in: a batch in parts, or one sentence that names what to set."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.low_resolution import LowResolution
from napari_her2.models.patch_classifier import PatchConvNeXt
from napari_her2_training.attention_mil.config import BagsConfig, HeadConfig
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
from napari_her2_training.running.fitting import fit_steps
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


class Room(Task):
    """Fits a line to examples, of which only so many have room in memory at a time."""

    def __init__(self, room: int = 8, from_call: int = 0) -> None:
        super().__init__(seed=0, epochs=EPOCHS, train_batches=BATCHES, validation_batches=1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        self.room, self.free_calls = room, from_call

    @property
    def most_parts(self) -> int:
        return 8

    def draw(self, epoch: int, number: int) -> Batch:
        draw = torch.Generator().manual_seed(epoch * BATCHES + number)
        return (torch.randn(7, 3, generator=draw),)

    def draw_validation(self, number: int) -> Batch:
        return (torch.ones(7, 3),)

    def _computed(self, part: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.free_calls -= 1
        if self.free_calls < 0 and len(part) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (self.network(part),)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        (found,) = self.in_parts(self._computed, *batch)
        return (found[:, 0] - batch[0].sum(1)).square().mean()

    def judge(self, *batch: torch.Tensor) -> Batch:
        return (self.loss(*batch),)

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        return {"validation_loss": float(judged[0][0])}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("room", "free", "parts"), [(4, 0, 2), (2, 0, 4), (1, 0, 8), (4, BATCHES + 3, 2)], ids=str
)
def test_a_batch_that_does_not_fit_is_learnt_from_in_parts(
    room: int, free: int, parts: int, tmp_path: Path
) -> None:
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "last.ckpt").write_bytes(b"of another run")
    task = Room(room, free)
    steps = fit_steps(task, tmp_path / "short", CPU, stage="Training", resume=False)
    notes = [step.note for step in steps]
    whole = fit_until(Room(), tmp_path / "whole")
    assert task.parts == parts
    assert whole.parts == 1
    for found, expected in zip(task.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert f"each batch in {parts} parts" in notes[-1]
    assert "parts" not in notes[0] or not free


def test_where_not_even_one_example_fits_a_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="too short for one batch"):
        fit_until(Room(0), tmp_path)


def tasks() -> dict[str, tuple[Task, Batch]]:
    """Tasks of methods that may be divided, with a batch of five."""
    torch.manual_seed(0)
    head = AttentionMIL(features=6, hidden=4)
    config = HeadConfig(guidance=0.5)
    bag = (torch.randn(5, 9, 6), torch.tensor([0, 1, 2, 3, 0]), torch.rand(5, 9) > 0.5)
    attention = AttentionMILTask(head, [], [], config, BagsConfig(batch_size=5), seed=0)
    network = LowResolution(variant="atto", size_px=64)
    images = ImageTask.__new__(ImageTask)
    torch.nn.Module.__init__(images)
    images.model, images.config = network, LearningConfig(batch_size=5)
    pixels = torch.randint(0, 256, (5, 3, 64, 64)).float()
    return {
        "attention-mil": (attention, bag),
        "low-resolution": (images, (pixels, torch.tensor([0, 1, 2, 1, 0]))),
    }


@pytest.mark.parametrize("name", ["attention-mil", "low-resolution"])
def test_in_parts_a_batch_has_the_gradient_of_the_whole(name: str) -> None:
    task, batch = tasks()[name]
    task.eval()  # what is dropped out is drawn part by part
    found = []
    for parts in (1, 2, 5):
        task.parts = parts
        task.zero_grad()
        task.loss(*(part.clone() for part in batch)).backward()
        found.append([p.grad.clone() for p in task.parameters() if p.grad is not None])
    assert task.most_parts == 5
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_dry_run_measures_in_parts_what_does_not_fit_whole() -> None:
    task = Room(2)
    assert measure(task, CPU).parameters == sum(p.numel() for p in task.parameters())
    assert task.parts == 4


@pytest.mark.parametrize(("layer", "parts"), [(torch.nn.GroupNorm(1, 4), 6), (torch.nn.BatchNorm2d(4), 1)])
def test_what_is_normalised_over_a_batch_is_not_parted(layer: torch.nn.Module, parts: int) -> None:
    held = SimpleNamespace(
        encoder=torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), layer), config=PretrainingConfig(batch_size=6)
    )
    assert PatchTask.most_parts.fget(held) == parts
