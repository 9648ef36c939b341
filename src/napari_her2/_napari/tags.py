"""What our layers carry in ``metadata["napari_her2"]``: napari has no groups, so tags tell them apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_her2.explain.overlays import OverlayInfo
    from napari_her2.slide.reader import Slide

METADATA_KEY = "napari_her2"


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
    kind : str
        What tells it apart from the other overlays of its slide.
    slide_id : str
        The slide it belongs to.
    info : OverlayInfo
        How it is described.
    """

    kind: str
    slide_id: str
    info: OverlayInfo = field(compare=False)


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


class BlindedTag(_Shared):
    """On the image layer of a slide that its reader must not know, in place of a `SlideTag`.

    It is none of the tags that `tag_of` knows: no dock and no overlay finds a slide there.

    Parameters
    ----------
    slide : Slide
    slide_id : str
    """

    __slots__ = ("slide", "slide_id")

    def __init__(self, slide: Slide) -> None:
        self.slide, self.slide_id = slide, slide.slide_id

    def __repr__(self) -> str:
        return "<a slide that is blinded>"  # what the console shows of the layer's metadata


Tag = SlideTag | OverlayTag | RegionTag | MarkTag | RepresentationTag


def tag_of(layer: Layer) -> Tag | None:
    """Return the tag of one of our layers, None for any other layer."""
    tag = layer.metadata.get(METADATA_KEY)
    return tag if isinstance(tag, Tag) else None


def shows(layer: Layer, kind: str, slide_id: str) -> bool:
    """Whether a layer is the overlay of a kind over a slide."""
    tag = tag_of(layer)
    return isinstance(tag, OverlayTag) and (tag.kind, tag.slide_id) == (kind, slide_id)


def slide_tag(layer: Layer) -> SlideTag | None:
    """Return the tag of a slide layer, None for any other layer."""
    tag = tag_of(layer)
    return tag if isinstance(tag, SlideTag) else None


def blinded_tag(layer: Layer) -> BlindedTag | None:
    """Return the tag of a slide that is blinded, None for any other layer."""
    tag = layer.metadata.get(METADATA_KEY)
    return tag if isinstance(tag, BlindedTag) else None
