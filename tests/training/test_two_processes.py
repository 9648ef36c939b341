"""Two processes learn what one does that sums gradients over twice as many batches, whatever the method."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np
import psutil
import pytest

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.models.weights_file import read_weights
from napari_her2.slide.reader import open_slide
from napari_her2_training.running import ranks
from napari_her2_training.running.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    Weights = dict[str, dict[str, torch.Tensor]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Lightning's processes on a CPU need POSIX"),
]
MODEL = '[model]\nname = "tiny"\ntraining_data = "made up"\n'
WITH_DOUBT = ("attention-mil", "encoder")  # of patches there is nothing to keep
NO_DOUBT = "[doubt]\nfamiliarity = false\nsets = false\n"
END = '[measure]\nresamples = 2\n[compute]\ndevice = "cpu"\n'
IMAGES = """
[data]
classes = "low"
[image]
size_px = 64
[patches]
tile_px = 64
mpp = 1.0
per_slide = 2
epochs = 1
[network]
variant = "atto"
[learning]
epochs = 1
batch_size = 2
accumulate = 1
"""
FIELDS = """
[data]
tile_px = 256
field_px = 64
mpp = 0.5
validation = 0.34
[network]
dim = 8
crop_px = 32
batch_size = 4
train_batches = 4
epochs = 1
[predictor]
architecture = "tinynet-e"
input = "H&E"
batch_size = 4
train_batches = 4
epochs = 1
[table]
inputs = "correlated"
"""
PAIRS = """
[pairs]
accumulate = 3
[head]
width = 8
heads = 2
landmarks = 8
k = 4
epochs = 2
"""
MIL = '[head]\narchitecture = "clam-mb"\nwidth = 8\nhidden = 4\nepochs = 2\n'
CONFIGS = {
    "attention-mil": (
        """
[pretraining]
epochs = 1
patches_per_slide = 8
regions = "{case_id}_tumour.geojson"
batch_size = 8
[bags]
size = 5
batch_size = 4
train_batches = 4
validation_batches = 1
[head]
epochs = 1
guidance = 0.5
""",
        "slides/manifest.csv",
    ),
    "wsmcl": (PAIRS, "features/manifest.csv"),
    # Trains both methods of images too, and a model of bags by another road.
    "compare": (
        f'[compare]\narms = "low-resolution, patches, abmil"\n{IMAGES}[tiles]\ntile_px = 96\n'
        '[encoder]\nname = "model:demo-attention-mil"\n[head]\nwidth = 8\nhidden = 8\nepochs = 1\n'
        "accumulate = 1\n",
        "slides/manifest.csv",
    ),
    "corr-a-net": (FIELDS, "fields"),
    "predictor": (FIELDS, "fields"),
    "corr-a-net-table": (FIELDS, "fields"),
    "encoder": (
        "[data]\nvalidation = 0.25\n[pretraining]\nepochs = 1\nbatch_size = 4\nlearning_rate = 1e-4\n",
        "patches",
    ),
}
ABLATIONS = """
[[ablation]]
name = "without MACL"
loss.contrastive = 0
[[ablation]]
name = "without KL"
loss.distillation = 0
"""


@pytest.fixture(scope="module")
def data(cohort_of: Callable[[int, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the methods learn from: slides, features, fields of a folder, and patches."""
    folder = tmp_path_factory.mktemp("data")
    manifest = cohort_of(8, folder / "slides")
    rng = np.random.default_rng(4)
    (folder / "features").mkdir()
    lines = ["case_id,he,ihc,score"]
    for n in range(24):
        for stain, width in (("he", 12), ("ihc", 10)):
            features = rng.normal(0, 1, (16, width))
            features[:8, n % 4] += 2
            with h5py.File(folder / "features" / f"{n}-{stain}.h5", "w") as file:
                file["features"] = features.astype(np.float32)
                file["coords"] = np.zeros((16, 2), np.int64)
        part = "validation" if n >= 16 else "train"
        lines.append(f"c{n},{n}-he.h5,{n}-ihc.h5,{n % 4},{part}")
    lines[0] += ",split"
    (folder / "features" / "manifest.csv").write_text("\n".join(lines) + "\n")
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seen: set[str] = set()
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], "split"])
        writer.writeheader()
        for row in rows:  # of each score one to learn from and one to choose the epoch by
            writer.writerow(row | {"split": "validation" if row["score"] in seen else "train"})
            seen.add(row["score"])
    for number, row in enumerate(rows):
        for corner, split in (((64, 64), "train"), ((64, 448), "train"), ((448, 448), "test")):
            for stain, column in (("HE", "he"), ("IHC", "ihc")):
                with open_slide(folder / "slides" / row[column]) as slide:
                    image = slide.read(0, *corner, 256, 256)
                name = f"{number * 512 + corner[1]}_{split}_{row['score']}.png"
                path = folder / "fields" / stain / split / name
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image[:, :, ::-1])
    for label in ("0", "1"):
        (folder / "patches" / label).mkdir(parents=True)
        for number in range(16):
            image = rng.integers(100 * int(label), 150 + 100 * int(label), (96, 96, 3), np.uint8)
            cv2.imwrite(str(folder / "patches" / label / f"{number}.png"), image)
    return folder


