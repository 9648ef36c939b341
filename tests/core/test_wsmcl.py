"""WSMCL and its attention, against dense matrices worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.errors import ModelError
from napari_her2.models import nystrom, nystrom_scoring
from napari_her2.models.nystrom import (
    NystromAttention,
    exact_attention,
    iterative_pinv,
    landmark_means,
    nystrom_attention,
)
from napari_her2.models.nystrom_scoring import along_bag, only_scored
from napari_her2.models.wsmcl import WSMCL


def small(**arguments):
    torch.manual_seed(5)
    arguments = {
        "he_features": 12,
        "ihc_features": 12,
        "width": 16,
        "heads": 2,
        "landmarks": 8,
        "k": 5,
    } | arguments
    return WSMCL(**arguments).double().eval()


def bag(n, features=12, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, features)))


def heads_of(n, *, heads=2, depth=4, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(scale * rng.normal(size=(heads, n, depth))) for _ in range(3)]


def softmax(scores, there=None):
    scores = np.where(True if there is None else there, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def dense_nystrom(q, k, v, landmarks, *, masked, junk=0.0):
    """One head, with padding really there: (N, d) arrays in, output and the whole N x N matrix out.

    The inverse comes from a singular value decomposition instead of the iteration.
    """
    n = len(q)
    length = math.ceil(n / landmarks)
    pad = length * landmarks - n
    fill = np.full((pad, q.shape[1]), junk)
    q, k, v = (np.concatenate([fill, part]) for part in (q, k, v))
    there = np.arange(len(q)) >= pad if masked else np.ones(len(q), bool)
    q_marks, k_marks, alive = [], [], []
    for start in range(0, len(q), length):
        rows = [row for row in range(start, start + length) if there[row]]
        alive.append(bool(rows))
        q_marks.append(q[rows].mean(axis=0) if rows else np.zeros(q.shape[1]))
        k_marks.append(k[rows].mean(axis=0) if rows else np.zeros(q.shape[1]))
    q_marks, k_marks, alive = np.stack(q_marks), np.stack(k_marks), np.array(alive)
    first = softmax(q @ k_marks.T, alive)
    middle = softmax(q_marks @ k_marks.T, alive)[alive][:, alive]
    last = softmax(q_marks @ k.T, there)
    inverse = np.zeros((landmarks, landmarks))
    inverse[np.ix_(alive, alive)] = np.linalg.pinv(middle)
    matrix = first @ inverse @ last
    return (matrix @ v)[pad:], matrix[pad:, pad:]


@pytest.mark.parametrize(("n", "landmarks"), [(32, 8), (29, 8), (11, 8), (8, 8), (5, 8), (1, 8)])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_by_landmarks_is_the_product_of_its_dense_matrices(n, landmarks, masked):
    q, k, v = heads_of(n, scale=1.5)
    # Enough iterations for the inverse itself: six are checked below.
    mixed, received = nystrom_attention(q, k, v, landmarks=landmarks, iterations=30, masked=masked)
    dense = [
        dense_nystrom(*(part[head].numpy() for part in (q, k, v)), landmarks, masked=masked)
        for head in range(2)
    ]
    np.testing.assert_allclose(mixed.numpy(), np.stack([out for out, _ in dense]), atol=1e-8)
    columns = np.mean([matrix.mean(axis=0) for _, matrix in dense], axis=0)
    np.testing.assert_allclose(received.numpy(), columns, atol=1e-8)


@pytest.mark.parametrize("n", [29, 11, 5])
def test_padding_influences_nothing_when_masked_whatever_it_holds(n):
    q, k, v = heads_of(n)
    mixed, _ = nystrom_attention(q, k, v, landmarks=8, iterations=30)
    for head in range(2):
        parts = [part[head].numpy() for part in (q, k, v)]
        out, _ = dense_nystrom(*parts, 8, masked=True, junk=7.0)
        np.testing.assert_allclose(mixed[head].numpy(), out, atol=1e-8)


def test_published_padding_takes_part():
    q, k, v = heads_of(29)
    masked, _ = nystrom_attention(q, k, v, landmarks=8)
    published, _ = nystrom_attention(q, k, v, landmarks=8, masked=False)
    assert (masked - published).abs().max() > 1e-3
    full = [part[:, :24] for part in (q, k, v)]
    torch.testing.assert_close(
        nystrom_attention(*full, landmarks=8)[0], nystrom_attention(*full, landmarks=8, masked=False)[0]
    )


@pytest.mark.parametrize("n", [8, 5, 1])
def test_attention_by_landmarks_is_exact_when_each_tile_is_a_landmark(n):
    q, k, v = heads_of(n, scale=1.5)
    mixed, received = nystrom_attention(q, k, v, landmarks=8, iterations=30)
    wanted, columns = exact_attention(q, k, v)
    torch.testing.assert_close(mixed, wanted, atol=1e-8, rtol=0)
    torch.testing.assert_close(received, columns, atol=1e-8, rtol=0)


def test_six_iterations_come_near_exact_attention():
    query, key, value = heads_of(40, depth=16, scale=0.7)
    mixed, _ = nystrom_attention(query, key, value, landmarks=64)
    wanted, _ = exact_attention(query, key, value)
    assert (mixed - wanted).abs().mean() < 0.02 * wanted.abs().mean()


def test_exact_attention_is_softmax_attention():
    q, k, v = heads_of(13)
    mixed, received = exact_attention(q, k, v)
    matrices = [softmax(q[head].numpy() @ k[head].numpy().T) for head in range(2)]
    np.testing.assert_allclose(
        mixed.numpy(), np.stack([a @ w.numpy() for a, w in zip(matrices, v, strict=True)])
    )
    np.testing.assert_allclose(received.numpy(), np.mean(matrices, axis=0).mean(axis=0))


def test_pieces_do_not_change_the_attention_received(monkeypatch):
    q, k, v = heads_of(53)
    whole = [exact_attention(q, k, v)[1], nystrom_attention(q, k, v, landmarks=8)[1]]
    monkeypatch.setattr(nystrom, "CHUNK_VALUES", 96)
    pieces = [exact_attention(q, k, v)[1], nystrom_attention(q, k, v, landmarks=8)[1]]
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n", [17, 31, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bag_that_is_only_scored_gets_the_numbers_of_one_that_is_learnt_from(n, dtype):
    """The way of learning is that of the dense matrices above, and of PyTorch's own convolution."""
    torch.manual_seed(3)
    attend = NystromAttention(width=12, heads=3, landmarks=8).to(dtype).eval()
    tiles = 2 * bag(n).to(dtype)
    learnt_from = attend(tiles.clone().requires_grad_())
    assert learnt_from[0].requires_grad
    with torch.inference_mode():
        assert only_scored(tiles, attend.qkv.weight, 8)
        scored = attend(tiles)
    near = {"atol": 2e-6, "rtol": 0} if dtype == torch.float32 else {"atol": 1e-12, "rtol": 0}
    for one, other in zip(scored, learnt_from, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other.detach(), **near)


