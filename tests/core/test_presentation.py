"""Words of a score: what is never said, and what an ISH result would mean."""

from __future__ import annotations

import pytest

from napari_her2.cohort.facts import scored_facts
from napari_her2.inference.class_words import class_label, class_name, with_ish
from napari_her2.methods.catalogue import method_of
from napari_her2.methods.low_resolution import blind_spot, images_in_words
from napari_her2.models.card import ModelCard
from napari_her2.models.class_scores import NO_POSITIVE_ISH, POSITIVE_ISH
from scored import make_image_result, make_result


@pytest.mark.parametrize("name", ["Low", "low", "HER2-low"])
def test_a_class_of_1_and_2_is_never_called_her2_low_whatever_its_card_says(name: str) -> None:
    assert class_label(name, {name: "HER2-low"}) == "1+/2+ (ISH unknown)"
    assert class_name(name) == "1+/2+ (ISH unknown)"


def test_other_classes_take_the_words_of_their_card() -> None:
    assert class_label("High", {"High": "3+ (positive)"}) == "3+ (positive)"
    assert class_label("2+") == "2+ (equivocal, ISH required)"
    assert class_name("2+") == "2+"
    assert class_label("High") == class_name("High") == "High (3+)"


@pytest.mark.parametrize(
    ("name", "held", "words"),
    [
        ("Low", ("1+",), "1+"),
        ("Low", ("0", "1+", "2+"), "0/1+/2+ (ISH unknown)"),
        ("Low", ("1+", NO_POSITIVE_ISH), "1+/2+ (no positive ISH)"),
        ("High", ("3+", POSITIVE_ISH), "High (3+, or 2+ with a positive ISH)"),
        ("Equivocal", ("2+",), "Equivocal (2+, ISH unknown)"),
        ("negative", ("0", "1+"), "negative (0/1+)"),
        ("positive", ("2+", "3+"), "positive (2+/3+, ISH unknown)"),
        ("2+", ("2+",), "2+"),
        ("2+", (NO_POSITIVE_ISH,), "2+ (no positive ISH)"),
        ("3+", ("2+", "3+"), "3+ (2+/3+, ISH unknown)"),
        ("else", (), "else"),
    ],
)
def test_a_class_is_named_with_what_its_card_says_it_holds(
    name: str, held: tuple[str, ...], words: str
) -> None:
    assert class_name(name, {name: held}) == words
    assert class_label(name, None, {name: held}) == (
        "2+ (equivocal, ISH required)" if held == ("2+",) == (name,) else words
    )


@pytest.mark.parametrize(
    ("name", "held", "ish", "words"),
    [
        ("Low", ("1+",), "negative", "With ISH negative: 1+ would be HER2-low."),
        (
            "Low",
            ("0", "1+", "2+"),
            "negative",
            "With ISH negative: 0 would be HER2-null or HER2-ultralow, 1+ or 2+ would be HER2-low; the model "
            "cannot tell 0, 1+ from 2+.",
        ),
        (
            "High",
            ("3+", POSITIVE_ISH),
            "positive",
            "With ISH positive: 3+ or 2+ would be HER2-positive.",
        ),
        (
            "Low",
            ("1+", NO_POSITIVE_ISH),
            "positive",
            "With ISH positive: 2+ would be HER2-positive; the model cannot tell 1+ from 2+.",
        ),
        (
            "positive",
            ("2+", "3+"),
            "negative",
            "With ISH negative: 2+ would be HER2-low; the model cannot tell 2+ from 3+.",
        ),
        ("positive", ("2+", "3+"), "pending", "positive (2+/3+, ISH unknown) stays open until ISH is known."),
    ],
)
def test_what_an_ish_result_would_mean_rests_on_what_the_class_holds(
    name: str, held: tuple[str, ...], ish: str, words: str
) -> None:
    assert with_ish(name, ish, {name: held}) == words


