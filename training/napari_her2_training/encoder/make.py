"""The encoder that a configuration asks for, as it is before any pre-training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.models.encoders import PatchEncoder, build_encoder
from napari_her2.models.registry import list_models, load_model
from napari_her2.models.weights_file import weights_digest

if TYPE_CHECKING:
    from napari_her2_training.config import EncoderConfig

OF_MODEL = "model:"


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
        are kept once. Of another model: with weights of its own.

    Raises
    ------
    JobFailed
        If the tiles do not fit the encoder of a model.
    ModelError
        If the encoder cannot be had.
    """
    if config.name.startswith(OF_MODEL):
        return _shared(config.name.removeprefix(OF_MODEL), tile_px)
    weights = (
        config.weights if config.weights in ("random", "pretrained") else Path(config.weights).expanduser()
    )
    return build_encoder(
        config.name,
        weights=weights,  # type: ignore[arg-type]
        tile_px=tile_px,
        normalisation=None if config.normalisation == "auto" else config.normalisation,
        seed=seed,
    )


def frozen_encoder(config: EncoderConfig, tile_px: int, seed: int) -> PatchEncoder:
    """Build the encoder that embeds slides without having learnt before: its weights as a bundle keeps them.

    Parameters and errors are those of `make_encoder`.
    """
    encoder = make_encoder(config, tile_px, seed)
    return encoder if config.name.startswith(OF_MODEL) else as_stored(encoder)


def _shared(model: str, tile_px: int) -> PatchEncoder:
    encoder = load_model(model).patch_encoder
    if encoder.spec.tile_px != tile_px:
        raise JobFailed(
            f"The encoder of {model} takes tiles of {encoder.spec.tile_px} px, not of {tile_px} px: "
            f"set [data] tile_px."
        )
    if not any(entry.name == model and entry.origin == "bundled" for entry in list_models()):
        return as_stored(encoder).freeze()
    digest = weights_digest(encoder.backbone.state_dict())
    return PatchEncoder(replace(encoder.spec, weights=f"sha256:{digest}"), encoder.backbone).freeze()


def as_stored(encoder: PatchEncoder) -> PatchEncoder:
    """Round the weights to float16, as the bundle holds them: the head learns from what scoring sees."""
    state = {key: value.half().float() for key, value in encoder.backbone.state_dict().items()}
    encoder.backbone.load_state_dict(state)
    return PatchEncoder(replace(encoder.spec, weights="bundled"), encoder.backbone)
