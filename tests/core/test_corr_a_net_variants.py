"""Variants of Corr-A-Net: dilated kernels, the range of the training, and the plain one as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corr_a_nets import built, by_hand, images, learnt
from napari_her2.errors import ModelError
from napari_her2.models.corr_a_net import CorrANet, to_unit_range


@pytest.mark.parametrize(("dilation", "around"), [(1, 7), (2, 11), (3, 17), (5, 35)])
def test_a_dilated_network_sees_so_far_and_no_farther(dilation, around):
    model = built(attention=False, dilation=dilation)
    assert model.sees_px == around
    assert learnt(model) == by_hand(8)
    he = images(1, 2 * around + 5, 2 * around + 5).requires_grad_(True)
    middle = around + 2
    # Batch normalisation of random weights closes many a ReLU: sum over all channels, of several draws.
    seen = torch.zeros(he.shape[2:])
    for seed in range(4):
        torch.manual_seed(seed)
        model = CorrANet(dim=16, attention=False, dilation=dilation).eval()
        (slope,) = torch.autograd.grad(model.represent(he)[..., middle, middle].sum(), he)
        seen += slope[0].abs().sum(dim=0)
    reach = (seen > 0).nonzero() - middle
    assert int(reach.abs().max()) == around


def test_the_network_of_the_paper_is_what_it_was():
    """Weights from before there were variants fit by name, and nothing is added to them."""
    torch.manual_seed(5)
    plain = CorrANet(dim=8).eval()
    named = CorrANet(dim=8, dilation=1, scaling="field").eval()
    assert plain.state_dict().keys() == named.state_dict().keys()
    assert not any("ceiling" in key for key in plain.state_dict() if not key.startswith("stem."))
    named.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        made = plain.represent(images())
        assert torch.equal(named.represent(images()), made)
        assert torch.equal(plain.to_predictor(made), to_unit_range(made))


def test_the_range_of_the_training_is_the_percentile_of_each_channel():
    model = built(scaling="training")
    batches = [images(2, 40, 48), images(1, 64, 32, seed=1)]
    model.train().fit_range(batches)
    assert model.training
    model.eval()
    with torch.inference_mode():
        sampled = [model.represent(batch)[:, :, ::4, ::4].transpose(0, 1).flatten(1) for batch in batches]
    values = np.concatenate([part.numpy() for part in sampled], axis=1)
    expected = np.quantile(values, 0.999, axis=1, method="higher")
    np.testing.assert_allclose(model.ceiling.numpy(), np.where(expected > 0, expected, 1), rtol=1e-6)


def test_a_range_of_the_training_keeps_how_strong_a_field_is():
    strong = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    both = torch.cat([strong, strong / 2])
    by_field, by_training = built(), built(scaling="training")
    by_training.ceiling.fill_(2)
    torch.testing.assert_close(*by_field.to_predictor(both).chunk(2), atol=0.01, rtol=0.01)
    scaled = by_training.to_predictor(both)
    torch.testing.assert_close(scaled[1], scaled[0] / 2)
    assert float(by_training.to_predictor(both * 10).max()) == 1


def test_a_range_is_refused_where_there_is_none():
    with pytest.raises(ModelError, match="scales each field by itself"):
        built().fit_range([images()])
    with pytest.raises(ModelError, match="no image"):
        built(scaling="training").fit_range([])


def test_a_channel_that_never_answers_stays_at_zero():
    model = built(scaling="training")
    with torch.no_grad():
        model.fuse[0].weight.zero_()
        model.fuse[0].bias.fill_(-1)
    model.fit_range([images()])
    with torch.inference_mode():
        made = model.to_predictor(model.represent(images()))
    assert bool((made == 0).all())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dilation": 0}, "dilation from 1 to 5, not 0"),
        ({"dilation": 6}, "dilation from 1 to 5, not 6"),
        ({"scaling": "slide"}, "scales by field or training, not by 'slide'"),
    ],
)
def test_variants_that_do_not_exist_are_refused(arguments, words):
    with pytest.raises(ModelError, match=words):
        built(**arguments)


def test_a_dilated_network_refuses_what_is_smaller_than_its_kernels():
    model = built(dilation=3)
    with torch.inference_mode():
        assert model.represent(images(1, 10, 12)).shape == (1, 8, 10, 12)
        with pytest.raises(ModelError, match="at least 10 x 10 pixels"):
            model.represent(images(1, 9, 12))
