"""Gradients are clipped where a method says so, and nowhere else."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import nn

from napari_her2_training.running.task import Task
from training_steps import fit_until

CLIPPED = {
    "attention_mil.training": "AttentionMILTask",
    "mil.training": "MILTask",
    "low_resolution.training": "ImageTask",
    "encoder.pretraining": "PatchTask",
}
WHOLE = {
    "wsmcl.training": "WSMCLTask",
    "corr_a_net.training": "CorrANetTask",
    "corr_a_net.predictor": "PredictorTask",
}
SAID_IN = {"encoder.pretraining": "encoder.run"}


class Steep(Task):
    """One weight whose gradient is always 1,000, and that one step of SGD moves by its gradient."""

    monitor = "loss"

    def __init__(self) -> None:
        super().__init__(seed=0, epochs=1, train_batches=1, validation_batches=1)
        self.weight = nn.Parameter(torch.zeros(1))

    def draw(self, epoch, number):
        return ()

    def draw_validation(self, number):
        return ()

    def loss(self, *batch):
        return 1000 * self.weight.sum()

    def judge(self, *batch):
        return ()

    def measures(self, judged):
        return {"loss": 0.0}

    def optimiser(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Whole(Steep):
    clip = None


def test_a_gradient_is_clipped_to_a_norm_of_one_unless_a_method_says_otherwise(tmp_path):
    assert fit_until(Steep(), tmp_path / "a").weight.item() == pytest.approx(-1, rel=1e-4)
    assert fit_until(Whole(), tmp_path / "b").weight.item() == -1000


@pytest.mark.parametrize("name", [*CLIPPED, *WHOLE])
def test_a_method_that_clips_names_it_among_its_differences(name):
    said = import_module(f"napari_her2_training.{SAID_IN.get(name, name)}").__doc__
    _, differences = said.split("Differences from the", 1)
    task = getattr(import_module(f"napari_her2_training.{name}"), (CLIPPED | WHOLE)[name])
    assert task.clip == (1 if name in CLIPPED else None)
    assert ("the gradient is clipped at 1" in " ".join(differences.split())) == (name in CLIPPED)
