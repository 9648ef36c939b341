"""Which images of a TIFF are the levels of the slide, and which stand beside it, by what they are.

The slide is the largest tiled image wherever it stands; its levels are smaller images of the same shape and
kind; the rest are label, macro, thumbnail and the like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_her2.errors import SlideError
from napari_her2.slide.files import NotBrightfield
from napari_her2.slide.ome import OmeImage, image_of_page, own_images
from napari_her2.slide.tiff_colour import MIN_IS_BLACK, MIN_IS_WHITE, RGB, YCBCR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tifffile import TiffFile

_REDUCED, _MASK, _MACRO = 1, 4, 9  # values of the tag NewSubfileType; 9 is Aperio's own
_TILED_COUNTS = 16
_PAGE_NAME = 285
_NAMED = re.compile(r"\b(label|macro|thumbnail|overview)\b", re.IGNORECASE)
_DESCRIPTION_CHARACTERS = 300
_SERIES_KINDS = ("ndpi", "philips", "scn", "bif", "qpi", "sis")
"""Makers whose pages tifffile puts together from what it knows about them."""


@dataclass(frozen=True, slots=True)
class TiffImage:
    """One image of the file.

    Parameters
    ----------
    pages : tuple of TiffPage
        One, or one for each channel.
    shape : tuple of int
        (height, width), pixels.
    """

    pages: tuple[Any, ...]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class TiffContents:
    """The images of a file.

    Parameters
    ----------
    levels : tuple of TiffImage
        Of the slide, the finest first.
    associated : dict of str to TiffImage
        Further images by name.
    ome : OmeImage or None
        What the OME-XML says about the slide.
    notes : tuple of str
        What a user should know, a sentence each.
    """

    levels: tuple[TiffImage, ...]
    associated: dict[str, TiffImage]
    ome: OmeImage | None = None
    notes: tuple[str, ...] = ()


def find_images(
    tiff: TiffFile, name: str, shows_same: Callable[[TiffImage, TiffImage], bool]
) -> TiffContents:
    """Sort the images of a TIFF.

    Parameters
    ----------
    tiff : TiffFile
    name : str
        Of the file.
    shows_same : callable
        Says whether an image shows what a finer one shows, by their pixels: it decides where images of an
        OME-TIFF of their own may be levels.

    Raises
    ------
    SlideError
        It holds no image, or one that is no slide.
    """
    if any(getattr(tiff, f"is_{kind}") for kind in _SERIES_KINDS):
        return _from_series(tiff, name)
    pages = [page.aspage() for page in tiff.pages]
    pages = [page for page in pages if _size(page) and not page.subfiletype & _MASK]
    if not pages:
        raise SlideError(f"{name} holds no image: it is damaged or no slide; copy it again from its source.")
    images = own_images(tiff.ome_metadata, name) if tiff.is_ome else ()
    base = _largest(pages)
    ome = image_of_page(images, base.index, _shape(base))
    same = [page for page in pages if _shape(page) == _shape(base) and _alike(page, base)]
    channels, notes = _channels(tiff, base, same, ome, name)
    if tiff.is_ome and not base.subifds:
        levels = _confirmed(channels, _of_other_images(channels, pages, images, ome), shows_same)
    else:
        levels = _levels(channels, [] if tiff.is_ome else pages)
    used = {page.offset for image in levels for page in image.pages} | {page.offset for page in same}
    rest = [page for page in pages if page.offset not in used]
    if tiff.is_ome:  # reduced images of other Images, and their further planes
        rest = [page for page in rest if _first_of_image(images, page)]
    named = ((_name(page, base, images), TiffImage((page,), _shape(page))) for page in rest)
    return TiffContents(levels, _unique(named), ome, notes)


def _from_series(tiff: TiffFile, name: str) -> TiffContents:
    """Levels as tifffile finds them: the largest tiled series is the slide."""
    known = [series for series in tiff.series if series.keyframe is not None and _size(series.keyframe)]
    if not known:
        raise SlideError(f"{name} holds no image: it is damaged or no slide; copy it again from its source.")
    base = _largest([series.keyframe for series in known])
    slide = next(series for series in known if series.keyframe is base)
    pages = [page for page in slide.pages if page is not None]
    samples = int(slide.keyframe.samplesperpixel)
    count = slide.sizes.get("channel", 1) if samples == 1 else 1
    if count > 1 and count != len(pages):
        raise NotBrightfield(
            f"{name} holds {len(pages)} planes, which is no brightfield slide: open another."
        )
    notes = _several(len(pages), _shape(slide.keyframe)) if len(pages) > count else ()
    levels = []
    for level in slide.levels:
        if len(level.pages) < count or any(page is None for page in level.pages[:count]):
            break
        axes = level.axes
        shape = int(level.shape[axes.index("Y")]), int(level.shape[axes.index("X")])
        levels.append(TiffImage(tuple(page.aspage() for page in level.pages[:count]), shape))
    named = (
        (series.name.lower() or "image", TiffImage((series.keyframe,), _shape(series.keyframe)))
        for series in known
        if series is not slide
    )
    return TiffContents(tuple(levels), _unique(named), None, notes)


def _largest(pages: Sequence[Any]) -> Any:  # noqa: ANN401 - tifffile
    """Return the slide's own page: the largest, where a tiled one counts for many without tiles.

    An overview in strips may be larger than a tiled region of a slide; a label in tiles never comes near a
    slide in strips.
    """
    return max(pages, key=lambda page: _size(page) * (_TILED_COUNTS if page.is_tiled else 1))


def _channels(
    tiff: TiffFile,
    base: Any,  # noqa: ANN401 - tifffile
    same: Sequence[Any],
    ome: OmeImage | None,
    name: str,
) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Pages that make up the slide: one, or one for each channel; and what to say of further ones."""
    if base.samplesperpixel > 1 or int(base.photometric) not in (MIN_IS_BLACK, MIN_IS_WHITE):
        return (base,), _several(len(same), _shape(base)) if len(same) > 1 else ()
    if ome is not None and ome.fluorescence:
        raise NotBrightfield(
            f"{name} is a fluorescence image, as its header says, and no brightfield slide: open the H&E or "
            f"IHC slide itself."
        )
    numbers = {page.index: page for page in same}
    if ome is not None and ome.planes:
        wanted = [ome.planes.get((channel, 0, 0)) for channel in range(ome.channels)]
        chosen = tuple(numbers[number] for number in wanted if number in numbers)
        if len(chosen) != ome.channels:
            raise SlideError(
                f"{name} holds only {len(chosen)} of the {ome.channels} channels of its image: open the "
                f"other files of the set in the program that wrote them, and export 8-bit RGB."
            )
    elif tiff.is_imagej:
        stated = (tiff.imagej_metadata or {}).get("channels", 1)
        chosen = tuple(same[: stated if isinstance(stated, int) and stated > 0 else 1])
    else:
        chosen = tuple(same)
    return chosen, _several(len(same), _shape(base)) if len(same) > len(chosen) else ()


