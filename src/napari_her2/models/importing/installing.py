"""An imported checkpoint as a model by name, with or without the weights of its encoder at hand."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError, ModelNameTaken
from napari_her2.models.bundle_card import SUFFIX
from napari_her2.models.card import NAMED_WEIGHTS
from napari_her2.models.encoder_contracts import alias_of, contract_of
from napari_her2.models.encoder_folder import how_to_get, installed_encoder
from napari_her2.models.encoders import build_encoder, save_encoder
from napari_her2.models.importing.importer import import_checkpoint
from napari_her2.models.importing.kinds import OF_MODEL
from napari_her2.models.known_encoders import spec_of
from napari_her2.models.registry import add_model, load_model
from napari_her2.models.weights_file import weights_digest

if TYPE_CHECKING:
    from napari_her2.models.card import EncoderSpec, ModelCard
    from napari_her2.models.importing.importer import ImportTerms, Inspected
    from napari_her2.models.patch_encoder import PatchEncoder


@dataclass(frozen=True, slots=True, eq=False)
class NamedEncoder:
    """The encoder that a head stands behind.

    Parameters
    ----------
    spec : EncoderSpec
    weights : PatchEncoder or None
        Where they come from a file that is to be kept beside the model.
    remark : str
        What is not known of its weights, and how they are had; empty where they are at hand.
    """

    spec: EncoderSpec
    weights: PatchEncoder | None = None
    remark: str = ""


def named_encoder(name: str, tile_px: int | None = None, weights: Path | None = None) -> NamedEncoder:
    """Find an encoder by its name.

    Parameters
    ----------
    name : str
        One of `napari_her2.models.encoder_contracts`, "model:NAME" for that of a model, "alexnet" or
        "timm:NAME" with a file of weights.
    tile_px : int, optional
        Side of the tiles; by default that of the encoder.
    weights : Path, optional
        Their file, which is kept beside the model then.

    Returns
    -------
    NamedEncoder

    Raises
    ------
    ModelError
        If there is no such encoder, or its weights cannot be told.
    """
    if weights is not None:
        encoder = build_encoder(name, weights=weights, tile_px=tile_px)
        return NamedEncoder(encoder.spec, encoder)
    if name.startswith(OF_MODEL):
        return NamedEncoder(_of_model(name.removeprefix(OF_MODEL), tile_px))
    if not alias_of(name) or name == "alexnet" or ":" in name:
        raise ModelError(
            f"Which weights {name!r:.80} has is not known: give their file too, or name a model that has "
            f"this encoder, as model:NAME."
        )
    contract = contract_of(name)
    at_hand = installed_encoder(contract.name)
    if at_hand is not None:
        return NamedEncoder(spec_of(contract, at_hand.digest, tile_px=tile_px, hub=at_hand.provenance))
    spec = replace(spec_of(contract, tile_px=tile_px), weights=NAMED_WEIGHTS)
    return NamedEncoder(
        spec,
        remark=(
            f"The weights of {contract.title} are not installed: the first ones that it is opened with are "
            f"those that it then holds on to. {how_to_get(contract.name)}"
        ),
    )


def import_model(
    found: Inspected,
    terms: ImportTerms,
    encoder: NamedEncoder | None,
    *,
    out: Path | None = None,
    force: bool = False,
) -> tuple[ModelCard, Path]:
    """Write the bundle of a checkpoint to a file, or install it for the user.

    Parameters
    ----------
    found : Inspected
    terms : ImportTerms
    encoder : NamedEncoder or None
        That of the terms.
    out : Path, optional
        A ``.safetensors`` file; by default it is installed under its name.
    force : bool, default False
        Replace what is there.

    Returns
    -------
    card : ModelCard
    path : Path
        Of the bundle.

    Raises
    ------
    ModelError
        If terms and checkpoint do not fit, or the file cannot be written.
    ModelNameTaken
        If something of that name is there.
    """
    if out is not None:
        if out.exists() and not force:
            raise ModelNameTaken(f"{out} exists already: choose another file.")
        card = import_checkpoint(found, terms, out)
        _keep_beside(out, encoder)
        return card, out
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / f"model{SUFFIX}"
        card = import_checkpoint(found, terms, scratch)
        _keep_beside(scratch, encoder)
        entry = add_model(scratch, force=force)
    return card, entry.path


def _keep_beside(path: Path, encoder: NamedEncoder | None) -> None:
    if encoder is not None and encoder.weights is not None:
        save_encoder(path.with_name(f"{path.stem}.encoder{SUFFIX}"), encoder.weights)


def _of_model(name: str, tile_px: int | None) -> EncoderSpec:
    encoder = load_model(name).patch_encoder
    if tile_px not in (None, encoder.spec.tile_px):
        raise ModelError(
            f"The encoder of {name} takes tiles of {encoder.spec.tile_px} px, not of {tile_px} px: choose "
            f"that size."
        )
    digest = weights_digest(encoder.backbone.state_dict())
    return replace(encoder.spec, weights=f"sha256:{digest}")
