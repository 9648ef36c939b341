"""The heads that a bundle may hold, by name: what each takes, and how it is built from a card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.card import PAIR
from napari_her2.models.wsmcl import WSMCL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from napari_her2.models.card import ModelCard

MAX_ARGUMENT = 65536


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of head.

    Parameters
    ----------
    method : str
        That it belongs to: "attention-mil".
    make : callable
        Builds it from its arguments.
    arguments : frozenset of str
        All of them whole numbers; those that end in "features" are the length of a tile's feature vector.
    stains : tuple of str
        Of the cards that may name it.
    """

    method: str
    make: Callable[..., nn.Module]
    arguments: frozenset[str]
    stains: tuple[str, ...] = ("H&E", "IHC")

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
        given = {
            key: value
            for key, value in card.arguments.items()
            if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ARGUMENT
        }
        if given.keys() != self.arguments or card.arguments.keys() != self.arguments:
            raise ModelError(
                f"The architecture takes {', '.join(sorted(self.arguments))} as whole numbers from 1 "
                f"to {MAX_ARGUMENT}, but the card gives {', '.join(sorted(card.arguments)) or 'nothing'}. "
                f"Get the model again."
            )
        features = {value for key, value in given.items() if key.endswith("features")}
        if features != {card.encoder.dim} or given["classes"] != len(card.classes):
            raise ModelError(
                f"The model {card.name!r} contradicts itself: its head takes "
                f"{' and '.join(str(length) for length in sorted(features))} features and gives "
                f"{given['classes']} classes, its card says {card.encoder.dim} and {len(card.classes)}. "
                f"Get the model again."
            )
        if card.stain not in self.stains:
            raise ModelError(
                f"The model {card.name!r} contradicts itself: {self.method} takes "
                f"{' or '.join(self.stains)}, its card says {card.stain}. Get the model again."
            )
        return self.make(**given)


ARCHITECTURES: Mapping[str, Architecture] = {
    "AttentionMIL": Architecture("attention-mil", AttentionMIL, frozenset({"features", "hidden", "classes"})),
    "WSMCL": Architecture(
        "wsmcl",
        WSMCL,
        frozenset({"he_features", "ihc_features", "width", "heads", "landmarks", "classes", "k"}),
        stains=(PAIR,),
    ),
}
