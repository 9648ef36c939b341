"""Fine-tuning of an encoder's last blocks, and patches of varied scale."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2.models.encoders import build_encoder
from napari_her2.models.patch_encoder import PatchEncoder
from napari_her2_training.encoder.config import PretrainingConfig
from napari_her2_training.encoder.last_blocks import blocks_of
from napari_her2_training.encoder.patches import Patches
from napari_her2_training.encoder.pretraining import PatchTask, check_scale, prepared_encoder
from training_steps import fit_until

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("alexnet", "timm:resnet10t", "timm:vit_tiny_patch16_224")


def tiny(name: str) -> PatchEncoder:
    small = {"img_size": 96, "depth": 3, "embed_dim": 48, "num_heads": 3} if "vit" in name else None
    return build_encoder(name, tile_px=96, arguments=small)


def patches(count: int, seed: int) -> Patches:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, 96, 96, 3)) + 100 * labels[:, None, None, None]
    return Patches(images.astype(np.uint8), labels.astype(np.int64))


def options(**values: object) -> PretrainingConfig:
    return PretrainingConfig(epochs=2, batch_size=4, learning_rate=1e-2, **values)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_block(name: str) -> None:
    encoder = tiny(name)
    named = [parameter for block in blocks_of(encoder) for parameter in block]
    assert sorted(named) == sorted(key for key, _ in encoder.backbone.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_only_the_last_blocks_learn_and_the_others_stay_bit_for_bit(name: str, tmp_path: Path) -> None:
    encoder = tiny(name)
    last = set(blocks_of(encoder)[-1])
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    train = patches(8, 0)
    prepared = prepared_encoder(encoder, train, blocks=1)
    assert (prepared.spec.mean, prepared.spec.std) == (encoder.spec.mean, encoder.spec.std)
    task = fit_until(
        PatchTask(prepared, train, patches(4, 1), options(blocks=1), classes=2, seed=0), tmp_path
    )
    after = task.encoder.backbone.state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    below = {key.rpartition(".")[0] for key in last}
    assert moved & last
    assert {key.rpartition(".")[0] for key in moved} <= below  # running statistics of what learns move too


def test_all_of_it_learns_by_default_and_normalises_by_the_patches(tmp_path: Path) -> None:
    train = patches(8, 0)
    prepared = prepared_encoder(tiny("alexnet"), train)
    assert prepared.spec.mean == train.mean_std()[0]
    before = {key: value.clone() for key, value in prepared.backbone.state_dict().items()}
    task = fit_until(PatchTask(prepared, train, patches(4, 1), options(), classes=2, seed=0), tmp_path)
    assert all(
        not torch.equal(value, before[key]) for key, value in task.encoder.backbone.state_dict().items()
    )


def test_more_blocks_than_there_are() -> None:
    train = patches(4, 0)
    with pytest.raises(JobFailed, match="has 5 blocks"):
        PatchTask(tiny("alexnet"), train, train, options(blocks=6), classes=2, seed=0)


def test_scale_varies_patches_as_asked() -> None:
    train = patches(8, 0)

    def drawn(jitter: float) -> torch.Tensor:
        own = options(
            stain_jitter=0.0, colour_jitter=0.0, sharpness_jitter=0.0, noise=0.0, scale_jitter=jitter
        )
        return PatchTask(tiny("alexnet"), train, train, own, classes=2, seed=0).draw(0, 0)[0]

    plain, scaled = drawn(0.0), drawn(0.3)
    assert plain.shape == scaled.shape
    assert not torch.equal(plain, scaled)
    assert torch.equal(drawn(0.3), scaled)


def test_scale_stays_within_what_the_encoder_was_made_for() -> None:
    encoder = tiny("alexnet")
    wide = PatchEncoder(replace(encoder.spec, contract="virchow2"), encoder.backbone)
    narrow = PatchEncoder(replace(encoder.spec, contract="uni"), encoder.backbone)
    check_scale(encoder, 0.5, 0.5)
    check_scale(wide, 0.5, 0.5)
    check_scale(narrow, 0.5, 0.0)
    check_scale(narrow, 0.5, 0.1)
    with pytest.raises(JobFailed, match="uni was made for"):
        check_scale(narrow, 0.5, 0.3)
    with pytest.raises(JobFailed, match="leaves that"):
        check_scale(wide, 0.25, 0.1)
