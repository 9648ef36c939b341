"""Corr-A-Net and predictors learn from fields, from patches as from slides; the table measures them all."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

import napari_her2_training
from napari_her2.errors import JobFailed, ModelError
from napari_her2.inference.device import Device
from napari_her2.models.corr_a_net import to_unit_range
from napari_her2.models.registry import load_model
from napari_her2.models.weights_file import read_weights
from napari_her2.slide.reader import open_slide
from napari_her2_training.corr_a_net.bci_folder import BCIFolder, read_bci
from napari_her2_training.corr_a_net.config import (
    CorrANetConfig,
    FieldDataConfig,
)
from napari_her2_training.corr_a_net.run import load_network
from napari_her2_training.corr_a_net.slide_fields import read_fields

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = Device(torch.device("cpu"), "cpu (test)", "test")
SCORES = ("0", "1+", "2+", "3+")
SIDE = 256


@pytest.fixture(scope="module")
def cohort(cohort_of: Callable[[int, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight phantom cases, two of each score."""
    return cohort_of(8, tmp_path_factory.mktemp("cohort")).parent


@pytest.fixture(scope="module")
def cut_patches(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as BCI: of each case three patches to train on and one to test with."""
    folder = tmp_path_factory.mktemp("bci")
    number = 0
    with (cohort / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for corner, split in (
                ((64, 64), "train"),
                ((64, 448), "train"),
                ((448, 64), "train"),
                ((448, 448), "test"),
            ):
                number += 1
                for stain, column in (("HE", "he"), ("IHC", "ihc")):
                    with open_slide(cohort / row[column]) as slide:
                        image = slide.read(0, *corner, SIDE, SIDE)
                    path = folder / stain / split / f"{number}_{split}_{row['score']}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), image[:, :, ::-1])
    return folder


@pytest.fixture
def patches(cut_patches: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed at will."""
    return Path(shutil.copytree(cut_patches, tmp_path / "bci"))


CONFIG = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
tile_px = 256
field_px = 64
mpp = 0.5
validation = 0.34
[network]
dim = 8
crop_px = 32
batch_size = 4
train_batches = 2
epochs = 1
[predictor]
architecture = "tinynet-e"
batch_size = 8
epochs = 1
[table]
inputs = "H&E, correlated, IHC, H&E+IHC"
[compute]
device = "cpu"
"""


def run(
    folder: Path, method: str, data: Path, config: str = CONFIG, *, resume: bool = False
) -> tuple[list[str], Path]:
    """Run a training; return its stages, in order, and what it wrote."""
    file = folder / "config.toml"
    file.write_text(config)
    steps = napari_her2_training.run(method, file, data, folder / "run", resume)
    stages: list[str] = []
    while True:
        try:
            stage = next(steps).stage
        except StopIteration as end:
            return stages, end.value
        if stages[-1:] != [stage]:
            stages.append(stage)


def spoil(folder: Path) -> None:
    """Make files that nobody can read as images."""
    for path in folder.iterdir():
        path.write_bytes(b"not an image")


def test_the_table_of_all_arms_from_a_folder_of_patches(cut_patches: Path, tmp_path: Path) -> None:
    _, path = run(tmp_path, "corr-a-net-table", cut_patches)
    out = tmp_path / "run"
    with (out / "table.csv").open(newline="", encoding="utf-8") as file:
        table = {row["input"]: row for row in csv.DictReader(file)}
    attention, plain = "correlated (d=8, attention)", "correlated (d=8, no attention)"
    assert set(table) == {"H&E", "IHC", "H&E+IHC", attention, plain}
    for row in table.values():
        assert int(row["fields"]) == 8
        # Weighted recall is the accuracy: what of it no reading of confidence can exceed.
        assert float(row["mec_signed"]) <= float(row["weighted_recall"]) + 1e-4
        assert 0 <= float(row["balanced_accuracy"]) <= 1
    told = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert told["fields"] == {"train": 15, "validation": 9, "test": 8}
    assert told["judged"] == "test"
    compared = {(row["dim"], row["with"]): row for row in told["attention against none"]}
    assert compared[8, "luminance"]["pairs"] == 8
    correlation = told["correlations"]["d=8, attention"]
    assert compared[8, "luminance"]["first"] == pytest.approx(correlation["luminance"])
    for arm in told["arms"]:
        assert arm["drop"]["accuracy"] == pytest.approx(arm["weighted_recall"])
        assert sum(stratum["fields"] for stratum in arm["strata"]) == 8
    for name in ("balanced_accuracy", "strata", "drop_in_accuracy", "correlations"):
        assert cv2.imread(str(out / f"{name}.png")).std() > 5
    bundle = load_model(path)
    assert (bundle.card.name, bundle.card.stain, bundle.head.network.dim) == ("tiny", "H&E", 8)
    sizes = "15 fields to train on, 9 fields to choose the epoch, 8 fields held out"
    assert sizes in bundle.card.training_data
    plain_he = load_model(out / "models" / "tinynet-e" / "he.safetensors")
    assert plain_he.head.network is None

    # What is finished is not trained again; what is not, is measured anew.
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.ckpt")}
    (out / "arms" / "tinynet-e" / "ihc" / "judged.npz").unlink()
    stages, again = run(tmp_path, "corr-a-net-table", cut_patches, resume=True)
    assert not any(stage.startswith(("Training Corr-A-Net", "Cutting", "Representing")) for stage in stages)
    others = [file for file in before if file.parent.name != "ihc"]
    assert len(others) == 2 * (4 + 2)
    assert all(file.stat().st_mtime_ns == before[file] for file in others)
    assert (out / "arms" / "tinynet-e" / "ihc" / "judged.npz").exists()
    assert again == path


def test_representations_come_from_h_and_e_alone(patches: Path, tmp_path: Path) -> None:
    """Neither the network, nor its exports, nor a predictor on them opens the IHC of the test part."""
    spoil(patches / "IHC" / "test")
    _, network = run(tmp_path, "corr-a-net", patches)
    made = tmp_path / "run" / "representations" / "d8-attention"
    assert {path.name for path in made.iterdir()} == {"train.npy", "validation.npy", "test.npy"}
    assert not (tmp_path / "run" / "fields" / "test-ihc.npy").exists()
    he = np.load(tmp_path / "run" / "fields" / "test-he.npy")
    with torch.inference_mode():
        expected = to_unit_range(load_network(network).represent(torch.from_numpy(he).float() / 255))
    np.testing.assert_allclose(np.load(made / "test.npy"), expected.numpy(), atol=1e-3)

    second = tmp_path / "second"
    second.mkdir()
    on_it = CONFIG.replace("[predictor]", f'[predictor]\ninput = "correlated"\nnetwork = "{network}"')
    _, path = run(second, "predictor", patches, on_it)
    assert load_model(path).head.network.dim == 8
    third = tmp_path / "third"
    third.mkdir()
    with pytest.raises(JobFailed, match=r"IHC/test/\S+ is damaged, or no PNG"):
        run(third, "predictor", patches, CONFIG.replace("[predictor]", '[predictor]\ninput = "IHC"'))


def test_from_registered_slides_to_a_model_that_scores_them(cohort: Path, tmp_path: Path) -> None:
    config = CONFIG.replace("[data]", "[data]\nfields_per_slide = 3").replace("0.34", "0.5")
    stages, path = run(tmp_path, "corr-a-net", cohort / "manifest.csv", config)
    assert stages[0] == "Finding fields"
    on_it = config.replace("[predictor]", f'[predictor]\nnetwork = "{path}"')
    second = tmp_path / "second"
    second.mkdir()
    _, model = run(second, "predictor", cohort / "manifest.csv", on_it)
    assert load_model(model).card.tile_px == 256
    told = json.loads((second / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert told["judged"] == "validation"
    cases = set(json.loads((tmp_path / "run" / "fields" / "fields.json").read_text()))
    assert len(cases) == 8


def test_fields_of_a_slide_are_its_pixels(cohort: Path) -> None:
    with open_slide(sorted(cohort.glob("*_HE.svs"))[0]) as slide:
        corners = np.array([[0.0, 0.0], [17.0, 101.5]])
        same = read_fields(slide, corners, tile_px=128, mpp=0.5)
        np.testing.assert_array_equal(same[0], slide.read(0, 0, 0, 128, 128))
        np.testing.assert_array_equal(same[1], slide.read(0, 34, 203, 128, 128))
        halved = read_fields(slide, corners[:1], tile_px=64, mpp=1.0)
        level = slide.read(0, 0, 0, 128, 128).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        # From another level of the file, if it has one, compressed on its own.
        assert np.abs(halved[0] - level).mean() < 3


VARIANT = (
    CONFIG.replace("dim = 8", 'dim = 8\ndilation = 2\nscaling = "training"')
    + '[encoder]\nweights = "patches"\n'
).replace('"H&E, correlated, IHC, H&E+IHC"', '"correlated"\nattention = "with"')


def test_a_variant_is_trained_and_deployed_as_it_was_asked_for(cut_patches: Path, tmp_path: Path) -> None:
    _, path = run(tmp_path, "corr-a-net-table", cut_patches, VARIANT)
    out = tmp_path / "run"
    bundle = load_model(path)
    arguments = bundle.card.arguments
    assert (arguments["dilation"], arguments["scaling"], arguments["dim"]) == (2, "training", 8)
    network = load_network(out / "networks" / "d8-attention-dilation2-training.safetensors")
    assert (network.dilation, network.scaling) == (2, "training")
    head = bundle.head
    assert head.network is not None
    he = torch.from_numpy(np.load(out / "fields" / "test-he.npy")).float() / 255
    with torch.inference_mode():
        made = head.represent(he)
        assert torch.equal(made, network.to_predictor(network.represent(he)))
    stored = np.load(out / "representations" / "d8-attention-dilation2-training" / "test.npy")
    np.testing.assert_allclose(stored, made.numpy(), atol=1e-3)
    # Its range is that of the training fields: nearly all of their values lie within, some at its end.
    learnt = torch.from_numpy(np.load(out / "fields" / "train-he.npy")).float() / 255
    with torch.inference_mode():
        values = (network.represent(learnt) / network.ceiling.view(-1, 1, 1)).transpose(0, 1).flatten(1)
    above = (values > 1).float().mean(dim=1)
    assert 0 < float(above.max()) < 0.005
    # Its stem is made of components of both signs, not drawn at random.
    kernels = network.stem.conv1.weight.flatten(1)
    assert torch.equal(kernels[:32], -kernels[32:])
    told = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert told["arms"][0]["input"] == "correlated (d=8, attention, dilation 2, range of the training)"


def test_two_trainings_of_a_variant_with_one_seed_are_the_same(cut_patches: Path, tmp_path: Path) -> None:
    _, path = run(tmp_path, "corr-a-net", cut_patches, VARIANT)
    first = path.read_bytes()
    again = tmp_path / "again"
    again.mkdir()
    _, path = run(again, "corr-a-net", cut_patches, VARIANT)
    assert path.read_bytes() == first


def test_a_predictor_takes_the_variant_of_its_network(cut_patches: Path, tmp_path: Path) -> None:
    """[network] of its own configuration says nothing of it."""
    _, network = run(tmp_path, "corr-a-net", cut_patches, VARIANT)
    second = tmp_path / "second"
    second.mkdir()
    on_it = CONFIG.replace("[predictor]", f'[predictor]\ninput = "correlated"\nnetwork = "{network}"')
    _, path = run(second, "predictor", cut_patches, on_it)
    arguments = load_model(path).card.arguments
    assert (arguments["dilation"], arguments["scaling"]) == (2, "training")


def test_files_of_networks_without_variants_are_as_they_were(cut_patches: Path, tmp_path: Path) -> None:
    _, path = run(tmp_path, "corr-a-net", cut_patches)
    given = read_weights(path)
    assert json.loads(given.metadata["arguments"]) == {"dim": 8, "attention": True}
    assert load_network(path).scaling == "field"


FAULTS = {
    "HE/train/1_train_9.png": r"HE/train/1_train_9\.png is not named <index>_train_<score>\.png",
    "HE/train/notes.txt": r"HE/train/notes\.txt is not named",
    "HE/train/900_test_0.png": r"HE/train/900_test_0\.png says test by its name",
    "HE/test/900_test_0.png": r"HE/test/900_test_0\.png has no IHC image of the same name",
    "IHC/train/900_train_2+.png": r"IHC/train/900_train_2\+\.png has no H&E image of the same name",
}


@pytest.mark.parametrize(("name", "message"), FAULTS.items())
def test_files_that_are_misnamed_or_alone_are_named(patches: Path, name: str, message: str) -> None:
    (patches / name).write_bytes(b"")
    with pytest.raises(JobFailed, match=message):
        read_bci(patches)


def test_a_folder_of_another_layout_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="the folder needs HE/train, HE/test, IHC/train and IHC/test"):
        read_bci(tmp_path)


def test_pairs_have_one_name_and_their_score_from_it(cut_patches: Path) -> None:
    pairs = read_bci(cut_patches)
    assert {split: len(of) for split, of in pairs.items()} == {"train": 24, "test": 8}
    for pair in (*pairs["train"], *pairs["test"]):
        assert pair.he.name == pair.ihc.name
        assert pair.he.stem.endswith(f"_{pair.score}")


def test_splits_of_patches_do_not_overlap_and_keep_the_proportions(cut_patches: Path) -> None:
    folder = BCIFolder(cut_patches, FieldDataConfig(tile_px=SIDE, field_px=64, validation=0.34))
    learn, check = folder.listed("train"), folder.listed("validation")
    assert not set(learn.cases) & set(check.cases)
    assert np.bincount(check.labels).min() >= 2


def test_ihc_among_the_h_and_e_is_refused_by_its_name(patches: Path, tmp_path: Path) -> None:
    strong = next(path for path in sorted((patches / "IHC" / "train").iterdir()) if "3+" in path.name)
    brown = np.full((SIDE, SIDE, 3), 245, np.uint8)
    brown[40:220, 40:220] = (150, 95, 60)
    brown[60:90] = (110, 115, 165)
    cv2.imwrite(str(patches / "HE" / "train" / strong.name), brown[:, :, ::-1])
    with pytest.raises(JobFailed, match=r"HE/train/\S*3\+\.png is given as H&E but looks like IHC"):
        run(tmp_path, "corr-a-net", patches)


def test_images_of_another_size_are_refused_by_their_name(patches: Path, tmp_path: Path) -> None:
    path = sorted((patches / "HE" / "train").iterdir())[0]
    cv2.imwrite(str(path), cv2.imread(str(path))[:200])
    with pytest.raises(JobFailed, match=r"HE/train/\S+ has 256 x 200 pixels, not 256 x 256"):
        run(tmp_path, "corr-a-net", patches)


def test_a_constant_image_stays_finite(patches: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for path in (patches / "HE" / split).iterdir():
            cv2.imwrite(str(path), np.full((SIDE, SIDE, 3), 200, np.uint8))
    _, network = run(tmp_path, "corr-a-net", patches)
    assert all(bool(torch.isfinite(value.float()).all()) for value in read_weights(network).tensors.values())
    made = np.load(tmp_path / "run" / "representations" / "d8-attention" / "test.npy")
    assert np.isfinite(made).all()


def test_a_slide_that_is_too_coarse_is_refused_with_its_row(cohort: Path, tmp_path: Path) -> None:
    config = CONFIG.replace("mpp = 0.5", "mpp = 0.2").replace("0.34", "0.5")
    with pytest.raises(
        JobFailed, match=r"Row \d of the manifest, case case_00\d: .* too coarse to be seen at 0.2 µm/px"
    ):
        run(tmp_path, "corr-a-net", cohort / "manifest.csv", config)


@pytest.mark.parametrize("drawn", [0, 2])
def test_slides_smaller_than_a_field_are_said_to_hold_none(cohort: Path, tmp_path: Path, drawn: int) -> None:
    config = CONFIG.replace("mpp = 0.5", f"mpp = 0.5\nfields_per_slide = {drawn}").replace("0.34", "0.5")
    with pytest.raises(JobFailed, match="The train slides hold no field of 1024 px"):
        run(
            tmp_path, "corr-a-net", cohort / "manifest.csv", config.replace("tile_px = 256", "tile_px = 1024")
        )


def test_what_is_no_network_is_refused(tmp_path: Path, cohort: Path) -> None:
    with pytest.raises(JobFailed, match="name the file that training Corr-A-Net wrote"):
        run(tmp_path, "predictor", cohort / "manifest.csv")
    model = load_model("demo-attention-mil")
    with pytest.raises(ModelError, match="is no Corr-A-Net"):
        load_network(model.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("field_px = 64", "field_px = 96"), r"\[data\] field_px \(96\) must divide tile_px \(256\)"),
        (("crop_px = 32", "crop_px = 128"), r"\[network\] crop_px \(128\) must not exceed"),
        (("dim = 8", "dim = 10"), "multiple of 4 channels, not 10"),
        (("dim = 8", "dim = 8\ndilation = 6"), r"\[network\] dilation must be"),
        (("dim = 8", 'dim = 8\nscaling = "slide"'), r"\[network\] scaling must be"),
        (
            ("crop_px = 32", "crop_px = 16\ndilation = 4"),
            "looks 16 px around: learn from squares of at least 17",
        ),
        (("[table]", '[table]\ndims = "8, many"'), r"\[table\] dims must be whole numbers"),
        (("[table]", '[table]\npredictors = "resnet"'), r"\[table\] predictors may hold .*, not 'resnet'"),
        (("mpp = 0.5", "mpp = 0.5\nfolds = 5"), r"\[data\] folds must be"),
    ],
)
def test_a_configuration_is_refused_before_any_work(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(JobFailed, match=message):
        run(tmp_path, "corr-a-net", tmp_path, CONFIG.replace(*change))


@pytest.mark.parametrize("name", ["corr_a_net", "predictor", "corr_a_net_table", "demo_corr_a_net"])
def test_configurations_of_the_package_are_valid(name: str) -> None:
    from napari_her2_training.config import find_config, read_config

    config = read_config(find_config(name), CorrANetConfig)
    if not name.startswith("demo"):
        assert (config.network.epochs, config.predictor.epochs, config.network.correlation) == (250, 100, 1.5)
        assert (config.data.tile_px, config.data.mpp, config.data.field_px) == (1024, 0.46, 256)
