"""Embedding: the numbers of the encoder itself, read once, resumable after anything."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import alexnet

from napari_her2 import open_slide, score_slide
from napari_her2.export.tables import write_result
from napari_her2.inference.device import Device, choose_device
from napari_her2.inference.embed import _encoded, default_batch, embed_steps
from napari_her2.inference.prefetch import prefetched

EXACT = Device(torch.device("cpu"), "cpu", "", None)


@pytest.fixture
def device(precision):
    """The CPU in either precision."""
    return choose_device("cpu")


def finish(steps):
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


def plan(slide, bundle):
    grid = slide.tile_grid(bundle.card.tile_px, bundle.card.mpp)
    return grid, slide.tissue("auto").keep(grid)


class CountingSlide:
    """A slide that remembers which tiles were asked for."""

    def __init__(self, slide):
        self.slide = slide
        self.asked = []

    def __getattr__(self, name):
        return getattr(self.slide, name)

    def squares(self, places, **options):
        self.asked.append(len(places))
        return self.slide.squares(places, **options)


def test_features_are_those_of_torchvision_on_the_same_pixels(he_slide, tiny_bundle):
    network = alexnet(weights=None)
    network.features.load_state_dict(
        {
            name.removeprefix("features."): value
            for name, value in tiny_bundle.encoder.backbone.state_dict().items()
        }
    )
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with open_slide(he_slide) as slide:
        grid, keep = plan(slide, tiny_bundle)
        found, _ = finish(embed_steps(slide, tiny_bundle.encoder, grid, keep, EXACT, cache=False))
        picked = np.random.default_rng(0).choice(len(found.index), 12, replace=False)
        for at in picked:
            y, x = (found.index[at] * 96).tolist()  # the slide has the µm/px of the model
            pixels = torch.from_numpy(slide.read(0, y, x, 96, 96).copy()).permute(2, 0, 1) / 255
            with torch.inference_mode():
                expected = network.features(((pixels - mean) / std)[None]).flatten().numpy()
            assert np.allclose(found.features[at], expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert np.array_equal(found.index, np.argwhere(keep))


def test_a_second_run_reads_nothing_and_gives_the_same_bytes(he_slide, tiny_bundle, device):
    with open_slide(he_slide) as slide:
        counting = CountingSlide(slide)
        grid, keep = plan(slide, tiny_bundle)
        first, seen = finish(embed_steps(counting, tiny_bundle.encoder, grid, keep, device, batch_size=64))
        second, again = finish(embed_steps(counting, tiny_bundle.encoder, grid, keep, device))
    assert counting.asked == [keep.sum()]
    assert (first.cached, second.cached) == (0, keep.sum())
    assert second.features.tobytes() == first.features.tobytes()
    assert [step.done for step in seen] == [*range(0, keep.sum(), 64), keep.sum()]
    assert [step.done for step in again] == [keep.sum()]


def test_batches_of_large_tiles_are_small_on_a_cpu():
    pixels = [default_batch(EXACT, tile) * tile**2 for tile in (96, 224, 512)]
    assert max(pixels) <= 256 * 96**2
    assert default_batch(EXACT, 96) == 256
    assert default_batch(EXACT, 4096) >= 1
    assert default_batch(EXACT, 16) == 256


def test_batches_of_large_tiles_are_small_on_a_gpu():
    gpu = replace(EXACT, torch_device=torch.device("cuda:0"))
    pixels = [default_batch(gpu, tile) * tile**2 for tile in (96, 224, 256, 512, 1024)]
    assert max(pixels) <= 256 * 256**2
    assert default_batch(gpu, 224) == 256
    assert default_batch(gpu, 1024) == 16


def test_a_larger_region_embeds_only_what_is_new(he_slide, tiny_bundle, device):
    with open_slide(he_slide) as slide:
        counting = CountingSlide(slide)
        grid, keep = plan(slide, tiny_bundle)
        part = keep.copy()
        part[: grid.shape[0] // 2] = False
        finish(embed_steps(counting, tiny_bundle.encoder, grid, part, device))
        found, _ = finish(embed_steps(counting, tiny_bundle.encoder, grid, keep, device))
        fresh, _ = finish(embed_steps(slide, tiny_bundle.encoder, grid, keep, device, cache=False))
    assert counting.asked == [part.sum(), keep.sum() - part.sum()]
    assert found.cached == part.sum()
    assert np.array_equal(found.index, fresh.index)
    assert np.allclose(found.features.astype(float), fresh.features.astype(float), rtol=2e-3, atol=2e-3)


def test_other_weights_do_not_take_the_features_of_these(he_slide, tiny_bundle):
    with open_slide(he_slide) as slide:
        grid, keep = plan(slide, tiny_bundle)
        finish(embed_steps(slide, tiny_bundle.encoder, grid, keep, EXACT))
        with torch.no_grad():
            next(tiny_bundle.encoder.parameters()).mul_(2)
        found, _ = finish(embed_steps(slide, tiny_bundle.encoder, grid, keep, EXACT))
    assert found.cached == 0


@pytest.mark.parametrize(
    "change", ["nothing", "µm/px of the slide", "µm/px of the tiles", "precision", "version"]
)
def test_features_are_taken_from_the_cache_only_where_they_would_be_the_same(
    change, he_slide, tiny_bundle, monkeypatch
):
    def embed(*, slide_mpp=0.5, mpp=0.5):
        with open_slide(he_slide, mpp=slide_mpp) as slide:
            grid = slide.tile_grid(96, mpp)
            keep = np.zeros(grid.shape, np.bool_)
            keep[3, 3:6] = True
            return finish(embed_steps(slide, tiny_bundle.encoder, grid, keep, choose_device("cpu")))[0]

    monkeypatch.setenv("NAPARI_HER2_PRECISION", "float32")
    assert embed().cached == 0
    if change == "precision":
        monkeypatch.setenv("NAPARI_HER2_PRECISION", "bfloat16")
    if change == "version":
        monkeypatch.setattr("napari_her2.inference.embed.__version__", "9.9")
    scales = {"µm/px of the slide": {"slide_mpp": 0.51}, "µm/px of the tiles": {"mpp": 0.51}}
    assert embed(**scales.get(change, {})).cached == (3 if change == "nothing" else 0)


def test_damaged_tiles_are_left_out_counted_and_tried_again(damaged_slide, he_slide, tiny_bundle):
    with open_slide(damaged_slide) as slide, open_slide(he_slide) as whole:
        grid, keep = plan(whole, tiny_bundle)
        counting = CountingSlide(slide)
        found, _ = finish(embed_steps(counting, tiny_bundle.encoder, grid, keep, EXACT))
        again, _ = finish(embed_steps(counting, tiny_bundle.encoder, grid, keep, EXACT))
        reference, _ = finish(embed_steps(whole, tiny_bundle.encoder, grid, keep, EXACT, cache=False))
    assert len(found.corrupt) > 0
    assert len(found.corrupt) + len(found.index) == keep.sum()
    assert counting.asked == [keep.sum(), len(found.corrupt)]
    assert np.array_equal(np.sort(again.corrupt, 0), np.sort(found.corrupt, 0))
    good = {
        tuple(place): row for place, row in zip(reference.index.tolist(), reference.features, strict=True)
    }
    assert not {tuple(place) for place in found.corrupt.tolist()} & {tuple(p) for p in found.index.tolist()}
    for place, row in zip(found.index.tolist(), found.features, strict=True):
        assert np.allclose(row.astype(float), good[tuple(place)].astype(float), rtol=2e-3, atol=2e-3)


def test_cancelling_stops_within_a_batch_and_the_next_run_goes_on(he_slide, tiny_bundle, device):
    before = set(threading.enumerate())
    with open_slide(he_slide) as slide:
        grid, keep = plan(slide, tiny_bundle)
        steps = embed_steps(slide, tiny_bundle.encoder, grid, keep, device, batch_size=16)
        done = [next(steps).done for _ in range(4)]
        steps.close()
        assert done == [0, 16, 32, 48]
        assert set(threading.enumerate()) <= before
        found, _ = finish(embed_steps(slide, tiny_bundle.encoder, grid, keep, device, batch_size=16))
        fresh, _ = finish(
            embed_steps(slide, tiny_bundle.encoder, grid, keep, device, batch_size=16, cache=False)
        )
    assert found.cached == 48
    assert found.features.tobytes() == fresh.features.tobytes()


CHILD = """
    import sys
    from napari_her2.methods.scoring import score_steps
    for step in score_steps(sys.argv[1], sys.argv[2], device="cpu", batch_size=16):
        print(step.done, flush=True)
        if step.done >= 64:
            sys.stdin.read()  # waits here, in the middle, until it is killed
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_redoes_at_most_one_batch_and_ends_with_the_same_bytes(
    he_slide, tiny_model, tmp_path, monkeypatch
):

    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(he_slide), str(tiny_model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert any(line.strip() == "64" for line in child.stdout)
        child.send_signal(signal.SIGKILL)
    seen = []
    resumed = score_slide(he_slide, tiny_model, device="cpu", progress=seen.append, batch_size=16)
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path / "fresh"))
    fresh = score_slide(he_slide, tiny_model, device="cpu", batch_size=16)
    first = next(step for step in seen if step.stage.startswith("Embedding"))
    assert first.done >= 64 - 16
    folders = [
        write_result(replace(result, seconds={}), tmp_path / name)
        for name, result in (("resumed", resumed), ("fresh", fresh))
    ]
    for name in ("result.json", "tiles.csv", "regions.geojson", "maps.npz"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


class SlowDevice:
    """Stands for a GPU: what was started is finished only when asked for."""

    device = Device(torch.device("cuda"), "cuda:0 (stand-in)", "", None)

    def __init__(self):
        self.waiting = 0
        self.most_waiting = 0

    def submit(self, images):
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)

        def result():
            self.waiting -= 1
            return images.reshape(len(images), -1)[:, :1].astype(np.float16)

        return SimpleNamespace(result=result)


