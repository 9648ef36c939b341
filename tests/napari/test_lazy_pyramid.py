from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from napari.components import ViewerModel

from fields_by_hand import HandPyramid, prepared_by_hand
from napari_her2._napari.correlated import representation_layer
from napari_her2._napari.layers import slide_layer
from napari_her2._napari.lazy_pyramid import CorrelatedSource
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import RepresentationTag, tag_of
from napari_her2.explain.field_store import FieldKey
from scored import make_slide

Filled = tuple[CorrelatedSource, np.ndarray]


def make_source(pyramid: HandPyramid | None = None, **options: Any) -> CorrelatedSource:
    pyramid = pyramid or HandPyramid()
    return CorrelatedSource(pyramid, prepared_by_hand(pyramid).colours("mean"), **options)


def compute_all(source: CorrelatedSource) -> int:
    done = 0
    while source.compute_next():
        done += 1
    return done


@pytest.fixture(scope="module")
def filled() -> Filled:
    """Everything of level 1 computed, and the same level coloured whole."""
    source = make_source()
    _ = source.levels[1][:, :]
    compute_all(source)
    return source, source.colours.rgba(HandPyramid().whole(1))


places = st.integers(-48, 47)
part = st.one_of(places, st.slices(48), hnp.arrays(np.int64, st.integers(0, 5), elements=places))


@given(rows=part, cols=part, form=st.sampled_from(["full", "two", "one", "dots"]))
@settings(max_examples=60, deadline=None)
def test_indexing_is_that_of_numpy(filled: Filled, rows: Any, cols: Any, form: str):
    source, whole = filled
    level = source.levels[1]
    assert level.shape == whole.shape == (48, 64, 4)
    key = {
        "full": (rows, slice(None), slice(0, 3)),
        "two": (slice(None), cols),
        "one": rows,
        "dots": (Ellipsis, cols, slice(None)),
    }[form]
    np.testing.assert_array_equal(level[key], whole[key])


def test_rows_and_columns_by_positions_are_paired_as_in_numpy(filled: Filled):
    source, whole = filled
    rows, cols = np.array([3, -1, 20]), np.array([60, 0, 33])
    np.testing.assert_array_equal(source.levels[1][rows, cols], whole[rows, cols])
    mask = np.arange(48) % 7 == 2
    np.testing.assert_array_equal(source.levels[1][mask], whole[mask])
    for wrong in (48, (slice(None), 64), np.zeros(5, bool), (0, 0, 0, 0), None):
        with pytest.raises(IndexError):
            source.levels[1][wrong]


def test_indexing_computes_nothing_and_asks_for_what_is_in_view():
    pyramid = HandPyramid()
    source = make_source(pyramid)
    asked = []
    source.wanted.connect(lambda: asked.append(source.pending))
    picture = source.levels[0][20:40, 0:20]
    assert not picture.any()
    assert pyramid.computed == []
    assert asked == [1 + 4]  # the overview, and four fields that the window touches
    compute_all(source)
    assert {key for key, _ in pyramid.computed} == {
        FieldKey(3, 0, 0),
        *(FieldKey(0, row, col) for row in (1, 2) for col in (0, 1)),
    }
    np.testing.assert_array_equal(
        source.levels[0][20:40, 0:20], source.colours.rgba(pyramid.whole(0))[20:40, 0:20]
    )
    assert not source.levels[0][20:40, 32:50].any()


def test_what_left_the_view_is_not_computed():
    pyramid = HandPyramid()
    source = make_source(pyramid)
    _ = source.levels[0][:, :]
    source.compute_next()
    _ = source.levels[1][:16, :16]
    compute_all(source)
    assert [key for key, _ in pyramid.computed] == [FieldKey(3, 0, 0), FieldKey(1, 0, 0)]
    _ = source.levels[0][:, :]
    source.forget_requests()
    assert source.pending == 0


def test_memory_is_bounded():
    source = make_source(max_bytes=10 * 16 * 16 * 12)
    for top in range(0, 96, 16):
        _ = source.levels[0][top : top + 16]
        compute_all(source)
        assert source.nbytes <= 10 * 16 * 16 * 12
    assert source.levels[0][80:96, :128][..., 3].all()


