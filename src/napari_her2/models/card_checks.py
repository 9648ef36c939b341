"""The checks of a model card's fields, which may come from anywhere: what is wrong is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.class_scores import FINDINGS

if TYPE_CHECKING:
    import re

TEMPERATURES = (0.01, 100.0)
"""Range of a temperature."""
MAX_TEXT = 8000
"""Characters of a text of several lines."""
_MAX_LINE = 200
_MAX_ITEMS = 64
_MAX_NUMBER = 10**18


def wrong(name: str, problem: str) -> ModelError:
    """Return the error for a field that is not as it must be."""
    return ModelError(
        f"The model card is not valid: {name} {problem}. Ask the author of the model to correct it."
    )


def matches(pattern: re.Pattern[str], value: object) -> bool:
    """Whether a value is a text of this pattern."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def line(target: object, name: str, limit: int = _MAX_LINE) -> None:
    """Refuse a field that is no printable text, of one line unless it may be longer."""
    value = getattr(target, name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise wrong(name, f"must be a text of 1 to {limit} characters")
    allowed = "\n\t" if limit > _MAX_LINE else ""
    if any(not character.isprintable() and character not in allowed for character in value):
        # Cards are printed on terminals: control characters could rewrite what is on the screen.
        raise wrong(name, "holds control characters")


def integer(target: object, name: str, low: int, high: int) -> None:
    """Refuse a field that is no whole number in a range."""
    value = getattr(target, name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(name, f"must be a whole number from {low} to {high}")


def number(name: str, value: object, low: float, high: float) -> float:
    """Return a finite number in a range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, "must be a number")
    if not low <= value <= high:  # nor anything that is no number; a whole one may be too long for a float
        raise wrong(name, f"must be from {low} to {high}")
    return float(value)


def three_numbers(name: str, value: object) -> tuple[float, ...]:
    """Return three numbers, one for each colour."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise wrong(name, "must be three numbers")
    return tuple(number(name, item, -1000.0, 1000.0) for item in value)


def mpp_range(value: object) -> tuple[float, float]:
    """Return a finest and a coarsest µm per pixel."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise wrong("mpp_range", "must be two numbers")
    fine, coarse = (number("mpp_range", item, 0.01, 1000.0) for item in value)
    if fine > coarse:
        raise wrong("mpp_range", "must begin with the finest")
    return fine, coarse


def class_names(value: object) -> tuple[str, ...]:
    """Return names of classes."""
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= _MAX_ITEMS:
        raise wrong("classes", f"must be 2 to {_MAX_ITEMS} names")
    if any(not _is_short(name) for name in value) or len(set(value)) != len(value):
        raise wrong("classes", "must be different short names")
    return tuple(value)


def _is_short(value: object, limit: int = 64) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable() and bool(value.strip())


def _items(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping) or len(value) > _MAX_ITEMS or not all(_is_short(key) for key in value):
        raise wrong(name, f"must map at most {_MAX_ITEMS} short names to values")
    return dict(value)


def arguments(name: str, value: object) -> Mapping[str, str | int | float | bool | None]:
    """Return what a network is built with: short texts, numbers, true, false and null."""
    checked: dict[str, str | int | float | bool | None] = {}
    for key, item in _items(name, value).items():
        if isinstance(item, str) and item != "" and not _is_short(item, _MAX_LINE):
            raise wrong(f"{name}.{key}", "must be a short text")
        if isinstance(item, int | float) and not abs(item) < _MAX_NUMBER:
            raise wrong(f"{name}.{key}", "must be a number below 10^18")
        if item is not None and not isinstance(item, str | int | float | bool):
            raise wrong(f"{name}.{key}", "must be a text, a number, true, false or null")
        checked[key] = item
    return checked


def metrics(value: object) -> Mapping[str, float]:
    """Return measures by name."""
    items = _items("metrics", value)
    return {key: number(f"metrics.{key}", item, -1e12, 1e12) for key, item in items.items()}


def temperatures(value: object) -> Mapping[str, float]:
    """Return temperatures by head."""
    items = _items("temperatures", value)
    return {key: number(f"temperatures.{key}", item, *TEMPERATURES) for key, item in items.items()}


def class_labels(value: object, classes: Sequence[str]) -> Mapping[str, str]:
    """Return what classes are shown as."""
    checked: dict[str, str] = {}
    for key, item in _items("class_labels", value).items():
        if key not in classes or not isinstance(item, str) or not _is_short(item, _MAX_LINE):
            raise wrong("class_labels", "must give a short text for names among the classes")
        checked[key] = item
    return checked


def class_scores(value: object, classes: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return which scores each class holds."""
    checked: dict[str, tuple[str, ...]] = {}
    held: list[str] = []
    for key, item in _items("class_scores", value).items():
        if key not in classes or not isinstance(item, list | tuple) or not item:
            raise wrong("class_scores", "must give scores for names among the classes")
        if any(finding not in FINDINGS for finding in item):
            raise wrong("class_scores", f"must hold nothing but {', '.join(FINDINGS)}")
        checked[key] = tuple(item)
        held += item
    if len(set(held)) != len(held):
        raise wrong("class_scores", "must give no score to two classes")
    return checked


def case_counts(value: object, most: int) -> Mapping[str, Mapping[str, int]]:
    """Return numbers of cases by head and class: at least one case a head."""
    checked: dict[str, dict[str, int]] = {}
    for head, cases in _items("answer_sets.cases", value).items():
        items = _items(f"answer_sets.cases.{head}", cases)
        counts = [count for count in items.values() if type(count) is int and 0 <= count <= most]
        if len(counts) < len(items) or not sum(counts):
            raise wrong(f"answer_sets.cases.{head}", "must be whole numbers of cases, not all 0")
        checked[head] = dict(zip(items, counts, strict=True))
    if not checked:
        raise wrong("answer_sets.cases", "must name a head")
    return checked
