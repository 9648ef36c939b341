"""A slide file to embeddings with OpenVINO in place of PyTorch: the same tiles, in the same precision.

Three ways take turns in one process: PyTorch layer by layer in float32, PyTorch as this project computes
(fused layers where they are faster), and OpenVINO, which is given uint8 batches of a fixed size, normalises
and pads inside its own graph, and may use as many threads. Threads that wait do not spin, so that the seconds
of the processor are those of work, on a machine that others use too.

    pip install --target FOLDER openvino
    PYTHONPATH=FOLDER python benchmarks/openvino_encoders.py
"""

from __future__ import annotations

import os

os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}

import argparse
import statistics
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_her2 import open_slide
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import default_batch, embed_steps
from napari_her2.inference.precision import VARIABLE
from napari_her2.models.encoders import build_encoder
from napari_her2.steps import finished
from score_slide import phantom_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.inference.embed import Embeddings
    from napari_her2.models.patch_encoder import PatchEncoder

TILES = {"alexnet": 1500, "timm:resnet18": 100, "timm:vit_small_patch16_224": 60}
HINTS = {"float32": "f32", "bfloat16": "bf16"}
MPP = 0.5


class OpenVino(nn.Module):
    """An encoder computed by OpenVINO.

    Parameters
    ----------
    encoder : PatchEncoder
    chosen : Namespace
        Threads, and the precision.
    batch : int
        Tiles computed at once.
    """

    exact = True  # PyTorch adds no precision of its own

    def __init__(self, encoder: PatchEncoder, chosen: argparse.Namespace, batch: int) -> None:
        import openvino as ov  # type: ignore[import-not-found,unused-ignore]

        super().__init__()
        self.spec, self._batch = encoder.spec, batch
        side = encoder.spec.tile_px
        model = ov.convert_model(encoder, example_input=torch.zeros(batch, side, side, 3, dtype=torch.uint8))
        model.reshape({model.input(0): (batch, side, side, 3)})
        options = {
            "INFERENCE_NUM_THREADS": chosen.threads,
            "INFERENCE_PRECISION_HINT": HINTS[chosen.precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = ov.compile_model(model, "CPU", options)

    def forward(self, images: Tensor) -> Tensor:
        """(B, t, t, 3) uint8 to (B, D) float32."""
        parts = []
        for part in images.split(self._batch):
            filled = part.numpy()
            if len(part) < self._batch:
                filled = np.concatenate(
                    [filled, np.zeros((self._batch - len(part), *part.shape[1:]), np.uint8)]
                )
            parts.append(torch.from_numpy(np.array(self._compiled(filled)[0]))[: len(part)])
        return torch.cat(parts)

    def fingerprint(self) -> str:
        """Nothing is kept of it."""
        return "openvino"


def ways_of(name: str, chosen: argparse.Namespace, batch: int) -> dict[str, Callable[[], Any]]:
    """Make encoders by way, all with the same weights."""

    def plain() -> PatchEncoder:
        encoder = build_encoder(name)
        encoder.exact = True  # neither lower precision nor fused layers
        return encoder

    return {
        "PyTorch, layer by layer": plain,
        "napari-her2": lambda: build_encoder(name),
        "OpenVINO": lambda: OpenVino(build_encoder(name), chosen, batch),
    }


def embedded(encoder: Any, count: int) -> Embeddings:  # noqa: ANN401 - of any way
    """Embed so many tiles in the midst of the tissue of a phantom, read from its file."""
    with open_slide(phantom_slide(12_288)) as slide:
        grid = slide.tile_grid(encoder.spec.tile_px, MPP)
        index = np.argwhere(slide.tissue().keep(grid))
        start = max(0, (len(index) - count) // 2)
        keep = np.zeros(grid.shape, np.bool_)
        keep[tuple(index[start : start + count].T)] = True
        return finished(embed_steps(slide, encoder, grid, keep, choose_device("cpu"), cache=False))


def compare(name: str, chosen: argparse.Namespace) -> None:
    """Print the rows of one encoder."""
    count = chosen.tiles or TILES[name]
    side = build_encoder(name).spec.tile_px
    batch = chosen.batch or default_batch(choose_device("cpu"), side)
    encoders = {way: make() for way, make in ways_of(name, chosen, batch).items()}
    first = {way: embedded(encoder, count) for way, encoder in encoders.items()}  # graphs are made here
    spent: dict[str, list[float]] = {way: [] for way in encoders}
    wall: dict[str, list[float]] = {way: [] for way in encoders}
    for _ in range(chosen.rounds):
        for way, encoder in encoders.items():
            began, clock = time.process_time(), time.perf_counter()
            embedded(encoder, count)
            spent[way].append(time.process_time() - began)
            wall[way].append(time.perf_counter() - clock)
    base = statistics.median(spent["napari-her2"])
    exact = first["PyTorch, layer by layer"].features.astype(np.float64)
    for way, seconds in spent.items():
        ms = [1e3 * value / count for value in seconds]
        off = np.abs(first[way].features - exact).max() / np.abs(exact).max()
        print(
            f"| {name}, {side} px, {count} | {way}{' ' + first[way].graph if first[way].graph else ''} | "
            f"{statistics.median(ms):.2f} ({min(ms):.2f} to {max(ms):.2f}) | "
            f"{1e3 * statistics.median(wall[way]) / count:.2f} | {statistics.median(seconds) / base:.2f} | "
            f"{off:.1e} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=list(TILES))
    parser.add_argument("--tiles", type=int, help="by default as many as take some seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="of OpenVINO; by default that of the tile stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=list(HINTS), default="float32")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    os.environ[VARIABLE] = chosen.precision
    print(
        f"PyTorch {torch.__version__}, OpenVINO {version('openvino')}, {chosen.precision}, "
        f"{chosen.threads} threads, "
        f"{chosen.rounds} rounds, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| encoder, tiles | way | processor ms a tile | wall ms | times ours | largest difference |")
    print("|---|---|---|---|---|---|")
    for name in chosen.encoders:
        compare(name, chosen)


if __name__ == "__main__":
    main()
