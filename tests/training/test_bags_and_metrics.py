"""Bags are drawn as the paper says; measures equal those of a second library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm

from napari_her2.errors import JobFailed
from napari_her2_training.cohort.bags import SlideBag, draw_batch, draw_tiles
from napari_her2_training.cohort.counting import refuse_small
from napari_her2_training.cohort.manifest import Case
from napari_her2_training.measures.metrics import class_aucs, confusion, slide_metrics


def numbered(slide: int, tiles: int) -> SlideBag:
    """Feature 0 tells the slide, feature 1 the tile."""
    features = np.stack([np.full(tiles, slide), np.arange(tiles)], axis=1).astype(np.float16)
    return SlideBag(f"c{slide}", slide % 4, features)


def test_bags_hold_tiles_of_one_slide_each_once_with_its_label() -> None:
    slides = [numbered(s, 30 + s) for s in range(8)]
    rng = np.random.default_rng(0)
    features, labels, tumour = draw_batch(slides, bags_per_batch=500, size=25, rng=rng)
    assert features.shape == (500, 25, 2)
    assert not tumour.any()
    assert features.dtype == torch.float32
    which = features[:, 0, 0].long()
    assert (features[..., 0] == which[:, None]).all()
    assert (labels == which % 4).all()
    assert all(len(set(bag.tolist())) == 25 for bag in features[..., 1])
    counts = torch.bincount(which, minlength=8)
    assert counts.min() > 30  # uniform over slides: 62.5 expected, four standard deviations


def test_what_is_known_of_the_tiles_comes_with_them() -> None:
    slides = [replace(numbered(0, 30), tumour=np.arange(30) % 3 == 0)]
    features, _, tumour = draw_batch(slides, bags_per_batch=5, size=20, rng=np.random.default_rng(0))
    assert ((features[..., 1] % 3 == 0) == tumour).all()


def test_every_tile_is_as_likely_as_any_other() -> None:
    rng = np.random.default_rng(1)
    drawn = np.bincount(np.concatenate([draw_tiles(40, 10, rng) for _ in range(2000)]), minlength=40)
    assert abs(drawn - 500).max() < 5 * np.sqrt(500 * 0.75)


def test_the_same_seed_draws_the_same_bags() -> None:
    slides = [numbered(s, 40) for s in range(4)]
    first, again, other = (
        draw_batch(slides, bags_per_batch=8, size=20, rng=np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_slides_with_too_few_tiles_are_named() -> None:
    cases = [Case(row, f"c{row}", None, None, "0") for row in (2, 3)]
    with pytest.raises(JobFailed, match=r"row 3 \(case c3, 9\)\. "):
        refuse_small(cases, {2: 10, 3: 9}, 10)


def test_measures_equal_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, 200)
    logits = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = slide_metrics(labels, probabilities, ("0", "1+", "2+", "3+"))
    p, y = torch.from_numpy(probabilities), torch.from_numpy(labels)
    aucs = tm.multiclass_auroc(p, y, 4, average=None)
    assert found["macro AUC"] == pytest.approx(float(aucs.mean()), abs=1e-6)
    assert [found[f"AUC {name}"] for name in ("0", "1+", "2+", "3+")] == pytest.approx(
        aucs.tolist(), abs=1e-6
    )
    assert found["accuracy"] == pytest.approx(float(tm.multiclass_accuracy(p, y, 4, average="micro")))
    assert found["balanced accuracy"] == pytest.approx(
        float(tm.multiclass_accuracy(p, y, 4, average="macro"))
    )
    assert found["macro F1"] == pytest.approx(float(tm.multiclass_f1_score(p, y, 4, average="macro")))
    kappa = tm.multiclass_cohen_kappa(p, y, 4, weights="quadratic")
    assert found["quadratic kappa"] == pytest.approx(float(kappa), abs=1e-6)
    assert confusion(labels, probabilities) == tm.multiclass_confusion_matrix(p, y, 4).tolist()


def test_what_few_slides_do_not_tell_is_left_out() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0]])
    found = slide_metrics(np.array([0, 0]), probabilities, ("0", "1+", "2+", "3+"))
    assert found == {"accuracy": 1.0, "balanced accuracy": 1.0, "macro F1": 1.0, "F1 0": 1.0}
    assert np.isnan(class_aucs(np.array([0, 0]), probabilities)).all()
