"""Scoring a slide: the whole against reading alone and the model alone, memory, and scoring again.

Every measurement runs in a process of its own, which first opens the slide, loads the model and computes
a few tiles, so that neither imports nor the first use of a library count. The measurements of a round
follow each other, rounds are repeated, medians are shown with their range.

    python benchmarks/score_slide.py                      # a phantom of 40,000 px, made once and kept
    python benchmarks/score_slide.py --size 8192 --rounds 1
    python benchmarks/score_slide.py --slide case.svs --model demo-attention-mil
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_her2 import Slide
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.methods.tiles import TileMethod
    from napari_her2.models.bundle import ModelBundle

PEAKS_IN_A_MIB = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, KiB elsewhere
WARM_TILES, WARM_PX = 128, 96
Timed = Callable[[], int]  # does the work, returns how many tiles


def measure(mode: str, slide_path: str, model_name: str, device_name: str) -> dict[str, float]:
    """Measure one thing in this process; seconds, tiles and peak memory."""
    from napari_her2 import load_model, open_slide

    bundle = load_model(model_name)
    if mode != "idle":
        with open_slide(slide_path) as other:  # not the slide itself: its stains are fitted once
            warm_up(other, bundle, device_name)
    with open_slide(slide_path) as slide:
        if mode in ("again", "region"):
            score(slide, bundle, device_name, cache=True)  # as in a session: the slide was scored before
        work = {
            "idle": lambda: 0,
            "reading": lambda: read(slide, bundle),
            "model": prepare_model(slide, bundle, device_name) if mode == "model" else lambda: 0,
            "whole": lambda: score(slide, bundle, device_name, cache=False),
            "keep": lambda: score(slide, bundle, device_name, cache=True),
            "again": lambda: score(slide, bundle, device_name, cache=True),
            "region": lambda: score(slide, bundle, device_name, cache=True, regions=left_half(slide)),
        }[mode]
        start = time.perf_counter()
        tiles = work()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAKS_IN_A_MIB
    return {"seconds": seconds, "tiles": tiles, "peak_mib": peak}


def warm_up(slide: Slide, bundle: ModelBundle, device_name: str) -> None:
    """Score some tiles in the midst of the tissue, without touching the cache.

    What is imported when it is first needed is there afterwards: a session waits for it once.
    """
    import numpy as np
    import shapely

    grid = slide.tile_grid(bundle.card.tile_px, bundle.card.mpp)
    rows, columns = np.nonzero(slide.tissue("auto").keep(grid))
    height, width = grid.tile_px0
    around = max(2.0, WARM_TILES**0.5 * WARM_PX / bundle.card.tile_px) / 2
    y, x = (rows[len(rows) // 2] + 0.5) * height, (columns[len(columns) // 2] + 0.5) * width
    beside, above = around * width, around * height
    region = shapely.box(x - beside, y - above, x + beside, y + above)
    score(slide, bundle, device_name, cache=False, regions=[region])


def encoder_of(slide: Slide, bundle: ModelBundle, device_name: str) -> TileEncoder:
    """Return what the method of a model turns the tiles of a slide into numbers with."""
    from typing import cast

    from napari_her2.inference.device import choose_device
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.methods.catalogue import method_of
    from napari_her2.steps import finished

    job = ScoringJob(slide, None, bundle, None, choose_device(device_name), ScoringOptions())
    return finished(cast("TileMethod", method_of(bundle.card)).encoder(job))[0]


def read(slide: Slide, bundle: ModelBundle) -> int:
    card = bundle.card
    keep = slide.tissue("auto").keep(slide.tile_grid(card.tile_px, card.mpp))
    return sum(len(batch.images) for batch in slide.tiles(tile_px=card.tile_px, mpp=card.mpp, keep=keep))


def prepare_model(slide: Slide, bundle: ModelBundle, device_name: str) -> Timed:
    """Make tiles ready in memory, so that only encoder and head are measured, on as many tiles."""
    import itertools

    import numpy as np
    import torch

    from napari_her2.inference.device import choose_device
    from napari_her2.inference.embed import default_batch
    from napari_her2.inference.encode import EncoderRunner

    card, device, encoder = bundle.card, choose_device(device_name), encoder_of(slide, bundle, device_name)
    size = default_batch(device, card.tile_px)
    count = int(slide.tissue("auto").keep(slide.tile_grid(card.tile_px, card.mpp)).sum())
    keep = slide.tissue("auto").keep(slide.tile_grid(card.tile_px, card.mpp))
    stream = slide.tiles(tile_px=card.tile_px, mpp=card.mpp, keep=keep, batch_size=size)
    ready = [batch.images for batch in itertools.islice(stream, 4)]
    runner = EncoderRunner(encoder, device)
    runner.run(ready[0])

    def work() -> int:
        features = np.empty((count, encoder.spec.dim), np.float16)
        pending: Any = None
        spans = [(start, min(start + size, count)) for start in range(0, count, size)]
        for number, (start, stop) in enumerate(spans):
            images = ready[number % len(ready)]
            started = runner.submit(np.resize(images, (stop - start, *images.shape[1:])))
            if pending is not None:
                features[pending[0] : pending[1]] = pending[2].result()
            pending = (start, stop, started)
        features[pending[0] : pending[1]] = pending[2].result()
        if encoder is bundle.encoder:
            with torch.inference_mode():
                bundle.head.to(device.torch_device)(torch.from_numpy(features).to(device.torch_device))
        return count

    return work


def score(
    slide: Slide, bundle: ModelBundle, device_name: str, *, cache: bool, regions: list[Any] | None = None
) -> int:
    from napari_her2 import score_slide

    return len(score_slide(slide, bundle, regions=regions, device=device_name, cache=cache).table)


def left_half(slide: Slide) -> list[Any]:
    import shapely

    return [shapely.box(0, 0, slide.shape[1] / 2, slide.shape[0])]


def in_its_own_process(mode: str, options: argparse.Namespace, cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", mode, "--slide", str(options.slide)]
    command += ["--model", options.model, "--device", options.device]
    environment = os.environ | {"NAPARI_HER2_CACHE": cache}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def kept_folder() -> Path:
    from napari_her2.inference.cache import cache_folder

    folder = cache_folder().parent / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def phantom_slide(size_px: int) -> Path:
    from napari_her2.phantom import make_pair

    folder = kept_folder() / f"phantom-{size_px}"
    found = folder / "case_HE.svs"
    return (
        found
        if found.is_file()
        else make_pair(folder, "case", score="3+", seed=1, size_px=size_px, mpp=0.25).he
    )


def random_model() -> str:
    """AlexNet and a head with random weights: as fast as trained ones."""
    from dataclasses import replace

    from napari_her2.models.attention_mil import AttentionMIL
    from napari_her2.models.bundle import save_bundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.encoders import build_encoder

    encoder = build_encoder("alexnet")
    card = ModelCard(
        name="random", version="1", method="attention-mil", architecture="AttentionMIL",
        arguments={"features": 1024, "hidden": 256, "classes": 4},
        encoder=replace(encoder.spec, weights="bundled"), stain="H&E", tile_px=96, mpp=0.5,
        classes=("0", "1+", "2+", "3+"), task="none", training_data="none", licence="none",
        intended_use="benchmarks", guideline="none",
    )  # fmt: skip
    path = kept_folder() / "random.safetensors"
    save_bundle(path, card, encoder, AttentionMIL())
    return str(path)


def spread(values: list[float], form: str = "{:.2f}") -> str:
    texts = [form.format(value) for value in (statistics.median(values), min(values), max(values))]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def report(options: argparse.Namespace, rounds: list[dict[str, dict[str, float]]]) -> None:
    def column(mode: str, what: str) -> list[float]:
        return [found[mode][what] for found in rounds]

    tiles = int(rounds[0]["whole"]["tiles"])
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {len(rounds)} rounds")
    print(
        f"{Path(options.slide).name}, {tiles:,} tiles, model {Path(options.model).stem}, {options.device}\n"
    )
    print("| what | s, median (range) | tiles/s |\n|---|---|---|")
    names = {
        "reading": "reading alone (tissue, tiles)",
        "model": "model alone (encoder, head)",
        "whole": "scoring, without cache",
        "keep": "scoring, filling the cache",
        "again": "scoring again, all cached",
        "region": "scoring half of it, all cached",
    }
    for mode, name in names.items():
        rates = [found[mode]["tiles"] / found[mode]["seconds"] for found in rounds]
        print(f"| {name} | {spread(column(mode, 'seconds'))} | {statistics.median(rates):,.0f} |")
    parts = list(
        zip(column("whole", "seconds"), column("reading", "seconds"), column("model", "seconds"), strict=True)
    )
    of_sum = spread([whole / (reading + model) for whole, reading, model in parts])
    of_max = spread([whole / max(reading, model) for whole, reading, model in parts])
    peaks = [found["whole"]["peak_mib"] - found["idle"]["peak_mib"] for found in rounds]
    print(f"\n- scoring / (reading + model): {of_sum}")
    print(f"- scoring / max(reading, model): {of_max}")
    print(f"- peak memory above the idle process, MiB: {spread(peaks, '{:,.0f}')}")
    print(f"- idle process (slide open, model loaded), MiB: {spread(column('idle', 'peak_mib'), '{:,.0f}')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", help="by default a phantom")
    parser.add_argument("--size", type=int, default=40_000, help="side of the phantom, px")
    parser.add_argument("--model", default="demo-attention-mil", help='name, file or "random"')
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.slide, options.model, options.device)))
        return
    options.model = random_model() if options.model == "random" else options.model
    options.slide = options.slide or str(phantom_slide(options.size))
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            modes = ("idle", "reading", "model", "whole", "keep", "again", "region")
            rounds.append({mode: in_its_own_process(mode, options, cache) for mode in modes})
    report(options, rounds)


if __name__ == "__main__":
    main()