def _several(count: int, shape: tuple[int, int]) -> tuple[str, ...]:
    return (
        f"The file holds {count:,} images of {shape[1]:,} x {shape[0]:,} px, such as focal planes or "
        f"sections: the first is read.",
    )


def _levels(channels: tuple[Any, ...], pages: Sequence[Any]) -> tuple[TiffImage, ...]:
    """Return the finest level and the coarser ones: sub-images of the page, or further pages like it."""
    base = channels[0]
    levels = [TiffImage(channels, _shape(base))]
    if base.subifds:
        below = [tuple(page.pages[number] for page in channels) for number in _shared_subs(channels)]
    else:
        below = [(page,) for page in pages] if len(channels) == 1 else []
    below = [
        images
        for images in below
        if all(_is_level(page, base, hangs=bool(base.subifds)) for page in images)
        and len({_shape(page) for page in images}) == 1
    ]
    for images in sorted(below, key=lambda images: -_size(images[0])):
        if _size(images[0]) < levels[-1].shape[0] * levels[-1].shape[1]:
            levels.append(TiffImage(images, _shape(images[0])))
    return tuple(levels)


def _of_other_images(
    channels: tuple[Any, ...],
    pages: Sequence[Any],
    images: tuple[OmeImage, ...],
    ome: OmeImage | None,
) -> Iterator[tuple[Any, ...]]:
    """Pages of other Images of an OME-TIFF that may be levels: one for each channel, of no other stack."""
    numbers = {page.index: page for page in pages}
    planes = len(ome.planes) if ome is not None and ome.planes else len(channels)
    for page in pages:
        image = image_of_page(images, page.index, _shape(page))
        if image is None or not image.planes:
            group: tuple[Any, ...] = (page,) if len(channels) == 1 else ()
        else:
            wanted = [image.planes.get((channel, 0, 0)) for channel in range(len(channels))]
            group = tuple(numbers[number] for number in wanted if number in numbers)
            if len(image.planes) != planes or wanted[0] != page.index or len(group) != len(channels):
                continue
        if image is not None and (image is ome or _NAMED.search(image.name)):
            continue
        fitting = all(_is_level(page, channels[0], hangs=True) for page in group)
        one_size = len({_shape(each) for each in group}) == 1
        if fitting and one_size and channels[0].is_tiled == page.is_tiled:
            yield group


