"""The heads that a bundle may hold, by name: what each takes, and how it is built from a card.

What a card may name is known without PyTorch; the module of a head is imported when one is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_her2.errors import ModelError
from napari_her2.models.card import PAIR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from napari_her2.models.card import ModelCard

MAX_ARGUMENT = 65536
_MOST = {"heads": 128, "landmarks": 4096, "dilation": 16}
"""Whole numbers that no tensor in the file bounds, and that cost memory when a slide is scored."""
MEMBERS, MAX_MEMBERS = "members", 64
"""Argument of a card that joins several models of an architecture, and how many at most."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of head.

    Parameters
    ----------
    method : str
        That it belongs to: "attention-mil".
    make : callable
        Builds it from its arguments.
    arguments : mapping of str to type
        Each is needed. Whole numbers are positive; those whose name ends in "features" are the length of a
        tile's feature vector.
    stains : tuple of str
        Of the cards that may name it.
    ensemble : callable or None
        Joins several of it, where a card has the further argument ``members``; None where it cannot be.
    variants : mapping of str to type
        Arguments that a card may lack: then it is the head without that variant, as older cards have it.
    """

    method: str
    make: Callable[..., nn.Module]
    arguments: Mapping[str, type]
    stains: tuple[str, ...] = ("H&E", "IHC")
    ensemble: Callable[[Sequence[nn.Module]], nn.Module] | None = None
    variants: Mapping[str, type] = field(default_factory=dict)

    def build(self, card: ModelCard) -> nn.Module:
        """Build the head that a card describes, with weights still to be loaded.

        Parameters
        ----------
        card : ModelCard

        Returns
        -------
        nn.Module

        Raises
        ------
        ModelError
            If the card contradicts itself.
        """
        given = self._checked(card)
        members = given.pop(MEMBERS, None)
        features = {value for key, value in given.items() if key.endswith("features")}
        wanted = {card.encoder.dim} if card.encoder is not None else set()
        if features != wanted or given["classes"] != len(card.classes):
            raise ModelError(
                f"The model {card.name!r} contradicts itself: its head takes "
                f"{_listed(features)} features and gives {given['classes']} classes, its card says "
                f"{_listed(wanted)} and {len(card.classes)}. Get the model again."
            )
        side = given.get("size_px", given.get("tile_px", card.tile_px))
        if side != card.tile_px:
            raise ModelError(
                f"The model {card.name!r} contradicts itself: it takes images of {side} px, its card says "
                f"{card.tile_px} px. Get the model again."
            )
        if card.stain not in self.stains:
            raise ModelError(
                f"The model {card.name!r} contradicts itself: {self.method} takes "
                f"{' or '.join(self.stains)}, its card says {card.stain}. Get the model again."
            )
        try:
            if members is None or self.ensemble is None:
                return self.make(**given)
            return self.ensemble([self.make(**given) for _ in range(members)])
        except (RuntimeError, ValueError, AssertionError, ArithmeticError, LookupError) as error:
            raise ModelError(
                f"The model {card.name!r} cannot be built as its card says "
                f"({str(error).strip().partition(chr(10))[0]:.200}). Get the model again."
            ) from error

    def _checked(self, card: ModelCard) -> dict[str, Any]:
        """Arguments of the card: the right names, types and ranges, and no others."""
        given = card.arguments
        known = {**self.arguments, **{name: kind for name, kind in self.variants.items() if name in given}}
        if self.ensemble is not None and MEMBERS in given:
            known[MEMBERS] = int
        fits = given.keys() == known.keys() and all(
            _fits(given[name], kind, _MOST.get(name, MAX_ARGUMENT)) for name, kind in known.items()
        )
        if fits and known.get(MEMBERS) and not 2 <= int(given[MEMBERS] or 0) <= MAX_MEMBERS:
            raise ModelError(
                f"The model {card.name!r} joins {given[MEMBERS]} members: 2 to {MAX_MEMBERS} are possible."
            )
        if not fits:
            wanted = ", ".join(
                f"{name} ({_KIND_WORDS[kind]})" for name, kind in sorted(self.arguments.items())
            )
            raise ModelError(
                f"The architecture takes {wanted}, but the card gives "
                f"{', '.join(sorted(given)) or 'nothing'}. Get the model again."
            )
        return dict(given)


_KIND_WORDS = {int: f"whole number, 1 to {MAX_ARGUMENT}", bool: "true or false", str: "text"}


def _fits(value: object, kind: type, most: int) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return kind is int and 1 <= value <= most
    return type(value) is kind


def _listed(lengths: set[int]) -> str:
    return " and ".join(str(length) for length in sorted(lengths)) or "no"


def _whole_numbers(*names: str) -> dict[str, type]:
    return dict.fromkeys(names, int)


def _lazily(module: str, name: str) -> Callable[..., Any]:
    """Return what makes the head of a name, without importing its module yet."""

    def make(*given: Any, **arguments: Any) -> Any:  # noqa: ANN401 - checked against the list below
        return getattr(import_module(f"napari_her2.models.{module}"), name)(*given, **arguments)

    return make


def _abmil(*, width: int, **arguments: Any) -> nn.Module:  # noqa: ANN401 - checked against the list below
    """ABMIL with the one layer in front that is usual for whole slides; a card holds no lists."""
    from napari_her2.models.abmil import ABMIL

    return ABMIL(widths=(width,), **arguments)


_joined = _lazily("ensemble", "MILEnsemble")


ARCHITECTURES: Mapping[str, Architecture] = {
    "AttentionMIL": Architecture(
        "attention-mil",
        _lazily("attention_mil", "AttentionMIL"),
        _whole_numbers("features", "hidden", "classes"),
        ensemble=_joined,
    ),
    "ABMIL": Architecture(
        "abmil",
        _abmil,
        _whole_numbers("features", "width", "hidden", "classes") | {"gated": bool},
        ensemble=_joined,
    ),
    "CLAM": Architecture(
        "clam",
        _lazily("clam", "CLAM"),
        _whole_numbers("features", "width", "hidden", "classes") | {"multi_branch": bool},
        ensemble=_joined,
        variants={"gated": bool},
    ),
    "DSMIL": Architecture(
        "dsmil",
        _lazily("dsmil", "DSMIL"),
        _whole_numbers("features", "hidden", "classes") | {"project_values": bool, "average": bool},
        ensemble=_joined,
    ),
    "TransMIL": Architecture(
        "transmil",
        _lazily("transmil", "TransMIL"),
        _whole_numbers("features", "width", "heads", "landmarks", "classes")
        | {"attention": str, "faithful": bool},
        ensemble=_joined,
    ),
    "PatchConvNeXt": Architecture(
        "patches",
        _lazily("patch_classifier", "PatchConvNeXt"),
        _whole_numbers("classes", "tile_px") | {"variant": str, "fusion": str},
    ),
    "WSMCL": Architecture(
        "wsmcl",
        _lazily("wsmcl", "WSMCL"),
        _whole_numbers("he_features", "ihc_features", "width", "heads", "landmarks", "classes", "k"),
        stains=(PAIR,),
        ensemble=_lazily("ensemble", "WSMCLEnsemble"),
        variants={"attention": str, "faithful": bool},
    ),
    "FieldModel": Architecture(
        "corr-a-net",
        _lazily("field_model", "FieldModel"),
        _whole_numbers("dim", "field_px", "classes")
        | {"predictor": str, "channels_from": str, "attention": bool},
        stains=("H&E",),
        variants={"dilation": int, "scaling": str, "confidence": bool},
    ),
    "LowResolution": Architecture(
        "low-resolution",
        _lazily("low_resolution", "LowResolution"),
        _whole_numbers("classes", "size_px") | {"variant": str, "mode": str, "whiten": bool},
    ),
}
