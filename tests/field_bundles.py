"""A model of fields small enough for tests, with random weights."""

from __future__ import annotations

import torch

from napari_her2.models.bundle import save_bundle
from napari_her2.models.card import ModelCard
from napari_her2.models.field_model import FieldModel

ARGUMENTS = {
    "predictor": "tinynet-e",
    "classes": 4,
    "dim": 8,
    "attention": True,
    "channels_from": "correlated",
    "field_px": 64,
}


def make_field_bundle(path, **changes):
    arguments = ARGUMENTS | changes.pop("arguments", {})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = FieldModel(**arguments).eval()
        with torch.no_grad():
            model.predictor.classify.weight.mul_(20)
            bias = changes.pop("confidence_bias", 1.0)
            if model.predictor.confide is not None:
                model.predictor.confide[2].bias.fill_(bias)
    values = {
        "name": "fields",
        "version": "1",
        "method": "corr-a-net",
        "architecture": "FieldModel",
        "arguments": arguments,
        "encoder": None,
        "stain": "H&E",
        "tile_px": 256,
        "mpp": 0.5,
        "classes": ("0", "1+", "2+", "3+"),
        "task": "H&E-based prediction of the HER2 IHC score",
        "training_data": "nothing: random weights",
        "licence": "BSD-3-Clause",
        "intended_use": "tests",
        "guideline": "ASCO/CAP 2018",
    }
    save_bundle(path, ModelCard(**(values | changes)), None, model, encoder_dtype=torch.float32)
    return path
