"""The networks below patch encoders: built by name from plain arguments, and given their weights.

Building never opens the network unless public weights are asked for, and a card never asks for them. What is
given weights anyway is built without memory first, so that nobody waits for random numbers that are thrown
away, and no card can ask for more than its file brings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.card import EncoderSpec
from napari_her2.models.foreign_weights import without_prefix
from napari_her2.models.normalisations import IMAGENET
from napari_her2.models.timm_backbones import CANNOT, build_timm, fetch, first_line
from napari_her2.models.token_pooling import pooled, prefix_tokens, to_input
from napari_her2.models.weights_file import check_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from napari_her2.models.card import ArgumentValue

    _Of = TypeVar("_Of")

ALEXNET_TILE_PX = 96
ALEXNET_DIM = 1024
_PREFIXES = ("module.", "model.", "backbone.", "encoder.backbone.")
"""Below which programs keep an encoder."""


class _AlexNetFeatures(nn.Module):
    """The convolutional part of AlexNet, flattened channel by channel; layers named as in torchvision.

    Built here because importing torchvision takes longer than scoring a small slide; it is needed for its
    pretrained weights alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )

    def forward(self, images: Tensor) -> Tensor:
        # flatten() follows the axes (C, H, W) whatever the memory layout is.
        features: Tensor = self.features(images)
        return features.flatten(1)


def build_backbone(
    name: str,
    tile_px: int | None,
    *,
    arguments: Mapping[str, ArgumentValue],
    pretrained: bool = False,
    seed: int = 0,
) -> tuple[nn.Module, EncoderSpec]:
    """Build the network of a name, and what is known of how it is fed.

    Parameters
    ----------
    name : str
        "alexnet", "timm:NAME" or "transformers:CLASS".
    tile_px : int or None
        None takes the size that the network was made for.
    arguments : mapping
        What else it is built with, by plain values.
    pretrained : bool
        Whether public weights may be downloaded.
    seed : int
        Of random weights.

    Returns
    -------
    tuple of nn.Module and EncoderSpec
        With the length of the features not known yet (`measured`), unless it is always the same.

    Raises
    ------
    ModelError
        If there is no such network, or it cannot be built so.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "alexnet":
            return _build_alexnet(tile_px, pretrained=pretrained, arguments=arguments)
        if name.startswith("timm:") and len(name) > 5:
            return build_timm(name, tile_px, pretrained=pretrained, arguments=arguments)
        if name.startswith("transformers:"):
            from napari_her2.models.transformer_backbones import build_transformer

            return build_transformer(name, tile_px, arguments=arguments)
    raise ModelError(f"There is no encoder called {name!r:.80}: use alexnet, or timm: and a model of timm.")


def measured(backbone: nn.Module, spec: EncoderSpec) -> EncoderSpec:
    """Return the spec with the length of the features, from one black tile.

    What models state and what they give is not always the same; on the meta device it takes no memory.

    Raises
    ------
    ModelError
        If the network does not take such tiles, or gives nothing that can be pooled so.
    """
    backbone.eval()
    whole = spec.input_px in (None, spec.tile_px) and spec.resized_px is None
    if isinstance(backbone, _AlexNetFeatures) and spec.pooling == "pooled" and whole:
        # Known of this network; a tile on the meta device would load SymPy, for more than two seconds.
        return replace(spec, dim=ALEXNET_DIM)
    device = next(backbone.parameters()).device
    try:
        with torch.inference_mode():
            pixels = torch.zeros(1, 3, spec.tile_px, spec.tile_px, device=device)
            output = backbone(to_input(pixels, spec.input_px, spec.resized_px))
    except CANNOT as error:
        raise ModelError(
            f"{spec.name} does not take tiles of {spec.tile_px} px ({first_line(error)}): "
            f"use the size it was made for."
        ) from error
    return replace(spec, dim=int(pooled(output, spec.pooling, prefix_tokens(backbone)).shape[1]))


def load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a backbone, strictly, whoever saved them.

    Accepts the names of the backbone itself, of the whole torchvision AlexNet (its classifier is left
    out), of a timm model with its classifier, and any of these below "module." as DataParallel saves.

    Parameters
    ----------
    backbone : nn.Module
        May have been built without memory, on the meta device: it then takes the tensors as they are.
    tensors : mapping of str to Tensor
    source : str
        Named in messages.

    Raises
    ------
    ModelError
        If they are not the weights of this encoder.
    """
    given = own_tensors(backbone, tensors)
    wanted = backbone.state_dict()
    check_tensors(wanted, given, source)
    empty = any(tensor.is_meta for tensor in wanted.values())
    if empty:
        given = {key: value.to(wanted[key].dtype) for key, value in given.items()}
    backbone.load_state_dict(given, assign=empty)


def own_tensors(backbone: nn.Module, tensors: Mapping[str, _Of]) -> dict[str, _Of]:
    """Return tensors by the names of the backbone, without those of a classifier that it has no use for."""
    wanted, heads = backbone.state_dict().keys(), _head_prefixes(backbone)
    given = dict(tensors)
    if not wanted & given.keys():
        given = without_prefix(given, *_PREFIXES)
    given = {key.removeprefix("module."): tensor for key, tensor in given.items()}
    return {key: value for key, value in given.items() if key in wanted or not key.startswith(heads)}


def loaded_backbone(spec: EncoderSpec, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """Build the network of a card and give it its weights; nothing is downloaded.

    Raises
    ------
    ModelError
        If it cannot be built, or they are not its weights.
    """
    with torch.device("meta"):
        backbone, _ = build_backbone(spec.name, spec.tile_px, arguments=spec.arguments)
    load_backbone(backbone, tensors, source)
    if any(tensor.is_meta for tensor in (*backbone.parameters(), *backbone.buffers())):
        # It computes tables that are no part of its weights: those are there only if it is built in full.
        backbone, _ = build_backbone(spec.name, spec.tile_px, arguments=spec.arguments)
        load_backbone(backbone, tensors, source)
    return backbone


def _head_prefixes(backbone: nn.Module) -> tuple[str, ...]:
    """Names below which the original model keeps its classifier, which an encoder has no use for."""
    named = getattr(backbone, "pretrained_cfg", {}).get("classifier") or "classifier"
    names = (named,) if isinstance(named, str) else tuple(named)
    return tuple(f"{name}." for name in names)


def _build_alexnet(
    tile_px: int | None, *, pretrained: bool, arguments: Mapping[str, ArgumentValue]
) -> tuple[nn.Module, EncoderSpec]:
    size = ALEXNET_TILE_PX if tile_px is None else tile_px
    if not 95 <= size <= 112:
        raise ModelError(
            f"AlexNet gives {ALEXNET_DIM} features on tiles of 95 to 112 px, not on {size} px: use 96 px."
        )
    if arguments:
        raise ModelError(f"AlexNet takes no arguments, but was given {', '.join(sorted(arguments))}.")
    backbone = _AlexNetFeatures()
    if pretrained:
        from torchvision.models import AlexNet_Weights  # seconds to import: only for those who need it

        state = fetch(lambda: AlexNet_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True), "alexnet")
        load_backbone(backbone, state, "the weights of torchvision")
    return backbone, EncoderSpec("alexnet", size, *IMAGENET, ALEXNET_DIM, "random")
