"""Maps coloured as pictures, beside the colours that napari gives their layers."""

from __future__ import annotations

import numpy as np
import pytest

from napari_her2._napari.colormaps import colormap_of
from napari_her2.explain.colours import COLOURS, coloured
from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import OverlayInfo
from napari_her2.slide.grid import TileGrid

GRID = TileGrid((400, 600), (0.5, 0.5), tile_px=50, mpp=0.5)


@pytest.mark.parametrize("colours", [*COLOURS, "#ff1744"])
def test_a_picture_has_the_colours_of_the_layer(colours: str) -> None:
    info = OverlayInfo("invented", colours=colours, limits=(0.0, 1.0))
    values = np.linspace(0, 1, 96, dtype=np.float32).reshape(GRID.shape)
    values[0, 0] = np.nan
    rgba = coloured(TileMap(info, values, GRID))
    napari = 255 * colormap_of(info).map(values.ravel()).reshape(*GRID.shape, 4)
    known = np.isfinite(values)
    assert np.abs(rgba[known].astype(float) - napari[known]).max() <= 2
    assert not rgba[~known].any()


def test_categories_have_one_colour_each() -> None:
    info = OverlayInfo("invented").of_categories(("0", "1+", "2+", "3+"))
    values = (np.arange(96, dtype=np.float32) % 4).reshape(GRID.shape)
    rgba = coloured(TileMap(info, values, GRID))
    napari = np.rint(255 * colormap_of(info).map((values.ravel() + 0.5) / 4)).reshape(*GRID.shape, 4)
    assert np.abs(rgba - napari).max() <= 1
    assert len(np.unique(rgba.reshape(-1, 4), axis=0)) == 4
