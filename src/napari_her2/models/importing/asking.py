"""What a checkpoint does not say, as a person writes it: on the command line and in the dock alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.class_scores import FINDINGS
from napari_her2.models.importing.importer import UNKNOWN, ImportTerms
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2.models.card import ArgumentValue, EncoderSpec
    from napari_her2.models.importing.answers import Answers
    from napari_her2.models.importing.importer import Inspected

_SWITCHES: Mapping[str, bool] = {"true": True, "yes": True, "false": False, "no": False}


def terms_of(found: Inspected, answers: Answers, encoder: EncoderSpec | None) -> ImportTerms:
    """Return answers as terms of an import.

    Parameters
    ----------
    found : Inspected
    answers : Answers
    encoder : EncoderSpec or None

    Returns
    -------
    ImportTerms

    Raises
    ------
    ModelError
        Naming the answer that cannot be read.
    """
    kind = found.kind
    return ImportTerms(
        name=answers.name.strip(),
        classes=_classes(answers.classes),
        class_scores=_class_scores(answers.class_scores),
        stain=answers.stain.strip() or kind.stains[0],
        tile_px=tile_px_of(found, answers, encoder),
        mpp=kind.mpp if answers.mpp is None else answers.mpp,
        encoder=encoder,
        arguments=_arguments(answers.arguments, kind.asked),
        licence=answers.licence.strip() or UNKNOWN,
    )


def tile_px_of(found: Inspected, answers: Answers, encoder: EncoderSpec | None) -> int:
    """Side of the tiles: as answered, else that of the encoder, else what is usual for the kind."""
    if answers.tile_px is not None:
        return answers.tile_px
    return found.kind.tile_px if encoder is None else encoder.tile_px


def _classes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ModelError(f"The classes {shown(text, 60)!r} cannot be read: write them as 0,1+,2+,3+.")
    return names


def _class_scores(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        name, equals, scores = part.partition("=")
        held = tuple(score.strip() for score in scores.split("|"))
        strange = [score for score in held if score not in FINDINGS]
        if not equals or not name.strip() or strange:
            raise ModelError(
                f"The scores of a class {shown(part, 60)!r} cannot be read: write them as low=0|1+, each of "
                f"{', '.join(FINDINGS)}."
            )
        found[name.strip()] = held
    return found


def _arguments(texts: tuple[str, ...], asked: Mapping[str, ArgumentValue]) -> dict[str, ArgumentValue]:
    found: dict[str, ArgumentValue] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in asked:
            known = ", ".join(f"{one}={usual}" for one, usual in asked.items()) or "nothing"
            raise ModelError(f"{shown(text, 60)!r} sets nothing of this kind: it has {known}.")
        found[name] = _value(name, value, asked[name])
    return found


def _value(name: str, text: str, usual: ArgumentValue) -> ArgumentValue:
    if isinstance(usual, bool):
        if text.lower() not in _SWITCHES:
            raise ModelError(f"{name} is true or false, not {shown(text, 40)!r}.")
        return _SWITCHES[text.lower()]
    if isinstance(usual, int):
        if not (text.isdecimal() and len(text) <= 6):
            raise ModelError(f"{name} is a whole number, not {shown(text, 40)!r}.")
        return int(text)
    return text
