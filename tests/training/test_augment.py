"""Augmentation: orientation keeps pixels, stains follow Beer and Lambert, white stays white."""

from __future__ import annotations

import torch

from napari_her2_training.augment import orient, vary_light, vary_stain


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
