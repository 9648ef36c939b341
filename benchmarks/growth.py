"""How time and memory grow: with a slide (tissue found, embedded, scored, exported), and with a bag, by head.

Slides are a phantom mirrored to the size, so that every part of them is tissue and background alike. Each
size is measured in a process of its own, which first scores a small slide, so that imports do not count.

    python benchmarks/growth.py                          # 10,000, 20,000 and 40,000 px
    python benchmarks/growth.py --sizes 10000 40000 100000
    python benchmarks/growth.py --heads                  # a bag of 500,000 tiles in every head
    python benchmarks/growth.py --heads --tiles 100000 --only TransMIL

Slopes are those of straight lines through logarithms: 1 is growth with the area, 0.5 with the side.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from score_slide import PEAKS_IN_A_MIB, kept_folder, warm_up
from slides import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2 import Slide
    from napari_her2.models.bundle import ModelBundle

CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
SOURCE_PX = 4096
STAGES = ("tissue found", "embedded", "scored", "exported")
BAG_FEATURES = 1024
HEADS: dict[str, dict[str, Any]] = {
    "AttentionMIL": {"features": BAG_FEATURES},
    "ABMIL": {"features": BAG_FEATURES, "width": 512, "hidden": 256, "gated": True},
    "CLAM": {"features": BAG_FEATURES},
    "DSMIL": {"features": BAG_FEATURES},
    "TransMIL": {"features": BAG_FEATURES},
    "WSMCL": {"he_features": BAG_FEATURES, "ihc_features": BAG_FEATURES},
}
"""Heads over a bag, each as wide as published; the others score every tile by itself, or small images."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage took, in seconds, and the peak of the process meanwhile."""

    wall: float
    processor: float
    peak_mib: float


def forget_peak() -> None:
    """Let the peak begin anew at what the process holds now; on Linux alone."""
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5", encoding="ascii")


