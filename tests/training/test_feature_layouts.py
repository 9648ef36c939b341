"""Feature files of other programs: what they state is read, checked over a cohort, and becomes a model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

import napari_her2_training
from feature_files import write_clam, write_stamp, write_trident, write_wsmcl
from napari_her2 import score_slide
from napari_her2.errors import EncoderMissing, JobFailed, ModelError
from napari_her2.models import encoder_contracts
from napari_her2.models.bundle_card import read_card
from napari_her2.models.encoder_contracts import EncoderContract
from napari_her2.models.encoder_folder import add_encoder
from napari_her2.models.encoders import build_encoder
from napari_her2.models.registry import load_model
from napari_her2.phantom import make_pair
from napari_her2_training.cohort.feature_file import MadeBy, joined
from napari_her2_training.cohort.features import read_feature_file
from napari_her2_training.cohort.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.steps import Progress

TINY = EncoderContract(
    "tiny-vit", "Tiny (ViT-T/16)", "timm", "vit_tiny_patch16_224", 192, "nobody/tiny",
    arguments={"img_size": 64}, tile_px=64, input_px=64, gated=False,
)  # fmt: skip


def rows(tiles: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tiles, width)).astype(np.float32)


def test_trident_states_its_encoder_tiles_and_scale(tmp_path: Path) -> None:
    given = rows(9, 6)
    found = read_feature_file(write_trident(tmp_path / "x.h5", given))
    np.testing.assert_array_equal(found.features, given.astype(np.float16))
    assert found.made_by == MadeBy("TRIDENT", "uni_v1", 256, 0.5)
    with h5py.File(tmp_path / "x.h5") as file:  # as plain h5py has them
        np.testing.assert_array_equal(found.coords, file["coords"][:])
    assert found.coords_unit == "px0"
    assert read_feature_file(write_trident(tmp_path / "y.h5", given, magnification=40)).made_by.mpp == 0.25


def test_stamp_states_its_extractor_and_its_places_in_um(tmp_path: Path) -> None:
    given = rows(9, 6)
    found = read_feature_file(write_stamp(tmp_path / "x.h5", given))
    np.testing.assert_array_equal(found.features, given.astype(np.float16))
    assert (found.made_by.layout, found.made_by.encoder, found.made_by.tile_px) == ("STAMP", "uni2", 224)
    assert found.made_by.mpp == pytest.approx(256 / 224)
    assert found.coords_unit == "um"


def test_clam_states_neither_encoder_nor_scale(tmp_path: Path) -> None:
    found = read_feature_file(write_clam(tmp_path / "x.h5", rows(9, 6)))
    assert found.made_by == MadeBy("CLAM", "", 256, None)
    kept = read_feature_file(write_clam(tmp_path / "batch.h5", rows(2, 6)))  # with its batch axis
    assert kept.features.shape == (2, 6)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("target_magnification", float("nan")),
        ("target_magnification", 0),
        ("target_magnification", np.arange(3)),
        ("target_magnification", "20"),
        ("patch_size", 10**9),
        ("patch_size", True),
    ],
)
def test_claims_that_cannot_be_are_not_taken(tmp_path: Path, attribute: str, value: object) -> None:
    path = write_trident(tmp_path / "x.h5", rows(9, 6))
    with h5py.File(path, "a") as file:
        file["coords"].attrs[attribute] = value
    found = read_feature_file(path).made_by
    assert (found.mpp if attribute == "target_magnification" else found.tile_px) is None


def test_an_encoder_of_no_name_is_not_taken(tmp_path: Path) -> None:
    for number, name in enumerate(("x" * 5000, "a\nb", b"\xff\xfe", 7)):
        path = write_trident(tmp_path / f"{number}.h5", rows(9, 6), None)
        with h5py.File(path, "a") as file:
            file["features"].attrs["encoder"] = name
        assert read_feature_file(path).made_by.encoder in ("", "\ufffd\ufffd")


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (np.zeros((8, 2), np.int64), "9 features and 8 coordinates"),
        (np.zeros((9, 3), np.int64), r"coordinates of shape \(9, 3\)"),
        (np.full((9, 2), np.nan), "coordinates that are not numbers"),
        (np.array([b"a"] * 9), "coordinates of shape"),
    ],
)
def test_coordinates_that_do_not_belong_to_the_features_are_refused(
    tmp_path: Path, coords: np.ndarray, message: str
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"], file["coords"] = rows(9, 6), coords
    with pytest.raises(JobFailed, match=message):
        read_feature_file(tmp_path / "x.h5")


def test_features_of_whole_slides_and_files_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="features of a whole slide"):
        read_feature_file(write_stamp(tmp_path / "x.h5", rows(1, 6), kind="slide"))
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["patches"] = rows(9, 6)
    with pytest.raises(JobFailed, match="no dataset 'features'"):
        read_feature_file(tmp_path / "y.h5")


def test_what_files_of_a_cohort_state_must_agree() -> None:
    uni = MadeBy("TRIDENT", "uni_v1", 256, 0.5)
    assert joined(MadeBy(), uni) == uni
    assert joined(MadeBy("CLAM", "", 256), uni).encoder == "uni_v1"
    assert joined(uni, MadeBy("TRIDENT", "UNI-v1", 256, 0.49)).mpp == 0.5
    for other, message in (
        (MadeBy("TRIDENT", "virchow2", 256, 0.5), "made with virchow2, those before it with uni_v1"),
        (MadeBy("TRIDENT", "uni_v1", 512, 0.5), "of other tiles"),
        (MadeBy("TRIDENT", "uni_v1", 256, 0.25), "of other tiles"),
    ):
        with pytest.raises(JobFailed, match=message):
            joined(uni, other)


def headless(folder: Path, lines: list[str], stains: tuple[str, ...] = ("he", "ihc")) -> Path:
    for line in lines:
        for number, stain in enumerate(stains):
            case = line.split(",")[0]
            write_wsmcl(folder / stain, case, rows(5, 6, seed=hash((case, number)) % 1000))
    path = folder / "trainval.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_without_a_header_finds_its_features_beside_it(tmp_path: Path) -> None:
    cases = read_manifest(headless(tmp_path, ["63,2,1", "64,0,2", "65,3,1"]), ("he", "ihc"))
    assert [(case.case_id, case.score, case.fold) for case in cases] == [
        ("63", "2+", 1),
        ("64", "0", 2),
        ("65", "3+", 1),
    ]
    assert cases[0].slide("ihc") == tmp_path / "ihc" / "63_features.pth"
    alone = read_manifest(headless(tmp_path, ["63,2", "64,3"]))
    assert [case.fold for case in alone] == [None, None]


def test_what_such_a_table_cannot_mean_is_refused(tmp_path: Path) -> None:
    path = headless(tmp_path, ["63,2,1", "64,0,2"], ("he",))
    with pytest.raises(JobFailed, match=r"Row 2: ihc ihc/64_features\.pth does not exist"):
        read_manifest(path, ("he", "ihc"))
    with pytest.raises(JobFailed, match="may be scores or negative and positive"):
        read_manifest(headless(tmp_path, ["63,0,1", "64,1,2"]))
    path.write_text("63,2,1\n../../etc/passwd,3,1\n")
    with pytest.raises(JobFailed, match="Row 2"):
        read_manifest(path)


CONFIG = """
[model]
name = "tiny"
training_data = "numbers made up"
[data]
stain = "he"
classes = "scores"
[head]
architecture = "clam-sb"
width = 8
hidden = 8
epochs = 1
[measure]
resamples = 3
[compute]
device = "cpu"
"""


def finish(steps: Generator[Progress, None, Path]) -> tuple[list[str], Path]:
    notes = []
    while True:
        try:
            notes.append(next(steps).note)
        except StopIteration as end:
            return notes, end.value


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A small encoder among those that are known by name; its folder is empty."""
    monkeypatch.setattr(encoder_contracts, "ENCODERS", {**encoder_contracts.ENCODERS, TINY.name: TINY})
    monkeypatch.setattr(encoder_contracts, "_ALIASES", {**encoder_contracts._ALIASES, "tinyvit": TINY.name})
    monkeypatch.setenv("NAPARI_HER2_ENCODERS", str(tmp_path / "encoders"))
    return TINY.name


