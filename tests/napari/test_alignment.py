from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from napari_her2.errors import JobFailed
from napari_her2.registration.affine import Alignment
from napari_her2.registration.kept import alignment_folder, keep_alignment, kept_alignment
from napari_her2.slide.case_names import case_of, looks_ihc, partner_of

degrees = st.floats(-180, 180)
scales = st.floats(0.5, 2.0)
shifts = st.floats(-50_000, 50_000)
places = st.floats(0, 40_000)


@given(degrees, scales, scales, st.booleans(), shifts, shifts, st.lists(places, min_size=6, max_size=6))
def test_three_point_pairs_recover_any_affine(turn, scale_y, scale_x, mirrored, dy, dx, flat) -> None:
    moving = np.array(flat).reshape(3, 2)
    # Only triangles that a person could mark: sides of 100 µm, and no sliver.
    sides = np.linalg.svd(moving - moving.mean(axis=0), compute_uv=False)
    assume(sides[0] > 100 and sides[1] > 0.12 * sides[0])
    angle = np.deg2rad(turn)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ np.diag((scale_y, -scale_x if mirrored else scale_x))
    fixed = moving @ linear.T + (dy, dx)
    stretched = np.linalg.svd(fixed - fixed.mean(axis=0), compute_uv=False)
    assume(stretched[1] > 0.1 * stretched[0])
    found = Alignment.from_points(moving, fixed)
    np.testing.assert_allclose(found.matrix[:2, :2], linear, atol=1e-7)
    np.testing.assert_allclose(found.apply(moving), fixed, atol=1e-4)
    np.testing.assert_allclose(found.inverse().apply(fixed), moving, atol=1e-3)
    assert ("mirrored" in found.in_words()) == mirrored or found.is_identity


@given(st.floats(-0.9, 0.9), st.floats(100, 10_000))
def test_points_almost_on_a_line_are_refused_in_words(bend, length) -> None:
    line = np.array([(0, 0), (bend * 0.02 * length, length / 2), (0, length)])
    triangle = np.array([(0, 0), (length, length / 2), (0, length)])
    with pytest.raises(JobFailed, match="the IHC slide lie almost on one line"):
        Alignment.from_points(line, triangle, names=("the IHC slide", "the H&E slide"))
    with pytest.raises(JobFailed, match="the H&E slide lie almost on one line"):
        Alignment.from_points(triangle, line, names=("the IHC slide", "the H&E slide"))


def test_points_that_say_nothing_are_refused() -> None:
    triangle = np.array([(0.0, 0.0), (0.0, 500.0), (500.0, 0.0)])
    with pytest.raises(JobFailed, match="at least 3 places"):
        Alignment.from_points(triangle[:2], triangle[:2])
    with pytest.raises(JobFailed, match="too close together"):
        Alignment.from_points(triangle / 100, triangle)
    with pytest.raises(JobFailed, match="have one size"):
        Alignment.from_points(triangle, triangle * 10)


def test_a_turn_is_told_in_words_and_keeps_its_centre() -> None:
    turned = Alignment.identity().turned(30, (100, 200)).shifted((0, 0))
    np.testing.assert_allclose(turned.apply([(100, 200)]), [(100, 200)])
    assert "turned by 30.0°, size × 1.000" in turned.in_words()
    # From the y axis towards the x axis.
    np.testing.assert_allclose(
        Alignment.identity().turned(90, (0, 0)).apply([(1.0, 0.0)]), [(0.0, 1.0)], atol=1e-12
    )


def test_an_alignment_is_kept_for_the_case_whichever_slide_moves() -> None:
    alignment = Alignment.identity().turned(12, (5, 7)).shifted((100, -50))
    keep_alignment("he", "ihc", alignment)
    np.testing.assert_allclose(kept_alignment("he", "ihc").matrix, alignment.matrix)
    np.testing.assert_allclose(kept_alignment("ihc", "he").matrix @ alignment.matrix, np.eye(3), atol=1e-9)
    assert kept_alignment("he", "another") is None
    keep_alignment("he", "ihc", Alignment.identity())
    assert kept_alignment("he", "ihc") is None
    assert list(alignment_folder().iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"format": 1}',
        '{"format": 1, "fixed": "he", "moving": "ihc", "matrix_um": [[1, 0, 0], [0, 1]]}',
        '{"format": 1, "fixed": "he", "moving": "ihc", "matrix_um": [[1, 0, NaN], [0, 1, 0]]}',
        '{"format": 1, "fixed": "he", "moving": "ihc", "matrix_um": [[1, 0, 0], [1, 0, 0]]}',
        '{"format": 1, "fixed": "he", "moving": "other", "matrix_um": [[1, 0, 5], [0, 1, 0]]}',
        '{"format": 1, "fixed": "he", "moving": "ihc", "matrix_um": "' + "1" * 20_000 + '"}',
        "[" * 9_000,
    ],
)
def test_a_damaged_file_is_no_alignment(content: str) -> None:
    keep_alignment("he", "ihc", Alignment.identity().shifted((1, 2)))
    (path,) = alignment_folder().iterdir()
    assert set(json.loads(path.read_text())) == {"format", "fixed", "moving", "matrix_um"}
    path.write_text(content, encoding="utf-8")
    assert kept_alignment("he", "ihc") is None


def test_an_alignment_that_cannot_be_written_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_HER2_ALIGNMENTS", "/dev/null/alignments")
    with pytest.raises(JobFailed):
        keep_alignment("he", "ihc", Alignment.identity().shifted((1, 2)))


def test_slides_of_one_case_find_each_other_by_name() -> None:
    assert case_of("case_001_HE") == case_of("Case-001.HER2") == ("case", "001")
    assert looks_ihc("case_001_HER2")
    assert not looks_ihc("case_001_HE")
    others = [("a", "case_002_HER2"), ("b", "case_001_HER2"), ("c", "tumour")]
    assert partner_of("case_001_HE", others) == "b"
    assert partner_of("case_003_HE", others) == ""
    assert partner_of("case_001_HE", [*others, ("d", "case_001_IHC")]) == ""  # two: the user decides
    assert partner_of("HE", [("a", "HER2")]) == ""  # names without a case say nothing
