"""Tiny configurations and slides to check and to train on, and a dry run to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import tifffile

from napari_her2_training.dry_run import check_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from napari_her2_training.findings import TrainingCheck

MODEL = '[model]\nname = "tiny"\ntraining_data = "phantom"\n'
DATA = "[data]\nvalidation = 0.5\n"
CONFIGS: Mapping[str, str] = {
    "attention-mil": DATA + "[bags]\nsize = 5\nbatch_size = 4\ntrain_batches = 3\nvalidation_batches = 2\n"
    "[head]\nhidden = 8\nepochs = 7\n",
    "wsmcl": DATA + 'tile_px = 96\n[encoder]\nname = "alexnet"\n'
    "[head]\nwidth = 16\nheads = 2\nlandmarks = 8\nk = 50\nepochs = 4\n"
    '[[ablation]]\nname = "plain"\nloss.contrastive = 0\n',
    "low-resolution": DATA + 'classes = "scores"\ntest = 0\n[image]\nsize_px = 64\n'
    '[network]\nvariant = "atto"\n[learning]\nepochs = 3\nbatch_size = 2\n',
    "patches": DATA + 'classes = "scores"\ntest = 0\n[patches]\ntile_px = 64\nper_slide = 6\n'
    '[network]\nvariant = "atto"\n[learning]\nepochs = 3\nbatch_size = 2\n',
    "mil": DATA + 'classes = "scores"\ntest = 0\n[tiles]\ntile_px = 96\n[head]\nepochs = 5\n',
    "compare": DATA + 'classes = "scores"\ntest = 0\n[tiles]\ntile_px = 96\n[head]\nepochs = 5\n'
    '[compare]\narms = "low-resolution, abmil, clam-sb"\n[image]\nsize_px = 64\n'
    '[network]\nvariant = "atto"\n[learning]\nepochs = 3\n',
    "corr-a-net": DATA + "tile_px = 64\nfield_px = 32\n[network]\ndim = 8\nepochs = 2\n",
    "predictor": DATA + "tile_px = 64\nfield_px = 32\n"
    '[predictor]\narchitecture = "tinynet-e"\ninput = "H&E"\nepochs = 2\n',
    "corr-a-net-table": DATA + "tile_px = 64\nfield_px = 32\n[network]\ndim = 8\nepochs = 2\n"
    '[predictor]\narchitecture = "tinynet-e"\nepochs = 2\n[table]\ninputs = "H&E, correlated"\n',
    "encoder": "[data]\nvalidation = 0.25\n[pretraining]\nepochs = 3\nbatch_size = 4\n",
}


def check(
    folder: Path, method: str, data: Path | None, text: str | None = None, **more: object
) -> TrainingCheck:
    config = folder / f"{method}.toml"
    config.write_text(MODEL + (CONFIGS[method] if text is None else text) + '[compute]\ndevice = "cpu"\n')
    return finish(check_steps(method, config=config, data=data, **more))[1]


def finish(steps: Generator) -> tuple[list, TrainingCheck]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def write_slide(path: Path, stain: str, seed: int) -> None:
    """Tissue of two colours on glass, 0.5 µm/px; more or less of it."""
    rng, side, edge = np.random.default_rng(seed), 480, 40 + 24 * (seed % 3)
    light, dark = {"HE": ((205, 140, 185), (105, 60, 130)), "HER2": ((190, 185, 205), (120, 80, 50))}[stain]
    cells = cv2.resize(rng.random((side // 8, side // 8)), (side, side), interpolation=cv2.INTER_CUBIC)
    tissue = np.where(cells[..., None] > 0.7, dark, light) + rng.normal(0, 6, (side, side, 3))
    image = np.full((side, side, 3), 243, np.uint8)
    inside = slice(edge, -edge), slice(edge, -edge)
    image[inside] = np.clip(tissue, 0, 255).astype(np.uint8)[inside]
    tifffile.imwrite(
        path,
        image,
        tile=(256, 256),
        photometric="rgb",
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