def test_the_overview_is_one_array_that_fills():
    """napari takes it once and keeps it."""
    pyramid = HandPyramid()
    source = make_source(pyramid)
    taken = np.asarray(source.levels[-1])
    assert not taken.any()
    compute_all(source)
    assert np.asarray(source.levels[-1]) is taken
    np.testing.assert_array_equal(taken, source.colours.rgba(pyramid.whole(3)))
    assert np.array(source.levels[-1]) is not taken
    assert np.asarray(source.levels[0]).shape == (96, 128, 4)
    source.levels[0].shape = (1 << 14, 1 << 14, 4)
    with pytest.raises(ValueError, match="too large"):
        np.asarray(source.levels[0])


def test_other_colours_come_from_memory():
    pyramid = HandPyramid()
    source = make_source(pyramid)
    _ = source.levels[0][:32, :32]
    compute_all(source)
    before = len(pyramid.computed)
    source.set_colours(prepared_by_hand(pyramid).colours("channel", 1))
    assert not source.levels[0][:32, :32].any()
    compute_all(source)
    assert len(pyramid.computed) == before
    expected = source.colours.rgba(pyramid.whole(0))
    np.testing.assert_array_equal(source.levels[0][:32, :32], expected[:32, :32])
    assert np.asarray(source.levels[-1])[..., 3].any()


def test_damage_stays_clear_and_is_told():
    pyramid = HandPyramid(damaged=[FieldKey(0, 0, 0)])
    source = make_source(pyramid)
    _ = source.levels[0][:16, :32]
    compute_all(source)
    alpha = source.levels[0][:16, :32][..., 3]
    assert not alpha[:4, :16].any()
    assert alpha[4:].all()
    assert source.damaged == (FieldKey(0, 0, 0),)


def test_a_closed_source_holds_nothing_and_stays_clear():
    source = make_source()
    _ = source.levels[0][:, :]
    source.compute_next()
    source.close()
    assert source.nbytes == 0
    assert not source.compute_next()
    assert not source.levels[0][:, :].any()
    assert not np.asarray(source.levels[-1]).any()


def test_an_error_is_raised_where_it_is_computed_and_the_next_field_follows():
    pyramid = HandPyramid()
    source = make_source(pyramid)
    _ = source.levels[0][:16, :16]
    good = pyramid.field
    pyramid.field = lambda key: 1 / 0
    with pytest.raises(ZeroDivisionError):
        source.compute_next()
    pyramid.field = good
    assert compute_all(source) == 1


def test_the_layer_lies_on_its_slide():
    viewer = ViewerModel()
    slide = make_slide((384, 512))  # 192 x 256 µm: 96 x 128 pixels of 2 µm
    data, options, _ = slide_layer(slide)
    below = viewer.add_image(data, **options)
    below.translate = (30.0, -20.0)
    prepared = prepared_by_hand(HandPyramid(slide))
    layer = viewer.add_layer(representation_layer(make_source(prepared.pyramid), prepared, below))
    assert "correlated representation from H&E (hand-model)" in layer.name
    assert "IHC" not in layer.name
    tags = [tag for tag in map(tag_of, viewer.layers) if isinstance(tag, RepresentationTag)]
    assert tags == [RepresentationTag(slide.slide_id)]
    assert tag_of(layer) == tags[0]
    assert layer.units == below.units
    for corner in ((-0.5, -0.5), (95.5, 127.5)):
        on_slide = (np.array(corner) + 0.5) * 4 - 0.5  # four pixels of the slide to one
        np.testing.assert_allclose(layer.data_to_world(corner), below.data_to_world(on_slide))


def test_a_slide_that_moves_takes_its_representation_along():
    viewer = ViewerModel()
    session_of(viewer)
    slide = make_slide((384, 512))
    data, options, _ = slide_layer(slide)
    below = viewer.add_image(data, **options)
    prepared = prepared_by_hand(HandPyramid(slide))
    layer = viewer.add_layer(representation_layer(make_source(prepared.pyramid), prepared, below))
    below.affine = np.array([[0.0, -1.0, 40.0], [1.0, 0.0, 7.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(layer.data_to_world((9.5, 19.5)), below.data_to_world((39.5, 79.5)))


def test_the_lazy_arrays_load_no_torch():
    modules = "napari_her2._napari.correlated, napari_her2._napari.lazy_pyramid"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
