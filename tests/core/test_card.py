"""The model card: written, read, refused when anything in it is off, and compared with a slide."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_her2.errors import ModelError
from napari_her2.models.card import EncoderSpec, ModelCard
from napari_her2.models.fit import check_fit

ENCODER = EncoderSpec("alexnet", 96, (0.1, 0.2, 0.3), (1.0, 0.5, 0.25), 1024, "bundled")
CARD = ModelCard(
    name="demo-attention-mil",
    version="1.0",
    method="attention-mil",
    architecture="AttentionMIL",
    arguments={"features": 1024, "hidden": 256, "classes": 4},
    encoder=ENCODER,
    stain="H&E",
    tile_px=96,
    mpp=0.5,
    classes=("0", "1+", "2+", "3+"),
    task="H&E-based prediction of the HER2 IHC score",
    training_data="Synthetic tissue.\nNo patient.",
    licence="BSD-3-Clause",
    intended_use="Demonstration only.",
    guideline="ASCO/CAP 2018",
    metrics={"macro AUC on unseen phantoms": 0.97},
    class_labels={"2+": "2+ (equivocal, ISH required)"},
    class_scores={"2+": ("2+",)},
    mpp_range=(3.0, 20.0),
)


def test_card_survives_json():
    text = CARD.to_json()
    assert ModelCard.from_json(text) == CARD
    assert ModelCard.from_json(text).to_json() == text
    assert json.loads(text)["encoder"]["mean"] == [0.1, 0.2, 0.3]


def test_card_always_carries_the_notice():
    assert "Not for diagnosis" in json.loads(CARD.to_json())["notice"]


def changed(path, value):
    values = json.loads(CARD.to_json())
    target = values
    *parents, last = path.split(".")
    for name in parents:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "../../etc/passwd"),
        ("name", "Demo Model"),
        ("name", ""),
        ("name", "a" * 65),
        ("name", ".hidden"),
        ("name", 3),
        ("version", ""),
        ("version", "1\x1b[2J"),
        ("task", "x" * 201),
        ("training_data", "x" * 8001),
        ("notice", " "),
        ("stain", "HE"),
        ("tile_px", 96.0),
        ("tile_px", True),
        ("tile_px", 0),
        ("tile_px", 97),
        ("mpp", 0),
        ("mpp", -0.5),
        ("mpp", "0.5"),
        ("mpp", None),
        ("mpp", 1e308),
        ("classes", ["0"]),
        ("classes", ["0", "0"]),
        ("classes", "0123"),
        ("classes", ["0", 1]),
        ("classes", [str(n) for n in range(65)]),
        ("arguments", [1]),
        ("arguments", {"features": [1]}),
        ("arguments", {"features": {"a": 1}}),
        ("arguments", {str(n): n for n in range(65)}),
        ("metrics", {"auc": "high"}),
        ("metrics", {"auc": True}),
        ("class_labels", {"4+": "unknown class"}),
        ("class_labels", {"2+": 2}),
        ("class_scores", {"4+": ["2+"]}),
        ("mpp_range", [4.0]),
        ("mpp_range", [4.0, 3.0]),
        ("mpp_range", [0.0, 3.0]),
        ("class_scores", {"2+": "2+"}),
        ("class_scores", {"2+": ["two"]}),
        ("class_scores", {"2+": ["2+"], "3+": ["2+"]}),
        ("class_scores", {"2+": []}),
        ("encoder", []),
        ("encoder.mean", [0, 0]),
        ("encoder.mean", [0, 0, "0"]),
        ("encoder.std", [1, 1, 0]),
        ("encoder.std", [1, 1, -1]),
        ("encoder.dim", 0),
        ("encoder.dim", 10**9),
        ("encoder.weights", "sha256:abc"),
        ("encoder.weights", "http://example.org"),
        ("encoder.name", None),
        ("encoder.surprise", 1),
        ("surprise", 1),
        ("guideline", ...),
        ("encoder.std", ...),
        ("card_format", 2),
        ("card_format", ...),
    ],
)
def test_card_with_a_wrong_field_is_refused_in_one_sentence(path, value):
    with pytest.raises(ModelError) as caught:
        ModelCard.from_json(changed(path, value))
    assert path.split(".")[-1] in str(caught.value) or "format" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number):
    text = CARD.to_json().replace('"mpp": 0.5', f'"mpp": {number}')
    assert number in text
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '"card"', "{}", " " * 70_000])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


def test_card_that_is_too_long_is_not_written():
    long = {f"{n:02d} {'é' * 60}": f"{'é' * 199}" for n in range(64)}
    card = replace(CARD, arguments=long, encoder=replace(ENCODER, arguments=long), training_data="é" * 8000)
    with pytest.raises(ModelError, match="64 KB"):
        card.to_json()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=10,
    ),
    st.sampled_from([*json.loads(CARD.to_json())]),
)
def test_any_value_anywhere_is_accepted_or_refused_but_never_crashes(value, name):
    text = json.dumps(json.loads(CARD.to_json()) | {name: value})
    try:
        card = ModelCard.from_json(text)
    except ModelError:
        return
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("mpp", "stain", "problem", "warning"),
    [
        ((0.25, 0.25), "H&E", None, None),
        ((0.575, 0.575), "H&E", None, None),
        ((0.576, 0.25), "H&E", r"0\.576 µm/px, too coarse", None),
        ((28.97, 28.97), "H&E", r"28\.97 µm/px, too coarse", None),
        ((0.25, 0.25), "IHC", "looks like IHC", None),
        ((0.25, 0.25), "unknown", None, "could not be recognised"),
    ],
)
def test_slide_is_compared_with_what_the_model_was_made_for(mpp, stain, problem, warning):
    fit = check_fit(CARD, mpp, stain)
    for expected, sentences in ((problem, fit.problems), (warning, fit.warnings)):
        if expected is None:
            assert sentences == ()
        else:
            assert len(sentences) == 1
            assert re.search(expected, sentences[0])


def test_overridden_problems_become_warnings():
    fit = check_fit(CARD, (2.0, 2.0), "IHC")
    assert len(fit.problems) == 2
    overridden = fit.overridden()
    assert overridden.problems == ()
    assert len(overridden.warnings) == 2
    assert "IHC" in " ".join(overridden.warnings)
