"""A dry run tells what a training would find and take, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np
import pytest
import torch

import napari_her2_training
from dry_runs import CONFIGS, MODEL, check, finish, write_slide
from napari_her2.errors import JobFailed
from napari_her2.own_files import cache_base
from napari_her2.slide.reader import open_slide
from napari_her2.slide.tissue import TissueMask
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.cohort import reading
from napari_her2_training.cohort.embedding import embed_cases
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.config_sections import ComputeConfig, EncoderConfig
from napari_her2_training.encoder import counting as tile_counting
from napari_her2_training.encoder.make import frozen_encoder
from napari_her2_training.findings import Cost, Findings
from napari_her2_training.methods import METHODS
from napari_her2_training.running import costs, learning
from napari_her2_training.running.machines import choose_machines

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2_training.running.task import Task


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    rows = ["case_id,he,ihc,score"]
    for number in range(8):
        names = [f"case_00{number + 1}_{stain}.tif" for stain in ("HE", "HER2")]
        for which, stain in enumerate(("HE", "HER2")):
            write_slide(folder / names[which], stain, 2 * number + which)
        rows.append(",".join([f"case_00{number + 1}", *names, ("0", "1+", "2+", "3+")[number % 4]]))
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    for number, name in enumerate(("normal", "tumour")):
        (folder / name).mkdir()
        for image in range(8):
            pixels = np.full((96, 96, 3), 90 * number + image, np.uint8)
            cv2.imwrite(str(folder / name / f"{image}.png"), pixels)
    return folder


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    """How exactly the stopwatch runs is not what is tested."""
    monkeypatch.setattr(costs, "_LONG_ENOUGH", 1e-9)


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of learning takes a second, so that what is added up can be told."""

    def clock(work, device: object) -> float:
        work()
        return 1.0

    monkeypatch.setattr(costs, "_clock", clock)


