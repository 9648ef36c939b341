"""Overlays describe themselves: what each is called, what it means, how it is shown, listed and exported.

Layers, checkboxes, colour bars, values under the cursor, exported columns and the pages of a report are all
made from these descriptions. Whoever makes a new kind of map describes it here, once; nothing that shows
or writes maps knows their kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Limits: TypeAlias = tuple[float, float] | Literal["percentile", "symmetric", "above zero", "from zero"]
"""Values at the two ends of the colours, or how they are found; see `napari_her2.explain.maps.limits_of`."""
RAW, PERCENTILE = "raw", "percentile"
"""Scales: values as they are, and their ranks among the tiles of the slide."""
CHOSEN_CLASS = "the chosen score"
_DIGITS, _MOST_DIGITS = 6, 17
_COLOURED = ("sequential", "diverging", "confidence", "share", "classes")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers, a row a tile: of a table in a file, or of what is shown under the cursor.

    Parameters
    ----------
    name : str
        May hold "{class_name}".
    decimals, significant : int or None
        How many digits are written: behind the point, or in all; 6 in all by default.
    times : float
        What values are multiplied by: 100 for per cent.
    greatest : bool
        Whether the greatest value over the classes is one column, instead of a column a class.
    order : int
        Columns of a lower number come first; those of the same follow the maps.

    Examples
    --------
    >>> Column("tumour share", decimals=1, times=100).text(0.1234)
    '12.3'
    >>> Column("weight", significant=3).rounded(np.array([0.000012345])).tolist()
    [1.23e-05]
    """

    name: str
    decimals: int | None = None
    significant: int | None = None
    times: float = 1.0
    greatest: bool = False
    order: int = 0

    def __post_init__(self) -> None:
        if any(not 0 <= digits <= _MOST_DIGITS for digits in (self.decimals or 0, self.significant or 0)):
            raise ValueError(f"numbers have up to {_MOST_DIGITS} digits")

    def text(self, value: float) -> str:
        """Write one value."""
        digits = f".{self.significant or _DIGITS}g" if self.decimals is None else f".{self.decimals}f"
        return format(self.times * value, digits)

    def rounded(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values with so many digits, (N,) float64: shares of one tile in thousands are small."""
        values = self.times * values.astype(np.float64)
        if self.decimals is not None:
            return np.round(values, self.decimals)
        with np.errstate(divide="ignore"):
            power = (self.significant or _DIGITS) - 1 - np.floor(np.log10(np.abs(values)))
        factor = 10.0 ** np.where(np.isfinite(power), power, 0)
        return np.asarray(np.round(values * factor) / factor, np.float64)


@dataclass(frozen=True, slots=True)
class TileWords:
    """How the value of one tile is worded.

    Parameters
    ----------
    each : str
        Of one class, with "{value}", "{percent}" (100 times the value), "{class_name}" or "{category}".
    before, after : str
        Around the values of all classes in the long form.
    short : str
        What stands in the one line under the cursor: "all" classes, the "predicted" one, or the "greatest".
    line : str
        Of one class in that line, where it differs.
    """

    each: str
    before: str = ""
    after: str = ""
    short: Literal["all", "predicted", "greatest"] = "all"
    line: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """That a map puts the tiles in order, and how this is worded.

    Parameters
    ----------
    noun, adjective : str
        "attention" and "attended": the most attended tiles have the highest attention.
    framed : bool
        Whether frames around the first tiles are shown without being asked for. Frames around large tiles
        would hide what lies below them: they are thin, and shown on request.
    """

    noun: str
    adjective: str
    framed: bool = True


@dataclass(frozen=True, slots=True)
class Outlined:
    """That the first tiles by a map are outlined in regions.geojson, and how.

    Parameters
    ----------
    group, measure : str
        Name of the group of tiles, and of the value; both may hold "{class_name}".
    colour : tuple of int
        (red, green, blue), 0 to 255.
    above : float
        Only tiles with greater values are outlined.
    """

    group: str
    measure: str
    colour: tuple[int, int, int]
    above: float = -np.inf


@dataclass(frozen=True, slots=True)
class OverlayInfo:
    """Description of an overlay, or of one scale of it.

    Parameters
    ----------
    kind : str
        Tells overlays apart; maps of one kind are one overlay, with a choice of class or scale.
    title : str
        Of its checkbox; empty where it has none.
    layer_name : str
        Of its layer in napari, with "{class_name}", "{count}" or "{detail}"; empty where it is only exported.
    meaning : str
        What it shows and does not show, in one sentence; may hold "{class_name}".
    unit : str
        What a value is, for a person: "attention weight", "percentile", "logit".
    scale : str
        "raw", "percentile", or another one that the user can choose within the kind.
    colours : str
        "sequential" (clear where low), "diverging" (clear at 0), "confidence", "share" (clear at 0, seen
        from little on), "classes" (see ``categories``), one colour "#rrggbb" for what is so or is not, or
        empty for what has no colours.
    limits : tuple of float or str
    categories : tuple of str
        Names of whole numbers from 0; empty of measured values.
    palette : tuple of str
        Colours of the categories, "#rrggbb" each; empty where they are classes, which have those of scores.
    visible : bool
        Whether it is shown before it is asked for.
    on_request : bool
        Whether its layer is made only when the user asks for it.
    from_um : float
        µm per screen pixel from which on it is shown, unless the user asks for it: of what would hide cells
        that are drawn themselves when zoomed in. 0 for always.
    order : int
        Its place in the list of checkboxes, from the top.
    depth : int
        Overlays of greater depth are drawn over those of less: outlines 0, maps 10, damage and what is
        computed on request 30, frames 40, values 50.
    hover, exported : Column or None
        In napari's status bar, and in tiles.csv.
    words : TileWords or None
    outlined : Outlined or None
    ranking : Ranking or None
        Of a map of percentile ranks that puts the tiles in order, the highest first.
    """

    kind: str
    title: str = ""
    layer_name: str = ""
    meaning: str = ""
    unit: str = ""
    scale: str = RAW
    colours: str = "sequential"
    limits: Limits = "percentile"
    categories: tuple[str, ...] = ()
    palette: tuple[str, ...] = ()
    visible: bool = False
    on_request: bool = False
    from_um: float = 0.0
    order: int = 50
    depth: int = 10
    hover: Column | None = None
    exported: Column | None = None
    words: TileWords | None = None
    outlined: Outlined | None = None
    ranking: Ranking | None = None

    @property
    def is_map(self) -> bool:
        """Whether it is a map of values, which all share the opacity that the user chooses."""
        return self.colours in _COLOURED

    @property
    def listed(self) -> bool:
        """Whether it has a checkbox in the list of overlays."""
        return bool(self.title and self.colours)

    @property
    def of_classes(self) -> bool:
        """Whether its categories are classes, so that they would give an answer away."""
        return bool(self.categories) and not self.palette

    @property
    def colour_bar(self) -> bool:
        """Whether a bar of numbers tells its colours; categories have a legend instead."""
        return self.is_map and not self.categories

    def of_categories(self, names: Sequence[str]) -> OverlayInfo:
        """Return the description of a map of whole numbers that stand for names."""
        # Numbers lie in the middle of their steps, where rounding on the graphics card cannot reach.
        limits = (-0.5, len(names) - 0.5)
        return replace(self, colours="classes", categories=tuple(names), limits=limits)

    def means(self, class_name: str | None = None) -> str:
        """Return what it means, of a class where there is one."""
        return self.meaning.format(class_name=CHOSEN_CLASS if class_name is None else class_name)


class Drawing(Protocol):
    """What a layer is made from: a geometry, and its description.

    Geometries are a map on the tile grid, those of `napari_her2.explain.geometries`, and `OwnDrawing`.
    """

    @property
    def info(self) -> OverlayInfo:
        """How it is described."""

    @property
    def class_name(self) -> str | None:
        """The class that it is about, where there is one."""


class OwnDrawing(Drawing, Protocol):
    """A geometry that a method brings, such as cells with their borders."""

    def layer_data(self, mpp: tuple[float, float]) -> tuple[Any, dict[str, Any], str]:
        """Return what napari makes a layer of: data, options and type, in µm on the slide.

        Parameters
        ----------
        mpp : tuple of float
            (y, x) µm per level-0 pixel.
        """


@runtime_checkable
class LastingDrawing(Protocol):
    """A geometry of a method's own whose layer can be changed in place."""

    def refreshed(self, layer: Any, mpp: tuple[float, float]) -> None:  # noqa: ANN401 - a napari layer
        """Show this drawing in a layer that was made of another one of its kind.

        Parameters
        ----------
        layer : Layer
            Made of what `OwnDrawing.layer_data` returned.
        mpp : tuple of float
            (y, x) µm per level-0 pixel.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """One entry of the list of overlays: the drawings that the user chooses among, by class or by scale.

    Parameters
    ----------
    drawings : tuple of Drawing
        Of one kind, at least one; the first is shown unless another is chosen.
    """

    drawings: tuple[Drawing, ...]

    @property
    def info(self) -> OverlayInfo:
        """Description of the first drawing."""
        return self.drawings[0].info

    @property
    def kind(self) -> str:
        """What tells it apart from others."""
        return self.info.kind

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes to choose from; empty where it has none."""
        named = [drawing.class_name for drawing in self.drawings]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def scales(self) -> dict[str, OverlayInfo]:
        """Scales to choose from, and their descriptions."""
        found: dict[str, OverlayInfo] = {}
        for drawing in self.drawings:
            found.setdefault(drawing.info.scale, drawing.info)
        return found

    def chosen(self, class_name: str | None = None, scale: str | None = None) -> Drawing:
        """Return the drawing of a class and a scale, or the first one that is nearest to it."""
        return max(
            self.drawings,
            key=lambda drawing: (drawing.class_name == class_name, drawing.info.scale == scale),
        )


def grouped(drawings: Iterable[Drawing]) -> tuple[Overlay, ...]:
    """List drawings as overlays, one for each kind, in the order of their checkboxes.

    Parameters
    ----------
    drawings : iterable of Drawing
        What has no name for a layer is only exported, and left out.
    """
    kinds: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        if drawing.info.layer_name:
            kinds.setdefault(drawing.info.kind, []).append(drawing)
    return tuple(sorted((Overlay(tuple(of)) for of in kinds.values()), key=lambda of: of.info.order))
