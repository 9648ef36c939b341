"""Two slides are laid on each other by what is on them, or it is said why not."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.registration.affine import Alignment
from napari_her2.registration.automatic import FINDING, MEASURING, register_pictures, register_steps
from napari_her2.registration.residuals import MEASURED, residuals_of
from napari_her2.registration.rotations import placing_steps
from napari_her2.steps import finished

if TYPE_CHECKING:
    from pathlib import Path

MPP = 4.0


def tissue(seed: int, side: int = 400) -> np.ndarray:
    """Density of nuclei of an irregular piece of tissue, (side, side) in 0 to 1; 0 beside it."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) - side / 2
    angle = np.arctan2(y, x)
    edge = (
        0.36
        * side
        * (1 + sum(rng.uniform(-0.12, 0.12) * np.cos(k * angle + rng.uniform(0, 6)) for k in (1, 2, 3)))
    )
    inside = np.hypot(y, x) < edge
    nests = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), 10)
    cells = cv2.GaussianBlur(rng.random((side, side)), (0, 0), 1.5)
    cells = (cells - cells.min()) / np.ptp(cells)
    return inside * (0.2 + 0.5 * (nests > 0) + 0.3 * cells)


def stained(density: np.ndarray, second: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    """Haematoxylin of a density, and a second stain that has nothing to do with it; optical densities."""
    haematoxylin = np.array([0.65, 0.70, 0.29])
    other = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=density.shape), (0, 0), 15)
    other = (density > 0) * (other > 0)
    absorbed = density[..., None] * haematoxylin + 0.4 * other[..., None] * np.asarray(second)
    return np.rint(240 * np.exp(-absorbed)).astype(np.uint8)


EOSIN, DAB = (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)


def moved(picture: np.ndarray, alignment: Alignment) -> np.ndarray:
    """A picture whose points (µm) go where an alignment says; glass beside it."""
    pixels = np.diag([1 / MPP, 1 / MPP, 1.0]) @ alignment.matrix @ np.diag([MPP, MPP, 1.0])
    flipped = pixels[[1, 0]][:, [1, 0, 2]]
    return cv2.warpAffine(picture, flipped, picture.shape[1::-1], borderValue=(240, 240, 240))


def worst_um(found: Alignment, truth: Alignment, side: int = 400) -> float:
    """Greatest error of an alignment that should undo a movement, over the tissue."""
    points = np.stack(np.meshgrid(*2 * [np.linspace(0.2, 0.8, 5) * side * MPP]), axis=-1).reshape(-1, 2)
    return float(np.hypot(*(found.apply(truth.apply(points)) - points).T).max())


HE = stained(tissue(1), EOSIN)
CENTRE = (200 * MPP, 200 * MPP)


@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@example(degrees=99.0, shift=(0.0, 0.0), mirrored=False, stretch=1.0)
@given(
    degrees=st.floats(0, 360),
    shift=st.tuples(st.floats(-150, 150), st.floats(-150, 150)),
    mirrored=st.booleans(),
    stretch=st.floats(0.95, 1.05),
)
def test_a_section_of_another_stain_is_found_whichever_way_round(
    degrees: float, shift: tuple[float, float], mirrored: bool, stretch: float
) -> None:
    truth = Alignment.identity().turned(degrees, CENTRE).shifted(shift)
    flip = np.diag([stretch, -1 / stretch if mirrored else 1 / stretch, 1.0])
    flip[:2, 2] = np.asarray(CENTRE) - flip[:2, :2] @ CENTRE
    truth = Alignment(truth.matrix @ flip)
    found = register_pictures(HE, moved(stained(tissue(1), DAB, seed=5), truth), MPP, MPP)
    assert found.reason == ""
    assert worst_um(found.alignment, truth) < MPP  # a pixel
    assert found.agreement > 0.9
    assert found.error_um < MPP


def test_the_same_slides_give_the_same_alignment() -> None:
    ihc = stained(tissue(1), DAB, seed=5)
    first, second = (register_pictures(HE, ihc, MPP, MPP) for _ in range(2))
    np.testing.assert_array_equal(first.alignment.matrix, second.alignment.matrix)
    np.testing.assert_array_equal(first.error.error_um, second.error.error_um)


def test_other_tissue_is_refused_in_words() -> None:
    found = register_pictures(HE, stained(tissue(2), DAB, seed=5), MPP, MPP)
    assert "different cases" in found.reason
    assert "3 points" in found.reason
    assert found.alignment.is_identity
    assert found.error is None
    assert np.isnan(found.error_um)


@pytest.mark.parametrize("blank_first", [False, True])
def test_blank_glass_is_refused_in_words(blank_first: bool) -> None:
    blank = np.full((400, 400, 3), 240, np.uint8)
    pair = (blank, HE) if blank_first else (HE, blank)
    found = register_pictures(*pair, MPP, MPP)
    assert "no tissue" in found.reason
    assert ("stays" if blank_first else "moves") in found.reason


def test_the_error_map_tells_where_a_section_is_pulled() -> None:
    """One half is stretched by 20 µm beyond what an affine can undo, and blocks there say so."""
    density = tissue(1)
    y, x = np.indices(density.shape, np.float32)
    pull = 10 * np.exp(-((y - 130) ** 2 + (x - 200) ** 2) / 45**2)  # pixels
    ihc = cv2.remap(stained(density, DAB, seed=5), x, (y + pull).astype(np.float32), cv2.INTER_LINEAR)
    found = register_pictures(HE, ihc, MPP, MPP)
    rows, cols = found.error.error_um.shape
    at_y = found.error.centre_um[0] + found.error.pitch_um[0] * np.arange(rows)
    at_x = found.error.centre_um[1] + found.error.pitch_um[1] * np.arange(cols)
    near = np.hypot(
        *(part - c for part, c in zip(np.meshgrid(at_y, at_x, indexing="ij"), (520, 800), strict=True))
    )
    error = found.error.error_um
    assert np.nanmedian(error[near < 150]) > 3 * np.nanmedian(error[near > 450])
    assert 12 < np.nanmax(error) < 45
    assert np.isnan(error[0, 0])  # glass


