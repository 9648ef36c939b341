"""The encoder that made the features of files, where its name is known: then a model of them scores slides.

A file states a name at most, no weights. Those of the folder of encoders are taken for them, by their digest;
where they are not there, the bundle names the encoder alone and holds on to the first weights that it is
opened with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed, ModelError
from napari_her2.models.card import NAMED_WEIGHTS
from napari_her2.models.encoder_contracts import alias_of, contract_of
from napari_her2.models.encoder_folder import how_to_get, installed_encoder
from napari_her2.models.known_encoders import spec_of
from napari_her2_training.cohort.feature_file import plain_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.models.card import EncoderSpec
    from napari_her2_training.cohort.feature_file import MadeBy
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.config_sections import EncoderConfig

UNKNOWN_ENCODER = (
    "The features come from files, and which encoder made them is not known here: the weights of the head "
    "are saved, but no model that scores slides. Name it as [encoder] name where the files do not."
)
_USUAL = "alexnet"
"""What [encoder] names where nobody names any."""


@dataclass(frozen=True, slots=True)
class FileEncoder:
    """What is known of the encoder behind features of files.

    Parameters
    ----------
    spec : EncoderSpec or None
        None where slides cannot be scored.
    tile_px : int
    mpp : float
        Of the tiles; 0 where they are not known.
    unknown : str
        Why slides cannot be scored, empty where they can.
    remark : str
        What is assumed, for the card and whoever trains.
    """

    spec: EncoderSpec | None = None
    tile_px: int = 0
    mpp: float = 0.0
    unknown: str = ""
    remark: str = ""


def encoder_of_files(
    made: Mapping[Stain, MadeBy], widths: Mapping[Stain, int], config: EncoderConfig
) -> FileEncoder:
    """Find the encoder that made features.

    Parameters
    ----------
    made : mapping of {"he", "ihc"} to MadeBy
        What the files of each stain state.
    widths : mapping of {"he", "ihc"} to int
        Length of the features.
    config : EncoderConfig
        Its name serves where the files state none; its tiles where they state none.

    Returns
    -------
    FileEncoder

    Raises
    ------
    JobFailed
        If files and configuration name different encoders, or the features have another length than those of
        the encoder.
    """
    named = _one_name(made, config)
    if not named:
        return FileEncoder(unknown=UNKNOWN_ENCODER)
    stated = next((one for one in made.values() if one.spec is not None), None)
    if stated is not None and stated.spec is not None:
        spec, remark = stated.spec, ""
    else:
        try:
            spec, remark = _known(named)
        except ModelError as error:
            return FileEncoder(
                unknown=f"The features come from files and were made with {named}: the weights of the head "
                f"are saved, but no model that scores slides. {error}"
            )
    for stain, width in widths.items():
        if width != spec.dim:
            raise JobFailed(
                f"the {stain} features have length {width}, but {named} gives {spec.dim}: name the encoder "
                f"that made them."
            )
    tile_px = next((one.tile_px for one in made.values() if one.tile_px), None) or config.features_tile_px
    mpp = next((one.mpp for one in made.values() if one.mpp), None) or config.features_mpp
    if not tile_px or not mpp:
        return FileEncoder(
            unknown=f"The files do not state of which tiles {named} made their features: set [encoder] "
            f"features_tile_px and features_mpp to get a model that scores slides."
        )
    return FileEncoder(replace(spec, tile_px=tile_px), tile_px, round(mpp, 4), remark=remark)


def _one_name(made: Mapping[Stain, MadeBy], config: EncoderConfig) -> str:
    """Name of the encoder: as the files state it, else as configured; empty where neither does."""
    stated = {_plain(one.encoder): one.encoder for one in made.values() if one.encoder}
    if len(stated) > 1:
        raise JobFailed(
            f"the features of H&E and IHC were made with different encoders, {' and '.join(stated.values())}"
            f". Extract both with the same one."
        )
    wanted = "" if config.name == _USUAL else config.name
    found = next(iter(stated.values()), "")
    if wanted and found and _plain(wanted) != _plain(found):
        raise JobFailed(
            f"the features were made with {found}, [encoder] names {wanted}: name the one that made them, or "
            f"leave the name out."
        )
    return found or wanted


def _plain(name: str) -> str:
    return alias_of(name) or plain_name(name)


def _known(name: str) -> tuple[EncoderSpec, str]:
    """Spec of an encoder that is known by name, and what is assumed of its weights."""
    contract = contract_of(name)
    spec = spec_of(contract)
    at_hand = installed_encoder(contract.name)
    if at_hand is not None:
        found = spec_of(contract, at_hand.digest, hub=at_hand.provenance)
        return found, (
            f"its features were made elsewhere with {contract.title}, taken for the weights that are "
            f"installed here"
        )
    return replace(spec, weights=NAMED_WEIGHTS), (
        f"its features were made elsewhere with {contract.title}, whose weights are not known by their "
        f"digest: the first that it is opened with count"
    )


def remark_of(found: FileEncoder) -> str:
    """Return what whoever trains is told of the encoder, a sentence or more; empty for nothing."""
    if found.spec is None or not found.remark:
        return ""
    missing = found.spec.weights == NAMED_WEIGHTS
    advice = f" {how_to_get(found.spec.contract)}" if missing else ""
    return f"{found.remark[:1].upper()}{found.remark[1:]}.{advice}"
