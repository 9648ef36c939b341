"""A checkpoint of published code made into a bundle: what it says is read, what it does not say is given.

Nothing is known of what such a model has seen, how good it was or how its answers are to be trusted, and its
card says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from napari_her2.errors import ModelError
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bundle import save_bundle
from napari_her2.models.card import NOTICE, PAIR, ModelCard
from napari_her2.models.class_scores import findings_of
from napari_her2.models.foreign_weights import read_checkpoint
from napari_her2.models.importing.kinds import BGR, KINDS, CheckpointKind, kind_named, kind_of
from napari_her2.models.importing.renaming import HeadRead, refuse_shapes
from napari_her2.models.weights_header import open_weights, unreadable
from napari_her2.outside import expanded, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_her2.models.card import ArgumentValue, EncoderSpec

UNKNOWN = "not known"
_BLOCK = 2**22
_TASKS: Mapping[str, str] = {
    "H&E": "H&E-based prediction of the HER2 IHC score",
    "IHC": "Prediction of the HER2 IHC score from the IHC slide",
    PAIR: "Prediction of the HER2 IHC score from the H&E and the IHC slide together",
}
_INTENDED = (
    "Research. Nothing is known here of what the model was trained on and how good it is: validate it on "
    "your own cases before you read a score. Not for diagnosis."
)


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """A checkpoint that was read as a kind.

    Parameters
    ----------
    path : Path
    kind : CheckpointKind
    sha256 : str
        Of the file, hexadecimal.
    head : HeadRead
    """

    path: Path
    kind: CheckpointKind
    sha256: str
    head: HeadRead

    @property
    def features(self) -> int:
        """Length of the features that it takes; 0 of one that takes pixels."""
        arguments = self.head.arguments
        return int(arguments.get("features", arguments.get("he_features", 0)) or 0)

    @property
    def asked(self) -> Mapping[str, ArgumentValue]:
        """Arguments of the head that neither the kind nor this file tells, with their usual values."""
        return {name: value for name, value in self.kind.asked.items() if name not in self.head.arguments}

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What the file told, as names and values for a person."""
        features = (("features of a tile", f"{self.features:,} numbers"),) if self.features else ()
        classes = f"{self.head.classes}"
        if self.head.sigmoid:
            classes += " (one sigmoid, written as two logits: the first class is the negative one)"
        return (
            ("kind", f"{self.kind.title} ({self.kind.paper})"),
            *features,
            ("classes", classes),
            *self.head.found,
            ("SHA-256", self.sha256),
        )


@dataclass(frozen=True, slots=True)
class ImportTerms:
    """What a checkpoint does not say.

    Parameters
    ----------
    name : str
        Of the model, as `napari_her2.models.card.ModelCard` has it.
    classes : tuple of str
        In the order of the logits.
    stain : str
        "H&E", "IHC", or both for a model that takes a pair.
    tile_px : int
        Side of the tiles, fields or images, pixels.
    mpp : float
        µm per pixel of them.
    encoder : EncoderSpec or None
        Of a head on features; its tiles must have ``tile_px``.
    class_scores : mapping of str to tuple of str
        Which scores each class holds; needed where its name does not tell.
    arguments : mapping
        Those of `Inspected.asked` that differ from what is usual.
    licence, guideline : str
    """

    name: str
    classes: tuple[str, ...]
    stain: str
    tile_px: int
    mpp: float
    encoder: EncoderSpec | None = None
    class_scores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    arguments: Mapping[str, ArgumentValue] = field(default_factory=dict)
    licence: str = UNKNOWN
    guideline: str = UNKNOWN


def inspect_checkpoint(path: Path | str, kind: str) -> Inspected:
    """Read a checkpoint as a kind, without running anything in it.

    Parameters
    ----------
    path : Path or str
        ``.safetensors``, or ``.bin``, ``.pt``, ``.pth``, ``.ckpt`` that hold tensors alone.
    kind : str
        Key of `napari_her2.models.importing.kinds.KINDS`.

    Returns
    -------
    Inspected

    Raises
    ------
    ModelError
        If it cannot be read, or is of another kind: then naming the tensors that do not fit.
    """
    path, chosen = expanded(path), kind_named(kind)
    before = _sha256(path)
    tensors = read_checkpoint(path)
    try:
        head = chosen.read(tensors)
    except ModelError as error:
        like = kind_of(tensors)
        if not like or like == kind:
            raise
        raise ModelError(
            f"{path.name} has the tensors of {KINDS[like].title}, not of {chosen.title}: choose the kind "
            f"{like}."
        ) from error
    if _sha256(path) != before:
        raise ModelError(f"{path.name} changed while it was read: try again when nothing writes to it.")
    return Inspected(path, chosen, before, head)


