"""The correlated representation of a slide: seamless, in its place, honest about damage, the same colours."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.explain.correlated import CorrelatedPyramid
from napari_her2.explain.correlated_colours import as_channel, as_mean, as_pca
from napari_her2.explain.field_store import FieldKey
from napari_her2.models.corr_a_net import CorrANet
from napari_her2.slide.area import read_area
from napari_her2.slide.macenko import IDENTITY, StainTransform
from small_files import write_flat_slide

WARM = StainTransform(
    np.array([[0.9, 0.1, 0.0], [0.0, 1.1, 0.0], [0.1, 0.0, 0.8]]), np.array([0.1, -0.2, 0.5])
)
WHOLE = FieldKey(0, 0, 0)
CPU = torch.device("cpu")


@cache
def make_network(*, attention=True, **variant):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = CorrANet(dim=8, attention=attention, **variant)
        colours = torch.tensor([0.8, 0.6, 0.75]).view(1, 3, 1, 1) + 0.15 * torch.randn(2, 3, 20, 20)
        with torch.no_grad():
            for _ in range(8):  # or batch normalisation would leave next to nothing of the values
                network.train().represent(colours.clamp(0, 1))
            network.fuse[0].weight.mul_(10)
            if attention:  # a gate that differs between fields
                network.weigh_he.squeeze.weight.abs_()
                network.weigh_he.excite.weight.mul_(4)
    return network.eval()


def make_pyramid(slide, network, *, field_px=64, transform=WARM, mpp=0.5, **options):
    return CorrelatedPyramid(
        slide,
        network,
        transform=transform,
        tile_px=4 * field_px,
        mpp=mpp,
        field_px=field_px,
        device=CPU,
        **options,
    )


def run(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def prepared_whole(slide, transform):
    """The slide normalised and averaged 4 x 4 in NumPy, as (1, 3, h, w) float32."""
    rgb = slide.read(0, 0, 0, *slide.shape).astype(np.float64)
    light = np.exp(np.log1p(rgb) @ transform.matrix.T + transform.offset).clip(1, 256) - 1
    height, width = slide.shape[0] // 4, slide.shape[1] // 4
    small = light.reshape(height, 4, width, 4, 3).mean(axis=(1, 3)) / 255
    return torch.from_numpy(small).float().permute(2, 0, 1)[None]


@pytest.fixture
def slide(he_slide):
    with open_slide(he_slide) as opened:
        yield opened


@pytest.mark.parametrize("dilation", [1, 3])
def test_fields_join_to_what_the_network_makes_of_the_whole_slide(slide, dilation):
    network = make_network(attention=False, dilation=dilation)
    pyramid = make_pyramid(slide, network)
    with torch.inference_mode():
        whole = network.represent(prepared_whole(slide, WARM))[0].numpy()
    assert pyramid.level_shapes == ((384, 384), (192, 192), (96, 96), (48, 48))
    for row, col in product((1, 2), (2, 3)):
        field = pyramid.field(FieldKey(0, row, col))
        expected = whole[:, row * 64 : row * 64 + 64, col * 64 : col * 64 + 64]
        assert not field.damaged
        assert expected.std() > 0.2
        # What float16 can hold, and pixels that TilePreparation computes with powers of two.
        np.testing.assert_allclose(field.values.astype(np.float32), expected, rtol=2e-3, atol=4e-3)


def test_one_gate_for_the_slide_leaves_no_seams(slide):
    network = deepcopy(make_network())
    small, large = make_pyramid(slide, network), make_pyramid(slide, network, field_px=128)
    keys = [FieldKey(0, 2, 0), FieldKey(0, 2, 1)]
    with torch.inference_mode():  # a gate that is open or shut by little
        means = torch.stack([small._hidden(key)[0].mean(dim=(1, 2)) for key in keys]).mean(dim=0)
        gate = network.weigh_he
        gate.excite.weight.mul_(300)
        gate.excite.bias.copy_(-gate.excite.weight @ torch.relu(gate.squeeze(means)))
    by_itself = [small.field(key).values.astype(np.float32) for key in keys]
    run(small.fit(4))
    large._gate = small._gate
    assert small.gate_spread > 0
    joined = [small.field(key).values.astype(np.float32) for key in keys]
    wide = large.field(FieldKey(0, 1, 0)).values[:, :64].astype(np.float32)
    np.testing.assert_allclose(np.concatenate(joined, axis=2), wide, rtol=2e-3, atol=1e-3)
    # Each weighed by itself they are off by far more.
    assert np.abs(np.concatenate(by_itself, axis=2) - wide).max() > 0.02


def test_glass_can_be_left_clear_and_tissue_stays_as_it_is(slide):
    network = make_network(attention=False)
    plain, clear = make_pyramid(slide, network), make_pyramid(slide, network, clear_glass=True)
    tissue = slide.tissue()
    rows, columns = plain.level_shapes[0]
    found = 0
    for key in (FieldKey(0, row, col) for row in range(rows // 64) for col in range(columns // 64)):
        shown, every = clear.field(key).values, plain.field(key).values
        there = np.isfinite(shown).all(axis=0)
        np.testing.assert_array_equal(shown[:, there], every[:, there])
        # A pixel of level 0 is 2 µm wide: where its centre lies on the mask.
        y, x = np.argwhere(np.isfinite(every).all(axis=0)).T
        at = (((key.row * 64 + y + 0.5) * 2 / 0.5 / tissue.downsample[0]).astype(int),
              ((key.col * 64 + x + 0.5) * 2 / 0.5 / tissue.downsample[1]).astype(int))  # fmt: skip
        at = at[0].clip(max=tissue.mask.shape[0] - 1), at[1].clip(max=tissue.mask.shape[1] - 1)
        np.testing.assert_array_equal(there[y, x], tissue.mask[at])
        found += int((~there[y, x]).sum())
    assert found > 0


def test_the_gate_is_that_of_the_mean_over_the_sampled_fields(slide):
    network = make_network()
    pyramid = make_pyramid(slide, network)
    keys = pyramid.sample_keys(4)
    assert len(set(keys)) == 4
    run(pyramid.fit(4))
    means = torch.stack([pyramid._hidden(key)[0].mean(dim=(1, 2)) for key in keys]).mean(dim=0)
    gate = network.weigh_he
    with torch.inference_mode():
        expected = torch.sigmoid(gate.excite(torch.relu(gate.squeeze(means))))
    assert torch.allclose(pyramid._gate, expected, atol=1e-6)


def test_nothing_is_said_of_places_beside_the_slide(tmp_path):
    path = write_flat_slide(tmp_path / "flat.svs", colour=(200, 120, 180), shape=(600, 500))
    with open_slide(path) as slide:
        pyramid = make_pyramid(slide, make_network(attention=False), transform=IDENTITY)
        assert pyramid.level_shapes == ((152, 128), (76, 64), (38, 32))
        known = np.isfinite(pyramid.field(FieldKey(0, 2, 1)).values).all(axis=0)
        # 600 x 500 px are 150 x 125 pixels of the representation.
        expected = np.zeros((64, 64), bool)
        expected[:22, :61] = True
        np.testing.assert_array_equal(known, expected)
        assert pyramid.offset_um == (0.75, 0.75)


def test_damage_takes_out_its_place_and_no_more(damaged_slide, he_slide):
    network = make_network(attention=False)
    with open_slide(damaged_slide) as slide, open_slide(he_slide) as whole:
        broken, sound = (make_pyramid(each, network, field_px=384).field(WHOLE) for each in (slide, whole))
    assert broken.damaged
    assert not sound.damaged
    lost = np.isnan(broken.values).all(axis=0)
    rows, cols = np.nonzero(lost)
    assert lost[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].all()
    # The tile of the file; around it 8 pixels of the network's and 8 of the search for damage.
    for side in (np.ptp(rows) + 1, np.ptp(cols) + 1):
        assert 64 + 2 * 8 <= side <= 64 + 2 * 8 + 2 * 8
    np.testing.assert_array_equal(broken.values[:, ~lost], sound.values[:, ~lost])


def test_a_pixel_is_lost_from_the_least_share_of_damage_on(slide, monkeypatch):
    """A pixel of the representation is the mean of 4 x 4 of the slide: one of these is enough."""

    def one_pixel_lost(*arguments, **options):
        area = read_area(*arguments, **options)
        lost = np.zeros(area.rgb.shape[:2], np.bool_)
        lost[lost.shape[0] // 2, lost.shape[1] // 2] = True
        return replace(area, damaged=lost)

    monkeypatch.setattr("napari_her2.explain.correlated.read_area", one_pixel_lost)
    field = make_pyramid(slide, make_network(attention=False)).field(FieldKey(0, 1, 1))
    assert field.damaged
    assert np.isnan(field.values[:, 32, 32]).all()


def test_a_slide_without_scale_is_refused(tmp_path):
    with (
        open_slide(write_flat_slide(tmp_path / "flat.svs", mpp=None)) as slide,
        pytest.raises(SlideError, match="no µm/px"),
    ):
        make_pyramid(slide, make_network())


@pytest.mark.parametrize("mpp", [0.5, 1.0, 1.5, 16.0])
def test_areas_are_means_over_the_pixels_they_cover(slide, mpp):
    factor = int(mpp / 0.5)
    size = 36
    area = read_area(slide, origin_um=(24.0, 48.0), size_px=size, mpp=mpp)
    assert area.damaged is None
    if mpp == 16.0:  # beyond the slide on two sides
        size = 20
    pixels = slide.read(0, 48, 96, size * factor, size * factor).astype(np.float64)
    expected = pixels.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
    found = area.rgb[:size, :size].astype(np.float64)
    # Coarser levels of the file are JPEG of their own.
    assert np.abs(found - expected).mean() < (1.0 if factor < 4 else 4.0)


def test_principal_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(3)
    sample = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 4).astype(np.float32)
    colours = as_pca(sample)
    _, singular, axes = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs((colours.weights * axes[:3]).sum(axis=1)), 1, atol=1e-4)
    assert colours.explained == pytest.approx((singular[:3] ** 2).sum() / (singular**2).sum(), rel=1e-4)
    assert (np.take_along_axis(colours.weights, np.abs(colours.weights).argmax(1)[:, None], 1) > 0).all()
    shuffled = as_pca(rng.permutation(sample))
    np.testing.assert_allclose(shuffled.weights, colours.weights, atol=1e-4)


def test_colours_span_the_sample_and_are_clear_where_nothing_is():
    sample = np.linspace(0, 1, 101, dtype=np.float32)[:, None] * np.array([1, 2, 0, 0], np.float32)
    values = np.zeros((4, 1, 4), np.float16)
    values[1, 0] = [0.0, 1.0, 5.0, np.nan]
    picture = as_channel(sample, 1).rgba(values)
    assert picture[0, :, 3].tolist() == [255, 255, 255, 0]
    assert picture[0, 0, :3].tolist() == [68, 1, 84]  # viridis begins in violet and ends in yellow
    assert picture[0, 2, :3].tolist() == [253, 231, 37]
    assert (picture[0, 3] == 0).all()
    mean = as_mean(sample)
    assert mean.low[0] == pytest.approx(0.75 * 0.01)
    assert mean.high[0] == pytest.approx(0.75 * 0.99)
    # A dead channel has no contrast, and no division by zero.
    assert (as_channel(sample, 3).rgba(values)[0, :3, 3] == 255).all()
