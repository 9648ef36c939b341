"""TransMIL against its dense form, with every matrix written out, and what its memory may grow with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_her2.errors import ModelError
from napari_her2.models.transmil import TransMIL

WIDTH = 12


@pytest.fixture
def bag():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(17, WIDTH)))


def small(features=WIDTH, **arguments):
    torch.manual_seed(0)
    arguments = {"width": 16, "heads": 2, "landmarks": 4, "classes": 3, "dropout": 0.0} | arguments
    return TransMIL(features=features, **arguments).double().eval()


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def layer_norm(x, w, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense_attention(tokens, w, name, *, heads, landmarks, kind):
    """What is added to the tokens, and the whole matrix (heads, N, N), zeros in front really there."""
    n, width = tokens.shape
    q, k, v = (
        part.reshape(n, heads, -1).swapaxes(0, 1)
        for part in np.split(layer_norm(tokens, w, f"{name}.norm") @ w[f"{name}.qkv.weight"].T, 3, axis=1)
    )
    q = q / math.sqrt(width // heads)
    matrices = []
    for qh, kh in zip(q, k, strict=True):
        if kind == "exact":
            matrices.append(softmax(qh @ kh.T))
            continue
        length = math.ceil(n / landmarks)
        zeros = np.zeros((length * landmarks - n, qh.shape[1]))
        qp, kp = np.concatenate([zeros, qh]), np.concatenate([zeros, kh])
        there = np.arange(len(qp)) >= len(zeros)
        if kind == "faithful":
            there[:] = True
        groups = [g[there[g]] for g in np.split(np.arange(len(qp)), landmarks)]
        qm, km = (np.stack([p[g].mean(axis=0) for g in groups if len(g)]) for p in (qp, kp))
        first, last = softmax(qp @ km.T), softmax(np.where(there, qm @ kp.T, -np.inf))
        matrices.append((first @ np.linalg.pinv(softmax(qm @ km.T)) @ last)[len(zeros) :, len(zeros) :])
    matrix = np.stack(matrices)
    mixed = matrix @ v
    kernel = w[f"{name}.along.weight"][:, 0, :, 0]
    reach = kernel.shape[1] // 2
    for h in range(heads):
        for i in range(n):
            for j in range(max(0, i - reach), min(n, i + reach + 1)):
                mixed[h, i] += kernel[h, j - i + reach] * v[h, j]
    joined = mixed.swapaxes(0, 1).reshape(n, width)
    return joined @ w[f"{name}.project.weight"].T + w[f"{name}.project.bias"], matrix


def dense_transmil(bag, w, **arguments):
    """Logits and the row of the class token, mean over the heads."""
    tiles = np.maximum(bag @ w["embed.0.weight"].T + w["embed.0.bias"], 0)
    n, width = tiles.shape
    side = math.ceil(math.sqrt(n))
    tokens = np.concatenate([w["token"][None], tiles, tiles[: side**2 - n]])
    tokens = tokens + dense_attention(tokens, w, "first", **arguments)[0]
    plane = tokens[1:].reshape(side, side, width)
    mixed = plane.copy()
    for name, size in (("wide", 7), ("middle", 5), ("narrow", 3)):
        reach = size // 2
        padded = np.pad(plane, ((reach, reach), (reach, reach), (0, 0)))
        kernel = w[f"position.{name}.weight"][:, 0]
        for i in range(size):
            for j in range(size):
                mixed += kernel[:, i, j] * padded[i : i + side, j : j + side]
        mixed += w[f"position.{name}.bias"]
    tokens = np.concatenate([tokens[:1], mixed.reshape(-1, width)])
    added, matrix = dense_attention(tokens, w, "second", **arguments)
    last = layer_norm((tokens + added)[:1], w, "norm")[0]
    return last @ w["classifier.weight"].T + w["classifier.bias"], matrix[:, 0, 1 : n + 1].mean(axis=0)


@pytest.mark.parametrize("tiles", [1, 2, 5, 9, 17])
@pytest.mark.parametrize("kind", ["exact", "nystrom", "faithful"])
def test_transmil_is_its_dense_form_and_the_row_that_of_the_whole_matrix(bag, tiles, kind):
    chosen = {"faithful": True} if kind == "faithful" else {"attention": kind}
    head = small(**chosen)
    for layer in (head.first, head.second):
        layer.iterations = 40  # until the iteration has converged to the pseudo-inverse
    output = head(bag[:tiles])
    arrays = {key: value.numpy() for key, value in head.state_dict().items()}
    logits, row = dense_transmil(bag[:tiles].numpy(), arrays, heads=2, landmarks=4, kind=kind)
    np.testing.assert_allclose(output.logits.detach(), logits, atol=1e-8)
    np.testing.assert_allclose(output.scores, row, atol=1e-8)


def test_transmil_is_exact_for_few_tiles_and_uses_landmarks_beyond(bag):
    auto, exact = small(landmarks=8), small(landmarks=8, attention="exact")
    exact.load_state_dict(auto.state_dict())
    assert torch.equal(auto(bag[:4]).logits, exact(bag[:4]).logits)
    assert (auto(bag).logits - exact(bag).logits).abs().max() > 1e-6


def test_row_of_a_large_bag_is_computed_by_pieces_with_the_same_answer(bag, monkeypatch):
    head = small(attention="nystrom")
    whole = head(bag)
    monkeypatch.setattr("napari_her2.models.transmil.CHUNK_VALUES", 40)
    torch.testing.assert_close(head(bag).scores, whole.scores)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return result


@pytest.mark.parametrize("kind", ["nystrom", "faithful"])
def test_no_tensor_of_transmil_grows_with_the_square_of_the_bag(kind):
    head = small(4, **({"faithful": True} if kind == "faithful" else {"attention": kind}))
    largest = []
    for tiles in (900, 3600):
        with Largest() as counted:
            head(torch.randn(tiles, 4, dtype=torch.float64)).logits.sum().backward()
        largest.append(counted.numbers)
    assert largest[1] < 4.2 * largest[0]
    assert largest[1] < 3600**2 / 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 10, "heads": 4}, "cannot be shared"),
        ({"attention": "flash"}, "Attention is one of"),
        ({"attention": "exact", "faithful": True}, "choose either"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, words):
    with pytest.raises(ModelError, match=words):
        TransMIL(**arguments)
