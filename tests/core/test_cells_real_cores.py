"""Pieces of real cores of HER2 IHC: what is scored 0 shows no membranes, what is scored 3+ does."""

from __future__ import annotations

import numpy as np
import pytest

from napari_her2 import open_slide
from napari_her2.cells.measuring import HALO_UM, MPP, measured
from napari_her2.cells.rules import Rules, classes, completeness, membrane_mass
from napari_her2.cells.stains import fit_stains
from napari_her2.slide.area import read_area

SIDE_PX = 700
ORIGINS_UM = {"0_9b0f": (700.0, 300.0), "0_aa1d": (500.0, 500.0), "3_a1f1": (500.0, 500.0)}
GAIN = 0.675
"""Median raw mass of the complete cells of the whole 3+ core, divided by 0.70."""


@pytest.fixture(scope="module")
def pieces(shared_data):
    found = {}
    for name, origin in ORIGINS_UM.items():
        paths = sorted((shared_data / "her2_ihc_cores").glob(f"{name}*.jpg"))
        if not paths:
            pytest.skip("the cores of HER2 IHC are absent from the folder of real slides")
        with open_slide(paths[0], mpp=0.23) as slide:
            found[name] = read_area(slide, origin_um=origin, size_px=SIDE_PX, mpp=MPP).rgb
    return found


def percentages(rgb):
    """Per cent of the cells that are of each class or above it, and how many cells there are."""
    side = SIDE_PX * MPP
    core = (HALO_UM, HALO_UM, side - HALO_UM, side - HALO_UM)
    cells = measured(rgb, fit_stains([rgb]), (0.0, 0.0), core)
    rules = Rules(gain=GAIN)
    found = classes(completeness(cells, rules), membrane_mass(cells), rules)
    return [100 * float((found >= least).mean()) for least in range(4)], len(cells)


def score(rgb):
    reached, _ = percentages(rgb)
    return max(at for at in range(4) if reached[at] > 10)


@pytest.mark.parametrize(("name", "expected"), [("0_9b0f", 0), ("0_aa1d", 0), ("3_a1f1", 3)])
def test_real_cores_score_as_they_are_labelled_whatever_the_light(pieces, name, expected):
    rgb = pieces[name]
    reached, cells = percentages(rgb)
    assert cells > 100
    assert score(rgb) == expected
    for factor in (0.9, 1.1):
        assert score(np.clip(np.round(rgb * factor), 0, 255).astype(np.uint8)) == expected
    if expected == 0:
        assert reached[1] < 2


def test_most_cells_of_the_3_core_are_complete(pieces):
    rgb = pieces["3_a1f1"]
    side = SIDE_PX * MPP
    core = (HALO_UM, HALO_UM, side - HALO_UM, side - HALO_UM)
    cells = measured(rgb, fit_stains([rgb]), (0.0, 0.0), core)
    rules = Rules()
    complete = completeness(cells, rules) >= 0.65
    assert 0.5 < complete.mean() < 0.95
    assert 0.38 < np.median(membrane_mass(cells)[complete]) < 0.58
    # 7,000 to 12,000 cells a mm² of crowded carcinoma.
    assert 6000 < len(cells) / ((side - 2 * HALO_UM) * 1e-3) ** 2 < 13000
    area = np.median(cells.area_um2)
    assert 60 < area < 160
