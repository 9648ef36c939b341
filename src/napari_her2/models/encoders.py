"""Patch encoders by name: from tiles of pixels to feature vectors.

``alexnet`` is the convolutional part of AlexNet (Krizhevsky, One weird trick for parallelizing
convolutional neural networks, 2014, arXiv:1404.5997) on 96 px tiles, 1024 features, as in Abdulsadig et
al. (arXiv:2411.05028). ``timm:NAME`` is any model of timm, pooled as timm pools it.

Tiles stay uint8 until they are on the device and are normalised there, in float32. The normalisation is
not folded into the first convolution: that pads with zeros after normalisation, which in raw pixels means
padding with the mean, and an encoder of any make cannot be told so. One subtraction and one multiplication
on the device are exact, and cost little beside the first layer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from napari_her2.errors import ModelError
from napari_her2.models.card import EncoderSpec
from napari_her2.models.timm_backbones import build_timm, fetch
from napari_her2.models.weights_file import check_tensors, read_weights, weights_digest, write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from napari_her2.models.card import ArgumentValue
    from napari_her2.models.weights_header import TensorClaim

    _Of = TypeVar("_Of")

ALEXNET_TILE_PX = 96
ALEXNET_DIM = 1024


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of RGB on [0, 1], as used when the weights were trained."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


NORMALISATIONS: Mapping[str, Normalisation] = {
    "none": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # The next two exceed 1 although pixels do not: the public scripts of the paper apply them to pixels
    # on [0, 1] all the same, so weights trained with them need them as they are.
    "pcam": Normalisation((1.0294, 0.5995, 1.3757), (0.8379, 1.0470, 0.8024)),
    "ihc": Normalisation((1.4128, 1.4503, 1.5884), (0.5338, 0.6164, 0.6477)),
}


class PatchEncoder(nn.Module):
    """An encoder with its preparation of tiles; frozen until told otherwise.

    Parameters
    ----------
    spec : EncoderSpec
    backbone : nn.Module
        Takes normalised (B, 3, t, t) float, gives (B, D).

    Attributes
    ----------
    exact : bool
        False: it gives features, which may be computed in lower precision.
    """

    exact = False

    def __init__(self, spec: EncoderSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.frozen = True
        # Not part of the weights: the spec carries them, and two sources could disagree.
        self.shift: Tensor
        self.gain: Tensor
        self.register_buffer("shift", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("gain", 1 / (torch.tensor(spec.std).view(1, 3, 1, 1) * 255), persistent=False)
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        """Encode tiles.

        Parameters
        ----------
        images : (B, t, t, 3) or (B, 3, t, t) uint8
            The first needs no copy: seen as (B, 3, t, t) it has channels_last layout already.

        Returns
        -------
        (B, D) float32

        Raises
        ------
        ModelError
            If the tiles have another size or type than the encoder takes.
        """
        size = self.spec.tile_px
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ModelError(
                f"The encoder takes batches of uint8 tiles, not {images.dtype} of {images.ndim} axes."
            )
        if images.shape[-1] == 3:
            images = images.permute(0, 3, 1, 2)
        if tuple(images.shape[1:]) != (3, size, size):
            raise ModelError(
                f"The encoder {self.spec.name} takes RGB tiles of {size} x {size} pixels, not of shape "
                f"{tuple(images.shape)}: read the tiles at {size} px."
            )
        features: Tensor = self.backbone(self.normalise(images))
        return features.float()

    def normalise(self, images: Tensor) -> Tensor:
        """Prepare pixels: (B, 3, t, t) uint8 to float32, normalised, channels_last."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels.sub_(self.shift).mul_(self.gain)

    def train(self, mode: bool = True) -> PatchEncoder:
        """Enter training mode, unless frozen: a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def freeze(self) -> PatchEncoder:
        """Fix the weights, and stay in evaluation mode, until `unfreeze`."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def unfreeze(self) -> PatchEncoder:
        """Let the weights learn (pre-training)."""
        self.frozen = False
        self.requires_grad_(True)
        return self.train(True)

    def fingerprint(self) -> str:
        """SHA-256 over the spec and the weights, in hexadecimal: two encoders that share it agree."""
        spec = self.spec
        salt = f"{spec.name} {spec.tile_px} {spec.mean} {spec.std} {sorted(spec.arguments.items())}"
        return weights_digest(self.backbone.state_dict(), salt)


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


def build_encoder(
    name: str,
    *,
    weights: Literal["random", "pretrained"] | Path = "random",
    tile_px: int | None = None,
    normalisation: str | None = None,
    arguments: Mapping[str, ArgumentValue] | None = None,
    seed: int = 0,
) -> PatchEncoder:
    """Build a patch encoder.

    Parameters
    ----------
    name : str
        "alexnet" or "timm:NAME" ("timm:resnet18.a1_in1k").
    weights : "random", "pretrained" or Path
        "pretrained" may download through torchvision or timm: nothing else ever does. A path is a local
        .safetensors file.
    tile_px : int, optional
        Side of the tiles; by default 96 for AlexNet and what timm says of the model.
    normalisation : str, optional
        Key of `NORMALISATIONS`; by default what the file with the weights says (`save_encoder`), else what
        timm says of the model; for AlexNet that of ImageNet, and none with random weights.
    arguments : mapping, optional
        Handed to ``timm.create_model``.
    seed : int, default 0
        Of random weights.

    Returns
    -------
    PatchEncoder
        Frozen, in evaluation mode.

    Raises
    ------
    ModelError
        If the name is unknown, the tile size does not fit, or the weights cannot be had.
    """
    backbone, spec = _build(
        name, tile_px, pretrained=weights == "pretrained", arguments=dict(arguments or {}), seed=seed
    )
    if isinstance(weights, Path):
        file = read_weights(weights)
        load_backbone(backbone, file.tensors, weights.name)
        spec = _as_stated(spec, file.metadata, weights.name)
    elif weights not in ("random", "pretrained"):
        raise ModelError(f"Encoder weights are random, pretrained or a path, not {weights!r}.")
    if normalisation is None and name == "alexnet" and weights == "random":
        normalisation = "none"
    if normalisation is not None:
        spec = _with_normalisation(spec, normalisation)
    if weights != "random":
        spec = replace(spec, weights=f"sha256:{weights_digest(backbone.state_dict())}")
    return PatchEncoder(spec, backbone)


