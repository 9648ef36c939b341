"""The losses of WSMCL against their published form in loops, and what each may and may not move."""

from __future__ import annotations

import math

import pytest
import torch

from napari_her2.errors import JobFailed
from napari_her2.models.wsmcl import WSMCL
from napari_her2_training.wsmcl.losses import (
    LossOptions,
    contrastive_loss,
    distillation_loss,
    wsmcl_loss,
)

LABEL = torch.tensor(2)


def groups(k=6, width=9, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(k, width, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)]


def small(**arguments):
    torch.manual_seed(5)
    arguments = {
        "he_features": 8,
        "ihc_features": 8,
        "width": 8,
        "heads": 2,
        "landmarks": 8,
        "k": 4,
    } | arguments
    return WSMCL(**arguments).double().eval()


def bags(he=20, ihc=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (he, ihc)]


def by_loops(he_top, he_bottom, ihc_top, ihc_bottom, scale):
    """Each pair of an anchor and a positive by itself, in plain numbers; top and bottom anchors apart."""

    def unit(row):
        norm = math.sqrt(sum(x * x for x in row))
        return [x / norm for x in row]

    def alike(one, other):
        return scale * sum(x * y for x, y in zip(one, other, strict=True))

    def mean(anchors, positives, negatives):
        total = 0.0
        for a in anchors:
            against = sum(math.exp(alike(a, n)) for n in negatives)
            for p in positives:
                total -= math.log(math.exp(alike(a, p)) / (math.exp(alike(a, p)) + against))
        return total / len(anchors) / len(positives)

    ht, hb, it, ib = ([unit(row) for row in g.tolist()] for g in (he_top, he_bottom, ihc_top, ihc_bottom))
    return (mean(ht, it, ib) + mean(it, ht, hb)) / 2, (mean(hb, ib, it) + mean(ib, hb, ht)) / 2


@pytest.mark.parametrize("k", [1, 2, 25])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-7), (torch.float64, 1e-9)])
def test_contrast_equals_its_form_in_loops(k, dtype, tolerance):
    tiles = groups(k, dtype=dtype)
    log_scale = torch.tensor(math.log(1 / 0.07), dtype=dtype)
    top, bottom = by_loops(*tiles, scale=1 / 0.07)
    assert contrastive_loss(*tiles, log_scale).item() == pytest.approx((top + bottom) / 2, rel=tolerance)
    assert contrastive_loss(*tiles, log_scale, anchors="top").item() == pytest.approx(top, rel=tolerance)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_contrast_of_equal_tiles_is_the_logarithm_of_k_plus_one(k):
    equal = [torch.ones(k, 16)] * 4
    log_scale = torch.tensor(math.log(1 / 0.07))
    assert contrastive_loss(*equal, log_scale).item() == pytest.approx(math.log(1 + k), rel=1e-6)


def test_contrast_falls_as_the_slides_come_to_agree():
    top, bottom = torch.eye(2, 8)[0].expand(5, 8), torch.eye(2, 8)[1].expand(5, 8)
    log_scale = torch.tensor(math.log(1 / 0.07))
    agreed = contrastive_loss(top, bottom, top, bottom, log_scale).item()
    swapped = contrastive_loss(top, bottom, bottom, top, log_scale).item()
    assert agreed == pytest.approx(math.log1p(5 * math.exp(-1 / 0.07)), rel=1e-3)
    assert swapped == pytest.approx(1 / 0.07 + math.log(5), rel=1e-3)


