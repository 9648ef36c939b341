"""Backbones of timm (Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861) by name.

timm can do more than build models: given the right name or argument it opens the network or unpickles a
file. Names and arguments may come from a model card of unknown origin, so both are checked first.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from napari_her2.errors import ModelError
from napari_her2.models.card import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_her2.models.card import ArgumentValue

# An allow list: others make timm read a file, open the network, or build without bounds. No network that
# was ever published goes beyond the ranges.
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "img_size": (8, 4096),
    "patch_size": (1, 512),
    "init_values": (1e-12, 100),
    "reg_tokens": (0, 64),
    "embed_dim": (8, 8192),
    "depth": (1, 64),
    "num_heads": (1, 128),
    "mlp_ratio": (0.1, 16),
}
_SWITCHES = frozenset({"dynamic_img_size", "no_embed_class", "class_token", "global_pool"})
_CANNOT = (
    RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError, AttributeError,
)  # fmt: skip
"""What timm raises on arguments that make no network."""
_Fetched = TypeVar("_Fetched")


def build_timm(
    name: str,
    tile_px: int | None,
    *,
    pretrained: bool,
    arguments: Mapping[str, ArgumentValue],
    dim: int | None = None,
) -> tuple[nn.Module, EncoderSpec]:
    """Build a timm model without classifier, and the spec of its preparation.

    Parameters
    ----------
    name : str
        "timm:" and the name.
    tile_px : int or None
        None takes the size that the model was made for.
    pretrained : bool
        Whether timm may download weights.
    arguments : mapping
        Handed to ``timm.create_model``; only sizes and switches are allowed.
    dim : int, optional
        Length of the features where it is known; otherwise a tile is encoded to see it.

    Returns
    -------
    tuple of nn.Module and EncoderSpec

    Raises
    ------
    ModelError
        If the name or an argument is refused, or timm cannot build it.
    """
    import timm  # seconds to import: only for those who need it

    model_name = name.removeprefix("timm:")
    _check_timm(model_name, arguments, known=timm.list_models(), pretrained=pretrained)

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(model_name, pretrained=pretrained, num_classes=0, **arguments)
        return model

    try:
        backbone = fetch(create, name) if pretrained else create()
    except _CANNOT as error:
        raise ModelError(f"timm cannot build {model_name!r}: {_first_line(error)}.") from error
    data = timm.data.resolve_model_data_config(backbone)
    size = data["input_size"][-1] if tile_px is None else tile_px
    spec = EncoderSpec(
        name, size, tuple(data["mean"]), tuple(data["std"]), dim=1, weights="random", arguments=arguments
    )
    return backbone, replace(spec, dim=_measure_dim(backbone, spec) if dim is None else dim)


def _check_timm(
    model_name: str, arguments: Mapping[str, ArgumentValue], *, known: list[str], pretrained: bool
) -> None:
    """Refuse names that timm would look up on the network, and arguments that a card must not set."""
    if ":" in model_name:
        if not (pretrained and model_name.startswith("hf-hub:")):
            raise ModelError(
                f"{model_name!r} would be looked up on the network: ask for pretrained weights, or name a "
                f"model of timm and give its weights as a local .safetensors file."
            )
    elif model_name.partition(".")[0] not in known:
        near = difflib.get_close_matches(model_name.partition(".")[0], known, n=3)
        hint = f" Close names: {', '.join(near)}." if near else ""
        raise ModelError(f"timm has no model called {model_name!r}.{hint}")
    for key, value in arguments.items():
        if key not in _NUMBERS and key not in _SWITCHES:
            raise ModelError(
                f"The encoder argument {key}={value!r:.40} is not allowed; allowed are "
                f"{', '.join(sorted({*_NUMBERS, *_SWITCHES}))}."
            )
        if key in _SWITCHES or value is None:
            continue
        low, high = _NUMBERS[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ModelError(
                f"The encoder argument {key}={value!r:.40} is not allowed: it must be from {low:g} to "
                f"{high:g}."
            )


def _measure_dim(backbone: nn.Module, spec: EncoderSpec) -> int:
    """Length of the features, from one black tile: what models state and give is not always the same."""
    backbone.eval()
    try:
        with torch.inference_mode():
            features = backbone(torch.zeros(1, 3, spec.tile_px, spec.tile_px))
    except _CANNOT as error:
        raise ModelError(
            f"{spec.name} does not take tiles of {spec.tile_px} px ({_first_line(error)}): "
            f"use the size it was made for."
        ) from error
    if features.ndim != 2:
        raise ModelError(f"{spec.name} gives no feature vector a tile, but shape {tuple(features.shape)}.")
    return int(features.shape[1])


def fetch(download: Callable[[], _Fetched], name: str) -> _Fetched:
    """Run what may download, and say in words what to do without a network."""
    try:
        return download()
    except Exception as error:  # the network libraries below raise types of their own
        raise ModelError(
            f"The pretrained weights of {name} could not be downloaded ({_first_line(error)}). Check the "
            f"network, or download them as .safetensors elsewhere and give that file."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
