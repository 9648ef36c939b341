"""The benchmark of GPU paths: its rows on the CPU, smallest phantoms, and its exit codes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import gpu
from napari_her2.inference import gpu_jpeg
from napari_her2.inference.device import choose_device
from napari_her2.inference.precision import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = {
    "mil": gpu.HEAD + 'test = 0\nclasses = "binary"\n[tiles]\ntile_px = 96\n[head]\nepochs = 1\n'
    "[doubt]\nfamiliarity = false\nsets = false\n",
}
QUICK = ("score demo-wsmcl", "representation, demo-corr-a-net")
"""Of the paths: those that take a second each."""


@pytest.fixture(autouse=True)
def _precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "auto")  # the benchmark sets them: put back afterwards
    monkeypatch.setenv(gpu_jpeg.VARIABLE, "cpu")


def a_road(name: str, values: list[float], more: float = 0.0) -> gpu.Road:
    """A path that gives more where it does not run on the CPU."""

    def run(device: str) -> gpu.Found:
        return np.array(values) + (0 if device == "cpu" else more), 4

    return gpu.Road(name, "tiles", run, lower=True)


def broken(name: str) -> gpu.Road:
    def run(device: str) -> gpu.Found:
        raise ValueError(f"nothing works on {device}")

    return gpu.Road(name, "tiles", run)


def test_every_kind_of_path_runs_on_the_cpu_and_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "TRAININGS", SMALLEST)
    paths = {road.name: road for road in gpu.paths_of(None, tmp_path, cases=4, size_px=768)}
    assert {*QUICK, "train mil"} <= set(paths)
    code = gpu.table([paths[name] for name in QUICK], "cpu")
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines()[2:]]
    assert code == 0, printed
    # Scores in float32, and in what the device offers.
    assert [row[0].removeprefix("| ") for row in rows] == [QUICK[0], *QUICK]
    assert [float(row[2]) for row in rows if row[1] == "float32"] == [0, 0]
    assert {"embed, JPEG decoded by the CPU", "embed, JPEG decoded by the GPU"} <= set(paths)
    learnt, found = gpu.measured(paths["train mil"], "cpu", "float32", None)
    assert found is not None, learnt.error
    probabilities, steps = found
    assert steps > 2
    assert probabilities.reshape(-1, 2).sum(axis=1) == pytest.approx(1, abs=1e-4)


def test_every_training_that_there_is_has_a_row() -> None:
    assert {"attention-mil", "wsmcl", "mil", "corr-a-net", "predictor", "low-resolution", "patches"} == set(
        gpu.TRAININGS
    )


def test_no_gpu_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("Nothing was run: cuda was asked for")
    assert "--device cpu" in error
    assert len(error.splitlines()) == 1


def test_differences_and_peak_memory_of_a_device_stand_in_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = replace(choose_device("cpu"), torch_device=torch.device("cuda", 0), name="cuda:0 (stand-in)")
    chosen = {"cpu": choose_device("cpu"), "cuda": stand_in}
    monkeypatch.setattr(gpu, "choose_device", chosen.__getitem__)
    monkeypatch.setattr(gpu, "paths_of", lambda *_: [a_road("score a", [0.25, 0.75], 1e-3)])
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 20)
    assert gpu.main(["--device", "cuda"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "score a" in line]
    assert [row.split(" | ")[1:3] for row in rows] == [["float32", "0.001"], ["auto", "0.001"]]
    assert all(row.endswith("| 3 |") for row in rows)


def test_a_path_that_fails_is_a_row_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.table([broken("score a"), a_road("score b", [1.0])], "cpu") == 1
    printed = capsys.readouterr().out
    assert "| score a, on the CPU | float32 | failed: ValueError: nothing works on cpu" in printed
    assert "| score b | float32 | 0 |" in printed


def test_results_of_other_shapes_do_not_pass_for_agreement() -> None:
    row, _ = gpu.measured(a_road("score a", [1.0, 2.0]), "cpu", "float32", (np.ones(3), 3))
    assert np.isnan(row.differs)
