"""Corr-A-Net: sizes, what may reach what, and its parts against plain layers, numpy and numbers by hand."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from corr_a_net_published import CorrANetPublished
from corr_a_nets import built, by_hand, images, learnt
from napari_her2.errors import ModelError
from napari_her2.models.corr_a_net import CorrANet, to_unit_range
from napari_her2.models.squeeze_excitation import SqueezeExcitation
from napari_her2.models.weights_file import read_weights, write_weights

# 4 channels of bottleneck at d = 8 and 16, 8 at d = 32, for two stains.
GATES = {
    8: 2 * (8 * 4 + 4 + 4 * 8 + 8),
    16: 2 * (16 * 4 + 4 + 4 * 16 + 16),
    32: 2 * (32 * 8 + 8 + 8 * 32 + 32),
}


@runtime_checkable
class Representer(Protocol):
    """What the networks have in common."""

    channels: int

    def represent(self, he: torch.Tensor) -> torch.Tensor: ...


@pytest.mark.parametrize("dim", [8, 16, 32])
def test_numbers_of_weights_are_those_of_the_layers(dim):
    assert learnt(built(dim=dim)) == by_hand(dim) + GATES[dim]
    assert learnt(built(dim=dim, attention=False)) == by_hand(dim)
    stem = sum(weights.numel() for weights in built(dim=dim).stem.parameters())
    assert stem == 64 * 3 * 7 * 7 + 2 * 64


@pytest.mark.parametrize(("dim", "published"), [(8, 2382), (16, 8856), (32, 33962)])
def test_published_network_has_the_published_number_of_weights(dim, published):
    assert sum(weights.numel() for weights in built(CorrANetPublished, dim=dim).parameters()) == published


@pytest.mark.parametrize("dim", [8, 16, 32])
@pytest.mark.parametrize("attention", [True, False])
def test_everything_has_the_size_of_the_images(dim, attention):
    with torch.inference_mode():
        output = built(dim=dim, attention=attention)(images(), images(seed=1))
    shared = output.representations
    for tensor in (shared.from_he, shared.from_ihc, shared.from_both, output.hidden.he, output.hidden.ihc):
        assert tensor.shape == (2, dim, 32, 40)
    views = (
        output.targets,
        output.self_reconstruction,
        output.cross_reconstruction,
        output.joint_reconstruction,
    )
    for view in views:
        assert view.he.shape == view.ihc.shape == (2, 64, 32, 40)


@pytest.mark.parametrize("kind", [CorrANet, CorrANetPublished])
@pytest.mark.parametrize("shape", [(7, 7), (33, 12), (64, 8)])
def test_any_size_from_seven_pixels_is_represented(kind, shape):
    model = built(kind)
    assert isinstance(model, Representer)
    with torch.inference_mode():
        representation = model.represent(images(1, *shape))
    assert representation.shape == (1, model.channels, *shape)
    assert bool(representation.isfinite().all())


@pytest.mark.parametrize("attention", [True, False])
def test_h_e_alone_gives_the_representation_of_the_full_pass_bit_for_bit(attention):
    model, he = built(attention=attention), images()
    with torch.inference_mode():
        alone = model.represent(he)
        for seed in (1, 2):
            assert torch.equal(model(he, images(seed=seed)).representations.from_he, alone)


def test_published_network_takes_missing_ihc_as_black():
    model, he = built(CorrANetPublished), images()
    with torch.inference_mode():
        assert torch.equal(model.represent(he), model(he, torch.zeros_like(he)).reconstruction)
        both = model(he, images(seed=1)).reconstruction
    assert torch.equal(both[:, :3], both[:, 3:])


def test_a_tile_is_represented_alike_alone_and_in_a_batch():
    model, he = built(), images(3)
    with torch.inference_mode():
        together = model.represent(he)
        for index in range(3):
            torch.testing.assert_close(model.represent(he[index : index + 1])[0], together[index])


def test_each_representation_is_decoded_by_the_decoder_of_its_stain():
    model = built()
    with torch.inference_mode():
        output = model(images(), images(seed=1))
        shared = output.representations
        expected = [
            (output.self_reconstruction.he, model.decode_he(shared.from_he)),
            (output.self_reconstruction.ihc, model.decode_ihc(shared.from_ihc)),
            (output.cross_reconstruction.he, model.decode_he(shared.from_ihc)),
            (output.cross_reconstruction.ihc, model.decode_ihc(shared.from_he)),
            (output.joint_reconstruction.he, model.decode_he(shared.from_both)),
            (output.joint_reconstruction.ihc, model.decode_ihc(shared.from_both)),
        ]
        fused = F.relu(model.fuse[0]((output.hidden.he + output.hidden.ihc) / 2))
    for given, wanted in expected:
        torch.testing.assert_close(given, wanted)
    torch.testing.assert_close(shared.from_both, fused)
    assert len({tensor.sum().item() for tensor, _ in expected}) == 6


def test_gradients_reach_both_branches_and_no_weight_of_the_stem():
    model = built().train()
    output = model(images(), images(seed=1))
    (
        output.joint_reconstruction.he.square().mean() + output.joint_reconstruction.ihc.square().mean()
    ).backward()
    for name, weights in model.named_parameters():
        if name.startswith("stem."):
            assert weights.grad is None
        else:
            assert weights.grad is not None, name
    for branch in (model.encode_he, model.encode_ihc, model.decode_he, model.decode_ihc):
        assert all(float(weights.grad.abs().sum()) > 0 for weights in branch[0].parameters(recurse=False))


def test_cross_reconstruction_teaches_the_branch_of_the_other_stain():
    # Evaluation mode: in training the representations share the statistics of a decoder's batch.
    model = built()
    model(images(), images(seed=1)).cross_reconstruction.ihc.square().mean().backward()
    assert float(model.encode_he[0].weight.grad.abs().sum()) > 0
    assert all(weights.grad is None or not weights.grad.any() for weights in model.encode_ihc.parameters())
    assert all(weights.grad is None for weights in model.decode_he.parameters())


@pytest.mark.parametrize("dim", [8, 16, 32])
def test_the_gate_depends_on_the_image_at_every_width(dim):
    model = built(dim=dim)
    with torch.inference_mode():
        dark, light = (model.encode_he(model.stem(images() * scale)) for scale in (0.2, 1.0))
        assert (model.weigh_he.gate(dark) - model.weigh_he.gate(light)).abs().max() > 1e-4


def test_the_gate_is_its_formula():
    torch.manual_seed(0)
    gate = SqueezeExcitation(channels=6, bottleneck=4).double()
    features = torch.rand(2, 6, 5, 7, dtype=torch.float64)
    w1, b1, w2, b2 = (
        weights.detach().numpy()
        for layer in (gate.squeeze, gate.excite)
        for weights in (layer.weight, layer.bias)
    )
    hidden = np.maximum(features.numpy().mean(axis=(2, 3)) @ w1.T + b1, 0)
    weights = 1 / (1 + np.exp(-(hidden @ w2.T + b2)))
    expected = features.numpy() * weights[:, :, None, None]
    np.testing.assert_allclose(gate(features).detach().numpy(), expected, atol=1e-12)


def test_published_gate_is_one_half_whatever_the_image_at_eight_channels():
    gate = built(CorrANetPublished, dim=8).weigh_he.gate(torch.rand(3, 8, 5, 5))
    assert torch.equal(gate, torch.full((3, 8), 0.5))


def test_the_edge_of_an_image_answers_like_its_middle() -> None:
    torch.manual_seed(0)
    model = CorrANet(dim=8).eval()
    plain = torch.tensor([0.9, 0.6, 0.8]).view(1, 3, 1, 1).expand(1, 3, 24, 24)
    with torch.inference_mode():
        represented = model.represent(plain)
    middle = represented[:, :, 12:13, 12:13]
    torch.testing.assert_close(represented, middle.expand_as(represented), atol=1e-5, rtol=1e-4)


def test_unit_range_scales_each_image_by_itself_and_leaves_a_constant_one_at_zero():
    stack = torch.stack([torch.full((2, 3, 3), 5.0), torch.arange(18.0).view(2, 3, 3) - 4])
    scaled = to_unit_range(stack)
    assert torch.equal(scaled[0], torch.zeros(2, 3, 3))
    torch.testing.assert_close(scaled[1], torch.arange(18.0).view(2, 3, 3) / 17)


@pytest.mark.parametrize("kind", [CorrANet, CorrANetPublished])
def test_a_constant_image_gives_finite_values(kind):
    model = built(kind)
    for value in (0.0, 1.0):
        flat = torch.full((1, 3, 16, 16), value)
        with torch.inference_mode():
            assert bool(to_unit_range(model.represent(flat)).isfinite().all())


def test_one_pair_is_learnt_and_its_representation_is_not_flat():
    """Squared errors of all six reconstructions fall to less than a fifth in forty steps."""
    model = built().train()
    he, ihc = images(1, 32, 32), images(1, 32, 32, seed=1)
    model.stem.fit_ceiling([he, ihc])
    optimiser = torch.optim.Adam((w for w in model.parameters() if w.requires_grad), lr=2e-2)
    losses = []
    for _ in range(40):
        output = model(he, ihc)
        rebuilt = (output.self_reconstruction, output.cross_reconstruction, output.joint_reconstruction)
        loss = sum(
            F.mse_loss(view.he, output.targets.he) + F.mse_loss(view.ihc, output.targets.ihc)
            for view in rebuilt
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    with torch.inference_mode():
        assert float(model.eval().represent(he).std(dim=(2, 3)).max()) > 0.05


@pytest.mark.parametrize(
    ("kind", "dim", "attention"),
    [(CorrANet, 8, True), (CorrANet, 16, False), (CorrANetPublished, 8, True)],
)
def test_weights_survive_safetensors(kind, dim, attention, tmp_path):
    model = built(kind, dim=dim, attention=attention)
    if kind is CorrANet:
        model.stem.fit_ceiling([images()])
    write_weights(tmp_path / "model.safetensors", model.state_dict(), {})
    torch.manual_seed(99)
    again = kind(dim=dim, attention=attention).eval()
    again.load_state_dict(read_weights(tmp_path / "model.safetensors").tensors)
    with torch.inference_mode():
        assert torch.equal(again.represent(images()), model.represent(images()))


def test_half_of_the_numbers_fit_a_demonstration_many_times_over():
    numbers = sum(tensor.numel() for tensor in built(dim=16).state_dict().values())
    assert 2 * numbers < 100_000


@pytest.mark.parametrize("kind", [CorrANet, CorrANetPublished])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3, 16, 16), "RGB images"),
        (torch.zeros(1, 4, 16, 16), "RGB images"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 3, 6, 16), "at least 7 x 7 pixels"),
        (torch.zeros(0, 3, 16, 16), "at least one"),
    ],
)
def test_what_is_no_image_is_refused_in_plain_words(kind, bad, message):
    model = built(kind)
    with pytest.raises(ModelError, match=message):
        model.represent(bad)
    with pytest.raises(ModelError, match=message):
        model(torch.zeros(1, 3, 16, 16), bad)


@pytest.mark.parametrize("kind", [CorrANet, CorrANetPublished])
def test_a_pair_of_two_sizes_is_refused(kind):
    with pytest.raises(ModelError, match="same place"):
        built(kind)(images(), images(height=40))


@pytest.mark.parametrize("kind", [CorrANet, CorrANetPublished])
@pytest.mark.parametrize("dim", [0, -8, 10])
def test_a_width_that_cannot_be_quartered_is_refused(kind, dim):
    with pytest.raises(ModelError, match="multiple of 4"):
        kind(dim=dim)