def _confirmed(
    channels: tuple[Any, ...],
    below: Iterable[tuple[Any, ...]],
    shows_same: Callable[[TiffImage, TiffImage], bool],
) -> tuple[TiffImage, ...]:
    """Return the finest level, and what shows the same in smaller: such files do not say what is a level."""
    levels = [TiffImage(channels, _shape(channels[0]))]
    for pages in sorted(below, key=lambda pages: -_size(pages[0])):
        image = TiffImage(pages, _shape(pages[0]))
        if _size(pages[0]) < levels[-1].shape[0] * levels[-1].shape[1] and shows_same(levels[-1], image):
            levels.append(image)
    return tuple(levels)


def _shared_subs(channels: tuple[Any, ...]) -> range:
    return range(min(len(page.subifds or ()) for page in channels))


def _is_level(page: Any, base: Any, *, hangs: bool) -> bool:  # noqa: ANN401 - tifffile
    """Whether a page is the slide at another size; a rounded pixel on each side is granted."""
    if not _size(page) or _size(page) >= _size(base) or not _alike(page, base):
        return False
    if not hangs and (page.is_tiled != base.is_tiled or _stated_name(page)):
        return False
    if not hangs and not base.is_tiled and not page.subfiletype & _REDUCED:
        return False
    return _same_aspect(_shape(page), _shape(base))


def _same_aspect(shape: tuple[int, int], of: tuple[int, int]) -> bool:
    height, width = shape
    ratio = of[0] / of[1]
    return ratio * (width - 1) - 1 <= height <= ratio * (width + 1) + 1


def _alike(page: Any, base: Any) -> bool:  # noqa: ANN401 - tifffile
    """Whether two pages hold pixels of the same kind."""
    kinds = {int(page.photometric), int(base.photometric)}
    return bool(
        (len(kinds) == 1 or kinds == {RGB, YCBCR})
        and page.samplesperpixel == base.samplesperpixel
        and page.bitspersample == base.bitspersample
        and page.planarconfig == base.planarconfig
    )


def _first_of_image(images: tuple[OmeImage, ...], page: Any) -> bool:  # noqa: ANN401 - tifffile
    image = image_of_page(images, page.index, _shape(page))
    if image is None or not image.planes:
        return not page.subfiletype & _REDUCED
    return bool(page.index == min(image.planes.values()))


def _name(page: Any, base: Any, images: tuple[OmeImage, ...]) -> str:  # noqa: ANN401 - tifffile
    image = image_of_page(images, page.index, _shape(page))
    if image is not None and image.name:
        return image.name.lower()
    named = _stated_name(page)
    if named:
        return named
    aperio = _description(base).startswith("Aperio ")
    if page.subfiletype == _MACRO and aperio:
        return "macro"
    if _same_aspect(_shape(page), _shape(base)) and not page.is_tiled:
        return "thumbnail"
    return "label" if aperio and page.subfiletype == _REDUCED else f"image {page.index + 1}"


def _stated_name(page: Any) -> str:  # noqa: ANN401 - tifffile
    """Name of label, macro and the like where the page says it."""
    text = page.tags.valueof(_PAGE_NAME)
    found = _NAMED.search(text) if isinstance(text, str) else None
    found = found or _NAMED.search(_description(page)[:_DESCRIPTION_CHARACTERS])
    return found[1].lower() if found else ""


def _description(page: Any) -> str:  # noqa: ANN401 - tifffile
    return page.description if isinstance(page.description, str) else ""


def _unique(named: Iterable[tuple[str, TiffImage]]) -> dict[str, TiffImage]:
    images: dict[str, TiffImage] = {}
    for name, image in named:
        free, number = name, 2
        while free in images:
            free, number = f"{name} {number}", number + 1
        images[free] = image
    return images


def _shape(page: Any) -> tuple[int, int]:  # noqa: ANN401 - tifffile
    return int(page.imagelength), int(page.imagewidth)


def _size(page: Any) -> int:  # noqa: ANN401 - tifffile
    """Return the number of pixels."""
    return int(page.imagelength) * int(page.imagewidth)