def check_encoder_fits(spec: EncoderSpec, claims: Mapping[str, TensorClaim], source: str) -> None:
    """Refuse an encoder of a card whose weights are not those that a file claims to hold.

    It is built without memory for that, so that a card cannot ask for more than its file brings.

    Parameters
    ----------
    spec : EncoderSpec
    claims : mapping of str to TensorClaim
        By the header of the file.
    source : str
        Named in messages.

    Raises
    ------
    ModelError
        If it cannot be built, or needs other tensors.
    """
    with torch.device("meta"):
        backbone, built = _build(spec.name, spec.tile_px, arguments=spec.arguments)
    if built.dim != spec.dim:
        raise ModelError(
            f"The card says that {spec.name} gives {spec.dim} features, but it gives {built.dim}: "
            f"the model is damaged, or made for another version of the encoder."
        )
    check_tensors(backbone.state_dict(), _own(backbone, claims), source)


def encoder_from_spec(spec: EncoderSpec, tensors: Mapping[str, Tensor], source: str) -> PatchEncoder:
    """Build the encoder of a card with given weights, after `check_encoder_fits`; nothing is downloaded.

    Parameters
    ----------
    spec : EncoderSpec
    tensors : mapping of str to Tensor
    source : str
        Named in messages.

    Returns
    -------
    PatchEncoder
    """
    backbone, _ = _build(spec.name, spec.tile_px, arguments=spec.arguments, dim=spec.dim)
    load_backbone(backbone, tensors, source)
    return PatchEncoder(spec, backbone)


def save_encoder(path: Path, encoder: PatchEncoder) -> None:
    """Write an encoder's weights as safetensors, with the normalisation that they were trained with.

    `build_encoder` reads both back; beside a bundle, ``<name>.encoder.safetensors`` serves its card.

    Parameters
    ----------
    path : Path
    encoder : PatchEncoder

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    spec = encoder.spec
    stated = {"encoder": spec.name, "mean": json.dumps(spec.mean), "std": json.dumps(spec.std)}
    write_weights(path, encoder.backbone.state_dict(), stated)


def load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a backbone, strictly, whoever saved them.

    Accepts the names of the backbone itself, of the whole torchvision AlexNet (its classifier is left
    out), of a timm model with its classifier, and any of these below "module." as DataParallel saves.

    Parameters
    ----------
    backbone : nn.Module
    tensors : mapping of str to Tensor
    source : str
        Named in messages.

    Raises
    ------
    ModelError
        If they are not the weights of this encoder.
    """
    given = _own(backbone, tensors)
    check_tensors(backbone.state_dict(), given, source)
    backbone.load_state_dict(given)


def _own(backbone: nn.Module, tensors: Mapping[str, _Of]) -> dict[str, _Of]:
    """Tensors by the names of the backbone, without those of a classifier that it has no use for."""
    wanted, heads = backbone.state_dict().keys(), _head_prefixes(backbone)
    given = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return {key: value for key, value in given.items() if key in wanted or not key.startswith(heads)}


def _build(
    name: str,
    tile_px: int | None,
    *,
    arguments: Mapping[str, ArgumentValue],
    pretrained: bool = False,
    seed: int = 0,
    dim: int | None = None,
) -> tuple[nn.Module, EncoderSpec]:
    """Backbone and spec of a name; a length of the features that is known need not be measured."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "alexnet":
            return _build_alexnet(tile_px, pretrained=pretrained, arguments=arguments)
        if name.startswith("timm:") and len(name) > 5:
            return build_timm(name, tile_px, pretrained=pretrained, arguments=arguments, dim=dim)
    raise ModelError(f"There is no encoder called {name!r}: use alexnet, or timm: and a model of timm.")


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
    chosen = NORMALISATIONS["imagenet"]
    return backbone, EncoderSpec("alexnet", size, chosen.mean, chosen.std, ALEXNET_DIM, "random")


def _as_stated(spec: EncoderSpec, metadata: Mapping[str, str], source: str) -> EncoderSpec:
    """Return the spec with the normalisation that a file of weights states, if it does."""
    if metadata.get("encoder", spec.name) != spec.name:
        raise ModelError(f"{source} holds weights of {metadata['encoder']!r:.80}, not of {spec.name}.")
    if not {"mean", "std"} <= metadata.keys():
        return spec
    try:
        mean, std = json.loads(metadata["mean"]), json.loads(metadata["std"])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source} does not state its normalisation in numbers: get it again.") from error
    return replace(spec, mean=mean, std=std)


def _with_normalisation(spec: EncoderSpec, name: str) -> EncoderSpec:
    if name not in NORMALISATIONS:
        raise ModelError(f"There is no normalisation called {name!r}: use {', '.join(NORMALISATIONS)}.")
    return replace(spec, mean=NORMALISATIONS[name].mean, std=NORMALISATIONS[name].std)
