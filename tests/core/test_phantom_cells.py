"""The truth of single phantom cells agrees with what is drawn, with the census, and with itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from shapely.geometry import Point, Polygon, shape

from napari_her2.errors import JobFailed
from napari_her2.phantom import cells_of, cohort_steps, make_pair, tissue_of, tissue_of_truth
from napari_her2.phantom.layers import draw_layers
from napari_her2.phantom.noise import field, field_at
from napari_her2.phantom.render import _warp as warped
from napari_her2.phantom.render import block_frame, make_scene, render_block

# Least optical density of a faint membrane that a strength of stain near 1 gives; half of it is its edge.
FAINTEST = 0.1 / np.log(10)
CASES = [(7, "1+", 0.5), (25, "2+", 0.5), (6, "3+", 0.25)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[1]} at {case[2]}")
def drawn(request):
    """A tissue, its cells, and the membrane layer of its middle block as it goes into the slide."""
    seed, score, mpp = request.param
    tissue = tissue_of(seed, score, int(1024 / mpp), mpp)
    scene = make_scene(tissue.case, tissue.layout, tissue.census, mpp)
    middle = tissue.shape[0] // 1024 // 2
    frame, _, _ = block_frame(mpp, middle, middle, (1024, 1024))
    layers = draw_layers(frame, tissue.case, tissue.layout, tissue.census, scene.collagen.slant)
    od = warped(layers, seed, frame).membrane / 100 * tissue.case.ihc.strength[1] / np.log(10)

    def at(places_um):
        pixels = (places_um - (frame.y0_um, frame.x0_um)) / frame.pixel_um - 0.5
        return map_coordinates(od, pixels.T, order=1)

    y0, x0, y1, x1 = frame.window(-25.0)
    cells = cells_of(tissue, (y0, x0, y1, x1))
    assert len(cells) > 80
    return cells, at


def stretches(cells):
    """Middle and unit normal of the stretches between neighbouring corners."""
    following = np.concatenate([np.roll(np.arange(*cells.starts[k : k + 2]), -1) for k in range(len(cells))])
    along = cells.corners_um[following] - cells.corners_um
    normal = np.stack((-along[:, 1], along[:, 0]), axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    return cells.corners_um + along / 2, normal


def test_stain_along_outlines_is_where_and_as_dense_as_it_is_drawn(drawn):
    cells, at = drawn
    middle, _ = stretches(cells)
    shown = at(middle)
    assert np.mean((shown > FAINTEST / 2) == (cells.od > 0)) > 0.95
    stained = cells.od > 0
    assert np.median(shown[stained] / cells.od[stained]) == pytest.approx(1, abs=0.04)
    assert np.median(np.abs(shown[stained] / cells.od[stained] - 1)) < 0.06


def test_completeness_is_the_share_of_the_outline_that_is_drawn_stained(drawn):
    cells, at = drawn
    middle, _ = stretches(cells)
    shown = at(middle) > FAINTEST / 2
    expected = np.array(
        [
            np.average(shown[a:b], weights=cells.length_um[a:b])
            for a, b in zip(cells.starts[:-1], cells.starts[1:], strict=True)
        ]
    )
    difference = cells.completeness() - expected
    assert abs(difference.mean()) < 0.03
    assert np.percentile(np.abs(difference), 95) < 0.12
    assert np.all(cells.completeness(0.1) <= cells.completeness())


def test_mass_is_the_integral_across_the_drawn_membrane(drawn):
    cells, at = drawn
    middle, normal = stretches(cells)
    step = 0.05
    across = np.arange(-1.5, 1.5 + step / 2, step)
    integral = sum(at(middle + offset * normal) for offset in across) * step
    stained = cells.od > 0
    ratio = integral[stained] / (cells.od * cells.width_um)[stained]
    # Next to a corner the profile meets another wall, or the end of a piece.
    assert np.median(ratio) == pytest.approx(1, abs=0.08)


def test_outlines_are_cells_around_their_centres_that_do_not_overlap(drawn):
    cells, _ = drawn
    polygons = [Polygon(cells.outline_um(k)) for k in range(len(cells))]
    assert np.mean([polygon.is_valid for polygon in polygons]) > 0.99
    valid = [polygon.buffer(0) for polygon in polygons]
    assert np.mean([p.contains(Point(c)) for p, c in zip(valid, cells.centre_um, strict=True)]) > 0.99
    centroids = np.array([(p.centroid.x, p.centroid.y) for p in valid])
    assert np.median(np.abs(centroids - cells.centre_um)) < 1e-6
    nucleus = [p.contains(Point(c)) for p, c in zip(valid, cells.nucleus_um, strict=True)]
    assert np.mean(nucleus) > 0.97
    first = valid[0]
    shared = sum(first.intersection(other).area for other in valid[1:])
    assert shared < 0.01 * first.area


def test_states_of_all_cells_are_the_percentages_of_the_case():
    tissue = tissue_of(21, "2+", (1200, 1536), 0.5)
    cells = cells_of(tissue)
    assert len(cells) == tissue.census.cells
    mix = tissue.census.mix
    expected = (mix.none, mix.faint_incomplete, mix.weak_moderate_complete, mix.intense_complete)
    np.testing.assert_allclose(np.bincount(cells.state, minlength=4) / len(cells), expected, atol=1e-9)
    complete, density = cells.completeness(), cells.density()
    # A complete membrane lies all around its cell; a faint one in part, unless neighbours close it.
    assert complete[cells.state >= 2].min() == 1
    assert complete[cells.state == 1].mean() < 0.9
    assert [np.median(density[cells.state == s]) for s in (2, 3)] == sorted(
        np.median(density[cells.state == s]) for s in (2, 3)
    )


@pytest.fixture(scope="module")
def small_case():
    tissue = tissue_of(21, "2+", (1200, 1536), 0.5)
    return tissue, cells_of(tissue)


@settings(max_examples=4, deadline=None, phases=[Phase.generate])
@given(y=st.floats(40, 560), x=st.floats(40, 700))
def test_windows_that_tile_a_slide_hold_the_cells_of_the_whole(small_case, y, x):
    tissue, whole = small_case
    parts = [cells_of(tissue, window) for window in ((0, 0, y, 800), (y, 0, 600, x), (y, x, 600, 800))]
    assert sum(map(len, parts)) == len(whole)

    def numbers(*tables):
        rows = [
            np.column_stack((t.centre_um, t.completeness(), t.mass(), t.density(), t.state)) for t in tables
        ]
        together = np.concatenate(rows)
        return together[np.lexsort(together.T[:2])]

    np.testing.assert_allclose(numbers(*parts), numbers(whole), atol=1e-6)
    assert sum(len(t.lymphocytes_um) for t in parts) == len(whole.lymphocytes_um)
    assert sum(len(t.stroma_um) for t in parts) == len(whole.stroma_um)


def test_a_field_at_single_places_is_the_field_of_a_raster():
    y, x = np.arange(-40, 60, 3.7), np.arange(1000, 1100, 4.1)
    grid = np.meshgrid(y, x, indexing="ij")
    values = field_at(3, "f", grid[0].ravel(), grid[1].ravel(), 5.0)
    np.testing.assert_allclose(values.reshape(len(y), len(x)), field(3, "f", y, x, 5.0), atol=1e-5)


def test_truth_on_file_gives_the_same_cells_again(tmp_path):
    pair = make_pair(tmp_path, "c", score="3+", seed=5, size_px=(600, 800))
    tissue = tissue_of_truth(pair.truth_json)
    cells, direct = cells_of(tissue), cells_of(tissue_of(5, "3+", (600, 800), 0.5))
    np.testing.assert_array_equal(cells.corners_um, direct.corners_um)
    assert len(cells) == json.loads(pair.truth_json.read_text(encoding="utf-8"))["tumour_cells"]
    nests = [shape(f["geometry"]).buffer(16) for f in json.loads(pair.regions.read_text())["features"]]
    inside = [any(nest.contains(Point(x / 0.5, y / 0.5)) for nest in nests) for y, x in cells.centre_um]
    assert np.mean(inside) > 0.98
    (tmp_path / "other.json").write_text('{"seed": 1}', encoding="utf-8")
    with pytest.raises(JobFailed, match="not the truth of a phantom"):
        tissue_of_truth(tmp_path / "other.json")


def test_a_cohort_writes_its_cells_when_it_is_asked(tmp_path):
    for _ in cohort_steps(tmp_path, cases=1, seed=3, size_px=640, mpp=0.5):
        pass
    assert not list(tmp_path.glob("*_cells.npz"))
    for _ in cohort_steps(tmp_path, cases=1, seed=3, size_px=640, mpp=0.5, cells=True):
        pass
    cells = cells_of(tissue_of_truth(next(tmp_path.glob("*_truth.json"))))
    with np.load(next(tmp_path.glob("*_cells.npz"))) as held:
        assert sorted(held["centre_um"][:, 0]) == pytest.approx(sorted(cells.centre_um[:, 0]), abs=1e-3)
        assert held["mass"].sum() == pytest.approx(cells.mass().sum(), rel=1e-4)
        assert len(held["starts"]) == len(cells) + 1
        assert held["starts"][-1] == len(held["corners_um"])


def test_graded_membranes_are_drawn_on_the_same_cells_and_remembered(tmp_path):
    def cohort():
        for _ in cohort_steps(tmp_path, cases=1, seed=3, size_px=640, mpp=0.5, membranes="graded"):
            pass
        return next(tmp_path.glob("*_truth.json"))

    path = cohort()
    made = path.stat().st_mtime_ns
    assert cohort().stat().st_mtime_ns == made
    truth = json.loads(path.read_text(encoding="utf-8"))
    graded = cells_of(tissue_of_truth(path))
    plain = cells_of(tissue_of(truth["seed"], truth["score"], 640, 0.5))
    np.testing.assert_array_equal(graded.centre_um, plain.centre_um)
    np.testing.assert_array_equal(graded.state, plain.state)
    faint = graded.state == 1
    assert faint.any()
    assert graded.mass()[faint].mean() > 3 * plain.mass()[faint].mean()
    for _ in cohort_steps(tmp_path, cases=1, seed=3, size_px=640, mpp=0.5):
        pass
    assert "membranes" not in json.loads(path.read_text(encoding="utf-8"))
    with pytest.raises(JobFailed, match="plain or graded"):
        make_pair(tmp_path, "x", score="0", seed=1, size_px=512, membranes="vivid")


def test_slides_are_drawn_as_they_always_were():
    """Models were trained on phantoms: another drawing would be another tissue under the same seed."""
    tissue = tissue_of(21, "2+", 2048, 0.5)
    scene = make_scene(tissue.case, tissue.layout, tissue.census, 0.5)
    he, ihc = render_block(scene, 0, 1, (1024, 1024))
    for image, moments, sample in (
        (
            he,
            [222.24, 202.07, 223.03, 29.41, 47.18, 24.4],
            [
                [191, 204, 222, 199, 231, 240],
                [198, 240, 211, 170, 192, 240],
                [151, 191, 207, 188, 196, 241],
                [218, 240, 240, 187, 198, 240],
            ],
        ),
        (
            ihc,
            [225.73, 224.79, 228.55, 22.14, 26.84, 22.46],
            [
                [221, 229, 234, 226, 237, 239],
                [225, 240, 230, 212, 220, 239],
                [136, 219, 227, 218, 104, 239],
                [231, 240, 240, 214, 150, 242],
            ],
        ),
    ):
        # Numerical libraries may differ in the last digit of a grey value.
        assert [*image.mean((0, 1)), *image.std((0, 1))] == pytest.approx(moments, abs=0.05)
        np.testing.assert_allclose(image[500::170, 60::170].mean(axis=2), sample, atol=2)
