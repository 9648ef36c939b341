"""The head learns, resumes where it was killed, and the whole way from slides to a bundle holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from shapely.geometry import box, mapping

import napari_her2_training
from napari_her2.errors import JobFailed
from napari_her2.models.registry import load_model
from napari_her2.slide.grid import TileGrid
from napari_her2.steps import Progress
from napari_her2_training.attention_mil.config import BagsConfig, HeadConfig
from napari_her2_training.attention_mil.training import (
    AttentionMILTask,
    attention_loss,
    new_head,
    vote_loss,
)
from napari_her2_training.cohort.bags import SlideBag, predict_bags
from napari_her2_training.cohort.outlines import tumour_share
from napari_her2_training.running.steps import in_thread
from training_steps import CPU, fit_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_her2.models.attention_mil import AttentionMIL

BAGS = BagsConfig(size=12, batch_size=16, train_batches=6, validation_batches=2, validation_seed=123)


def slides(count: int, seed: int) -> list[SlideBag]:
    """A quarter of the tiles of a slide tell its class, the others are noise."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        features = rng.normal(0, 1, (40, 16))
        features[:10, 4 + number % 4] += 4
        features[:10, 0] += 4
        out.append(SlideBag(f"c{number}", number % 4, features.astype(np.float16)))
    return out


def training(epochs: int, seed: int = 0) -> AttentionMILTask:
    config = HeadConfig(hidden=8, epochs=epochs, learning_rate=1e-2)
    return AttentionMILTask(new_head(16, 8, 4, seed), slides(16, 1), slides(8, 2), config, BAGS, seed=seed)


def fitted(
    task: AttentionMILTask, folder: Path, *, resume: bool = False, until: int | None = None
) -> AttentionMIL:
    return fit_until(task, folder, resume=resume, until=until).head


def test_the_head_learns_what_tells_the_classes_and_looks_there(tmp_path: Path) -> None:
    head = fitted(training(12), tmp_path)
    unseen = slides(16, 3)
    assert (predict_bags(head, unseen, CPU).probabilities.argmax(1) == [bag.label for bag in unseen]).all()
    attention = head(torch.from_numpy(unseen[0].features)).attention
    assert attention[:10].sum() > 0.8
    assert (tmp_path / "best.ckpt").exists()
    assert (tmp_path / "last.ckpt").exists()


def test_the_kept_epoch_is_that_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    losses: list[float] = []

    class Watched(AttentionMILTask):
        def measures(self, judged):
            found = super().measures(judged)
            losses.append(found["validation_loss"])
            return found

    # A rate so high that the loss does not fall steadily.
    config = HeadConfig(hidden=8, epochs=8, learning_rate=0.5)
    fitted(Watched(new_head(16, 8, 4, 0), slides(16, 1), slides(8, 2), config, BAGS, seed=0), tmp_path)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert kept["epoch"] == int(np.argmin(losses))


def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = fitted(training(4), tmp_path / "whole")
    fitted(training(4), tmp_path / "killed", until=2 * BAGS.train_batches + 3)
    resumed = fitted(training(4), tmp_path / "killed", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_attention_loss_is_the_attention_missed() -> None:
    scores = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]]))
    tumour = torch.tensor([[False, False, True, True], [True, False, False, False], [False] * 4])
    # The third bag holds no tumour and has no say.
    expected = -(np.log(0.7) + np.log(0.7)) / 2
    assert float(attention_loss(scores, tumour)) == pytest.approx(expected, abs=1e-6)
    assert float(attention_loss(scores[2:], tumour[2:])) == 0


def test_the_vote_loss_is_that_of_each_tumour_tile() -> None:
    votes = torch.log(torch.tensor([[[0.7, 0.3], [0.1, 0.9]], [[0.4, 0.6], [0.5, 0.5]]]))
    tumour = torch.tensor([[True, False], [True, False]])
    found = float(vote_loss(votes, torch.tensor([0, 1]), tumour))
    assert found == pytest.approx(-(np.log(0.7) + np.log(0.6)) / 2, abs=1e-6)
    assert float(vote_loss(votes, torch.tensor([0, 1]), tumour & False)) == 0


def test_closing_the_progress_stops_the_work() -> None:
    reached: list[int] = []

    def work(report: Callable[[Progress], None]) -> None:
        for number in range(1_000_000):
            reached.append(number)
            report(Progress("counting", number))

    steps = in_thread(work)
    assert next(steps).done == 0
    steps.close()
    assert len(reached) < 1_000_000


def test_what_the_work_raises_arrives() -> None:
    def work(_: Callable[[Progress], None]) -> None:
        raise JobFailed("no room")

    with pytest.raises(JobFailed, match="no room"):
        list(in_thread(work))


def test_tumour_share_of_tiles_is_their_area_inside(tmp_path: Path) -> None:
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(box(50, 0, 250, 100))}
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    share = tumour_share(path, TileGrid((300, 300), (0.5, 0.5), tile_px=100, mpp=0.5))
    np.testing.assert_allclose(share, [[0.5, 1, 0.5], [0, 0, 0], [0, 0, 0]])


CONFIG = """
[model]
name = "tiny"
training_data = "synthetic tissue (phantom)"
[doubt]
familiarity = false
sets = false
[data]
validation = 0.5
[pretraining]
epochs = 1
patches_per_slide = 12
regions = "{case_id}_tumour.geojson"
batch_size = 16
learning_rate = 1e-3
[bags]
size = 5
batch_size = 4
train_batches = 3
validation_batches = 1
[head]
epochs = 2
guidance = 0.5
[compute]
device = "cpu"
"""


def finish(steps: Generator[Progress, None, Path]) -> tuple[list[Progress], Path]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


@pytest.fixture(scope="module")
def cohort(cohort_of: Callable[[int, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort_of(8, tmp_path_factory.mktemp("cohort"))


def test_from_slides_to_a_bundle_that_loads(cohort: Path, tmp_path: Path, precision: str) -> None:
    config, out = tmp_path / "tiny.toml", tmp_path / "out"
    config.write_text(CONFIG)
    seen, path = finish(napari_her2_training.run("attention-mil", config, cohort, out))
    bundle = load_model(path)
    assert (bundle.card.name, bundle.card.precision) == ("tiny", precision)
    assert "synthetic tissue (phantom)" in bundle.card.training_data
    assert "4 slides to train on" in bundle.card.training_data
    assert bundle.card.encoder.mean[1] < bundle.card.encoder.mean[0]  # eosin and haematoxylin absorb green
    assert path.stat().st_size < 8_000_000
    told = json.loads((out / "metrics.json").read_text())
    assert told["cases"] == [{"train": 4, "validation": 4, "test": 0}]
    assert bundle.card.metrics["validation slides: accuracy"] == pytest.approx(
        told["measured"][""]["validation"]["measures"]["accuracy"]["value"], abs=1e-4
    )
    assert len({step.stage for step in seen}) >= 5
    with pytest.raises(JobFailed, match="holds a run already"):
        next(napari_her2_training.run("attention-mil", config, cohort, out))
    again = finish(napari_her2_training.run("attention-mil", config, cohort, out, resume=True))[1]
    assert again.read_bytes() == path.read_bytes()
    config.write_text(CONFIG.replace("size = 5", "size = 4"))
    with pytest.raises(JobFailed, match="began with another config"):
        next(napari_her2_training.run("attention-mil", config, cohort, out, resume=True))
