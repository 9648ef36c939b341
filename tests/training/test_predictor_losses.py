"""The loss with hints against a loop in plain numbers, its bounds, and the budget."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from napari_her2.errors import JobFailed
from napari_her2.models.predictors import Predictor, PredictorOutput
from napari_her2_training.corr_a_net.predictor_losses import (
    LAMBDA_RANGE,
    PredictorLossOptions,
    class_weights,
    draw_hints,
    next_lambda,
    predictor_loss,
)

WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def batch(size=24, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    doubt = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (size,), generator=generator)
    hinted = torch.rand(size, generator=generator) < 0.5
    return PredictorOutput(logits.to(dtype), doubt.to(dtype)), labels, hinted


def by_loop(output, labels, hinted, lambda_, weights, focal=0.0):
    """Equations 5 to 8, one field at a time, clamped as in the code of DeVries and Taylor."""
    tiny = 1e-12
    lost, total_weight, price = 0.0, 0.0, 0.0
    for logits, doubt, label, hint in zip(
        output.logits.tolist(),
        output.confidence_logits.tolist(),
        labels.tolist(),
        hinted.tolist(),
        strict=True,
    ):
        largest = sum(math.exp(value) for value in logits)
        p = [min(max(math.exp(value) / largest, tiny), 1 - tiny) for value in logits]
        c = min(max(1 / (1 + math.exp(-doubt)), tiny), 1 - tiny)
        used = c if hint else 1.0
        blended = [used * p[k] + (1 - used) * (k == label) for k in range(len(p))]
        weight = weights[label]
        lost -= weight * (1 - blended[label]) ** focal * math.log(blended[label])
        total_weight += weight
        price -= math.log(c)
    return lost / total_weight + lambda_ * price / len(labels), lost / total_weight, price / len(labels)


@pytest.mark.parametrize("focal", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-10)])
def test_the_loss_equals_its_equations_in_a_loop(dtype, tolerance, focal):
    output, labels, hinted = batch(dtype=dtype)
    terms = predictor_loss(
        output, labels, 0.1, hinted=hinted, weights=WEIGHTS, options=PredictorLossOptions(focal=focal)
    )
    wanted = by_loop(output, labels, hinted, 0.1, WEIGHTS.tolist(), focal)
    found = [terms.total.item(), terms.classification.item(), terms.confidence.item()]
    assert found == pytest.approx(wanted, rel=tolerance)


def test_one_field_by_hand():
    """p = (1/4, 3/4), c = 4/5, label 0: p'_0 = 0.8 * 0.25 + 0.2 = 0.4."""
    output = PredictorOutput(torch.tensor([[0.0, math.log(3)]]), torch.tensor([math.log(4)]))
    label, hinted = torch.tensor([0]), torch.tensor([True])
    terms = predictor_loss(output, label, 0.5, hinted=hinted)
    assert terms.classification.item() == pytest.approx(-math.log(0.4), rel=1e-6)
    assert terms.confidence.item() == pytest.approx(-math.log(0.8), rel=1e-6)
    assert terms.total.item() == pytest.approx(-math.log(0.4) - 0.5 * math.log(0.8), rel=1e-6)
    plain = predictor_loss(output, label, 0.5, hinted=~hinted)
    assert plain.classification.item() == pytest.approx(-math.log(0.25), rel=1e-6)


def test_without_hints_it_is_the_weighted_cross_entropy_of_torch():
    output, labels, _ = batch()
    wanted = F.cross_entropy(output.logits, labels, weight=WEIGHTS)
    for hinted in (None, torch.zeros(24, dtype=torch.bool)):
        found = predictor_loss(output, labels, 0.1, hinted=hinted, weights=WEIGHTS)
        torch.testing.assert_close(found.classification, wanted)
    torch.testing.assert_close(
        predictor_loss(output, labels, 0.1).classification, F.cross_entropy(output.logits, labels)
    )


