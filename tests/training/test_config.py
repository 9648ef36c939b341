"""Configuration: every mistake is named with its key before any work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

import napari_her2_training
from napari_her2.cli import app
from napari_her2.errors import JobFailed
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.command import train_steps
from napari_her2_training.config import find_config, read_config
from napari_her2_training.config_sections import Published
from napari_her2_training.methods import METHODS
from napari_her2_training.wsmcl.config import WSMCLConfig

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
            r"\[data\] tile_px must be 95 to 112 for AlexNet, not 224",
        ),
        ({"data": {"classes": "five"}}, r"\[data\] classes must be one of 'scores', 'binary', not 'five'"),
        ({"bags": {"sise": 100}}, r"\[bags\] has no key 'sise' \(did you mean 'size'\?"),
        ({"bag": {"size": 100}}, r"no section \[bag\] \(did you mean 'bags'\?"),
        ({"head": 3}, r"\[head\] must be a section with keys"),
        ({"model": {"name": "mine"}}, r"\[model\] training_data must be given"),
        ({"model": {"name": 7, "training_data": "x"}}, r"\[model\] name must be a text, not 7"),
    ],
)
def test_mistakes_are_named_with_their_key(values: dict, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        AttentionConfig.parse({"model": MODEL, **values})


def test_broken_and_missing_files_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[head\nepochs = 3")
    with pytest.raises(JobFailed, match=r"broken\.toml is not valid TOML"):
        read_config(broken, AttentionConfig)
    with pytest.raises(JobFailed, match="could not be read"):
        read_config(tmp_path / "none.toml", AttentionConfig)


def test_the_configurations_of_the_package_are_valid() -> None:
    paper = read_config(find_config("attention_mil"), AttentionConfig)
    # Values as the paper's public scripts have them.
    assert (paper.bags.size, paper.bags.batch_size, paper.bags.train_batches) == (100, 64, 100)
    assert (paper.bags.validation_batches, paper.bags.validation_seed) == (25, 123)
    assert (paper.head.epochs, paper.head.learning_rate, paper.head.weight_decay) == (50, 1e-3, 1e-7)
    assert (paper.data.folds, paper.data.tile_px, paper.data.mpp) == (5, 96, 0.5)
    demo = read_config(find_config("demo_attention_mil"), AttentionConfig)
    assert demo.model.name == "demo-attention-mil"
    assert "synthetic" in demo.model.training_data


PUBLISHED = {"measure": "macro AUC", "value": 0.622, "on": "their slides", "source": "the abstract"}


def test_published_figures_are_read_and_change_no_run() -> None:
    plain = AttentionConfig.parse({"model": MODEL})
    told = AttentionConfig.parse({"model": MODEL, "published": [PUBLISHED, PUBLISHED | {"value": 1}]})
    assert told.published == (
        Published("macro AUC", 0.622, "their slides", "the abstract"),
        Published("macro AUC", 1.0, "their slides", "the abstract"),
    )
    assert plain.published == ()
    assert told.digest() == plain.digest()
    # Of a run with variants the figures are those of the run itself.
    pairs = paired(published=[PUBLISHED], ablation=[{"name": "x", "loss": {"he": 1}}])
    assert (len(pairs.published), pairs.variants[0].config.published) == (1, ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PUBLISHED, r"given as \[\[published\]\]"),
        (
            [PUBLISHED, {"measure": "AUC"}],
            r"figure 2: \[\[published\]\] value and on and source must be given",
        ),
        ([PUBLISHED | {"value": "high"}], r"figure 1: \[\[published\]\] value must be a number, not 'high'"),
        ([PUBLISHED | {"where": "x"}], r"figure 1: \[\[published\]\] has no key 'where'"),
    ],
)
def test_mistakes_in_published_figures_are_named(given: object, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        AttentionConfig.parse({"model": MODEL, "published": given})


def test_every_configuration_of_the_package_is_valid_for_its_method() -> None:
    folder = find_config("attention_mil").parent
    methods = {name: method for method in METHODS.values() for name in method.configs}
    for path in folder.glob("*.toml"):
        config = read_config(path, methods[path.stem].config)
        assert all(figure.source and 0 < figure.value < 100 for figure in config.published), path.stem


def test_figures_of_the_papers_are_those_of_their_texts() -> None:
    means = {
        name: [figure.value for figure in read_config(find_config(name), AttentionConfig).published]
        for name in ("attention_mil", "attention_mil_ihc", "attention_mil_pcam")
    }
    assert means == {"attention_mil": [0.454], "attention_mil_ihc": [0.511], "attention_mil_pcam": [0.622]}
    table = read_config(find_config("corr_a_net_table"), METHODS["corr-a-net-table"].config)
    balanced = {f.on: f.value for f in table.published if f.measure == "balanced accuracy"}
    assert balanced["BCI, 977 test patches: ResNeXt on H&E"] == 0.80
    assert balanced["BCI, 977 test patches: ViT on IHC"] == 0.76
    assert balanced["BCI, 977 test patches: ResNeXt on correlated (d=16, attention)"] == 0.9426
    low = read_config(find_config("low_resolution"), METHODS["low-resolution"].config)
    assert {f.measure: f.value for f in low.published} == {
        "macro AUC": 0.9179,
        "macro F1": 0.8352,
        "accuracy": 0.8356,
    }
    # The figures of WSMCL could not be had: none is made up.
    assert read_config(find_config("wsmcl"), WSMCLConfig).published == ()


def test_the_same_class_protocol_differs_from_the_same_case_one_in_the_pairs_alone() -> None:
    case, herohe = (read_config(find_config(name), WSMCLConfig) for name in ("wsmcl", "wsmcl_herohe"))
    assert (herohe.pairs.mode, herohe.pairs.redraw) == ("same-class", False)
    assert (herohe.head, herohe.loss, herohe.encoder) == (case.head, case.loss, case.encoder)


def test_whole_numbers_are_taken_where_numbers_are_asked_for() -> None:
    assert AttentionConfig.parse({"model": MODEL, "data": {"mpp": 1}}).data.mpp == 1.0


def test_the_digest_changes_with_any_value() -> None:
    base = AttentionConfig.parse({"model": MODEL})
    assert base.digest() == AttentionConfig.parse({"model": MODEL}).digest()
    assert base.digest() != AttentionConfig.parse({"model": MODEL, "head": {"epochs": 49}}).digest()


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
    base = AttentionConfig.parse({"model": MODEL})
    moved = AttentionConfig.parse(
        {"model": MODEL, "compute": {"device": "cpu"}, "data": {"manifest": "m.csv"}}
    )
    assert moved.digest() == base.digest()


def test_without_any_manifest_the_command_says_where_to_name_one(tmp_path):
    result = CliRunner().invoke(
        app, ["train", "attention-mil", "--config", "demo_attention_mil", "--out", str(tmp_path / "run")]
    )
    assert result.exit_code == 1
    assert "[data] manifest in the configuration" in result.output
    assert not (tmp_path / "run").exists()


def paired(**values: object) -> WSMCLConfig:
    return WSMCLConfig.parse({"model": MODEL, **values})


def test_the_published_protocol_of_wsmcl_is_the_default_and_that_of_the_package() -> None:
    told = read_config(find_config("wsmcl"), WSMCLConfig)
    default = paired()
    assert (told.pairs, told.head, told.loss) == (default.pairs, default.head, default.loss)
    assert (told.head.epochs, told.head.learning_rate, told.head.weight_decay) == (100, 2e-4, 1e-5)
    assert (told.head.width, told.head.k, told.pairs.accumulate, told.data.folds) == (512, 100, 5, 5)
    assert (told.loss.he, told.loss.ihc, told.loss.distillation) == (0, 1, 1)
    demo = read_config(find_config("demo_wsmcl"), WSMCLConfig)
    assert demo.encoder.name == "model:demo-attention-mil"
    assert "synthetic" in demo.model.notice


def test_the_ablations_of_the_package_differ_in_what_they_name_alone() -> None:
    base = read_config(find_config("wsmcl"), WSMCLConfig)
    config = read_config(find_config("wsmcl_ablations"), WSMCLConfig)
    assert (config.data, config.encoder, config.pairs, config.head, config.loss) == (
        base.data,
        base.encoder,
        base.pairs,
        base.head,
        base.loss,
    )
    variants = {variant.name: variant.config for variant in config.variants}
    assert variants["without MACL"].loss == replace(base.loss, contrastive=0.0)
    assert variants["without KL"].loss == replace(base.loss, distillation=0.0)
    assert variants["top-k only"].loss == replace(base.loss, anchors="top")
    assert [variants[f"k {k}"].head.k for k in (10, 25, 50, 200)] == [10, 25, 50, 200]
    # A variant more or less does not make another run of the base.
    assert config.digest() == replace(config, variants=()).digest()
    assert len({variant.config.digest() for variant in config.variants} | {config.digest()}) == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": {"contrast": 0}}, r"\[loss\] has no key 'contrast' \(did you mean 'contrastive'"),
        ({"loss": {"detach_teacher": 1}}, r"\[loss\] detach_teacher must be true or false, not 1"),
        ({"loss": {"anchors": "bottom"}}, r"\[loss\] anchors must be one of 'both', 'top'"),
        (
            {"loss": {"fusion": 0, "ihc": 0, "contrastive": 0, "distillation": 0}},
            r"\[loss\] must have a part",
        ),
        ({"pairs": {"mode": "any"}}, r"\[pairs\] mode must be one of 'same-case', 'same-class'"),
        ({"head": {"width": 100}}, r"\[head\] width \(100\) must be a multiple of heads \(8\)"),
        (
            {"encoder": {"name": "vgg"}},
            r"one of 'alexnet', 'timm:NAME', 'model:NAME' or .*encoders list.*, not 'vgg'",
        ),
        ({"encoder": {"name": "timm:"}}, r"\[encoder\] name must be one of"),
        ({"bags": {"size": 3}}, r"no section \[bags\]"),
        ({"ablation": {"name": "x"}}, r"given as \[\[ablation\]\]"),
        ({"ablation": [{"loss": {"he": 1}}]}, r"Each \[\[ablation\]\] needs a name"),
        ({"ablation": [{"name": "../x"}]}, r"Each \[\[ablation\]\] needs a name"),
        ({"ablation": [{"name": "x"}, {"name": "X"}]}, "Two variants are called 'x'"),
        ({"ablation": [{"name": "x", "data": {"mpp": 1}}]}, "'x' may change keys of pairs, head, loss"),
        ({"ablation": [{"name": "x", "head": {"kk": 1}}]}, r"'x': \[head\] has no key 'kk'"),
    ],
)
def test_mistakes_in_a_configuration_of_wsmcl_are_named(values: dict, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        paired(**values)
