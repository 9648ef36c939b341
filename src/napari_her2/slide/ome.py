"""Which Image of an OME-XML a page of a TIFF belongs to; files of one set share the XML of all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_PLANES = 100_000
_FLUORESCENT = ("Fluor", "EmissionWavelength", "ExcitationWavelength")
_DYES = re.compile(
    r"\b(dapi|hoechst|fitc|tritc|gfp|rfp|yfp|alexa|cy[2357]|texas ?red|opal ?\d*)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class OmeImage:
    """An Image of the XML, as far as it lies in this file.

    Parameters
    ----------
    name : str
    root, element : Element
        The whole XML, and the Image.
    planes : dict
        (channel, z, t) to the number of the page.
    channels : int
        Those that are pages of their own.
    fluorescence : bool
        The XML says so.
    """

    name: str
    root: ElementTree.Element
    element: ElementTree.Element
    planes: dict[tuple[int, int, int], int]
    channels: int
    fluorescence: bool


def own_images(xml: str | None, file_name: str) -> tuple[OmeImage, ...]:
    """Images that lie in this file; those of other files of the set are left out.

    Parameters
    ----------
    xml : str or None
    file_name : str
        As it is called now; files that were renamed are known by their UUID.
    """
    try:
        root = ElementTree.fromstring(xml or "")
    except (ElementTree.ParseError, ValueError):
        return ()
    own = _names_of_this_file(root, file_name)
    found = (_image(root, element, own) for element in root.iterfind("{*}Image"))
    return tuple(image for image in found if image is not None)


def image_of_page(images: tuple[OmeImage, ...], number: int, shape: tuple[int, int]) -> OmeImage | None:
    """Find the Image of a page; where the XML does not list pages, the one of its size.

    Parameters
    ----------
    images : tuple of OmeImage
    number : int
        Of the page in the file.
    shape : tuple of int
        (height, width), pixels.
    """
    listed = [image for image in images if number in image.planes.values()]
    size = str(shape[0]), str(shape[1])
    fitting = [image for image in images if image in listed or not image.planes]
    for image in (*listed, *fitting):
        pixels = image.element.find("{*}Pixels")
        if pixels is not None and (pixels.get("SizeY"), pixels.get("SizeX")) == size:
            return image
    return None


def _names_of_this_file(root: ElementTree.Element, file_name: str) -> set[tuple[str, str]]:
    """Names (UUID, FileName) in the XML that mean this file.

    Its UUID is surest, for files are renamed; programs that save a file anew change its UUID, and then its
    name tells; where the XML knows one file alone, it is this one.
    """
    stated = {_file(entry) for entry in root.iterfind("{*}Image/{*}Pixels/{*}TiffData/{*}UUID")}
    uuid = root.get("UUID", "").strip().lower()
    by_uuid = {names for names in stated if uuid and names[0] == uuid}
    by_name = {names for names in stated if names[1] == file_name}
    return by_uuid or by_name or (stated if len(stated) == 1 else set())


def _file(entry: ElementTree.Element) -> tuple[str, str]:
    return (entry.text or "").strip().lower(), entry.get("FileName", "")


def _image(
    root: ElementTree.Element, element: ElementTree.Element, own: set[tuple[str, str]]
) -> OmeImage | None:
    pixels = element.find("{*}Pixels")
    if pixels is None:
        return None
    sizes = {axis: max(1, _whole(pixels.get(f"Size{axis}"), 1)) for axis in "CZT"}
    channels = pixels.findall("{*}Channel")
    samples = max([_whole(channel.get("SamplesPerPixel"), 1) for channel in channels], default=1)
    sizes["C"] = max(1, sizes["C"] // max(1, samples))
    data = pixels.findall("{*}TiffData")
    planes: dict[tuple[int, int, int], int] = {}
    for entry in data:
        named = entry.find("{*}UUID")
        if named is None or _file(named) in own:
            planes.update(_planes(entry, pixels.get("DimensionOrder", "XYCZT")[2:5], sizes))
    if data and not planes:
        return None
    fluorescence = any(_is_fluorescent(channel) for channel in channels)
    return OmeImage(element.get("Name", ""), root, element, planes, sizes["C"], fluorescence)


def _planes(
    entry: ElementTree.Element, order: str, sizes: dict[str, int]
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Places (channel, z, t) that one TiffData lists, and their pages."""
    if sorted(order) != ["C", "T", "Z"]:
        return
    total = sizes["C"] * sizes["Z"] * sizes["T"]
    first = _whole(entry.get("IFD"), 0)
    count = min(_whole(entry.get("PlaneCount"), 1 if "IFD" in entry.attrib else total), total, _MAX_PLANES)
    start, step = 0, 1
    for axis in order:
        start += _whole(entry.get(f"First{axis}"), 0) * step
        step *= sizes[axis]
    for number in range(count):
        rest, place = start + number, {}
        for axis in order:
            rest, place[axis] = divmod(rest, sizes[axis])
        yield (place["C"], place["Z"], place["T"]), first + number


def _is_fluorescent(channel: ElementTree.Element) -> bool:
    stated = (
        any(channel.get(name) for name in _FLUORESCENT) or channel.get("ContrastMethod") == "Fluorescence"
    )
    return stated or _DYES.search(channel.get("Name", "")) is not None


def _whole(text: str | None, otherwise: int) -> int:
    """Return the number in an attribute, bounded; the other one where there is none."""
    return (
        int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 9 else otherwise
    )
