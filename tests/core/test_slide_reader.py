"""Opening real slides: what they say about themselves, and pixels equal to those of other libraries."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
import tiffslide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.slide.reader import Slide

openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")


@pytest.fixture(scope="module")
def cmu1(shared_data: Path) -> Slide:
    return open_slide(shared_data / "slides" / "cmu1_small_region.svs")


@pytest.fixture(scope="module")
def cmu1_pixels(shared_data: Path) -> np.ndarray:
    with tiffslide.TiffSlide(str(shared_data / "slides" / "cmu1_small_region.svs")) as other:
        return other.read_region((0, 0), 0, other.dimensions, as_array=True)


@pytest.mark.parametrize(
    ("name", "shapes", "mpp", "source", "objective"),
    [
        ("cmu1_small_region.svs", ((2967, 2220),), (0.499, 0.499), "Aperio header", 20),
        ("tcga_cr_7395_no_mpp.svs", ((3567, 4443), (1783, 2221)), None, "not stated", None),
        ("os1_he.ome.tif", ((1101, 1101),), (0.2271024, 0.2270972), "OME-XML", None),
        ("camelyon_node_jpeg.dcm", ((700, 1152),), (28.968, 28.969), "DICOM header", None),
        ("dicom-cmu1-single-level", ((2967, 2220),), (0.499, 0.499), "DICOM header", None),
    ],
)
def test_a_real_slide_says_its_size_and_resolution(shared_data, name, shapes, mpp, source, objective):
    with open_slide(shared_data / "slides" / name) as slide:
        assert slide.level_shapes == shapes
        assert slide.shape == shapes[0]
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, abs=1e-6))
        assert slide.mpp_source == source
        assert slide.objective == objective
        assert slide.name == name.rsplit(".", 1)[0]


def test_downsamples_are_exact_on_each_axis(shared_data):
    with open_slide(shared_data / "slides" / "tcga_cr_7395_no_mpp.svs") as slide:
        assert slide.level_downsamples == ((1.0, 1.0), (3567 / 1783, 4443 / 2221))


def test_the_backend_is_named_and_another_than_the_default_is_a_warning(shared_data):
    slides = shared_data / "slides"
    with open_slide(slides / "cmu1_small_region.svs") as slide:
        assert slide.backend.startswith("tiffslide")
        assert slide.warnings == ()
    with open_slide(slides / "camelyon_node_jpeg.dcm") as slide:
        assert slide.backend.startswith("OpenSlide")
        assert "Read with OpenSlide" in slide.warnings[0]


def test_the_users_resolution_overrides_the_file(shared_data):
    with open_slide(shared_data / "slides" / "tcga_cr_7395_no_mpp.svs", mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.5, 0.5), "given by the user")
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs", mpp=(0.25, 0.3)) as slide:
        assert slide.mpp == (0.25, 0.3)


@pytest.mark.parametrize("mpp", [0, -0.5, 0.001, 353.0, float("nan"), (0.5,)])
def test_an_impossible_resolution_of_the_user_is_refused(shared_data, mpp):
    with pytest.raises(SlideError, match="no µm/px of a slide"):
        open_slide(shared_data / "slides" / "cmu1_small_region.svs", mpp=mpp)


def test_associated_images_and_icc_profile_are_those_openslide_finds(shared_data):
    path = shared_data / "slides" / "cmu1_small_region.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert set(slide.associated_images) == set(other.associated_images)
        theirs = np.asarray(other.associated_images["label"])[..., :3]
        assert np.array_equal(slide.associated_image("label"), theirs)
        with pytest.raises(SlideError, match="no associated image 'lable'"):
            slide.associated_image("lable")
    path = shared_data / "slides" / "tcga_cr_7395_no_mpp.svs"
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.icc_profile == other.color_profile.tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    y=st.integers(-300, 3200),
    x=st.integers(-300, 2500),
    height=st.integers(0, 300),
    width=st.integers(0, 300),
)
def test_any_window_equals_tiffslide_and_is_white_outside(cmu1, cmu1_pixels, y, x, height, width):
    around = np.pad(cmu1_pixels, ((300, 700), (300, 700), (0, 0)), constant_values=255)
    expected = around[y + 300 : y + 300 + height, x + 300 : x + 300 + width]
    read = cmu1.read(0, y, x, height, width)
    assert read.dtype == np.uint8
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("name", ["cmu1_small_region.svs", "tcga_cr_7395_no_mpp.svs"])
def test_every_level_equals_openslide(shared_data, name):
    path = shared_data / "slides" / name
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        for level, (height, width) in enumerate(slide.level_shapes):
            theirs = np.asarray(other.read_region((0, 0), level, (width, height)))[..., :3]
            assert np.array_equal(slide.read(level, 0, 0, height, width), theirs)


def test_an_ome_tiff_equals_tiffslide(shared_data):
    path = shared_data / "slides" / "os1_he.ome.tif"
    with open_slide(path) as slide, tiffslide.TiffSlide(str(path)) as other:
        theirs = other.read_region((0, 0), 0, other.dimensions, as_array=True)
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), theirs)


def test_dicom_equals_the_same_slide_as_svs(shared_data, cmu1_pixels):
    with open_slide(shared_data / "slides" / "dicom-cmu1-single-level") as slide:
        difference = slide.read(0, 0, 0, *slide.shape).astype(int) - cmu1_pixels
    # The DICOM file was encoded anew from the same pixels.
    assert abs(difference).mean() < 3


def test_reads_from_many_threads_at_once_are_right(cmu1, cmu1_pixels):
    rng = np.random.default_rng(1)
    places = rng.integers(0, (2967 - 200, 2220 - 200), (600, 2)).tolist()

    def right(place: list[int]) -> bool:
        y, x = place
        return np.array_equal(cmu1.read(0, y, x, 200, 150), cmu1_pixels[y : y + 200, x : x + 150])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, places))


def test_closing_while_others_read_never_gives_wrong_pixels(shared_data, cmu1_pixels):
    slide = open_slide(shared_data / "slides" / "cmu1_small_region.svs")
    started = threading.Barrier(5)

    def read_until_closed() -> bool:
        started.wait()
        while True:
            try:
                pixels = slide.read(0, 500, 500, 300, 300)
            except SlideError:
                return True
            if not np.array_equal(pixels, cmu1_pixels[500:800, 500:800]):
                return False

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(read_until_closed) for _ in range(4)]
        started.wait()
        slide.close()
        assert all(job.result() for job in jobs)


def open_files() -> set[str]:
    return {entry.path for entry in psutil.Process().open_files()}


@pytest.mark.parametrize("name", ["cmu1_small_region.svs", "dicom-cmu1-single-level"])
def test_the_file_closes_with_the_last_array_of_its_pyramid(shared_data, name):
    folder = str(shared_data.resolve() / "slides" / name)
    gc.collect()
    before = {path for path in open_files() if path.startswith(folder)}
    pyramid = open_slide(shared_data / "slides" / name).pyramid()
    gc.collect()
    assert pyramid[-1][:4, :4].compute().shape == (4, 4, 3)
    assert {path for path in open_files() if path.startswith(folder)} >= before
    del pyramid
    gc.collect()
    assert {path for path in open_files() if path.startswith(folder)} == before


def test_a_closed_slide_refuses_use(shared_data):
    with open_slide(shared_data / "slides" / "cmu1_small_region.svs") as slide:
        array = slide.pyramid()[0]
    assert slide.closed
    for use in (lambda: slide.read(0, 0, 0, 1, 1), slide.thumbnail, lambda: array[:1].compute()):
        with pytest.raises(SlideError, match="was closed"):
            use()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_is_refused(shared_data):
    script = """