def test_tiles_of_zeros_keep_the_loss_finite():
    tiles = groups(dtype=torch.float32)
    tiles[0] = torch.zeros_like(tiles[0]).requires_grad_()
    loss = contrastive_loss(*tiles, torch.tensor(1.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(tiles[0].grad).all()


def test_gradient_of_contrast_is_its_numerical_gradient():
    tiles = [group.requires_grad_() for group in groups(3, 4)]
    log_scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrastive_loss, (*tiles, log_scale))


def test_contrast_is_computed_in_float32_under_autocast():
    tiles = groups(dtype=torch.float32)
    log_scale = torch.tensor(2.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(*tiles, log_scale)
    assert loss.dtype == torch.float32
    assert loss.item() == contrastive_loss(*tiles, log_scale).item()


def test_distillation_is_the_divergence_of_teacher_from_student():
    student, teacher = torch.tensor([0.0, 0.0]), torch.log(torch.tensor([0.75, 0.25]))
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distillation_loss(student, teacher).item() == pytest.approx(wanted, rel=1e-6)
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0.0, abs=1e-7)


def test_distillation_stays_finite_where_a_softmax_underflows():
    student = torch.tensor([200.0, -200.0], dtype=torch.float16, requires_grad=True)
    loss = distillation_loss(student, torch.tensor([-200.0, 200.0], dtype=torch.float16))
    loss.backward()
    assert loss.item() == pytest.approx(400.0)
    assert torch.isfinite(student.grad).all()


def test_total_is_the_sum_of_the_published_parts():
    model = small()
    output = model(*bags())
    terms = wsmcl_loss(output, LABEL, model.log_scale)

    def chances(logits):
        total = sum(math.exp(x) for x in logits.tolist())
        return [math.exp(x) / total for x in logits.tolist()]

    def surprise(logits):
        return -math.log(chances(logits)[2])

    p, q = chances(output.ihc.logits), chances(output.he.logits)
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    he, ihc = output.he, output.ihc
    tiles = (he.top_features, he.bottom_features, ihc.top_features, ihc.bottom_features)
    contrast = sum(by_loops(*tiles, scale=1 / 0.07)) / 2
    wanted = surprise(output.fused) + surprise(ihc.logits) + contrast + divergence
    assert terms.total.item() == pytest.approx(wanted, rel=1e-6)
    assert terms.he.item() == pytest.approx(surprise(he.logits), rel=1e-9)


def gradients(options):
    model = small()
    wsmcl_loss(model(*bags()), LABEL, model.log_scale, options).total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


ONLY = {"fusion": 0.0, "ihc": 0.0, "he": 0.0, "contrastive": 0.0, "distillation": 0.0}


def test_head_of_he_learns_from_distillation_alone():
    published, distilled = gradients(LossOptions()), gradients(LossOptions(**ONLY | {"distillation": 1.0}))
    for name in ("he.classify.weight", "he.classify.bias"):
        assert distilled[name].abs().max() > 0
        torch.testing.assert_close(published[name], distilled[name])
        assert gradients(LossOptions(distillation=0.0))[name] is None


def test_label_loss_of_ihc_does_not_move_he_but_that_of_both_slides_does():
    of_ihc = gradients(LossOptions(**ONLY | {"ihc": 1.0}))
    assert [name for name, grad in of_ihc.items() if name.startswith("he.") and grad is not None] == []
    of_fusion = gradients(LossOptions(**ONLY | {"fusion": 1.0}))
    assert of_fusion["he.embed.0.weight"].abs().max() > 0
    assert of_fusion["he.classify.weight"] is None


def test_teacher_moves_unless_detached():
    only = ONLY | {"distillation": 1.0}
    assert gradients(LossOptions(**only))["ihc.classify.weight"].abs().max() > 0
    detached = gradients(LossOptions(**only, detach_teacher=True))
    assert detached["ihc.classify.weight"] is None
    assert detached["he.classify.weight"].abs().max() > 0


def test_label_loss_on_he_is_an_option():
    model = small()
    output = model(*bags())
    without, with_half = (wsmcl_loss(output, LABEL, model.log_scale, LossOptions(he=w)) for w in (0.0, 0.5))
    assert (with_half.total - without.total).item() == pytest.approx(0.5 * without.he.item(), rel=1e-9)


def test_contrast_is_left_out_of_bags_without_top_and_bottom():
    model = small()
    terms = wsmcl_loss(model(*bags(1, 14)), LABEL, model.log_scale)
    assert terms.contrastive is None
    wanted = terms.fusion + terms.ihc + terms.distillation
    torch.testing.assert_close(terms.total, wanted)


def test_scale_of_similarities_is_learnt():
    assert gradients(LossOptions())["log_scale"].abs() > 0
    assert gradients(LossOptions(contrastive=0.0))["log_scale"] is None


def test_case_with_one_slide_is_refused():
    model = small()
    with pytest.raises(JobFailed, match="pairs"):
        wsmcl_loss(model(ihc=bags()[1]), LABEL, model.log_scale)
    with pytest.raises(JobFailed, match="weight"):
        wsmcl_loss(model(*bags()), LABEL, model.log_scale, LossOptions(**ONLY))


def synthetic_case(label, seed):
    """24 tiles of noise on each slide, of which three carry the class, in the first dimensions, strongly."""
    generator = torch.Generator().manual_seed(seed)
    slides = []
    for n in (24, 20):
        tiles = 0.5 * torch.randn(n, 8, generator=generator)
        where = torch.randperm(n, generator=generator)[:3]
        tiles[where, label] += 4.0
        slides.append(tiles)
    return slides


def test_synthetic_cases_with_the_label_in_few_tiles_are_learnt():
    torch.manual_seed(0)
    model = WSMCL(he_features=8, ihc_features=8, width=16, heads=2, landmarks=8, k=3)
    cases = [
        (synthetic_case(label, 10 * label + n), torch.tensor(label)) for label in range(4) for n in range(6)
    ]
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(16):
        for slides, label in (cases[n] for n in torch.randperm(len(cases)).tolist()):
            optimizer.zero_grad()
            wsmcl_loss(model(*slides), label, model.log_scale).total.backward()
            optimizer.step()
    model.eval()
    unseen = [(synthetic_case(label, 1000 + 10 * label + n), label) for label in range(4) for n in range(10)]
    with torch.inference_mode():
        answers = [(model(*slides), label) for slides, label in unseen]
    right = [int(output.logits.argmax()) == label for output, label in answers]
    assert sum(right) / len(right) > 0.95
    distilled = [int(output.he.logits.argmax()) == label for output, label in answers]
    assert sum(distilled) / len(distilled) > 0.9
