"""Predictors of Corr-A-Net as their scripts save them (Dutta et al. 2025): a network of timm, its classifier.

Lightning keeps the network below ``model.``; the classifier is that of timm, or a layer of its own beside it.
They have no confidence network, so a bundle of them offers no trust in single fields. Only those that look at
the three channels of H&E can score a slide by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.importing.networks import network_like
from napari_her2.models.importing.renaming import HeadRead, matrix, refuse_strangers
from napari_her2.models.predictors import FIELD_PX, PATCH_PX, PREDICTORS, build_backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_WHAT = "a predictor of Corr-A-Net"
_MODEL = "model."
_CLASSIFIERS = ("fc", "classifier", "head", "head.fc")
_FIRST = ("conv1.weight", "conv_stem.weight", "patch_embed.proj.weight")
_PIXELS = 3


def read_predictor(tensors: Mapping[str, Tensor]) -> HeadRead:
    """Read a predictor of fields.

    Raises
    ------
    ModelError
        Naming the tensors that do not fit, or where it looks at something else than H&E.
    """
    given = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items()}
    origins = {name.removeprefix(_MODEL): name for name in tensors}
    if len(given) < len(tensors):
        twice = sorted(
            name for name in tensors if not name.startswith(_MODEL) and f"{_MODEL}{name}" in tensors
        )
        raise ModelError(
            f"The checkpoint has {twice[0]:.200} twice, below {_MODEL} and beside it: save the predictor "
            f"alone."
        )
    classifier = next((name for name in _CLASSIFIERS if f"{name}.weight" in given), _CLASSIFIERS[0])
    last = {f"{classifier}.weight", f"{classifier}.bias"}
    body = {name: tensor for name, tensor in given.items() if name not in last}
    channels = _channels(body)
    size_px = _size_px(body)

    def backbone(name: str) -> nn.Module:
        return build_backbone(name, channels=channels, size_px=size_px)

    architecture = network_like(body, PREDICTORS, backbone, _WHAT)
    refuse_strangers({*body, *last}, given, _WHAT)
    classes, features = matrix(given[f"{classifier}.weight"], origins[f"{classifier}.weight"], _WHAT)
    if channels != _PIXELS:
        raise ModelError(
            f"This predictor looks at {channels} channels, not at the {_PIXELS} of an H&E field: what makes "
            f"them of a slide is not in the file, so that slides cannot be scored with it. Train both "
            f"together with napari-her2."
        )
    first = next(name for name in _FIRST if name in body)
    ours = {f"predictor.backbone.{name}": name for name in body}
    ours |= {f"predictor.classify.{name.rpartition('.')[2]}": name for name in last}
    fixed = PREDICTORS[architecture].transformer
    return HeadRead(
        "FieldModel",
        {
            "predictor": architecture,
            "classes": classes,
            "dim": 16,
            "attention": True,
            "channels_from": "H&E",
            "confidence": False,
            **({"field_px": size_px} if fixed else {}),
        },
        {name: given[theirs] for name, theirs in ours.items()},
        {name: origins[theirs] for name, theirs in ours.items()},
        found=(
            ("network", f"{architecture}, {features} features"),
            ("confidence in its fields", "none: the file has no confidence network"),
            *((("fields", f"{size_px} px"),) if fixed else ()),
        ),
        pixels=f"predictor.backbone.{first}",
    )


def _channels(body: Mapping[str, Tensor]) -> int:
    first = next((body[name] for name in _FIRST if name in body), None)
    return (
        int(first.shape[1]) if first is not None and first.ndim == 4 and first.shape[1] <= 1024 else _PIXELS
    )


def _size_px(body: Mapping[str, Tensor]) -> int:
    """Side of the fields that a transformer takes, by its position embedding; that of the paper otherwise."""
    places = body.get("pos_embed")
    if places is None or places.ndim != 3:
        return FIELD_PX
    # With or without the class token; registers have no place.
    side = next((s for s in range(2, 129) if places.shape[1] - s * s in (0, 1)), FIELD_PX // PATCH_PX)
    return side * PATCH_PX
