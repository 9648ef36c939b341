"""One slide under two names, labels that contradict each other, and classes that a fold lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from napari_her2.errors import JobFailed
from napari_her2.slide.content_hash import head_sha256
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.classes import class_mapping
from napari_her2_training.cohort import contents
from napari_her2_training.cohort.checks import ish_warnings, split_warnings
from napari_her2_training.cohort.manifest import Case, ManifestFaults, named_slides, read_manifest
from napari_her2_training.cohort.splits import Split, make_splits

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def case(row: int, he: Path | None, ihc: Path | None = None, case_id: str = "", **values: str) -> Case:
    return Case(row, case_id or f"c{row}", he, ihc, values.get("score", "0"), values.get("ish", ""))


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def content_faults(cases: list[Case]) -> list[str]:
    return contents.content_faults(named_slides(cases))


def test_the_same_slide_under_two_names_is_named_with_both_rows(tmp_path: Path) -> None:
    content = b"slide" * 1000
    a, b = write(tmp_path / "a.svs", content), write(tmp_path / "copy of a.svs", content)
    other = write(tmp_path / "c.svs", b"other" * 1000)
    assert content_faults([case(2, a), case(3, other), case(4, b)]) == [
        "Row 4: he copy of a.svs is the same slide as he a.svs in row 2, under another name."
    ]
    (tmp_path / "m.csv").write_text("case_id,he,score\nx,a.svs,0\ny,copy of a.svs,1+\nz,c.svs,0\n")
    with pytest.raises(ManifestFaults, match=r"Row 3: he copy of a\.svs is the same slide") as caught:
        read_manifest(tmp_path / "m.csv")
    assert len(caught.value.faults) == 1


def test_files_that_differ_in_the_middle_alone_are_two_slides(tmp_path: Path) -> None:
    # As uncompressed scans are: size, header and white edge are the same.
    edge = b"\xff" * MIB
    a, b = write(tmp_path / "a.tif", edge + b"one" + edge), write(tmp_path / "b.tif", edge + b"two" + edge)
    assert head_sha256(a) == head_sha256(b)
    assert content_faults([case(2, a), case(3, b)]) == []
    c = write(tmp_path / "c.tif", edge + b"two" + edge)
    assert content_faults([case(2, a), case(3, b), case(4, c)]) == [
        "Row 4: he c.tif is the same slide as he b.tif in row 3, under another name."
    ]


def test_nothing_is_read_of_files_whose_sizes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> str:
        raise AssertionError("it was opened")

    monkeypatch.setattr(contents, "content_sha256", refuse)
    cases = [case(row, write(tmp_path / f"{row}.svs", b"x" * row)) for row in range(2, 9)]
    assert content_faults(cases) == []


def test_a_copy_of_the_ihc_slide_may_serve_two_he_slides_of_its_case_alone(tmp_path: Path) -> None:
    he = [write(tmp_path / f"he{number}.svs", bytes([number]) * 50) for number in range(3)]
    ihc, copy = write(tmp_path / "i.svs", b"brown" * 100), write(tmp_path / "j.svs", b"brown" * 100)
    assert content_faults([case(2, he[0], ihc, "x"), case(3, he[1], copy, "x")]) == []
    (fault,) = content_faults([case(2, he[0], ihc, "x"), case(3, he[1], copy, "y")])
    assert "ihc j.svs is the same slide as ihc i.svs in row 2" in fault
    twin = write(tmp_path / "k.svs", bytes([2]) * 50)
    (fault,) = content_faults([case(2, he[2], twin, "x")])
    assert "Row 2: ihc k.svs is the same slide as he he2.svs in row 2" in fault


DICOM_HEAD = (
    b"\0" * 128 + b"DICM" + b"\x08\x00\x08\x00CS\x1c\x00ORIGINAL\\PRIMARY\\VOLUME\\NONE"
    b"\x20\x00\x0e\x00UI\x06\x001.2.84"
)


def test_slides_of_many_files_are_compared_by_all_of_them(tmp_path: Path) -> None:
    for name, pixels in (("a", b"1" * 99), ("b", b"2" * 99), ("c", b"1" * 99)):
        write(tmp_path / f"{name}.mrxs", b"the same start")
        write(tmp_path / name / "Data0000.dat", pixels)
        write(tmp_path / f"dicom_{name}" / f"{name}.dcm", DICOM_HEAD + pixels)
    cases = [case(row, tmp_path / f"{name}.mrxs") for row, name in enumerate("abc", 2)]
    assert content_faults(cases) == [
        "Row 4: he c.mrxs is the same slide as he a.mrxs in row 2, under another name."
    ]
    folders = [case(row, tmp_path / f"dicom_{name}") for row, name in enumerate("abc", 2)]
    assert [fault[:6] for fault in content_faults(folders)] == ["Row 4:"]


def test_results_of_ish_that_do_not_fit_are_told_with_their_row() -> None:
    cases = [
        case(2, None, score="3+", ish="negative"),
        case(3, None, score="0", ish="amplified"),
        case(4, None, score="2+", ish="positive"),
        case(5, None, score="1+", ish="-"),
        case(6, None, score="1+", ish="perhaps"),
        case(7, None, case_id="c4", score="2+", ish="negative"),
    ]
    found = ish_warnings(cases)
    assert [text.split(":")[0] for text in found] == ["Row 2", "Row 3", "Row 6", "Row 7"]
    assert "has score 3+ and a negative ISH" in found[0]
    assert "has score 0 and a positive ISH" in found[1]
    assert "'perhaps' is no result" in found[2]
    assert "case c4 has ish 'negative', in row 4 'positive'" in found[3]


def test_rows_that_are_left_out_and_labels_without_an_ish_are_told() -> None:
    cases = [
        replace(case(row, None, score="2+", ish="negative" if row < 3 else ""), split=split)
        for row, split in enumerate(["train", "train", "train", "validation", None, None])
    ]
    splits = [Split(tuple(cases[:3]), tuple(cases[3:4]), ())]
    assert split_warnings(cases, splits, class_mapping("low", ish=True)) == [
        "2 of 6 rows are in no part and are not used: their column split is empty.",
        "1 of 4 cases of 2+ have no ISH result: they are learnt as Low.",
    ]
    assert split_warnings(cases[:4], splits, class_mapping("low")) == []


def test_every_fold_that_lacks_a_class_to_learn_is_named(tmp_path: Path) -> None:
    scores = ["0", "0", "1+", "2+", "3+", "3+"]
    folds = [1, 2, 1, 2, 1, 2]
    cases = [
        Case(row, f"c{row}", tmp_path / f"{row}.svs", None, score, fold=fold)
        for row, (score, fold) in enumerate(zip(scores, folds, strict=True), 2)
    ]
    model = {"name": "a", "training_data": "b"}
    with pytest.raises(JobFailed) as caught:
        make_splits(cases, AttentionConfig.parse({"model": model}).data)
    assert str(caught.value) == (
        "No case of 1+ to train on in fold 1: add cases, or change it. "
        "No case of 2+ to train on in fold 2: add cases, or change it."
    )
