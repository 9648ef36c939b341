"""Tiles from where somebody looks: the order changes, and not a bit of what is found."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_her2 import open_slide, score_slide
from napari_her2.explain.early import READ, SCORE_SO_FAR, VOTE_SO_FAR
from napari_her2.inference.early import EarlyTiles
from napari_her2.inference.front import Front, fixed_batches, nearest_first, streamed
from napari_her2.methods.scoring import score_steps
from napari_her2.models.bundle import load_bundle
from napari_her2.reports.replay import compared
from napari_her2.slide.grid import TileGrid
from napari_her2.steps import finished

WITH_VOTES = ("attention-mil", "ensemble", "clam-mb", "dsmil")
OF_TILES = (*WITH_VOTES, "pair", "fields", "patches", "transmil", "familiar")
CORNERS = ((0.0, 0.0), (5000.0, 5000.0), (0.0, 1500.0), (900.0, -50.0))
GRID = TileGrid((7000, 9000), (0.25, 0.25), 100, 0.5)


@settings(max_examples=40, deadline=None)
@given(keep=hnp.arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 23))), size=st.integers(1, 40))
def test_batches_are_full_runs_that_hold_every_tile_once(keep, size):
    batches = fixed_batches(keep, size)
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    found = np.concatenate([np.empty((0, 2), np.int64), *batches])
    assert sorted(map(tuple, found.tolist())) == [tuple(at) for at in np.argwhere(keep).tolist()]
    for batch in batches:
        assert [tuple(at) for at in batch.tolist()] == sorted(map(tuple, batch.tolist()))


def test_a_batch_of_a_full_grid_is_a_square():
    for batch in fixed_batches(np.ones((32, 64), np.bool_), 256):
        assert np.ptp(batch, axis=0).tolist() == [15, 15]


@settings(max_examples=40, deadline=None)
@given(
    keep=hnp.arrays(np.bool_, (35, 45), elements=st.booleans()),
    point=st.tuples(st.floats(-500, 8000), st.floats(-500, 9500)),
)
def test_the_nearest_batch_comes_first(keep, point):
    batches = fixed_batches(keep, 32)
    order = nearest_first(batches, GRID, point).tolist()
    assert sorted(order) == list(range(len(batches)))
    centres = [200 * batch + 100 - np.array(point) for batch in batches]
    away = [float((of**2).sum(axis=1).min()) for of in centres]
    assert all(away[a] <= away[b] * (1 + 1e-9) for a, b in pairwise(order))
    assert nearest_first(batches, GRID, None).tolist() == list(range(len(batches)))


def test_a_front_that_moves_is_followed_after_the_batch_in_work(he_slide):
    with open_slide(he_slide) as slide:
        grid = slide.tile_grid(96, 0.5)
        batches = fixed_batches(np.ones(grid.shape, np.bool_), 16)
        reference = {tuple(b.index[0]): b.images for b in streamed(slide, grid, batches, lambda: None)}
        at = [(0.0, 0.0)]
        places = []
        for batch in streamed(slide, grid, batches, lambda: at[0]):
            np.testing.assert_array_equal(batch.images, reference[tuple(batch.index[0])])
            np.testing.assert_array_equal(batch.origins_px0, grid.origins_px0(batch.index))
            places.append(batch.index.mean(axis=0))
            if len(places) == 2:
                at[0] = (1536.0, 1536.0)
    assert len(places) == len(batches)
    assert max(places[0]) < 4
    assert max(places[1]) < 8
    assert min(places[2]) > grid.shape[0] - 5  # the far corner
    assert places[-1].sum() < places[2].sum()


def moving(front: Front, ids: list[str], steps):
    """Drive a scoring while somebody moves from corner to corner."""
    number = 0
    while True:
        for slide_id in ids:
            front.move(slide_id, CORNERS[number % len(CORNERS)])
        try:
            yield next(steps)
        except StopIteration as end:
            return end.value
        number += 1


@pytest.mark.parametrize("name", OF_TILES)
def test_the_result_is_that_of_any_other_order_bit_for_bit(name, asked):
    arguments = {**asked[name].arguments(), "device": "cpu", "batch_size": 16, "cache": False}
    plain = score_slide(**arguments)
    front, early = Front(), EarlyTiles()
    ids = [of.slide_id for of in plain.slides]
    made = finished(moving(front, ids, score_steps(**arguments, front=front, early=early)))
    assert compared(plain, made).found == ()
    for one, other in zip(plain.slides, made.slides, strict=True):
        assert one.table.index.tobytes() == other.table.index.tobytes()
        for first, second in zip(one.maps, other.maps, strict=True):
            assert first.values.tobytes() == second.values.tobytes(), first.name
    so_far = {of.slide_id: of for of in early.take()}
    for scored in made.slides:
        of = so_far[scored.slide_id]
        assert (of.done, of.total) == (len(scored.table), len(scored.table))
        check_early(name, made, scored, of.tile_map)


def check_early(name, made, scored, early) -> None:
    """What was known of tiles early is what stands in the result, or follows from the head alone."""
    index, classes = scored.table.index, made.classes
    assert int(np.isfinite(early.values).sum()) == len(index)
    if name in ("fields", "patches"):
        assert early.info == SCORE_SO_FAR.of_categories(classes)
        (final,) = [of for of in scored.maps if of.kind == "score"]
        np.testing.assert_array_equal(early.values, final.values)
    elif name == "attention-mil":
        assert early.info == VOTE_SO_FAR
        # Evidence is attention times votes times the number of tiles.
        votes = scored.table.evidence / (scored.table.attention[:, None] * len(index))
        np.testing.assert_allclose(early.at(index), votes[:, -1] - votes.mean(axis=1), rtol=1e-2, atol=1e-3)
    elif name in WITH_VOTES:
        assert (early.info, early.class_name) == (VOTE_SO_FAR, classes[-1])
    else:
        assert (early.info, early.class_name) == (READ, None)


@pytest.mark.parametrize("name", OF_TILES)
def test_a_map_is_there_before_its_first_tile_and_looks_as_it_will(name, asked):
    arguments = {**asked[name].arguments(), "device": "cpu", "batch_size": 16, "cache": False}
    early, maps = EarlyTiles(), {}
    for _ in score_steps(**arguments, early=early):
        for so_far in early.take():
            maps.setdefault(so_far.slide_id, []).append(so_far)
    for begun, *later in maps.values():
        assert begun.done == 0
        assert not np.isfinite(begun.tile_map.values).any()
        assert later
        for of in later:
            assert (of.tile_map.info, of.tile_map.class_name) == (
                begun.tile_map.info,
                begun.tile_map.class_name,
            )


def test_there_is_no_map_where_nothing_is_to_be_computed(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path))
    arguments = {**asked["attention-mil"].arguments(), "device": "cpu"}
    for begins in (True, False):
        early = EarlyTiles()
        finished(score_steps(**arguments, early=early))
        assert bool(early.take()) == begins


@pytest.mark.parametrize("name", ["clam-mb", "dsmil"])
def test_what_is_known_early_of_a_tile_hangs_on_no_other(name, asked):
    arguments = {**asked[name].arguments(), "device": "cpu"}
    maps = []
    for batch_size in (16, 61):
        early = EarlyTiles()
        finished(score_steps(**arguments, cache=False, batch_size=batch_size, early=early))
        (of,) = early.take()
        maps.append(of.tile_map.values)
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-2, atol=2e-3)


def test_damage_is_told_in_the_order_of_the_grid(damaged_slide, tiny_model):
    found = []
    for point in (None, *CORNERS[:2]):
        front = Front()
        with open_slide(damaged_slide) as slide:
            if point is not None:
                front.move(slide.slide_id, point)
            steps = score_steps(slide, tiny_model, device="cpu", batch_size=16, cache=False, front=front)
            found.append(finished(steps))
    assert len(found[0].slides[0].corrupt)
    for other in found[1:]:
        assert compared(found[0], other).found == ()
        assert found[0].slides[0].corrupt.tobytes() == other.slides[0].corrupt.tobytes()


def test_nothing_of_a_class_is_shown_before_an_answer_that_may_be_withheld(asked):
    arguments = {**asked["familiar"].arguments(), "device": "cpu", "cache": False}
    for wish, info in (
        ({}, READ),
        ({"min_familiarity": 0.0}, VOTE_SO_FAR),
        ({"show_withheld": True}, VOTE_SO_FAR),
    ):
        early = EarlyTiles()
        finished(score_steps(**arguments, early=early, **wish))
        (of,) = early.take()
        assert of.tile_map.info == info
    assert load_bundle(arguments["model"]).familiarity is not None


CHILD = """
    import sys
    from napari_her2 import open_slide
    from napari_her2.inference.front import Front
    from napari_her2.methods.scoring import score_steps
    front = Front()
    with open_slide(sys.argv[1]) as slide:
        front.move(slide.slide_id, (1536.0, 1536.0))
        for step in score_steps(slide, sys.argv[2], device="cpu", batch_size=16, front=front):
            print(step.done, flush=True)
            if step.done >= 64:
                sys.stdin.read()  # waits here, in the middle, until it is killed
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_amid_a_front_and_gone_on_with_another(he_slide, tiny_model):
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(he_slide), str(tiny_model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        first = next(done for line in child.stdout if (done := int(line)) >= 64)
        child.send_signal(signal.SIGKILL)
    front = Front()
    with open_slide(he_slide) as slide:
        front.move(slide.slide_id, (0.0, 700.0))
        steps = score_steps(slide, tiny_model, device="cpu", batch_size=16, front=front)
        seen = []
        while True:
            try:
                seen.append(next(steps))
            except StopIteration as end:
                resumed = end.value
                break
    done = [step.done for step in seen if step.stage.startswith("Embedding")]
    sizes = [b - a for a, b in pairwise(done)]
    assert done[0] == first
    assert sorted(sizes)[1:] == [16] * (len(sizes) - 1)  # but for the short batch at the end of the curve
    fresh = score_slide(he_slide, tiny_model, device="cpu", batch_size=16, cache=False)
    assert compared(resumed, fresh).found == ()
    for first, second in zip(resumed.slides[0].maps, fresh.slides[0].maps, strict=True):
        assert first.values.tobytes() == second.values.tobytes()
