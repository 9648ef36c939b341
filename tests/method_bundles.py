"""Bundles of the methods that are compared with each other, with random weights, small enough for tests."""

from __future__ import annotations

from dataclasses import replace

import torch

from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bundle import save_bundle
from napari_her2.models.card import ModelCard
from napari_her2.models.encoders import build_encoder

CLASSES = ("0", "1+", "2+", "3+")
MIL = {
    "abmil": ("ABMIL", {"width": 16, "hidden": 8, "gated": True}),
    "abmil-plain": ("ABMIL", {"width": 16, "hidden": 8, "gated": False}),
    "clam-sb": ("CLAM", {"width": 16, "hidden": 8, "multi_branch": False}),
    "clam-mb": ("CLAM", {"width": 16, "hidden": 8, "multi_branch": True}),
    "dsmil": ("DSMIL", {"hidden": 8, "project_values": False, "average": False}),
    "dsmil-average": ("DSMIL", {"hidden": 8, "project_values": True, "average": True}),
    "transmil": (
        "TransMIL",
        {"width": 16, "heads": 2, "landmarks": 16, "attention": "auto", "faithful": False},
    ),
    "transmil-faithful": (
        "TransMIL",
        {"width": 16, "heads": 2, "landmarks": 128, "attention": "nystrom", "faithful": True},
    ),
}
"""A bundle by name: its architecture and what that takes beside features and classes."""

_FACTS = {
    "version": "1",
    "training_data": "nothing: random weights",
    "licence": "BSD-3-Clause",
    "intended_use": "tests",
    "guideline": "ASCO/CAP 2018",
}


def make_patch_bundle(path, *, tile_px=64, mpp=1.0, fusion="mean", stain="IHC", classes=CLASSES, **changes):
    """ConvNeXt-atto whose head tells patches apart strongly."""
    arguments = {"variant": "atto", "classes": len(classes), "tile_px": tile_px, "fusion": fusion}
    architecture = ARCHITECTURES["PatchConvNeXt"]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = architecture.make(**arguments).eval()
        with torch.no_grad():
            # Untrained it says nearly the same of everything: what differs between plain colours is kept.
            model.network.head.fc.weight.mul_(60)
            colours = torch.rand(24, 3, 1, 1).expand(-1, -1, tile_px, tile_px)
            model.network.head.fc.bias.sub_(model(colours).mean(dim=0))
    card = ModelCard(
        name="patches",
        method=architecture.method,
        architecture="PatchConvNeXt",
        arguments=arguments,
        encoder=None,
        stain=stain,
        tile_px=tile_px,
        mpp=mpp,
        classes=tuple(classes),
        task="HER2 IHC score",
        **(_FACTS | changes),
    )
    save_bundle(path, card, None, model, encoder_dtype=torch.float32)
    return path


def make_mil_bundle(path, kind, *, stain="H&E", mpp=0.5):
    """One of `MIL` over AlexNet."""
    name, arguments = MIL[kind]
    architecture = ARCHITECTURES[name]
    encoder = build_encoder("alexnet", normalisation="imagenet", seed=3)
    arguments = {"features": encoder.spec.dim, "classes": len(CLASSES)} | arguments
    with torch.random.fork_rng():
        torch.manual_seed(6)
        head = architecture.make(**arguments).eval()
        with torch.no_grad():
            for layer in head.modules():
                if isinstance(layer, torch.nn.Linear) and layer.in_features == encoder.spec.dim:
                    layer.weight.mul_(60)  # features of a random encoder differ little
    card = ModelCard(
        name=kind,
        method=architecture.method,
        architecture=name,
        arguments=arguments,
        encoder=replace(encoder.spec, weights="bundled"),
        stain=stain,
        tile_px=96,
        mpp=mpp,
        classes=CLASSES,
        task="HER2 score of a slide",
        **_FACTS,
    )
    save_bundle(path, card, encoder, head)
    return path
