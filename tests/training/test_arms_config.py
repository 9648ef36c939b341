"""The configurations of the arms: those that come with the package are whole, and faults are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2_training.comparison.config import ARMS, CompareConfig
from napari_her2_training.config import read_config
from napari_her2_training.low_resolution.config import LowResolutionConfig, PatchArmConfig
from napari_her2_training.methods import METHODS
from napari_her2_training.mil.config import MILConfig

CONFIGS = Path(napari_her2_training.__file__).parent / "configs"
MODEL = {"name": "a", "training_data": "b"}


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("low-resolution", "low_resolution"),
        ("low-resolution", "demo_low_resolution"),
        ("patches", "patches"),
        ("mil", "mil"),
        ("compare", "compare"),
        ("compare", "demo_compare"),
    ],
)
def test_those_of_the_package_are_read(method: str, name: str) -> None:
    config = read_config(CONFIGS / f"{name}.toml", METHODS[method].config)
    assert config.data.mapping.names == ("0", "Low", "High")


def test_an_arm_of_a_comparison_has_its_sections() -> None:
    values = {"model": MODEL, "image": {"size_px": 512}, "head": {"epochs": 3}, "patches": {"per_slide": 4}}
    config = CompareConfig.parse(values)
    assert config.compare.names == ARMS
    assert config.of(LowResolutionConfig).image.size_px == 512
    assert config.of(PatchArmConfig).patches.per_slide == 4
    mil = config.of(MILConfig)
    assert mil.head.epochs == 3
    assert mil.embedding.mapping.names == ("0", "Low", "High")
    assert {type(config.of(kind)) for kind in (LowResolutionConfig, MILConfig)} == {
        LowResolutionConfig,
        MILConfig,
    }


def test_arms_may_be_added_to_a_comparison_and_nothing_else_may_change() -> None:
    config = CompareConfig.parse({"model": MODEL, "compare": {"arms": "abmil"}})
    more = CompareConfig.parse({"model": MODEL, "compare": {"arms": "abmil, dsmil"}})
    assert config.digest() == more.digest()
    other = replace(config, image=replace(config.image, size_px=512))
    assert config.digest() != other.digest()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("compare", {"arms": "abmil, clam"}, r"\[compare\] arms must be names from low-resolution, .*'clam'"),
        ("compare", {"arms": " , "}, "not nothing"),
        ("data", {"classes": "0: 0, 1+: Low, 2+: Low"}, r"\[data\] classes leaves out the score 3\+"),
        ("data", {"stain": "HER2"}, r"\[data\] stain must be one of 'ihc', 'he'"),
        ("learning", {"balance": "all"}, r"\[learning\] balance must be one of"),
        ("image", {"size_px": 500}, r"\[image\] size_px must be a multiple of 32, not 500"),
        ("head", {"width": 100}, r"\[head\] width must be a multiple of 8 for TransMIL"),
        ("network", {"variant": "huge"}, r"\[network\] variant must be one of 'tiny'"),
    ],
)
def test_what_is_wrong_is_named(section: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        CompareConfig.parse({"model": MODEL, section: values})
