"""A checkpoint of published code read and imported, as steps for a thread."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_her2._napari.torch_import import load_torch
from napari_her2.models.encoder_contracts import ENCODERS
from napari_her2.models.importing.kinds import OF_MODEL
from napari_her2.steps import Progress

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.models.importing.answers import Answers
    from napari_her2.models.importing.importer import Inspected
    from napari_her2.models.registry import ModelEntry

_BUILT_HERE = ("timm", "transformers")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


def inspecting(path: Path, kind: str) -> Generator[Progress, None, Inspected]:
    """Read a checkpoint as a kind; nothing in it is run."""
    yield Progress("Reading the checkpoint")
    load_torch()
    from napari_her2.models.importing.importer import inspect_checkpoint

    return inspect_checkpoint(path, kind)


def importing(
    found: Inspected, answers: Answers, encoder: str, weights: Path | None, *, force: bool = False
) -> Generator[Progress, None, tuple[ModelEntry, str]]:
    """Import a checkpoint and install it; returns its entry, and what is to be known of its encoder."""
    yield Progress("Importing the model")
    load_torch()
    from napari_her2.models.importing.asking import terms_of
    from napari_her2.models.importing.installing import import_model, named_encoder
    from napari_her2.models.registry import ModelEntry

    with_encoder = named_encoder(encoder, answers.tile_px, weights) if encoder else None
    terms = terms_of(found, answers, None if with_encoder is None else with_encoder.spec)
    card, path = import_model(found, terms, with_encoder, force=force)
    return ModelEntry(card.name, path, card, "installed"), "" if with_encoder is None else with_encoder.remark


def encoder_names(features: int, models: tuple[ModelEntry, ...]) -> tuple[tuple[str, int], ...]:
    """Return encoders that give features of a length, with the side of their tiles.

    Parameters
    ----------
    features : int
    models : tuple of ModelEntry
        Whose encoders can be taken too.

    Returns
    -------
    tuple of (str, int)
    """
    known = [
        (contract.name, contract.tile_px)
        for contract in ENCODERS.values()
        if contract.dim == features and contract.built_by in _BUILT_HERE and not contract.remote_code
    ]
    own = [
        (f"{OF_MODEL}{entry.name}", entry.card.encoder.tile_px)
        for entry in models
        if entry.card.encoder is not None and entry.card.encoder.dim == features
    ]
    return (*known, *own)


def usual_name(path: Path) -> str:
    """Return a name for a model, made of that of its file."""
    return _NOT_IN_NAMES.sub("-", path.stem.lower()).strip("-._")[:60] or "imported"
