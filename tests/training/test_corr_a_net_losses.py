"""The losses of Corr-A-Net against scikit-image, numpy and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as skimage_ssim
from torch.nn import functional as F

from corr_a_net_published import CorrANetPublished, PublishedOutput, published_loss
from napari_her2.errors import JobFailed
from napari_her2.models.corr_a_net import CorrANet, CorrANetOutput, Representations, Views
from napari_her2_training.corr_a_net.losses import (
    LossOptions,
    corr_a_net_loss,
    correlation,
    reconstruction_loss,
    structural_similarity,
)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def flat(value, channels=3, size=16):
    return torch.full((1, channels, size, size), float(value))


def output_of(targets, own, cross, joint, hidden):
    empty = Representations(hidden.he, hidden.ihc, hidden.he)
    return CorrANetOutput(
        targets=targets,
        hidden=hidden,
        representations=empty,
        self_reconstruction=own,
        cross_reconstruction=cross,
        joint_reconstruction=joint,
    )


def skimage_mean(one, other):
    """Of each channel of each image by itself, at the positions where the window lies inside."""
    values = [
        skimage_ssim(
            a, b, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )[1][5:-5, 5:-5].mean()
        for image, target in zip(one.numpy(), other.numpy(), strict=True)
        for a, b in zip(image, target, strict=True)
    ]
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(2, 3, 32, 40), (1, 1, 11, 11), (1, 2, 64, 13), (1, 1, 20, 140)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
def test_structural_similarity_is_that_of_scikit_image(shape, dtype, tolerance):
    one = noise(*shape)
    other = (0.6 * one + 0.5 * noise(*shape, seed=1)).clamp(0, 1)
    found = structural_similarity(one.to(dtype), other.to(dtype)).item()
    assert found == pytest.approx(skimage_mean(one, other), abs=tolerance)


def test_structural_similarity_of_flat_images_by_hand():
    # No variance: (2 * 0.2 * 0.6 + 0.0001) / (0.04 + 0.36 + 0.0001)
    assert structural_similarity(flat(0.2), flat(0.6)).item() == pytest.approx(0.2401 / 0.4001, abs=1e-4)


def test_reconstruction_loss_by_hand():
    # 0.84 (1 - 0.2401 / 0.4001) + 0.16 * 0.4
    expected = 0.84 * (0.16 / 0.4001) + 0.064
    assert reconstruction_loss(flat(0.2), flat(0.6)).item() == pytest.approx(expected, abs=1e-4)
    assert reconstruction_loss(flat(0.2), flat(0.6), beta=0).item() == pytest.approx(0.4, abs=1e-6)
    assert reconstruction_loss(flat(0.2), flat(0.6), beta=1).item() == pytest.approx(0.16 / 0.4001, abs=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.84, 1.0])
def test_what_is_rebuilt_exactly_costs_nothing(beta):
    image = noise(2, 3, 24, 24)
    assert reconstruction_loss(image, image, beta=beta).item() == pytest.approx(0, abs=1e-12)


def test_similarity_refuses_what_is_smaller_than_its_window():
    with pytest.raises(JobFailed, match="at least 11 px"):
        structural_similarity(noise(1, 3, 10, 32), noise(1, 3, 10, 32))


def test_large_flat_values_stay_finite_in_single_precision():
    image = (1000 + noise(1, 2, 16, 16)).float().requires_grad_()
    structural_similarity(image, flat(0.5, channels=2)).backward()
    assert bool(image.grad.isfinite().all())


def test_correlation_over_pixels_is_numpys_channel_by_channel():
    he, ihc = noise(3, 4, 8, 9), noise(3, 4, 8, 9, seed=1)
    ihc = ihc + torch.tensor([1.0, -1.0, 0.0, 0.3], dtype=torch.float64).view(1, 4, 1, 1) * he
    columns = [[part[:, channel].flatten().numpy() for part in (he, ihc)] for channel in range(4)]
    expected = np.mean([np.corrcoef(*pair)[0, 1] for pair in columns])
    assert correlation(he, ihc).item() == pytest.approx(expected, abs=1e-4)


def test_correlation_over_channels_is_numpys_pixel_by_pixel():
    he, ihc = noise(2, 6, 4, 5), noise(2, 6, 4, 5, seed=1)
    rows = zip(
        he.movedim(1, -1).reshape(-1, 6).numpy(), ihc.movedim(1, -1).reshape(-1, 6).numpy(), strict=True
    )
    expected = np.mean([np.corrcoef(*pair)[0, 1] for pair in rows])
    assert correlation(he, ihc, over="channels").item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("over", ["pixels", "channels"])
def test_correlation_with_itself_is_one_and_with_its_negative_minus_one(over):
    hidden = noise(2, 8, 16, 16, dtype=torch.float32)
    assert correlation(hidden, hidden, over=over).item() == pytest.approx(1, abs=1e-3)
    assert correlation(hidden, -hidden, over=over).item() == pytest.approx(-1, abs=1e-3)
    assert correlation(hidden, 3 * hidden + 2, over=over).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("over", ["pixels", "channels"])
def test_a_constant_layer_correlates_with_nothing_and_keeps_gradients_finite(over):
    constant = torch.full((2, 4, 8, 8), 0.7, requires_grad=True)
    other = noise(2, 4, 8, 8, seed=1, dtype=torch.float32).requires_grad_()
    found = correlation(constant, other, over=over)
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-5)
    assert bool(constant.grad.isfinite().all())
    assert bool(other.grad.isfinite().all())


def test_the_loss_is_its_parts_by_hand():
    """Flat images, so that each part is a number: errors 0.1 and 0.2, 0.3 and 0.4, 0.5 and 0.6."""
    hidden = noise(1, 4, 16, 16, dtype=torch.float32)
    output = output_of(
        targets=Views(flat(0.0), flat(0.0)),
        own=Views(flat(0.1), flat(0.2)),
        cross=Views(flat(0.3), flat(0.4)),
        joint=Views(flat(0.5), flat(0.6)),
        hidden=Views(hidden, hidden),
    )
    terms = corr_a_net_loss(output, LossOptions(beta=0))
    assert terms.self_reconstruction.item() == pytest.approx(0.3, abs=1e-6)
    assert terms.cross_reconstruction.item() == pytest.approx(0.7, abs=1e-6)
    assert terms.joint_reconstruction.item() == pytest.approx(1.1, abs=1e-6)
    assert terms.correlation.item() == pytest.approx(1, abs=1e-3)
    assert terms.total.item() == pytest.approx(0.3 + 0.7 + 1.1 - 1.5, abs=2e-3)
    weighed = LossOptions(
        beta=0,
        self_reconstruction=2,
        cross_reconstruction=3,
        joint_reconstruction=0,
        correlation=0,
    )
    assert corr_a_net_loss(output, weighed).total.item() == pytest.approx(0.6 + 2.1, abs=1e-6)


def test_the_loss_without_options_is_that_of_the_paper():
    torch.manual_seed(0)
    output = CorrANet(dim=8).eval()(noise(1, 3, 16, 16).float(), noise(1, 3, 16, 16, seed=1).float())
    targets, hidden = output.targets, output.hidden

    def both(rebuilt):
        pairs = ((rebuilt.he, targets.he), (rebuilt.ihc, targets.ihc))
        return sum(
            0.84 * (1 - skimage_mean(a.detach(), b)) + 0.16 * float(np.abs((a - b).detach().numpy()).mean())
            for a, b in pairs
        )

    rebuilt = (output.self_reconstruction, output.cross_reconstruction, output.joint_reconstruction)
    related = correlation(hidden.he, hidden.ihc).item()
    expected = sum(both(view) for view in rebuilt) - 1.5 * related
    assert corr_a_net_loss(output).total.item() == pytest.approx(expected, abs=1e-4)


def test_a_part_without_weight_teaches_nothing_and_is_still_told():
    torch.manual_seed(0)
    model = CorrANet(dim=8).train()
    output = model(noise(1, 3, 16, 16).float(), noise(1, 3, 16, 16, seed=1).float())
    options = LossOptions(joint_reconstruction=0, cross_reconstruction=0, correlation=0)
    terms = corr_a_net_loss(output, options)
    assert not terms.joint_reconstruction.requires_grad
    assert terms.joint_reconstruction.item() > 0
    torch.testing.assert_close(terms.total, terms.self_reconstruction)


def test_a_loss_without_any_weight_is_refused():
    hidden = flat(0.5)
    views = Views(flat(0.0), flat(0.0))
    output = output_of(views, views, views, views, Views(hidden, hidden))
    nothing = LossOptions(
        self_reconstruction=0, cross_reconstruction=0, joint_reconstruction=0, correlation=0
    )
    with pytest.raises(JobFailed, match="No part"):
        corr_a_net_loss(output, nothing)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(JobFailed, match="between 0 and 1"):
        LossOptions(beta=1.2)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("over", ["pixels", "channels"])
def test_constant_images_give_finite_losses_and_gradients(value, over):
    torch.manual_seed(0)
    model = CorrANet(dim=8).train()
    terms = corr_a_net_loss(model(flat(value), flat(value)), LossOptions(correlate_over=over))
    terms.total.backward()
    assert bool(terms.total.isfinite())
    assert all(
        bool(weights.grad.isfinite().all()) for weights in model.parameters() if weights.grad is not None
    )


def tissue():
    """A smooth pair: the IHC is brown where the H&E is dark."""
    he = F.interpolate(noise(1, 3, 4, 4).float(), size=24, mode="bicubic").clamp(0, 1)
    return he, torch.cat([he[:, :1], 0.8 * he[:, :1], 0.5 * he[:, :1]], dim=1)


def test_one_pair_is_learnt():
    """In twenty steps the reconstructions cost less than two thirds, and the hidden layers correlate."""
    torch.manual_seed(0)
    model = CorrANet(dim=16).train()
    he, ihc = tissue()
    model.stem.fit_ceiling([he, ihc])
    optimiser = torch.optim.Adam((w for w in model.parameters() if w.requires_grad), lr=1e-2)
    history = []
    for _ in range(21):
        terms = corr_a_net_loss(model(he, ihc))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        parts = (terms.self_reconstruction, terms.cross_reconstruction, terms.joint_reconstruction)
        history.append((sum(part.item() for part in parts), terms.correlation.item()))
    assert history[-1][0] < history[0][0] * 2 / 3
    assert abs(history[0][1]) < 0.5
    assert history[-1][1] > 0.9


def test_published_loss_by_hand():
    """H&E 0.2, IHC 0.6 and 0.4 for both: errors 0.2 and 0.2; 0.2 and 0.4; 0.4 and 0.2."""
    hidden = noise(1, 8, 16, 16, dtype=torch.float32)
    output = PublishedOutput(
        targets=Views(flat(0.2), flat(0.6)),
        hidden=Views(hidden, -hidden),
        fused=hidden,
        reconstruction=flat(0.4, channels=6),
    )
    terms = published_loss(output)
    assert terms.both.item() == pytest.approx(0.2, abs=1e-6)
    assert terms.he_alone.item() == pytest.approx(0.3, abs=1e-6)
    assert terms.ihc_alone.item() == pytest.approx(0.3, abs=1e-6)
    assert terms.correlation.item() == pytest.approx(-1, abs=1e-3)
    assert terms.total.item() == pytest.approx(0.8 + 1, abs=1e-3)


@pytest.mark.parametrize(("he", "ihc", "best"), [(0.2, 0.6, 0.2), (0.7, 0.3, 0.3), (0.5, 0.0, 0.0)])
def test_the_best_answer_to_the_published_loss_is_the_darker_image(he, ihc, best):
    """Which is why it is no reference: with the IHC blackened the best answer is black."""
    grid = torch.linspace(0, 1, 11)
    hidden = torch.zeros(1, 8, 16, 16)
    costs = [
        published_loss(
            PublishedOutput(
                Views(flat(he), flat(ihc)), Views(hidden, hidden), hidden, flat(level, channels=6)
            )
        ).total.item()
        for level in grid
    ]
    assert grid[int(np.argmin(costs))].item() == pytest.approx(best, abs=1e-6)


def test_published_network_learns_from_its_loss_in_every_layer_it_uses():
    torch.manual_seed(0)
    model = CorrANetPublished(dim=16).train()
    published_loss(model(noise(2, 3, 16, 16).float(), noise(2, 3, 16, 16, seed=1).float())).total.backward()
    silent = {name.split(".")[0] for name, weights in model.named_parameters() if weights.grad is None}
    assert silent == {"decode_unused"}