@pytest.mark.parametrize(
    ("predicted", "ish", "words"),
    [
        ("Low", "negative", "With ISH negative: 1+ or 2+ would be HER2-low."),
        (
            "Low",
            "positive",
            "With ISH positive: 2+ would be HER2-positive; the model cannot tell 1+ from 2+.",
        ),
        ("Low", "pending", "1+/2+ (ISH unknown) stays open until ISH is known."),
        ("Low", "", ""),
        ("High", "positive", "With ISH positive: 3+ would be HER2-positive."),
        (
            "High",
            "negative",
            "ISH negative does not agree with a predicted High (3+): look at IHC and ISH again.",
        ),
        (
            "0",
            "negative",
            "With ISH negative: 0 would be HER2-null or HER2-ultralow; the model cannot tell which.",
        ),
        ("0", "positive", "ISH positive does not agree with a predicted 0: look at IHC and ISH again."),
        ("1+", "negative", "With ISH negative: 1+ would be HER2-low."),
        ("1+", "positive", "ISH positive does not agree with a predicted 1+: look at IHC and ISH again."),
        ("2+", "negative", "With ISH negative: 2+ would be HER2-low."),
        ("2+", "positive", "With ISH positive: 2+ would be HER2-positive."),
        ("2+", "pending", "2+ stays open until ISH is known."),
        ("3+", "positive", "With ISH positive: 3+ would be HER2-positive."),
        ("3+", "negative", "ISH negative does not agree with a predicted 3+: look at IHC and ISH again."),
        ("3+", "pending", ""),
        ("", "negative", ""),
        ("negative", "positive", ""),
        ("Low", "perhaps", ""),
    ],
)
def test_what_an_ish_result_would_mean_for_a_predicted_class(predicted: str, ish: str, words: str) -> None:
    assert with_ish(predicted, ish) == words


def test_what_a_resolution_cannot_show_is_told_and_fine_pixels_are_not_blamed() -> None:
    words = blind_spot(6.4)
    assert "6.4 µm wide, 10 times the membrane stain of a 1+" in words
    assert "0 against 1+ is the weak spot" in words
    assert blind_spot(0.5) == ""


def test_images_are_counted() -> None:
    assert images_in_words(make_image_result().thumbnails) == "1 image of 64 × 64 px at 5 µm/px"
    assert images_in_words(make_image_result(images=3).thumbnails) == "3 images of 64 × 64 px at 5 µm/px"


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("abmil", {}, "512 px tiles at 6.1 µm/px"),
        ("low-resolution", {"mode": "fit"}, "the tissue as one image of 512 px, at about 6.1 µm/px"),
        ("low-resolution", {"mode": "fixed"}, "the tissue as images of 512 px at 6.1 µm/px"),
    ],
)
def test_a_card_says_what_its_model_looks_at(method: str, arguments: dict[str, str], words: str) -> None:
    card = ModelCard(
        name="m",
        version="1",
        method=method,
        architecture="A",
        arguments=arguments,
        encoder=None,
        stain="IHC",
        tile_px=512,
        mpp=6.1,
        classes=("0", "Low", "High"),
        task="HER2 IHC score",
        training_data="nothing",
        licence="BSD-3-Clause",
        intended_use="tests",
        guideline="ASCO/CAP 2018",
    )
    assert method_of(card).sees(card) == words


def test_the_table_of_the_command_line_speaks_of_images_and_names_its_rule(tmp_path: object) -> None:
    rows = dict(scored_facts(make_image_result(), "tifffile", tmp_path))
    assert rows["seen"] == "1 image of 64 × 64 px at 5 µm/px · 12.3 mm² tissue"
    assert "weak spot" in rows["limit"]
    assert rows["score of the slide"].startswith("mean of 8 views")
    assert "P(1+/2+ (ISH unknown))" in rows
    assert "tiles" not in rows["seen"]
    plain = dict(scored_facts(make_result(), "tifffile", tmp_path))
    assert plain["seen"].startswith("96 tiles of 25 µm at 0.5 µm/px")
    assert not {"limit", "score of the slide"} & set(plain)