def test_a_known_shift_is_measured_to_a_part_of_a_pixel() -> None:
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.normal(size=(512, 512)), (0, 0), 5).astype(np.float32)
    matrix = np.array([[1, 0, -7.3], [0, 1, 4.6]])
    shifted = cv2.warpAffine(picture, matrix, (512, 512), flags=cv2.INTER_CUBIC)
    everywhere = np.ones(picture.shape, np.bool_)
    residuals = residuals_of(picture, shifted, everywhere, everywhere, MEASURED)
    inner = residuals.shift_px[1:-1, 1:-1]
    np.testing.assert_allclose(inner[..., 0], 4.6, atol=0.3)
    np.testing.assert_allclose(inner[..., 1], -7.3, atol=0.3)
    assert residuals.near == residuals.count - int((residuals.distance_px > MEASURED.reach / 4).sum())


def test_a_rotation_is_found_by_its_correlation() -> None:
    density = tissue(1).astype(np.float32)
    turned = cv2.warpAffine(density, cv2.getRotationMatrix2D((199.5, 199.5), 90, 1), (400, 400))
    best = finished(placing_steps(density, turned))[0]
    np.testing.assert_allclose(np.abs(best.matrix[:2, :2]), [[0, 1], [1, 0]], atol=1e-6)
    np.testing.assert_allclose((best.matrix @ (199.5, 199.5, 1))[:2], 199.5, atol=6)
    assert best.correlation > 0.95


def _slide(path: Path, picture: np.ndarray, mpp: float = MPP) -> Path:
    per_cm = 1e4 / mpp
    tifffile.imwrite(
        path,
        picture,
        tile=(128, 128),
        photometric="rgb",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    return path


def test_slides_on_disk_are_aligned_with_reports_on_the_way(tmp_path: Path) -> None:
    truth = Alignment.identity().turned(-20, CENTRE).shifted((60, -90))
    ihc = moved(stained(tissue(1), DAB, seed=5), truth)
    wide = np.full((400, 1600, 3), 240, np.uint8)  # moved by almost 5 mm
    wide[:, 1200:] = ihc
    with (
        open_slide(_slide(tmp_path / "he.tif", HE)) as he,
        open_slide(_slide(tmp_path / "i.tif", wide)) as other,
    ):
        reports = []
        found = finished(register_steps(he, other), reports.append)
    assert found.reason == ""
    assert worst_um(found.alignment, truth.shifted((0, 1200 * MPP))) < MPP
    assert [reports[0].stage, reports[-1].stage] == [FINDING, MEASURING]
    assert all(report.done <= report.total for report in reports)


def test_a_blank_slide_is_named(tmp_path: Path) -> None:
    blank = np.full((400, 400, 3), 240, np.uint8)
    with (
        open_slide(_slide(tmp_path / "he.tif", HE)) as he,
        open_slide(_slide(tmp_path / "b.tif", blank)) as glass,
    ):
        assert glass.name in finished(register_steps(he, glass)).reason
        steps = register_steps(he, glass)
        next(steps)
        steps.close()  # cancelled: nothing is left open


def test_two_scanners_agree_on_one_slide(shared_data: Path) -> None:
    """One slide, scanned twice: 3D Histech's and Olympus' µm/px and pixels are independent."""
    slides = shared_data / "slides"
    with (
        open_slide(slides / "os2_ki67_hamamatsu.ome.tif") as fixed,
        open_slide(slides / "os2_ki67_olympus.ome.tif") as moving,
    ):
        found = finished(register_steps(fixed, moving))
    assert found.reason == ""
    middle = np.asarray(fixed.shape) / 2 * fixed.mpp
    assert np.hypot(*(found.alignment.apply([middle])[0] - middle)) < 10
    assert found.error_um < 1


def _picture(folder: Path, stain: str) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(folder / f"lung_lesion3_{stain}.jpg"))[..., ::-1])


def _landmarks(folder: Path, stain: str) -> np.ndarray:
    with (folder / f"landmarks_PS_{stain}.csv").open(encoding="utf-8") as text:
        return np.array([[float(row["Y"]), float(row["X"])] for row in csv.DictReader(text)]) / 10 - 0.5


@pytest.mark.parametrize("stain", ["CD31-3", "Ki67-7"])
def test_serial_sections_lie_as_experts_say(shared_data: Path, stain: str) -> None:
    folder = shared_data / "registration"
    he, ihc = _picture(folder, "He"), _picture(folder, stain)
    found = register_pictures(he, ihc, 1.0, 1.0)
    here, there = _landmarks(folder, stain), _landmarks(folder, "He")

    def error(alignment: Alignment) -> float:
        return float(np.median(np.hypot(*(alignment.apply(here) - there).T)))

    assert found.reason == ""
    best = error(Alignment.from_points(here, there))
    assert error(found.alignment) < 1.15 * best < error(Alignment.identity()) / 3
    # The map, which knows no landmarks, is right to a half.
    assert 0.4 < found.error_um / error(found.alignment) < 1.6


def test_two_halves_of_one_section_are_refused(shared_data: Path) -> None:
    folder = shared_data / "registration"
    he, ihc = _picture(folder, "He"), _picture(folder, "proSPC-4")
    assert register_pictures(he[:, :446], ihc[:, 446:], 1.0, 1.0).reason
