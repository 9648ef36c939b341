"""The recipes of docs/recipes.md, followed to the end on made slides in the shape of HEROHE and BCI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image
from typer.testing import CliRunner

import napari_her2_training
from cohort_folders import HEROHE_COLUMNS, workbook
from dry_runs import finish, write_slide
from napari_her2.cli import app
from napari_her2.models.registry import load_model
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.config import find_config, read_config
from napari_her2_training.dry_run import check_steps
from napari_her2_training.methods import METHODS

if TYPE_CHECKING:
    from pathlib import Path


QUICK = """
[compute]
device = "cpu"
[measure]
resamples = 0
[doubt]
familiarity = false
sets = false
"""


def shortened(name: str, folder: Path, *changes: tuple[str, str]) -> Path:
    """Return one of our configurations with smaller numbers; every change must be one."""
    text = find_config(name).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(f"{text}{QUICK}", encoding="utf-8")
    return path


def trained(method: str, config: Path, data: Path, out: Path) -> Path:
    """Check, and train to the end."""
    check = finish(check_steps(method, config=config, data=data))[1]
    assert check.faults == ()
    assert check.seconds > 0
    return finish(napari_her2_training.run(method, config, data, out))[1]


def imported(kind: str, folder: Path, out: Path) -> Path:
    done = CliRunner().invoke(app, ["cohort", "import", kind, str(folder), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_herohe_from_its_folder_to_a_bundle_with_the_published_figure_beside(tmp_path: Path) -> None:
    folder = tmp_path / "HEROHE"
    for part, title, scores in (("train", "Training", (0, 1, 2, 3) * 2), ("test", "Test", (0, 1, 2, 3))):
        (folder / part).mkdir(parents=True)
        rows = [(case, ihc, None, "Negative", 50) for case, ihc in enumerate(scores, 1)]
        workbook(folder / f"{title} (ground truth).xlsx", [HEROHE_COLUMNS, *rows])
        for case in range(1, len(scores) + 1):
            write_slide(folder / part / f"{case}.tif", "HE", 3 * case + (1000 if part == "test" else 0))
    data = imported("herohe", folder, tmp_path / "herohe.csv")
    config = shortened(
        "herohe_attention_mil", tmp_path,
        ('weights = "pretrained"', 'weights = "random"'), ("folds = 5", "folds = 2"),
        ("size = 100", "size = 5"), ("batch_size = 64", "batch_size = 4"), ("batches = 100", "batches = 2"),
        ("batches = 25", "batches = 2"), ("hidden = 256", "hidden = 8"), ("epochs = 50", "epochs = 1"),
    )  # fmt: skip
    bundle = trained("attention-mil", config, data, tmp_path / "run")
    card = load_model(bundle).card
    assert (card.name, card.stain, tuple(card.classes)) == (
        "herohe-attention-mil",
        "H&E",
        ("0", "1+", "2+", "3+"),
    )
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    page = finish(napari_her2_training.report(tmp_path / "run", cases=0))[1].read_text(encoding="utf-8")
    assert record["published"][0]["value"] == 0.454
    assert "0.454" in page
    assert "not HEROHE" in page


def test_bci_from_its_folder_to_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "BCI"
    rng = np.random.default_rng(4)
    for part, count in (("train", 16), ("test", 4)):
        for number in range(count):
            score = ("0", "1+", "2+", "3+")[number % 4]
            cells = cv2.resize(rng.random((16, 16)), (64, 64), interpolation=cv2.INTER_CUBIC)[..., None] > 0.6
            for stain, dark in (("HE", (105, 60, 130)), ("IHC", (130 - 20 * (number % 4), 80, 50))):
                light = (205, 140, 185) if stain == "HE" else (190, 185, 205)
                image = np.where(cells, dark, light) + rng.normal(0, 6, (64, 64, 3))
                path = folder / stain / part / f"{number:05}_{part}_{score}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    cases = read_manifest(imported("bci", folder, tmp_path / "bci.csv"))
    assert [case.split for case in cases].count("test") == 4
    small = (("tile_px = 1024", "tile_px = 64"), ("field_px = 256", "field_px = 32"))
    network = shortened(
        "corr_a_net", tmp_path, *small,
        ('weights = "pretrained"', 'weights = "random"'), ("dim = 16", "dim = 8"),
        ("epochs = 250", "epochs = 1"), ("batch_size = 64", "batch_size = 4"),
    )  # fmt: skip
    network = trained("corr-a-net", network, folder, tmp_path / "run")
    assert network.name == "corr-a-net.safetensors"
    predictor = shortened(
        "predictor", tmp_path, *small, ('"resnext50-32x4d"', '"tinynet-e"'), ("epochs = 100", "epochs = 1"),
        ("batch_size = 32", "batch_size = 4"), ("run/corr-a-net", f"{tmp_path.as_posix()}/run/corr-a-net"),
    )  # fmt: skip
    card = load_model(trained("predictor", predictor, folder, tmp_path / "predictor")).card
    assert (card.name, card.stain) == ("corr-a-net-predictor", "H&E")


def test_no_published_figure_is_without_its_source() -> None:
    for method in METHODS.values():
        for name in method.configs:
            for figure in read_config(find_config(name), method.config).published:
                assert "arXiv" in figure.source or "medRxiv" in figure.source
