"""HER2 IHC by rules on phantoms whose cells are known: scores, percentages, and cell by cell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_her2 import score_slide
from napari_her2.cells.calibration import gain_from
from napari_her2.cells.rules import CLASSES, Rules, classes
from napari_her2.cells.summary import summarised
from napari_her2.phantom import SCORES, cells_of, make_pair, tissue_of_truth

# The gain is the only free number: of an evenly 3+ phantom that is none of the cases. They are stained about
# as strongly as it, as slides of one run are, and no blurrier.
CONTROL, CASES = 1004, {"0": 41, "1+": 20, "2+": 41, "3+": 41}
SIZE_PX = 1024


@dataclass
class Case:
    """A phantom as it was scored, its cells, and their classes by the same rules."""

    reading: object
    summary: object
    truth: object
    true_classes: np.ndarray


def scored(folder, name, score, seed, **options):
    pair = make_pair(folder, name, score=score, seed=seed, size_px=SIZE_PX, membranes="graded")
    result = score_slide(
        pair.ihc, "ihc-rules", regions=pair.regions, device="cpu", stain="IHC", cache=False, **options
    )
    return result.slides[0].cells, cells_of(tissue_of_truth(pair.truth_json))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    reading, truth = scored(folder, "control", "3+", CONTROL)
    counted = reading.counted
    gain = gain_from(reading.completeness[counted], reading.raw_mass[counted])
    true_rules = Rules(gain=gain_from(truth.completeness(0.1), truth.mass()))
    cases = {}
    for score in SCORES:
        named = {"calibration": "control", "gain": gain}
        reading, truth = scored(folder, f"case {score[0]}", score, CASES[score], **named)
        # Doubts about the image are of real tissue: drawn walls of one width look blurred.
        summary = summarised(replace(reading, reasons=()))
        complete, mass = (each.astype(np.float32) for each in (truth.completeness(0.1), truth.mass()))
        cases[score] = Case(reading, summary, truth, classes(complete, mass, true_rules))
    return cases


@pytest.mark.parametrize("score", SCORES)
def test_the_score_of_a_phantom_is_found(phantoms, score):
    assert phantoms[score].reading.rules.gain != 1
    assert phantoms[score].summary.score == score


def test_percentages_lie_near_those_of_the_drawn_membranes(phantoms):
    off = []
    for case in phantoms.values():
        found = np.array([case.summary.percentages[name] for name in CLASSES])
        true = 100 * np.bincount(case.true_classes, minlength=4) / len(case.true_classes)
        off.append(np.abs(found - true))
    assert np.median(off) < 3
    assert np.max(off) < 25


def test_cells_are_found_once_and_their_membranes_read_alike(phantoms):
    complete, mass, found, counted = [], [], 0, 0
    for case in phantoms.values():
        reading, truth = case.reading, case.truth
        distance, which = cKDTree(reading.cells.centre_um).query(truth.nucleus_um)
        near = distance < 4
        # Pale nuclei that the section only grazes are missed, here and there.
        assert near.mean() > 0.8
        found, counted = found + len(truth), counted + reading.counted.sum()
        centre = reading.cells.centre_um[which]
        reach = [np.linalg.norm(truth.outline_um(k) - centre[k], axis=1).max() for k in range(len(truth))]
        complete.append(np.stack((reading.completeness[which], truth.completeness(0.1), reach), axis=1)[near])
        mass.append(np.stack((reading.raw_mass[which], truth.mass()), axis=1)[near])
    assert 0.85 < counted / found < 1.1
    read, true, reach = np.concatenate(complete).T
    assert np.corrcoef(read, true)[0, 1] > 0.85
    assert np.corrcoef(np.concatenate(mass).T)[0, 1] > 0.93
    # Membranes are looked for up to 10 µm from the nucleus; some drawn cells are larger.
    within = reach < 10
    assert within.sum() > 150
    assert np.median(np.abs(read - true)[within]) < 0.05


def test_h_score_rises_with_the_score(phantoms):
    h_scores = [phantoms[score].summary.h_score for score in SCORES]
    assert h_scores == sorted(h_scores)
    assert h_scores[0] < 20
    assert h_scores[3] > 150
