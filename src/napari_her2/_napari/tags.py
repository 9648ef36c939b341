"""What our layers carry in ``metadata["napari_her2"]``: napari has no groups, so tags tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_her2.slide.reader import Slide

METADATA_KEY = "napari_her2"

OverlayRole = Literal[
    "score",
    "confidence",
    "attention",
    "evidence",
    "Grad-CAM",  # computed on request, for a part of the slide
    "class Grad-CAM",  # belongs to a result: of a class, over the whole slide
    "seen",
    "tissue",
    "corrupt",
    "top tiles",
    "tiles",
]


class _Shared:
    """Copies are the object itself: duplicating a layer must not copy an open slide."""

    __slots__ = ()

    def __copy__(self) -> Any:  # noqa: ANN401 - the type of the subclass
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:  # noqa: ANN401 - the type of the subclass
        return self


@dataclass(frozen=True, slots=True, eq=False)
class SlideTag(_Shared):
    """On the image layer of a slide; keeps the slide open for as long as the layer lives.

    Parameters
    ----------
    slide : Slide
    slide_id : str
        `Slide.slide_id`: the same file opened twice has one result.
    """

    slide: Slide
    slide_id: str


@dataclass(frozen=True, slots=True)
class OverlayTag(_Shared):
    """On every layer that shows a result.

    Parameters
    ----------
    role : str
        What the layer shows.
    slide_id : str
        The slide it belongs to.
    """

    role: OverlayRole
    slide_id: str


@dataclass(frozen=True, slots=True)
class RegionTag(_Shared):
    """On a shapes layer in which the user draws regions of one slide."""

    slide_id: str


@dataclass(frozen=True, slots=True)
class MarkTag(_Shared):
    """On a points layer that marks places of one slide, to align it by."""

    slide_id: str


@dataclass(frozen=True, slots=True)
class RepresentationTag(_Shared):
    """On the layer that shows what a model makes of the H&E of one slide on its way to a score."""

    slide_id: str


Tag = SlideTag | OverlayTag | RegionTag | MarkTag | RepresentationTag


def tag_of(layer: Layer) -> Tag | None:
    """Return the tag of one of our layers, None for any other layer."""
    tag = layer.metadata.get(METADATA_KEY)
    return tag if isinstance(tag, Tag) else None


def slide_tag(layer: Layer) -> SlideTag | None:
    """Return the tag of a slide layer, None for any other layer."""
    tag = tag_of(layer)
    return tag if isinstance(tag, SlideTag) else None
