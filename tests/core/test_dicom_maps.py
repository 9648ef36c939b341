"""Results of DICOM slides as DICOM, read back by highdicom, and checked by dciodvfy where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest

from napari_her2 import score_slide
from napari_her2.errors import JobFailed
from napari_her2.export.dicom_maps import NO_VALUE, REPORT_FILE, SCHEME, write_dicom
from napari_her2.slide.dicom import dicom_slide
from scored import make_result

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.inference.result import SlideResult

hd = pytest.importorskip("highdicom", reason="highdicom, an extra, is not installed")


@pytest.fixture(scope="module")
def dicom_result(shared_data, tiny_model) -> SlideResult:
    slides = shared_data / "slides" / "dicom-cmu1-single-level"
    return score_slide(slides, tiny_model, device="cpu", cache=False, override_fit=True)


@pytest.fixture(scope="module")
def files(dicom_result, tmp_path_factory) -> tuple[Path, ...]:
    return write_dicom(dicom_result, tmp_path_factory.mktemp("dicom"))


def test_a_map_lies_over_its_slide_with_its_numbers(dicom_result, files) -> None:
    shown = [of for of in dicom_result.maps if of.holds_any and of.info.layer_name]
    assert len(files) == len(shown) + 1
    source = pydicom.dcmread(dicom_slide(dicom_result.slide_path)[0], stop_before_pixels=True)
    for tile_map, path in zip(shown, files, strict=False):
        made = hd.pm.pmread(path) if hasattr(hd.pm, "pmread") else pydicom.dcmread(path)
        assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert made.StudyInstanceUID == source.StudyInstanceUID
        pixels = np.frombuffer(made.FloatPixelData, np.float32).reshape(-1, made.Rows, made.Columns)
        rows, columns = tile_map.values.shape
        first = pixels[0][:rows, :columns]
        expected = np.where(np.isfinite(tile_map.values), tile_map.values, np.float32(NO_VALUE))
        np.testing.assert_array_equal(first, expected[: made.Rows, : made.Columns])
        shared = made.SharedFunctionalGroupsSequence[0]
        spacing = shared.PixelMeasuresSequence[0].PixelSpacing
        assert [float(mm) for mm in spacing] == pytest.approx([tile_map.grid.tile_um / 1000] * 2)


def test_the_report_holds_the_answer_and_the_notice(dicom_result, files) -> None:
    report = hd.sr.srread(files[-1])
    assert files[-1].name == REPORT_FILE
    (group,) = report.content.get_image_measurement_groups()
    said = {one.name.meaning: one.value.meaning for one in group.get_qualitative_evaluations()}
    assert said["answer"] == dicom_result.label[:64]
    assert said["task"] == dicom_result.task[:64]
    assert said["notice"].startswith("Research use only")
    measured = {one.name.meaning: float(one.value) for one in group.get_measurements()}
    for name, share in dicom_result.probabilities.items():
        assert measured[f"probability of {name}"] == pytest.approx(share, abs=1e-6)
    assert all(one.name.scheme_designator == SCHEME for one in group.get_measurements())


def test_dciodvfy_finds_no_error(files) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    for path in files:
        found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]
        assert not errors, (path.name, errors)


def test_a_withheld_answer_is_not_written(dicom_result, tmp_path) -> None:
    hidden = replace(dicom_result.doubt, verdict="unlike", min_familiarity=0.01, shown_anyway=False)
    files = write_dicom(replace(dicom_result, doubt=hidden), tmp_path)
    report = hd.sr.srread(files[-1])
    (group,) = report.content.get_image_measurement_groups()
    assert not [one for one in group.get_measurements() if "probability" in one.name.meaning]
    evidence = [path for path in files if path.name.startswith("evidence")]
    assert not evidence


def test_a_slide_that_is_no_dicom_is_refused_in_words(scored, tmp_path) -> None:
    with pytest.raises(JobFailed, match="is no DICOM slide"):
        write_dicom(scored, tmp_path)


def test_a_slide_that_was_moved_is_told(tmp_path) -> None:
    with pytest.raises(JobFailed, match="cannot be read"):
        write_dicom(make_result(), tmp_path)
