"""What each region of a layer is: two columns of its features, and colours and words that follow them.

napari knows shapes and their features; what is tumour and what is left out are the columns "kind" and "name".
They can be changed in the dock, in napari's own table, or by code: colours and words on the slide follow.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_her2._napari.colormaps import REGION_COLOUR
from napari_her2._napari.plain_text import visible
from napari_her2.inference.region_kinds import KINDS, LONGEST_NAME, kind_of_class

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari.layers import Shapes
    from numpy.typing import NDArray

KIND, NAME = "kind", "name"
"""Columns of the features."""
PROPOSED = "proposal"
"""Kind of what nobody has accepted yet: it counts as nothing."""
TUMOUR, CONTROL = "tumour", "control"
CLOSED = ("rectangle", "polygon", "ellipse")
"""Shapes that enclose something."""
CONTROLS = ("3+", "1+", "0")
"""Names of control regions: what their cells are known to be."""
CHOICES = tuple((kind, name) for kind in KINDS for name in (CONTROLS if kind == CONTROL else ("",)))
"""What a region can be made: kind, and the name that says more where a kind alone says too little."""

_FILL = 0.10  # of regions that are left out: seen as such, and the tissue below them too
_PROPOSED_COLOUR = (0, 229, 255)
_TEXT = {"size": 9, "color": "#10206b", "anchor": "center"}
_next: WeakKeyDictionary[Shapes, tuple[str, str]] = WeakKeyDictionary()
"""Kind and name of what is drawn next in each layer whose colours follow: napari takes the last row's."""


def has_kinds(layer: Shapes) -> bool:
    """Whether the regions of a layer have kinds; else all of them are tumour."""
    return KIND in layer.features.columns


def give_kinds(layer: Shapes) -> None:
    """Give a layer the columns, and have its colours and words follow them from now on.

    Parameters
    ----------
    layer : Shapes
        One that has them keeps what they hold; one that has none holds tumour.
    """
    if not has_kinds(layer):
        columns = {KIND: [TUMOUR] * layer.nshapes, NAME: [""] * layer.nshapes}
        _set_features(layer, {**{of: layer.features[of].to_list() for of in layer.features}, **columns})
    if layer not in _next:
        _draw_next(layer, TUMOUR, "")
        layer.events.data.connect(_on_change)
        layer.events.features.connect(_on_change)
    dress(layer)


def kinds_of(layer: Shapes) -> list[str]:
    """Kind of each shape: a key of `napari_her2.inference.region_kinds.KINDS`, or "proposal"."""
    if not has_kinds(layer):
        return [TUMOUR] * layer.nshapes
    held = [_kind(str(value)) for value in layer.features[KIND]]
    return (held + [TUMOUR] * layer.nshapes)[: layer.nshapes]


def names_of(layer: Shapes) -> list[str]:
    """Name of each shape, empty where it has none."""
    held = [_name(value) for value in layer.features[NAME]] if NAME in layer.features.columns else []
    return (held + [""] * layer.nshapes)[: layer.nshapes]


def drawn_next(layer: Shapes) -> tuple[str, str]:
    """Kind and name of what is drawn next; without a name it gets one of its kind."""
    return _next.get(layer, (TUMOUR, ""))


def set_kind(layer: Shapes, kind: str, name: str = "", chosen: Collection[int] = ()) -> None:
    """Make shapes another kind; without any, what is drawn next.

    Parameters
    ----------
    layer : Shapes
    kind : str
    name : str
        One that comes with the kind, as "3+" of control tissue; empty for the name that a shape has.
    chosen : collection of int
        Numbers of shapes.
    """
    give_kinds(layer)
    if not chosen:
        _draw_next(layer, kind, name)
        return
    kinds, names = kinds_of(layer), names_of(layer)
    for number in chosen:
        kinds[number], names[number] = kind, name or names[number]
    _set_features(layer, _with(layer, kinds, names))
    dress(layer)


def set_name(layer: Shapes, name: str, chosen: Collection[int]) -> None:
    """Give shapes a name; an empty one makes it that of their kind and number."""
    give_kinds(layer)
    names = names_of(layer)
    for number in chosen:
        names[number] = _name(name)
    _set_features(layer, _with(layer, kinds_of(layer), names))
    dress(layer)


def accept(layer: Shapes) -> int:
    """Make tumour of all that is only proposed, and return how many regions that were."""
    kinds = kinds_of(layer)
    proposed = [number for number, kind in enumerate(kinds) if kind == PROPOSED]
    if proposed:
        set_kind(layer, TUMOUR, chosen=proposed)
    return len(proposed)


def dress(layer: Shapes) -> None:
    """Give every shape a name, and the colour and words of its kind.

    A name that was made here goes with the kind that it was made for; one that a person gave stays.
    """
    kinds, names = kinds_of(layer), names_of(layer)
    unnamed = [at for at, kind in enumerate(kinds) if not names[at] or _is_of_another(kind, names[at])]
    for at in unnamed:
        names[at] = ""
    taken = set(names)
    for at in unnamed:
        names[at] = _free_name(kinds[at], taken)
        taken.add(names[at])
    columns = _with(layer, kinds, names)
    held = layer.features
    if len(held) != layer.nshapes or any(list(held[of]) != columns[of] for of in (KIND, NAME)):
        _set_features(layer, columns)
    _set_defaults(layer)
    words = [_label(*of) for of in zip(kinds, names, strict=True)]
    edges, faces = np.array([_edge(kind) for kind in kinds]), np.array([_face(kind) for kind in kinds])
    with layer.events.data.blocker(_on_change), layer.events.features.blocker(_on_change):
        # What is as it should be is left alone: napari draws its thumbnail anew each time.
        if kinds and _differ(layer.edge_color, edges):
            with layer.block_thumbnail_update():
                layer.edge_color = edges
        if kinds and _differ(layer.face_color, faces):
            layer.face_color = faces
        shown = np.asarray(layer.text.values)
        if shown.ndim == 0 or shown.tolist() != words:
            layer.text = {**_TEXT, "string": words}


