"""What a kept result may be made of: the values of our package that a result holds, and how they are checked.

A file is read by names from this list alone, so that nothing else is ever built from one. The fields of a
value are checked against the types that its class declares: a new field needs nothing here, a new class one
line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from napari_her2.explain.overlays import Drawing
from napari_her2.methods.catalogue import METHODS
from napari_her2.models.familiarity import Verdict
from napari_her2.slide.tissue import Preset

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Kind = type[DataclassInstance]

_PACKAGE = "napari_her2."
_OURS = (
    "inference.result.SlideResult",
    "inference.result.AnswerLimits",
    "inference.result.CaseOf",
    "inference.scored_slide.ScoredSlide",
    "inference.scored_slide.TileTable",
    "inference.asked.Asked",
    "inference.asked.AskedSlide",
    "inference.asked.AskedRegion",
    "inference.options.ScoringOptions",
    "inference.doubt.Doubt",
    "inference.doubt.Spread",
    "inference.doubt.SlideFamiliarity",
    "inference.doubt.SpaceFamiliarity",
    "models.answer_sets.AnswerSet",
    "models.answer_sets.AnswerSets",
    "models.answer_sets.CalibrationCases",
    "models.bags.BagUncertainty",
    "slide.grid.TileGrid",
    "slide.tissue.TissueMask",
    "slide.quality.Quality",
    "slide.quality_limits.QualityLimits",
    "slide.thumbnail.Thumbnail",
    "cells.table.Cells",
    "cells.rules.Rules",
    "cells.reading.CellReading",
    "explain.overlays.OverlayInfo",
    "explain.overlays.Column",
    "explain.overlays.TileWords",
    "explain.overlays.Ranking",
    "explain.overlays.Outlined",
)
_DRAWINGS = (
    "explain.maps.TileMap",
    "explain.geometries.Outline",
    "explain.geometries.Frames",
    "explain.geometries.TileValues",
    "explain.geometries.PlacedImage",
    "explain.geometries.OnRequest",
    "explain.cells.CellBorders",
)
_MOVED = {
    "inference.result.ScoredSlide": "inference.scored_slide.ScoredSlide",
    "inference.result.TileTable": "inference.scored_slide.TileTable",
}
"""Names in files that are older than the place of a class."""
_NAMES = frozenset(_OURS + _DRAWINGS)
_PLAIN = (str, bool, int, float, NoneType)


def name_of(kind: type) -> str | None:
    """Return the name that values of a class are kept under; None where none of it are kept."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind in _of_methods():
        return name
    ours = name.removeprefix(_PACKAGE)
    return ours if ours in _NAMES else None


def class_named(name: str) -> Kind | None:
    """Return the class of a name; None of a name that is not in the list.

    Parameters
    ----------
    name : str
        From a file; nothing is imported by it but what the list holds.
    """
    name = _MOVED.get(name, name)
    if name in _NAMES:
        return _ours(name)
    return next((kind for kind in _of_methods() if name_of(kind) == name), None)


def refuse_misfit(kind: Kind, values: Mapping[str, Any]) -> None:
    """Refuse values that the fields of a class do not take.

    Parameters
    ----------
    kind : type
        Of the list.
    values : mapping of str to value
        By field.

    Raises
    ------
    ValueError
        Naming the field.
    """
    hints = _hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{kind.__name__} has no {name:.40}")
        if not fits(value, hints[name]):
            raise ValueError(f"{name} of {kind.__name__} is none")


def fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - any value and any annotation
    """Whether a value is of an annotated type.

    Parameters
    ----------
    value : object
    hint : type
        As `typing.get_type_hints` gives it; ``Any`` stands for plain values.
    """
    if isinstance(value, np.generic):
        value = value.item()  # as it is kept
    origin, of = get_origin(hint), get_args(hint)
    if hint is Any:
        return _is_plain(value)
    if hint is Drawing:
        return name_of(type(value)) in _DRAWINGS or type(value) in _of_methods()
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in of)
    if origin is Literal:
        return isinstance(value, str) and value in of
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and _of_kind(value.dtype, of[1])
    if origin in (tuple, Sequence):
        return isinstance(value, tuple | list) and _items_fit(value, of)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, of[0]) and fits(item, of[1]) for key, item in value.items()
        )
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else False


def _items_fit(values: Sequence[Any], of: tuple[Any, ...]) -> bool:
    if len(of) != 2 or of[1] is not Ellipsis:
        if len(of) == 1:  # a sequence of any length
            return all(fits(value, of[0]) for value in values)
        return len(values) == len(of) and all(map(fits, values, of))
    return all(fits(value, of[0]) for value in values)


def _of_kind(dtype: np.dtype[Any], annotated: Any) -> bool:  # noqa: ANN401 - an annotation
    """Whether an array holds what its annotation names, which may be a kind of numbers."""
    scalars = get_args(annotated)
    if not scalars or scalars[0] is Any:
        return True
    return any(np.issubdtype(dtype, scalar) for scalar in (get_args(scalars[0]) or (scalars[0],)))


def _is_plain(value: Any) -> bool:  # noqa: ANN401 - measures of any method
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _of_methods() -> tuple[Kind, ...]:
    """Geometries that methods bring along."""
    return tuple(kind for method in METHODS.values() for kind in method.drawings)


@cache
def _ours(name: str) -> Kind:
    module, _, own = (_PACKAGE + name).rpartition(".")
    kind: Kind = getattr(import_module(module), own)
    return kind


@cache
def _hints(kind: Kind) -> dict[str, Any]:
    known: dict[str, Any] = {_ours(name).__name__: _ours(name) for name in _NAMES}
    known |= {"np": np, "NDArray": NDArray, "Mapping": Mapping, "Sequence": Sequence, "Path": Path}
    known |= {"Any": Any, "Drawing": Drawing, "Verdict": Verdict, "Preset": Preset}
    hints = get_type_hints(kind, localns=known)
    return {field.name: hints[field.name] for field in fields(kind)}
