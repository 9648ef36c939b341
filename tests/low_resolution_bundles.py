"""A low-resolution model small enough for tests, with random weights."""

from __future__ import annotations

import torch

from napari_her2.models.bundle import save_bundle
from napari_her2.models.card import ModelCard
from napari_her2.models.low_resolution import LowResolution

ARGUMENTS = {"variant": "atto", "classes": 3, "size_px": 64, "mode": "fit", "whiten": False}


def make_low_resolution_bundle(path, **changes):
    arguments = ARGUMENTS | changes.pop("arguments", {})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = LowResolution(**arguments).eval()
        with torch.no_grad():
            model.network.head.fc.weight.mul_(20)
    values = {
        "name": "low",
        "version": "1",
        "method": "low-resolution",
        "architecture": "LowResolution",
        "arguments": arguments,
        "encoder": None,
        "stain": "IHC",
        "tile_px": arguments["size_px"],
        "mpp": 12.0,
        "classes": ("0", "Low", "High"),
        "task": "HER2 IHC as 0, Low or High from one image of low resolution",
        "training_data": "nothing: random weights",
        "licence": "BSD-3-Clause",
        "intended_use": "tests",
        "guideline": "ASCO/CAP 2018",
    }
    save_bundle(path, ModelCard(**(values | changes)), None, model)
    return path
