"""ConvNeXt on images of slides: rates, weights, augmentation, and that a killed training resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

from napari_her2.errors import ModelError
from napari_her2.models.low_resolution import LowResolution
from napari_her2.models.weights_file import write_weights
from napari_her2_training.classes import class_mapping
from napari_her2_training.cohort.manifest import Case
from napari_her2_training.encoder.augment import vary_place
from napari_her2_training.low_resolution.config import ConvNeXtConfig, LearningConfig
from napari_her2_training.low_resolution.slide_images import SlideImages
from napari_her2_training.low_resolution.start import measure_start, start_from
from napari_her2_training.low_resolution.training import (
    ImageTask,
    parameter_groups,
    per_slide,
    predict_images,
)
from training_steps import CPU, fit_until

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
LEARNING = LearningConfig(
    epochs=3,
    batch_size=6,
    accumulate=1,
    learning_rate=2e-3,
    body_rate_factor=1.0,
    layer_decay=1.0,
    warmup_epochs=0,
    label_smoothing=0.0,
)


def slides(folder: Path, count: int, seed: int, *, each: int = 1) -> SlideImages:
    """Brown of three strengths."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    cases, files = [], []
    for row in range(count):
        score = ("0", "1+", "3+")[row % 3]
        colour = np.array([(200, 200, 240), (180, 140, 110), (90, 50, 20)][row % 3])
        images = np.clip(colour + rng.normal(0, 12, (each, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        np.save(folder / f"{row}.npy", images)
        (folder / f"{row}.json").write_text(json.dumps({"mpp": 4.0 + row, "weights": [1.0] * each}))
        cases.append(Case(row, f"c{row}", None, folder / f"{row}.svs", score))
        files.append(folder / f"{row}.npy")
    return SlideImages(files, cases, class_mapping("low"))


def training(folder: Path, learning: LearningConfig = LEARNING) -> ImageTask:
    torch.manual_seed(0)
    model = LowResolution(variant="atto", classes=3, size_px=SIDE)
    return ImageTask(model, slides(folder / "t", 12, 1), slides(folder / "v", 6, 2), learning, seed=0)


def fitted(task: ImageTask, folder: Path, *, resume: bool = False, until: int | None = None) -> LowResolution:
    return fit_until(task, folder, resume=resume, until=until).model  # type: ignore[return-value]


def test_it_learns_how_brown_slides_are_and_a_killed_training_resumes_to_the_same_weights(
    tmp_path: Path,
) -> None:
    whole = fitted(training(tmp_path), tmp_path / "whole")
    unseen = slides(tmp_path / "u", 9, 3)
    found = predict_images(whole, unseen, CPU, lambda _: None, views=2, at_once=4)["mean"]
    assert (found.probabilities.argmax(1) == found.labels).mean() > 0.8
    images = unseen.batch([0]).float() / 255
    with torch.inference_mode():
        views = [torch.softmax(whole(one).double(), 1) for one in (images, images.rot90(1, (2, 3)))]
    np.testing.assert_allclose(found.probabilities[0], torch.stack(views).mean(0)[0], atol=1e-5)
    fitted(training(tmp_path), tmp_path / "killed", until=3)
    resumed = fitted(training(tmp_path), tmp_path / "killed", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_images_of_a_slide_are_joined_by_mean_and_by_vote(tmp_path: Path) -> None:
    slides(tmp_path, 2, 1, each=3)
    (tmp_path / "1.json").write_text(json.dumps({"mpp": 4.0, "weights": [0, 3, 1]}))
    cases = [Case(row, f"c{row}", None, None, score) for row, score in enumerate(("0", "1+"))]
    images = SlideImages([tmp_path / f"{row}.npy" for row in range(2)], cases, class_mapping("low"))
    said = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]).double()
    joined = per_slide(said, images)
    np.testing.assert_allclose(joined["mean"], [[1.7 / 3, 1.3 / 3], [0.25, 0.75]])
    np.testing.assert_allclose(joined["vote"], [[1 / 3, 2 / 3], [1 / 3, 2 / 3]])
    assert images.image_labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(
        images.batch([4])[0].permute(1, 2, 0).numpy(), np.load(tmp_path / "1.npy")[1]
    )


def test_rates_fall_towards_the_pixels_and_norms_do_not_decay() -> None:
    model = LowResolution(variant="atto", classes=3, size_px=SIDE)
    config = LearningConfig(learning_rate=1e-3, body_rate_factor=0.5, layer_decay=0.5, weight_decay=0.1)
    rate_of: dict[int, tuple[float, float]] = {}
    for group in parameter_groups(model.network, config):
        for parameter in group["params"]:
            assert id(parameter) not in rate_of
            rate_of[id(parameter)] = (group["lr"], group["weight_decay"])
    told = {name: rate_of[id(parameter)] for name, parameter in model.network.named_parameters()}
    assert told["head.fc.weight"] == (1e-3, 0.1)
    assert told["head.fc.bias"] == (1e-3, 0.0)
    # The last block lies one step below the classifier, the one before two.
    assert told["stages.3.blocks.1.mlp.fc1.weight"] == (pytest.approx(1e-3 * 0.5 * 0.5), 0.1)
    assert told["stages.3.blocks.0.mlp.fc1.weight"] == (pytest.approx(1e-3 * 0.5 * 0.5**2), 0.1)
    rates = [rate for rate, _ in told.values()]
    assert told["stem.0.weight"][0] == min(rates)


def test_the_rate_has_fallen_by_the_last_step_however_many_processes_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    task = training(tmp_path, replace(LEARNING, epochs=6, batch_size=2, accumulate=1, warmup_epochs=1))
    assert task.train_batches == 6
    found = task.optimiser()
    rates = []
    for _ in range(6 * 2):  # two of six batches are those of this process
        rates.append(found["optimizer"].param_groups[-1]["lr"])
        found["optimizer"].step()
        found["lr_scheduler"]["scheduler"].step()
    assert rates[1] == max(rates)
    assert rates[-1] < 0.05 * max(rates)


def test_learnt_weights_are_loaded_but_for_the_classifier(tmp_path: Path) -> None:
    source = LowResolution(variant="atto", classes=5, size_px=SIDE)
    path = tmp_path / "weights.safetensors"
    write_weights(path, source.network.state_dict(), {})
    model = LowResolution(variant="atto", classes=3, size_px=SIDE)
    before = model.network.state_dict()["head.fc.weight"].clone()
    start_from(model.network, ConvNeXtConfig(variant="atto", weights=str(path)))
    now = model.network.state_dict()
    assert torch.equal(now["stages.2.blocks.0.gamma"], source.network.state_dict()["stages.2.blocks.0.gamma"])
    assert torch.equal(now["stem.0.weight"], source.network.state_dict()["stem.0.weight"])
    assert torch.equal(now["head.fc.weight"], before * 0.001)
    write_weights(path, {"conv.weight": torch.zeros(3)}, {})
    with pytest.raises(ModelError):
        start_from(model.network, ConvNeXtConfig(variant="atto", weights=str(path)))


def test_a_turned_image_is_that_of_opencv_and_white_comes_in_at_its_edges() -> None:
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (64, 64, 3)).astype(np.float32), (0, 0), 4)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    draw = torch.Generator().manual_seed(3)
    found = vary_place(pixels, 10, 0.1, draw)[0].permute(1, 2, 0).numpy()
    angle, change = (2 * torch.rand(2, 1, generator=torch.Generator().manual_seed(3)) - 1).flatten().tolist()
    matrix = cv2.getRotationMatrix2D((31.5, 31.5), angle * 10, 1 + change * 0.1)
    theirs = cv2.warpAffine(image, matrix, (64, 64), borderValue=(255, 255, 255))
    np.testing.assert_allclose(found[8:-8, 8:-8], theirs[8:-8, 8:-8], atol=1.5)
    np.testing.assert_allclose(found, theirs, atol=20)
    assert vary_place(pixels, 0, 0, draw)[0].permute(1, 2, 0).numpy() == pytest.approx(image, abs=1e-3)
    black = vary_place(torch.zeros(8, 3, 32, 32), 10, 0.1, draw)
    assert float(black[:, :, 16, 16].max()) == pytest.approx(0, abs=1e-3)
    assert float(black[:, :, 0, 0].max()) == pytest.approx(255, abs=1e-3)


def test_random_weights_begin_with_features_that_differ_between_images() -> None:
    torch.manual_seed(0)
    model = LowResolution(variant="atto", classes=3, size_px=64)
    images = torch.rand(12, 3, 64, 64) * 0.1 + torch.linspace(0.3, 0.9, 12).view(-1, 1, 1, 1)
    measure_start(model, images.split(5))
    gammas = [value for name, value in model.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 12
    assert all(bool((gamma == 1).all()) for gamma in gammas)
    model.eval()
    with torch.inference_mode():
        pooled = model.network.forward_head(model.features(images), pre_logits=True)
    torch.testing.assert_close(pooled.mean(dim=0), torch.zeros(pooled.shape[1]), atol=1e-3, rtol=0)
    varied = pooled.std(dim=0)
    torch.testing.assert_close(varied[varied > 0.5], torch.ones(int((varied > 0.5).sum())), atol=1e-2, rtol=0)
    assert float((varied > 0.5).float().mean()) > 0.5
