"""A slide that is written over while it is used: nothing of it is kept, and no result is made."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest

from napari_her2 import open_slide, score_slide
from napari_her2.cohort import embed_cohort_steps
from napari_her2.errors import JobFailed, SlideChanged
from napari_her2.inference.cache import cache_folder
from napari_her2.inference.device import choose_device
from napari_her2.inference.embed import embed_steps
from napari_her2.slide import identity, identity_memory
from napari_her2.slide.identity import Identity, content_sha256


def finish(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def long_ago(path, seconds=3600):
    """Make a file as old as slides are."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


@pytest.fixture
def slide_file(he_slide, tmp_path):
    path = tmp_path / "case.svs"
    shutil.copyfile(he_slide, path)
    long_ago(path)
    return path


def once(act, stage):
    """Act when the second batch of a stage was kept."""
    done = []

    def progress(step):
        if step.stage == stage and step.done >= 32 and not done:
            done.append(True)
            act()

    return progress


def kept_tiles():
    return sum(path.stat().st_size for path in cache_folder().glob("*.features"))


def over(path, other):
    """Write over the bytes in place, as a scanner does that starts again; the size stays."""
    data = other.read_bytes()[: path.stat().st_size].ljust(path.stat().st_size, b"\0")
    with path.open("r+b") as file:
        file.write(data)


def swapped(path, other):
    shutil.copyfile(other, path.with_name("new"))
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [over, swapped, lambda path, other: path.unlink()])
def test_a_slide_that_is_replaced_while_it_is_scored_has_no_result_and_leaves_no_features(
    slide_file, small_pair, tiny_model, change
):
    act = once(lambda: change(slide_file, small_pair.ihc), "Embedding tiles")
    with pytest.raises(SlideChanged, match=r"case\.svs .*open it again"):
        score_slide(slide_file, tiny_model, device="cpu", batch_size=16, progress=act)
    assert kept_tiles() == 0


def test_what_earlier_runs_kept_of_the_slide_stays(slide_file, small_pair, tiny_bundle, he_slide):
    with open_slide(slide_file) as slide:
        grid = slide.tile_grid(96, 0.5)
        some = np.zeros(grid.shape, bool)
        some[:4] = True
        finish(embed_steps(slide, tiny_bundle.encoder, grid, some, choose_device("cpu")))
        before = kept_tiles()
        assert before > 0
        rest = embed_steps(slide, tiny_bundle.encoder, grid, ~some, choose_device("cpu"), batch_size=16)
        while next(rest).done < 32:
            pass
        assert kept_tiles() > before
        over(slide_file, small_pair.ihc)
        with pytest.raises(SlideChanged):
            finish(rest)
        assert kept_tiles() == before
    with open_slide(he_slide) as slide:  # the same content under another name
        found = finish(embed_steps(slide, tiny_bundle.encoder, grid, some, choose_device("cpu")))
        assert found.cached == int(some.sum())


def test_a_slide_whose_times_alone_change_is_scored(slide_file, he_slide, tiny_model):
    def touch():
        os.utime(slide_file)
        over(slide_file, he_slide)

    act = once(touch, "Embedding tiles")
    result = score_slide(slide_file, tiny_model, device="cpu", batch_size=16, progress=act)
    assert result.slide_sha256 == content_sha256(he_slide)
    assert kept_tiles() > 0


def test_a_change_behind_the_last_tile_is_seen_before_the_result(slide_file, small_pair, tiny_model):
    with pytest.raises(SlideChanged):
        score_slide(
            slide_file,
            tiny_model,
            device="cpu",
            progress=lambda step: over(slide_file, small_pair.ihc) if step.stage == "Scoring" else None,
        )


def test_a_change_that_hides_behind_the_clock_is_seen_at_the_end(slide_file, small_pair, tiny_model):
    """A file system with coarse times: the slide was written just now, and its state stays as it was."""

    def hidden():
        state = slide_file.stat()
        over(slide_file, small_pair.ihc)
        os.utime(slide_file, ns=(state.st_atime_ns, state.st_mtime_ns))

    class Coarse(identity_memory.FileState):
        @classmethod
        def of(cls, found):
            return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, 0)

        @property
        def settled(self):
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "FileState", Coarse)
        with pytest.raises(SlideChanged):
            score_slide(
                slide_file,
                tiny_model,
                device="cpu",
                batch_size=16,
                progress=once(hidden, "Embedding tiles"),
            )
    assert kept_tiles() == 0


