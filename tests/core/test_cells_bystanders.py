"""Lymphocytes and stromal cells told from tumour cells, and what membranes add to simple readings."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from cells_by_hand import cells_by_hand
from ihc_baselines import dab_area, ring_dab, ring_h_score
from napari_her2 import open_slide
from napari_her2.cells.bystanders import bystanders
from napari_her2.cells.measuring import HALO_UM, measured
from napari_her2.cells.rules import Rules
from napari_her2.cells.stains import fit_stains
from napari_her2.cells.table import Cells
from napari_her2.phantom import cells_of, make_pair, tissue_of_truth


def nuclei(**given):
    """Sixty tumour cells, and ten whose nuclei are as asked."""
    cells, _ = cells_by_hand(70, shares=(1, 0, 0, 0))
    usual = {"nucleus_um2": 60.0, "nucleus_ratio": 1.3, "nucleus_h": 0.25}
    values = {
        name: np.append(np.full(60, value), np.full(10, given.get(name, value))).astype(np.float32)
        for name, value in usual.items()
    }
    return replace(cells, **values)


@pytest.mark.parametrize(
    ("nucleus", "left_out"),
    [
        ({"nucleus_um2": 32, "nucleus_ratio": 1.2, "nucleus_h": 0.4}, True),  # a lymphocyte
        ({"nucleus_um2": 32, "nucleus_ratio": 1.2}, False),  # small and round, but pale
        ({"nucleus_h": 0.4}, False),  # dark, but large
        ({"nucleus_um2": 32, "nucleus_ratio": 1.9, "nucleus_h": 0.4}, False),  # two that touch
        ({"nucleus_um2": 24, "nucleus_ratio": 3.0}, True),  # a spindle cell
        ({"nucleus_um2": 90, "nucleus_ratio": 3.0}, False),  # long, but a columnar cell's
        ({"nucleus_um2": 0, "nucleus_ratio": 1, "nucleus_h": 0}, False),  # no blue nucleus: many 3+ cells
    ],
)
def test_nuclei_decide(nucleus, left_out):
    cells = nuclei(**nucleus)
    assert not bystanders(cells, Rules())[:60].any()
    assert (bystanders(cells, Rules())[60:] == left_out).all()


def test_a_cell_with_a_stained_membrane_is_never_left_out():
    cells = nuclei(nucleus_um2=32, nucleus_h=0.4)
    ring = np.full((70, 32), 0.5, np.float16)
    assert bystanders(cells, Rules()).sum() == 10
    assert not bystanders(replace(cells, contrast=ring, dab=ring), Rules()).any()


def test_no_cell_or_no_blue_nucleus_leaves_none_out():
    assert bystanders(Cells.none(), Rules()).shape == (0,)
    bare = nuclei(nucleus_um2=32, nucleus_h=0.4)
    bare = replace(bare, nucleus_um2=np.zeros(70, np.float32), nucleus_h=np.zeros(70, np.float32))
    assert not bystanders(bare, Rules()).any()


def test_order_and_windows_do_not_matter():
    cells = nuclei(nucleus_um2=32, nucleus_h=0.4)
    order = np.random.default_rng(0).permutation(70)
    assert (bystanders(cells.pick(order), Rules()) == bystanders(cells, Rules())[order]).all()
    parts = [cells.pick(order[:25]), cells.pick(order[25:])]
    together = Cells.joined(parts)
    where = {tuple(at): k for k, at in enumerate(cells.centre_um.tolist())}
    back = [where[tuple(at)] for at in together.centre_um.tolist()]
    assert (bystanders(together, Rules()) == bystanders(cells, Rules())[back]).all()


@pytest.mark.parametrize(("score", "seed"), [("1+", 12), ("3+", 24)])
def test_what_is_left_out_of_a_phantom_is_seldom_tumour(score, seed, tmp_path):
    pair = make_pair(tmp_path, "case", score=score, seed=seed, size_px=1000)
    with open_slide(pair.ihc) as slide:
        rgb = slide.read(0, 0, 0, *slide.shape)
    halo = 2 * math.ceil(HALO_UM)
    framed = cv2.copyMakeBorder(rgb, halo, halo, halo, halo, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cells = measured(framed, fit_stains([rgb]), (-halo / 2,) * 2, (0.0, 0.0, 500.0, 500.0))
    truth = cells_of(tissue_of_truth(pair.truth_json))
    true = (truth.nucleus_um, truth.lymphocytes_um, truth.stroma_um)
    distance = np.stack([cKDTree(places).query(cells.centre_um)[0] for places in true])
    kind = np.where(distance.min(axis=0) < 4, distance.argmin(axis=0), -1)
    left_out = bystanders(cells, Rules())
    assert (kind == 0).sum() > 150
    assert np.mean(left_out[kind == 0]) < 0.03
    assert np.mean(kind[left_out] > 0) > 0.93
    assert np.mean(left_out[kind == 1]) > 0.2
    assert np.mean(left_out[kind == 2]) > 0.6


def test_the_ring_of_a_cell_is_read_along_its_border():
    cells, _ = cells_by_hand(6, 1)
    rng = np.random.default_rng(2)
    dab = rng.random((120, 130)).astype(np.float32)
    origin, mpp = (3.0, -2.0), 0.5
    found = ring_dab(dab, cells, origin, mpp)
    for k in range(6):
        corners = cells.outlines_um(np.array([k]))[0].astype(float)
        following = np.roll(corners, -1, axis=0)
        points = [at for pair in zip(corners, (corners + following) / 2, strict=True) for at in pair]
        values = [_bilinear(dab, (y - origin[0]) / mpp - 0.5, (x - origin[1]) / mpp - 0.5) for y, x in points]
        assert found[k] == pytest.approx(sum(values) / len(values), abs=1e-4)


def _bilinear(plane, y, x):
    top, left = math.floor(y), math.floor(x)
    down, right = y - top, x - left
    return sum(
        weight * float(plane[top + dy, left + dx])
        for dy, dx, weight in (
            (0, 0, (1 - down) * (1 - right)),
            (0, 1, (1 - down) * right),
            (1, 0, down * (1 - right)),
            (1, 1, down * right),
        )
    )


def test_simple_readings_are_what_a_loop_counts():
    rng = np.random.default_rng(5)
    mean = rng.uniform(0, 0.9, 200).astype(np.float32)
    points = sum((each >= 0.2) + (each >= 0.4) + (each >= 0.6) for each in mean.tolist())
    assert ring_h_score(mean) == pytest.approx(100 * points / 200)
    assert ring_h_score(np.array([0.1, 0.7], np.float32)) == 150
    plane, mask = rng.uniform(0, 0.5, (20, 30)).astype(np.float32), rng.random((20, 30)) < 0.4
    brown = sum(plane[y, x] >= 0.2 for y, x in np.argwhere(mask))
    assert dab_area(plane, mask) == pytest.approx(100 * brown / mask.sum())
    assert math.isnan(ring_h_score(mean[:0]))
    assert math.isnan(dab_area(plane, np.zeros_like(mask)))
    assert ring_dab(plane, Cells.none(), (0.0, 0.0), 0.5).shape == (0,)
