"""Sizes in the first bytes of compressed pictures, as those who wrote them know."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from napari_her2.slide.files import DamagedTile
from napari_her2.slide.stated_size import refuse_larger, stated_size

SHAPES = [(1, 1), (8, 8), (64, 256), (100, 150), (300, 200), (513, 2000), (240, 240), (90, 160)]


def pillow(kind: str, **options):
    def encode(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return encode


ENCODERS = {
    "jpeg": lambda a: imagecodecs.jpeg8_encode(a, level=80),
    "jpeg of pillow": pillow("JPEG", icc_profile=bytes(3000), comment=b"\xff\xc0 no frame"),
    "progressive jpeg": pillow("JPEG", progressive=True),
    "png": imagecodecs.png_encode,
    "webp": lambda a: imagecodecs.webp_encode(a, level=50),
    "lossless webp": lambda a: imagecodecs.webp_encode(a, lossless=True),
    "webp with profile": pillow("WEBP", icc_profile=b"profile"),
    "jpeg 2000": lambda a: imagecodecs.jpeg2k_encode(a, level=30, codecformat="J2K"),
    "jpeg 2000 in boxes": lambda a: imagecodecs.jpeg2k_encode(a, level=30, codecformat="JP2"),
    "jpeg xl": lambda a: imagecodecs.jpegxl_encode(a, level=90, effort=1),
    "jpeg xl in boxes": lambda a: imagecodecs.jpegxl_encode(a, level=90, effort=1, usecontainer=True),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_size_is_read_without_decoding(encoder, shape):
    data = bytes(ENCODERS[encoder](np.full((*shape, 3), 120, np.uint8)))
    assert stated_size(data) == shape
    refuse_larger(data, shape)
    with pytest.raises(DamagedTile, match="claim"):
        refuse_larger(data, (shape[0], shape[1] - 1))
    with pytest.raises(DamagedTile, match="claim"):
        refuse_larger(data, (shape[0] - 1, shape[1]))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_ends_early_or_is_something_else_states_nothing_and_fails_nowhere(encoder):
    data = bytes(ENCODERS[encoder](np.full((100, 150, 3), 120, np.uint8)))
    for length in range(0, min(len(data), 200)):
        assert stated_size(data[:length]) in ((0, 0), (100, 150)) or length < 60
    assert stated_size(np.random.default_rng(0).bytes(500)) == (0, 0)
    assert stated_size(b"\xff\xd8" + b"\xff" * 100) == (0, 0)
