"""Every slide model behind one interface: the same questions to each, and each against its formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional as F

from napari_her2.errors import ModelError
from napari_her2.models import pooling
from napari_her2.models.abmil import ABMIL
from napari_her2.models.aggregator import SlideAggregator
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.clam import CLAM
from napari_her2.models.dsmil import DSMIL
from napari_her2.models.transmil import TransMIL

CLASSES = 3
WIDTH = 12


def transmil(features, **arguments):
    arguments = {"width": 16, "heads": 2, "landmarks": 4, "dropout": 0.0} | arguments
    return TransMIL(features=features, classes=CLASSES, **arguments)


HEADS = {
    "attention-mil": lambda d: AttentionMIL(features=d, hidden=5, classes=CLASSES),
    "abmil": lambda d: ABMIL(features=d, widths=(9, 7), hidden=5, classes=CLASSES, gated=False, dropout=0),
    "gated-abmil": lambda d: ABMIL(features=d, widths=(9,), hidden=5, classes=CLASSES, dropout=0),
    "clam-sb": lambda d: CLAM(features=d, width=9, hidden=5, classes=CLASSES, dropout=0),
    "clam-mb": lambda d: CLAM(features=d, width=9, hidden=5, classes=CLASSES, multi_branch=True, dropout=0),
    "dsmil": lambda d: DSMIL(features=d, hidden=6, classes=CLASSES),
    "dsmil-values": lambda d: DSMIL(features=d, hidden=6, classes=CLASSES, project_values=True),
    "dsmil-average": lambda d: DSMIL(features=d, hidden=6, classes=CLASSES, average=True),
    "transmil": transmil,
    "transmil-exact": lambda d: transmil(d, attention="exact"),
    "transmil-faithful": lambda d: transmil(d, faithful=True),
}
WITHOUT_EVIDENCE = ("dsmil-average", "transmil", "transmil-exact", "transmil-faithful")
IN_ORDER = ("transmil", "transmil-exact", "transmil-faithful")
# What only the loss of single tiles, or of the largest scores, moves.
NOT_IN_LOGITS = ("instance_classifiers.", "score.")


def make(name, features=WIDTH, seed=3):
    torch.manual_seed(seed)
    return HEADS[name](features).double().eval()


@pytest.fixture(params=HEADS)
def name(request):
    return request.param


@pytest.fixture
def head(name):
    return make(name)


@pytest.fixture
def bag():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(17, WIDTH)))


def bias_of(head):
    return head.bias if isinstance(head, DSMIL) else head.classifier.bias


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (lambda: ABMIL(features=512), 527_621),
        (lambda: ABMIL(features=768), 658_693),
        (lambda: ABMIL(features=1024), 789_765),
        (lambda: ABMIL(features=1280), 920_837),
        (lambda: ABMIL(features=1536), 1_051_909),
        (lambda: ABMIL(features=2048), 1_314_053),
        (lambda: CLAM(classes=3), 792_330),
        (lambda: CLAM(classes=4), 793_869),
        (lambda: CLAM(classes=3, multi_branch=True), 792_844),
        (lambda: CLAM(classes=4, multi_branch=True), 794_640),
        (lambda: TransMIL(classes=3), 2_672_659),
        (lambda: TransMIL(classes=4), 2_673_172),
        (lambda: DSMIL(features=512, classes=1), 83_202),
        (lambda: DSMIL(features=512, classes=4), 92_424),
        (lambda: DSMIL(features=1024, classes=1), 149_762),
        (lambda: DSMIL(features=1024, classes=4), 168_200),
    ],
)
def test_number_of_parameters_is_that_of_the_published_model(build, parameters):
    assert sum(p.numel() for p in build().parameters() if p.requires_grad) == parameters


def test_every_architecture_answers_in_the_same_form(head, bag, name):
    output = head(bag)
    assert isinstance(head, SlideAggregator)
    assert output.logits.shape == (CLASSES,)
    assert output.scores.shape == output.attention.shape == (17,)
    assert output.probabilities.sum().item() == pytest.approx(1)
    assert output.attention.sum().item() == pytest.approx(1)
    assert (output.attention >= 0).all()
    more = output.scores.argsort(descending=True)
    assert (output.attention[more].diff() <= 0).all()
    assert (output.evidence is None) == (output.votes is None) == (name in WITHOUT_EVIDENCE)


def test_padded_batch_gives_what_each_bag_gives_alone(head, bag):
    sizes = (17, 5, 2, 1)
    bags = torch.full((len(sizes), 17, WIDTH), 1e6, dtype=torch.float64)
    mask = torch.zeros(len(sizes), 17, dtype=torch.bool)
    for row, size in enumerate(sizes):
        bags[row, :size] = bag[:size]
        mask[row, :size] = True
    together = head(bags, mask)
    for row, size in enumerate(sizes):
        alone = head(bag[:size])
        torch.testing.assert_close(together.logits[row], alone.logits)
        torch.testing.assert_close(together.attention[row, :size], alone.attention)
        torch.testing.assert_close(together.scores[row, :size], alone.scores)
        assert (together.attention[row, size:] == 0).all()
        assert (together.scores[row, size:] == -torch.inf).all()
        if alone.evidence is not None:
            torch.testing.assert_close(together.evidence[row, :size], alone.evidence)
            assert (together.evidence[row, size:] == 0).all()


def test_mask_within_a_bag_leaves_those_tiles_out(head, bag):
    there = torch.arange(17) % 3 != 1
    torch.testing.assert_close(head(bag, there).logits, head(bag[there]).logits)
    torch.testing.assert_close(head(bag, there).attention[there], head(bag[there]).attention)


def test_order_of_tiles_matters_only_where_it_should(head, bag, name):
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    shuffled, plain = head(bag[order]), head(bag)
    if name in IN_ORDER:
        assert (shuffled.logits - plain.logits).abs().max() > 1e-4
    else:
        torch.testing.assert_close(shuffled.logits, plain.logits)
        torch.testing.assert_close(shuffled.attention, plain.attention[order])


def test_bag_of_one_tile_has_all_attention_on_it(head, bag):
    output = head(bag[:1])
    assert output.attention.tolist() == [1.0]
    assert torch.isfinite(output.logits).all()


def test_bag_without_tiles_does_not_poison_its_batch(head, bag, name):
    bags = bag.repeat(2, 1, 1).requires_grad_()
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[1] = False
    output = head(bags, mask)
    torch.testing.assert_close(output.logits[0], head(bag).logits)
    assert (output.attention[1] == 0).all()
    assert torch.isfinite(output.logits).all()
    if name not in WITHOUT_EVIDENCE:
        torch.testing.assert_close(output.logits[1], bias_of(head))
    output.logits.sum().backward()
    assert torch.isfinite(bags.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    assert (bags.grad[1] == 0).all()


def test_mean_evidence_and_bias_make_the_logit(head, bag, name):
    if name in WITHOUT_EVIDENCE:
        pytest.skip("has no evidence")
    output = head(bag)
    total = output.evidence.mean(0) + bias_of(head)
    np.testing.assert_allclose(total.tolist(), output.logits.tolist(), atol=1e-12)
    single = head(bag[4:5])
    torch.testing.assert_close(output.votes[4] + bias_of(head), single.logits)


def test_gradient_reaches_every_tile_and_every_weight_of_the_logits(head, bag):
    bag = bag.clone().requires_grad_()
    head(bag).logits[0].backward()
    assert (bag.grad.abs().sum(dim=-1) > 0).all()
    for key, parameter in head.named_parameters():
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        shift_of_all_scores = key in ("attend.score.bias", "attend.bias")
        hidden = key.startswith(NOT_IN_LOGITS) and not (isinstance(head, DSMIL) and head.average)
        if not shift_of_all_scores:
            assert reached != hidden, key


def test_tiny_set_is_learnt_by_heart(name):
    torch.manual_seed(0)
    head = HEADS[name](WIDTH)
    rng = np.random.default_rng(5)
    bags = [torch.from_numpy(rng.normal(size=(n, WIDTH))).float() for n in (1, 2, 6, 9)]
    labels = torch.tensor([0, 1, 2, 0])
    for step in range(40):
        head.zero_grad()
        F.cross_entropy(torch.stack([head(bag).logits for bag in bags]), labels).backward()
        with torch.no_grad():
            for weight in head.parameters():
                if weight.grad is not None:
                    weight -= 0.02 * (1 - step / 40) * weight.grad.sign()
    head.eval()
    with torch.inference_mode():
        answers = torch.stack([head(bag).logits for bag in bags])
    assert answers.argmax(dim=-1).tolist() == labels.tolist()
    assert F.cross_entropy(answers, labels).item() < 0.2


def test_weights_travel_by_safetensors(name, head, bag):
    other = make(name, seed=4)
    assert (other(bag).logits - head(bag).logits).abs().max() > 1e-3
    other.load_state_dict(load(save(head.state_dict())))
    assert torch.equal(other(bag).logits, head(bag).logits)
    assert torch.equal(other(bag).attention, head(bag).attention)


def test_shapes_are_known_without_memory(name):
    with torch.device("meta"):
        wanted = HEADS[name](WIDTH).state_dict()
    given = make(name).state_dict()
    assert {key: value.shape for key, value in wanted.items()} == {k: v.shape for k, v in given.items()}


def test_tiles_beside_a_bag_that_are_in_it_come_out_as_they_did(head, bag, name):
    tiles, whole = head.tiles(bag), head(bag)
    rows = slice(None) if name in IN_ORDER else [11, 2, 5]  # one by itself, or the very bag
    beside = head.beside(tiles, [part[rows] for part in tiles])
    assert beside.apart == (name in IN_ORDER)
    torch.testing.assert_close(beside.logits, whole.logits)
    for field in ("scores", "attention", "evidence", "votes"):
        own, other = getattr(beside, field), getattr(whole, field)
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other[rows])


def test_tiles_beside_a_bag_change_nothing_of_each_other(head, bag, name):
    if name in IN_ORDER:
        pytest.skip("its tiles attend to each other")
    tiles = head.tiles(bag[:9])
    alone, many = (head.beside(tiles, head.tiles(others)) for others in (bag[9:10], bag[9:]))
    torch.testing.assert_close(alone.attention, many.attention[:1])
    torch.testing.assert_close(alone.logits, many.logits)


@pytest.mark.parametrize("name", IN_ORDER, indirect=True)
def test_a_bag_of_its_own_has_the_mean_weight_of_the_other(head, bag):
    other = head.beside(head.tiles(bag[:9]), head.tiles(bag))
    assert other.attention.mean().item() == pytest.approx(1 / 9)
    torch.testing.assert_close(other.attention / other.attention.sum(), head(bag).attention)


@pytest.mark.parametrize("features", [1, 7, 40])
def test_features_of_any_length(name, features):
    bag = torch.from_numpy(np.random.default_rng(1).normal(size=(6, features)))
    assert torch.isfinite(make(name, features)(bag).logits).all()


@pytest.mark.parametrize("shape", [(WIDTH,), (5, WIDTH - 1), (2, 2, 5, WIDTH)])
def test_features_of_another_encoder_are_refused(head, shape):
    with pytest.raises(ModelError, match="own encoder"):
        head(torch.zeros(shape, dtype=torch.float64))


def test_mask_that_does_not_fit_is_refused(head, bag):
    with pytest.raises(ModelError, match="mask"):
        head(bag, torch.ones(16, dtype=torch.bool))


def test_float16_features_are_computed_in_the_precision_of_the_weights(head, bag):
    head = head.float()
    torch.testing.assert_close(head(bag.half()).logits, head(bag.half().float()).logits)


@pytest.mark.parametrize("name", ["gated-abmil", "clam-mb", "dsmil"], indirect=True)
def test_large_bags_are_looked_at_by_pieces_with_the_same_answer(head, bag, monkeypatch):
    whole = head(bag)
    monkeypatch.setattr(pooling, "CHUNK_TILES", 5)
    seen = []
    head.register_forward_pre_hook(lambda *_: seen.clear())
    first = next(m for m in head.modules() if isinstance(m, torch.nn.Linear))
    first.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    with torch.inference_mode():
        pieces = head(bag)
    assert seen == [5, 5, 5, 2]
    torch.testing.assert_close(pieces.logits, whole.logits.detach())
    torch.testing.assert_close(pieces.attention, whole.attention.detach())


def test_without_layers_and_gate_abmil_is_attention_mil(bag):
    torch.manual_seed(0)
    plain = AttentionMIL(features=WIDTH, hidden=5, classes=CLASSES).double()
    same = ABMIL(features=WIDTH, widths=(), hidden=5, classes=CLASSES, gated=False).double()
    state = plain.state_dict()
    renamed = {
        "attend.project.weight": state["project.weight"],
        "attend.project.bias": state["project.bias"],
        "attend.score.weight": state["attend.weight"],
        "attend.score.bias": state["attend.bias"],
        "classifier.weight": state["classifier.weight"],
        "classifier.bias": state["classifier.bias"],
    }
    same.load_state_dict(renamed)
    for field in ("logits", "scores", "attention", "evidence", "votes"):
        torch.testing.assert_close(getattr(same(bag), field), getattr(plain(bag), field))


def softmax(scores, axis=0):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def arrays_of(head):
    return {key: value.numpy() for key, value in head.state_dict().items()}


def gated_scores(tiles, w):
    hidden = np.tanh(tiles @ w["attend.project.weight"].T + w["attend.project.bias"])
    gate = 1 / (1 + np.exp(-(tiles @ w["attend.gate.weight"].T + w["attend.gate.bias"])))
    return (hidden * gate) @ w["attend.score.weight"].T + w["attend.score.bias"]


@pytest.mark.parametrize("name", ["gated-abmil", "clam-sb", "clam-mb"], indirect=True)
def test_gated_attention_follows_the_equations(name, head, bag):
    w = arrays_of(head)
    tiles = np.maximum(bag.numpy() @ w["embed.0.weight"].T + w["embed.0.bias"], 0)
    scores = gated_scores(tiles, w)
    vectors = softmax(scores).T @ tiles  # a row a branch
    per_class = np.broadcast_to(vectors, (CLASSES, vectors.shape[1]))
    logits = (per_class * w["classifier.weight"]).sum(axis=1) + w["classifier.bias"]
    output = head(bag)
    np.testing.assert_allclose(output.logits.detach(), logits, atol=1e-12)
    shown = scores[:, logits.argmax() if name == "clam-mb" else 0]
    np.testing.assert_allclose(output.scores.detach(), shown, atol=1e-12)
    np.testing.assert_allclose(output.attention.detach(), softmax(shown), atol=1e-12)
    if name != "gated-abmil":
        weight = w["instance_classifiers.weight"].reshape(CLASSES, 2, -1)
        bias = w["instance_classifiers.bias"].reshape(CLASSES, 2)
        instances = np.einsum("kw,cjw->kcj", tiles, weight) + bias
        np.testing.assert_allclose(output.instances.detach(), instances, atol=1e-12)


def test_each_bag_of_a_batch_shows_the_branch_of_its_own_class(bag):
    head = make("clam-mb")
    bags = torch.stack([bag * scale for scale in (1.0, -1.0, 3.0, -3.0)])
    with torch.no_grad():
        head.classifier.bias -= head(bags).logits.mean(dim=0)
    output = head(bags)
    predicted = output.logits.argmax(dim=-1)
    assert len(set(predicted.tolist())) > 1
    for row, number in enumerate(predicted.tolist()):
        assert torch.equal(output.scores[row], output.branch_scores[row, :, number])


@pytest.mark.parametrize("name", ["dsmil", "dsmil-values", "dsmil-average"], indirect=True)
def test_dsmil_follows_the_equations(name, head, bag):
    w, x = arrays_of(head), bag.numpy()
    values = x
    if name == "dsmil-values":
        values = np.maximum(x @ w["value.1.weight"].T + w["value.1.bias"], 0)
    instances = x @ w["score.weight"].T + w["score.bias"]
    hidden = np.maximum(x @ w["query.0.weight"].T + w["query.0.bias"], 0)
    queries = np.tanh(hidden @ w["query.2.weight"].T + w["query.2.bias"])
    best = instances.argmax(axis=0)
    scores = queries @ queries[best].T / math.sqrt(queries.shape[1])
    vectors = softmax(scores).T @ values  # (C, D)
    bag_logits = np.einsum("ced,ed->c", w["weight"], vectors) + w["bias"]
    maxima = instances.max(axis=0)
    logits = (bag_logits + maxima) / 2 if name == "dsmil-average" else bag_logits
    output = head(bag)
    np.testing.assert_allclose(output.logits.detach(), logits, atol=1e-12)
    np.testing.assert_allclose(output.bag_logits.detach(), bag_logits, atol=1e-12)
    np.testing.assert_allclose(output.maxima.detach(), maxima, atol=1e-12)
    np.testing.assert_allclose(output.scores.detach(), scores[:, logits.argmax()], atol=1e-12)


def test_dsmil_starts_orthogonal():
    head = DSMIL(features=20, hidden=6, classes=4)
    for weight in (head.score.weight, head.query[2].weight, head.weight.flatten(1)):
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)
    assert (head.bias == 0).all()
    assert (head.score.bias == 0).all()
