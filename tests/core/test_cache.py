"""The store of features: what was committed comes back, and nothing else ever does."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_her2.inference.cache import (
    CacheKey,
    FeatureStore,
    cache_folder,
    cache_size,
    clear_cache,
    shrink_cache,
    stored_tiles,
)

DIM = 7


def make_key(slide="a"):
    return CacheKey(slide, (1000, 2000), (0.5, 0.5), 96, 0.5, "weights", "cpu float32", "reader 1")


def make_batch(seed, count=5):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 99, (count, 2)), rng.normal(size=(count, DIM)).astype(np.float16)


def read_all(store):
    parts = []
    store.load(lambda index, features: parts.append((index.copy(), features.copy())))
    return parts


def fill(folder, batches=3):
    with FeatureStore(make_key(), DIM, folder) as store:
        read_all(store)
        for seed in range(batches):
            store.append(*make_batch(seed))
        return store.path


def assert_batches(parts, seeds):
    assert len(parts) == len(seeds)
    for (index, features), seed in zip(parts, seeds, strict=True):
        expected_index, expected = make_batch(seed)
        assert np.array_equal(index, expected_index)
        assert features.tobytes() == expected.tobytes()


def test_what_was_appended_comes_back_bit_for_bit(tmp_path):
    fill(tmp_path)
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        assert_batches(read_all(store), [0, 1, 2])


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("whole"))


def test_which_tiles_are_kept_is_told_without_touching_the_store():
    path = fill(cache_folder())
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    expected = np.concatenate([make_batch(seed)[0] for seed in range(3)])
    assert np.array_equal(stored_tiles(make_key(), DIM), expected)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before
    # Of a run that was killed the last batch is not whole; of another slide there is nothing.
    path.write_bytes(before[0][:-1])
    assert np.array_equal(stored_tiles(make_key(), DIM), expected[:10])
    assert stored_tiles(make_key(), DIM + 1).shape == (0, 2)
    assert stored_tiles(make_key("b"), DIM).shape == (0, 2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_run_killed_at_any_byte_keeps_exactly_the_whole_batches(whole_store, tmp_path, data):
    size = whole_store.stat().st_size
    cut = data.draw(st.integers(0, size))
    path = tmp_path / whole_store.name
    shutil.copy(whole_store, path)
    os.truncate(path, cut)
    whole = cut * 3 // size
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        assert_batches(read_all(store), list(range(whole)))
        store.append(*make_batch(77))
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        assert_batches(read_all(store), [*range(whole), 77])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_never_comes_back_as_features(whole_store, tmp_path, data):
    content = bytearray(whole_store.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / whole_store.name).write_bytes(content)
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        assert_batches(read_all(store), list(range(at * 3 // len(content))))


def test_a_second_writer_only_reads(tmp_path):
    with FeatureStore(make_key(), DIM, tmp_path) as first:
        read_all(first)
        first.append(*make_batch(0))
        with FeatureStore(make_key(), DIM, tmp_path) as second:
            assert not second.writable
            assert "another program" in second.problem
            assert_batches(read_all(second), [0])
            second.append(*make_batch(1))
        first.append(*make_batch(2))
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        assert_batches(read_all(store), [0, 2])


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits on the size of files")
def test_no_space_left_stops_keeping_and_says_so(tmp_path):
    path = fill(tmp_path, batches=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        read_all(store)
        # Room for half of the next batch: the write itself fails, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
        try:
            store.append(*make_batch(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not store.writable
        assert "not kept on disk" in store.problem
        store.append(*make_batch(2))
    with FeatureStore(make_key(), DIM, tmp_path) as store:
        assert_batches(read_all(store), [0])


def test_a_folder_that_cannot_be_made_is_a_note_not_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with FeatureStore(make_key(), DIM, tmp_path / "file" / "cache") as store:
        assert read_all(store) == []
        store.append(*make_batch(0))
        assert "NAPARI_HER2_CACHE" in store.problem


def test_every_part_of_the_key_counts():
    key = make_key()
    values = {name: getattr(key, name) for name in CacheKey.__slots__}
    others = {
        "slide": "b",
        "shape_px0": (1000, 2001),
        "slide_mpp": (0.5, 0.25),
        "tile_px": 97,
        "mpp": 0.51,
        "encoder": "other",
        "precision": "cuda bfloat16",
        "reader": "reader 2",
        "shift": (0.5, 0.0),
    }
    assert others.keys() == values.keys()
    digests = {CacheKey(**(values | {name: other})).digest for name, other in others.items()}
    assert len(digests | {key.digest}) == len(others) + 1


def test_tiles_side_by_side_keep_the_key_that_they_always_had():
    # Of the values that the class had before grids could be shifted; older stores stay of use.
    before = {name: getattr(make_key(), name) for name in CacheKey.__slots__ if name != "shift"}
    written = json.dumps({"key": 2, **before}, sort_keys=True)
    assert make_key().digest == hashlib.sha256(written.encode()).hexdigest()


def test_a_store_that_is_opened_counts_as_used():
    paths = []
    for number in range(2):
        with FeatureStore(make_key(f"slide {number}"), DIM) as store:
            read_all(store)
            store.append(*make_batch(number))
        os.utime(store.path, (1000 + number, 1000 + number))
        paths.append(store.path)
    with FeatureStore(make_key("slide 0"), DIM):
        pass  # not even read: reading cuts the file at its end, which may touch it or not
    shrink_cache(limit=paths[0].stat().st_size)
    assert [path.exists() for path in paths] == [True, False]


def test_the_store_not_used_for_longest_goes_first_and_one_in_use_stays():
    paths = []
    for number in range(3):
        with FeatureStore(make_key(f"slide {number}"), DIM) as store:
            read_all(store)
            store.append(*make_batch(number))
        os.utime(store.path, (1000 + number, 1000 + number))
        paths.append(store.path)
    size = paths[0].stat().st_size
    assert cache_size() == 3 * size
    assert shrink_cache(limit=2 * size) == size
    assert [path.exists() for path in paths] == [False, True, True]
    with FeatureStore(make_key("slide 1"), DIM):
        assert clear_cache() == size
    assert [path.exists() for path in paths] == [False, True, False]
    assert cache_folder() == paths[0].parent
