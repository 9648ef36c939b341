"""What a fit reports of its epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_her2_training.running.fitting import fit_steps
from napari_her2_training.running.task import Batch, Task, batch_mean
from training_steps import CPU

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Counted(Task):
    """Batch i of an epoch has the loss i; nothing is learnt."""

    def __init__(self) -> None:
        super().__init__(seed=0, epochs=2, train_batches=5, validation_batches=2, accumulate=2)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epoch = 0

    def draw(self, epoch: int, number: int) -> Batch:
        self.epoch = epoch
        return (torch.tensor(float(number)),)

    def draw_validation(self, number: int) -> Batch:
        return (torch.tensor(float(number)),)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        return self.weight.sum() * 0 + batch[0]

    def judge(self, *batch: torch.Tensor) -> Batch:
        return (batch[0] + 2 + self.epoch,)

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        return {"validation_loss": batch_mean([loss for (loss,) in judged], [1] * len(judged))}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_an_epoch_tells_its_measures_and_the_mean_loss_of_its_batches(tmp_path: Path) -> None:
    reports = list(fit_steps(Counted(), tmp_path, CPU, stage="Training", resume=False))
    told = [(report.epoch, report.epochs, dict(report.values)) for report in reports if report.values]
    assert told == [
        (1, 2, {"train_loss": 2.0, "validation_loss": 2.5}),
        (2, 2, {"train_loss": 2.0, "validation_loss": 3.5}),
    ]
    assert {(report.epoch, report.epochs) for report in reports} == {(0, 2), (1, 2), (2, 2)}