def test_the_damage_that_a_change_brings_is_told_as_the_change(slide_file, tiny_model):
    def cut():
        with slide_file.open("r+b") as file:
            file.truncate(1000)

    with pytest.raises(SlideChanged):
        score_slide(
            slide_file, tiny_model, device="cpu", batch_size=16, progress=once(cut, "Embedding tiles")
        )


def test_embedding_to_a_file_refuses_a_changed_slide(slide_file, small_pair, tiny_model, tmp_path):
    out = tmp_path / "out"
    steps = embed_cohort_steps([slide_file], tiny_model, out, device="cpu", batch_size=16)
    while not kept_tiles():
        next(steps)
    over(slide_file, small_pair.ihc)
    (outcome,) = finish(steps).outcomes
    assert outcome.state == "failed"
    assert isinstance(outcome.error, SlideChanged)
    assert not list(out.glob("*.h5"))
    assert kept_tiles() == 0


def test_a_slide_that_changed_between_opening_and_scoring_is_refused(slide_file, small_pair, tiny_model):
    with open_slide(slide_file) as slide:
        over(slide_file, small_pair.ihc)
        with pytest.raises(JobFailed, match="was changed"):
            score_slide(slide, tiny_model, device="cpu")


def counted_hashing(monkeypatch):
    hashed = []
    original = identity.ContentHash.steps

    def steps(self):
        hashed.append(self._file.path.name)
        return original(self)

    monkeypatch.setattr(identity.ContentHash, "steps", steps)
    return hashed


def test_opening_and_showing_a_slide_hashes_nothing(slide_file, monkeypatch):
    hashed = counted_hashing(monkeypatch)
    with open_slide(slide_file) as slide:
        slide.pyramid()[-1].compute()
        slide.tissue()
        assert not hashed
        assert slide.fingerprint == content_sha256(slide_file)
        assert hashed


@pytest.fixture
def settled(monkeypatch):
    """Files count as old at once: no test waits for a file to age."""
    monkeypatch.setattr(identity_memory, "SETTLED_NS", 0)


@pytest.mark.usefixtures("settled")
def test_a_hash_is_remembered_until_the_file_changes_in_any_way(slide_file, small_pair, monkeypatch):
    hashed = counted_hashing(monkeypatch)
    first = content_sha256(slide_file)
    assert content_sha256(slide_file) == first
    assert len(hashed) == 1
    state = slide_file.stat()
    over(slide_file, small_pair.ihc)
    os.utime(slide_file, ns=(state.st_atime_ns, state.st_mtime_ns))  # only the time of the change tells
    assert content_sha256(slide_file) != first
    assert len(hashed) == 2


def test_a_young_file_is_not_remembered(slide_file, monkeypatch):
    hashed = counted_hashing(monkeypatch)
    long_ago(slide_file)  # by one of its times alone: it was changed just now
    content_sha256(slide_file)
    content_sha256(slide_file)
    assert len(hashed) == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 3000, "[]", '{"format": 1}', '{"format": 1, "state": [1], "sha256": "0"}', "\0\xff"],
)
def test_a_damaged_memory_is_worked_out_again(slide_file, text):
    right = content_sha256(slide_file)
    (kept,) = (cache_folder().parent / "identities").iterdir()
    kept.write_text(text, "latin-1")
    assert content_sha256(slide_file) == right


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("digest", ["0" * 63, "G" * 64, 7, None])
def test_a_memory_that_holds_no_digest_is_not_taken(slide_file, digest):
    right = content_sha256(slide_file)
    (kept,) = (cache_folder().parent / "identities").iterdir()
    kept.write_text(kept.read_text().replace(f'"{right}"', repr(digest).replace("'", '"')))
    assert content_sha256(slide_file) == right


def test_hashing_a_large_slide_tells_how_far_it_is_and_stops_when_it_is_closed(tmp_path):
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.write(b"II*\0" + bytes(100))
        file.truncate(100 << 20)
    steps = Identity(path).steps()
    done, total = next(steps)
    assert 0 < done < total == 100 << 20
    steps.close()
    assert not [thread for thread in threading.enumerate() if "identity" in thread.name]
    assert Identity(path).known is None
    seen = []
    whole = Identity(path)
    again = whole.steps()
    while True:
        try:
            seen.append(next(again))
        except StopIteration:
            break
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert seen[-1] == (total, total)
    assert whole.known is not None
