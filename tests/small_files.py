"""A small model with random weights, and a slide of one colour, as files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tifffile
import torch

from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bundle import save_bundle
from napari_her2.models.card import ModelCard
from napari_her2.models.encoders import build_encoder

if TYPE_CHECKING:
    from pathlib import Path


def make_bundle(path: Path, **changes) -> Path:
    encoder = build_encoder("alexnet", normalisation="imagenet", seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        head = AttentionMIL()
        with torch.no_grad():
            head.classifier.weight.mul_(40)
    values = {
        "name": "tiny",
        "version": "1",
        "method": "attention-mil",
        "architecture": "AttentionMIL",
        "arguments": {"features": 1024, "hidden": 256, "classes": 4},
        "encoder": replace(encoder.spec, weights="bundled"),
        "stain": "H&E",
        "tile_px": 96,
        "mpp": 0.5,
        "classes": ("0", "1+", "2+", "3+"),
        "task": "H&E-based prediction of the HER2 IHC score",
        "training_data": "nothing: random weights",
        "licence": "BSD-3-Clause",
        "intended_use": "tests",
        "guideline": "ASCO/CAP 2018",
    }
    save_bundle(path, ModelCard(**(values | changes)), encoder, head)
    return path


def write_flat_slide(path: Path, colour=(255, 255, 255), shape=(1200, 1300), mpp: float | None = 0.5) -> Path:
    """A tiled TIFF of one colour with an Aperio header."""
    image = np.full((*shape, 3), colour, np.uint8)
    scale = "" if mpp is None else f"|MPP = {mpp}"
    description = f"Aperio Image Library v1.0\n{shape[1]}x{shape[0]} (256x256)|AppMag = 20{scale}"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=description, metadata=None)
    return path
