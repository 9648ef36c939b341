"""Bytes of a file are those of the file, however many of them are read at once."""

from __future__ import annotations

import gc
import os
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from napari_her2.slide import stretches
from napari_her2.slide.files import ByteFile, DamagedTile
from napari_her2.slide.stretches import STRETCH_BYTES, Stretches

CONTENT = np.random.default_rng(0).integers(0, 256, 3 * STRETCH_BYTES + 1000, np.uint8).tobytes()


def of_content(offset: int, count: int) -> bytes:
    return CONTENT[offset : offset + count]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "case.bin"
    path.write_bytes(CONTENT)
    return ByteFile(path)


@pytest.fixture
def reads(monkeypatch):
    """What is read of files, each after 20 ms."""
    read, found = os.pread, []

    def slow(fd: int, count: int, offset: int) -> bytes:
        found.append((offset, count))
        time.sleep(0.02)
        return read(fd, count, offset)

    monkeypatch.setattr(os, "pread", slow)
    return found


@given(
    places=st.lists(
        st.tuples(st.integers(0, len(CONTENT) + 50), st.integers(0, STRETCH_BYTES + 50)), max_size=6
    ),
    least=st.integers(1, STRETCH_BYTES),
)
def test_any_part_is_what_lies_there_also_of_a_drive_that_gives_less_than_it_was_asked_for(places, least):
    whole, short = Stretches(), Stretches()
    for offset, count in places:
        assert whole.read(offset, count, of_content) == of_content(offset, count)
        found = short.read(offset, count, lambda at, many: of_content(at, min(many, least)))
        assert len(found) >= len(of_content(offset, min(count, least)))
        assert found == of_content(offset, len(found))


def test_neighbours_are_read_at_once_on_a_slow_drive_by_many_threads(file, reads):
    places = [(at, 5000) for at in range(0, 2 * STRETCH_BYTES, 5000)]
    with ThreadPoolExecutor(16) as threads:
        for (offset, count), data in zip(
            places, threads.map(lambda at: file.read_at(*at), places), strict=True
        ):
            assert data == of_content(offset, count)
    assert sorted(reads) == [(at * STRETCH_BYTES, STRETCH_BYTES) for at in range(3)]


def test_on_a_fast_drive_only_fields_of_a_header_are_read_at_once(file, monkeypatch):
    read, found = os.pread, []
    monkeypatch.setattr(os, "pread", lambda fd, count, at: found.append(count) or read(fd, count, at))
    for at in range(0, 600, 12):
        assert file.read_at(at, 12) == of_content(at, 12)
    assert found == [STRETCH_BYTES]
    for at in (1, 2):  # so far nobody knows
        file.read_at(at * STRETCH_BYTES, 5000)
    file.read_at(STRETCH_BYTES + 9000, 5000)
    assert found == [*[STRETCH_BYTES] * 3, 5000]


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(stretches, "_KEPT", 2)
    kept, found = Stretches(), []

    def read(offset: int, count: int) -> bytes:
        found.append(offset // STRETCH_BYTES)
        return of_content(offset, count)

    for number in (0, 1, 0, 2, 0, 1):
        kept.read(number * STRETCH_BYTES, 10, read)
    assert found == [0, 1, 2, 1]


def test_a_file_with_a_bad_sector_is_read_around_it(file, monkeypatch):
    read = os.pread

    def broken(fd: int, count: int, offset: int) -> bytes:
        if offset + count > 50_000:
            raise OSError(5, "Input/output error")
        return read(fd, count, offset)

    monkeypatch.setattr(os, "pread", broken)
    assert file.read_at(10_000, 40_000) == of_content(10_000, 40_000)
    with pytest.raises(DamagedTile, match="byte 10,001"):
        file.read_at(10_001, 40_000)


def test_a_closed_file_gives_nothing_and_it_goes_with_its_last_reference(file, tmp_path):
    file.read_at(0, 12)
    file.close()
    with pytest.raises(SlideError, match="was closed"):
        file.read_at(0, 12)
    other = ByteFile(tmp_path / "case.bin")
    other.read_at(0, 12)
    gone = weakref.ref(other)
    gc.disable()
    try:
        del other
        assert gone() is None
    finally:
        gc.enable()


def test_a_slide_on_a_slow_drive_is_opened_and_shown_with_few_reads(shared_data, reads):
    path = shared_data / "slides" / "cmu1_small_region.svs"
    with open_slide(path) as slide:
        opened = len(reads)
        _ = slide.display()[-1][:]
    stretches_there = -(-path.stat().st_size // STRETCH_BYTES)
    assert opened < 3 * stretches_there + 3  # and not once for each of some forty fields
    assert len(reads) - opened <= stretches_there
