"""The model card: what a model is, what it was made from, and what it may be used for.

A card travels as JSON in the header of a bundle, which may come from anywhere: every field is checked
before anything is built from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from napari_her2.errors import ModelError
from napari_her2.models import card_checks as check
from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard, check_answer_sets
from napari_her2.models.case_slides import EACH, MEAN, RULES, WAYS
from napari_her2.number_words import size_in_words
from napari_her2.outside import Reading, shown

MAX_CARD_BYTES = 64 * 1024
NOTICE = "Research use only. Not for diagnosis or treatment decisions."
PAIR = "H&E+IHC"
"""Stain of a model that takes the H&E and the IHC slide of a case, or either alone."""
STAINS = ("H&E", "IHC", PAIR)
LEFT_OUT = "left out"
QUALITIES = ("off", LEFT_OUT)
"""Whether tissue of poor quality was left out when a model learnt."""
PRECISIONS = ("float32", "bfloat16", "float16")
BOTH = "fusion"
"""The head that takes both slides of a case, in the temperatures of a card and in results."""
SLIDE = "slide"
"""The one head of most models, in the temperatures of a card."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
NAMED_WEIGHTS = "named"
"""Weights of an encoder of which the name alone is known; see `napari_her2.models.named_weights`."""
_WEIGHTS = re.compile(rf"bundled|random|{NAMED_WEIGHTS}|sha256:[0-9a-f]{{64}}")
_CARD_FORMAT = 1
_READING = Reading(limit=MAX_CARD_BYTES, advice="get the model again", error=ModelError)
# Names of files: the first is none on Windows, whatever follows a dot; the others are read as paths, or as
# the separate weights of an encoder.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")
_TAKEN = re.compile(r".*\.(?:encoder|safetensors|pt|pth|bin|ckpt|pkl|sha256)")

ArgumentValue = str | int | float | bool | None
Pooling = Literal["pooled", "class", "class+mean", "token mean"]
POOLINGS: tuple[Pooling, ...] = ("pooled", "class", "class+mean", "token mean")
"""How one vector is made of a tile: as the network pools by itself, the class token, that joined with the
mean of the patch tokens, or the mean of the patch tokens."""
_Card = TypeVar("_Card", bound="EncoderSpec | ModelCard | FamiliarityCard | AnswerSetsCard")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder makes the features of a tile, and how tiles are prepared for it.

    Parameters
    ----------
    name : str
        "alexnet", "timm:" and the name of a timm model, or "transformers:" and the class of a model there.
    tile_px : int
        Side of the tiles it takes, pixels.
    mean, std : tuple of 3 float
        RGB on [0, 1]; what the weights were trained with. Entered as it is, even where it looks odd.
    dim : int
        Length of the feature vector.
    weights : str
        "bundled" (in the same file), "sha256:..." (digest of separate weights, see
        `napari_her2.models.weights_file.weights_digest`), "named" (those of the contract, whichever are met
        first, see `napari_her2.models.named_weights`) or "random" (nothing learnt).
    arguments : mapping
        What else the encoder is built with.
    contract : str
        Under which name of `napari_her2.models.encoder_contracts` it is known; empty for any other.
    pooling : str
        How one vector is made of what it gives, of `POOLINGS`.
    input_px : int or None
        Side of what the network sees, pixels; None: the tile as it is.
    resized_px : int or None
        Side that a tile is brought to before its middle, ``input_px`` wide, is taken; None: ``input_px``.
    hub : str
        Where the weights once came from, "id@revision", for people to read: nothing ever opens it.
    """

    name: str
    tile_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    weights: str = "bundled"
    arguments: Mapping[str, ArgumentValue] = field(default_factory=dict)
    contract: str = ""
    pooling: str = POOLINGS[0]
    input_px: int | None = None
    resized_px: int | None = None
    hub: str = ""

    def __post_init__(self) -> None:
        check.line(self, "name")
        check.integer(self, "tile_px", 8, 4096)
        check.integer(self, "dim", 1, 65536)
        for name in ("mean", "std"):
            _set(self, name, check.three_numbers(f"encoder.{name}", getattr(self, name)))
        if min(self.std) <= 0:
            raise check.wrong("encoder.std", "must be above 0")
        if not check.matches(_WEIGHTS, self.weights):
            raise check.wrong(
                "encoder.weights", "must be bundled, random, named or sha256: and 64 hexadecimal digits"
            )
        if self.weights == NAMED_WEIGHTS and not self.contract:
            raise check.wrong("encoder.contract", "must name the encoder whose weights are known by name")
        _set(self, "arguments", check.arguments("encoder.arguments", self.arguments))
        self._check_contract()

    def _check_contract(self) -> None:
        for name in ("contract", "hub"):
            if getattr(self, name) != "":
                check.line(self, name)
        if self.pooling not in POOLINGS:
            raise check.wrong("encoder.pooling", f"must be one of {', '.join(POOLINGS)}")
        for name in ("input_px", "resized_px"):
            if getattr(self, name) is not None:
                check.integer(self, name, 8, 4096)
        if self.resized_px is not None and self.resized_px < (self.input_px or 4097):
            raise check.wrong("encoder.resized_px", "must not be smaller than input_px")

    def to_values(self) -> dict[str, Any]:
        """Return its fields for a card: without those of later versions where they say nothing."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if _UNSET.get(name, ...) != value}