@pytest.fixture
def partners(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that the first one starts."""
    started: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setattr(ranks.subprocess, "Popen", Kept)
    return started


def write_config(out: Path, text: str, devices: int) -> Path:
    config = out.parent / f"{out.name}.toml"
    config.write_text(f"{MODEL}{text}".replace("[[ablation]]", f"{END}devices = {devices}\n[[ablation]]", 1))
    if "[[ablation]]" not in text:
        config.write_text(f"{MODEL}{text}{END}devices = {devices}\n")
    return config


def run(method: str, text: str, data: Path, out: Path, *, devices: int) -> Iterator[object]:
    text = text if method in WITH_DOUBT else f"{NO_DOUBT}{text}"
    yield from napari_her2_training.run(method, write_config(out, text, devices), data, out)


def weights(out: Path) -> Weights:
    return {
        str(file.relative_to(out)): dict(read_weights(file).tensors)
        for file in sorted(out.rglob("*.safetensors"))
    }


def assert_near(
    found: dict[str, dict[str, torch.Tensor]], expected: dict[str, dict[str, torch.Tensor]]
) -> None:
    assert expected
    assert set(found) == set(expected)
    for file, tensors in expected.items():
        assert set(found[file]) == set(tensors), file
        total, count = 0.0, 0
        for name, value in tensors.items():
            off = (found[file][name].float() - value.float()).abs()
            assert float(off.max()) <= 1e-3, (file, name)
            total += float(off.sum()) / max(1.0, float(value.float().abs().mean()))
            count += off.numel()
        # Steps are small: had each learnt by itself, no weight would be far from here, but all some way.
        assert total <= 1e-5 * count, file


def train_both(
    method: str, text: str, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """Train in two processes, then in one whose steps look at twice as many batches."""
    one, two = folder / "one", folder / "two"
    list(run(method, text, data, two, devices=2))
    with_twice_the_batches(monkeypatch)
    list(run(method, text, data, one, devices=1))
    return one, two


def with_twice_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the steps of a training look at twice as many batches."""
    original = Task.__init__

    def doubled(self: Task, *, accumulate: int = 1, **more: int) -> None:
        original(self, accumulate=2 * accumulate, **more)

    monkeypatch.setattr(Task, "__init__", doubled)


def command(config: Path, data: Path, out: Path) -> list[str]:
    names = ["--config", str(config), "--data", str(data), "--out", str(out)]
    return [sys.executable, "-m", "napari_her2", "train", "mil", *names]


@pytest.mark.parametrize("method", CONFIGS)
def test_two_processes_end_with_the_weights_of_one(
    method: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    partners: list[subprocess.Popen[bytes]],
) -> None:
    monkeypatch.setenv("NAPARI_HER2_PRECISION", "float32")
    text, source = CONFIGS[method]
    text += ABLATIONS if method == "wsmcl" else ""
    one, two = train_both(method, text, data / source, tmp_path, monkeypatch)
    assert [partner.returncode for partner in partners] == [0]
    assert_near(weights(two), weights(one))
    # All of it was written, and once.
    written = [{str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} for out in (one, two)]
    assert written[0] == written[1]
    for table in ("predictions.csv", "table.csv", "ablations.csv"):
        rows = [out / table for out in (one, two)]
        if rows[0].exists():
            assert len(rows[0].read_text().splitlines()) == len(rows[1].read_text().splitlines())
    if method == "attention-mil":
        kept = [json.loads((out / "metrics.json").read_text())["doubt"] for out in (one, two)]
        assert kept[0] == kept[1]
        assert all(kept[0][0][what] for what in ("familiarity", "sets"))
    starts = [line for line in (two / "progress.jsonl").read_text().splitlines() if '"started"' in line]
    assert len(starts) == 1
    assert json.loads((two / "process.json").read_text())["state"] == "finished"


def test_the_command_ends_too_and_the_slides_of_a_case_stay_in_one_bag(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["case_id,he,ihc,score,split"]
    for n in range(24):  # two slides a case, of one score
        part = "validation" if n % 12 >= 8 else "train"
        lines.append(f"c{n % 12},{n}-he.h5,{n}-ihc.h5,{n % 4},{part}")
    manifest = data / "features" / "cases.csv"
    manifest.write_text("\n".join(lines) + "\n")
    text = f'{MIL}[cases]\nslides = "joined bags"\n'
    one, two = tmp_path / "one", tmp_path / "two"
    config = write_config(two, f"{NO_DOUBT}{text}", 2)
    done = subprocess.run(command(config, manifest, two), capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with_twice_the_batches(monkeypatch)
    list(run("mil", text, manifest, one, devices=1))
    assert_near(weights(two), weights(one))
    for out in (one, two):
        with (out / "predictions.csv").open(newline="") as file:
            cases = [row["case_id"] for row in csv.DictReader(file)]
        assert sorted(cases) == sorted({f"c{n}" for n in range(12)})


ENDLESS = MIL.replace("epochs = 2", "epochs = 5000")


def test_a_training_ends_plainly_when_a_partner_is_killed(
    data: Path, tmp_path: Path, partners: list[subprocess.Popen[bytes]]
) -> None:
    steps = run("mil", ENDLESS, data / "features" / "manifest.csv", tmp_path / "out", devices=2)
    while getattr(next(steps), "unit", "") != "batches":
        pass
    partners[0].kill()
    killed = time.monotonic()
    with pytest.raises(JobFailed, match="processes that learn together has ended"):
        list(steps)
    assert time.monotonic() - killed < 60
    assert json.loads((tmp_path / "out" / "process.json").read_text())["state"] == "failed"
    assert "LOCAL_RANK" not in os.environ


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # where nobody waits for it
    except psutil.NoSuchProcess:
        return True


def test_a_partner_ends_plainly_when_the_first_is_killed(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "out", ENDLESS, 2)
    first = subprocess.Popen(
        command(config, data / "features" / "manifest.csv", tmp_path / "out"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out" / "fold0" / "head" / "last.ckpt").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    (partner,) = psutil.Process(first.pid).children()
    os.kill(first.pid, signal.SIGKILL)
    # The partner holds the other end of the pipe: it is read to its end when the partner has ended.
    _, errors = first.communicate(timeout=60)
    for _ in range(600):  # between its last line and its end there is a moment
        if has_ended(partner):
            break
        time.sleep(0.1)
    assert has_ended(partner)
    assert "first of the processes that learn together has ended" in errors
    assert "Traceback" not in errors


def test_a_partner_that_cannot_begin_is_not_waited_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks.sys, "executable", "/bin/false")
    steps = run("mil", MIL, data / "features" / "manifest.csv", tmp_path / "out", devices=2)
    with pytest.raises(JobFailed, match="processes that learn together has ended"):
        list(steps)
    assert "LOCAL_RANK" not in os.environ


def test_what_is_wrong_with_the_data_is_told_once(
    data: Path, tmp_path: Path, partners: list[subprocess.Popen[bytes]]
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("case_id,ihc,score\nc0,gone.h5,0\n")
    with pytest.raises(JobFailed, match=r"gone\.h5"):
        list(run("mil", MIL, manifest, tmp_path / "out", devices=2))
    assert partners == []
