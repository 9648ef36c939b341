"""What tiffslide and tifffile know of a slide's header, and ours where they fail on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tifffile import RESUNIT
from tiffslide.tiffslide import _PropertyParser

from napari_her2.slide.facts import TIFF_RESOLUTION, as_float, image_facts
from napari_her2.slide.header_scale import aperio_fields, tag_scale

if TYPE_CHECKING:
    import warnings
    from collections.abc import Iterable

    from tifffile import TiffFile
    from tiffslide import TiffSlide

    from napari_her2.slide.facts import Stated
    from napari_her2.slide.ome import OmeImage

_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 270, 282, 283, 296
_APERIO = "Aperio "
_SAME = 1e-6
_IN_WORDS = {
    "hamamatsu": "tiffslide reads only a part of Hamamatsu headers: label and overview may be missing.",
    "ventana": "",  # whoever insists on tiffslide was told already
}


def read_properties(slide: TiffSlide) -> tuple[dict[str, Any], str]:
    """Properties as tiffslide has them; those of a plain TIFF where it fails on the maker's header.

    Parameters
    ----------
    slide : TiffSlide

    Returns
    -------
    properties : dict
    failure : str
        Why they are those of a plain TIFF; empty where they are not.
    """
    for series in slide.ts_tifffile.series:
        _forget_useless_resolution(series.pages[0])
    try:
        return slide.properties, ""
    except Exception as error:  # noqa: BLE001 - whatever a header holds
        parser = _PropertyParser
        known = parser.new_metadata()
        # Images that tiffslide takes for none of its kinds (focal planes, planes of colour) are read by us.
        problem = "" if isinstance(error, NotImplementedError) else str(error) or type(error).__name__
        return known, problem


def _forget_useless_resolution(page: Any) -> None:  # noqa: ANN401 - tifffile
    """Drop resolution tags that tiffslide fails on: no known unit, a zero below the line."""
    tags = getattr(page, "tags", None)
    if tags is None or _UNIT not in tags:
        return
    sides = [tags.valueof(code) for code in (_X_RESOLUTION, _Y_RESOLUTION)]
    whole = all(isinstance(side, tuple) and len(side) == 2 and side[1] for side in sides)
    if not whole or not isinstance(tags.valueof(_UNIT), RESUNIT):
        del tags[_UNIT]


def header_facts(
    tiff: TiffFile,
    page: Any,  # noqa: ANN401 - tifffile
    properties: dict[str, Any],
    ome: OmeImage | None,
) -> tuple[str | None, object, list[Stated]]:
    """Vendor, objective and scale as the header states them.

    Parameters
    ----------
    tiff : TiffFile
    page : TiffPage
        The slide at its full resolution.
    properties : dict
        As `read_properties` gives them.
    ome : OmeImage or None
        What the OME-XML says about the slide.

    Returns
    -------
    vendor : str or None
    objective : object
    stated : list of (str, object, object)
        Each place that states a scale, and its (y, x) fields; what is used first, and at least one.
    """
    vendor, objective = properties.get("tiffslide.vendor"), properties.get("tiffslide.objective-power")
    tags = _page_scale(page)
    found: list[Stated] = [(TIFF_RESOLUTION, *tags)]
    description = next((text for text in (_text(page), _text(tiff.pages[0])) if text.startswith(_APERIO)), "")
    fields = aperio_fields(description)
    stated = properties.get("tiffslide.mpp-y"), properties.get("tiffslide.mpp-x")
    if fields.get("MPP"):
        found.insert(0, ("Aperio header", fields["MPP"], fields["MPP"]))
    elif vendor and not description and None not in stated and not _same(stated, tags):
        found.insert(0, (f"{str(vendor).capitalize()} header", *stated))
    if ome is not None:
        y, x, power = image_facts(ome.root, ome.element)
        objective = power or objective
        if y is not None or x is not None:
            found.insert(0, ("OME-XML", y, x))
    if description:
        vendor, objective = "aperio", fields.get("AppMag")
    return vendor, objective, found


def _page_scale(page: Any) -> tuple[float | None, float | None]:  # noqa: ANN401 - tifffile
    unit, y, x = (page.tags.valueof(code) for code in (_UNIT, _Y_RESOLUTION, _X_RESOLUTION))
    return tag_scale(unit, y, x, _text(page))


def _text(page: Any) -> str:  # noqa: ANN401 - tifffile
    """Return the description of a page; some writers leave it as bytes of an encoding that nobody names."""
    value = page.tags.valueof(_DESCRIPTION, default="")
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _same(one: tuple[object, object], other: tuple[object, object]) -> bool:
    pairs = [(as_float(a), as_float(b)) for a, b in zip(one, other, strict=True)]
    return all(a is not None and b is not None and abs(a / b - 1) < _SAME for a, b in pairs)


def in_words(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Sentences for a user, from what tiffslide warned of.

    Parameters
    ----------
    caught : iterable of WarningMessage
    """
    sentences = []
    for entry in caught:
        if entry.category is not UserWarning:
            continue
        text = str(entry.message)
        known = next((words for name, words in _IN_WORDS.items() if name in text), None)
        sentences.append(f"tiffslide warns: {text.rstrip('.!')}." if known is None else known)
    return [sentence for sentence in sentences if sentence]
