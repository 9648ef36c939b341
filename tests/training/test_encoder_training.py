"""An encoder learns labelled patches of a folder; other configurations take its weights as they are."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.models.encoders import build_encoder
from napari_her2_training.config_sections import EncoderConfig
from napari_her2_training.encoder.config import EncoderTrainingConfig
from napari_her2_training.encoder.make import make_encoder
from napari_her2_training.encoder.patch_folder import read_patch_folder
from napari_her2_training.encoder.patch_images import HDF5Images, open_patches, read_patch

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.encoder.config import PatchFolderConfig

SIDE = 96
CONFIG = """
[model]
name = "blobs"
training_data = "stripes and blobs"
[data]
validation = 0.25
[pretraining]
epochs = 2
batch_size = 8
learning_rate = 3e-4
[compute]
device = "cpu"
"""


def patch(label: int, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Lilac with dark dots, many or few."""
    dots = rng.random((12, 12)) < (0.7 if label else 0.1)
    mask = cv2.resize(dots.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
    image = np.full((side, side, 3), (220, 170, 200), np.uint8)
    image[mask > 0] = (120, 60, 140)
    return image


def write_patches(folder: Path, names: dict[str, int], count: int, seed: int = 0, side: int = SIDE) -> Path:
    rng = np.random.default_rng(seed)
    for name, label in names.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            suffix = (".png", ".jpg", ".tif")[number % 3]
            image = patch(label, rng, side)
            cv2.imwrite(str(folder / name / f"p{number // 3}_{number}{suffix}"), image[..., ::-1])
    return folder


def data_config(**values: object) -> PatchFolderConfig:
    model = {"name": "a", "training_data": "b"}
    return EncoderTrainingConfig.parse({"model": model, "data": values}).data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patches(tmp_path_factory.mktemp("patches"), {"few": 0, "many": 1}, 20)


def finish(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_from_a_folder_to_weights_that_other_configurations_take(folder: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "c.toml", tmp_path / "out"
    config.write_text(CONFIG)
    path = finish(napari_her2_training.run("encoder", config, folder, out))
    told = json.loads((out / "metrics.json").read_text())
    assert told["classes"] == ["few", "many"]
    assert told["patches"] == {"train": {"few": 15, "many": 15}, "validation": {"few": 5, "many": 5}}
    assert told["measured"]["validation"]["metrics"]["macro AUC"] > 0.9
    assert np.sum(told["measured"]["validation"]["confusion"]) == 10
    assert "kinder than" in told["notes"][0]
    # The normalisation travels with the weights, and is that of the patches.
    encoder = make_encoder(EncoderConfig("alexnet", str(path)), SIDE, 0)
    found = read_patch_folder(folder, data_config(validation=0.25))
    pixels = np.stack([read_patch(p, data_config()) for p in found.parts["train"].files]) / 255
    np.testing.assert_allclose(encoder.spec.mean, pixels.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(encoder.spec.std, pixels.std((0, 1, 2)), atol=1e-6)
    random = build_encoder("alexnet")
    assert not torch.equal(encoder.backbone.features[0].weight, random.backbone.features[0].weight)
    with pytest.raises(JobFailed, match="holds a run already"):
        next(napari_her2_training.run("encoder", config, folder, out))
    again = finish(napari_her2_training.run("encoder", config, folder, out, resume=True))
    assert again == path


def test_a_killed_pretraining_resumes_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(CONFIG)
    whole = finish(napari_her2_training.run("encoder", config, folder, tmp_path / "whole"))
    steps = napari_her2_training.run("encoder", config, folder, tmp_path / "killed")
    for progress in steps:
        if progress.unit == "batches" and progress.done == 5:  # in the second epoch
            steps.close()
    resumed = finish(napari_her2_training.run("encoder", config, folder, tmp_path / "killed", resume=True))
    assert resumed.read_bytes() == whole.read_bytes()


def test_parts_and_classes_are_told_by_folders(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        write_patches(tmp_path / part, {"0": 0, "3+": 1}, count)
    found = read_patch_folder(tmp_path, data_config())
    assert found.classes == ("0", "3+")
    assert {part: len(own) for part, own in found.parts.items()} == {"train": 8, "validation": 6, "test": 4}
    assert [path.parent.name for path in found.parts["test"].files] == ["0", "0", "3+", "3+"]
    assert found.parts["test"].labels.tolist() == [0, 0, 1, 1]
    (tmp_path / "none").mkdir()
    shutil.copytree(tmp_path / "train", tmp_path / "none" / "train")
    (tmp_path / "none" / "val").mkdir()
    with pytest.raises(JobFailed, match="has a folder for validation patches, but holds none"):
        read_patch_folder(tmp_path / "none", data_config())
    (tmp_path / "val" / "3+").rename(tmp_path / "val" / "3")
    with pytest.raises(JobFailed, match=r"val/3 is no class to learn: train holds 0, 3\+"):
        read_patch_folder(tmp_path, data_config())


@pytest.mark.parametrize("given", ["pattern", "table"])
def test_patches_of_a_patient_stay_together(tmp_path: Path, given: str) -> None:
    write_patches(tmp_path, {"a": 0, "b": 1}, 30)
    config = data_config(groups=r"^(p\d+)_" if given == "pattern" else "", validation=0.2)
    if given == "table":
        rows = [f"{p.relative_to(tmp_path)},{p.name.split('_')[0]}" for p in tmp_path.rglob("*_*")]
        (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))
    found = read_patch_folder(tmp_path, config)
    patients = {part: {p.name.split("_")[0] for p in own.files} for part, own in found.parts.items()}
    assert not patients["train"] & patients["validation"]
    assert len(patients["train"] | patients["validation"]) == 10
    assert 6 <= len(found.parts["validation"]) <= 18
    assert not found.notes
    if given == "table":
        (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows[:-1]]))
        with pytest.raises(JobFailed, match=r"have no group in groups\.csv: [ab]/p\d+_\d+"):
            read_patch_folder(tmp_path, config)
    else:
        with pytest.raises(JobFailed, match="do not fit"):
            read_patch_folder(tmp_path, data_config(groups="^(q)_"))


def test_a_patient_in_two_parts_is_named(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_patches(tmp_path / part, {"a": 0, "b": 1}, 3)
    with pytest.raises(JobFailed, match=r"'p0' has patches in train and in validation"):
        read_patch_folder(tmp_path, data_config(groups=r"^(p\d+)_"))


def test_what_cannot_be_learnt_from_is_refused_in_words(tmp_path: Path) -> None:
    config = data_config()
    with pytest.raises(JobFailed, match="is no folder of patches"):
        read_patch_folder(tmp_path / "none", config)
    with pytest.raises(JobFailed, match="holds no patch"):
        read_patch_folder(tmp_path, config)
    write_patches(tmp_path, {"only": 0}, 6)
    with pytest.raises(JobFailed, match="has the one class 'only'"):
        read_patch_folder(tmp_path, config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobFailed, match="No train patch of empty"):
        read_patch_folder(tmp_path, config)
    (tmp_path / "val").mkdir()
    with pytest.raises(JobFailed, match="no folder train"):
        read_patch_folder(tmp_path, config)


def test_every_file_that_cannot_be_used_is_named_before_anything_is_learnt(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_patches(tmp_path / "p" / part, {"a": 0, "b": 1}, 2)
    bad = tmp_path / "p" / "train"
    cv2.imwrite(str(bad / "a" / "small.png"), np.zeros((50, 50, 3), np.uint8))
    cv2.imwrite(str(bad / "a" / "wide.png"), np.zeros((96, 97, 3), np.uint8))
    (bad / "b" / "broken.jpg").write_bytes(b"no image")
    config = data_config()
    found = read_patch_folder(tmp_path / "p", config)
    named = r"small\.png has 50 x 50 .*wide\.png has 97 x 96 .*broken\.jpg is damaged"
    with pytest.raises(JobFailed, match=named):
        finish(open_patches(found, "train", config, tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(JobFailed, match=r"small\.png has 50 x 50 px, not 96 x 96 px: set \[data\] tile_px"):
        read_patch(bad / "a" / "small.png", config)
    assert read_patch(bad / "a" / "small.png", data_config(resize=True)).shape == (96, 96, 3)
    with pytest.raises(JobFailed, match="cut squares"):
        read_patch(bad / "a" / "wide.png", data_config(resize=True))


def write_hdf5(folder: Path, part: str, count: int) -> np.ndarray:
    images = np.random.default_rng(count).integers(0, 255, (count, SIDE, SIDE, 3), np.uint8)
    stem = f"camelyonpatch_level_2_split_{part}"
    with h5py.File(folder / f"{stem}_x.h5", "w") as file:
        file["x"] = images
    with h5py.File(folder / f"{stem}_y.h5", "w") as file:
        file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
    return images


def test_the_files_of_patchcamelyon_are_read_where_they_lie(tmp_path: Path) -> None:
    images = write_hdf5(tmp_path, "train", 10)
    write_hdf5(tmp_path, "valid", 6)
    config = data_config()
    found = read_patch_folder(tmp_path, config)
    assert {part: len(own) for part, own in found.parts.items()} == {"train": 10, "validation": 6}
    patches = finish(open_patches(found, "train", config, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    np.testing.assert_array_equal(patches.images[np.array([1, 4, 9])], images[[1, 4, 9]])
    np.testing.assert_array_equal(patches.images[3:5], images[3:5])
    mean, std = patches.mean_std()
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255, atol=1e-9)
    np.testing.assert_allclose(std, images.std((0, 1, 2)) / 255, atol=1e-9)
    assert patches.labels.tolist() == [0, 1] * 5
    for name in tmp_path.glob("*valid*"):
        name.unlink()
    held = read_patch_folder(tmp_path, config)
    train, validation = held.parts["train"], held.parts["validation"]
    assert sorted([*train.rows, *validation.rows]) == list(range(10))
    chosen = HDF5Images(validation.hdf5, validation.rows, SIDE)[:]
    np.testing.assert_array_equal(chosen, images[validation.rows])


def test_faulty_files_of_patchcamelyon_are_named(tmp_path: Path) -> None:
    (tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz").touch()
    with pytest.raises(JobFailed, match=r"unpack the \.gz files"):
        read_patch_folder(tmp_path, data_config())
    write_hdf5(tmp_path, "train", 10)
    (tmp_path / "camelyonpatch_level_2_split_valid_x.h5.gz").touch()
    with pytest.raises(JobFailed, match=r"valid_x\.h5\.gz is compressed as a whole"):
        read_patch_folder(tmp_path, data_config())
    (tmp_path / "camelyonpatch_level_2_split_valid_x.h5.gz").unlink()
    with pytest.raises(JobFailed, match="has patches of 96 x 96 px, not of 64 px"):
        read_patch_folder(tmp_path, data_config(tile_px=64))
    labels = tmp_path / "camelyonpatch_level_2_split_train_y.h5"
    labels.unlink()
    with pytest.raises(JobFailed, match=r"_train_x\.h5 has no .*_train_y\.h5"):
        read_patch_folder(tmp_path, data_config())
    labels.write_bytes(b"nothing")
    with pytest.raises(JobFailed, match="is damaged, or no HDF5 file"):
        read_patch_folder(tmp_path, data_config())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"groups": "("}}, r"\[data\] groups '\(' is no regular expression"),
        ({"data": {"groups": "abc"}}, r"\[data\] groups must have one group"),
        ({"data": {"tilepx": 96}}, r"\[data\] has no key 'tilepx' \(did you mean 'tile_px'"),
        ({"pretraining": {"regions": "x"}}, r"\[pretraining\] has no key 'regions' here"),
        ({"pretraining": {"epochs": 0}}, r"\[pretraining\] epochs must be a whole number of at least 1"),
    ],
)
def test_mistakes_in_the_configuration_are_named(values: dict, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        EncoderTrainingConfig.parse({"model": {"name": "a", "training_data": "b"}, **values})
