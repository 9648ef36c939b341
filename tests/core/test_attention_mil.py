"""Attention MIL against the formula, worked out tile by tile in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_her2.errors import ModelError
from napari_her2.models import pooling
from napari_her2.models.aggregator import SlideAggregator, masked_softmax
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bags import draw_bags, tile_uncertainty


@pytest.fixture
def head():
    torch.manual_seed(3)
    return AttentionMIL(features=12, hidden=5, classes=3).double().eval()


@pytest.fixture
def bag():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(17, 12)))


def by_hand(head, bag):
    """Logits and attention by loops over the equations of the paper."""
    v, b_v = head.attend.project.weight.tolist(), head.attend.project.bias.tolist()
    w, b_w = head.attend.score.weight[0].tolist(), head.attend.score.bias.item()
    e = [
        b_w
        + sum(
            wi * math.tanh(sum(a * x for a, x in zip(row, h, strict=True)) + bi)
            for wi, row, bi in zip(w, v, b_v, strict=True)
        )
        for h in bag.tolist()
    ]
    total = sum(math.exp(x) for x in e)
    a = [math.exp(x) / total for x in e]
    z = [sum(ak * h[d] for ak, h in zip(a, bag.tolist(), strict=True)) for d in range(bag.shape[1])]
    logits = [
        sum(x * y for x, y in zip(row, z, strict=True)) + c
        for row, c in zip(head.classifier.weight.tolist(), head.classifier.bias.tolist(), strict=True)
    ]
    return logits, a, e


@pytest.mark.parametrize(("classes", "parameters"), [(4, 266_757), (2, 264_707)])
def test_number_of_trainable_parameters_is_that_of_the_paper(classes, parameters):
    head = AttentionMIL(classes=classes)
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == parameters


def test_weights_keep_the_names_that_bundles_and_checkpoints_have(head):
    names = ["project.weight", "project.bias", "attend.weight", "attend.bias"]
    names += ["classifier.weight", "classifier.bias"]
    assert sorted(head.state_dict()) == sorted(names)
    holder = torch.nn.ModuleList([head, AttentionMIL(features=12, hidden=5, classes=3).double()])
    state = holder.state_dict()
    assert sorted(state) == sorted(f"{number}.{name}" for number in (0, 1) for name in names)
    state |= {f"1.{name}": tensor for name, tensor in head.state_dict().items()}
    holder.load_state_dict(state)
    for own, given in zip(holder[1].parameters(), head.parameters(), strict=True):
        assert torch.equal(own, given)
    with pytest.raises(RuntimeError, match="attend"):
        head.load_state_dict({name: state[f"0.{name}"] for name in names if name != "attend.bias"})


def test_output_follows_the_equations(head, bag):
    logits, attention, scores = by_hand(head, bag)
    output = head(bag)
    np.testing.assert_allclose(output.logits.tolist(), logits, atol=1e-12)
    np.testing.assert_allclose(output.attention.tolist(), attention, atol=1e-12)
    np.testing.assert_allclose(output.scores.tolist(), scores, atol=1e-12)
    assert isinstance(head, SlideAggregator)


def test_mean_evidence_and_bias_make_the_logit(head, bag):
    output = head(bag)
    total = output.evidence.mean(0) + head.classifier.bias
    np.testing.assert_allclose(total.tolist(), output.logits.tolist(), atol=1e-12)


def test_evidence_makes_the_logit_at_full_size():
    torch.manual_seed(0)
    head = AttentionMIL().double()
    bag = torch.rand(5000, 1024, dtype=torch.float64)
    with torch.inference_mode():
        output = head(bag)
    assert (output.evidence.mean(0) + head.classifier.bias - output.logits).abs().max() < 1e-6


def test_padded_batch_gives_what_each_bag_gives_alone(head, bag):
    bags = torch.full((3, 17, 12), 1e6, dtype=torch.float64)
    mask = torch.zeros(3, 17, dtype=torch.bool)
    for row, size in enumerate((17, 4, 1)):
        bags[row, :size] = bag[:size]
        mask[row, :size] = True
    together = head(bags, mask)
    for row, size in enumerate((17, 4, 1)):
        alone = head(bag[:size])
        torch.testing.assert_close(together.logits[row], alone.logits)
        torch.testing.assert_close(together.attention[row, :size], alone.attention)
        torch.testing.assert_close(together.evidence[row, :size], alone.evidence)
        assert (together.attention[row, size:] == 0).all()


def test_bag_without_tiles_answers_with_the_bias_and_a_finite_gradient(head, bag):
    bags = bag.repeat(2, 1, 1).requires_grad_()
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1] = False
    output = head(bags, mask)
    assert (output.attention[1] == 0).all()
    torch.testing.assert_close(output.logits[1], head.classifier.bias)
    output.logits.sum().backward()
    assert torch.isfinite(bags.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    assert (bags.grad[1] == 0).all()


def test_softmax_of_nothing_is_nothing():
    assert masked_softmax(torch.full((2, 3), -torch.inf)).tolist() == [[0.0] * 3] * 2


def test_large_bags_are_looked_at_by_pieces_with_the_same_answer(head, bag, monkeypatch):
    whole = head(bag)
    seen = []
    original = head.attend.project.forward
    monkeypatch.setattr(head.attend.project, "forward", lambda x: (seen.append(x.shape[-2]), original(x))[1])
    monkeypatch.setattr(pooling, "CHUNK_TILES", 5)
    with torch.inference_mode():
        pieces = head(bag)
    assert seen == [5, 5, 5, 2]
    torch.testing.assert_close(pieces.logits, whole.logits.detach())
    torch.testing.assert_close(pieces.evidence, whole.evidence.detach())


def test_order_of_tiles_does_not_matter(head, bag):
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(bag[order]).logits, head(bag).logits)
    torch.testing.assert_close(head(bag[order]).attention, head(bag).attention[order])


def test_region_is_scored_again_without_the_features(head, bag):
    keep = torch.arange(17) % 3 == 0
    output = head(bag)
    torch.testing.assert_close(head.pool(output.scores, output.votes, keep).logits, head(bag[keep]).logits)


def test_float16_features_are_computed_in_the_precision_of_the_weights():
    torch.manual_seed(0)
    head = AttentionMIL(features=12, hidden=5, classes=3)
    half = torch.rand(6, 12).half()
    torch.testing.assert_close(head(half).logits, head(half.float()).logits)


@pytest.mark.parametrize("shape", [(12,), (5, 11), (2, 2, 5, 12)])
def test_features_of_another_encoder_are_refused(head, shape):
    with pytest.raises(ModelError, match="own encoder"):
        head(torch.zeros(shape, dtype=torch.float64))


def test_mask_of_another_shape_is_refused(head, bag):
    with pytest.raises(ModelError, match="mask"):
        head(bag, torch.ones(16, dtype=torch.bool))


def test_bags_are_drawn_without_replacement_and_by_seed():
    bags = draw_bags(150, draws=20, bag_size=100, seed=7)
    assert bags.shape == (20, 100)
    assert all(len(set(bag)) == 100 for bag in bags.tolist())
    assert bags.min() >= 0
    assert bags.max() < 150
    assert (np.diff(bags) > 0).all()
    np.testing.assert_array_equal(bags, draw_bags(150, draws=20, bag_size=100, seed=7))
    assert (bags != draw_bags(150, draws=20, bag_size=100, seed=8)).any()
    with pytest.raises(ModelError, match="cannot be drawn"):
        draw_bags(99, draws=1, bag_size=100, seed=0)


def test_uncertainty_is_mean_and_sd_over_single_bags(head):
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(300, 12)))
    spread = tile_uncertainty(head, head.tiles(features), draws=6, bag_size=50, seed=2)
    bags = draw_bags(300, draws=6, bag_size=50, seed=2)
    alone = np.array([head(features[torch.from_numpy(b)]).probabilities.tolist() for b in bags])
    np.testing.assert_allclose(spread.mean, alone.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread.sd, alone.std(0, ddof=1), atol=1e-6)
    assert (spread.draws, spread.bag_size) == (6, 50)


def test_uncertainty_needs_a_full_bag(head, bag):
    assert tile_uncertainty(head, head.tiles(bag)) is None
    same = tile_uncertainty(head, head.tiles(bag), bag_size=17)
    np.testing.assert_allclose(same.sd, 0, atol=1e-7)
