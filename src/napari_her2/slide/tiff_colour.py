"""What the samples of a TIFF mean: one place that turns them into RGB on white, for all codecs and layouts.

Photometric interpretation, extra samples, sample format and channels are honoured, or the file is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tifffile import TIFF

from napari_her2.errors import SlideError
from napari_her2.slide.files import NotBrightfield

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Colour = Callable[[NDArray[Any]], NDArray[np.uint8]]

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, SEPARATED, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_GREY = (MIN_IS_WHITE, MIN_IS_BLACK)
_SAMPLES = {RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # values of the tag ExtraSamples; 0 is any other meaning
_BLENDED_ROWS = 256
_COEFFICIENTS, _REFERENCES, _INK_SET = 529, 532, 332
_DEFAULT_COEFFICIENTS = (0.299, 0.587, 0.114)
_DEFAULT_REFERENCES = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


@dataclass(frozen=True, slots=True)
class Meaning:
    """How the samples of an image become RGB.

    Parameters
    ----------
    colour : callable or None
        (h, w, samples) as stored to (h, w, 3) uint8 on white; None where they are RGB already.
    channels : bool
        The colours are three channels that nobody calls red, green and blue.
    """

    colour: Colour | None
    channels: bool = False


def meaning_of(page: Any, planes: int, name: str) -> Meaning:  # noqa: ANN401 - tifffile
    """Find out what the samples of a page mean.

    Parameters
    ----------
    page : TiffPage
    planes : int
        Number of pages of one sample each that belong together; 1 for a page by itself.
    name : str
        Of the file, for messages.

    Raises
    ------
    NotBrightfield
        No library could make a brightfield image of it.
    SlideError
        It is stored in a way that is not understood here.
    """
    photometric = int(page.photometric)
    stored = int(page.samplesperpixel) if planes == 1 else planes
    _refuse_depth(page, photometric, stored, name)
    extra = tuple(int(code) for code in page.extrasamples)
    alpha = next((code for code in extra if code in (_PREMULTIPLIED, _STRAIGHT)), 0)
    if photometric in _GREY:
        colours = stored - (1 if alpha else 0)
        if colours not in (1, 3) or (colours == 3 and photometric == MIN_IS_WHITE):
            raise NotBrightfield(
                f"{name} holds {stored} channels, as fluorescence images do, and no brightfield colours: "
                f"open the H&E or IHC slide itself."
            )
    elif photometric in _SAMPLES:
        colours = _SAMPLES[photometric]
    else:
        raise SlideError(
            f"{name} stores colours in a way that is not understood (photometric interpretation "
            f"{photometric}): export it as 8-bit RGB first."
        )
    if stored < colours or (photometric == PALETTE and stored != 1):
        raise SlideError(
            f"{name} is damaged: it has {stored} samples a pixel for {colours} colours; copy it again."
        )
    if photometric == RGB and stored == 4 and not extra:
        alpha, extra = _STRAIGHT, (_STRAIGHT,)  # as other readers take it where the tag is missing
    convert = _to_rgb(page, photometric, colours, name)
    channels = photometric in _GREY and colours == 3
    if stored == colours:
        return Meaning(convert, channels)
    place = colours + extra.index(alpha) if alpha else None
    if alpha == _PREMULTIPLIED and convert is not None and photometric != MIN_IS_BLACK:
        raise SlideError(
            f"{name} stores colours multiplied with their transparency: export it as 8-bit RGB first."
        )
    return Meaning(_without_extra(convert, colours, place, alpha == _PREMULTIPLIED), channels)


def _refuse_depth(page: Any, photometric: int, stored: int, name: str) -> None:  # noqa: ANN401 - tifffile
    """Refuse samples that are no 8-bit numbers: 12 bits in 16 look black, and floats have no white."""
    bits, kind = page.bitspersample, int(page.sampleformat)
    packed = page.compression not in TIFF.IMAGE_COMPRESSIONS  # those give bytes, whatever the header says
    indexed = packed and stored == 1 and photometric in (*_GREY, PALETTE) and bits in (1, 2, 4)
    signed = kind == 2 and photometric == CIELAB
    if (bits == 8 or indexed) and (kind in (1, 4) or signed):
        return
    raise NotBrightfield(
        f"{name} is not an 8-bit brightfield image ({page.dtype}, {bits} bits): export it as 8-bit RGB first."
    )


def _to_rgb(page: Any, photometric: int, colours: int, name: str) -> Colour | None:  # noqa: ANN401 - tifffile
    """Conversion of the colour samples alone; None for RGB."""
    own = page.compression in TIFF.IMAGE_COMPRESSIONS  # codecs that convert to RGB by themselves
    if photometric == RGB or (photometric == YCBCR and own):
        return None
    if photometric in _GREY:
        return None if colours == 3 else _grey(page.bitspersample, photometric == MIN_IS_WHITE)
    if photometric == PALETTE:
        return _palette(page, name)
    if photometric == YCBCR and not page.is_subsampled and page.subsampling is not None:
        return _ycbcr(_ratios(page, _COEFFICIENTS, _DEFAULT_COEFFICIENTS), _references(page))
    if photometric in (CIELAB, ICCLAB) and not own:
        return _lab(signed=photometric == CIELAB)
    if photometric == SEPARATED and not own and page.tags.valueof(_INK_SET, 1) == 1:
        return _cmyk
    raise SlideError(
        f"{name} stores colours in a way that is not understood ({page.photometric.name} with "
        f"{getattr(page.compression, 'name', page.compression)}): export it as 8-bit RGB first."
    )


def _grey(bits: int, inverted: bool) -> Colour:
    values = np.linspace(0, 255, 1 << bits).round().astype(np.uint8)
    table = values[::-1] if inverted else values

    def convert(pixels: NDArray[Any]) -> NDArray[np.uint8]:
        return np.repeat(table[pixels[..., :1].astype(np.uint8)], 3, axis=2)

    return convert


def _palette(page: Any, name: str) -> Colour:  # noqa: ANN401 - tifffile
    table = np.asarray(page.colormap if page.colormap is not None else ())
    if table.ndim != 2 or len(table) != 3 or table.shape[1] < 1 << page.bitspersample:
        raise SlideError(f"{name} is damaged: its palette is missing or too short; copy it again.")
    table = table.T >> 8 if table.max() > 255 else table.T  # some writers give 8 bits for 16
    colours = table.astype(np.uint8)
    return lambda pixels: colours[pixels[..., 0].astype(np.uint8)]


def _cmyk(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    ink = pixels[..., :4].astype(np.uint16)
    return (
        (np.uint16(255) - ink[..., :3]) * (np.uint16(255) - ink[..., 3:]).astype(np.uint32) // 255
    ).astype(np.uint8)


def _lab(*, signed: bool) -> Colour:
    def convert(pixels: NDArray[Any]) -> NDArray[np.uint8]:
        lab = np.ascontiguousarray(pixels[..., :3]).view(np.uint8)
        if signed:
            lab = lab ^ np.array([0, 128, 128], np.uint8)
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(lab), cv2.COLOR_LAB2RGB), np.uint8)

    return convert


def _ycbcr(weights: tuple[float, ...], references: tuple[float, ...]) -> Colour:
    red, green, blue = weights
    black = np.array(references[::2], np.float32)
    scale = np.array([255, 127, 127], np.float32) / (np.array(references[1::2], np.float32) - black)
    rows = np.array(
        [
            [1, 0, 2 - 2 * red],
            [1, -blue * (2 - 2 * blue) / green, -red * (2 - 2 * red) / green],
            [1, 2 - 2 * blue, 0],
        ],
        np.float32,
    )

    def convert(pixels: NDArray[Any]) -> NDArray[np.uint8]:
        values = (pixels[..., :3].astype(np.float32) - black) * scale
        return np.asarray((values @ rows.T).round().clip(0, 255), np.uint8)

    return convert


def _ratios(page: Any, code: int, default: tuple[float, ...]) -> tuple[float, ...]:  # noqa: ANN401 - tifffile
    """Values of a tag of fractions; the default where it is missing or makes no sense."""
    stored = page.tags.valueof(code)
    if not isinstance(stored, tuple) or len(stored) != 2 * len(default) or not all(stored[1::2]):
        return default
    values = tuple(above / below for above, below in zip(stored[::2], stored[1::2], strict=True))
    return values if code != _COEFFICIENTS or all(0 < value < 1 for value in values) else default


def _references(page: Any) -> tuple[float, ...]:  # noqa: ANN401 - tifffile
    values = _ratios(page, _REFERENCES, _DEFAULT_REFERENCES)
    ordered = all(black < white for black, white in zip(values[::2], values[1::2], strict=True))
    return values if ordered else _DEFAULT_REFERENCES


def _without_extra(convert: Colour | None, colours: int, place: int | None, premultiplied: bool) -> Colour:
    """Conversion of an image with further samples: one of them transparency, or none."""

    def flat(pixels: NDArray[Any]) -> NDArray[np.uint8]:
        seen = pixels[..., :colours] if convert is None else convert(pixels[..., :colours])
        return over_white(seen, None if place is None else pixels[..., place : place + 1], premultiplied)

    return flat


def over_white(
    colour: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, premultiplied: bool = False
) -> NDArray[np.uint8]:
    """Lay colours over white.

    Parameters
    ----------
    colour : (h, w, 3) uint8
    alpha : (h, w, 1) uint8 or None
    premultiplied : bool
        The colours are multiplied with it already.

    Returns
    -------
    (h, w, 3) uint8
    """
    if alpha is None:
        return np.ascontiguousarray(colour, dtype=np.uint8)
    flat = np.empty(colour.shape, np.uint8)
    for top in range(0, len(colour), _BLENDED_ROWS):  # a whole picture in 16 bits would be gigabytes
        rows = slice(top, top + _BLENDED_ROWS)
        wide = alpha[rows].astype(np.uint16)
        if premultiplied:
            flat[rows] = np.minimum(colour[rows] + (255 - wide), 255)
        else:
            flat[rows] = (colour[rows] * wide + 255 * (255 - wide) + 127) // 255
    return flat


def rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Any 8-bit pixels as RGB: grey is repeated, transparency is laid over white.

    Parameters
    ----------
    pixels : (h, w) or (h, w, 1 to 4) uint8

    Returns
    -------
    (h, w, 3) uint8
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    colour = np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] in (1, 2) else pixels[..., :3]
    return over_white(colour, pixels[..., -1:] if pixels.shape[2] in (2, 4) else None)