def test_full_confidence_leaves_the_prediction_and_none_gives_the_label():
    output, labels, _ = batch()
    every = torch.ones(24, dtype=torch.bool)
    sure = PredictorOutput(output.logits, torch.full((24,), 60.0, dtype=torch.float64))
    unsure = PredictorOutput(output.logits, torch.full((24,), -60.0, dtype=torch.float64))
    found = predictor_loss(sure, labels, 1.0, hinted=every)
    torch.testing.assert_close(found.classification, F.cross_entropy(output.logits, labels))
    assert found.confidence.item() < 1e-20
    given = predictor_loss(unsure, labels, 1.0, hinted=every)
    assert 0 <= given.classification.item() < 1e-20
    assert given.confidence.item() == pytest.approx(60.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("focal", [0.0, 2.0])
@pytest.mark.parametrize("hinted", [True, False])
def test_extreme_logits_keep_loss_and_gradient_finite(dtype, focal, hinted):
    logits = torch.tensor([[300.0, -300.0], [-300.0, 300.0], [0.0, 0.0]], dtype=dtype).repeat(3, 1)
    doubt = torch.tensor([200.0, -200.0, 0.0], dtype=dtype).repeat_interleave(3)
    logits.requires_grad_()
    doubt.requires_grad_()
    terms = predictor_loss(
        PredictorOutput(logits, doubt),
        torch.zeros(9, dtype=torch.int64),
        0.1,
        hinted=torch.full((9,), hinted),
        options=PredictorLossOptions(focal=focal),
    )
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert terms.classification >= 0
    assert torch.isfinite(terms.total)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(doubt.grad).all()


@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_the_gradient_is_the_numerical_gradient(focal):
    output, labels, hinted = batch(5)
    options = PredictorLossOptions(focal=focal)

    def total(logits, doubt):
        terms = predictor_loss(
            PredictorOutput(logits, doubt), labels, 0.3, hinted=hinted, weights=WEIGHTS, options=options
        )
        return terms.total

    assert torch.autograd.gradcheck(
        total, (output.logits.requires_grad_(), output.confidence_logits.requires_grad_())
    )


def test_a_hint_lowers_confidence_where_wrong_and_raises_it_where_right():
    """The gradient flows through c in p', or the confidence network would learn the price alone."""
    logits = torch.tensor([[0.0, 8.0], [0.0, -8.0]], dtype=torch.float64)
    doubt = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    labels, every = torch.tensor([0, 0]), torch.ones(2, dtype=torch.bool)
    predictor_loss(PredictorOutput(logits, doubt), labels, 0.1, hinted=every).total.backward()
    wrong, right = doubt.grad.tolist()
    assert wrong > 0 > right
    doubt.grad = None
    predictor_loss(PredictorOutput(logits, doubt), labels, 0.1).total.backward()
    assert (doubt.grad < 0).all()  # without a hint the price alone: more confidence, whatever is right


def test_the_weights_are_the_inverse_frequencies():
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    found = class_weights(labels, 4)
    # 1/6, 1/3 and 1 are as 1 : 2 : 6, and the class that does not occur has none.
    assert found.tolist() == pytest.approx([1 / 9, 2 / 9, 0, 6 / 9])
    assert found.dtype == torch.float32


def test_weighted_classes_of_unequal_size_count_alike():
    logits = torch.zeros(10, 2)
    logits[:9, 0] = 5.0
    labels = torch.tensor([0] * 9 + [1])
    output = PredictorOutput(logits, torch.zeros(10))
    found = predictor_loss(output, labels, 0.0, weights=class_weights(labels, 2))
    wanted = (math.log1p(math.exp(-5.0)) + math.log(2)) / 2
    assert found.total.item() == pytest.approx(wanted, rel=1e-6)


def test_fields_of_a_class_never_seen_cost_nothing_and_break_nothing():
    output, _, hinted = batch(3)
    weights = torch.tensor([0.5, 0.5, 0.0, 0.0])
    terms = predictor_loss(output, torch.tensor([2, 3, 2]), 0.1, hinted=hinted, weights=weights)
    assert terms.classification.item() == 0
    assert torch.isfinite(terms.total)


@pytest.mark.parametrize("labels", [[], [0, 4], [-1, 0]])
def test_labels_without_weight_are_refused(labels):
    with pytest.raises(JobFailed, match="check"):
        class_weights(torch.tensor(labels, dtype=torch.int64), 4)


def test_half_of_the_fields_are_hinted_and_a_seed_repeats_them():
    first, again = (draw_hints(4000, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert abs(int(first.sum()) - 2000) < 5 * math.sqrt(1000)
    assert not draw_hints(50, PredictorLossOptions(hinted=0)).any()
    assert draw_hints(50, PredictorLossOptions(hinted=1)).all()


def test_lambda_follows_the_budget():
    lambda_ = torch.tensor(0.1)
    assert next_lambda(lambda_, torch.tensor(0.2)).item() == pytest.approx(0.1 / 1.01)
    assert next_lambda(lambda_, torch.tensor(0.4)).item() == pytest.approx(0.1 / 0.99)
    assert next_lambda(lambda_, torch.tensor(0.4), PredictorLossOptions(budget=0.5)).item() < 0.1
    fixed = PredictorLossOptions(first_lambda=0.75, budget=None)
    assert next_lambda(torch.tensor(0.75), torch.tensor(9.0), fixed).item() == 0.75
    off = PredictorLossOptions(first_lambda=0)
    assert next_lambda(torch.tensor(0.0), torch.tensor(9.0), off).item() == 0


def test_lambda_neither_vanishes_nor_explodes_in_a_long_run():
    for price, end in ((0.0, LAMBDA_RANGE[0]), (9.0, LAMBDA_RANGE[1])):
        lambda_ = torch.tensor(0.1)
        for _ in range(2500):
            lambda_ = next_lambda(lambda_, torch.tensor(price))
        assert lambda_.item() == pytest.approx(end)


def test_lambda_takes_no_part_in_the_gradient():
    price = torch.tensor(0.2, requires_grad=True)
    assert not next_lambda(torch.tensor(0.1), price * 2).requires_grad


@pytest.mark.parametrize("start", [-4.0, 4.0])
def test_the_budget_brings_the_price_of_doubt_to_itself(start):
    """A confidence by itself, from too little and from too much, on predictions that are half wrong."""
    options = PredictorLossOptions()
    doubt = torch.full((64,), start, requires_grad=True)
    logits = torch.zeros(64, 2)
    logits[:32, 0] = 4.0
    logits[32:, 1] = 4.0
    labels = torch.zeros(64, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    lambda_ = torch.tensor(options.first_lambda)
    optimiser = torch.optim.Adam([doubt], 0.1)
    for _ in range(400):
        hinted = draw_hints(64, options, generator=generator)
        terms = predictor_loss(
            PredictorOutput(logits, doubt), labels, lambda_, hinted=hinted, options=options
        )
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        lambda_ = next_lambda(lambda_, terms.confidence, options)
    assert terms.confidence.item() == pytest.approx(options.budget, abs=0.06)
    assert doubt[:32].mean() > doubt[32:].mean() + 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"first_lambda": -1}, "first lambda"),
        ({"budget": 0}, "leave it out"),
        ({"hinted": 1.5}, "share of hinted"),
        ({"focal": 0.5}, "0 or at least 1"),
        ({"budget": math.nan}, "budget"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, told):
    with pytest.raises(JobFailed, match=told):
        PredictorLossOptions(**arguments)


def test_the_loss_trains_both_heads_of_a_predictor():
    torch.manual_seed(0)
    model = Predictor(architecture="tinynet-e", channels=4, classes=2, size_px=32)
    output = model(torch.rand(4, 4, 32, 32))
    labels = torch.tensor([0, 1, 0, 1])
    predictor_loss(output, labels, 0.1, hinted=torch.tensor([True, True, False, False])).total.backward()
    for head in (model.classify, model.confide):
        assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
