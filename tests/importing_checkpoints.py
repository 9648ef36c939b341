"""Checkpoints of published code: saved, and imported as bundles under terms."""

from __future__ import annotations

import torch
from torch import nn

from napari_her2.models.card import EncoderSpec
from napari_her2.models.importing.importer import ImportTerms, import_checkpoint, inspect_checkpoint
from napari_her2.models.importing.kinds import KINDS

SCORES = ("0", "1+", "2+", "3+")


BINARY = {"negative": ("0", "1+"), "positive": ("2+", "3+")}


def spec(dim: int, tile_px: int = 224) -> EncoderSpec:
    return EncoderSpec(
        "timm:resnet18", tile_px, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), dim, weights=f"sha256:{'1' * 64}"
    )


def terms(kind: str, features: int | None, count: int = 4, **changes) -> ImportTerms:
    chosen = KINDS[kind]
    names = SCORES[:count] if count > 2 else tuple(BINARY)
    values = {
        "name": f"my-{kind}",
        "classes": names,
        "class_scores": {} if count > 2 else BINARY,
        "stain": chosen.stains[0],
        "tile_px": chosen.tile_px,
        "mpp": chosen.mpp,
        "encoder": None if features is None else spec(features, chosen.tile_px),
    }
    return ImportTerms(**(values | changes))


def saved(tmp_path, model: nn.Module, *, wrap=lambda state: state, name="theirs.pt"):
    path = tmp_path / name
    torch.save(wrap(model.state_dict()), path)
    return path


def imported(tmp_path, path, kind: str, given: ImportTerms):
    out = tmp_path / f"{given.name}.safetensors"
    import_checkpoint(inspect_checkpoint(path, kind), given, out)
    return out


def seeded(make, seed=5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()