def is_dressed(layer: Shapes) -> bool:
    """Whether every shape has a name that goes with its kind: within a change some have not yet."""
    named = zip(kinds_of(layer), names_of(layer), strict=True)
    return all(name and not _is_of_another(kind, name) for kind, name in named)


def _differ(held: NDArray[np.floating], wanted: NDArray[np.float64]) -> bool:
    """Whether colours differ; those of shapes that napari took back stay at the end of what it holds."""
    return len(held) < len(wanted) or not np.allclose(held[: len(wanted)], wanted)


def summary(layer: Shapes) -> str:
    """Say what is drawn, lines aside: "2 tumour regions; left out: 1 DCIS, 1 control tissue"."""
    kinds = [of for of, drawn in zip(kinds_of(layer), layer.shape_type, strict=True) if drawn in CLOSED]
    counts = {kind: kinds.count(kind) for kind in (*KINDS, PROPOSED) if kind in kinds}
    included = sum(count for kind, count in counts.items() if kind in KINDS and KINDS[kind].included)
    parts = [f"{included} tumour region{'s' if included != 1 else ''}"]
    left_out = [f"{count} {KINDS[of].title}" for of, count in counts.items() if _is_left_out(of)]
    if left_out:
        parts.append("left out: " + ", ".join(left_out))
    if PROPOSED in counts:
        parts.append(f"{counts[PROPOSED]} proposed, which count for nothing until accepted")
    return "; ".join(parts)


def _is_left_out(kind: str) -> bool:
    return kind in KINDS and not KINDS[kind].included


def _on_change(event: Any) -> None:  # noqa: ANN401 - a napari event
    layer = event.source
    # While a shape is being drawn napari has it in its data already.
    if str(getattr(event, "action", "added")).lower().rsplit(".", 1)[-1] in (
        "adding",
        "changing",
        "removing",
    ):
        return
    dress(layer)


def _draw_next(layer: Shapes, kind: str, name: str) -> None:
    _next[layer] = kind, name
    _set_defaults(layer)
    with layer.block_update_properties():  # else what is selected would take the colours too
        layer.current_edge_color = _edge(kind)
        layer.current_face_color = _face(kind)


def _set_defaults(layer: Shapes) -> None:
    wanted = dict(zip((KIND, NAME), drawn_next(layer), strict=True))
    held = {of: layer.feature_defaults[of].iloc[0] for of in layer.feature_defaults}
    if held != {**held, **wanted}:
        layer.feature_defaults = {**held, **wanted}


def _set_features(layer: Shapes, columns: dict[str, Sequence[Any]]) -> None:
    with layer.events.features.blocker(_on_change):
        # Without a type an empty column holds numbers, and takes no words later.
        typed = {of: np.array(columns[of], object) for of in (KIND, NAME)}
        layer.features = {**columns, **typed}


def _with(layer: Shapes, kinds: list[str], names: list[str]) -> dict[str, Sequence[Any]]:
    """All columns of a layer, as many rows as shapes: napari keeps that of a shape that it took back."""
    others = {
        of: (list(layer.features[of]) + [None] * layer.nshapes)[: layer.nshapes]
        for of in layer.features
        if of not in (KIND, NAME)
    }
    return {**others, KIND: kinds, NAME: names}


def _kind(value: str) -> str:
    """Return the kind that a person means, who may have typed it into napari's table."""
    return value if value in KINDS or value == PROPOSED else kind_of_class(value)


def _name(value: object) -> str:
    text = "" if value is None or value != value else str(value)  # NaN stands for nothing in a table
    return " ".join(visible(text).split())[:LONGEST_NAME]


def choice_words(kind: str, name: str = "") -> str:
    """Say what a choice makes of a region: "DCIS (left out)", "control tissue 3+ (left out)"."""
    if kind == PROPOSED:
        return "proposed (counts for nothing)"
    return f"{KINDS[kind].title} {name}".strip() + ("" if KINDS[kind].included else " (left out)")


def _title(kind: str) -> str:
    return "proposed" if kind == PROPOSED else KINDS[kind].title


def _label(kind: str, name: str) -> str:
    return name if name.startswith(_title(kind)) else f"{_title(kind)}: {name}"


def _free_name(kind: str, taken: Collection[str]) -> str:
    """Name of the next region of a kind."""
    return next(name for number in count(1) if (name := f"{_title(kind)} {number}") not in taken)


def _is_of_another(kind: str, name: str) -> bool:
    """Whether a name was made here for a region of another kind."""
    if name in CONTROLS:
        return kind != CONTROL
    start, _, end = name.rpartition(" ")
    return end.isdigit() and start in {_title(of) for of in (*KINDS, PROPOSED) if of != kind}


def _edge(kind: str) -> NDArray[np.float64]:
    if kind == TUMOUR:
        return np.array([*(int(REGION_COLOUR[at : at + 2], 16) / 255 for at in (1, 3, 5)), 1.0])
    colour = _PROPOSED_COLOUR if kind == PROPOSED else KINDS[kind].colour
    return np.array([*(part / 255 for part in colour), 1.0])


def _face(kind: str) -> NDArray[np.float64]:
    return np.array([*_edge(kind)[:3], 0.0 if kind == TUMOUR else _FILL])
