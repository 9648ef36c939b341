"""The card of a bundle, read from the header of its file: neither weights nor PyTorch are needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.card import ModelCard
from napari_her2.models.weights_header import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD_KEY = "napari_her2"
FORMAT = "1"
SUFFIX = ".safetensors"
BUNDLED_FOLDER = Path(__file__).parent / "weights"
"""Models that come with the package."""


def read_card(path: Path) -> ModelCard:
    """Read the card of a bundle; the weights are not touched.

    Parameters
    ----------
    path : Path

    Returns
    -------
    ModelCard

    Raises
    ------
    ModelError
        If the file is not a bundle that this version can read.
    """
    return card_in(read_header(path).metadata, path)


def card_in(metadata: Mapping[str, str], path: Path) -> ModelCard:
    """Return the card among the texts of a header; see `read_card`."""
    if CARD_KEY not in metadata:
        raise ModelError(
            f"{path.name} holds weights but no model card of napari-her2: it is no model that can be used "
            f"here. Save it with napari-her2's training, or ask its author for a bundle."
        )
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path.name} has format {metadata.get('format', 'none')!r:.20}, this version reads {FORMAT}: "
            f"update napari-her2."
        )
    card = ModelCard.from_json(metadata[CARD_KEY])
    if card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{path.name} needs the architecture {card.architecture!r:.80}, which this version does not "
            f"know (it knows {', '.join(ARCHITECTURES)}): update napari-her2."
        )
    if card.method != ARCHITECTURES[card.architecture].method:
        raise ModelError(
            f"{path.name} says that {card.architecture} is the method {card.method!r:.80}, but it is "
            f"{ARCHITECTURES[card.architecture].method!r}. Get the model again."
        )
    return card
