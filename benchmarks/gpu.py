"""Every path that computes on a GPU, once and small: whether it runs, agrees with the CPU, how fast it is.

    python benchmarks/gpu.py                     # the GPU of this machine, a few minutes
    python benchmarks/gpu.py --device cpu        # the same paths with the CPU in its place
    python benchmarks/gpu.py --only score        # or embed, explain, train

A phantom case is scored with every bundled model, in float32 and in the precision that the device offers; it
is embedded from tiles that the processor decodes, and from tiles that nvJPEG does; its fields are explained;
every training runs for an epoch or two. Each runs on the CPU in float32 too. "differs" is the largest
difference from that: of probabilities and attention for scores, of the largest value for features and maps,
of the probabilities after the last epoch for trainings, where rounding grows from step to step.
Times include loading and the first use of a kernel. A path that fails is a row with its error, and the exit
code is then 1; it is 2 where there is no such device.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import napari_her2_training
from napari_her2 import open_slide, score_slide
from napari_her2._napari import correlated, gradcam
from napari_her2._napari.settings import Settings
from napari_her2.errors import JobFailed
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps
from napari_her2.inference.gpu_jpeg import CHOICES, CPU
from napari_her2.inference.gpu_jpeg import VARIABLE as JPEG
from napari_her2.inference.precision import VARIABLE as PRECISION
from napari_her2.methods.catalogue import available_models, method_of
from napari_her2.models.encoders import build_encoder
from napari_her2.phantom.cohort import cohort_steps
from napari_her2.steps import finished
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.measures.predictions import read_predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.models.registry import ModelEntry

Found = tuple["NDArray[np.floating]", int]
"""What a path computed, flattened, and of how many tiles, fields or epochs."""
HEAD = '[model]\nname = "gpu"\ntraining_data = "phantom"\n[data]\nvalidation = 0.5\ncheck_stains = false\n'
TINY = HEAD + 'test = 0\nclasses = "scores"\n'
TRAININGS = {
    "attention-mil": HEAD + "[pretraining]\nepochs = 1\npatches_per_slide = 40\n[head]\nepochs = 2\n",
    "wsmcl": HEAD + 'tile_px = 96\n[encoder]\nname = "alexnet"\n[head]\nepochs = 2\nk = 50\n',
    "mil": TINY + "[tiles]\ntile_px = 96\n[head]\nepochs = 2\n",
    "corr-a-net": HEAD + "tile_px = 128\nfield_px = 32\n[network]\ndim = 8\nepochs = 1\n",
    "predictor": HEAD
    + 'tile_px = 128\nfield_px = 32\n[predictor]\narchitecture = "tinynet-e"\ninput = "H&E"\nepochs = 1\n',
    "low-resolution": TINY + '[image]\nsize_px = 128\n[network]\nvariant = "atto"\n[learning]\nepochs = 2\n',
    "patches": TINY + '[patches]\nper_slide = 16\n[network]\nvariant = "atto"\n[learning]\nepochs = 2\n',
}


@dataclass(frozen=True, slots=True)
class Road:
    """A path: its name, what runs it on a device, whether it may be in lower precision, who decodes JPEG."""

    name: str
    unit: str
    run: Callable[[str], Found]
    lower: bool = False
    jpeg: str = CPU


def scoring(entry: ModelEntry, case: tuple[Path, Path]) -> Road:
    he, ihc = case
    pair = method_of(entry.card).takes_pair

    def run(device: str) -> Found:
        slide = ihc if entry.card.stain == "IHC" else he
        more: dict[str, Any] = {"ihc": ihc} if pair else {}
        result = score_slide(slide, entry.name, device=device, cache=False, override_fit=True, **more)
        values = [np.array(list(result.probabilities.values()))]
        values += [one.values.ravel() for one in result.maps if one.kind == "attention"]
        return np.concatenate(values), len(result.table)

    return Road(f"score {entry.name}", "tiles", run, lower=True)


def embedding(he: Path, jpeg: str) -> Road:
    """Return the path from the file to features, its JPEG decoded by one or the other."""

    def run(device: str) -> Found:
        encoder = build_encoder("timm:resnet18")
        with open_slide(he) as slide:
            grid = slide.tile_grid(encoder.spec.tile_px, 0.5)
            keep = np.ones(grid.shape, np.bool_)
            made = finished(embed_steps(slide, encoder, grid, keep, choose_device(device), cache=False))
        return made.features.astype(float).ravel() / np.abs(made.features).max(), len(made.index)

    return Road(f"embed, JPEG decoded by the {jpeg.upper()}", "tiles", run, lower=True, jpeg=jpeg)


def explanations(entry: ModelEntry, he: Path) -> Iterator[Road]:
    """Yield the paths that explain fields, for a model whose fields can be explained."""
    ways = method_of(entry.card).explains(entry.card)
    name, label = entry.name, entry.card.classes[-1]

    def cam(device: str) -> Found:
        with open_slide(he) as slide:
            made = finished(gradcam.explaining(slide, name, Settings(device=device), label, None))
        values = made.cam.values
        return values[np.isfinite(values)] / np.nanmax(values), values.size

    def faithful(device: str) -> Found:
        with open_slide(he) as slide:
            result = score_slide(slide, name, device="cpu", override_fit=True)
            steps = gradcam.checking(slide, name, Settings(device=device), label, result, 0)
            found = finished(steps).found
        return found.deletion.probabilities, 2 + 2 * (len(found.deletion.shares) - 1)

    def representation(device: str) -> Found:
        with open_slide(he) as slide:
            sample = finished(correlated.preparing(slide, name, Settings(device=device))).sample
        return sample.ravel() / np.abs(sample).max(), len(sample)

    for way, unit, run in (
        ("region Grad-CAM", "map pixels", cam),
        ("faithfulness", "fields", faithful),
        ("representation", "pixels", representation),
    ):
        if way in ways:
            yield Road(f"{way}, {name}", unit, run)


def training(method: str, manifest: Path) -> Road:
    def run(device: str) -> Found:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            config = folder / "config.toml"
            config.write_text(f'{TRAININGS[method]}[compute]\ndevice = "{device}"\n')
            steps = napari_her2_training.run(method, config, manifest, folder / "run")
            batches = sum(1 for _ in steps)
            tables = sorted((folder / "run").rglob("predictions.csv"))
            parts, _ = read_predictions(tables[0]) if tables else ({}, ())
            values = [part.probabilities.ravel() for part in parts.values()]
        return (np.concatenate(values) if values else np.zeros(1)), batches

    return Road(f"train {method}", "steps", run)


@dataclass(frozen=True, slots=True)
class Row:
    """A path as it ran."""

    path: str
    precision: str
    differs: float
    per_second: str
    peak_mib: float
    error: str = ""

    def line(self) -> str:
        """Return it as a row of the table."""
        if self.error:
            return f"| {self.path} | {self.precision} | failed: {self.error} | | |"
        peak = f"{self.peak_mib:,.0f}" if self.peak_mib else ""
        return f"| {self.path} | {self.precision} | {self.differs:.2g} | {self.per_second} | {peak} |"


def measured(path: Road, device: str, precision: str, reference: Found | None) -> tuple[Row, Found | None]:
    """Run a path once on a device; its difference from the reference is not a number where that failed."""
    os.environ[PRECISION], os.environ[JPEG] = precision, path.jpeg
    on_gpu = torch.device(choose_device(device).torch_device).type == "cuda"
    try:
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found = path.run(device)
        seconds = time.perf_counter() - start
    except Exception as error:  # noqa: BLE001 - a path that fails is what is looked for
        return Row(path.name, precision, 0, "", 0, f"{type(error).__name__}: {error}"[:160]), None
    differs = 0.0 if reference is None else _difference(found[0], reference[0])
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0
    rate = f"{found[1] / seconds:,.0f} {path.unit}/s"
    return Row(path.name, precision, differs, rate, peak), found


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    if one.shape != other.shape:
        return float("nan")
    return float(np.nanmax(np.abs(one - other), initial=0.0))


def paths_of(only: str | None, folder: Path, *, cases: int = 8, size_px: int = 2048) -> list[Road]:
    """Make the phantoms, and name every path."""
    manifest = finished(cohort_steps(folder, cases=cases, seed=7, size_px=size_px, mpp=0.5))
    first = read_manifest(manifest)[0]
    case = first.slide("he"), first.slide("ihc")
    entries = [entry for entry in available_models() if method_of(entry.card).needs_weights]
    found: list[Road] = []
    if only in (None, "score"):
        found += [scoring(entry, case) for entry in entries]
    if only in (None, "embed"):
        found += [embedding(case[0], jpeg) for jpeg in CHOICES]
    if only in (None, "explain"):
        found += [path for entry in entries for path in explanations(entry, case[0])]
    if only in (None, "train"):
        found += [training(method, manifest) for method in TRAININGS]
    return found


def table(paths: Iterable[Road], device: str) -> int:
    """Print what every path gives on a device beside the CPU; return 1 where one failed, else 0."""
    print("| path | precision | differs | speed | peak, MiB |\n|---|---|---|---|---|")
    failed = False
    for path in paths:
        row, reference = measured(path, "cpu", "float32", None)
        if reference is None:
            print(replace(row, path=f"{path.name}, on the CPU").line(), flush=True)
        failed |= reference is None
        for precision in ("float32", "auto") if path.lower else ("float32",):
            row, _ = measured(path, device, precision, reference)
            failed |= bool(row.error)
            print(row.line(), flush=True)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 where a path failed, 2 where there is no such device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, mps, or cpu in its place")
    parser.add_argument("--only", choices=("score", "embed", "explain", "train"), default=None)
    options = parser.parse_args(arguments)
    try:
        device = choose_device(options.device)
    except JobFailed as error:
        print(f"Nothing was run: {error} With --device cpu the same paths run on the CPU.", file=sys.stderr)
        return 2
    print(f"{device.name}; {platform.processor() or platform.machine()}; PyTorch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as scratch:
        return table(paths_of(options.only, Path(scratch)), options.device)


if __name__ == "__main__":
    sys.exit(main())
