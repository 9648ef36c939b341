"""Feature files in the layouts of other programs, written with h5py alone, as those programs name things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path


def write_clam(path: Path, features: np.ndarray) -> Path:
    """CLAM: tiles of 256 px of the largest level."""
    with h5py.File(path, "w") as file:
        file["features"] = features[None] if len(features) == 2 else features
        coords = file.create_dataset("coords", data=_grid(len(features)))
        coords.attrs.update({"patch_size": 256, "patch_level": 0, "name": path.stem, "save_path": "x"})
        coords.attrs["downsample"] = np.array([1.0, 1.0])
    return path


def write_trident(
    path: Path, features: np.ndarray, encoder: str | None = "uni_v1", magnification: int = 20
) -> Path:
    """TRIDENT: tiles of 256 px at a magnification, of a slide scanned at 40."""
    with h5py.File(path, "w") as file:
        found = file.create_dataset("features", data=features)
        if encoder is not None:
            found.attrs["encoder"] = encoder
        found.attrs.update({"name": path.stem, "savetodir": "/x"})
        coords = file.create_dataset("coords", data=_grid(len(features)))
        coords.attrs.update(
            {
                "patch_size": 256,
                "patch_size_level0": 256 * 40 // magnification,
                "level0_magnification": 40,
                "target_magnification": magnification,
                "overlap": 0,
                "name": path.stem,
                "savetodir": "/x",
                "level0_width": 80000,
                "level0_height": 60000,
            }
        )
    return path


def write_stamp(
    path: Path,
    features: np.ndarray,
    extractor: str = "uni2",
    tile_um: float = 256.0,
    kind: str | None = "tile",
) -> Path:
    """STAMP: tiles of 224 px, their places in µm."""
    with h5py.File(path, "w") as file:
        file["feats"] = features.astype(np.float16)
        file["coords"] = _grid(len(features)).astype(np.float32) * 0.25
        file.attrs.update(
            {
                "stamp_version": "2.4.0",
                "extractor": extractor,
                "unit": "um",
                "tile_size_um": tile_um,
                "tile_size_px": 224,
                "code_hash": "0" * 64,
            }
        )
        if kind is not None:
            file.attrs["feat_type"] = kind
    return path


def write_wsmcl(folder: Path, case: str, features: np.ndarray) -> Path:
    """WSMCL: a tensor of features, and one of rows and columns beside it."""
    folder.mkdir(exist_ok=True)
    torch.save(torch.from_numpy(features), folder / f"{case}_features.pth")
    torch.save(torch.from_numpy(_grid(len(features))), folder / f"{case}_coordinates.pth")
    return folder / f"{case}_features.pth"


def _grid(count: int) -> np.ndarray:
    return np.stack([np.arange(count) % 7, np.arange(count) // 7], axis=1).astype(np.int64) * 512
