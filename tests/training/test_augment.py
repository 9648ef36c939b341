"""Augmentation: orientation keeps pixels, stains follow Beer and Lambert, white stays white."""

from __future__ import annotations

import torch

from napari_her2_training.encoder.augment import orient, vary_light, vary_sharpness, vary_stain


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_orientation_keeps_every_pixel_and_meets_all_eight() -> None:
    patch = torch.arange(3 * 5 * 5).reshape(1, 3, 5, 5)
    turned = orient(patch.repeat(300, 1, 1, 1), draw())
    assert (turned.flatten(2).sort(-1).values == patch.flatten(2)).all()
    assert len({tuple(image.flatten().tolist()) for image in turned}) == 8


def test_no_variation_changes_nothing() -> None:
    pixels = torch.randint(1, 256, (4, 3, 8, 8), generator=draw()).float()
    assert torch.allclose(vary_stain(pixels, 0.0, draw()), pixels, atol=0.05)
    assert torch.allclose(vary_light(pixels, 0.0, draw()), pixels, atol=0.01)
    assert torch.allclose(vary_sharpness(pixels, 0.0, 0.0, draw()), pixels)


def test_glass_stays_white_and_a_pure_stain_keeps_its_hue() -> None:
    assert torch.allclose(vary_stain(torch.full((6, 3, 4, 4), 255.0), 0.5, draw()), torch.tensor(255.0))
    haematoxylin = torch.tensor([0.650, 0.704, 0.286])
    pixels = (255 * 10 ** (-0.3 * haematoxylin)).view(1, 3, 1, 1).repeat(50, 1, 1, 1)
    density = -torch.log10(vary_stain(pixels, 0.3, draw()) / 255)[:, :, 0, 0]
    amount = density / haematoxylin
    assert torch.allclose(amount, amount[:, :1].expand(-1, 3), atol=1e-4)
    assert 0.2 < (amount[:, 0] / 0.3).log().std() < 0.4


def test_the_same_seed_gives_the_same_augmentation() -> None:
    pixels = torch.rand(5, 3, 8, 8, generator=draw()) * 255
    assert torch.equal(vary_stain(pixels, 0.2, draw(4)), vary_stain(pixels, 0.2, draw(4)))
    assert torch.equal(vary_light(pixels, 0.2, draw(4)), vary_light(pixels, 0.2, draw(4)))
    assert torch.equal(vary_sharpness(pixels, 0.5, 2, draw(4)), vary_sharpness(pixels, 0.5, 2, draw(4)))


def test_sharpness_spreads_an_edge_or_steepens_it_and_keeps_flat_parts() -> None:
    edge = torch.full((200, 3, 8, 8), 100.0)
    edge[..., 4:] = 150.0
    changed = vary_sharpness(edge, 0.8, 0.0, draw())
    assert torch.allclose(changed[..., [0, 1, 6, 7]], edge[..., [0, 1, 6, 7]])
    # Next to the edge a binomial blur takes a quarter of the step.
    share = (changed[:, 0, 4, 3] - 100) / (50 / 4)
    assert -0.8 <= share.min() < -0.5
    assert 0.5 < share.max() <= 0.8


def test_noise_is_at_most_as_strong_as_told() -> None:
    noise = vary_sharpness(torch.full((100, 3, 32, 32), 128.0), 0.0, 4.0, draw()) - 128
    sds = noise.flatten(1).std(dim=1)
    assert sds.max() < 4.3
    assert sds.min() < 0.5