import os, sys
from napari_her2 import open_slide
from napari_her2.errors import SlideError
slide = open_slide(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        slide.read(0, 0, 0, 8, 8)
    except SlideError as error:
        os._exit(7 if "forked" in str(error) else 1)
    os._exit(2)
_, status = os.waitpid(child, 0)
assert slide.read(0, 0, 0, 8, 8).shape == (8, 8, 3)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    path = shared_data / "slides" / "cmu1_small_region.svs"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 7, done.stderr.decode()


def test_a_level_or_window_that_cannot_be_is_refused(cmu1):
    with pytest.raises(SlideError, match="levels 0 to 0, not 1"):
        cmu1.read(1, 0, 0, 8, 8)
    with pytest.raises(SlideError, match="too large to read at once"):
        cmu1.read(0, 0, 0, 10**6, 10**6)


def test_the_fingerprint_is_of_the_content_not_of_the_name(shared_data, tmp_path):
    source = shared_data / "slides" / "cmu1_small_region.svs"
    copy = shutil.copyfile(source, tmp_path / "renamed.svs")
    with open_slide(source) as slide, open_slide(copy) as other:
        assert slide.fingerprint == other.fingerprint
        assert len(slide.fingerprint) == 64
    with copy.open("r+b") as file:
        file.seek(500_000)
        file.write(b"other")
    with open_slide(source) as slide, open_slide(copy) as other:
        assert slide.fingerprint != other.fingerprint
