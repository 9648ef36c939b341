"""The encoders that a training may look at tiles through, as a person chooses among them."""

from __future__ import annotations

from dataclasses import dataclass

from napari_her2.models.encoder_contracts import ENCODERS
from napari_her2.models.encoder_folder import how_to_get, installed


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder to choose.

    Parameters
    ----------
    name, title : str
    installed : bool
        Whether its weights are in the folder of encoders.
    facts : str
        Its features and tiles, as a sentence.
    licence : str
        With its year, and what decides.
    how_to_get : str
        How its weights are had, as a sentence.
    """

    name: str
    title: str
    installed: bool
    facts: str
    licence: str
    how_to_get: str


def encoder_choices() -> tuple[EncoderChoice, ...]:
    """Return the encoders that are built here, those whose weights are installed first."""
    here = {found.name for found in installed()}
    choices = [
        EncoderChoice(
            contract.name,
            contract.title,
            contract.name in here,
            f"{contract.dim:,} features of tiles of {contract.tile_px} px at {contract.mpp:g} µm/px.",
            contract.licence_words,
            how_to_get(contract.name),
        )
        for contract in ENCODERS.values()
        if contract.built_by in ("timm", "transformers") and not contract.remote_code
    ]
    return tuple(sorted(choices, key=lambda choice: not choice.installed))
