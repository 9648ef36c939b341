"""Doubt in a bundle: what a model has seen, and what it can promise, as tensors whose claims are checked.

Arrays that float16 holds exactly are kept in it, so that what is read is what was measured. Together they
have at most `MAX_BYTES`. Nothing is used before it is known to make sense: of the right shapes, finite, and
within the ranges that distances need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_her2.errors import ModelError
from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
from napari_her2.models.card import PAIR
from napari_her2.models.familiarity import (
    APPEARANCE,
    FEATURES,
    LEAST_SLIDES,
    QUANTILES,
    TILE_COUNTS,
    Familiarity,
    FeatureSpace,
    SlideSpace,
)
from napari_her2.models.weights_header import TensorClaim
from napari_her2.number_words import size_in_words
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_her2.models.card import ModelCard

    _Of = TypeVar("_Of")

FAMILIARITY_PREFIX = "familiarity."
SETS_PREFIX = "answer_sets."
DOUBT_PREFIXES = (FAMILIARITY_PREFIX, SETS_PREFIX)
MAX_BYTES = 2**20
"""Of all tensors of doubt of a bundle."""
_MAX_DIM = 65536
_MAX_DIRECTIONS = 1024
_MAX_REFERENCES = 4096
_MAX_SLIDES = 100_000
_UNEVEN = 0.05
"""How far the product of two directions may be from that of orthonormal ones, which float16 rounds."""

# Axes by name: sizes of the same name are the same.
_SPACE = {
    "mean": ("D",),
    "components": ("k", "D"),
    "scale": ("k",),
    "rest": (),
    "references": ("M", "k"),
    "reach": ("M",),
    "tile_limit": (),
    "slides": ("S", "quantiles"),
}
_WHOLE = {"turn": ("k", "k"), "places": ("L", "k"), "known": ("S", "counts", "numbers")}
_FIXED = {"quantiles": len(QUANTILES), "counts": len(TILE_COUNTS), "numbers": 1 + len(QUANTILES)}
_MOST = {"D": _MAX_DIM, "k": _MAX_DIRECTIONS, "M": _MAX_REFERENCES, "S": _MAX_SLIDES, "L": _MAX_REFERENCES}
_CASES = ("labels", "scores")


def doubt_tensors(
    card: ModelCard, familiarity: Familiarity | None, answer_sets: AnswerSets | None
) -> dict[str, Tensor]:
    """Return the tensors that a bundle keeps, checked against its card.

    Parameters
    ----------
    card : ModelCard
    familiarity : Familiarity or None
    answer_sets : AnswerSets or None

    Returns
    -------
    dict of str to Tensor
        "familiarity.<stain>.<kind>.<array>" and "answer_sets.<head>.<array>".

    Raises
    ------
    ModelError
        If they could not be read again.
    """
    found: dict[str, Tensor] = {}
    for (stain, kind), space in (familiarity.spaces if familiarity else {}).items():
        for part, names in ((space, _SPACE), (space.whole, _WHOLE)):
            for name in names if part is not None else ():
                found[f"{FAMILIARITY_PREFIX}{stain}.{kind}.{name}"] = _stored(getattr(part, name))
    for head, cases in (answer_sets.heads if answer_sets else {}).items():
        order = np.lexsort((cases.scores, cases.labels))  # the same cases give the same bytes
        found[f"{SETS_PREFIX}{head}.scores"] = torch.from_numpy(cases.scores.astype(np.float32)[order])
        found[f"{SETS_PREFIX}{head}.labels"] = torch.from_numpy(cases.labels.astype(np.int64)[order])
    source = f"the model {card.name!r}"
    check_doubt_claims(card, {name: _claim(value) for name, value in found.items()}, source)
    doubt_in(card, found, source)
    return found


def check_doubt_claims(card: ModelCard, claims: Mapping[str, TensorClaim], source: str) -> None:
    """Refuse a file whose header lists other tensors of doubt than its card needs, or larger ones.

    Parameters
    ----------
    card : ModelCard
    claims : mapping of str to TensorClaim
        By whole names; others than those of doubt are left alone.
    source : str
        Named in messages.

    Raises
    ------
    ModelError
    """
    claims = {name: claim for name, claim in claims.items() if _is_doubt(name)}
    size = sum(claim.nbytes for claim in claims.values())
    if size > MAX_BYTES:
        raise _wrong(source, f"it has {size_in_words(size)}, at most {size_in_words(MAX_BYTES)} are possible")
    for prefix, part in ((FAMILIARITY_PREFIX, card.familiarity), (SETS_PREFIX, card.answer_sets)):
        there = any(name.startswith(prefix) for name in claims)
        if there != (part is not None):
            where, missing = ("file", "card") if there else ("card", "file")
            raise _wrong(source, f"its {where} has {prefix.rstrip('.')}, its {missing} has none")
    spaces = _spaces(card, claims, source)
    for key, arrays in spaces.items():
        _check_space(card, key, arrays, source)
    if card.familiarity is not None:
        kept = any(kind == APPEARANCE for _, kind in spaces)
        if kept != (card.familiarity.appearance is not None):
            raise _wrong(source, "card and file do not agree on whether it describes pixels")
    _check_cases(card, claims, source)


def doubt_in(
    card: ModelCard, tensors: Mapping[str, Tensor], source: str
) -> tuple[Familiarity | None, AnswerSets | None]:
    """Return what the tensors of a bundle hold, whose claims were checked.

    Parameters
    ----------
    card : ModelCard
    tensors : mapping of str to Tensor
        By whole names; others than those of doubt are left alone.
    source : str
        Named in messages.

    Returns
    -------
    Familiarity or None
    AnswerSets or None

    Raises
    ------
    ModelError
        If a value makes no sense.
    """
    familiarity = sets = None
    arrays = {name: value.numpy() for name, value in tensors.items() if _is_doubt(name)}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise _wrong(source, f"{shown(name, 80)!r} holds values that are not numbers")
    if card.familiarity is not None:
        found = _spaces(card, arrays, source)
        familiarity = Familiarity({key: _space(key, given, source) for key, given in found.items()})
    if card.answer_sets is not None:
        cases = card.answer_sets.cases
        sets = AnswerSets(
            {head: _cases(card, head, counts, arrays, source) for head, counts in cases.items()}
        )
    return familiarity, sets


def _is_doubt(name: str) -> bool:
    return name.startswith(DOUBT_PREFIXES)


def _spaces(
    card: ModelCard, tensors: Mapping[str, _Of], source: str
) -> dict[tuple[str, str], dict[str, _Of]]:
    """Arrays by stain and kind of space."""
    possible = {
        f"{FAMILIARITY_PREFIX}{stain}.{kind}.{name}": ((stain, kind), name)
        for stain in (("H&E", "IHC") if card.stain == PAIR else (card.stain,))
        for kind in (FEATURES, APPEARANCE)
        for name in (*_SPACE, *_WHOLE)
    }
    found: dict[tuple[str, str], dict[str, _Of]] = {}
    for name in sorted(tensors):
        if name.startswith(FAMILIARITY_PREFIX):
            if name not in possible:
                raise _wrong(source, f"{shown(name, 80)!r} has no place in it")
            key, array = possible[name]
            found.setdefault(key, {})[array] = tensors[name]
    return found


def _check_space(
    card: ModelCard, key: tuple[str, str], arrays: Mapping[str, TensorClaim], source: str
) -> None:
    words, sizes = ".".join(key), dict(_FIXED)
    if key[1] == FEATURES and card.encoder is not None:
        sizes["D"] = card.encoder.dim
    wanted = _SPACE | (_WHOLE if any(name in arrays for name in _WHOLE) else {})
    for name, axes in wanted.items():
        claim = arrays.get(name)
        if claim is None:
            raise _wrong(source, f"'{words}.{name}' is missing")
        fits = len(claim.shape) == len(axes) and claim.kind in ("F16", "F32")
        if not fits or any(
            sizes.setdefault(axis, size) != size for axis, size in zip(axes, claim.shape, strict=True)
        ):
            raise _wrong(
                source, f"'{words}.{name}' is {claim.kind} of shape {claim.shape}, which does not fit"
            )
    for axis, most in _MOST.items():
        if not 1 <= sizes.get(axis, 1) <= most:
            raise _wrong(source, f"a size of {words!r} is {sizes[axis]}, possible are 1 to {most}")
    validated = card.familiarity.validated if card.familiarity else 0
    if sizes["k"] > sizes["D"] or not LEAST_SLIDES <= sizes["S"] <= validated:
        raise _wrong(
            source,
            f"{words!r} has {sizes['k']} directions in {sizes['D']} dimensions and {sizes['S']} validation "
            f"slides, which cannot be with the {validated} of its card (at least {LEAST_SLIDES} are needed)",
        )


def _space(key: tuple[str, str], arrays: Mapping[str, NDArray[np.floating]], source: str) -> FeatureSpace:
    words, given = ".".join(key), {name: values.astype(np.float32) for name, values in arrays.items()}
    for name in ("scale", "rest", "reach", "tile_limit"):
        if not (given[name] > 0).all():
            raise _wrong(source, f"'{words}.{name}' must be above 0")
    for name in {"slides", "known"} & given.keys():
        if (given[name] < 0).any():
            raise _wrong(source, f"'{words}.{name}' must not be below 0")
    product = given["components"].astype(np.float64) @ given["components"].T.astype(np.float64)
    if np.abs(product - np.eye(len(product))).max() > _UNEVEN:
        raise _wrong(source, f"the directions of '{words}.components' are not at right angles to each other")
    return FeatureSpace(
        mean=given["mean"],
        components=given["components"],
        scale=given["scale"],
        rest=float(given["rest"]),
        references=given["references"],
        reach=given["reach"],
        tile_limit=float(given["tile_limit"]),
        slides=given["slides"],
        whole=SlideSpace(**{name: given[name] for name in _WHOLE}) if "turn" in given else None,
    )


def _check_cases(card: ModelCard, claims: Mapping[str, TensorClaim], source: str) -> None:
    heads = card.answer_sets.cases if card.answer_sets is not None else {}
    wanted = {f"{SETS_PREFIX}{head}.{name}" for head in heads for name in _CASES}
    given = {name for name in claims if name.startswith(SETS_PREFIX)}
    if wanted != given:
        name = min(wanted ^ given)
        problem = "is missing" if name in wanted else "has no place in it"
        raise _wrong(source, f"{shown(name, 80)!r} {problem}")
    for head, counts in heads.items():
        for name, kind in zip(_CASES, ("I64", "F32"), strict=True):
            claim = claims[f"{SETS_PREFIX}{head}.{name}"]
            if claim.kind != kind or claim.shape != (sum(counts.values()),):
                raise _wrong(
                    source,
                    f"{head}.{name} is {claim.kind} of shape {claim.shape} instead of {kind} of the "
                    f"{sum(counts.values())} cases of its card",
                )


def _cases(
    card: ModelCard,
    head: str,
    counts: Mapping[str, int],
    arrays: Mapping[str, NDArray[Any]],
    source: str,
) -> CalibrationCases:
    scores, labels = (arrays[f"{SETS_PREFIX}{head}.{name}"] for name in ("scores", "labels"))
    if labels.min() < 0 or labels.max() >= len(card.classes) or (np.diff(labels) < 0).any():
        raise _wrong(source, f"'{head}.labels' must be sorted numbers of the {len(card.classes)} classes")
    if np.bincount(labels, minlength=len(card.classes)).tolist() != [
        counts.get(name, 0) for name in card.classes
    ]:
        raise _wrong(source, f"{head!r} has other numbers of cases of each class than its card says")
    if scores.min() < 0 or scores.max() > 1 + 1e-6:
        raise _wrong(source, f"'{head}.scores' must be from 0 to 1")
    return CalibrationCases(scores.astype(np.float32), labels.astype(np.int64))


def _stored(values: NDArray[np.floating] | float) -> Tensor:
    whole = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        half = whole.astype(np.float16)
    return torch.from_numpy(half if np.array_equal(half.astype(np.float32), whole) else whole)


def _claim(tensor: Tensor) -> TensorClaim:
    kinds = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}
    return TensorClaim(kinds[tensor.dtype], tuple(tensor.shape))


def _wrong(source: str, problem: str) -> ModelError:
    return ModelError(f"The doubt that {source} keeps is not valid: {problem}. Get the model again.")
