"""The stem of Corr-A-Net: kernels and ceiling, against torchvision's layers, quantiles and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional as F

from corr_a_nets import images
from napari_her2.errors import ModelError
from napari_her2.models.resnet_stem import ResNetStem
from napari_her2.models.weights_file import write_weights


def test_the_stem_is_the_first_block_of_resnet_at_every_pixel(tmp_path):
    # Imported from torchvision it would be the same two layers, and take seconds.
    torch.manual_seed(1)
    conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    bn1 = nn.BatchNorm2d(64).eval()
    bn1.running_mean.uniform_(-1, 1)
    bn1.running_var.uniform_(0.5, 2)
    nn.init.uniform_(bn1.weight, 0.5, 2)
    nn.init.uniform_(bn1.bias, -1, 1)
    first = {f"module.conv1.{name}": tensor for name, tensor in conv1.state_dict().items()}
    first |= {f"module.bn1.{name}": tensor for name, tensor in bn1.state_dict().items()}
    first["module.layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    write_weights(tmp_path / "resnet50.safetensors", first, {})
    stem = ResNetStem()
    stem.ceiling.fill_(9)
    stem.load(tmp_path / "resnet50.safetensors")
    stem.train()  # training mode changes nothing: the stem is fixed
    pixels = images()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        colours = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        quarter = F.relu(bn1(conv1(colours)))
        dense = stem(pixels)
    assert dense.shape == (2, 64, 32, 40)
    # The published stride of 2 is every other pixel; a ceiling of 1 cuts what lies above. Beyond the edge
    # zeros were seen there, which reach 3 px into the image.
    inside = dense[:, :, ::2, ::2][:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inside, quarter.clamp(max=1)[:, :, 2:-2, 2:-2], atol=1e-5, rtol=1e-5)


def test_the_stem_refuses_other_weights(tmp_path):
    write_weights(tmp_path / "other.safetensors", {"conv1.weight": torch.zeros(32, 3, 3, 3)}, {})
    with pytest.raises(ModelError, match=r"other\.safetensors do not fit"):
        ResNetStem().load(tmp_path / "other.safetensors")


def test_the_ceiling_is_the_percentile_of_each_channel():
    torch.manual_seed(2)
    stem = ResNetStem()
    batches = [images(3, 24, 32, seed=4), images(2, 40, 16, seed=5) * 0.5]
    with torch.inference_mode():
        stem.ceiling.fill_(1e6)
        answers = [(stem(batch) * 1e6).permute(1, 0, 2, 3).flatten(1).numpy() for batch in batches]
    expected = np.quantile(np.concatenate(answers, axis=1), 0.999, axis=1, method="inverted_cdf")
    stem.fit_ceiling(iter(batches))
    np.testing.assert_allclose(stem.ceiling.numpy(), expected, rtol=5e-3, atol=1e-3 * expected.max())
    with torch.inference_mode():
        scaled = stem(batches[0])
    assert 0 <= float(scaled.min()) <= float(scaled.max()) == 1


def test_the_ceiling_wants_an_image():
    with pytest.raises(ModelError, match="no image"):
        ResNetStem().fit_ceiling([])


def test_the_ceiling_stays_finite_on_black_images():
    stem = ResNetStem()
    stem.fit_ceiling([torch.zeros(1, 3, 16, 16)])
    assert bool((stem.ceiling > 0).all())
    assert bool(stem(torch.zeros(1, 3, 16, 16)).isfinite().all())


def test_kernels_learnt_from_patches_are_their_principal_components():
    """Of images as large as a kernel there is one patch each, so that scikit-learn sees the same ones."""
    mixing = torch.randn(147, 147, generator=torch.Generator().manual_seed(1)) * 0.02
    small = 0.5 + torch.randn(400, 147, generator=torch.Generator().manual_seed(2)) @ mixing
    pixels = small.view(400, 3, 7, 7).clamp(0, 1)
    stem = ResNetStem()
    stem.fit_kernels([pixels], seed=0)
    patches = ((pixels - stem.shift) / stem.spread).flatten(1).double().numpy()
    found = PCA(32, svd_solver="full").fit(patches)
    kernels = stem.conv1.weight.flatten(1).double().numpy()
    np.testing.assert_array_equal(kernels[:32], -kernels[32:])
    agree = np.abs((kernels[:32] * found.components_).sum(axis=1))
    np.testing.assert_allclose(agree, 1, atol=1e-3)
    with torch.inference_mode():
        weights, bias = stem._folded()
        answers = torch.from_numpy(patches).float() @ weights.flatten(1).T + bias
    np.testing.assert_allclose(answers.mean(dim=0), 0, atol=1e-3)
    np.testing.assert_allclose(answers.std(dim=0, correction=0), 1, atol=5e-3)


def test_kernels_learnt_from_patches_follow_from_the_seed():
    first, again, other = ResNetStem(), ResNetStem(), ResNetStem()
    for stem, seed in ((first, 3), (again, 3), (other, 4)):
        stem.fit_kernels(iter([images(1, 40, 30), images(1, 20, 24, seed=1)]), seed=seed)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    with torch.inference_mode():
        assert first(images()).shape == (2, 64, 32, 40)
    with pytest.raises(ModelError, match="no image"):
        ResNetStem().fit_kernels([], seed=0)


def test_patches_of_one_colour_give_finite_answers():
    stem = ResNetStem()
    stem.fit_kernels([torch.full((1, 3, 16, 16), 0.7)], seed=0)
    assert bool(stem(images()).isfinite().all())
