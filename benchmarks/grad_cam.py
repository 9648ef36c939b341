"""How long Grad-CAM of one field takes, beside captum, and whether a thousand of them leave memory behind.

    python benchmarks/grad_cam.py

A field is a tile of 1024 px as read from a slide: stains normalised, averaged to 256 px, represented by
Corr-A-Net (d = 16), explained for one class, and the map brought to the size of the field. The networks are
random: their weights do not change the time. captum's LayerGradCam explains the same prepared field, and both
maps are compared; it is left out for the transformer, whose tokens it averages over the wrong axis.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import psutil
import torch
from captum.attr import LayerGradCam
from torch import nn

from napari_her2.explain.gradcam import grad_cam, upsample_maps
from napari_her2.models.field_model import FieldModel
from napari_her2.models.preprocessing import TilePreparation

PREDICTORS = ("tinynet-e", "resnext50-32x4d", "efficientnet-b7", "vit-1024x12")
CALLS = 1000


class Logits(nn.Module):
    """A field model as captum wants it: one tensor out."""

    def __init__(self, model: FieldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, C)."""
        return self.model(fields).logits


def seconds(work: object, rounds: int) -> np.ndarray:
    work()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return np.array(taken)


def words(taken: np.ndarray) -> str:
    return f"{np.median(taken):.2f} ({taken.min():.2f} to {taken.max():.2f})"


def measure(name: str, tile: torch.Tensor, prepare: TilePreparation, rounds: int) -> None:
    model = FieldModel(predictor=name, dim=16).eval().requires_grad_(False)
    field = prepare(tile)

    def plain() -> None:
        with torch.inference_mode():
            model(prepare(tile))

    ours = seconds(lambda: upsample_maps(grad_cam(model, prepare(tile), 1), (256, 256)), rounds)
    predicted = seconds(plain, rounds)
    row = f"| {name} | {words(ours)} | {words(predicted)} |"
    if name.startswith("vit"):
        print(f"{row} | |")
        return
    theirs = LayerGradCam(Logits(model), model.predictor.get_submodule(model.predictor.cam_layer))
    wanted = field.clone().requires_grad_()
    taken = seconds(lambda: theirs.attribute(wanted, 1, relu_attributions=True), rounds)
    exact = theirs.attribute(wanted, 1, relu_attributions=True).detach()[:, 0]
    off = float((exact - grad_cam(model, field, 1)).abs().max() / exact.max().clamp_min(1e-30))
    print(f"{row} {words(taken)} | {off:.1e} |", flush=True)


def memory(prepare: TilePreparation, tile: torch.Tensor) -> float:
    """Growth over a thousand calls, MB, after a hundred that fill what is kept once."""
    model = FieldModel(predictor="tinynet-e", dim=16, field_px=64).eval()
    field = torch.nn.functional.avg_pool2d(prepare(tile), 4)
    process = psutil.Process()
    for _ in range(100):
        grad_cam(model, field, 1)
    before = process.memory_info().rss
    for _ in range(CALLS):
        grad_cam(model, field, 1)
    return (process.memory_info().rss - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    tile = torch.randint(0, 256, (1, 1024, 1024, 3), dtype=torch.uint8)
    matrix = np.array([[1.1, -0.05, 0], [0, 0.95, 0.02], [0.01, 0, 1.05]])
    prepare = TilePreparation(matrix=matrix, offset=np.zeros(3))
    print(f"{torch.get_num_threads()} threads, seconds: median (range) of {options.rounds} rounds\n")
    print(
        "| predictor | Grad-CAM with preparation | prediction alone | captum, prepared field | difference |"
    )
    print("|---|---|---|---|---|")
    for name in PREDICTORS:
        measure(name, tile, prepare, options.rounds)
    print(f"\n{CALLS:,} calls grew memory by {memory(prepare, tile):.2f} MB")


if __name__ == "__main__":
    main()
