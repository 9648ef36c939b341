"""From pixels to cells: what is found and measured of drawn cells, against what was drawn."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells_drawn import MPP, brown_cytoplasm, nearest, rings, walls
from napari_her2.cells.measuring import HALO_UM, measured
from napari_her2.cells.rules import Rules, classes, completeness, membrane_mass
from napari_her2.cells.stains import fit_stains
from napari_her2.cells.table import Cells

RULES = Rules()


def read(rgb, stains=None, margin_um=0.0, clock=None):
    stains = stains or fit_stains([rgb])
    height, width = (side * MPP for side in rgb.shape[:2])
    core = (margin_um, margin_um, height - margin_um, width - margin_um)
    return measured(rgb, stains, (0.0, 0.0), core, clock=clock)


def of_drawn(drawn, cells):
    found = nearest(drawn, cells.centre_um)
    return found >= 0, cells.pick(found[found >= 0])


def test_glass_holds_no_cells():
    white = np.full((300, 300, 3), 240, np.uint8)
    assert len(read(white)) == 0
    assert len(read(white[:3, :3])) == 0
    assert HALO_UM >= 20


@pytest.mark.parametrize(
    ("width_um", "od", "radius_um"),
    [(0.64, 0.3, 6.0), (0.64, 1.0, 7.5), (1.0, 0.5, 6.0), (1.5, 0.3, 7.5), (2.1, 0.25, 7.0), (2.1, 0.8, 6.0)],
)
def test_completeness_and_mass_of_rings_are_what_was_drawn(width_um, od, radius_um):
    drawn = rings(width_um=width_um, od=od, radius_um=radius_um, pitch_um=20.0, side=5)
    found, cells = of_drawn(drawn.centres_um, read(drawn.rgb))
    assert found.all()
    assert np.hypot(*(cells.centre_um - drawn.centres_um).T).max() < 1
    error = completeness(cells, RULES) - drawn.completeness
    assert np.abs(error).mean() < 0.04
    assert abs(error.mean()) < 0.04
    mass = membrane_mass(cells) / (drawn.completeness * od * width_um)
    assert 0.9 < np.median(mass) < 1.1
    complete = mass[drawn.completeness > 0.8]
    assert 0.9 < np.median(complete) < 1.1
    # Where the membrane lies is where the ring was drawn.
    reach = np.median(cells.border_um.astype(float), axis=1)[drawn.completeness > 0.8]
    assert np.abs(reach - drawn.radius_um[drawn.completeness > 0.8]).max() < 1.0


@pytest.mark.parametrize(("width_um", "od"), [(0.8, 0.5), (1.6, 0.3)])
def test_completeness_of_cells_that_share_walls(width_um, od):
    rgb, centres, complete = walls(width_um=width_um, od=od)
    found, cells = of_drawn(centres, read(rgb))
    assert found.all()
    error = completeness(cells, RULES) - complete
    assert np.abs(error).mean() < 0.05
    assert abs(error.mean()) < 0.05
    mass = membrane_mass(cells)[complete > 0] / (complete[complete > 0] * od * width_um)
    # A ray to the corner of a hexagon crosses its wall at 30 degrees: on average 5 % more of it.
    assert 0.9 < np.median(mass) < 1.2


@pytest.mark.parametrize("od", [0.15, 0.3, 0.5])
def test_brown_cytoplasm_alone_is_no_membrane(od):
    alone = rings(width_um=1.0, od=0.0, cytoplasm=od, pitch_um=20.0, side=5)
    for rgb, margin in ((brown_cytoplasm(od, side_um=130.0), 12.0), (alone.rgb, 0.0)):
        cells = read(rgb, margin_um=margin)
        assert len(cells) >= 20
        found = classes(completeness(cells, RULES), membrane_mass(cells), RULES)
        assert (found > 0).mean() <= 0.02


def test_cytoplasm_is_what_lies_between_nucleus_and_membrane():
    drawn = rings(width_um=1.0, od=0.5, cytoplasm=0.2, pitch_um=20.0, side=5, radius_um=7.0, shares=(1.0,))
    _, cells = of_drawn(drawn.centres_um, read(drawn.rgb))
    np.testing.assert_allclose(np.median(cells.cytoplasm_dab), 0.2, rtol=0.15)


def test_nuclei_are_measured_as_drawn():
    drawn = rings(width_um=1.0, od=0.4, pitch_um=20.0, side=5, nucleus_od=0.4)
    _, cells = of_drawn(drawn.centres_um, read(drawn.rgb))
    # Drawn as ellipses with half axes of 3.6 and 3 µm.
    np.testing.assert_allclose(np.median(cells.nucleus_um2), np.pi * 3.0 * 3.6, rtol=0.12)
    assert np.median(cells.nucleus_ratio) == pytest.approx(1.2, abs=0.08)
    np.testing.assert_allclose(np.median(cells.nucleus_h), 0.4, rtol=0.15)


def test_a_pale_hole_in_a_brown_ring_is_a_cell_without_a_nucleus():
    pale = rings(width_um=1.5, od=0.8, pitch_um=20.0, side=5, nucleus_od=0.05)
    found, cells = of_drawn(pale.centres_um, read(pale.rgb, replace(fit_stains([pale.rgb]), nucleus_h=0.3)))
    complete = pale.completeness[found] > 0.8
    assert found[pale.completeness > 0.8].all()
    assert (cells.nucleus_um2[complete] == 0).all()
    assert (cells.nucleus_ratio[complete] == 1).all()


def test_area_is_that_of_the_outline():
    from shapely import Polygon

    cells = read(rings(width_um=1.0, od=0.4, side=4).rgb)
    for outline, area in zip(cells.outlines_um(slice(0, 10)), cells.area_um2, strict=False):
        assert Polygon(outline).area == pytest.approx(area, rel=2e-3)


def test_steps_are_timed():
    clock = {"stains": 1.0}
    read(rings(width_um=1.0, od=0.4, side=3).rgb, clock=clock)
    assert set(clock) == {"stains", "centres", "territories", "membranes", "interiors"}
    assert clock["stains"] > 1.0
    assert all(seconds >= 0 for seconds in clock.values())


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_brightness_changes_no_class(factor):
    drawn = rings(width_um=1.2, od=0.5, pitch_um=20.0, side=5)
    # Bright light is not to be cut off: a camera's is not either.
    grey = drawn.rgb * 0.9
    light, other = (np.round(each).astype(np.uint8) for each in (grey, grey * factor))
    _, first = of_drawn(drawn.centres_um, read(light))
    _, second = of_drawn(drawn.centres_um, read(other))
    judged = [classes(completeness(each, RULES), membrane_mass(each), RULES) for each in (first, second)]
    assert (judged[0] == judged[1]).mean() > 0.95
    np.testing.assert_allclose(completeness(first, RULES), completeness(second, RULES), atol=2 / 32)


# The same cells from every window.


@cache
def sheet():
    """A picture in which cells touch, stand apart and reach its edge; how it is stained; and its cells."""
    dense = walls(width_um=1.0, od=0.4, rows=5)[0]
    loose = rings(width_um=1.0, od=0.6, pitch_um=16.0, side=4, radius_um=5.5).rgb
    rows = min(len(dense), len(loose))
    rgb = np.concatenate([dense[:rows], loose[:rows]], axis=1)[15:]
    stains = fit_stains([rgb])
    return rgb, stains, tiled(rgb, stains, 1000, (0, 0))


def tiled(rgb, stains, side, start):
    halo = int(np.ceil(HALO_UM / MPP))
    around = np.pad(rgb, ((halo, halo), (halo, halo), (0, 0)), constant_values=255)
    height, width = rgb.shape[:2]
    found = []
    for top in range(-start[0], height, side):
        for left in range(-start[1], width, side):
            y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + side, height), min(left + side, width)
            if y1 > y0 and x1 > x0:
                window = around[y0 : y1 + 2 * halo, x0 : x1 + 2 * halo]
                core = (y0 * MPP, x0 * MPP, y1 * MPP, x1 * MPP)
                found.append(measured(window, stains, ((y0 - halo) * MPP, (x0 - halo) * MPP), core))
    return Cells.joined(found)


@settings(max_examples=6, deadline=None)
@given(side=st.integers(90, 200), top=st.integers(0, 89), left=st.integers(0, 89))
def test_cells_do_not_depend_on_windows(side, top, left):
    rgb, stains, whole = sheet()
    parts = tiled(rgb, stains, side, (top, left))
    assert len(parts) == len(whole) > 30
    np.testing.assert_allclose(parts.centre_um, whole.centre_um, atol=0.01)
    for of in fields(Cells):
        np.testing.assert_allclose(
            getattr(parts, of.name).astype(float), getattr(whole, of.name).astype(float), atol=1e-4
        )
    np.testing.assert_allclose(completeness(parts, RULES), completeness(whole, RULES), atol=1e-4)
    np.testing.assert_allclose(membrane_mass(parts), membrane_mass(whole), atol=1e-4)


def test_a_core_holds_the_cells_whose_centres_lie_in_it():
    rgb, stains, whole = sheet()
    # Half open: a centre on the line between two cores belongs to the second.
    line = float(whole.centre_um[len(whole) // 2, 0])
    height, width = (side * MPP for side in rgb.shape[:2])
    above = measured(rgb, stains, (0.0, 0.0), (0.0, 0.0, line, width))
    below = measured(rgb, stains, (0.0, 0.0), (line, 0.0, height, width))
    assert above.centre_um[:, 0].max() < line <= below.centre_um[:, 0].min()
