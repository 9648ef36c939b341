"""Features of others: read as they are, and nothing in them is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2_training.cohort.features import holds_features, read_feature_file

if TYPE_CHECKING:
    from pathlib import Path

ROWS = np.array([[0.5, -2, 3], [4, 5, 6.25]], np.float32)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3)])
def test_hdf5_of_clam_and_trident_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["features"] = ROWS.reshape(shape)
        file["coords"] = np.zeros((2, 2), np.int64)
    np.testing.assert_array_equal(read_feature_file(path).features, ROWS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_wsmcl_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x_features.pth"
    torch.save(torch.from_numpy(ROWS).to(dtype), path)
    np.testing.assert_array_equal(read_feature_file(path).features, ROWS)


def test_files_are_told_by_their_names(tmp_path: Path) -> None:
    assert [holds_features(tmp_path / name) for name in ("a.h5", "a_features.PTH", "a.svs", "a.ome.tif")] == [
        True,
        True,
        False,
        False,
    ]


class Evil:
    def __reduce__(self) -> tuple:
        return (open, ("pwned", "w"))


def test_a_pickle_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), tmp_path / "x.pth")
    with pytest.raises(JobFailed, match=r"x\.pth holds more than a tensor"):
        read_feature_file(tmp_path / "x.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features": torch.zeros(2, 3)}, "holds dict instead of a tensor"),
        (torch.zeros(3), r"float32 of shape \(3,\), not one row"),
        (torch.zeros(2, 3, dtype=torch.int64), "holds int64"),
        (torch.zeros(0, 3), "holds no tile"),
        (torch.full((2, 3), torch.nan), "values that are not numbers"),
        (torch.full((2, 3), 1e6), "beyond ±65,504"),
    ],
)
def test_what_is_no_bag_of_features_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(JobFailed, match=message):
        read_feature_file(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.pth", "x.h5"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    for content in (b"", b"PK\x03\x04 cut off", b"\x89HDF\r\n\x1a\n cut off"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(JobFailed, match=r"x\.\w+ (is damaged|holds more than a tensor)"):
            read_feature_file(tmp_path / name)
