"""The losses of the MIL aggregators, against loops in plain Python and the losses of PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_her2.errors import JobFailed
from napari_her2.models.abmil import ABMIL
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.clam import CLAM
from napari_her2.models.dsmil import DSMIL
from napari_her2.models.transmil import TransMIL
from napari_her2_training.mil.losses import (
    MILLossOptions,
    clam_instance_loss,
    mil_loss,
    smooth_top1_svm,
)

CLASSES, WIDTH = 3, 8
HEADS = {
    "attention-mil": lambda: AttentionMIL(features=WIDTH, hidden=5, classes=CLASSES),
    "abmil": lambda: ABMIL(features=WIDTH, widths=(9,), hidden=5, classes=CLASSES, dropout=0),
    "clam-sb": lambda: CLAM(features=WIDTH, width=9, hidden=5, classes=CLASSES, dropout=0),
    "clam-mb": lambda: CLAM(features=WIDTH, width=9, hidden=5, classes=CLASSES, multi_branch=True, dropout=0),
    "dsmil": lambda: DSMIL(features=WIDTH, hidden=6, classes=CLASSES),
    "transmil": lambda: TransMIL(features=WIDTH, width=8, heads=2, landmarks=4, classes=CLASSES, dropout=0),
}


def make(name):
    torch.manual_seed(2)
    return HEADS[name]().double()


def bag_of(tiles, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(tiles, WIDTH)))


def padded(*bags):
    longest = max(len(bag) for bag in bags)
    batch = torch.zeros(len(bags), longest, WIDTH, dtype=torch.float64)
    mask = torch.zeros(len(bags), longest, dtype=torch.bool)
    for row, bag in enumerate(bags):
        batch[row, : len(bag)] = bag
        mask[row, : len(bag)] = True
    return batch, mask


def test_smooth_svm_by_hand():
    # Two equal scores miss the margin by 1: log(e^0 + e^1).
    assert smooth_top1_svm(torch.zeros(1, 2), torch.tensor([1])).item() == pytest.approx(math.log(1 + math.e))
    # The true score leads by 3, so by 2 more than the margin: log(1 + e^-2).
    ahead = smooth_top1_svm(torch.tensor([[0.5, 3.5]]), torch.tensor([1]))
    assert ahead.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)


def test_smooth_svm_is_never_below_the_hinge_loss_and_becomes_it():
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 2)) * 2)
    labels = torch.arange(40) % 2
    true, other = scores[range(40), labels], scores[range(40), 1 - labels]
    hinge = (1 + other - true).clamp_min(0).mean()
    assert smooth_top1_svm(scores, labels) > hinge
    torch.testing.assert_close(smooth_top1_svm(scores, labels, temperature=1e-4), hinge, atol=1e-3, rtol=0)


def test_smooth_svm_of_large_scores_is_finite():
    scores = torch.tensor([[4000.0, -4000.0]]).half().requires_grad_()
    loss = smooth_top1_svm(scores, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(8001, rel=1e-3)
    assert torch.isfinite(scores.grad).all()


def clam_by_loops(output, label, *, sampled, svm, subtyping):
    """Sort the tiles of each branch, take both ends, and sum up."""

    def one(logits, wanted):
        true, other = logits[wanted], logits[1 - wanted]
        if svm:
            return math.log(1 + math.exp(1 + other - true))
        return math.log(1 + math.exp(other - true))

    scores, instances = output.branch_scores.tolist(), output.instances.tolist()
    sampled = min(sampled, len(scores) // 2)
    total = 0.0
    for number in range(CLASSES):
        branch = number if len(scores[0]) > 1 else 0
        ranked = sorted(range(len(scores)), key=lambda k: -scores[k][branch])
        top = [one(instances[k][number], int(number == label)) for k in ranked[:sampled]]
        bottom = [one(instances[k][number], 0) for k in ranked[-sampled:]]
        if number == label:
            total += sum(top + bottom) / (2 * sampled)
        elif subtyping:
            total += sum(top) / sampled
    return total / (CLASSES if subtyping else 1)


@pytest.mark.parametrize("name", ["clam-sb", "clam-mb"])
@pytest.mark.parametrize("tiles", [2, 5, 20, 33])
@pytest.mark.parametrize("kind", ["svm", "cross-entropy"])
@pytest.mark.parametrize("subtyping", [True, False])
def test_instance_loss_of_clam_equals_its_form_in_loops(name, tiles, kind, subtyping):
    output = make(name)(bag_of(tiles))
    options = MILLossOptions(instance_loss=kind, subtyping=subtyping)
    for label in range(CLASSES):
        expected = clam_by_loops(output, label, sampled=8, svm=kind == "svm", subtyping=subtyping)
        found = clam_instance_loss(output, torch.tensor(label), options)
        assert found.item() == pytest.approx(expected, rel=1e-9)


def test_clam_weighs_bag_and_tiles_as_published():
    output = make("clam-mb")(bag_of(20))
    terms = mil_loss(output, torch.tensor(1))
    torch.testing.assert_close(terms.bag, F.cross_entropy(output.logits, torch.tensor(1)))
    torch.testing.assert_close(terms.total, 0.7 * terms.bag + 0.3 * terms.instance)
    half = mil_loss(output, torch.tensor(1), MILLossOptions(bag_weight=0.5))
    torch.testing.assert_close(half.total, 0.5 * terms.bag + 0.5 * terms.instance)


def test_bag_of_one_tile_has_no_loss_of_single_tiles():
    terms = mil_loss(make("clam-sb")(bag_of(1)), torch.tensor(0))
    assert terms.instance is None
    torch.testing.assert_close(terms.total, 0.7 * terms.bag)


def test_padded_batch_of_clam_is_the_mean_of_its_bags():
    head, bags, labels = make("clam-mb"), [bag_of(20), bag_of(5, 1), bag_of(1, 2)], torch.tensor([0, 2, 1])
    together = mil_loss(head(*padded(*bags)), labels)
    alone = [mil_loss(head(bag), label) for bag, label in zip(bags, labels, strict=True)]
    torch.testing.assert_close(together.bag, torch.stack([terms.bag for terms in alone]).mean())
    told = torch.stack([terms.instance for terms in alone if terms.instance is not None])
    assert len(told) == 2
    torch.testing.assert_close(together.instance, told.mean())


def test_loss_of_single_tiles_leaves_the_attention_alone():
    head = make("clam-mb")
    clam_instance_loss(head(bag_of(20)), torch.tensor(1)).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in head.attend.parameters())
    assert (head.classifier.weight.grad is None) or (head.classifier.weight.grad == 0).all()
    assert (head.embed[0].weight.grad != 0).any()
    assert (head.instance_classifiers.weight.grad != 0).any(dim=-1).all()


def test_both_streams_of_dsmil_learn():
    output = make("dsmil")(bag_of(9))
    label = torch.tensor(2)
    terms = mil_loss(output, label)
    torch.testing.assert_close(terms.bag, -output.bag_logits.log_softmax(-1)[2])
    torch.testing.assert_close(terms.instance, -output.instances.max(dim=0).values.log_softmax(-1)[2])
    torch.testing.assert_close(terms.total, (terms.bag + terms.instance) / 2)


def test_published_loss_of_dsmil_asks_each_class_by_itself():
    output = make("dsmil")(bag_of(9))
    terms = mil_loss(output, torch.tensor(2), MILLossOptions(exclusive=False))

    def by_hand(logits):
        chances = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
        return -(math.log(1 - chances[0]) + math.log(1 - chances[1]) + math.log(chances[2])) / 3

    assert terms.bag.item() == pytest.approx(by_hand(output.bag_logits), rel=1e-9)
    assert terms.instance.item() == pytest.approx(by_hand(output.maxima), rel=1e-9)


@pytest.mark.parametrize("name", ["attention-mil", "abmil", "transmil"])
def test_others_learn_by_cross_entropy(name):
    output = make(name)(bag_of(9))
    terms = mil_loss(output, torch.tensor(1))
    torch.testing.assert_close(terms.total, F.cross_entropy(output.logits, torch.tensor(1)))
    assert terms.instance is None


@pytest.mark.parametrize("name", HEADS)
def test_every_weight_learns_from_the_loss_of_its_architecture(name):
    head = make(name)
    batch, mask = padded(bag_of(20), bag_of(7, 1), bag_of(3, 2))
    mil_loss(head(batch, mask), torch.tensor([0, 1, 2])).total.backward()
    for key, parameter in head.named_parameters():
        if key not in ("attend.bias", "attend.score.bias"):  # a shift of all scores, which no softmax sees
            assert (parameter.grad != 0).any(), key


@pytest.mark.parametrize("name", HEADS)
def test_tiny_set_is_learnt_by_heart_with_its_own_loss(name):
    head = make(name).float()
    bags = [bag_of(n, n).float() for n in (1, 2, 6, 9)]
    labels = torch.tensor([0, 1, 2, 0])
    batch, mask = (part.float() if part.is_floating_point() else part for part in padded(*bags))
    optimiser = torch.optim.Adam(head.parameters(), lr=2e-2)
    for _ in range(40):
        optimiser.zero_grad()
        mil_loss(head(batch, mask), labels).total.backward()
        optimiser.step()
    with torch.inference_mode():
        assert head(batch, mask).logits.argmax(dim=-1).tolist() == labels.tolist()


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(JobFailed, match="one class for each bag"):
        mil_loss(make("abmil")(bag_of(5)), torch.tensor([0, 1]))


def test_loss_is_computed_in_float32_at_least():
    output = make("clam-mb").half()(bag_of(20))
    terms = mil_loss(output, torch.tensor(1))
    assert terms.total.dtype == torch.float32
