"""Augmentation of patches, a batch at once: orientation, strength of the stains, light, sharpness, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Optical densities of haematoxylin and eosin (Ruifrok and Johnston, Anal Quant Cytol Histol 2001;23:291-299),
# and what is orthogonal to both; rows of unit length.
_STAINS = torch.tensor([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
_STAINS = _STAINS / _STAINS.norm(dim=1, keepdim=True)
_UNMIX = torch.linalg.inv(_STAINS)


def orient(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each patch by a random multiple of 90 degrees and mirror half of them.

    Parameters
    ----------
    images : (B, C, t, t)
    generator : torch.Generator

    Returns
    -------
    (B, C, t, t)
    """
    choice = torch.randint(0, 8, (len(images),), generator=generator)
    out = torch.empty_like(images)
    for number in range(8):
        index = torch.nonzero(choice == number).flatten()
        if len(index):
            part = torch.rot90(images[index], number % 4, (2, 3))
            out[index] = part.flip(3) if number >= 4 else part
    return out


def vary_stain(pixels: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """Change the strength of each stain of each patch, as Beer and Lambert have it.

    Parameters
    ----------
    pixels : (B, 3, t, t) float
        RGB on [0, 255].
    sd : float
        Standard deviation of the logarithm of the strength.
    generator : torch.Generator

    Returns
    -------
    (B, 3, t, t) float
    """
    strength = torch.exp(sd * torch.randn(len(pixels), 3, generator=generator))
    # Unmix, scale and mix again is one matrix a patch.
    mixing = torch.einsum("ij,bj,jk->bik", _UNMIX, strength, _STAINS)
    density = torch.log(pixels.clamp(min=1.0) / 255)
    changed = torch.einsum("bchw,bck->bkhw", density, mixing)
    return torch.exp(changed).mul_(255).clamp_(0, 255)


def vary_light(pixels: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast of each patch.

    Parameters
    ----------
    pixels : (B, 3, t, t) float
        RGB on [0, 255].
    amount : float
        Largest relative change.
    generator : torch.Generator

    Returns
    -------
    (B, 3, t, t) float
    """
    change = 1 + amount * (2 * torch.rand(2, len(pixels), 1, 1, 1, generator=generator) - 1)
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return ((pixels - mean) * change[0] + mean * change[1]).clamp_(0, 255)


def vary_sharpness(pixels: Tensor, amount: float, noise: float, generator: torch.Generator) -> Tensor:
    """Blur or sharpen each patch a little and add noise, as scanners and resampling differ in both.

    Parameters
    ----------
    pixels : (B, 3, t, t) float
        RGB on [0, 255].
    amount : float
        Largest share of the difference to the blurred patch that is added or taken away.
    noise : float
        Largest standard deviation of the noise, grey levels.
    generator : torch.Generator

    Returns
    -------
    (B, 3, t, t) float
    """
    # Sums of shifted views: several times faster than a convolution with one kernel a channel.
    padded = torch.nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + padded[:, :, 2:] + 2 * padded[:, :, 1:-1]
    blurred = (rows[..., :-2] + rows[..., 2:] + 2 * rows[..., 1:-1]) / 16
    share = amount * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    sd = noise * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    changed = pixels + share * (blurred - pixels)
    if noise:
        changed += sd * torch.randn(pixels.shape, generator=generator)
    return changed.clamp_(0, 255)


def vary_place(pixels: Tensor, degrees: float, scale: float, generator: torch.Generator) -> Tensor:
    """Turn each image by a small angle about its middle and change its size; white comes in at the edges.

    Parameters
    ----------
    pixels : (B, 3, t, t) float
        RGB on [0, 255].
    degrees : float
        Largest turn, to either side.
    scale : float
        Largest relative change of the size.
    generator : torch.Generator

    Returns
    -------
    (B, 3, t, t) float
    """
    angle, change = 2 * torch.rand(2, len(pixels), generator=generator) - 1
    angle, size = angle * torch.pi * degrees / 180, 1 + change * scale
    zero = torch.zeros_like(angle)
    # Where each pixel of the result comes from: a larger image is read in smaller steps.
    rows = [torch.cos(angle) / size, -torch.sin(angle) / size, zero]
    columns = [torch.sin(angle) / size, torch.cos(angle) / size, zero]
    places = torch.stack([torch.stack(rows, dim=1), torch.stack(columns, dim=1)], dim=1)
    grid = torch.nn.functional.affine_grid(places.to(pixels), list(pixels.shape), align_corners=False)
    # Outside an image sampling finds zeros: of the difference to white, that is white.
    moved = torch.nn.functional.grid_sample(255 - pixels, grid, mode="bilinear", align_corners=False)
    return moved.neg_().add_(255)
