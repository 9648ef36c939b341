"""Patch encoders by name: from tiles of pixels to feature vectors.

``alexnet`` is the convolutional part of AlexNet (Krizhevsky, One weird trick for parallelizing
convolutional neural networks, 2014, arXiv:1404.5997) on 96 px tiles, 1024 features, as in Abdulsadig et
al. (arXiv:2411.05028). ``timm:NAME`` is any model of timm. Encoders of tissue that are known by a name of
their own ("uni", "virchow2") are built as `napari_her2.models.encoder_contracts` has it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from napari_her2.errors import ModelError
from napari_her2.models.backbones import (
    build_backbone,
    load_backbone,
    loaded_backbone,
    measured,
    own_tensors,
)
from napari_her2.models.encoder_contracts import EncoderContract, alias_of, contract_of, with_pooling
from napari_her2.models.encoder_folder import installed_encoder, installed_weights
from napari_her2.models.foreign_weights import PICKLES, read_checkpoint
from napari_her2.models.known_encoders import (
    check_as_known,
    check_built_here,
    published_tensors,
    spec_of,
)
from napari_her2.models.normalisations import NORMALISATIONS
from napari_her2.models.patch_encoder import PatchEncoder
from napari_her2.models.token_pooling import prefix_tokens
from napari_her2.models.weights_file import check_tensors, read_weights, weights_digest, write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from napari_her2.models.card import ArgumentValue, EncoderSpec, Pooling
    from napari_her2.models.weights_header import TensorClaim

Weights = Literal["random", "pretrained", "installed"]


def build_encoder(
    name: str,
    *,
    weights: Weights | Path = "random",
    tile_px: int | None = None,
    normalisation: str | None = None,
    arguments: Mapping[str, ArgumentValue] | None = None,
    pooling: Pooling | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> PatchEncoder:
    """Build a patch encoder.

    Parameters
    ----------
    name : str
        A name of `napari_her2.models.encoder_contracts` ("uni"), "alexnet" or "timm:NAME"
        ("timm:resnet18.a1_in1k").
    weights : "random", "pretrained", "installed" or Path
        "installed" takes those in the folder of encoders. "pretrained" may download: nothing else ever does.
        A path is a local file, ``.safetensors`` or a checkpoint of PyTorch with tensors alone.
    tile_px : int, optional
        Side of the tiles; by default that of the contract, 96 for AlexNet, what timm says of its model.
    normalisation : str, optional
        Key of `NORMALISATIONS`; by default that of the contract, or what the file with the weights says
        (`save_encoder`), else what timm says of the model; for AlexNet that of ImageNet, and none with random
        weights.
    arguments : mapping, optional
        Handed to ``timm.create_model``.
    pooling : str, optional
        Another pooling than that of the contract; for a model of timm, how its tokens are pooled.
    seed : int, default 0
        Of random weights.
    trust_remote_code : bool, default False
        Whether code of the publisher's is fetched and run, where an encoder needs that. No card asks for it,
        and no model is saved with such an encoder.

    Returns
    -------
    PatchEncoder
        Frozen, in evaluation mode.

    Raises
    ------
    ModelError
        If the name is unknown, the tile size does not fit, or the weights cannot be had.
    """
    if not isinstance(weights, Path) and weights not in ("random", "pretrained", "installed"):
        raise ModelError(
            f"Encoder weights are installed, random, pretrained or a path, not {str(weights)!r:.80}."
        )
    if trust_remote_code and _has_contract(name) and contract_of(name).remote_code:
        return _by_remote_code(contract_of(name), tile_px)
    if _has_contract(name):
        if arguments:
            raise ModelError(
                f"{name} is built as it is known: leave its arguments out, or name it timm:NAME."
            )
        encoder = _by_contract(
            contract_of(name.removeprefix("timm:hf-hub:")), weights, tile_px, pooling, seed
        )
        spec, backbone = encoder.spec, encoder.backbone
    else:
        spec, backbone = _by_network(name, weights, tile_px, dict(arguments or {}), pooling, seed)
    if normalisation is None and name == "alexnet" and weights == "random":
        normalisation = "none"
    if normalisation is not None:
        spec = _with_normalisation(spec, normalisation)
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
        backbone, _ = build_backbone(spec.name, spec.tile_px, arguments=spec.arguments)
        dim = measured(backbone, spec).dim
    if dim != spec.dim:
        raise ModelError(
            f"The card says that {spec.name} gives {spec.dim} features, but it gives {dim}: "
            f"the model is damaged, or made for another version of the encoder."
        )
    check_tensors(backbone.state_dict(), own_tensors(backbone, claims), source)


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
    return PatchEncoder(spec, loaded_backbone(spec, tensors, source))


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


def _has_contract(name: str) -> bool:
    own = name.removeprefix("timm:hf-hub:")
    return own != "alexnet" and ":" not in own and bool(alias_of(own))


def _by_contract(
    known: EncoderContract,
    weights: Weights | Path,
    tile_px: int | None,
    pooling: Pooling | None,
    seed: int,
) -> PatchEncoder:
    contract = known if pooling is None else with_pooling(known, pooling)
    check_built_here(contract)
    if weights == "random":
        spec = spec_of(contract, tile_px=tile_px)
        backbone, _ = build_backbone(spec.name, spec.tile_px, arguments=spec.arguments, seed=seed)
        check_as_known(contract, measured(backbone, spec), prefix_tokens(backbone))
        return PatchEncoder(spec, backbone)
    if isinstance(weights, Path):
        tensors, hub, source = published_tensors(contract, weights), "", weights.name
    else:
        present = installed_encoder(contract.name)
        if present is None and weights == "pretrained":
            from napari_her2.models.encoder_fetch import fetch_encoder  # the network: only on that word

            present = fetch_encoder(contract)
        found = present or installed_weights(contract.name)
        tensors, hub, source = dict(read_weights(found.path).tensors), found.provenance, found.path.name
    backbone = loaded_backbone(spec_of(contract, tile_px=tile_px), tensors, source)
    digest = weights_digest(backbone.state_dict())
    spec = spec_of(contract, digest, tile_px=tile_px, hub=hub)
    check_as_known(contract, measured(backbone, spec), prefix_tokens(backbone))
    return PatchEncoder(spec, backbone)


def _by_remote_code(contract: EncoderContract, tile_px: int | None) -> PatchEncoder:
    """Build an encoder with code that its publisher keeps on the hub, at one commit."""
    from napari_her2.models.encoder_fetch import latest_commit
    from napari_her2.models.transformer_backbones import RemoteBackbone

    commit = latest_commit(contract)
    backbone = RemoteBackbone(contract.hub, commit, contract.prefix_tokens)
    # A name that nothing builds: a card with it is refused.
    known = replace(contract, remote_code=False, architecture="remote code")
    digest = weights_digest(backbone.state_dict())
    spec = spec_of(known, digest, tile_px=tile_px, hub=f"{contract.hub}@{commit}")
    check_as_known(contract, measured(backbone, spec), contract.prefix_tokens)
    return PatchEncoder(spec, backbone)


def _by_network(
    name: str,
    weights: Weights | Path,
    tile_px: int | None,
    arguments: dict[str, ArgumentValue],
    pooling: Pooling | None,
    seed: int,
) -> tuple[EncoderSpec, nn.Module]:
    if pooling in ("class+mean", "token mean") and name.startswith("timm:"):
        arguments.setdefault("global_pool", "")  # so that it gives its tokens
    backbone, spec = build_backbone(
        name, tile_px, pretrained=weights == "pretrained", arguments=arguments, seed=seed
    )
    spec = measured(backbone, spec if pooling is None else replace(spec, pooling=pooling))
    if weights == "installed":
        raise ModelError(
            f"{name} has no weights in the folder of encoders: give the file of its weights, or take "
            f"pretrained ones."
        )
    if isinstance(weights, Path):
        foreign = weights.suffix.lower() in PICKLES
        file = None if foreign else read_weights(weights)
        load_backbone(backbone, read_checkpoint(weights) if file is None else file.tensors, weights.name)
        spec = _as_stated(spec, {} if file is None else file.metadata, weights.name)
    if weights != "random":
        spec = replace(spec, weights=f"sha256:{weights_digest(backbone.state_dict())}")
    return spec, backbone


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
    mean, std = NORMALISATIONS[name]
    return replace(spec, mean=mean, std=std)
