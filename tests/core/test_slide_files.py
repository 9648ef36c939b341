"""Which files a slide is made of, format by format: each of them counts for its identity."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import tifffile

from napari_her2.errors import SlideError
from napari_her2.slide import slide_files
from napari_her2.slide.identity import content_sha256
from napari_her2.slide.slide_files import slide_parts


def write(path, content=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def dicom(path, series, kind="VOLUME", pixels=b""):
    image_type, uid = f"ORIGINAL\\PRIMARY\\{kind}\\NONE".encode(), series.encode()
    head = bytes(128) + b"DICM"
    head += b"\x08\x00\x08\x00CS" + len(image_type).to_bytes(2, "little") + image_type
    head += b"\x20\x00\x0e\x00UI" + len(uid).to_bytes(2, "little") + uid + b"\x28\x00"
    return write(path, head + pixels)


def make_mrxs(folder):
    for name in ("Slidedat.ini", "Index.dat", "Data0000.dat", "deeper/Data0001.dat"):
        write(folder / "case" / name)
    return write(folder / "case.mrxs"), [f"case/{name}" for name in ("Index.dat", "deeper/Data0001.dat")]


def make_vsi(folder):
    write(folder / "_case_" / "stack1" / "frame_t.ets")
    return write(folder / "case.vsi"), ["_case_/stack1/frame_t.ets"]


def make_vms(folder):
    for name in ("case.jpg", "case(0,1).jpg", "map.jpg"):
        write(folder / name)
    lines = "[Virtual Microscope Specimen]\nImageFile=case.jpg\nImageFile(0,1)=case(0,1).jpg\n"
    lines += "MapFile=map.jpg\nMacroImage=gone.jpg\nNoLayers=1\nReference=../../secret\n"
    return write(folder / "case.vms", lines.encode()), ["case.jpg", "case(0,1).jpg", "map.jpg"]


def make_ome(folder):
    text = '<?xml version="1.0"?><OME><UUID FileName="{}">a</UUID><UUID FileName="{}">b</UUID></OME>'
    for name in ("a.ome.tif", "b.ome.tif"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((64, 64, 3), ord(name[0]), np.uint8)
        tifffile.imwrite(path, pixels, description=text.format("a.ome.tif", "b.ome.tif"), metadata=None)
    return folder / "a.ome.tif", ["b.ome.tif"]


def make_dicom(folder):
    dicom(folder / "1.dcm", "1.2.3", pixels=bytes(99))
    dicom(folder / "2.dcm", "1.2.3", "LABEL", b"label")
    dicom(folder / "3.dcm", "1.2.3", pixels=b"level")
    return folder / "1.dcm", ["2.dcm", "3.dcm"]


MAKERS = [make_mrxs, make_vsi, make_vms, make_ome, make_dicom]


@pytest.mark.parametrize("make", MAKERS)
def test_every_file_of_a_slide_counts_and_no_other(make, tmp_path):
    path, others = make(tmp_path / "slide")
    before = content_sha256(path)
    write(path.parent / "notes.txt", b"of somebody else")
    dicom(path.parent / "another.dcm", "9.9.9")
    assert content_sha256(path) == before
    for name in others:
        file = path.parent / name
        content = file.read_bytes()
        file.write_bytes(content + b"!")
        assert content_sha256(path) != before
        file.write_bytes(content)
    assert content_sha256(path) == before


@pytest.mark.parametrize("make", MAKERS)
def test_a_copy_of_all_files_elsewhere_is_the_same_slide(make, tmp_path):
    path, _ = make(tmp_path / "slide")
    shutil.copytree(path.parent, tmp_path / "copy")
    assert content_sha256(tmp_path / "copy" / path.name) == content_sha256(path)


def test_a_renamed_mirax_slide_is_the_same_and_one_with_exchanged_parts_is_not(tmp_path):
    path, _ = make_mrxs(tmp_path)
    write(tmp_path / "case" / "Data0000.dat", b"other pixels")
    before = content_sha256(path)
    (tmp_path / "case").rename(tmp_path / "renamed")
    renamed = path.rename(tmp_path / "renamed.mrxs")
    assert content_sha256(renamed) == before
    first, second = (tmp_path / "renamed" / name for name in ("Data0000.dat", "deeper/Data0001.dat"))
    pixels = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(pixels)
    assert content_sha256(renamed) != before


def test_a_dicom_slide_is_one_whichever_of_its_files_or_its_folder_is_opened(tmp_path):
    path, others = make_dicom(tmp_path / "slide")
    same = {content_sha256(item) for item in (path, path.parent, *(path.parent / name for name in others))}
    assert len(same) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideError, match="no DICOM slide"):
        slide_parts(tmp_path / "empty")


def test_two_files_of_one_ome_set_are_two_slides(tmp_path):
    path, _ = make_ome(tmp_path)
    assert content_sha256(path) != content_sha256(path.with_name("b.ome.tif"))


def test_no_name_in_an_index_leads_out_of_its_folder(tmp_path):
    write(tmp_path / "secret.jpg")
    lines = [f"ImageFile={name}" for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), ".", "..", "")]
    path = write(tmp_path / "slide" / "case.vms", "\n".join(lines).encode() + b"\nImageFile=\0\n=\n")
    assert [part.path for part in slide_parts(path)] == [path]


@pytest.mark.parametrize("name", ["case.mrxs", "case.vsi"])
@pytest.mark.parametrize("kind", ["files", "folders", "deep"])
def test_a_folder_that_no_slide_has_is_refused_soon(tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr(slide_files, "_MOST_BELOW", 30)
    folder = tmp_path / ("case" if name.endswith("mrxs") else "_case_")
    index = write(tmp_path / name)
    for number in range(29):
        write(folder / f"Data{number}.dat")
    assert len(slide_parts(index)) == 30
    if kind == "files":
        write(folder / "a" / "b.dat")
    elif kind == "folders":
        (folder / "a" / "b").mkdir(parents=True)
    else:
        for number in range(29):
            (folder / f"Data{number}.dat").unlink()
        write(folder.joinpath(*"abcd") / "e.dat")
    with pytest.raises(SlideError, match=rf"beside {re.escape(name)} is no folder of a slide.*alone in it"):
        slide_parts(index)


def test_links_to_folders_are_not_followed_below_a_slide(tmp_path):
    index, _ = make_mrxs(tmp_path)
    (tmp_path / "case" / "around").symlink_to(tmp_path / "case", target_is_directory=True)
    assert [part.label for part in slide_parts(index)] == [
        "",
        "Data0000.dat",
        "Index.dat",
        "Slidedat.ini",
        "deeper/Data0001.dat",
    ]
