"""Grad-CAM against captum and against passes taken apart by hand."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from napari_her2.errors import ModelError
from napari_her2.explain.gradcam import evaluating, grad_cam, upsample_maps
from napari_her2.models.field_model import FieldModel
from napari_her2.models.predictors import Predictor


class LogitsAlone(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, fields):
        return self.model(fields).logits


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def made(build, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


@pytest.fixture(scope="module")
def convolutional():
    return made(lambda: FieldModel(predictor="tinynet-e", dim=8, field_px=64))


@pytest.fixture(scope="module")
def transformer():
    return made(lambda: Predictor(architecture="vit-tiny", channels=3, size_px=48))


def assert_same(found, expected):
    """Equal within 1e-5 of the brightest: maps of random weights are far below one."""
    brightest = expected.max()
    assert brightest > 0
    torch.testing.assert_close(found / brightest, expected / brightest, atol=1e-5, rtol=0)


def by_hand(activations, gradients):
    """(B, K, h, w) each, in loops over fields."""
    maps = []
    for activation, gradient in zip(activations, gradients, strict=True):
        total = torch.zeros(activation.shape[1:])
        for one, slope in zip(activation, gradient, strict=True):
            total += slope.sum() / slope.numel() * one
        maps.append(total.clamp(min=0))
    return torch.stack(maps)


@pytest.mark.parametrize("class_index", [0, 3])
def test_convolutional_maps_equal_captum_and_a_pass_taken_apart(convolutional, class_index):
    fields = draw(2, 3, 64, 64)
    found = grad_cam(convolutional, fields, class_index)
    assert found.shape == (2, 2, 2)
    assert found.dtype == torch.float32

    predictor = convolutional.predictor
    layer = predictor.get_submodule(predictor.cam_layer)
    captum = LayerGradCam(LogitsAlone(convolutional), layer)
    expected = captum.attribute(fields.clone().requires_grad_(), class_index, relu_attributions=True)
    assert_same(found, expected[:, 0].detach())

    backbone = predictor.backbone
    maps = backbone.forward_features(convolutional.represent(fields)).detach().requires_grad_()
    logits = predictor.classify(backbone.forward_head(maps))
    (slopes,) = torch.autograd.grad(logits[:, class_index].sum(), maps)
    assert_same(found, by_hand(maps.detach(), slopes))


def test_transformer_maps_equal_a_pass_taken_apart(transformer):
    fields = draw(2, 3, 48, 48)
    found = grad_cam(transformer, fields, 2)
    vit = transformer.backbone
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(fields)))
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    last = vit.blocks[-1]
    seen = last.norm1(tokens).detach().requires_grad_()
    ahead = tokens + last.ls1(last.attn(seen))
    ahead = ahead + last.ls2(last.mlp(last.norm2(ahead)))
    logits = transformer.classify(vit.forward_head(vit.norm(ahead)))
    (slopes,) = torch.autograd.grad(logits[:, 2].sum(), seen)

    def square(values):  # the class token comes first
        return values[:, 1:].reshape(2, 3, 3, -1).permute(0, 3, 1, 2)

    assert found.shape == (2, 3, 3)
    assert_same(found, by_hand(square(seen.detach()), square(slopes)))


def test_another_layer_has_its_own_resolution(convolutional):
    fields = draw(1, 3, 64, 64)
    layer = "backbone.blocks.2"
    found = grad_cam(convolutional, fields, 1, layer)
    captum = LayerGradCam(LogitsAlone(convolutional), convolutional.predictor.get_submodule(layer))
    expected = captum.attribute(fields.clone().requires_grad_(), 1, relu_attributions=True)
    assert found.shape == (1, 8, 8)
    assert_same(found, expected[:, 0].detach())


def test_fields_may_each_have_their_own_class(convolutional):
    fields = draw(3, 3, 64, 64)
    found = grad_cam(convolutional, fields, torch.tensor([2, 0, 3]))
    alone = [
        grad_cam(convolutional, fields[i : i + 1], class_index) for i, class_index in enumerate((2, 0, 3))
    ]
    assert_same(found, torch.cat(alone))


def test_frozen_training_and_inference_mode_change_nothing(convolutional):
    fields = draw(2, 3, 64, 64)
    expected = grad_cam(convolutional, fields, 1)
    model = made(lambda: FieldModel(predictor="tinynet-e", dim=8, field_px=64)).requires_grad_(False)
    model.train()
    model.predictor.backbone.bn2.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        found = grad_cam(model, fields, 1)
    assert_same(found, expected)
    assert [module.training for module in model.modules()] == modes
    assert not any(weights.requires_grad for weights in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_neither_hooks_nor_gradients_nor_graphs_stay(convolutional):
    fields = draw(1, 3, 64, 64)

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    asked = [weights.requires_grad for weights in convolutional.parameters()]
    found = grad_cam(convolutional, fields, 0)
    before = tensors()
    for _ in range(3):
        found = grad_cam(convolutional, fields, 0)
    assert tensors() == before
    assert not found.requires_grad
    assert torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in convolutional.modules())
    assert all(weights.grad is None for weights in convolutional.parameters())
    assert [weights.requires_grad for weights in convolutional.parameters()] == asked


def test_a_failing_pass_leaves_the_model_as_it_was(convolutional):
    with pytest.raises(ModelError, match="channels"):
        grad_cam(convolutional.predictor, draw(1, 5, 64, 64), 0)
    assert torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in convolutional.modules())


def test_another_thread_predicts_without_a_graph_meanwhile(convolutional):
    """A hook of one thread must not switch on the gradients of another."""
    layer = convolutional.predictor.get_submodule(convolutional.predictor.cam_layer)
    seen = []

    def elsewhere():
        with torch.no_grad():
            logits = convolutional(draw(1, 3, 64, 64)).logits
            seen.append((torch.is_grad_enabled(), logits.requires_grad))

    def meanwhile(*_):
        if not seen:
            seen.append(None)
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

    handle = layer.register_forward_pre_hook(meanwhile)
    try:
        grad_cam(convolutional, draw(1, 3, 64, 64), 0)
    finally:
        handle.remove()
    assert seen == [None, (False, False)]


@pytest.mark.parametrize(
    ("class_index", "layer", "told"),
    [
        (4, None, "classes 0 to 3"),
        (-1, None, "classes 0 to 3"),
        (torch.tensor([0, 1, 2]), None, "one for each of the 2"),
        (0, "backbone.missing", "no layer 'backbone.missing'"),
        (0, "confide", "do not come through"),
    ],
)
def test_what_cannot_be_explained_is_refused(convolutional, class_index, layer, told):
    with pytest.raises(ModelError, match=told):
        grad_cam(convolutional, draw(2, 3, 64, 64), class_index, layer)


def test_upsampling_is_bilinear_between_the_centres_of_pixels():
    found = upsample_maps(torch.tensor([[[0.0, 4.0]]]), (1, 4))
    assert found.tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    torch.testing.assert_close(upsample_maps(torch.full((1, 2, 2), 0.3), (5, 7)), torch.full((1, 5, 7), 0.3))


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()).eval())
    inside = []

    def fail():
        with evaluating(model):
            inside.extend(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(inside)
    assert [module.training for module in model.modules()] == [True, True, False, False]
