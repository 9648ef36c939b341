"""What a drawn region is: tumour to be read, or something inside it that is left out."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import shapely

from napari_her2.errors import JobFailed
from napari_her2.outside import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class RegionKind:
    """A kind of region.

    Parameters
    ----------
    name : str
        Key of `KINDS`.
    title : str
        As a person reads it, also within a sentence.
    included : bool
        Whether what lies inside is read; else it is left out of everything.
    qupath_class : str
        Class that a region of this kind has in a file for QuPath.
    colour : tuple of int
        (red, green, blue), 0 to 255.
    synonyms : tuple of str
        Further class names, in small letters, that mean this kind in files of others.
    """

    name: str
    title: str
    included: bool
    qupath_class: str
    colour: tuple[int, int, int]
    synonyms: tuple[str, ...] = ()


_OF_OTHERS = ("ignore", "other", "excluded", "exclude", "stroma", "immune cells", "normal", "benign")
_ALL = (
    RegionKind("tumour", "tumour", True, "Tumor", (200, 0, 0), ("tumour",)),
    RegionKind(
        "dcis", "DCIS", False, "DCIS", (150, 80, 200), ("in situ", "carcinoma in situ", "cis", "lcis")
    ),
    RegionKind("necrosis", "necrosis", False, "Necrosis", (50, 50, 50), ("necrotic",)),
    RegionKind(
        "control", "control tissue", False, "Control", (0, 140, 190), ("control tissue", "on-slide control")
    ),
    RegionKind(
        "fold", "fold", False, "Fold", (230, 150, 0), ("folds", "tissue fold", "artefact", "artifact")
    ),
    RegionKind("other", "other", False, "Ignore*", (180, 180, 180), _OF_OTHERS),
)
KINDS: Mapping[str, RegionKind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""All kinds by name, tumour first."""
_BY_CLASS = {name: kind.name for kind in _ALL for name in (kind.qupath_class.lower(), *kind.synonyms)}


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A region that a person drew.

    Parameters
    ----------
    polygon : shapely Polygon or MultiPolygon
        (x, y) in level-0 pixels; may cross itself, as lines drawn by hand do.
    name : str
        Empty where none was given.
    kind : str
        A key of `KINDS`.
    class_name : str
        Class that it has in the file that it is from; empty for that of its kind.
    colour : tuple of int or None
        (red, green, blue), 0 to 255, in that file; None for that of its kind.
    locked : bool
        Whether it is locked in QuPath.

    Raises
    ------
    JobFailed
        If there is no such kind.
    """

    polygon: Any
    name: str = ""
    kind: str = "tumour"
    class_name: str = ""
    colour: tuple[int, int, int] | None = None
    locked: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise JobFailed(
                f"{shown(str(self.kind), 40)!r} is no kind of region: choose one of {', '.join(KINDS)}."
            )

    @property
    def included(self) -> bool:
        """Whether what lies inside is read."""
        return KINDS[self.kind].included

    @property
    def area(self) -> Any:  # noqa: ANN401 - a shapely geometry
        """What it encloses, as a valid Polygon or MultiPolygon; empty where it encloses nothing."""
        return valid_area(self.polygon)


def kind_of_class(name: str) -> str:
    """Return the kind that the class of an annotation means.

    Parameters
    ----------
    name : str
        As in QuPath, "Tumor: Positive" or "Ignore*"; the base class, before the colon, decides.

    Returns
    -------
    str
        A key of `KINDS`; "tumour" for a class that is not known, or empty.

    Examples
    --------
    >>> kind_of_class("Necrosis"), kind_of_class("Control: 3+"), kind_of_class("Region*")
    ('necrosis', 'control', 'tumour')
    """
    return _known_kind(name) or "tumour"


def name_by_class(name: str) -> str:
    """Return the name of a region that has none of its own: what its class says beyond its kind.

    Examples
    --------
    >>> name_by_class("Control: 3+"), name_by_class("Tumor"), name_by_class("Lobular carcinoma")
    ('3+', '', 'Lobular carcinoma')
    """
    return name.partition(":")[2].strip() if _known_kind(name) else name


def _known_kind(name: str) -> str:
    base = " ".join(name.split(":")[0].lower().replace("_", " ").split())
    return "other" if base.startswith("ignore") else _BY_CLASS.get(base, "")


def valid_area(polygon: Any) -> Any:  # noqa: ANN401 - shapely geometries
    """Return what an outline encloses, without the lines that are left where it touches itself."""
    if polygon.is_valid and polygon.geom_type in ("Polygon", "MultiPolygon"):
        return polygon
    valid = shapely.make_valid(polygon)
    parts = [part for part in shapely.get_parts(valid) if part.geom_type in ("Polygon", "MultiPolygon")]
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def region_names(regions: Sequence[Region]) -> tuple[str, ...]:
    """Names of the tumour regions, in order; those without a name are called by their number.

    Parameters
    ----------
    regions : sequence of Region
    """
    drawn = [region for region in regions if region.included]
    return tuple(region.name or f"tumour {number}" for number, region in enumerate(drawn, start=1))


def excluded_words(regions: Sequence[Region]) -> str:
    """Say which regions are left out: "2 excluded regions (DCIS, necrosis)"; empty where there are none."""
    left_out = [region.kind for region in regions if not region.included]
    if not left_out:
        return ""
    titles = ", ".join(kind.title for kind in KINDS.values() if kind.name in left_out)
    return f"{len(left_out)} excluded region{'s' if len(left_out) != 1 else ''} ({titles})"
