"""What a configuration leaves to its encoder: an encoder that is known by name says which tiles it takes."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed
from napari_her2.models.encoder_contracts import alias_of, contract_of
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.models.encoder_contracts import EncoderContract

ALEXNET, OF_MODEL = "alexnet", "model:"
"""The encoder that is taken where none is named; what stands before a model whose encoder is taken."""
_LEFT_TO_IT = ("tile_px", "mpp")
_ALEXNET_PX = (95, 112)


def known_encoder(name: str) -> EncoderContract | None:
    """Return the contract of an encoder that is known by name, or by that of its hub; None for any other."""
    known = alias_of(name.removeprefix("timm:hf-hub:"))
    return contract_of(known) if known and ":" not in name.removeprefix("timm:hf-hub:") else None


def with_contract(values: Mapping[str, Any], kinds: Mapping[str, type]) -> Mapping[str, Any]:
    """Fill in what is left to the encoder, in a configuration given as nested mappings.

    Parameters
    ----------
    values : mapping
        Sections with their keys, as they were given.
    kinds : mapping of str to type
        The sections that there are.

    Returns
    -------
    mapping
        With the name of the encoder as it is called here, and its tile size and µm/px where they are left out
        or 0.

    Raises
    ------
    JobFailed
        If there is no such encoder, they are 0 and nothing is known of it, or they do not suit AlexNet.
    """
    encoder = values.get("encoder", {})
    name = encoder.get("name", ALEXNET) if isinstance(encoder, dict) else None
    if "encoder" not in kinds or not isinstance(name, str) or _is_fixed(kinds["encoder"]):
        return values
    contract = known_encoder(name)
    if contract is None and not any(
        name.startswith(begin) and name != begin for begin in ("timm:", OF_MODEL)
    ):
        raise JobFailed(
            f"[encoder] name must be one of 'alexnet', 'timm:NAME', 'model:NAME' or those that "
            f"`napari-her2 encoders list` shows, not {shown(name, 60)!r}."
        )
    section = next((at for at in ("tiles", "data") if at in kinds and _tile_keys(kinds[at])), "")
    given = values.get(section, {})
    if not section or not isinstance(given, dict):
        return values
    filled = _filled(section, given, kinds[section], name, contract)
    found = {**values, section: filled} if filled else dict(values)
    if contract is not None and name != ALEXNET:
        found["encoder"] = {**encoder, "name": contract.name}
    return found


def _is_fixed(section: type) -> bool:
    """Whether a method has an encoder of its own, as Corr-A-Net its stem: then there is nothing to choose."""
    return any(item.name == "name" and item.metadata["choices"] for item in fields(section))


def _filled(
    section: str, given: Mapping[str, Any], kind: type, name: str, contract: EncoderContract | None
) -> dict[str, Any]:
    filled, defaults = dict(given), _tile_keys(kind)
    for key in defaults:
        if given.get(key) == 0 and contract is None:
            raise JobFailed(
                f"[{section}] {key} 0 is that which the encoder was made for, but nothing is known of "
                f"{shown(name, 60)!r}: say how large its tiles are."
            )
        if contract is not None and (given.get(key) == 0 or (key not in given and name != ALEXNET)):
            filled[key] = getattr(contract, key)
    low, high = _ALEXNET_PX
    size, default = filled.get("tile_px"), defaults["tile_px"]
    # Of methods that read features of larger tiles from files, and then need no encoder, nothing is asked;
    # patches of a folder say themselves how large they are.
    asked = name == ALEXNET and "mpp" in defaults and low <= default <= high
    if asked and isinstance(size, int) and not low <= size <= high:
        raise JobFailed(f"[{section}] tile_px must be {low} to {high} for AlexNet, not {size}.")
    return filled


def with_encoder(values: Mapping[str, Any], encoder: str, weights: str) -> Mapping[str, Any]:
    """Put another encoder into a configuration given as nested mappings.

    Parameters
    ----------
    values : mapping
        Sections with their keys.
    encoder, weights : str
        Either may be empty: then it stays as it is. Weights of another encoder are those that are installed,
        where nothing is said.

    Returns
    -------
    mapping
        Where the encoder is another one, tile size and µm/px are left to it.
    """
    given = values.get("encoder", {})
    section = dict(given) if isinstance(given, dict) else {}
    if weights:
        section["weights"] = weights
    if not encoder:
        return {**values, "encoder": section}
    contract = known_encoder(encoder)
    section = {"name": encoder, "weights": weights or ("random" if contract is None else "installed")}
    changed = {**values, "encoder": section}
    for name in ("data", "tiles") if contract is not None else ():
        own = values.get(name)
        if isinstance(own, dict):  # `with_contract` fills in what the new one takes
            changed[name] = {key: value for key, value in own.items() if key not in _LEFT_TO_IT}
    return changed


def scale_warning(name: str, mpp: float) -> str:
    """Say that tiles have another scale than those an encoder learnt from; empty where they have not."""
    contract = known_encoder(name)
    if contract is None or contract.mpp_range[0] <= mpp <= contract.mpp_range[1]:
        return ""
    low, high = contract.mpp_range
    return (
        f"{contract.title} learnt from tiles of {low:g} to {high:g} µm/px, and these have {mpp:g}: its "
        f"features may mean less."
    )


def _tile_keys(kind: type) -> dict[str, Any]:
    """Return those of the keys that an encoder can fill in, with their defaults."""
    found = {item.name: item.default for item in fields(kind) if item.name in _LEFT_TO_IT}
    return found if "tile_px" in found else {}
