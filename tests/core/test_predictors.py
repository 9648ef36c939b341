"""Predictors: sizes as published, what they take, and where Grad-CAM may look."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import nn

from napari_her2.errors import ModelError
from napari_her2.models.predictors import PREDICTORS, ConfidenceNetwork, Predictor, PredictorOutput

SMALL = ["resnext14-32x4d", "tinynet-e", "vit-tiny"]


def small(architecture="tinynet-e", **arguments):
    torch.manual_seed(3)
    return Predictor(**({"architecture": architecture, "channels": 5, "size_px": 64} | arguments)).eval()


def fields(batch=2, channels=5, size=64):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=SMALL)
def predictor(request):
    return small(request.param)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@functools.cache
def weightless(architecture):
    """The predictor on 16 channels without storage, and the shape in which Grad-CAM gets its layer."""
    shapes = []
    with torch.device("meta"):
        model = Predictor(architecture=architecture, channels=16).eval()
        layer = model.get_submodule(model.cam_layer)
        layer.register_forward_hook(lambda _m, _a, output: shapes.append(model.cam_maps(output).shape))
        output = model(torch.empty(1, 16, 256, 256))
    assert output.logits.shape == (1, 4)
    return model, shapes[0]


@pytest.mark.parametrize(
    ("name", "features", "weights"),
    [
        # As torchvision tells them, without the head for 1,000 classes, and a wider input.
        ("resnext50-32x4d", 2048, 25_028_904 - 1000 * 2049 + (16 - 3) * 64 * 7 * 7),
        ("efficientnet-b7", 2560, 66_347_960 - 1000 * 2561 + (16 - 3) * 64 * 3 * 3),
        # Twelve blocks; patch embedding; positions of 257 tokens, class token, bias and last norm.
        ("vit-1024x12", 1024, 12 * (12 * 1024**2 + 13 * 1024) + 16 * 256 * 1024 + (257 + 1 + 1 + 2) * 1024),
        # Published: 64.0 million on six channels.
        ("vit-reg4-512x20", 512, pytest.approx(64.0e6 + 10 * 256 * 512, rel=1e-3)),
    ],
)
def test_the_published_predictors_have_their_size(name, features, weights):
    model, _ = weightless(name)
    assert model.features == features
    assert count(model.backbone) == weights
    assert count(model.classify) == 4 * (features + 1)
    hidden = min(features // 4, 256)
    assert count(model.confide) == (features + 1) * hidden + hidden + 1


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_predictor_leads_grad_cam_to_a_layer_ahead_of_pooling(name):
    model, shape = weightless(name)
    assert shape == (1, model.features, *((16, 16) if "vit" in name else (8, 8)))


@pytest.mark.parametrize("channels", [3, 6, 8, 32])
def test_any_number_of_channels_goes_in(channels):
    with torch.inference_mode():
        output = small(channels=channels)(fields(channels=channels))
    assert output.logits.shape == (2, 4)
    assert output.confidence.shape == (2,)


def test_a_predictor_for_the_demonstration_weighs_little():
    model, _ = weightless("tinynet-e")
    assert 4 * count(model) < 6e6


def test_pooling_the_maps_of_a_convolutional_network_gives_its_features():
    for name in ("resnext14-32x4d", "tinynet-e"):
        model, seen = small(name), []
        model.get_submodule(model.cam_layer).register_forward_hook(
            lambda _m, _a, out, seen=seen: seen.append(out)
        )
        with torch.inference_mode():
            output = model(fields())
            torch.testing.assert_close(model.classify(seen[0].mean(dim=(2, 3))), output.logits)


def test_tokens_become_maps_row_by_row_without_the_class_token():
    model = small("vit-tiny")
    tokens = torch.arange(-1.0, 16.0).view(1, 17, 1).expand(1, 17, 2)
    maps = model.cam_maps(tokens)
    assert maps.shape == (1, 2, 4, 4)
    assert torch.equal(maps[0, 1], torch.arange(16.0).view(4, 4))


def test_a_patch_of_the_field_reaches_its_own_token():
    model = small("vit-tiny")
    field = torch.zeros(1, 5, 64, 64)
    marked = field.clone()
    marked[..., 16:32, 48:64] = 1
    with torch.inference_mode():
        plain, moved = (
            model.cam_maps(torch.cat([torch.zeros(1, 1, 192), model.backbone.patch_embed(x)], dim=1))
            for x in (field, marked)
        )
    changed = (plain != moved).any(dim=1)[0].nonzero().tolist()
    assert changed == [[1, 3]]


def test_gradients_reach_the_layer_and_both_heads(predictor):
    seen = []
    handle = predictor.get_submodule(predictor.cam_layer).register_forward_hook(
        lambda _module, _args, output: seen.append(output)
    )
    output = predictor(fields())
    handle.remove()
    (gradient,) = torch.autograd.grad(output.logits[:, 1].sum(), seen[0], retain_graph=True)
    assert predictor.cam_maps(gradient).abs().sum() > 0
    learnt = [*predictor.classify.parameters(), *predictor.confide.parameters()]
    gradients = torch.autograd.grad(output.logits.sum() + output.confidence.sum(), learnt)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_fields_do_not_influence_each_other(predictor):
    batch = fields(3)
    with torch.inference_mode():
        together, alone = predictor(batch), predictor(batch[1:2])
    torch.testing.assert_close(together.logits[1:2], alone.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.confidence[1:2], alone.confidence, atol=1e-5, rtol=1e-4)


def test_the_confidence_network_is_two_layers_beside_the_classifier():
    network = ConfidenceNetwork(8)
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2, 8))
        network[0].bias.copy_(torch.tensor([0.0, -1.0]))
        network[2].weight.copy_(torch.tensor([[1.0, 2.0]]))
        network[2].bias.fill_(0.5)
    features = torch.zeros(2, 8)
    features[:, :2] = torch.tensor([[-3.0, 4.0], [2.0, 0.5]])
    assert network(features).tolist() == [6.5, 2.5]  # 0 + 2 * 3 + 0.5, and 2 + 0 + 0.5


def test_probabilities_and_confidence_follow_from_the_logits():
    output = PredictorOutput(torch.tensor([[0.0, 0.0], [2000.0, 0.0]]), torch.tensor([0.0, -2000.0]))
    assert output.probabilities.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert output.confidence.tolist() == [0.5, 0.0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        output.logits = torch.zeros(1)
    narrow = PredictorOutput(torch.zeros(1, 2, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16))
    assert narrow.probabilities.dtype == narrow.confidence.dtype == torch.float32


def test_one_field_of_a_batch_keeps_its_axis(predictor):
    with torch.inference_mode():
        output = predictor(fields(1))
    assert output.logits.shape == (1, 4)
    assert output.confidence.shape == (1,)


def test_convolutional_networks_take_fields_of_other_sizes():
    with torch.inference_mode():
        assert small()(torch.zeros(1, 5, 32, 70)).logits.shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("tinynet-e", torch.zeros(1, 3, 64, 64), "5 channels, not of 3"),
        ("tinynet-e", torch.zeros(1, 5, 31, 64), "at least 32 px, not of 31 x 64"),
        ("tinynet-e", torch.zeros(5, 64, 64), "batches of fields"),
        ("tinynet-e", torch.zeros(1, 5, 64, 64, dtype=torch.uint8), "uint8"),
        ("vit-tiny", torch.zeros(1, 5, 64, 80), "64 x 64 px, not of 64 x 80"),
        ("vit-tiny", torch.zeros(1, 6, 64, 64), "5 channels, not of 6"),
    ],
)
def test_fields_that_do_not_fit_are_refused_in_words(name, given, told):
    with pytest.raises(ModelError, match=told):
        small(name)(given)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"architecture": "resnet50"}, "no predictor called 'resnet50': use resnext50-32x4d"),
        ({"channels": 0}, "channels from 1 to 1024, not 0"),
        ({"classes": 1}, "classes from 2"),
        ({"size_px": 10**9}, "size_px from 32 to 2048"),
        ({"architecture": "vit-tiny", "size_px": 100}, "100 px is no multiple"),
    ],
)
def test_predictors_that_cannot_be_are_refused_in_words(arguments, told):
    with pytest.raises(ModelError, match=told):
        small(**arguments)


@pytest.mark.parametrize(("name", "shape"), [("tinynet-e", (2, 17, 192)), ("vit-tiny", (2, 16, 192))])
def test_activations_of_another_layer_are_refused(name, shape):
    with pytest.raises(ModelError, match="hook that layer"):
        small(name).cam_maps(torch.zeros(shape))


def test_a_predictor_learns_a_colour():
    model = small(channels=3, classes=2, size_px=32).train()
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(8) % 2
    x = 0.1 * torch.rand(8, 3, 32, 32, generator=generator)
    x[labels == 1, 0] += 1
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(x).logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.4
