"""HER2 IHC by rules on phantoms whose cells are known: scores, percentages, and cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_her2 import score_slide
from napari_her2.cells.calibration import gain_from
from napari_her2.cells.rules import CLASSES, Rules, classes
from napari_her2.phantom import SCORES, cells_of, make_pair, tissue_of_truth

# The gain is the only free number: of an evenly 3+ phantom that is none of the cases.
CONTROL, CASES = 1004, {"0": 41, "1+": 20, "2+": 23, "3+": 20}
SIZE_PX = {"0": 1024, "1+": 1024, "2+": 1024, "3+": 1280}


@dataclass
class Case:
    """A phantom as it was scored, its cells, and their classes by the same rules."""

    result: object
    truth: object
    true_classes: np.ndarray


def scored(folder, name, score, seed, size_px, **options):
    pair = make_pair(folder, name, score=score, seed=seed, size_px=size_px, membranes="graded")
    result = score_slide(
        pair.ihc, "ihc-rules", regions=pair.regions, device="cpu", stain="IHC", cache=False, **options
    )
    return result, cells_of(tissue_of_truth(pair.truth_json))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    result, truth = scored(folder, "control", "3+", CONTROL, 1024)
    reading = result.slides[0].cells
    counted = reading.counted
    gain = gain_from(reading.completeness[counted], reading.raw_mass[counted])
    true_rules = Rules(gain=gain_from(truth.completeness(0.1), truth.mass()))
    cases = {}
    for score in SCORES:
        result, truth = scored(
            folder, f"case {score[0]}", score, CASES[score], SIZE_PX[score], calibration="control", gain=gain
        )
        complete, mass = (each.astype(np.float32) for each in (truth.completeness(0.1), truth.mass()))
        cases[score] = Case(result, truth, classes(complete, mass, true_rules))
    return cases


@pytest.mark.parametrize("score", SCORES)
def test_the_score_of_a_phantom_is_found(phantoms, score):
    assert phantoms[score].result.score == score


@pytest.mark.parametrize("score", SCORES)
def test_percentages_lie_near_those_of_the_drawn_membranes(phantoms, score):
    case = phantoms[score]
    found = [case.result.measures["percentages"][name] for name in CLASSES]
    true = 100 * np.bincount(case.true_classes, minlength=4) / len(case.true_classes)
    off = np.abs(np.array(found) - true)
    assert np.median(off) < 5
    assert off.max() < 15


def test_cells_are_found_once_and_their_membranes_read_alike(phantoms):
    complete, mass, found, counted = [], [], 0, 0
    for case in phantoms.values():
        reading, truth = case.result.slides[0].cells, case.truth
        distance, which = cKDTree(reading.cells.centre_um).query(truth.nucleus_um)
        near = distance < 4
        # Pale nuclei that the section only grazes are missed, here and there.
        assert near.mean() > 0.8
        found, counted = found + len(truth), counted + reading.counted.sum()
        complete.append(np.stack((reading.completeness[which], truth.completeness(0.1)), axis=1)[near])
        mass.append(np.stack((reading.raw_mass[which], truth.mass()), axis=1)[near])
    assert 0.85 < counted / found < 1.1
    read, true = np.concatenate(complete).T
    assert np.median(np.abs(read - true)) < 0.08
    assert np.corrcoef(read, true)[0, 1] > 0.93
    assert np.corrcoef(np.concatenate(mass).T)[0, 1] > 0.95


def test_h_score_rises_with_the_score(phantoms):
    h_scores = [phantoms[score].result.measures["h_score"] for score in SCORES]
    assert h_scores == sorted(h_scores)
    assert h_scores[0] < 20
    assert h_scores[3] > 150
