"""What tiffslide and tifffile know of a slide's header, and ours where they fail on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tifffile import RESUNIT
from tiffslide.tiffslide import _PropertyParser

from napari_her2.slide.facts import TIFF_RESOLUTION, as_float, ome_facts
from napari_her2.slide.header_scale import aperio_fields, tag_scale

if TYPE_CHECKING:
    import warnings
    from collections.abc import Iterable

    from tiffslide import TiffSlide

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
        properties = parser.new_metadata() | {"tiffslide.series-index": 0}
        properties |= parser.collect_level_info(slide.ts_tifffile.series[0])
        slide.__dict__["properties"] = properties  # where tiffslide keeps what it has parsed
        return properties, str(error) or type(error).__name__


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
    slide: TiffSlide, properties: dict[str, Any], shape: tuple[int, int]
) -> tuple[str | None, object, tuple[object, object], str]:
    """Vendor, objective and scale as the header states them.

    Parameters
    ----------
    slide : TiffSlide
    properties : dict
        As `read_properties` gives them.
    shape : tuple of int
        (height, width) of level 0, pixels.

    Returns
    -------
    vendor : str or None
    objective : object
    mpp : tuple of object
        (y, x), None where not stated.
    source : str
        Where the scale comes from.
    """
    page = slide.ts_tifffile.series[properties["tiffslide.series-index"]].pages[0]
    vendor, objective = properties.get("tiffslide.vendor"), properties.get("tiffslide.objective-power")
    mpp: tuple[object, object] = _page_scale(page)
    source = TIFF_RESOLUTION
    description = _text(slide.ts_tifffile.pages[0])
    fields = aperio_fields(description) if description.startswith(_APERIO) else {}
    stated = properties.get("tiffslide.mpp-y"), properties.get("tiffslide.mpp-x")
    if fields.get("MPP"):
        mpp, source = (fields["MPP"], fields["MPP"]), "Aperio header"
    elif not fields and None not in stated and not _same(stated, mpp):
        mpp, source = stated, f"{str(vendor).capitalize()} header"
    xml = slide.ts_tifffile.ome_metadata
    ome = ome_facts(xml, shape) if xml else None
    if ome and (ome[0] is not None or ome[1] is not None):
        mpp, source = (ome[0], ome[1]), "OME-XML"
    if fields:
        vendor, objective = "aperio", fields.get("AppMag")
    return vendor, ome[2] if ome and ome[2] else objective, mpp, source


def _page_scale(page: Any) -> tuple[float | None, float | None]:  # noqa: ANN401 - tifffile
    tags = page.tags
    values = (tags.valueof(code) for code in (_UNIT, _Y_RESOLUTION, _X_RESOLUTION))
    return tag_scale(*values, _text(page))


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
