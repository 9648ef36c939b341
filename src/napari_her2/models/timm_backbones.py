"""Backbones of timm (Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861) by name.

timm can do more than build models: given the right name or argument it opens the network or unpickles a
file. Names and arguments may come from a model card of unknown origin, so both are checked first.
"""

from __future__ import annotations

import difflib
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
_SWITCHES = frozenset({"dynamic_img_size", "no_embed_class", "class_token"})
_NAMES: Mapping[str, Mapping[str, object]] = {
    "global_pool": {name: name for name in ("", "token", "avg", "map", "max", "avgmax")},
    "act_layer": {"SiLU": nn.SiLU, "GELU": nn.GELU, "ReLU": nn.ReLU},
    "mlp_layer": dict.fromkeys(("SwiGLUPacked", "SwiGLU", "GluMlp", "Mlp")),
}
"""What may be asked for by name, and what it stands for; None: a layer of timm, looked up there."""
CANNOT = (
    RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError, AttributeError,
)  # fmt: skip
"""What libraries raise on arguments that make no network."""
_HUB = "hf-hub:"
_Fetched = TypeVar("_Fetched")


def build_timm(
    name: str,
    tile_px: int | None,
    *,
    pretrained: bool,
    arguments: Mapping[str, ArgumentValue],
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
        Handed to ``timm.create_model``; only sizes, switches and some layers by their names are allowed.

    Returns
    -------
    tuple of nn.Module and EncoderSpec
        With the length of the features not known yet.

    Raises
    ------
    ModelError
        If the name or an argument is refused, or timm cannot build it.
    """
    import timm  # seconds to import: only for those who need it

    model_name = name.removeprefix("timm:")
    _check_timm(model_name, arguments, known=timm.list_models(), pretrained=pretrained)
    built_with = {key: _meant(key, value) for key, value in arguments.items()}

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(model_name, pretrained=pretrained, num_classes=0, **built_with)
        return model

    try:
        backbone = fetch(create, name) if pretrained else create()
    except CANNOT as error:
        raise ModelError(f"timm cannot build {model_name!r}: {first_line(error)}.") from error
    data = timm.data.resolve_model_data_config(backbone)
    size = data["input_size"][-1] if tile_px is None else tile_px
    hub = ""
    if model_name.startswith(_HUB):
        hub = model_name.removeprefix(_HUB)
        name, arguments = _described(hub, backbone, arguments)
    return backbone, EncoderSpec(
        name,
        size,
        tuple(data["mean"]),
        tuple(data["std"]),
        dim=1,
        weights="random",
        arguments=arguments,
        hub=hub,
    )


def _described(
    hub: str, backbone: nn.Module, arguments: Mapping[str, ArgumentValue]
) -> tuple[str, Mapping[str, ArgumentValue]]:
    """Return the network of a model of the hub with its arguments, so that a card need not ask the hub."""
    import timm
    from timm.models import load_model_config_from_hf

    _, architecture, *more = fetch(lambda: load_model_config_from_hf(hub), hub)
    stated = (more[0] if more else None) or {}
    allowed = {*_NUMBERS, *_SWITCHES, *_NAMES}
    given = {key: value for key, value in stated.items() if key in allowed} | dict(arguments)
    wanted = {key: tuple(tensor.shape) for key, tensor in backbone.state_dict().items()}
    try:
        _check_timm(architecture, given, known=timm.list_models(), pretrained=False)
        built_with = {key: _meant(key, value) for key, value in given.items()}
        with torch.device("meta"):
            again = timm.create_model(architecture, num_classes=0, **built_with)
        same = wanted == {key: tuple(tensor.shape) for key, tensor in again.state_dict().items()}
    except CANNOT:
        same = False
    if not same:
        raise ModelError(
            f"{hub} is built with what a model card does not hold, so its models could not be opened again: "
            f"fetch its weights yourself, and name its network as timm:NAME."
        )
    return f"timm:{architecture}", given


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
    check_arguments(arguments, _NUMBERS, _SWITCHES, _NAMES)


def check_arguments(
    arguments: Mapping[str, ArgumentValue],
    numbers: Mapping[str, tuple[float, float]],
    switches: frozenset[str],
    names: Mapping[str, Mapping[str, object]],
) -> None:
    """Refuse arguments that are not on the lists: numbers with their range, switches, values by name.

    Raises
    ------
    ModelError
    """
    for key, value in arguments.items():
        if key not in numbers and key not in switches and key not in names:
            raise ModelError(
                f"The encoder argument {key}={value!r:.40} is not allowed; allowed are "
                f"{', '.join(sorted({*numbers, *switches, *names}))}."
            )
        if value is None:
            continue
        if key in names:
            if not isinstance(value, str) or value not in names[key]:
                allowed = ", ".join(repr(name) for name in names[key])
                raise ModelError(f"The encoder argument {key}={value!r:.40} is not allowed: use {allowed}.")
        elif key in switches:
            if not isinstance(value, bool):
                raise ModelError(
                    f"The encoder argument {key}={value!r:.40} is not allowed: use true or false."
                )
        else:
            low, high = numbers[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ModelError(
                    f"The encoder argument {key}={value!r:.40} is not allowed: it must be from {low:g} to "
                    f"{high:g}."
                )


def _meant(key: str, value: ArgumentValue) -> object:
    """Return what timm is handed for a value that stands in a card."""
    if key == "mlp_layer" and isinstance(value, str):
        from timm import layers

        return getattr(layers, value)
    return _NAMES[key][value] if key in _NAMES and isinstance(value, str) else value


def fetch(download: Callable[[], _Fetched], name: str) -> _Fetched:
    """Run what may download, and say in words what to do without a network."""
    try:
        return download()
    except Exception as error:  # the network libraries below raise types of their own
        raise ModelError(
            f"The pretrained weights of {name} could not be downloaded ({first_line(error)}). Check the "
            f"network, or download them as .safetensors elsewhere and give that file."
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
