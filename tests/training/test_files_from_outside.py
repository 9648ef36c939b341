"""Tables, configurations, features and pictures of any origin: read, or refused in one sentence."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.cohort.features import read_feature_file
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.config import find_config, read_config
from napari_her2_training.files import OWN_FILES
from napari_her2_training.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER = "case_id,he,ihc,score,split,fold"


def refused(read: Callable[[], object], match: str | None = None) -> str:
    with pytest.raises(JobFailed, match=match) as caught:
        read()
    line = str(caught.value)
    assert line.isprintable(), line
    assert len(line) < 1500
    return line


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "a.svs").touch()
    path = folder / "cases.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"x,{'n' * 5000}.svs,,0,,", "does not exist"),
        ("x,~nouser/a.svs,,0,,", "does not exist"),
        ("x,~,,0,,", "folder without DICOM"),
        ("x,/,,0,,", "folder without DICOM"),
        ("x,.,,0,,", "folder without DICOM"),
        ("x,loop.svs,,0,,", "no file that can be read"),
        ("x,a.svs,loop.svs,0,,", "no file that can be read"),
        ("x,pipe.svs,,0,,", "no file that can be read"),
        (f"x,a.svs,,0,,{'9' * 5000}", "not a whole number"),
        (f"x,a.svs,,{'9' * 5000},,", "score '9+"),
        (f"x,a.svs,,0,{'t' * 5000},", "split 't+"),
        ("x,\x1b[2J.svs,,0,,", "does not exist"),
    ],
)
def test_a_row_of_any_content_is_a_fault_of_that_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    assert "Row 2" in refused(lambda: read_manifest(table(tmp_path, row)), message)


def test_the_home_folder_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "one" / "two" / "three"
    deep.mkdir(parents=True)
    (deep / "slide.dcm").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setenv("HOME", str(tmp_path))
    looked: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: looked.append(str(place)) or scan(place))
    refused(lambda: read_manifest(table(tmp_path, "x,~,,0,,")), "without DICOM")
    assert str(tmp_path) in looked
    assert str(deep) not in looked


def test_a_folder_of_dicom_files_is_a_slide(tmp_path: Path) -> None:
    for name in ("s/one.dcm", "t/series/one.dcm"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + name.encode())
    cases = read_manifest(table(tmp_path, "x,s,,0,,", "y,t,,0,,"))
    assert [case.he for case in cases] == [tmp_path / "s", tmp_path / "t"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_write_them_are_read(tmp_path: Path, encoding: str) -> None:
    path = table(tmp_path, "Fäll 1,a.svs,,0,,")
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert read_manifest(path)[0].case_id == "Fäll 1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"case_id,he,score\nx,a\0.svs,0\n", "NUL"),
        (b"case_id,he,score\nx,\xff.svs,0\n", "UTF-8"),
        (b"case_id,he,score\nx," + b"a" * 200_000 + b",0\n", "field larger"),
        (b"case_id,he,score,score\nx,a.svs,0,3\n", "column score twice"),
        (",".join(f"c{n}" for n in range(100_000)).encode() + b"\n" + b"x\n" * 100_000, "256 columns"),
        (b"case_id,he,score\n" + b",\n" * 1_000_001, "1,000,000 rows"),
    ],
)  # fmt: skip
def test_tables_that_are_none_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    refused(lambda: read_manifest(path), message)


CONFIG = '[model]\nname = "a"\ntraining_data = "b"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "nested|valid TOML"),
        ("a = " + "[" * 200 + "]" * 200, "nested"),
        (CONFIG + f"[compute]\nseed = {'9' * 400}", "19 digits"),
        (CONFIG + f"[compute]\nseed = {'9' * 5000}", "19 digits"),
        (CONFIG + f"[compute]\nseed = 0x{'f' * 5000}", "19 digits"),
        (CONFIG + "[compute]\nseed = inf", "seed must be"),
        (CONFIG + "[data]\nvalidation = nan", "validation must be"),
        (".".join("a" * 50_000) + " = 1", "dots in line 1"),
        ("[" + '."."' .join("a" * 50_000) + "]", "dots in line 1"),
        (f'{"k" * 5000} = 1', "no section"),
        (f'[model]\n"\\u001b{"k" * 5000}" = 1', "no key"),
        ("a" * 300_000, "larger than 256 KB"),
        ("a\0b", "NUL"),
    ],
)  # fmt: skip
def test_configurations_of_any_content_are_refused_in_one_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    refused(lambda: read_config(path, AttentionConfig), message)


def test_names_of_configurations_may_be_anything(tmp_path: Path) -> None:
    for name in ("n" * 5000, "~nouser/c.toml", "a\0b"):
        refused(lambda name=name: read_config(find_config(name), AttentionConfig), "could not be read")
    os.mkfifo(tmp_path / "c.toml")
    refused(lambda: read_config(tmp_path / "c.toml", AttentionConfig), "no file")


def spare(path: Path) -> h5py.File:
    return h5py.File(path, "w")


def _self_link(path: Path) -> None:
    with spare(path) as file:
        file["features"] = h5py.SoftLink("/features")


def _soft_link(path: Path) -> None:
    with spare(path) as file:
        file["other"] = np.zeros((2, 3), np.float32)
        file["features"] = h5py.SoftLink("/other")


def _external_link(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["features"] = np.zeros((2, 3), np.float32)
    with spare(path) as file:
        file["features"] = h5py.ExternalLink("other.h5", "/features")


def _external_storage(path: Path) -> None:
    path.with_name("secret").write_bytes(bytes(24))
    with spare(path) as file:
        file.create_dataset("features", (2, 3), "f4", external=[(str(path.with_name("secret")), 0, 24)])


def _virtual(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["features"] = np.zeros((2, 3), np.float32)
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "features", (2, 3))
    with spare(path) as file:
        file.create_virtual_dataset("features", layout)


def _sparse(path: Path) -> None:
    with spare(path) as file:
        file.create_dataset("features", (2**30, 1024), "f4", chunks=(1024, 1024))


def _mostly_sparse(path: Path) -> None:
    with spare(path) as file:
        file.create_dataset("features", (2**30, 1024), "f4", chunks=(1024, 1024))[:1] = 1


def _texts(path: Path) -> None:
    with spare(path) as file:
        file["features"] = ["a", "b"]


def _nothing(path: Path) -> None:
    with spare(path) as file:
        file["features"] = h5py.Empty("f4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_self_link, "only a link"),
        (_soft_link, "only a link"),
        (_external_link, "only a link"),
        (_external_storage, "in other files"),
        (_virtual, "in other files"),
        (_sparse, "were ever written"),
        (_mostly_sparse, "were ever written"),
        (_texts, "no numbers"),
        (_nothing, "no numbers"),
        (os.mkfifo, "is no file"),
    ],
)
def test_hdf5_that_leads_elsewhere_or_claims_too_much_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "x.h5")
    refused(lambda: read_feature_file(tmp_path / "x.h5"), message)


def test_hdf5_packed_as_tightly_as_it_can_be_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(
            "features", data=np.ones((4000, 1024), np.float32), compression="gzip", shuffle=True
        )
    assert read_feature_file(tmp_path / "x.h5").features.shape == (4000, 1024)


def _expanded(path: Path) -> None:
    torch.save(torch.zeros(1).expand(10**9, 10**3), path)


def _scattered(path: Path) -> None:
    torch.save(torch.eye(3).to_sparse(), path)


def _packed(path: Path) -> None:
    plain = path.with_name("plain.pth")
    torch.save(torch.zeros(2**24, 4), plain)
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in given.infolist():
            packed.writestr(part.filename, given.read(part))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_expanded, "no plain table"),
        (_scattered, "no plain table"),
        (_packed, "packed as PyTorch never does"),
        (os.mkfifo, "is no file"),
        (lambda path: path.write_bytes(b"\x80\x02."), "damaged|more than a tensor"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "damaged|more than a tensor"),
    ],
)
def test_tensors_that_are_more_than_their_file_are_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "x.pth")
    refused(lambda: read_feature_file(tmp_path / "x.pth"), message)


def test_tensors_of_old_versions_and_of_training_are_read(tmp_path: Path) -> None:
    rows = torch.arange(6.0).reshape(2, 3)
    torch.save(rows, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(rows.clone().requires_grad_(), tmp_path / "grad.pth")
    for name in ("old.pth", "grad.pth"):
        np.testing.assert_array_equal(read_feature_file(tmp_path / name).features, rows)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes((3 * min(width, 64) + 1) * min(height, 64)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_picture_is_judged_by_its_header_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(64, 64))
    assert read_picture(path).shape == (64, 64, 3)
    path.write_bytes(png(100_000, 100_000))
    assert "100,000 x 100,000 px" in refused(lambda: read_picture(path))
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff" + bytes(100), b"text"):
        path.write_bytes(content)
        refused(lambda: read_picture(path), "damaged")
    path.unlink()
    os.mkfifo(path)
    refused(lambda: read_picture(path), "no file")


@pytest.mark.parametrize("text", ["", "[]", "5", "{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": 1}'])
def test_records_of_trainings_are_refused_where_they_are_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text)
    refused(lambda: OWN_FILES.json_object(path, "measured"), "metrics.json")


def test_measures_that_could_not_be_taken_stay_readable(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"measured": float("nan")}))
    assert np.isnan(OWN_FILES.json_object(tmp_path / "metrics.json", "measured")["measured"])
