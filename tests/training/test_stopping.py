"""Learning that ends early, and which epoch is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_her2_training.cohort.bags import SlideBag
from napari_her2_training.mil.config import AggregatorConfig, MILConfig, MILLossConfig
from napari_her2_training.mil.training import MILTask, new_aggregator
from napari_her2_training.running.fitting import fit_steps
from napari_her2_training.running.task import Batch, Task
from training_steps import CPU, fit_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VALUES = (5.0, 4.0, 4.5, 3.0, 3.5, 3.0, 4.0, 2.0)
"""The measure after each epoch; the weight is then the number of epochs."""


class Scripted(Task):
    """Its weight counts the epochs, its measure is given."""

    def __init__(self, patience: int) -> None:
        super().__init__(seed=0, epochs=len(VALUES), train_batches=1, validation_batches=1)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.patience = patience

    def draw(self, epoch: int, number: int) -> Batch:
        return (torch.ones(1),)

    def draw_validation(self, number: int) -> Batch:
        return (torch.ones(1),)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        return -(self.weight * batch[0]).sum()

    def judge(self, *batch: torch.Tensor) -> Batch:
        return (self.weight.detach().clone(),)

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        return {"validation_loss": VALUES[round(float(judged[0][0])) - 1]}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize(
    ("patience", "epochs", "kept"),
    [(0, 8, 8), (1, 3, 2), (2, 6, 4), (3, 7, 4), (4, 8, 8)],
)
def test_learning_ends_after_so_many_epochs_that_are_no_better(
    patience: int, epochs: int, kept: int, tmp_path: Path
) -> None:
    task = Scripted(patience)
    seen = [step.epoch for step in fit_steps(task, tmp_path, CPU, stage="Training", resume=False)]
    assert max(seen) == epochs
    assert round(float(task.weight)) == kept


def test_a_run_that_ended_early_does_not_begin_another_epoch_when_it_is_resumed(tmp_path: Path) -> None:
    fit_until(Scripted(2), tmp_path)
    task = Scripted(2)
    seen = [step.epoch for step in fit_steps(task, tmp_path, CPU, stage="Training", resume=True)]
    assert [epoch for epoch in seen if epoch] == []
    assert round(float(task.weight)) == 4


def test_a_run_killed_on_the_way_ends_where_one_that_was_not_would(tmp_path: Path) -> None:
    fit_until(Scripted(2), tmp_path, until=4)
    task = fit_until(Scripted(2), tmp_path, resume=True)
    assert round(float(task.weight)) == 4


def a_bag(label: int) -> SlideBag:
    return SlideBag(f"c{label}", label, np.ones((4, 6), np.float16))


def mil_task(**options: object) -> MILTask:
    config = AggregatorConfig(width=8, hidden=4, **options)
    head, _, _ = new_aggregator(config, features=6, classes=2, seed=0)
    many = [a_bag(number % 2) for number in range(4)]
    return MILTask(head, many, many, config, MILLossConfig(), seed=0)


def judged_as(wrong: int, loss: float) -> list[Batch]:
    """Judge four bags with labels 0, 1, 0, 1, so many of them wrongly."""
    given = [(number % 2) ^ (number < wrong) for number in range(4)]
    return [(torch.tensor(loss), torch.eye(2, dtype=torch.float64)[int(answer)]) for answer in given]


@given(*[st.tuples(st.integers(0, 4), st.floats(0, 1000, width=32)) for _ in range(2)])
def test_the_lowest_error_comes_first_and_the_loss_decides_between_equals(
    one: tuple[int, float], other: tuple[int, float]
) -> None:
    task = mil_task(keep="error and loss")
    first, second = (task.measures(judged_as(*pair))[task.monitor] for pair in (one, other))
    if one[0] != other[0] or abs(one[1] - other[1]) > 1e-2 * max(one[1], other[1], 1e-3):
        assert (first < second) == (one < other)
    assert (task.mode, task.ties) == ("min", "first")


def test_what_is_kept_by_default_is_the_best_f1_and_a_later_one_of_equals() -> None:
    task = mil_task()
    assert (task.monitor, task.mode, task.ties) == ("validation_macro_f1", "max", "last")
    assert task.measures(judged_as(0, 1.0)).keys() == {"validation_loss", "validation_macro_f1"}


def test_the_optimiser_of_the_classical_sets() -> None:
    found = mil_task(optimiser="sgd", learning_rate=5e-4, weight_decay=5e-3).optimiser()
    assert isinstance(found, torch.optim.SGD)
    assert {key: found.defaults[key] for key in ("lr", "momentum", "weight_decay")} == {
        "lr": 5e-4,
        "momentum": 0.9,
        "weight_decay": 5e-3,
    }
    assert isinstance(mil_task().optimiser(), torch.optim.Adam)


def test_a_run_from_before_there_was_the_section_can_still_be_resumed() -> None:
    base = {"model": {"name": "m", "training_data": "phantom"}}
    plain, off = MILConfig.parse(base), MILConfig.parse(base | {"stopping": {"patience": 0}})
    on = MILConfig.parse(base | {"stopping": {"patience": 5}})
    assert "stopping" in plain.sections()
    assert plain.digest() == off.digest() != on.digest()