def every_file(*folders: Path) -> dict[str, int]:
    return {
        str(path): os.stat(path).st_mtime_ns
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".toml"
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_checked_and_nothing_is_written(
    method: str, cohort: Path, patches: Path, tmp_path: Path, one_second: None
) -> None:
    data = patches if method == "encoder" else cohort
    before = every_file(tmp_path, data if data.is_dir() else data.parent)
    found = check(tmp_path, method, data, out=tmp_path / "out")
    assert found.faults == ()
    assert found.method == method
    assert found.data == data
    assert found.seconds > 1
    assert found.memory_bytes > 0
    assert found.disk_bytes > 0
    facts = dict(found.facts)
    assert "learning" in facts["Estimated time"]
    assert facts["Device"].startswith("cpu")
    if method != "encoder":
        assert facts["Cases"].startswith("8 in 8 rows")
        assert facts["Split"].startswith("train 4 (1 of 0, 1 of 1+, 1 of 2+, 1 of 3+); validation 4 (1 of 0")
    assert every_file(tmp_path, data if data.is_dir() else data.parent) == before
    assert not (cache_base() / "embeddings").exists()
    told = json.loads(json.dumps(found.to_json()))
    assert told["facts"] == facts
    assert told["seconds"] == found.seconds


def test_the_estimate_is_that_of_all_batches_of_all_epochs_and_folds(
    cohort: Path, tmp_path: Path, one_second: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_counting, "seconds_a_tile", lambda *_: 0.0)
    monkeypatch.setattr(Findings, "seconds_a_slide", 0.0)
    text = CONFIGS["attention-mil"]
    found = check(tmp_path, "attention-mil", cohort, text)
    assert found.seconds == 7 * (3 + 2)
    more = check(tmp_path, "attention-mil", cohort, text.replace("epochs = 7", "epochs = 70"))
    assert more.seconds == 70 * (3 + 2)
    rows = cohort.read_text().splitlines()
    manifest = cohort.with_name("folds.csv")
    order = [1, 1, 1, 1, 2, 2, 2, 2]
    folds = [f"{rows[0]},fold", *(f"{row},{fold}" for row, fold in zip(rows[1:], order, strict=True))]
    manifest.write_text("\n".join(folds) + "\n")
    twice = check(tmp_path, "attention-mil", manifest, text)
    manifest.unlink()
    assert twice.faults == ()
    assert twice.seconds == 2 * 7 * (3 + 2)
    # Four pairs to learn from and four to judge by, four epochs, the run itself and one variant.
    pairs = check(tmp_path, "wsmcl", cohort)
    assert pairs.seconds == 2 * 4 * (4 + 4)
    # A second is that of two images; eight views of all eight slides are judged at the end, and once more for
    # what the model is to keep of them.
    images = check(tmp_path, "low-resolution", cohort)
    assert images.seconds == pytest.approx(3 * (4 + 4) / 2 + 2 * 8 * 8 / 2, abs=1.5)


def test_tiles_are_counted_as_the_training_takes_them_and_the_cache_is_looked_up(
    cohort: Path, tmp_path: Path, precision: str
) -> None:
    device = choose_machines(ComputeConfig(device="cpu")).reader
    cases = read_manifest(cohort)
    data = AttentionConfig.parse({"model": {"name": "a", "training_data": "b"}}).data
    encoder = frozen_encoder(EncoderConfig(), 96, 0)
    bags = finish(embed_cases(cases[:3], encoder, data, device, stage="x"))[1]
    assert {bag.precision for bag in bags} == {precision}
    embedded = sum(len(bag.features) for bag in bags)
    found = dict(check(tmp_path, "attention-mil", cohort).facts)
    assert found["H&E slides"] == "8, 3 of them embedded already"
    others = finish(embed_cases(cases[3:], encoder, data, device, stage="x"))[1]
    taken = [len(bag.features) for bag in (*bags, *others)]
    fewest = cases[int(np.argmin(taken))].row
    assert found["H&E tiles"] == (
        f"{sum(taken)}, {embedded} of them embedded already; {np.median(taken):.0f} a slide in the middle, "
        f"at least {min(taken)} (row {fewest})"
    )
    after = check(tmp_path, "attention-mil", cohort)
    assert dict(after.facts)["H&E slides"] == "8, 8 of them embedded already"
    assert "embedding 0.0 seconds" in dict(after.facts)["Estimated time"]
    # Another encoder, or one that learns first, finds nothing there.
    other = check(tmp_path, "mil", cohort, CONFIGS["mil"].replace('"scores"', '"scores"\nstain = "he"'))
    assert "8 of them embedded already" in dict(other.facts)["H&E slides"]
    pairs = check(tmp_path, "wsmcl", cohort)
    assert "8 of them embedded already" in dict(pairs.facts)["H&E slides"]
    assert "0 of them embedded already" in dict(pairs.facts)["IHC slides"]
    text = CONFIGS["attention-mil"] + "[pretraining]\nepochs = 1\nbatch_size = 4\n"
    learns = check(tmp_path, "attention-mil", cohort, text)
    assert ", 0 of them embedded already" in dict(learns.facts)["H&E tiles"]
    assert "pre-training" in dict(learns.facts)["Estimated time"]


def test_slides_with_too_few_tiles_and_without_tissue_are_named(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CONFIGS["attention-mil"].replace("size = 5", "size = 900")
    found = check(tmp_path, "attention-mil", cohort, text)
    (fault,) = found.faults
    assert fault.startswith("A bag of 900 tiles cannot be drawn from these slides: row 2 (case case_001, ")
    assert fault.endswith("Leave them out, or lower [bags] size.")
    monkeypatch.setattr(TissueMask, "keep", lambda self, grid, _: np.zeros(grid.shape, np.bool_))
    bare = check(tmp_path, "attention-mil", cohort)
    assert len(bare.faults) == 8
    told = "Row 2 of the manifest, case case_001: no tissue was found on case_001_HE"
    assert bare.faults[0].startswith(told)


def test_what_is_wrong_with_configuration_and_table_is_a_fault(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(tmp_path, "attention-mil", cohort, "[head]\nepochs = 0\n")
    assert found.faults == ("[head] epochs must be a whole number of at least 1 and at most 100000, not 0.",)
    assert found.seconds is None
    assert "could not be read" in check(tmp_path, "mil", tmp_path / "none.csv").faults[0]
    assert "There is no data to train on" in check(tmp_path, "mil", None).faults[0]
    broken = cohort.with_name("broken.csv")
    broken.write_text("case_id,he,score\na,none.tif,0\nb,case_001_HE.tif,9\n")
    faults = check(tmp_path, "attention-mil", broken).faults
    broken.unlink()
    assert faults == (
        "Row 2: he none.tif does not exist.",
        "Row 3: score '9' is none of 0, 1+, 2+, 3+.",
    )
    with pytest.raises(JobFailed, match="no training method 'magic'"):
        next(napari_her2_training.check("magic", "c", cohort))


def test_a_slide_that_cannot_be_opened_and_a_copy_are_faults(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(cohort.parent, folder)
    slide = folder / "case_003_HE.tif"
    slide.write_bytes(b"no slide")
    found = check(tmp_path, "attention-mil", folder / "manifest.csv")
    assert len(found.faults) == 1
    assert found.faults[0].startswith("Row 4 of the manifest, case case_003: case_003_HE.tif")
    shutil.copy(folder / "case_001_HE.tif", slide)
    (fault,) = check(tmp_path, "attention-mil", folder / "manifest.csv").faults
    assert "Row 4: he case_003_HE.tif is the same slide as he case_001_HE.tif in row 2" in fault


def test_weights_that_would_be_downloaded_are_told_and_missing_ones_are_faults(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    pretrained = '[encoder]\nweights = "pretrained"\n'
    found = check(tmp_path, "attention-mil", cohort, CONFIGS["attention-mil"] + pretrained)
    assert found.faults == ()
    assert "AlexNet's ImageNet weights are downloaded when training begins." in found.warnings
    missing = check(
        tmp_path, "attention-mil", cohort, CONFIGS["attention-mil"] + '[encoder]\nweights = "x.safetensors"\n'
    )
    assert missing.faults == ("There is no file x.safetensors: check the path.",)
    assert dict(missing.facts)["H&E slides"].startswith("8, ")
    outlines = CONFIGS["attention-mil"] + '[pretraining]\nepochs = 1\nregions = "{case_id}_none.geojson"\n'
    assert (
        "Row 2: case_001_none.geojson, the outlines"
        in check(tmp_path, "attention-mil", cohort, outlines).faults[0]
    )
    stem = CONFIGS["corr-a-net"] + '[encoder]\nweights = "pretrained"\n'
    assert any("ResNet-50's" in text for text in check(tmp_path, "corr-a-net", cohort, stem).warnings)
    correlated = CONFIGS["predictor"].replace("H&E", "correlated")
    assert "name the file" in check(tmp_path, "predictor", cohort, correlated).faults[0]


def test_patches_that_cannot_be_read_are_named(patches: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(patches, folder)
    (folder / "tumour" / "3.png").write_bytes(b"")
    found = check(tmp_path, "encoder", folder)
    assert found.faults == ("tumour/3.png is damaged, or no image: get it again, or take it out.",)
    facts = dict(found.facts)
    assert facts["Patches (train)"] == "12 (6 of normal, 6 of tumour)"
    assert facts["Patches (validation)"] == "4 (2 of normal, 2 of tumour)"
    assert not any("two parts" in text for text in found.warnings)
    shutil.copy(folder / "tumour" / "4.png", folder / "tumour" / "3.png")
    for part in ("train", "val"):
        shutil.copytree(folder, tmp_path / "parts" / part)
    for kept in ("normal/0.png", "tumour/3.png"):
        (tmp_path / "parts" / "val" / kept).unlink()
    (told,) = check(tmp_path, "encoder", tmp_path / "parts").warnings
    assert told.startswith("14 patches are in two parts")
    assert "normal/1.png (validation) is normal/1.png (train)" in told
    assert "is no folder of patches" in check(tmp_path, "encoder", tmp_path / "none").faults[0]


def test_closing_stops_it_between_two_slides(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def watched(path: Path, **options: object):
        opened.append(path.name)
        return open_slide(path, **options)

    monkeypatch.setattr(reading, "open_slide", watched)
    config = tmp_path / "c.toml"
    config.write_text(MODEL + CONFIGS["attention-mil"] + '[compute]\ndevice = "cpu"\n')
    steps = napari_her2_training.check("attention-mil", config, cohort)
    next(steps)
    told = [next(steps) for _ in range(4)]
    steps.close()
    assert opened == [f"case_00{number}_HE.tif" for number in (1, 2, 3)]
    assert [(step.done, step.total, step.unit) for step in told] == [(n, 8, "slides") for n in range(4)]


def test_a_run_that_is_there_and_a_folder_that_cannot_be_are_told(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    found = check(tmp_path, "attention-mil", cohort, out=tmp_path / "out")
    assert any("holds a run already" in text for text in found.warnings)
    (tmp_path / "file").touch()
    assert "cannot be written" in check(tmp_path, "attention-mil", cohort, out=tmp_path / "file").faults[0]


def test_a_folder_of_pairs_is_looked_at_by_its_names_and_one_file_of_each_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for stain in ("HE", "IHC"):
        for part, count in (("train", 16), ("test", 4)):
            (tmp_path / "BCI" / stain / part).mkdir(parents=True)
            for number in range(count):
                name = f"{number}_{part}_{('0', '1+', '2+', '3+')[number % 4]}.png"
                image = rng.integers(0, 255, (64, 64, 3), np.uint8)
                cv2.imwrite(str(tmp_path / "BCI" / stain / part / name), image)
    found = check(tmp_path, "corr-a-net", tmp_path / "BCI")
    assert found.faults == ()
    facts = dict(found.facts)
    assert facts["Fields"] == "train 8, validation 8, test 4"
    assert facts["Patches (train)"] == "8 (2 of 0, 2 of 1+, 2 of 2+, 2 of 3+)"
    assert any("say nothing of patients" in text for text in found.warnings)
    wrong = check(tmp_path, "corr-a-net", tmp_path / "BCI", CONFIGS["corr-a-net"].replace("64", "128"))
    assert all(fact in wrong.faults[0] for fact in ("64 x 64", "128 x 128", "[data] tile_px"))
    (tmp_path / "BCI" / "IHC" / "test" / "0_test_0.png").unlink()
    alone = check(tmp_path, "corr-a-net", tmp_path / "BCI")
    assert "HE/test/0_test_0.png has no IHC image of the same name" in alone.faults[0]
    assert alone.seconds is None


def test_features_from_files_need_no_encoder(cohort: Path, tmp_path: Path, one_second: None) -> None:
    rows = ["case_id,he,ihc,score"]
    for number in range(8):
        for stain, width in (("he", 6), ("ihc", 5)):
            with h5py.File(tmp_path / f"{stain}{number}.h5", "w") as file:
                rng = np.random.default_rng([number, width])
                file["features"] = rng.random((3 + number, width), np.float32)
        rows.append(f"c{number},he{number}.h5,ihc{number}.h5,{number % 4}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    text = CONFIGS["wsmcl"].replace('"alexnet"', '"timm:no_such_model"\nweights = "pretrained"')
    found = check(tmp_path, "wsmcl", tmp_path / "m.csv", text)
    assert found.faults == ()
    assert dict(found.facts)["H&E slides"] == "8, as files of features"
    assert any("no model that scores slides" in text for text in found.warnings)
    assert found.seconds == 2 * 4 * (4 + 4)
    with h5py.File(tmp_path / "he7.h5", "w") as file:
        file["features"] = np.zeros((4, 9), np.float32)
    (fault,) = check(tmp_path, "wsmcl", tmp_path / "m.csv", text).faults
    assert fault.startswith(
        "Row 9 of the manifest, case c7: the H&E features have length 9, those before it 6."
    )
    unknown = check(tmp_path, "wsmcl", cohort, text)
    assert "timm has no model called 'no_such_model'" in unknown.faults[0]


@pytest.mark.parametrize(
    "method", [method for method in METHODS if method not in ("compare", "corr-a-net-table")]
)
def test_a_run_learns_what_its_dry_run_counted(
    method: str, cohort: Path, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, learnt = [], []

    def facts_of(task: Task) -> tuple[object, ...]:
        learns = sum(p.numel() for p in task.parameters() if p.requires_grad)
        return type(task), task.epochs, task.train_batches, task.validation_batches, task.accumulate, learns

    def timed(task: Task, _: object) -> Cost:
        counted.append(facts_of(task))
        return Cost(0.0, 0.0, 1)

    def stopped(task: Task, *_: object, **__: object) -> Generator:
        learnt.append(facts_of(task))
        raise JobFailed("far enough")
        yield

    monkeypatch.setattr(learning, "measure", timed)
    monkeypatch.setattr(learning, "fit_steps", stopped)
    data = patches if method == "encoder" else cohort
    assert check(tmp_path, method, data).faults == ()
    with pytest.raises(JobFailed, match="far enough"):
        finish(napari_her2_training.run(method, tmp_path / f"{method}.toml", data, tmp_path / "out"))
    assert learnt == counted[:1]
