"""Configuration: every mistake is named with its key before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import napari_her2_training
from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2_training.command import train_steps
from napari_her2_training.config import find_config, parse_config, read_config

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {"name": "mine", "training_data": "ten slides"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"head": {"learning_rate": "fast"}},
            r"\[head\] learning_rate must be a positive number, not 'fast'",
        ),
        ({"head": {"learning_rate": 0}}, r"\[head\] learning_rate must be a positive number, not 0"),
        ({"head": {"learning_rate": float("nan")}}, r"\[head\] learning_rate must be a positive number"),
        ({"head": {"epochs": 2.5}}, r"\[head\] epochs must be a whole number of at least 1"),
        ({"head": {"epochs": True}}, r"\[head\] epochs must be a whole number"),
        (
            {"data": {"tile_px": 224}},
            r"\[data\] tile_px must be a whole number of at least 95 and at most 112",
        ),
        ({"data": {"classes": "five"}}, r"\[data\] classes must be one of 'scores', 'binary', not 'five'"),
        ({"bags": {"sise": 100}}, r"\[bags\] has no key 'sise'; did you mean 'size'\?"),
        ({"bag": {"size": 100}}, r"no section \[bag\]; did you mean 'bags'\?"),
        ({"head": 3}, r"\[head\] must be a section with keys"),
        ({"model": {"name": "mine"}}, r"\[model\] training_data must be given"),
        ({"model": {"name": 7, "training_data": "x"}}, r"\[model\] name must be a text, not 7"),
    ],
)
def test_mistakes_are_named_with_their_key(values: dict, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        parse_config({"model": MODEL, **values})


def test_broken_and_missing_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[head\nepochs = 3")
    with pytest.raises(JobFailed, match=r"broken\.toml is not valid TOML"):
        read_config(broken)
    with pytest.raises(JobFailed, match="could not be read"):
        read_config(tmp_path / "none.toml")


def test_the_configurations_of_the_package_are_valid() -> None:
    paper = read_config(find_config("attention_mil"))
    # Values as the paper's public scripts have them.
    assert (paper.bags.size, paper.bags.batch_size, paper.bags.train_batches) == (100, 64, 100)
    assert (paper.bags.validation_batches, paper.bags.validation_seed) == (25, 123)
    assert (paper.head.epochs, paper.head.learning_rate, paper.head.weight_decay) == (50, 1e-3, 1e-7)
    assert (paper.data.folds, paper.data.tile_px, paper.data.mpp) == (5, 96, 0.5)
    demo = read_config(find_config("demo_attention_mil"))
    assert demo.model.name == "demo-attention-mil"
    assert "synthetic" in demo.model.training_data


def test_whole_numbers_are_taken_where_numbers_are_asked_for() -> None:
    assert parse_config({"model": MODEL, "data": {"mpp": 1}}).data.mpp == 1.0


def test_the_digest_changes_with_any_value() -> None:
    base = parse_config({"model": MODEL})
    assert base.digest() == parse_config({"model": MODEL}).digest()
    assert base.digest() != parse_config({"model": MODEL, "head": {"epochs": 49}}).digest()


def test_a_mistake_ends_the_run_before_the_manifest_is_touched(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[model]\nname = "a"\ntraining_data = "b"\n[head]\nepochs = "many"\n')
    with pytest.raises(JobFailed, match=r"\[head\] epochs"):
        next(napari_her2_training.run("attention-mil", config, tmp_path / "none.csv", tmp_path / "out"))
    with pytest.raises(JobFailed, match="no training method 'magic'"):
        next(napari_her2_training.run("magic", config, tmp_path / "none.csv", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_without_a_manifest_the_command_says_where_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="give --data"):
        next(train_steps("attention-mil", out=tmp_path / "out"))
    config = tmp_path / "c.toml"
    config.write_text('[model]\nname = "a"\ntraining_data = "b"\n[data]\nmanifest = "cases.csv"\n')
    with pytest.raises(JobFailed, match=r"cases\.csv could not be read"):
        next(train_steps("attention-mil", config=config, out=tmp_path / "out"))


def test_a_run_may_move_to_another_device_or_folder() -> None:
    base = parse_config({"model": MODEL})
    moved = parse_config({"model": MODEL, "compute": {"device": "cpu"}, "data": {"manifest": "m.csv"}})
    assert moved.digest() == base.digest()


def test_without_any_manifest_the_command_says_where_to_name_one(tmp_path):
    result = CliRunner().invoke(
        app, ["train", "attention-mil", "--config", "demo_attention_mil", "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 1
    assert "[data] manifest in the configuration" in result.output
    assert not (tmp_path / "run").exists()
