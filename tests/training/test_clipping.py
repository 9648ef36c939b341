"""Gradients are clipped where a method says so, and nowhere else."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import lightning
import pytest
import torch
from torch import nn

from napari_her2.inference.device import Device
from napari_her2_training.running.fitting import Fit, fit

CPU = Device(torch.device("cpu"), "cpu (test)", "test")
CLIPPED = ("attention_mil.training", "mil.training", "low_resolution.training", "encoder.pretraining")
WHOLE = ("wsmcl.training", "corr_a_net.training", "corr_a_net.predictor")
SAID_IN = {"encoder.pretraining": "encoder.run"}


class Steep(lightning.LightningModule):
    """One weight whose gradient is always 1,000, and that one step of SGD moves by its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, _batch, _number):
        return 1000 * self.weight.sum()

    def validation_step(self, _batch, _number):
        self.log("loss", 0.0, batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self):
        return [0]

    def val_dataloader(self):
        return [0]


def moved(tmp_path, **changes):
    wanted = Fit("Fitting", tmp_path, 1, 1, 1, "loss", "min", **changes)
    state = fit(Steep(), wanted, CPU, lambda _: None, resume=False)
    return state["weight"].item()


def test_a_gradient_is_clipped_to_a_norm_of_one_unless_a_method_says_otherwise(tmp_path):
    assert moved(tmp_path / "a") == pytest.approx(-1, rel=1e-4)
    assert moved(tmp_path / "b", clip=None) == -1000


def clips(name):
    """Whether the fit that a method asks for clips, by its source."""
    module = import_module(f"napari_her2_training.{name}")
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fit"
    ]
    assert len(calls) == 1
    given = {word.arg: ast.literal_eval(word.value) for word in calls[0].keywords if word.arg == "clip"}
    return given.get("clip", 1.0) == 1.0


@pytest.mark.parametrize("name", [*CLIPPED, *WHOLE])
def test_a_method_that_clips_names_it_among_its_differences(name):
    said = import_module(f"napari_her2_training.{SAID_IN.get(name, name)}").__doc__
    _, differences = said.split("Differences from the", 1)
    assert clips(name) == (name in CLIPPED)
    assert ("the gradient is clipped at 1" in " ".join(differences.split())) == (name in CLIPPED)
