"""tiffslide without Zarr, until somebody reads pixels with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SEEN = "assert not {'zarr', 'tiffslide._zarr'} & set(sys.modules)\n"
_PIXELS = (
    "import numpy as np, tifffile\n"
    "with tiffslide.TiffSlide(sys.argv[1]) as slide:\n"
    "    read = slide.read_region((100, 60), 0, (50, 40), as_array=True)\n"
    "with tifffile.TiffFile(sys.argv[1]) as tiff:\n"
    "    page = tiff.pages[0].asarray()\n"
    "assert np.array_equal(read, page[60:100, 100:150])\n"
    "assert 'zarr' in sys.modules\n"
)


@pytest.mark.parametrize(
    "code",
    [
        # What a slide needs comes without Zarr; whoever reads pixels with tiffslide all the same gets it.
        "from napari_her2.slide.reader import open_slide\n"
        f"open_slide(sys.argv[1]).close()\n{_SEEN}import tiffslide\n{_PIXELS}",
        # Loaded by somebody else before, it is left as it is.
        "import tiffslide\n"
        "from napari_her2.slide.tiffslide_import import load_tiffslide\n"
        f"assert load_tiffslide() is tiffslide\n{_PIXELS}",
        # So is Zarr, and what it stands for can be asked for by name.
        "from napari_her2.slide.tiffslide_import import load_tiffslide\n"
        f"tiffslide = load_tiffslide()\n{_SEEN}"
        "import tiffslide.tiffslide as within\n"
        "assert not hasattr(within.zarr, '__path__')\n"
        "import zarr\n"
        f"assert within.zarr.open_group is zarr.open_group\n{_PIXELS}",
    ],
)
def test_zarr_comes_when_pixels_are_read(code, he_slide):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}", str(he_slide)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
