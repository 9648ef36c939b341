"""The model card: what a model is, what it was made from, and what it may be used for.

A card travels as JSON in the header of a bundle, which may come from anywhere: every field is checked
before anything is built from it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from napari_her2.errors import ModelError

MAX_CARD_BYTES = 64 * 1024
NOTICE = "Research use only. Not for diagnosis or treatment decisions."
PAIR = "H&E+IHC"
"""Stain of a model that takes the H&E and the IHC slide of a case, or either alone."""
STAINS = ("H&E", "IHC", PAIR)
SLIDE = "slide"
"""The one head of most models, in the temperatures of a card."""
TEMPERATURES = (0.01, 100.0)
"""Range of a temperature."""

_MAX_LINE = 200
_MAX_TEXT = 8000
_MAX_ITEMS = 64
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_WEIGHTS = re.compile(r"bundled|random|sha256:[0-9a-f]{64}")
_CARD_FORMAT = 1

ArgumentValue = str | int | float | bool | None
_Card = TypeVar("_Card", "EncoderSpec", "ModelCard")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder makes the features of a tile, and how tiles are prepared for it.

    Parameters
    ----------
    name : str
        "alexnet", or "timm:" and the name of a timm model.
    tile_px : int
        Side of the tiles it takes, pixels.
    mean, std : tuple of 3 float
        RGB on [0, 1]; what the weights were trained with. Entered as it is, even where it looks odd.
    dim : int
        Length of the feature vector.
    weights : str
        "bundled" (in the same file), "sha256:..." (digest of separate weights, see
        `napari_her2.models.encoders.weights_digest`) or "random" (nothing learnt).
    arguments : mapping
        What else the encoder is built with.
    """

    name: str
    tile_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    weights: str = "bundled"
    arguments: Mapping[str, ArgumentValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _line(self, "name")
        _integer(self, "tile_px", 8, 4096)
        _integer(self, "dim", 1, 65536)
        for name in ("mean", "std"):
            _set(self, name, _three_numbers(f"encoder.{name}", getattr(self, name)))
        if min(self.std) <= 0:
            raise _wrong("encoder.std", "must be above 0")
        if not _matches(_WEIGHTS, self.weights):
            raise _wrong("encoder.weights", "must be bundled, random or sha256: and 64 hexadecimal digits")
        _set(self, "arguments", _arguments("encoder.arguments", self.arguments))


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is, what it was made from, and what it may be used for.

    Parameters
    ----------
    name : str
        Short, as used on the command line and as file name: lower case letters, digits, ". _ -".
    version : str
    method : str
        "attention-mil".
    architecture : str
        Key of `napari_her2.models.architectures.ARCHITECTURES`: "AttentionMIL".
    arguments : mapping
        What the architecture is built with.
    encoder : EncoderSpec or None
        None where the head takes pixels.
    stain : str
        "H&E", "IHC", or "H&E+IHC" for a model that takes both slides of a case, or either.
    tile_px : int
        Side of a tile, pixels.
    mpp : float
        µm per pixel of the tiles.
    classes : tuple of str
        In the order of the logits: ("0", "1+", "2+", "3+").
    task : str
        Stain and task in words, always shown with a score.
    class_labels : mapping of str to str
        What each class is shown as: {"2+": "2+ (equivocal, ISH required)"}. Classes may be missing.
    training_data, licence, intended_use, notice : str
    guideline : str
        Whose criteria the labels follow, with the year.
    metrics : mapping of str to float
        Each name says on what it was measured.
    temperatures : mapping of str to float
        By which the logits are divided so that probabilities are as often right as they say (Guo et al.
        2017, arXiv:1706.04599): of each head ("fusion", "H&E", "IHC"), or of the slide (`SLIDE`) where the
        model has one head. 1 where nothing is said.
    min_confidence : float or None
        Below this probability of the top class the answer is withheld, unless the user says otherwise.
    min_tissue : float or None
        Share of a tile that had to be tissue when the model learnt, and has to be when it scores.
    """

    name: str
    version: str
    method: str
    architecture: str
    arguments: Mapping[str, ArgumentValue]
    encoder: EncoderSpec | None
    stain: str
    tile_px: int
    mpp: float
    classes: tuple[str, ...]
    task: str
    training_data: str
    licence: str
    intended_use: str
    guideline: str
    notice: str = NOTICE
    metrics: Mapping[str, float] = field(default_factory=dict)
    class_labels: Mapping[str, str] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    min_confidence: float | None = None
    min_tissue: float | None = None

    def __post_init__(self) -> None:
        if not _matches(_NAME, self.name):
            raise _wrong("name", "must be 1 to 64 lower case letters, digits, dots, dashes or underscores")
        for name in ("version", "method", "architecture", "task", "licence", "guideline"):
            _line(self, name)
        for name in ("training_data", "intended_use", "notice"):
            _line(self, name, _MAX_TEXT)
        if not isinstance(self.encoder, EncoderSpec | None):
            raise _wrong("encoder", "must describe an encoder, or be null")
        if self.stain not in STAINS:
            raise _wrong("stain", f"must be one of {', '.join(STAINS)}")
        _integer(self, "tile_px", 8, 4096)
        _set(self, "mpp", _number("mpp", self.mpp, 0.01, 100.0))
        if self.encoder is not None and self.encoder.tile_px != self.tile_px:
            raise _wrong("tile_px", "must be that of the encoder")
        _set(self, "classes", _class_names(self.classes))
        _set(self, "arguments", _arguments("arguments", self.arguments))
        _set(self, "metrics", _metrics(self.metrics))
        _set(self, "class_labels", _class_labels(self.class_labels, self.classes))
        _set(self, "temperatures", _temperatures(self.temperatures))
        for name in ("min_confidence", "min_tissue"):
            given = getattr(self, name)
            _set(self, name, None if given is None else _number(name, given, 0.0, 1.0))

    def temperature(self, head: str = "") -> float:
        """Return the temperature of a head, or of the slide."""
        return self.temperatures.get(head or SLIDE, 1.0)

    def to_json(self) -> str:
        """Return the card as JSON, always the same text for the same card."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.encoder is not None:
            values["encoder"] = {item.name: getattr(self.encoder, item.name) for item in fields(self.encoder)}
        values["card_format"] = _CARD_FORMAT
        text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
        if len(text.encode()) > MAX_CARD_BYTES:
            raise ModelError(f"The model card is longer than {MAX_CARD_BYTES // 1024} KB: shorten its texts.")
        return text

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card, checking every field.

        Parameters
        ----------
        text : str

        Returns
        -------
        ModelCard

        Raises
        ------
        ModelError
            If anything is missing, unknown, of the wrong type or out of range.
        """
        if len(text.encode(errors="replace")) > MAX_CARD_BYTES:
            raise ModelError(f"The model card is longer than {MAX_CARD_BYTES // 1024} KB: this is no model.")
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ModelError("The model card is not readable JSON: get the model again.") from error
        if not isinstance(values, dict):
            raise ModelError("The model card is not a JSON object: get the model again.")
        found = values.pop("card_format", None)
        if found != _CARD_FORMAT:
            raise ModelError(
                f"The model card has format {found!r:.40}, this version of napari-her2 reads format "
                f"{_CARD_FORMAT}: update napari-her2."
            )
        encoder = values.get("encoder")
        if isinstance(encoder, dict):
            values["encoder"] = _build(EncoderSpec, encoder, "encoder.")
        return _build(cls, values, "")


def _build(kind: type[_Card], values: dict[str, Any], prefix: str) -> _Card:
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise _wrong(f"{prefix}{unknown[0]:.40}", "is unknown")
    try:
        return kind(**values)
    except TypeError as error:  # a field without default that is not there
        missing = sorted(known - set(values))
        raise _wrong(", ".join(prefix + name for name in missing), "is missing") from error


def _wrong(name: str, problem: str) -> ModelError:
    return ModelError(
        f"The model card is not valid: {name} {problem}. Ask the author of the model to correct it."
    )


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _set(target: object, name: str, value: object) -> None:
    object.__setattr__(target, name, value)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a model card")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _line(target: EncoderSpec | ModelCard, name: str, limit: int = _MAX_LINE) -> None:
    value = getattr(target, name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise _wrong(name, f"must be a text of 1 to {limit} characters")
    allowed = "\n\t" if limit > _MAX_LINE else ""
    if any(not character.isprintable() and character not in allowed for character in value):
        # Cards are printed on terminals: control characters could rewrite what is on the screen.
        raise _wrong(name, "holds control characters")


def _integer(target: EncoderSpec | ModelCard, name: str, low: int, high: int) -> None:
    value = getattr(target, name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(name, f"must be a whole number from {low} to {high}")


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "must be a number")
    if not math.isfinite(value) or not low <= value <= high:
        raise _wrong(name, f"must be from {low} to {high}")
    return float(value)


def _three_numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise _wrong(name, "must be three numbers")
    return tuple(_number(name, item, -1000.0, 1000.0) for item in value)


def _class_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= _MAX_ITEMS:
        raise _wrong("classes", f"must be 2 to {_MAX_ITEMS} names")
    if any(not _is_short(name) for name in value) or len(set(value)) != len(value):
        raise _wrong("classes", "must be different short names")
    return tuple(value)


def _is_short(value: object, limit: int = 64) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable() and bool(value.strip())


def _items(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or len(value) > _MAX_ITEMS or not all(_is_short(key) for key in value):
        raise _wrong(name, f"must map at most {_MAX_ITEMS} short names to values")
    return dict(value)


def _arguments(name: str, value: object) -> Mapping[str, ArgumentValue]:
    checked: dict[str, ArgumentValue] = {}
    for key, item in _items(name, value).items():
        if isinstance(item, str) and not _is_short(item, _MAX_LINE):
            raise _wrong(f"{name}.{key}", "must be a short text")
        if isinstance(item, float) and not math.isfinite(item):
            raise _wrong(f"{name}.{key}", "must be finite")
        if item is not None and not isinstance(item, str | int | float | bool):
            raise _wrong(f"{name}.{key}", "must be a text, a number, true, false or null")
        checked[key] = item
    return checked


def _metrics(value: object) -> Mapping[str, float]:
    items = _items("metrics", value)
    return {key: _number(f"metrics.{key}", item, -1e12, 1e12) for key, item in items.items()}


def _temperatures(value: object) -> Mapping[str, float]:
    items = _items("temperatures", value)
    return {key: _number(f"temperatures.{key}", item, *TEMPERATURES) for key, item in items.items()}


def _class_labels(value: object, classes: Sequence[str]) -> Mapping[str, str]:
    checked: dict[str, str] = {}
    for key, item in _items("class_labels", value).items():
        if key not in classes or not isinstance(item, str) or not _is_short(item, _MAX_LINE):
            raise _wrong("class_labels", "must give a short text for names among the classes")
        checked[key] = item
    return checked
