"""Encoders that a card knows by their name alone: the first weights that a model is opened with count.

Such a card is written where features came from another program, or with a checkpoint of one: both name their
encoder and hold no digest of its weights. Which they were cannot be known afterwards. So that the model at
least does not change under its user, the digest of those it was first opened with is kept beside it, and
others are refused from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.errors import EncoderMissing, ModelError
from napari_her2.models.encoder_contracts import contract_of
from napari_her2.models.encoder_folder import how_to_get, installed_encoder
from napari_her2.models.encoders import check_encoder_fits, encoder_from_spec
from napari_her2.models.weights_file import read_weights, weights_digest, write_whole
from napari_her2.models.weights_header import read_header
from napari_her2.outside import Reading

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.models.card import EncoderSpec
    from napari_her2.models.patch_encoder import PatchEncoder

_DIGESTS = Reading(limit=4096, error=ModelError)


def named_encoder(spec: EncoderSpec, model: Path) -> PatchEncoder:
    """Build the encoder that a card names, with the weights of the folder of encoders.

    Parameters
    ----------
    spec : EncoderSpec
        With a contract.
    model : Path
        The bundle; the digest is kept beside it.

    Returns
    -------
    PatchEncoder
        Its spec names the weights by their digest.

    Raises
    ------
    EncoderMissing
        If there are none of that name.
    ModelError
        If they are not those that the model was first opened with, or do not fit.
    """
    contract = contract_of(spec.contract)
    found = installed_encoder(contract.name)
    if found is None:
        raise EncoderMissing(
            f"The model {model.stem!r} needs the weights of {contract.title}, which are not part of it. "
            f"{how_to_get(contract.name)}"
        )
    check_encoder_fits(spec, read_header(found.path).tensors, found.path.name)
    encoder = encoder_from_spec(spec, read_weights(found.path).tensors, found.path.name)
    digest = f"sha256:{weights_digest(encoder.backbone.state_dict())}"
    _hold_on(model, digest, contract.title)
    encoder.spec = replace(spec, weights=digest)
    return encoder


def not_found(model: str, spec: EncoderSpec, beside: Path) -> EncoderMissing:
    """Return the error that says which encoder a model asks for by its digest, and how it is had.

    Parameters
    ----------
    model : str
        Its name.
    spec : EncoderSpec
    beside : Path
        Where its weights could lie.

    Returns
    -------
    EncoderMissing
    """
    begins = spec.weights.removeprefix("sha256:")[:12]
    if not spec.contract:
        return EncoderMissing(
            f"The model {model!r} needs the weights of {spec.name}, which are not part of it (digest "
            f"{begins}): save them as {beside.name} in {beside.parent}, or copy the folder of encoders of "
            f"the machine where it learnt."
        )
    origin = f", fetched from {spec.hub}" if spec.hub else ""
    other = installed_encoder(spec.contract)
    if other is not None:
        return EncoderMissing(
            f"The model {model!r} learnt with other weights of {spec.contract} (digest {begins}{origin}) "
            f"than those that are installed (digest {other.digest[:12]}): get those that it learnt with."
        )
    return EncoderMissing(
        f"The model {model!r} needs the encoder {spec.contract} (digest {begins}{origin}), which is not "
        f"installed. {how_to_get(spec.contract)}"
    )


def digest_file(model: Path) -> Path:
    """Return the file beside a bundle that holds the digest of the weights it was first opened with."""
    return model.with_name(f"{model.stem}.encoder.sha256")


def _hold_on(model: Path, digest: str, title: str) -> None:
    """Refuse other weights than the first, and remember the first."""
    path = digest_file(model)
    if not path.exists():
        try:
            write_whole(path, f"{digest}\n".encode())
        except ModelError:  # a folder that is only read: then the digest stands in each result alone
            return
    elif (kept := _DIGESTS.text(path).strip()) != digest:
        raise ModelError(
            f"The model {model.stem!r} was first opened with other weights of {title} ({kept[7:23]}...) than "
            f"those that are installed now ({digest[7:23]}...): install those again, or import the model "
            f"anew."
        )