def cohort(folder: Path, encoder: str, width: int = 192, count: int = 8) -> Path:
    lines = ["case_id,he,score,split"]
    for number in range(count):
        name = f"{number}.h5"
        write_trident(folder / name, rows(6, width, number), encoder, magnification=20)
        with h5py.File(folder / name, "a") as file:
            file["coords"].attrs["patch_size"] = 64
        lines.append(f"c{number},{name},{number % 4},{'train' if number < 4 else 'validation'}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def train(folder: Path, text: str = CONFIG) -> tuple[list[str], Path]:
    config = folder / "mil.toml"
    config.write_text(text)
    return finish(napari_her2_training.run("mil", config, folder / "manifest.csv", folder / "out"))


def slide_of(folder: Path) -> Path:
    return make_pair(folder, "case", size_px=1536, seed=4, score="2+").he


def weights_file(folder: Path, seed: int) -> Path:
    from safetensors.torch import save_file

    path = folder / f"weights{seed}.safetensors"
    save_file(build_encoder("tiny-vit", seed=seed).backbone.state_dict(), path)
    return path


def test_features_of_a_known_encoder_give_a_model_that_scores_slides(tmp_path: Path, tiny: str) -> None:
    """First without its weights, which are then asked for by name; the first that are met are held on to."""
    cohort(tmp_path, "Tiny_ViT")
    notes, path = train(tmp_path)
    card = read_card(path)
    assert path.name == "tiny.safetensors"
    assert card.encoder is not None
    assert (card.encoder.contract, card.encoder.weights, card.encoder.dim) == (tiny, "named", 192)
    assert (card.tile_px, card.mpp, card.min_tissue) == (64, 0.5, None)
    assert "not known by their digest" in card.training_data
    assert any("napari-her2 encoders add FILE --name tiny-vit" in note for note in notes)
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert record["bundle"] == "written"
    assert "files of features" in record["doubt"][0]["remarks"][0]
    with pytest.raises(EncoderMissing, match="encoders add FILE --name tiny-vit"):
        load_model(path)
    add_encoder(weights_file(tmp_path, 1), tiny)
    bundle = load_model(path)
    assert bundle.patch_encoder.spec.weights.startswith("sha256:")
    result = score_slide(slide_of(tmp_path), path, device="cpu", cache=False)
    assert set(result.probabilities) == {"0", "1+", "2+", "3+"}
    add_encoder(weights_file(tmp_path, 2), tiny, force=True)
    with pytest.raises(ModelError, match="first opened with other weights of Tiny"):
        load_model(path)


def test_weights_that_are_installed_are_named_by_their_digest(tmp_path: Path, tiny: str) -> None:
    kept = add_encoder(weights_file(tmp_path, 1), tiny)
    cohort(tmp_path, "tiny-vit")
    _, path = train(tmp_path)
    card = read_card(path)
    assert card.encoder is not None
    assert card.encoder.weights == f"sha256:{kept.digest}"
    assert "taken for the weights that are installed here" in card.training_data


@pytest.mark.usefixtures("tiny")
def test_features_of_another_length_than_the_encoder_gives_are_refused(tmp_path: Path) -> None:
    cohort(tmp_path, "tiny-vit", width=100)
    with pytest.raises(JobFailed, match="have length 100, but tiny-vit gives 192"):
        train(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_two_encoders_in_one_cohort_are_refused_with_their_row(tmp_path: Path) -> None:
    cohort(tmp_path, "tiny-vit")
    with h5py.File(tmp_path / "5.h5", "a") as file:
        file["features"].attrs["encoder"] = "virchow2"
    with pytest.raises(
        JobFailed, match="Row 7 of the manifest, case c5: its features were made with virchow2"
    ):
        train(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_an_encoder_that_builds_no_network_here_gives_a_head_alone(tmp_path: Path) -> None:
    cohort(tmp_path, "conch_v15", width=768)
    notes, path = train(tmp_path)
    assert path.name == "tiny.head.safetensors"
    assert any("conch_v15" in note and "no model that scores slides" in note for note in notes)


@pytest.mark.usefixtures("tiny")
def test_tiles_that_files_do_not_state_are_asked_for(tmp_path: Path) -> None:
    manifest = cohort(tmp_path, "tiny-vit")
    for number in range(8):
        with h5py.File(tmp_path / f"{number}.h5", "a") as file:
            del file["coords"]
    assert manifest.exists()
    notes, path = train(tmp_path)
    assert path.name == "tiny.head.safetensors"
    assert any("features_tile_px and features_mpp" in note for note in notes)
    (tmp_path / "again").mkdir()
    text = CONFIG.replace("[head]", "[encoder]\nfeatures_tile_px = 64\nfeatures_mpp = 0.25\n[head]")
    config = tmp_path / "again.toml"
    config.write_text(text)
    _, path = finish(napari_her2_training.run("mil", config, manifest, tmp_path / "again"))
    assert (read_card(path).tile_px, read_card(path).mpp) == (64, 0.25)


def test_features_of_our_own_embed_state_all_of_their_encoder(tmp_path: Path) -> None:
    from napari_her2.cohort.embed_job import _stated

    encoder = build_encoder("timm:vit_tiny_patch16_224", tile_px=64, arguments={"img_size": 64}, seed=1)
    spec = replace(encoder.spec, weights=f"sha256:{'2' * 64}")
    cohort(tmp_path, "timm:vit_tiny_patch16_224")
    for number in range(8):
        with h5py.File(tmp_path / f"{number}.h5", "a") as file:
            file.attrs["encoder_spec"] = _stated(spec)
            file["coords"].attrs["mpp"] = 0.46
    _, path = train(tmp_path)
    card = read_card(path)
    assert card.encoder == spec
    assert card.mpp == 0.46
    with h5py.File(tmp_path / "3.h5", "a") as file:
        file.attrs["encoder_spec"] = _stated(replace(spec, weights=f"sha256:{'3' * 64}"))
    with pytest.raises(JobFailed, match="Row 5 of the manifest, case c3: its features were made with other"):
        finish(
            napari_her2_training.run("mil", tmp_path / "mil.toml", tmp_path / "manifest.csv", tmp_path / "b")
        )
    assert _stated(encoder.spec) == ""  # random weights are nobody's


def test_a_truncated_file_of_features_is_refused_with_its_row(tmp_path: Path, tiny: str) -> None:
    cohort(tmp_path, tiny)
    data = (tmp_path / "2.h5").read_bytes()
    (tmp_path / "2.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(JobFailed, match=r"Row 4 of the manifest, case c2: 2\.h5 is damaged"):
        train(tmp_path)


def test_coordinates_of_wsmcl_are_no_features(tmp_path: Path) -> None:
    write_wsmcl(tmp_path / "he", "63", rows(5, 6))
    with pytest.raises(JobFailed, match="holds int64"):
        read_feature_file(tmp_path / "he" / "63_coordinates.pth")
    assert torch.load(tmp_path / "he" / "63_features.pth", weights_only=True).shape == (5, 6)