def tile_batches(count, closed):
    try:
        for number in range(count):
            yield SimpleNamespace(images=np.full((2, 4, 4, 3), number, np.uint8))
    finally:
        closed.set()


def test_on_a_gpu_the_next_batch_is_started_before_one_is_waited_for():
    closed, runner = threading.Event(), SlowDevice()
    seen = list(_encoded(tile_batches(5, closed), runner))
    assert [features[0, 0] for _, features in seen] == [0, 1, 2, 3, 4]
    assert all(batch.images[0, 0, 0, 0] == features[0, 0] for batch, features in seen)
    assert (runner.most_waiting, runner.waiting) == (2, 0)
    assert closed.is_set()


def test_on_a_gpu_cancelling_closes_the_stream_of_tiles():
    closed = threading.Event()
    steps = _encoded(tile_batches(10_000, closed), SlowDevice())
    next(steps)
    steps.close()
    assert closed.is_set()


def test_working_ahead_keeps_order_and_passes_errors_on():
    def source():
        yield from range(5)
        raise ValueError("at the end")

    seen = []
    with pytest.raises(ValueError, match="at the end"), prefetched(source()) as items:
        seen.extend(items)
    assert seen == [0, 1, 2, 3, 4]


def test_working_ahead_closes_its_source_when_left_early():
    closed = threading.Event()

    def source():
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    before = threading.active_count()
    with prefetched(source(), depth=1) as items:
        assert next(items) == 0
    assert closed.is_set()
    assert threading.active_count() == before