_UNSET: Mapping[str, object] = {
    "contract": "", "pooling": POOLINGS[0], "input_px": None, "resized_px": None, "hub": "",
}  # fmt: skip
"""Fields that came later, and what they say nothing with: a card without them stays the text it was."""


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
    class_scores : mapping of str to tuple of str
        Which scores each class holds, as `napari_her2.models.class_scores.FINDINGS` names them:
        {"Low": ("1+", "2+")}. Classes may be missing; their names then tell it.
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
    mpp_range : tuple of float or None
        Finest and coarsest µm per pixel that the model learnt from, where that differs from slide to slide.
    precision : str or None
        Of `PRECISIONS`: in which the features that the model learnt from were computed. None where nothing
        is known of it, and for models that take pixels.
    quality : str
        Of `QUALITIES`: whether tissue out of focus, folded or hidden was left out when the model learnt. Its
        scoring does the same unless the user says otherwise.
    familiarity : FamiliarityCard or None
        From what the bundle's familiarity was made; None where it keeps none.
    answer_sets : AnswerSetsCard or None
        From what its promise was made; likewise.
    case_slides, case_rule : str
        Of `napari_her2.models.case_slides.WAYS` and `RULES`: how several slides of a case gave one answer
        when the model was judged and calibrated.
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
    class_scores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    min_confidence: float | None = None
    min_tissue: float | None = None
    mpp_range: tuple[float, float] | None = None
    precision: str | None = None
    quality: str = "off"
    familiarity: FamiliarityCard | None = None
    answer_sets: AnswerSetsCard | None = None
    case_slides: str = EACH
    case_rule: str = MEAN

    def __post_init__(self) -> None:
        if not check.matches(_NAME, self.name):
            raise check.wrong(
                "name", "must be 1 to 64 lower case letters, digits, dots, dashes or underscores"
            )
        if _RESERVED.fullmatch(self.name) or _TAKEN.fullmatch(self.name):
            raise check.wrong("name", f"must not be {self.name!r}, which no model file can be called")
        for name in ("version", "method", "architecture", "task", "licence", "guideline"):
            check.line(self, name)
        for name in ("training_data", "intended_use", "notice"):
            check.line(self, name, check.MAX_TEXT)
        if not isinstance(self.encoder, EncoderSpec | None):
            raise check.wrong("encoder", "must describe an encoder, or be null")
        if self.stain not in STAINS:
            raise check.wrong("stain", f"must be one of {', '.join(STAINS)}")
        check.integer(self, "tile_px", 8, 4096)
        _set(self, "mpp", check.number("mpp", self.mpp, 0.01, 100.0))
        if self.encoder is not None and self.encoder.tile_px != self.tile_px:
            raise check.wrong("tile_px", "must be that of the encoder")
        _set(self, "classes", check.class_names(self.classes))
        _set(self, "arguments", check.arguments("arguments", self.arguments))
        _set(self, "metrics", check.metrics(self.metrics))
        _set(self, "class_labels", check.class_labels(self.class_labels, self.classes))
        _set(self, "class_scores", check.class_scores(self.class_scores, self.classes))
        _set(self, "temperatures", check.temperatures(self.temperatures))
        if self.mpp_range is not None:
            _set(self, "mpp_range", check.mpp_range(self.mpp_range))
        if self.precision is not None and self.precision not in PRECISIONS:
            raise check.wrong("precision", f"must be one of {', '.join(PRECISIONS)}, or null")
        if self.quality not in QUALITIES:
            raise check.wrong("quality", f"must be one of {', '.join(QUALITIES)}")
        for name, known in (("case_slides", WAYS), ("case_rule", tuple(RULES))):
            if getattr(self, name) not in known:
                raise check.wrong(name, f"must be one of {', '.join(known)}")
        for name in ("min_confidence", "min_tissue"):
            given = getattr(self, name)
            _set(self, name, None if given is None else check.number(name, given, 0.0, 1.0))
        self._check_doubt()

    def _check_doubt(self) -> None:
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind | None):
                raise check.wrong(name, "must be a part of the card, or be null")
        if self.answer_sets is not None:
            check_answer_sets(self.answer_sets, self.heads, self.classes)

    @property
    def heads(self) -> tuple[str, ...]:
        """What answers: the slide, or the pair of a case and each of its slides alone."""
        return (BOTH, "H&E", "IHC") if self.stain == PAIR else (SLIDE,)

    def temperature(self, head: str = "") -> float:
        """Return the temperature of a head, or of the slide."""
        return self.temperatures.get(head or SLIDE, 1.0)

    def to_json(self) -> str:
        """Return the card as JSON, always the same text for the same card."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.encoder is not None:
            values["encoder"] = self.encoder.to_values()
        for name in _PARTS:
            part = values.pop(name)
            if part is not None:  # so that the card of a model without them stays the text it was
                values[name] = {item.name: getattr(part, item.name) for item in fields(part)}
        if self.quality == QUALITIES[0]:  # likewise
            del values["quality"]
        if self.case_slides == EACH:  # likewise
            del values["case_slides"]
        if self.case_rule == MEAN:
            del values["case_rule"]
        values["card_format"] = _CARD_FORMAT
        text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
        if len(text.encode()) > MAX_CARD_BYTES:
            most = size_in_words(MAX_CARD_BYTES)
            raise ModelError(f"The model card is longer than {most}: shorten its texts.")
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
            most = size_in_words(MAX_CARD_BYTES)
            raise ModelError(f"The model card is longer than {most}: this is no model.")
        values = _READING.parsed_json(text, "The model card")
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
        for name, kind in _PARTS.items():
            if isinstance(values.get(name), dict):
                values[name] = _build(kind, values[name], f"{name}.")
        return _build(cls, values, "")


_PARTS: Mapping[str, type[FamiliarityCard] | type[AnswerSetsCard]] = {
    "familiarity": FamiliarityCard,
    "answer_sets": AnswerSetsCard,
}


def _build(kind: type[_Card], values: dict[str, Any], prefix: str) -> _Card:
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise check.wrong(f"{prefix}{shown(unknown[0], 40)}", "is unknown")
    try:
        return kind(**values)
    except TypeError as error:  # a field without default that is not there
        missing = sorted(known - set(values))
        raise check.wrong(", ".join(prefix + name for name in missing), "is missing") from error


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a model card")


def _set(target: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is made."""
    object.__setattr__(target, name, value)
