"""Encoders that are known by name: what a card says of them, and their weights as they are published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_her2.errors import ModelError
from napari_her2.models.backbones import build_backbone, own_tensors
from napari_her2.models.card import EncoderSpec
from napari_her2.models.foreign_weights import read_checkpoint
from napari_her2.models.weights_file import check_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from napari_her2.models.encoder_contracts import EncoderContract


def spec_of(
    contract: EncoderContract, digest: str = "", *, tile_px: int | None = None, hub: str = ""
) -> EncoderSpec:
    """Return what a card says of an encoder that is known, without building it.

    Parameters
    ----------
    contract : EncoderContract
    digest : str
        Of its weights (`napari_her2.models.weights_file.weights_digest`); empty: random ones.
    tile_px : int, optional
        Side of the tiles; by default that of the contract. Others are resized to what the network sees.
    hub : str
        Where the weights came from, "id@revision".

    Returns
    -------
    EncoderSpec

    Raises
    ------
    ModelError
        If its network is not built here.
    """
    check_built_here(contract)
    tile = tile_px or contract.tile_px
    as_it_is = tile == contract.input_px and contract.resized_px is None
    return EncoderSpec(
        contract.spec_name,
        tile,
        contract.mean,
        contract.std,
        contract.dim,
        weights=f"sha256:{digest}" if digest else "random",
        arguments=dict(contract.arguments),
        contract=contract.name,
        pooling=contract.pooling,
        input_px=None if as_it_is else contract.input_px,
        resized_px=contract.resized_px,
        hub=hub,
    )


def check_built_here(contract: EncoderContract) -> None:
    """Refuse an encoder whose network is not built here, and say what can be done with it.

    Raises
    ------
    ModelError
    """
    if contract.remote_code:
        raise ModelError(
            f"{contract.title} is built by code that its publisher keeps on the hub, and such code is not "
            f"run unless you insist: `napari-her2 embed --encoder {contract.name} --trust-remote-code` makes "
            f"its features, and trainings learn from those files."
        )
    if contract.built_by == "elsewhere":
        raise ModelError(
            f"{contract.title} is built by a program of its own, and embeds no slides here: make its "
            f"features there (CLAM, TRIDENT) and learn from those files."
        )


def check_as_known(contract: EncoderContract, spec: EncoderSpec, tokens: int) -> None:
    """Refuse a network that another version of its library builds otherwise than it is known.

    Parameters
    ----------
    contract : EncoderContract
    spec : EncoderSpec
        With the length of the features that it gives.
    tokens : int
        That it puts before those of the patches.

    Raises
    ------
    ModelError
    """
    if (spec.dim, tokens) != (contract.dim, contract.prefix_tokens):
        raise ModelError(
            f"{contract.title} gives {contract.dim} features behind {contract.prefix_tokens} tokens, but the "
            f"installed library builds it with {spec.dim} and {tokens}: update napari-her2."
        )


def published_tensors(contract: EncoderContract, path: Path) -> dict[str, Tensor]:
    """Read the weights of an encoder from a file as it is published, by the names of its network.

    Parameters
    ----------
    contract : EncoderContract
    path : Path
        ``.safetensors``, or a checkpoint of PyTorch with tensors alone.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    ModelError
        If it cannot be read, or holds other weights than those of this encoder.
    """
    tensors = read_checkpoint(path)
    if contract.renamed and any(name.startswith(tuple(contract.renamed)) for name in tensors):
        tensors = {
            here + name.removeprefix(there): tensor
            for there, here in contract.renamed.items()
            for name, tensor in tensors.items()
            if name.startswith(there)
        }
    with torch.device("meta"):
        backbone, _ = build_backbone(contract.spec_name, contract.tile_px, arguments=contract.arguments)
    wanted = backbone.state_dict()
    given = own_tensors(backbone, tensors)
    try:
        check_tensors(wanted, given, path.name)
    except ModelError as error:
        raise ModelError(f"{path.name} holds no weights of {contract.title}. {error}") from error
    return {name: tensor.to(wanted[name].dtype) for name, tensor in given.items()}
