"""What is chosen as a slide: odd names, addresses, pipes, folders, a DICOM label instead of its slide."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide.files import ByteFile

IMAGE = np.random.default_rng(4).integers(0, 255, (130, 150, 3)).astype(np.uint8)


def written(path: Path) -> Path:
    tifffile.imwrite(path, IMAGE, photometric="rgb", tile=(64, 64), metadata=None)
    return path


@pytest.mark.parametrize("name", ["a::b.tif", "zip::http://x.tif", "~case.tif", "~", "#1?x=2.tif", "50%.tif"])
def test_any_file_name_opens(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    written(file)
    for path in (name, file, tmp_path / name):
        with open_slide(path) as slide:
            assert slide.backend.startswith("tiffslide")
            assert np.array_equal(slide.read(0, 10, 20, 100, 100), IMAGE[10:110, 20:120])


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    written(tmp_path / "slide.tif")
    with open_slide("~/slide.tif") as slide:
        assert slide.shape == (130, 150)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/slide.tif", "~nobody-of-this-name", "x" * 5000])
def test_a_path_that_leads_nowhere_is_refused(name):
    with pytest.raises(SlideError, match=r"There is no file|cannot be read"):
        open_slide(name)


def test_a_nul_in_the_path_is_refused():
    with pytest.raises(SlideError, match="check the path"):
        open_slide("a\0b.svs")


@pytest.mark.parametrize("address", ["https://host/a.svs", "s3://bucket/a.svs", "file:///tmp/a.svs"])
@pytest.mark.parametrize("kind", [str, Path])
def test_an_address_is_refused_with_what_to_do(address, kind):
    with pytest.raises(SlideError, match="is an address, not a file: download the slide"):
        open_slide(kind(address))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SlideError, match="no file but a pipe or a device"):
        open_slide(tmp_path / "pipe.svs")
    with pytest.raises(SlideError, match="no file but a pipe or a device"):  # made behind the first look
        ByteFile(tmp_path / "pipe.svs")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no devices as files")
def test_a_device_is_refused():
    with pytest.raises(SlideError, match="no file but a pipe or a device"):
        open_slide("/dev/zero")


@pytest.fixture
def dicom(shared_data) -> Path:
    pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    return shared_data / "slides" / "dicom-cmu1-single-level"


def kinds(folder: Path) -> dict[str, Path]:
    """Files of a DICOM slide by the third value of their ImageType."""
    found = {}
    for path in folder.iterdir():
        head = path.read_bytes()[:2000]
        start = head.index(b"ORIGINAL\\PRIMARY\\") + 17
        found[head[start:].split(b"\\")[0].decode()] = path
    return found


def test_the_folder_above_a_dicom_slide_opens_it_and_says_so(dicom, tmp_path):
    shutil.copytree(dicom, tmp_path / "case" / "series")
    with open_slide(tmp_path / "case") as slide:
        assert slide.shape == (2967, 2220)
        assert any("series, one directory deeper" in warning for warning in slide.warnings)
    shutil.copytree(dicom, tmp_path / "case" / "again")
    with pytest.raises(SlideError, match=r"holds 2 directories with slides.*again, series"):
        open_slide(tmp_path / "case")


@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW", "THUMBNAIL"])
def test_the_slide_is_opened_where_its_label_or_overview_was_chosen(dicom, kind):
    files = kinds(dicom)
    with open_slide(files["VOLUME"]) as right, open_slide(files[kind]) as slide:
        assert slide.shape == (2967, 2220)
        assert slide.fingerprint == right.fingerprint
        assert any(f"only the {kind.lower()}" in warning for warning in slide.warnings)
        assert not any("only the" in warning for warning in right.warnings)


def test_of_two_copies_of_a_dicom_file_the_chosen_one_is_opened(shared_data, tmp_path):
    pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    source = shared_data / "slides" / "camelyon_node_jpeg.dcm"
    copies = [shutil.copyfile(source, tmp_path / name) for name in ("a.dcm", "b.dcm")]
    for copy in copies:
        try:
            with open_slide(copy) as slide:
                assert slide._backend.path == copy
        except SlideError as error:
            assert copy.name in str(error)  # noqa: PT017 - OpenSlide may not take two of a kind


def test_a_label_alone_is_refused_as_what_it_is(dicom, tmp_path):
    label = shutil.copyfile(kinds(dicom)["LABEL"], tmp_path / "label.dcm")
    with pytest.raises(SlideError, match="only the label of a slide"):
        open_slide(label)


def test_every_level_of_a_dicom_slide_is_the_same_slide(shared_data):
    pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    folder = shared_data / "slides" / "dicom-cmu1-pyramid"
    with open_slide(folder) as slide, open_slide(folder / "level-5-frames-0-1.dcm") as other:
        assert slide.fingerprint == other.fingerprint
        assert slide.level_shapes == other.level_shapes


def broken_maker_header(path: Path) -> Path:
    """A Philips file whose XML lacks what tiffslide asks of it; 0.5 µm/px in its tags, two levels."""
    text = '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"></DataObject>'
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None, "software": "Philips DP v1.0"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            IMAGE, description=text, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **options
        )
    return path


def test_a_header_that_tiffslide_fails_on_is_not_called_damaged_and_its_scale_is_kept(tmp_path):
    with open_slide(broken_maker_header(tmp_path / "philips.tif")) as slide:
        assert slide.mpp == (0.5, 0.5)
        assert not any("damaged" in warning for warning in slide.warnings)
        assert np.array_equal(slide.read(0, 0, 0, 130, 150), IMAGE)


def test_a_failure_of_the_parser_is_told_as_it_is(tmp_path, monkeypatch):
    import tiffslide

    def fail(self, *args, **options):
        raise NotImplementedError("planes of this kind")

    monkeypatch.setattr(tiffslide.TiffSlide, "__init__", fail)
    monkeypatch.setattr("napari_her2.slide.backends.find_spec", lambda name: None)
    with pytest.raises(SlideError, match="planes of this kind") as caught:
        open_slide(written(tmp_path / "a.tif"))
    assert "damaged" not in str(caught.value)
    assert "export the slide as a tiled TIFF" in str(caught.value)


def test_where_openslide_reads_what_tiffslide_cannot_the_scale_of_the_header_is_kept(tmp_path, monkeypatch):
    pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    import tiffslide

    def fail(self, *args, **options):
        raise ValueError("no such luck")

    path = tmp_path / "mm.tif"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
        writer.write(IMAGE, resolution=(4000, 2000), resolutionunit="MILLIMETER", **options)
        writer.write(IMAGE[::2, ::2], subfiletype=1, **options)
    monkeypatch.setattr(tiffslide.TiffSlide, "__init__", fail)
    with open_slide(path) as slide:
        assert slide.backend.startswith("OpenSlide")
        assert slide.mpp == (0.5, 0.25)
        assert slide.level_shapes == ((130, 150), (65, 75))
        assert "no such luck" in slide.warnings[0]
        assert "damaged" not in slide.warnings[0]


def test_what_openslide_refuses_is_told_as_it_says_it(tmp_path, monkeypatch):
    openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")

    def fail(path):
        raise openslide.OpenSlideError("Bad direction attribute LEFT")

    monkeypatch.setattr(openslide, "OpenSlide", fail)
    with pytest.raises(SlideError, match="Bad direction attribute LEFT") as caught:
        open_slide(written(tmp_path / "a.tif"), backend="openslide")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("kind", [1, 7])
def test_an_aperio_header_stored_as_bytes_is_read(tmp_path, kind):
    text = b"Aperio Image Library v11\r\n150x130 (64x64)|AppMag = 20|MPP = 0,4990|User = " + b"\xd5\xc5"
    path = tmp_path / "bytes.svs"
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    tifffile.imwrite(path, IMAGE, description=text + b"\0", **options)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[270].offset
    with path.open("r+b") as file:
        file.seek(place + 2)
        file.write(struct.pack("<H", kind))
    with open_slide(path) as slide:
        assert slide.backend.startswith("tiffslide")
        assert slide.mpp == (0.499, 0.499)
        assert slide.objective == 20
