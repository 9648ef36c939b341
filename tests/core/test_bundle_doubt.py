"""The doubt in a bundle: what was kept comes back, and nothing that makes no sense is let in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from doubt_by_hand import FAMILIARITY_CARD, answer_sets, familiarity, space
from napari_her2.cli import app
from napari_her2.errors import ModelError
from napari_her2.models.attention_mil import AttentionMIL
from napari_her2.models.bundle import load_bundle, save_bundle, with_doubt
from napari_her2.models.bundle_card import read_card
from napari_her2.models.card import ModelCard
from napari_her2.models.card_doubt import (
    AnswerSetsCard,
    FamiliarityCard,
    answer_sets_words,
    doubt_words,
    familiarity_words,
)
from napari_her2.models.encoders import build_encoder
from napari_her2.models.familiarity import FEATURES, Familiarity
from napari_her2.models.patch_encoder import PatchEncoder
from napari_her2.models.weights_file import weights_digest, write_weights

ENCODER = build_encoder("timm:test_resnet", tile_px=64)
DIM = ENCODER.spec.dim
SETS, SETS_CARD = answer_sets()


def head():
    with torch.random.fork_rng():
        torch.manual_seed(9)
        return AttentionMIL(DIM, 4, 4)


def card(**changes):
    texts = dict.fromkeys(("task", "training_data", "licence", "intended_use", "guideline"), "none")
    values = {
        "name": "tiny",
        "version": "1",
        "method": "attention-mil",
        "architecture": "AttentionMIL",
        "arguments": {"features": DIM, "hidden": 4, "classes": 4},
        "encoder": ENCODER.spec,
        "stain": "H&E",
        "tile_px": 64,
        "mpp": 0.5,
        "classes": ("0", "1+", "2+", "3+"),
    }
    return ModelCard(**(values | texts | changes))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "tiny.safetensors"
    save_bundle(path, card(), ENCODER, head())
    return path


@pytest.fixture(scope="module")
def doubted(tmp_path_factory):
    path = tmp_path_factory.mktemp("doubted") / "tiny.safetensors"
    save_bundle(
        path,
        card(familiarity=FAMILIARITY_CARD, answer_sets=SETS_CARD),
        ENCODER,
        head(),
        familiarity=familiarity(DIM),
        answer_sets=SETS,
    )
    return path


@pytest.fixture
def parts(doubted):
    """Metadata and tensors, to be spoiled and written by the library itself."""
    with safe_open(doubted, "pt") as file:
        return dict(file.metadata()), load_file(doubted)


def assert_same(found, wanted):
    for item in fields(wanted):
        one, other = getattr(found, item.name), getattr(wanted, item.name)
        if is_dataclass(other):
            assert_same(one, other)
        else:
            np.testing.assert_array_equal(one, other)


def test_doubt_comes_back(doubted):
    bundle = load_bundle(doubted)
    assert bundle.card.familiarity == FAMILIARITY_CARD
    assert bundle.card.answer_sets == SETS_CARD
    assert read_card(doubted) == bundle.card
    for key, wanted in familiarity(DIM).spaces.items():
        found = bundle.familiarity.spaces[key]
        assert_same(found, wanted)
    assert bundle.familiarity.spaces.keys() == familiarity(DIM).spaces.keys()
    found, wanted = bundle.answer_sets.heads["slide"], SETS.heads["slide"]
    for label in range(4):
        # The order of the cases says nothing, and is not kept.
        assert sorted(found.scores[found.labels == label]) == sorted(wanted.scores[wanted.labels == label])


def test_bundle_without_doubt_says_that_nothing_is_known(plain):
    bundle = load_bundle(plain)
    assert bundle.familiarity is None
    assert bundle.answer_sets is None
    with safe_open(plain, "pt") as file:
        text = json.loads(file.metadata()["napari_her2"])
    assert "familiarity" not in text
    assert "answer_sets" not in text


def test_doubt_is_small_and_halved(doubted, parts):
    _, tensors = parts
    kept = {key: value for key, value in tensors.items() if key.startswith(("familiarity.", "answer_sets."))}
    assert sum(value.nbytes for value in kept.values()) < 2**20
    assert kept["familiarity.H&E.features.components"].dtype == torch.float16
    assert kept["familiarity.H&E.appearance.mean"].dtype == torch.float32
    assert kept["answer_sets.slide.labels"].tolist() == sorted(kept["answer_sets.slide.labels"].tolist())


def test_weights_stay_byte_for_byte_when_only_the_doubt_changes(plain, doubted, tmp_path):
    path = tmp_path / "other.safetensors"
    with_doubt(plain, path, familiarity(DIM), FAMILIARITY_CARD, SETS, SETS_CARD)
    assert path.read_bytes() == doubted.read_bytes()
    with_doubt(path, path, None, None, None, None)
    assert path.read_bytes() == plain.read_bytes()
    with_doubt(plain, path, None, None, SETS, SETS_CARD)
    before, after = load_file(plain), load_file(path)
    assert before.keys() == {key for key in after if not key.startswith("answer_sets.")}
    assert weights_digest(before) == weights_digest({key: after[key] for key in before})
    assert load_bundle(path).familiarity is None


def test_model_with_weights_elsewhere_finds_them_at_its_new_place(tmp_path):
    spec = replace(ENCODER.spec, weights=f"sha256:{weights_digest(ENCODER.backbone.state_dict())}")
    apart = PatchEncoder(spec, ENCODER.backbone)
    path, moved = tmp_path / "a" / "tiny.safetensors", tmp_path / "b" / "new.safetensors"
    save_bundle(path, card(encoder=spec), apart, head())
    write_weights(path.with_name("tiny.encoder.safetensors"), ENCODER.backbone.state_dict(), {})
    with_doubt(path, moved, familiarity(DIM), FAMILIARITY_CARD, None, None)
    bundle = load_bundle(moved)
    assert bundle.familiarity is not None
    assert weights_digest(bundle.encoder.backbone.state_dict()) == spec.weights.removeprefix("sha256:")


def test_write_that_fails_leaves_what_was_there(plain, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"the one before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match="No space left on device"):
        with_doubt(plain, path, None, None, SETS, SETS_CARD)
    assert path.read_bytes() == b"the one before"


@pytest.mark.parametrize(
    ("part", "kept", "problem"),
    [
        ({"familiarity": FAMILIARITY_CARD}, {}, "its card has familiarity, its file has none"),
        ({}, {"familiarity": familiarity(DIM)}, "its file has familiarity, its card has none"),
        ({"answer_sets": SETS_CARD}, {}, "its card has answer_sets, its file has none"),
        ({}, {"answer_sets": SETS}, "its file has answer_sets, its card has none"),
        ({"familiarity": FAMILIARITY_CARD}, {"familiarity": familiarity(DIM + 1)}, "does not fit"),
        (
            {"familiarity": replace(FAMILIARITY_CARD, appearance=None)},
            {"familiarity": familiarity(DIM)},
            "do not agree on whether it describes pixels",
        ),
        (
            {"familiarity": replace(FAMILIARITY_CARD, validated=7)},
            {"familiarity": familiarity(DIM)},
            "cannot be with the 7 of its card",
        ),
        (
            {"familiarity": FAMILIARITY_CARD},
            {"familiarity": familiarity(DIM, stains=("IHC",))},
            "'familiarity.IHC.*' has no place",
        ),
        (
            {"familiarity": replace(FAMILIARITY_CARD, appearance=None)},
            {"familiarity": Familiarity({("H&E", FEATURES): space(DIM, slides=2)})},
            "at least 3 are needed",
        ),
        (
            {"familiarity": FAMILIARITY_CARD},
            {"familiarity": familiarity(DIM, appearance=65_536)},
            "at most 1 MB",
        ),
        ({"answer_sets": answer_sets(each=11)[1]}, {"answer_sets": SETS}, "instead of I64 of the 44 cases"),
        (
            {"answer_sets": SETS_CARD},
            {"answer_sets": answer_sets(heads=("H&E",))[0]},
            "'answer_sets.H&E.*' has no",
        ),
    ],
)
def test_parts_that_do_not_fit_are_not_saved(tmp_path, part, kept, problem):
    path = tmp_path / "tiny.safetensors"
    with pytest.raises(ModelError, match=re.compile(problem, re.DOTALL)) as error:
        save_bundle(path, card(**part), ENCODER, head(), **kept)
    assert len(str(error.value)) < 400
    assert not path.exists()


def spoiled(tmp_path, parts, change):
    metadata, tensors = parts
    change(tensors, metadata)
    path = tmp_path / "spoiled.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
    return path


def put(key, value):
    def change(tensors, _):
        tensors[key] = value(tensors[key]) if callable(value) else value

    return change


def references(count):
    def change(tensors, _):
        tensors[F + "references"], tensors[F + "reach"] = torch.zeros(count, 6), torch.ones(count)

    return change


def gone(key):
    def change(tensors, _):
        del tensors[key]

    return change


F, A = "familiarity.H&E.features.", "familiarity.H&E.appearance."


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (gone(F + "mean"), "'H&E.features.mean' is missing"),
        (put(F + "other", torch.zeros(1)), "has no place"),
        (put("familiarity.", torch.zeros(1)), "has no place"),
        (put("familiarity.IHC.features.mean", torch.zeros(DIM)), "has no place"),
        (put(F + "mean", lambda old: old[1:]), "does not fit"),
        (put(F + "mean", lambda old: old.double()), "F64"),
        (put(F + "scale", lambda old: old[:-1]), "does not fit"),
        (put(F + "references", lambda old: old[:, :-1]), "does not fit"),
        (put(F + "references", lambda old: old[:-1]), "does not fit"),
        (references(0), "possible are 1 to"),
        (references(5000), "possible are 1 to"),
        (put(F + "reach", lambda old: old.clone().fill_(0)), "must be above 0"),
        (put(F + "slides", lambda old: old[:, :1]), "does not fit"),
        (put(F + "slides", lambda old: old[:2]), "does not fit"),
        (put(F + "slides", lambda old: -old), "must not be below 0"),
        (put(F + "rest", torch.zeros(1)), "does not fit"),
        (put(F + "rest", torch.tensor(0.0)), "must be above 0"),
        (put(F + "tile_limit", torch.tensor(-1.0)), "must be above 0"),
        (put(F + "scale", lambda old: old * 0), "must be above 0"),
        (put(F + "scale", lambda old: old * float("nan")), "not numbers"),
        (put(A + "components", lambda old: old * float("inf")), "not numbers"),
        (put(A + "components", lambda old: old * 2), "right angles"),
        (put(A + "mean", lambda _: torch.zeros(300_000)), "at most 1 MB"),
        (put(F + "turn", lambda old: old[:, 1:]), "does not fit"),
        (put(F + "known", lambda old: old[:, 1:]), "does not fit"),
        (put(F + "known", lambda old: -old), "must not be below 0"),
        (put(F + "places", lambda old: old[:0]), "possible are 1 to"),
        (gone(F + "known"), "is missing"),
        (put("answer_sets.slide.labels", lambda old: old.flip(0)), "sorted"),
        (put("answer_sets.slide.labels", lambda old: old + 1), "sorted"),
        (put("answer_sets.slide.labels", lambda old: old - 1), "sorted"),
        (put("answer_sets.slide.labels", lambda old: old.clamp(max=2)), "other numbers of cases"),
        (put("answer_sets.slide.labels", lambda old: old.float()), "F32"),
        (put("answer_sets.slide.scores", lambda old: old + 1), "from 0 to 1"),
        (put("answer_sets.slide.scores", lambda old: old[:-1]), "of the 40 cases"),
        (put("answer_sets.fusion.scores", torch.zeros(40)), "has no place"),
        (gone("answer_sets.slide.scores"), "is missing"),
    ],
)
def test_hostile_doubt_is_refused_in_one_sentence(tmp_path, parts, change, problem):
    path = spoiled(tmp_path, parts, change)
    with pytest.raises(ModelError, match=problem) as error:
        load_bundle(path)
    assert path.name in str(error.value)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


def test_claims_are_refused_before_anything_is_read(tmp_path, parts, monkeypatch):
    path = spoiled(tmp_path, parts, put(A + "mean", lambda _: torch.zeros(300_000)))
    monkeypatch.setattr("napari_her2.models.bundle.read_weights", lambda _: pytest.fail("was read"))
    with pytest.raises(ModelError, match="at most 1 MB"):
        load_bundle(path)


def test_card_says_what_its_doubt_was_made_from(doubted):
    text = read_card(doubted).to_json()
    assert ModelCard.from_json(text) == read_card(doubted)
    assert json.loads(text)["familiarity"]["learnt"] == 20
    assert json.loads(text)["answer_sets"]["cases"]["slide"]["1+"] == 10


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("familiarity", 3, "must be a part"),
        ("familiarity", {"learnt": 1}, "is missing"),
        ("familiarity", {"learnt": 0}, "learnt"),
        ("familiarity", {"validated": True}, "validated"),
        ("familiarity", {"appearance": "1"}, "appearance"),
        ("familiarity", {"made_from": "a\x1b[2J"}, "control characters"),
        ("familiarity", {"extra": 1}, "familiarity.extra is unknown"),
        ("answer_sets", {"cases": {}}, "must name a head"),
        ("answer_sets", {"cases": {"fusion": {"0": 1}}}, "heads slide"),
        ("answer_sets", {"cases": {"slide": {"4+": 1}}}, "classes of the model"),
        ("answer_sets", {"cases": {"slide": {"0": 0}}}, "not all 0"),
        ("answer_sets", {"cases": {"slide": {"0": -1, "1+": 5}}}, "whole numbers"),
        ("answer_sets", {"cases": {"slide": {"0": 1.5}}}, "whole numbers"),
        ("answer_sets", {"cases": {"slide": []}}, "must map"),
        ("answer_sets", {"made_from": ""}, "made_from"),
    ],
)
def test_wrong_part_of_a_card_is_refused(doubted, name, value, problem):
    values = json.loads(read_card(doubted).to_json())
    if isinstance(value, dict) and value != {"learnt": 1}:
        value = values[name] | value
    with pytest.raises(ModelError, match=re.escape(problem)):
        ModelCard.from_json(json.dumps(values | {name: value}))


def test_parts_are_checked_where_they_are_made():
    with pytest.raises(ModelError, match="learnt"):
        FamiliarityCard(-1, 3, None, "x")
    with pytest.raises(ModelError, match="cases"):
        AnswerSetsCard({"slide": {"0": 10**9}}, "x")


def test_words_say_what_is_known_and_what_is_not(doubted, plain):
    card = read_card(doubted)
    assert familiarity_words(card.familiarity) == "20 training slides, limits from 8 validation slides"
    assert answer_sets_words(card.answer_sets) == (
        "40 calibration cases (10 of 0, 10 of 1+, 10 of 2+, 10 of 3+)"
    )
    two = answer_sets(heads=("fusion", "IHC"), each=1)[1]
    assert answer_sets_words(two).startswith("fusion: 4 calibration cases (1 of 0, ")
    assert doubt_words(card.familiarity, card.answer_sets) == "seen: 20 slides; sets: 40 cases"
    assert "familiar" not in doubt_words(read_card(plain).familiarity, None)


def test_commands_and_docks_show_both_parts(doubted, plain):
    run = CliRunner().invoke
    shown = " ".join(run(app, ["models", "show", str(doubted)]).stdout.split())
    assert "20 training slides, limits from 8 validation slides" in shown
    assert "20 training and 8 validation slides" in shown
    assert "validation and calibration cases" in shown
    verified = run(app, ["models", "verify", str(doubted)]).stdout
    assert "familiarity: 20 training slides" in verified
    assert "sets: 40 calibration cases (10 of 0" in verified
    older = run(app, ["models", "verify", str(plain)]).stdout
    assert "familiarity: not known; sets: no sets" in older


def test_reading_a_card_with_its_doubt_needs_no_torch(doubted):
    code = (
        "import sys, pathlib; from napari_her2.models.bundle_card import read_card; "
        f"assert read_card(pathlib.Path({str(doubted)!r})).familiarity.learnt == 20; "
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