@given(n=st.integers(1, 300), size=st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_the_convolution_along_a_bag_is_that_of_numpy(n, size):
    rng = np.random.default_rng(n)
    value, kernel = rng.normal(size=(n, 3)), rng.normal(size=2 * size + 1)
    wanted = [np.convolve(column, kernel[::-1])[size : size + n] for column in value.T]
    found = along_bag(torch.from_numpy(value), torch.from_numpy(kernel))
    np.testing.assert_allclose(found.numpy(), np.stack(wanted, axis=1), atol=1e-12)


def test_what_is_too_large_or_learnt_goes_the_other_way(monkeypatch):
    weight = torch.zeros(36, 12)
    assert only_scored(torch.zeros(50, 12), weight, 8)
    assert not only_scored(torch.zeros(50, 12), weight.clone().requires_grad_(), 8)
    assert not only_scored(torch.zeros(50, 12, dtype=torch.bfloat16), weight, 8)
    monkeypatch.setattr(nystrom_scoring, "MOST_VALUES", 799)
    assert not only_scored(torch.zeros(50, 12), weight, 8)


def test_pseudo_inverse_is_that_of_linear_algebra():
    matrix = torch.softmax(3 * bag(6, 6)[None], dim=-1)
    inverse = iterative_pinv(matrix, iterations=40)
    np.testing.assert_allclose(inverse[0].numpy(), np.linalg.pinv(matrix[0].numpy()), atol=1e-8)


def test_six_iterations_are_those_published():
    matrix = torch.softmax(bag(12, 6).reshape(2, 6, 6), dim=-1)
    start = matrix.sum(dim=1).max().item() * matrix.sum(dim=2).max().item()
    for head, inverse in zip(matrix.numpy(), iterative_pinv(matrix).numpy(), strict=True):
        z, one = head.T / start, np.eye(6)
        for _ in range(6):
            z = z @ (13 * one - head @ z @ (15 * one - head @ z @ (7 * one - head @ z))) / 4
        np.testing.assert_allclose(inverse, z)


def test_landmark_is_the_mean_of_the_tiles_that_are_there():
    tokens = torch.tensor([[[1.0], [2.0], [4.0], [8.0], [16.0]]])  # after padding: - - | - 1 | 2 4 | 8 16
    assert landmark_means(tokens, 4).flatten().tolist() == [1.0, 3.0, 12.0]
    assert landmark_means(tokens, 4, masked=False).flatten().tolist() == [0.0, 0.5, 3.0, 12.0]


@pytest.mark.parametrize("faithful", [False, True])
def test_number_of_parameters_is_that_of_the_published_model(faithful):
    model = WSMCL(faithful=faithful)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3_944_989


def test_one_layer_norm_serves_both_slides():
    names = [name for name, _ in small().named_parameters() if "norm" in name and name.endswith("weight")]
    assert sorted(names) == ["he.norm.weight", "ihc.norm.weight", "norm.weight"]


@pytest.mark.parametrize("faithful", [False, True])
def test_branch_follows_the_formulas(faithful):
    model, tiles = small(faithful=faithful, he_features=16), bag(21, 16)
    model.he.attend.iterations = 60  # the inverse itself: the reference comes from a decomposition
    output = model(he=tiles).he

    def normed(rows, layer):
        centred = rows - rows.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()

    def linear(rows, layer):
        return rows @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    hidden = linear(tiles.numpy(), model.he.embed[0])
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    qkv = normed(hidden, model.he.norm) @ model.he.attend.qkv.weight.detach().numpy().T
    q, k, v = (qkv[:, 16 * part : 16 * part + 16] for part in range(3))
    outs, matrices = [], []
    for head in range(2):
        at = slice(8 * head, 8 * head + 8)
        out, matrix = dense_nystrom(q[:, at] / math.sqrt(8), k[:, at], v[:, at], 8, masked=not faithful)
        kernel = model.he.attend.along_bag.weight.detach().numpy()[head, 0, :, 0]
        padded = np.pad(v[:, at], ((16, 16), (0, 0)))
        beside = sum(kernel[step] * padded[step : step + 21] for step in range(33))
        outs.append(out + beside)
        matrices.append(matrix)
    mixed = linear(np.concatenate(outs, axis=1), model.he.attend.project)
    described = normed(hidden + mixed, model.norm)
    received = np.mean(matrices, axis=0).mean(axis=0)
    np.testing.assert_allclose(output.attention.numpy(), received, atol=1e-8)
    np.testing.assert_allclose(output.token.detach().numpy(), described.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(
        output.logits.detach().numpy(), linear(output.token.detach().numpy(), model.he.classify)
    )


def test_fusion_joins_sum_product_and_mixture():
    model = small()
    output = model(bag(9), bag(7, seed=1))
    he, ihc = output.he.token, output.ihc.token
    mixed = model.fuse.mix.weight @ torch.cat([he, ihc]) + model.fuse.mix.bias
    first, _, last = model.fuse.classify
    hidden = torch.nn.functional.gelu(first.weight @ torch.cat([he + ihc, he * ihc, mixed]) + first.bias)
    torch.testing.assert_close(output.fused, last.weight @ hidden + last.bias)


@pytest.mark.parametrize("n", [8, 40])
def test_permuting_tiles_permutes_the_exact_attention(n):
    model, tiles = small(attention="exact"), bag(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    there, moved = model(he=tiles).he, model(he=tiles[order]).he
    torch.testing.assert_close(moved.attention, there.attention[order])
    assert order[moved.top].tolist() == there.top.tolist()


def test_small_bags_attend_exactly_unless_told_otherwise():
    tiles = bag(8)
    automatic, exact = small()(he=tiles), small(attention="exact")(he=tiles)
    torch.testing.assert_close(automatic.logits, exact.logits)
    one_more = bag(9)
    automatic, landmarks = small()(he=one_more), small(attention="nystrom")(he=one_more)
    torch.testing.assert_close(automatic.logits, landmarks.logits)
    assert (landmarks.logits - small(attention="exact")(he=one_more).logits).abs().max() > 1e-6


def test_attention_ranks_the_tiles():
    branch = small()(bag(30), bag(25, seed=1)).he
    order = np.argsort(-branch.attention.numpy(), kind="stable")
    assert branch.top.tolist() == order[:5].tolist()
    assert branch.bottom.tolist() == order[-5:].tolist()
    assert not branch.attention.requires_grad
    assert branch.top_features.shape == (5, 16)
    torch.testing.assert_close(
        branch.attention.sum(), torch.tensor(1.0, dtype=torch.float64), atol=0.02, rtol=0
    )


@pytest.mark.parametrize(("he", "ihc", "k"), [(30, 30, 5), (30, 7, 3), (9, 30, 4), (1, 30, 0), (2, 2, 1)])
def test_top_and_bottom_never_share_a_tile(he, ihc, k):
    output = small()(bag(he), bag(ihc, seed=1))
    for branch in (output.he, output.ihc):
        assert len(branch.top) == len(branch.bottom) == k
        assert not set(branch.top.tolist()) & set(branch.bottom.tolist())
    assert torch.isfinite(output.logits).all()


def test_equal_tiles_keep_their_order():
    branch = small(attention="exact")(he=bag(1).expand(12, 12)).he
    assert branch.top.tolist() == [0, 1, 2, 3, 4]
    assert branch.bottom.tolist() == [7, 8, 9, 10, 11]


def test_the_slide_that_is_there_answers():
    model, he, ihc = small(), bag(20), bag(14, seed=1)
    both, only_he, only_ihc = model(he, ihc), model(he=he), model(ihc=ihc)
    assert (both.head, only_he.head, only_ihc.head) == ("fusion", "H&E", "IHC")
    assert only_he.fused is None
    assert only_he.ihc is None
    assert only_ihc.he is None
    torch.testing.assert_close(only_he.logits, both.he.logits)
    torch.testing.assert_close(only_ihc.logits, both.ihc.logits)
    assert both.logits is both.fused
    assert only_he.agree is None
    assert both.agree == (int(both.he.logits.argmax()) == int(both.ihc.logits.argmax()))
    torch.testing.assert_close(both.probabilities.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_slides_may_have_features_of_different_lengths():
    model = small(he_features=12, ihc_features=20)
    assert model(bag(20), bag(20, 20)).logits.shape == (4,)
    assert isinstance(small(he_features=16).he.adapt, torch.nn.Identity)
    assert model.ihc.adapt.weight.shape == (16, 20)


def test_half_precision_features_are_accepted_and_ranked_in_float32():
    model = small().float()
    output = model(bag(20).half(), bag(20).half())
    assert output.logits.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model(bag(20).float(), bag(20).float())
    assert narrow.he.attention.dtype == torch.float32
    assert len(set(narrow.he.attention.tolist())) == 20
    torch.testing.assert_close(narrow.logits.float(), output.logits, atol=0.05, rtol=0)


def test_gradients_reach_every_parameter_of_the_answer():
    model = small(landmarks=8).train()
    output = model(bag(30), bag(25, seed=1))
    (output.logits.sum() + output.he.logits.sum() + output.ihc.logits.sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == ["log_scale"]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_attention_matches_its_numerical_gradient():
    torch.manual_seed(0)
    layer = NystromAttention(width=6, heads=2, landmarks=3, kernel=3, dropout=0.0).double()
    tiles = bag(7, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: layer(t)[0], (tiles,))


@pytest.mark.parametrize(
    ("he", "ihc", "message"),
    [
        (None, None, "nothing to score"),
        (torch.zeros(5, 7), None, "length 12 from the H&E slide"),
        (torch.zeros(5, 12), torch.zeros(5, 7), "length 12 from the IHC slide"),
        (torch.zeros(2, 5, 12), None, "length 12"),
        (torch.zeros(0, 12), torch.zeros(5, 12), "The H&E slide gave no tile"),
    ],
)
def test_what_does_not_fit_is_refused(he, ihc, message):
    with pytest.raises(ModelError, match=message):
        small()(he, ihc)


@pytest.mark.parametrize(
    "arguments", [{"heads": 3}, {"attention": "sparse"}, {"attention": "exact", "faithful": True}]
)
def test_contradicting_arguments_are_refused(arguments):
    with pytest.raises(ModelError):
        small(**arguments)


def test_model_can_be_built_without_memory():
    with torch.device("meta"):
        assert WSMCL().log_scale.is_meta
