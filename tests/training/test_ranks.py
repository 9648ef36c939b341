"""What follows the batches of several processes, and what is drawn ahead of the step."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_her2_training.running import normalisation
from napari_her2_training.running.normalisation import RunningStatistics
from napari_her2_training.running.ranks import first_alone, from_first, is_first
from napari_her2_training.running.task import Batch, Task
from training_steps import fit_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest


def test_running_statistics_are_those_of_one_process_that_saw_all_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(7)
        )

    def look(net: nn.Module, batch: torch.Tensor) -> None:
        net[:3](batch)  # the last layer is never used

    batches = torch.randn(4, 8, 3, 5, 5) * 3 + 1
    alone = network()
    for batch in batches:
        look(alone, batch)
    two = [network(), network()]
    for pair in batches.split(2):
        before = [RunningStatistics(net) for net in two]
        for net, batch in zip(two, pair, strict=True):
            look(net, batch)
        moves: list[torch.Tensor] = []
        monkeypatch.setattr(normalisation, "in_order", lambda move, moves=moves: moves.append(move) or [move])
        for one, net in zip(before, two, strict=True):
            state = {name: value.clone() for name, value in net.state_dict().items()}
            one.join()
            net.load_state_dict(state)
        monkeypatch.setattr(normalisation, "in_order", lambda _, moves=moves: moves)
        for one in before:
            one.join()
    for net in two:
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value)


class Drawn(Task):
    """Tells which thread drew what, when."""

    def __init__(self) -> None:
        super().__init__(seed=0, epochs=2, train_batches=6, validation_batches=1)
        self.weight = nn.Parameter(torch.zeros(1))
        self.drawn: list[tuple[int, int]] = []
        self.threads: set[str] = set()
        self.ahead: list[int] = []
        self.learnt = 0

    def draw(self, epoch: int, number: int) -> Batch:
        self.drawn.append((epoch, number))
        self.threads.add(threading.current_thread().name)
        return (torch.tensor(float(number)),)

    def draw_validation(self, number: int) -> Batch:
        return (torch.tensor(float(number)),)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        assert int(batch[0]) == self.learnt % 6
        self.learnt += 1
        self.ahead.append(len(self.drawn) - self.learnt)
        return self.weight.sum()

    def judge(self, *batch: torch.Tensor) -> Batch:
        return batch

    def measures(self, judged: Sequence[Batch]) -> dict[str, float]:
        return {"validation_loss": 1.0}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_batches_are_drawn_in_their_order_by_a_thread_that_is_a_few_ahead(tmp_path: Path) -> None:
    task = fit_until(Drawn(), tmp_path)
    assert task.drawn == [(epoch, number) for epoch in range(2) for number in range(6)]
    assert task.threads == {"napari-her2 prefetch"}
    assert min(task.ahead) >= 0
    assert max(task.ahead) <= 4


def test_the_thread_that_draws_ends_with_a_training_that_is_closed(tmp_path: Path) -> None:
    before = threading.active_count()
    fit_until(Drawn(), tmp_path, until=2)
    assert threading.active_count() == before


def test_a_process_that_learns_alone_is_the_first_and_waits_for_nobody() -> None:
    assert is_first()
    with first_alone() as first, first_alone() as within:
        assert first
        assert within
    value = object()
    assert from_first(value) is value
