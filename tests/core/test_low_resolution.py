"""The low-resolution model: its Grad-CAM against autograd and captum, its views, its bundle."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from low_resolution_bundles import ARGUMENTS, make_low_resolution_bundle
from napari_her2.errors import ModelError
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.bundle import load_bundle
from napari_her2.models.convnext import VARIANTS, Normalise, build_convnext
from napari_her2.models.low_resolution import VIEWS, LowResolution, dihedral, unview, view


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    """Random weights; those of the head and its LayerNorm large and uneven, as training leaves them."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = LowResolution(variant="atto", classes=3, size_px=64).eval()
        with torch.no_grad():
            made.network.head.fc.weight.mul_(50)
            made.network.head.norm.weight.copy_(1 + torch.rand(320))
            made.network.head.norm.bias.copy_(torch.randn(320))
    return made


def assert_same(found, expected):
    """Equal within 1e-5 of the largest value."""
    largest = expected.abs().max()
    assert largest > 0
    torch.testing.assert_close(found / largest, expected / largest, atol=1e-5, rtol=0)


@pytest.mark.parametrize("class_index", [0, 1, 2])
def test_cam_is_that_of_autograd(model, class_index):
    images = draw(3, 3, 64, 96)
    maps = model.features(images).detach().requires_grad_()
    logit = model.network.forward_head(maps)[:, class_index].sum()
    (slopes,) = torch.autograd.grad(logit, maps)
    expected = torch.einsum("bd,bdhw->bhw", slopes.mean(dim=(2, 3)), maps.detach())
    with torch.inference_mode():
        found = model.cam(images, class_index)
    assert found.signed.shape == (3, 2, 3)
    assert_same(found.signed, expected)
    assert torch.equal(found.positive, found.signed.clamp_min(0))


def test_cam_is_that_of_captum(model):
    images = draw(2, 3, 64, 64, seed=5)
    gradcam = LayerGradCam(model, model.network.stages)
    for class_index in range(3):
        expected = gradcam.attribute(images, target=class_index, relu_attributions=True)[:, 0]
        assert_same(model.cam(images, class_index).positive.detach(), expected.detach())


def test_signed_maps_sum_to_nothing(model):
    """The head does not care how large the mean of its map is: Euler's theorem for degree zero."""
    _, signed, _ = model.explained(draw(2, 3, 96, 96, seed=7))
    assert (signed.sum(dim=(2, 3)).abs() < 1e-3 * signed.abs().sum(dim=(2, 3))).all()


def test_scores_of_explaining_are_those_of_scoring(model):
    images = draw(2, 3, 64, 64)
    torch.testing.assert_close(model.explained(images)[0], model(images))


def test_pixels_are_normalised_as_imagenet(model):
    image = draw(1, 3, 64, 64)
    by_hand = image.clone()
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        by_hand[:, channel] = (image[:, channel] - mean) / std
    torch.testing.assert_close(model(image), model.network(by_hand))
    assert not Normalise().state_dict(), "constants are no weights"


def test_the_eight_views_are_all_there_are():
    image = torch.arange(16.0).reshape(1, 4, 4)
    seen = {tuple(one.flatten().tolist()) for one in dihedral(image)}
    by_hand = set()
    for mirrored in (image, image.flip(1), image.flip(2), image.flip(1, 2)):
        by_hand |= {tuple(mirrored.flatten().tolist()), tuple(mirrored.transpose(1, 2).flatten().tolist())}
    assert seen == by_hand
    assert len(seen) == VIEWS


@pytest.mark.parametrize("number", range(VIEWS))
def test_views_are_undone(number):
    image = draw(2, 3, 8, 8)
    assert torch.equal(unview(view(image, number), number), image)


def test_views_of_maps_follow_those_of_images():
    """Each corner of the image is bright in turn: its map, undone, is bright in the same corner."""
    for row, column in ((0, 0), (0, 7), (7, 0), (7, 7)):
        image = torch.zeros(8, 8)
        image[row, column] = 1
        for number in range(VIEWS):
            small = nn.functional.avg_pool2d(view(image, number)[None], 4)[0]
            assert unview(small, number)[row // 4, column // 4] > 0


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("tiny", 27_822_435), ("small", 49_456_995), ("base", 87_569_539), ("atto", 3_375_483)],
)
def test_sizes(variant, parameters):
    """With three classes; the first three as counted for the torchvision networks of the paper."""
    with torch.device("meta"):
        network = build_convnext(variant, 3)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("classes", [3, 4])
def test_classes(classes):
    with torch.device("meta"):
        model = LowResolution(variant="atto", classes=classes, size_px=32)
        assert model(torch.empty(1, 3, 32, 32)).shape == (1, classes)


@pytest.mark.parametrize(
    ("nonsense", "words"),
    [
        ({"size_px": 100}, "multiple of 32"),
        ({"size_px": 0}, "multiple of 32"),
        ({"size_px": 8192}, "4096"),
        ({"mode": "stretch"}, "fit or fixed"),
        ({"variant": "huge"}, "tiny, small, base, atto"),
        ({"classes": 1}, "two classes"),
        ({"drop_path": 1.0}, "drops"),
    ],
)
def test_arguments_that_make_no_sense(nonsense, words):
    with torch.device("meta"), pytest.raises(ModelError, match=words):
        LowResolution(**({"variant": "atto", "classes": 3, "size_px": 64} | nonsense))


def test_no_such_class_to_explain(model):
    with pytest.raises(ModelError, match="0 to 2"):
        model.cam(draw(1, 3, 64, 64), 3)


def test_bundle_round_trip_in_half_precision(tmp_path):
    path = make_low_resolution_bundle(tmp_path / "low.safetensors")
    bundle = load_bundle(path)
    assert isinstance(bundle.head, LowResolution)
    assert bundle.encoder is None
    assert bundle.card.arguments == ARGUMENTS
    assert path.stat().st_size < 3_375_483 * 2 + 60_000
    assert next(bundle.head.parameters()).dtype == torch.float32
    assert (bundle.head.size_px, bundle.head.mode, bundle.head.whiten) == (64, "fit", False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tile_px": 96}, "64 px, its card says 96 px"),
        ({"classes": ("0", "1+", "2+", "3+")}, "3 classes"),
        ({"stain": "H&E+IHC"}, "takes H&E or IHC"),
        ({"arguments": {"drop_path": 0.1}}, "the card gives"),
        ({"method": "wsmcl"}, "low-resolution"),
    ],
)
def test_cards_that_contradict_the_model(tmp_path, changes, words):
    with pytest.raises(ModelError, match=words):
        load_bundle(make_low_resolution_bundle(tmp_path / "low.safetensors", **changes))


def test_h_and_e_models_are_allowed(tmp_path):
    assert ARCHITECTURES["LowResolution"].stains == ("H&E", "IHC")
    assert (
        load_bundle(make_low_resolution_bundle(tmp_path / "a.safetensors", stain="H&E")).card.stain == "H&E"
    )


def test_every_variant_has_a_name_in_timm():
    import timm

    assert set(VARIANTS.values()) <= set(timm.list_models("convnext_*"))