def peak_mib() -> float:
    """Peak of this process since `forget_peak`, or since its start where that is not possible, MiB."""
    if CLEAR_REFS.exists():
        lines = STATUS.read_text(encoding="ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAKS_IN_A_MIB


def staged(work: Callable[[], Any]) -> tuple[Any, Stage]:
    """Do some work, and measure it."""
    forget_peak()
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    taken = time.perf_counter() - wall, time.process_time() - processor
    return found, Stage(*taken, peak_mib())


def source_slide() -> Path:
    """Return a small phantom at 0.25 µm/px, made once and kept."""
    from napari_her2.phantom import make_pair

    folder = kept_folder() / f"growth-source-{SOURCE_PX}"
    found = folder / "case_HE.svs"
    return (
        found
        if found.is_file()
        else make_pair(folder, "case", score="3+", seed=1, size_px=SOURCE_PX, mpp=0.25).he
    )


def slide_of(size_px: int) -> Path:
    """Return the phantom mirrored to a size, made once and kept."""
    return make_slide(source_slide(), kept_folder() / f"growth-{size_px}.svs", size_px=size_px)


def measure_slide(path: str, model: str, device: str) -> dict[str, Any]:
    """Measure every stage of one slide in this process."""
    from napari_her2 import load_model, open_slide

    bundle = load_model(model)
    with open_slide(source_slide()) as small:
        warm_up(small, bundle, device)
    forget_peak()
    idle = peak_mib()
    with open_slide(path) as slide, tempfile.TemporaryDirectory() as folder:
        tiles, stages = stages_of(slide, bundle, device, Path(folder))
    return {
        "tiles": tiles,
        "idle_mib": idle,
        "stages": {name: [of.wall, of.processor, of.peak_mib] for name, of in stages.items()},
    }


def stages_of(slide: Slide, bundle: ModelBundle, device: str, folder: Path) -> tuple[int, dict[str, Stage]]:
    from napari_her2 import score_slide
    from napari_her2.export.tables import write_result
    from napari_her2.inference.device import choose_device
    from napari_her2.inference.embed import embed_steps
    from napari_her2.steps import finished

    card, stages = bundle.card, {}
    grid = slide.tile_grid(card.tile_px, card.mpp)
    keep, stages["tissue found"] = staged(lambda: slide.tissue("auto").keep(grid))
    _, stages["embedded"] = staged(
        lambda: finished(embed_steps(slide, bundle.patch_encoder, grid, keep, choose_device(device)))
    )
    result, stages["scored"] = staged(lambda: score_slide(slide, bundle, device=device))
    _, stages["exported"] = staged(lambda: write_result(result, folder / "result"))
    return len(result.table), stages


def measure_head(name: str, tiles: int, threads: int) -> dict[str, float]:
    """Score a bag of random features as a slide is scored: each tile by itself, then all together."""
    import torch

    from napari_her2.inference.device import choose_device
    from napari_her2.inference.head import refuse_nonsense, run_head, tile_numbers
    from napari_her2.models.architectures import ARCHITECTURES
    from napari_her2.models.bundle import ModelBundle
    from napari_her2.models.registry import load_model

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    head = ARCHITECTURES[name].make(**HEADS[name], classes=4).eval().requires_grad_(False)
    card = load_model("demo-attention-mil").card
    bundle, device = ModelBundle(card, None, head, None, ""), choose_device("cpu")
    forget_peak()
    idle = peak_mib()
    features, rng = np.empty((tiles, BAG_FEATURES), np.float16), np.random.default_rng(0)
    for start in range(0, tiles, 8192):
        part = features[start : start + 8192]
        part[:] = rng.standard_normal(part.shape, np.float32)
    before = ("H&E",) if name == "WSMCL" else ()

    def work() -> torch.Tensor:
        parts = tuple(torch.from_numpy(part) for part in tile_numbers(bundle, device, features, *before))
        if not before:
            logits: torch.Tensor = run_head(bundle, device, lambda head, _: head.of_tiles(*parts)).logits
            return logits
        of_slide = run_head(bundle, device, lambda head, _: head.branches("H&E", parts))
        alone: torch.Tensor = run_head(bundle, device, lambda head, _: head.of_branches(of_slide)).logits
        return alone

    logits, stage = staged(work)
    refuse_nonsense(card, logits)
    return {"wall": stage.wall, "processor": stage.processor, "peak_mib": stage.peak_mib, "idle_mib": idle}


def in_its_own_process(*arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NAPARI_HER2_CACHE": cache}
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def slope(sizes: list[int], values: list[float]) -> float:
    """Slope of the logarithm of values against that of sizes; nan where a value is not above 0."""
    if len(sizes) < 2 or min(values) <= 0:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def report_slides(options: argparse.Namespace) -> None:
    """Measure slides from the smallest to the largest, and print them as a table with slopes."""
    found = []
    for size in sorted(options.sizes):
        given = "--measure", str(slide_of(size)), "--model", options.model, "--device", options.device
        found.append((size, in_its_own_process(*given)))
        print(f"{size:,} px: measured", file=sys.stderr)
    tiles = [each["tiles"] for _, each in found]
    print("\nSeconds: wall / processor; MiB: peak of the stage above the idle process.\n")
    print("| side, px | tiles | " + " | ".join(f"{name}, s | MiB" for name in STAGES) + " |")
    print("|---|---|" + "---|" * (2 * len(STAGES)))
    for (size, each), count in zip(found, tiles, strict=True):
        cells = []
        for name in STAGES:
            wall, processor, peak = each["stages"][name]
            cells.append(f"{wall:.2f} / {processor:.2f} | {peak - each['idle_mib']:,.0f}")
        print(f"| {size:,} | {count:,} | " + " | ".join(cells) + " |")
    cells = []
    for name in STAGES:
        processor = [each["stages"][name][1] for _, each in found]
        peaks = [each["stages"][name][2] - each["idle_mib"] for _, each in found]
        cells.append(f"{slope(tiles, processor):.2f} | {slope(tiles, peaks):.2f}")
    print("| slope against tiles | | " + " | ".join(cells) + " |")


def report_heads(options: argparse.Namespace) -> None:
    """Measure a bag in each head, and print them as a table."""
    print(f"\nA bag of {options.tiles:,} tiles of {BAG_FEATURES} features in float16, which count:\n")
    print("| head | s, wall | s, processor | peak above the idle process, GB | idle process, GB |")
    print("|---|---|---|---|---|")
    for name in options.only or HEADS:
        given = "--head", name, "--tiles", str(options.tiles), "--threads", str(options.threads)
        each = in_its_own_process(*given)
        above, idle = ((each[of] * 2**20 / 1e9) for of in ("peak_mib", "idle_mib"))
        print(
            f"| {name} | {each['wall']:.1f} | {each['processor']:.1f} | {above - idle:.2f} | {idle:.2f} |",
            flush=True,
        )


def main() -> None:
    """Measure slides or heads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000, 40_000], help="px")
    parser.add_argument("--model", default="demo-attention-mil")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--heads", action="store_true", help="a bag in every head, instead of slides")
    parser.add_argument("--tiles", type=int, default=500_000, help="of the bag")
    parser.add_argument("--threads", type=int, default=2, help="of a head")
    parser.add_argument("--only", nargs="*", choices=list(HEADS), help="heads")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--head", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_slide(options.measure, options.model, options.device)))
        return
    if options.head:
        print(json.dumps(measure_head(options.head, options.tiles, options.threads)))
        return
    import torch

    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    if options.heads:
        report_heads(options)
    else:
        report_slides(options)


if __name__ == "__main__":
    main()