def import_checkpoint(found: Inspected, terms: ImportTerms, out: Path) -> ModelCard:
    """Write the bundle of a checkpoint; its weights are kept in float32.

    Parameters
    ----------
    found : Inspected
    terms : ImportTerms
    out : Path
        Ends in ".safetensors".

    Returns
    -------
    ModelCard

    Raises
    ------
    ModelError
        If terms and checkpoint do not fit each other, or the file cannot be written.
    """
    _check_terms(found, terms)
    _check_size(found, terms)
    card = card_of(found, terms)
    architecture = ARCHITECTURES[card.architecture]
    with torch.device("meta"):
        wanted = architecture.build(card).state_dict()
    refuse_shapes(wanted, found.head.tensors, found.head.origins, found.kind.title)
    head = architecture.build(card)
    tensors = {name: tensor.detach().clone() for name, tensor in found.head.tensors.items()}
    if _given(found, terms).get(BGR):  # the same answers, from pixels in the order that they have here
        tensors[found.head.pixels] = tensors[found.head.pixels].flip(1)
    head.load_state_dict(tensors)
    save_bundle(out, card, None, head.eval(), encoder_dtype=torch.float32)
    return card


def card_of(found: Inspected, terms: ImportTerms) -> ModelCard:
    """Return the card of a checkpoint under terms."""
    kind, head = found.kind, found.head
    arguments = _given(found, terms)
    arguments.pop(BGR, None)
    if kind.size_argument:
        arguments[kind.size_argument] = terms.tile_px
    encoder = terms.encoder
    return ModelCard(
        name=terms.name,
        version="1",
        method=ARCHITECTURES[head.architecture].method,
        architecture=head.architecture,
        arguments=arguments,
        encoder=None if encoder is None else replace(encoder, tile_px=terms.tile_px),
        stain=terms.stain,
        tile_px=terms.tile_px,
        mpp=terms.mpp,
        classes=terms.classes,
        class_scores=terms.class_scores,
        task=_TASKS[terms.stain],
        training_data=(
            f"unknown: imported from {shown(found.path.name)} ({kind.title}, SHA-256 {found.sha256})"
        ),
        licence=terms.licence,
        intended_use=f"{_INTENDED} {kind.remark}".strip(),
        guideline=terms.guideline,
        notice=NOTICE,
    )


def _given(found: Inspected, terms: ImportTerms) -> dict[str, ArgumentValue]:
    """Arguments of the head: what the tensors tell goes before what somebody says."""
    return {**found.kind.asked, **terms.arguments, **found.head.arguments}


def _check_terms(found: Inspected, terms: ImportTerms) -> None:
    """Refuse terms that the checkpoint contradicts."""
    kind, head = found.kind, found.head
    if len(terms.classes) != head.classes:
        raise ModelError(
            f"The checkpoint gives {head.classes} classes, but {len(terms.classes)} were named "
            f"({', '.join(terms.classes)}): name each in the order of its logits."
        )
    silent = [name for name in terms.classes if not findings_of(name, terms.class_scores)]
    if silent:
        raise ModelError(
            f"Which HER2 scores the class {silent[0]!r} holds does not follow from its name: say it for each "
            f"class, as in {silent[0]}=0|1+."
        )
    if terms.stain not in kind.stains:
        raise ModelError(
            f"{kind.title} takes {' or '.join(kind.stains)}, not {terms.stain!r:.40}: choose that stain."
        )
    if not kind.takes_features:
        if terms.encoder is not None:
            raise ModelError(f"{kind.title} takes pixels and has no encoder: leave the encoder out.")
        return
    if terms.encoder is None:
        raise ModelError(
            f"{kind.title} takes features of {found.features:,} numbers a tile: name the encoder that "
            f"makes them."
        )
    if terms.encoder.dim != found.features:
        name = terms.encoder.contract or terms.encoder.name
        raise ModelError(
            f"The checkpoint takes features of {found.features:,} numbers, but {name} gives "
            f"{terms.encoder.dim:,}: name the encoder that it was trained on."
        )


def _check_size(found: Inspected, terms: ImportTerms) -> None:
    strangers = sorted(terms.arguments.keys() - found.kind.asked.keys())
    if strangers:
        raise ModelError(f"{found.kind.title} is not built with {strangers[0]!r:.40}: leave it out.")
    side = int(_given(found, terms).get("field_px") or terms.tile_px)
    if terms.tile_px % side:
        raise ModelError(
            f"Tiles of {terms.tile_px} px cannot be averaged to fields of {side} px: choose a multiple."
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_weights(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()
