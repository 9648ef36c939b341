"""Batches that do not fit into memory are computed in portions; float64 is computed on the CPU alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import napari_her2
import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.explain.faithfulness import faithfulness_steps
from napari_her2.models.shortage import Portions
from napari_her2.steps import finished

SOURCES = [
    path
    for package in (napari_her2, napari_her2_training)
    for path in sorted(Path(package.__file__).parent.rglob("*.py"))
]


class SmallDevice:
    """Computes at most so many examples at once, as a GPU with little memory does."""

    def __init__(self, fits: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.fits, self.error, self.sizes = fits, error, []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.fits:
            raise self.error("CUDA out of memory. Tried to allocate 768.00 MiB")
        return batch * 3


@given(st.integers(1, 40), st.integers(1, 40))
def test_portions_give_what_the_whole_batch_would(count: int, fits: int) -> None:
    device = SmallDevice(fits)
    batch = torch.arange(count * 2.0).view(count, 2)
    assert torch.equal(Portions(device, "one")(batch), batch * 3)
    computed = [size for size in device.sizes if size <= fits]
    assert sum(computed) == count


def test_a_limit_once_learnt_stays() -> None:
    device = SmallDevice(3, RuntimeError)
    portions = Portions(device, "one")
    portions(torch.ones(8, 1))
    failed = sum(size > 3 for size in device.sizes)
    portions(torch.ones(8, 1))
    assert portions.limit == 2
    assert sum(size > 3 for size in device.sizes) == failed


def test_not_even_one_fits() -> None:
    with pytest.raises(JobFailed, match="too small for a single field"):
        Portions(SmallDevice(0), "a single field")(torch.ones(4, 1))


def test_other_errors_are_not_taken_for_shortage() -> None:
    def broken(batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Portions(broken, "one")(torch.ones(4, 1))


def test_faithfulness_does_not_depend_on_memory() -> None:
    field, saliency = torch.rand(3, 32, 32), torch.rand(32, 32)
    weights = torch.rand(3 * 32 * 32, 4)

    def predict(fields: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.softmax(one.flatten() @ weights, dim=0) for one in fields])

    def short(fields: torch.Tensor) -> torch.Tensor:
        if len(fields) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return predict(fields)

    wide, narrow = (
        finished(faithfulness_steps(how, field, saliency, 1, steps=4, draws=2)) for how in (predict, short)
    )
    assert (wide.deletion.probabilities == narrow.deletion.probabilities).all()
    assert (wide.insertion.control == narrow.insertion.control).all()


def _doubled(tree: ast.AST) -> list[ast.Call]:
    """Calls of ``.double()`` and of ``.to(torch.float64)``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute)]
    return [
        call
        for call in named
        if call.func.attr == "double"
        or (call.func.attr == "to" and any("torch.float64" in ast.unparse(a) for a in call.args))
    ]


ON_THE_CPU = {
    "inference/assemble.py": "answers are put together on the CPU",
    "inference/encoder_way.py": "copied to the CPU a line before",
    "methods/low_resolution.py": "Device.run gave them on the CPU",
    "models/resnet_stem.py": "patches are drawn on the CPU",
    "cohort/bags.py": "predictions are put together on the CPU",
    "corr_a_net/measures.py": "from arrays",
    "corr_a_net/predictor_losses.py": "labels from arrays",
    "low_resolution/training.py": "judged on the CPU",
}


def test_float64_is_computed_on_the_cpu() -> None:
    asked = [
        (path, call.lineno, ast.unparse(call))
        for path in SOURCES
        for call in _doubled(ast.parse(path.read_text(encoding="utf-8")))
        if "/".join(path.parts[-2:]) not in ON_THE_CPU
    ]
    assert asked, "nothing was found: the search is broken"
    wrong = [f"{path.name}:{line}: {code}" for path, line, code in asked if ".cpu()" not in code]
    assert not wrong, f"MPS has no float64, put .cpu() before it: {wrong}"
