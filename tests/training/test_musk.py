"""The classical sets' benchmark: its written-out gradients against autograd, its answers against ABMIL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from musk import Bag, Setting, best_epochs, draw_folds, fold_accuracies, new_head, standardise
from musk_models import SideBySide

RATE, MOMENTUM, DECAY = 5e-2, 0.9, 5e-3


def some_bags(count: int = 20, width: int = 12) -> list[Bag]:
    """Bags of one to six instances; a positive one has an instance that says so."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        features = rng.normal(size=(1 + number % 6, width))
        features[0, 0] += 8 * (number % 2)
        found.append(Bag(features, number % 2))
    return found


@pytest.mark.parametrize("gated", [False, True])
def test_written_out_gradients_are_those_of_autograd(gated: bool) -> None:
    bags = some_bags()
    heads = [new_head(12, seed, gated=gated) for seed in range(3)]
    truth = [new_head(12, seed, gated=gated) for seed in range(3)]
    steps = [torch.optim.SGD(h.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY) for h in truth]
    stack = SideBySide(heads, rate=RATE, momentum=MOMENTUM, decay=DECAY)
    for number, bag in enumerate(bags):
        shown = torch.from_numpy(bag.features).float()
        learning = [model for model in range(3) if (number + model) % 4]
        stack.step(torch.stack([shown + model for model in range(3)]), bag.label, learning)
        for model in learning:
            steps[model].zero_grad()
            loss = F.cross_entropy(truth[model](shown + model).logits, torch.tensor(bag.label))
            loss.backward()
            steps[model].step()
    for model, head in enumerate(truth):
        for name, part in head.named_parameters():
            torch.testing.assert_close(stack.weights[name][model], part.detach(), rtol=1e-4, atol=1e-5)
    first = new_head(12, 0, gated=gated).embed[0].weight.detach()
    moved = (stack.weights["embed.0.weight"][0] - first).abs().max()
    assert float(moved) > 0.01, "nothing was learnt, so nothing was compared"


@pytest.mark.parametrize("gated", [False, True])
def test_bags_are_judged_as_abmil_judges_them(gated: bool) -> None:
    bags = some_bags()
    heads = [new_head(12, seed, gated=gated) for seed in range(2)]
    stack = SideBySide(heads, rate=RATE, momentum=MOMENTUM, decay=DECAY)
    shown = [torch.from_numpy(bag.features).float() for bag in bags]
    starts = np.cumsum([0, *(len(bag) for bag in shown[:-1])])
    labels = np.array([bag.label for bag in bags])
    wrong, losses = stack.judge(1, torch.cat(shown), starts, labels)
    logits = torch.stack([heads[1](bag).logits for bag in shown]).detach()
    expected = F.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(losses, expected.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(wrong, logits.argmax(1).numpy() != labels)
    assert 0 < wrong.sum() < len(bags)


def test_no_bag_is_judged_by_a_model_that_learnt_from_it() -> None:
    bags = some_bags(40)
    folds = draw_folds(bags, 1, inner=True)
    assert len(folds.held_out) == 55
    for (one, other), unseen in zip(folds.held_out, folds.unseen, strict=True):
        np.testing.assert_array_equal(unseen, folds.members[one] | folds.members[other])
    means = torch.stack([torch.cat([b[m] for b in standardise(bags, folds.unseen)]) for m in (0, 1)]).mean(1)
    assert not torch.equal(means[0], means[1]), "each model is standardised by its own bags"


def test_the_epoch_is_that_of_the_fewest_wrong_and_then_the_lowest_loss() -> None:
    bags = some_bags(40)
    folds = draw_folds(bags, 1, inner=True)
    wrong = np.ones((3, 55, 40), bool)
    losses = np.ones((3, 55, 40), np.float32)
    wrong[1:] = False
    losses[2] = 0.5
    assert best_epochs(folds, wrong, losses).tolist() == [2] * 10


def test_a_set_that_can_be_learnt_is_learnt() -> None:
    found = fold_accuracies(
        some_bags(40), Setting(1e-2, 1e-3, {}), gated=True, epochs=12, repeats=1, stop=False
    )
    assert found.shape == (1, 10)
    assert found.mean() > 0.75
