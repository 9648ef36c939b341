"""The encoder that a configuration asks for, as it is before any pre-training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.encoder_contracts import contract_of
from napari_her2.models.encoder_folder import keep_encoder
from napari_her2.models.encoders import build_encoder
from napari_her2.models.patch_encoder import PatchEncoder
from napari_her2.models.registry import list_models, load_model
from napari_her2.models.weights_file import weights_digest
from napari_her2_training.encoder_choice import OF_MODEL

if TYPE_CHECKING:
    from napari_her2_training.config_sections import EncoderConfig

MOST_BUNDLED_BYTES = 100_000_000
"""Weights of an encoder in a bundle at most, in float16; larger ones lie in the folder of encoders."""
_HALF = 2  # bytes of a number in a bundle


def make_encoder(config: EncoderConfig, tile_px: int, seed: int) -> PatchEncoder:
    """Build an encoder.

    Parameters
    ----------
    config : EncoderConfig
    tile_px : int
    seed : int
        Of random weights.

    Returns
    -------
    PatchEncoder
        Of a model that comes with the package: its spec names the weights by their digest, so that they
        are kept once. Of another model: with weights of its own, unless they lie outside of it.

    Raises
    ------
    JobFailed
        If the tiles do not fit the encoder of a model.
    ModelError
        If the encoder cannot be had.
    """
    if config.name.startswith(OF_MODEL):
        return _shared(config.name.removeprefix(OF_MODEL), tile_px)
    named = ("random", "pretrained", "installed")
    return build_encoder(
        config.name,
        weights=config.weights if config.weights in named else Path(config.weights).expanduser(),  # type: ignore[arg-type]
        tile_px=tile_px,
        normalisation=None if config.normalisation == "auto" else config.normalisation,
        pooling=None if config.pooling == "auto" else config.pooling,  # type: ignore[arg-type]
        seed=seed,
    )


def frozen_encoder(config: EncoderConfig, tile_px: int, seed: int) -> PatchEncoder:
    """Build the encoder that embeds slides without having learnt before: its weights as they will be kept.

    Parameters and errors are those of `make_encoder`.
    """
    encoder = make_encoder(config, tile_px, seed)
    return encoder if config.name.startswith(OF_MODEL) or stays_outside(encoder) else as_stored(encoder)


def stays_outside(encoder: PatchEncoder) -> bool:
    """Whether the weights of an encoder are not copied into bundles: too large, or their terms forbid it.

    Random weights are nobody's, and nowhere else to be found.
    """
    spec = encoder.spec
    if not spec.weights.startswith("sha256:"):
        return False
    count = sum(tensor.numel() for tensor in encoder.backbone.state_dict().values())
    if count * _HALF > MOST_BUNDLED_BYTES:
        return True
    return bool(spec.contract) and contract_of(spec.contract).stays_outside


def keep_outside(config: EncoderConfig, encoder: PatchEncoder) -> str:
    """Keep the weights that no bundle will hold in the folder of encoders, unless they are there already.

    Returns
    -------
    str
        What was done, as a sentence; empty where nothing was.
    """
    if config.name.startswith(OF_MODEL) or not stays_outside(encoder):
        return ""
    name = encoder.spec.contract or encoder.spec.name.partition(":")[2].replace("/", "-")
    kept, new = keep_encoder(encoder.spec, encoder.backbone.state_dict(), name)
    return f"the weights of {config.name} were kept as {kept.path}, where its models find them" if new else ""


def _shared(model: str, tile_px: int) -> PatchEncoder:
    encoder = load_model(model).patch_encoder
    if encoder.spec.tile_px != tile_px:
        raise JobFailed(
            f"The encoder of {model} takes tiles of {encoder.spec.tile_px} px, not of {tile_px} px: "
            f"set [data] tile_px."
        )
    if stays_outside(encoder):
        return encoder.freeze()
    if not any(entry.name == model and entry.origin == "bundled" for entry in list_models()):
        return as_stored(encoder).freeze()
    digest = weights_digest(encoder.backbone.state_dict())
    return PatchEncoder(replace(encoder.spec, weights=f"sha256:{digest}"), encoder.backbone).freeze()


def as_stored(encoder: PatchEncoder) -> PatchEncoder:
    """Round the weights to float16, as the bundle holds them: the head learns from what scoring sees."""
    state = {key: value.half().float() for key, value in encoder.backbone.state_dict().items()}
    encoder.backbone.load_state_dict(state)
    return PatchEncoder(replace(encoder.spec, weights="bundled"), encoder.backbone)
