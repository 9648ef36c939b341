"""The two steps of Corr-A-Net learn, and a training that was killed ends with the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from napari_her2_training.corr_a_net.arms import NetworkArm
from napari_her2_training.corr_a_net.config import NetworkConfig, PredictorConfig, StemConfig
from napari_her2_training.corr_a_net.predictor import (
    LabelledFields,
    PredictorTask,
    new_predictor,
)
from napari_her2_training.corr_a_net.training import CorrANetTask, new_network
from training_steps import fit_until

if TYPE_CHECKING:
    from pathlib import Path


def pairs_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs: brighter in one stain where they are darker in the other."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, 1, 12, 12)).astype(np.float32)
    fields = np.stack([cv2.resize(field[0], (48, 48), interpolation=cv2.INTER_CUBIC) for field in noise])
    he = np.clip(128 + 60 * fields[:, None], 0, 255).repeat(3, axis=1).astype(np.uint8)
    return he, 255 - he


def network_training(epochs: int) -> CorrANetTask:
    config = NetworkConfig(dim=8, crop_px=32, batch_size=4, epochs=epochs, learning_rate=1e-2)
    network = new_network(StemConfig(), NetworkArm(8, True), seed=0)
    return CorrANetTask(network, pairs_of(12, 0), pairs_of(4, 1), config, seed=0)


def test_corr_a_net_learns_to_agree_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = fit_until(network_training(4), tmp_path / "whole").network
    start = new_network(StemConfig(), NetworkArm(8, True), seed=0)
    assert not torch.equal(start.encode_he[0].weight, whole.encode_he[0].weight)
    assert torch.equal(start.stem.conv1.weight, whole.stem.conv1.weight)
    assert bool((whole.stem.ceiling != 1).any())
    fit_until(network_training(4), tmp_path / "killed", until=2 * 3 + 2)
    resumed = fit_until(network_training(4), tmp_path / "killed", resume=True).network
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def striped(count: int, seed: int) -> LabelledFields:
    """Fields whose class is the period of their stripes: whatever way they are turned."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    across = np.arange(48)
    fields = [127 + 90 * np.sin(across / (0.6 + 0.8 * label) + rng.uniform(0, 6)) for label in labels]
    stack = np.stack(fields)[:, None, None].repeat(3, axis=1).repeat(48, axis=2)
    return LabelledFields((stack.astype(np.uint8),), labels.astype(np.int64))


def predictor_training(epochs: int) -> PredictorTask:
    config = PredictorConfig(architecture="tinynet-e", batch_size=8, epochs=epochs, learning_rate=2e-3)
    predictor = new_predictor("tinynet-e", channels=3, size_px=48, seed=0)
    return PredictorTask(predictor, striped(32, 0), striped(8, 1), config, seed=0)


def test_a_predictor_learns_and_its_lambda_survives_a_resume(tmp_path: Path) -> None:
    whole = fit_until(predictor_training(3), tmp_path / "whole")
    # Twelve batches, each of which raises or lowers it by a hundredth.
    steps = np.log(float(whole.lambda_) / 0.1)
    assert abs(steps) > 1e-4
    assert abs(steps) < 12.1 * 0.0101
    fit_until(predictor_training(3), tmp_path / "killed", until=6)
    resumed = fit_until(predictor_training(3), tmp_path / "killed", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
