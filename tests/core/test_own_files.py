"""What the package keeps for itself: no link is followed, and nothing of others is written."""

from __future__ import annotations

import os
import stat
import sys

import numpy as np
import pytest

from napari_her2.errors import ModelError
from napari_her2.inference.cache import (
    CacheKey,
    FeatureStore,
    cache_folder,
    cache_size,
    clear_cache,
    stored_tiles,
)
from napari_her2.inference.locks import FileLock
from napari_her2.models.registry import (
    BUNDLED_FOLDER,
    list_models,
    load_model,
    models_folder,
    unreadable_models,
)
from napari_her2.own_files import cache_base, open_own, private_folder, read_own, write_own

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")

KEY = CacheKey("slide", (1000, 2000), (0.5, 0.5), 96, 0.5, "weights", "cpu float32", "reader 1")
PRECIOUS = b"the only copy of a thesis " * 1000


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_bytes(PRECIOUS)
    return path


def soft(link, target):
    link.symlink_to(target)


def hard(link, target):
    os.link(target, link)


def embed_a_little():
    """Use the store as scoring does; return it, closed."""
    with FeatureStore(KEY, 3) as store:
        found = []
        store.load(lambda index, features: found.append(index.copy()))
        store.append(np.array([[1, 2]]), np.ones((1, 3), np.float16))
    return store, found


@pytest.mark.parametrize("lay", [soft, hard])
@pytest.mark.parametrize("suffix", [".features", ".lock"])
def test_a_link_named_as_a_store_or_its_lock_leaves_the_file_it_leads_to_alone(victim, lay, suffix):
    cache_folder().mkdir(parents=True)
    lay(cache_folder() / f"{KEY.digest}{suffix}", victim)
    store, found = embed_a_little()
    assert not found
    assert "link" in store.problem or "several names" in store.problem
    assert str(cache_folder()) in store.problem
    assert stored_tiles(KEY, 3).shape == (0, 2)
    clear_cache()
    assert victim.read_bytes() == PRECIOUS


def test_a_link_to_nowhere_is_not_made_into_a_file(tmp_path):
    cache_folder().mkdir(parents=True)
    for suffix in (".features", ".lock"):
        soft(cache_folder() / f"{KEY.digest}{suffix}", tmp_path / f"made{suffix}")
    embed_a_little()
    with pytest.raises(OSError, match="link"):
        FileLock(cache_folder() / f"{KEY.digest}.lock").acquire()
    assert not list(tmp_path.glob("made*"))


def test_the_folder_of_stores_is_no_link_but_the_folder_that_the_user_names_may_be(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "old.features").write_bytes(PRECIOUS)
    cache_base().mkdir(parents=True)
    soft(cache_folder(), elsewhere)
    store, _ = embed_a_little()
    assert "link" in store.problem
    assert cache_size() == clear_cache() == 0
    assert [item.name for item in elsewhere.iterdir()] == ["old.features"]
    big_disk = tmp_path / "big disk"
    big_disk.mkdir()
    soft(tmp_path / "cache", big_disk)
    monkeypatch.setenv("NAPARI_HER2_CACHE", str(tmp_path / "cache"))
    store, _ = embed_a_little()
    assert not store.problem
    assert len(embed_a_little()[1]) == 1


def test_a_pipe_in_the_cache_holds_nobody_up():
    cache_folder().mkdir(parents=True)
    os.mkfifo(cache_folder() / f"{KEY.digest}.features")
    store, found = embed_a_little()
    assert store.problem
    assert not found
    assert stored_tiles(KEY, 3).shape == (0, 2)
    assert cache_size() == 0


def test_what_is_made_is_readable_by_its_owner_alone():
    old = os.umask(0)
    try:
        embed_a_little()
    finally:
        os.umask(old)
    made = [cache_base(), cache_folder(), *cache_folder().iterdir()]
    assert len(made) == 4
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_folder_that_is_there_keeps_the_rights_its_owner_gave_it(tmp_path):
    tmp_path.chmod(0o770)
    private_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o770


def test_a_link_in_the_folder_of_models_is_no_model():
    models_folder().mkdir(parents=True)
    real = next(BUNDLED_FOLDER.glob("*.safetensors"))
    soft(models_folder() / "borrowed.safetensors", real)
    os.mkfifo(models_folder() / "pipe.safetensors")
    assert {"borrowed", "pipe"}.isdisjoint(entry.name for entry in list_models())
    assert {item.path.stem for item in unreadable_models()} == {"borrowed", "pipe"}
    with pytest.raises(ModelError, match=r"link.*napari-her2 models add"):
        load_model("borrowed")


def test_writing_replaces_a_link_and_never_writes_through_it(victim, tmp_path):
    soft(tmp_path / "kept.json", victim)
    write_own(tmp_path / "kept.json", b"{}")
    assert victim.read_bytes() == PRECIOUS
    assert read_own(tmp_path / "kept.json", 10) == b"{}"
    assert not (tmp_path / "kept.json").is_symlink()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["kept.json", "thesis.tex"]


def test_reading_follows_no_link_and_believes_no_size(victim, tmp_path):
    soft(tmp_path / "kept.json", victim)
    with pytest.raises(OSError, match="link"):
        read_own(tmp_path / "kept.json", 1 << 20)
    with pytest.raises(OSError, match="larger"):
        read_own(victim, 10)
    with pytest.raises(OSError, match="plain file"):
        open_own(tmp_path, "rb")
