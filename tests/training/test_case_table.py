"""The table of cases: faults are named with their row, cases never cross a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_her2.errors import JobFailed
from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.cohort.manifest import Case, label_of, read_manifest
from napari_her2_training.cohort.splits import Split, make_splits

if TYPE_CHECKING:
    from pathlib import Path


def data_config(**values: object) -> object:
    return AttentionConfig.parse({"model": {"name": "a", "training_data": "b"}, "data": values}).data


def write(folder: Path, *rows: str, header: str = "case_id,he,ihc,score") -> Path:
    for name in "abcd":
        (folder / f"{name}.svs").touch()
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def made(folder: Path, count: int, slides: int = 1) -> tuple[Case, ...]:
    return tuple(
        Case(row, f"c{row}", folder / f"{row}_{s}.svs", None, ("0", "1+", "2+", "3+")[row % 4])
        for row in range(count)
        for s in range(slides)
    )


def test_paths_are_relative_to_the_manifest_and_scores_may_be_plain_numbers(tmp_path: Path) -> None:
    cases = read_manifest(write(tmp_path, "x,a.svs,b.svs,2+", "y,c.svs,,3"))
    assert [case.score for case in cases] == ["2+", "3+"]
    assert cases[0].he == tmp_path / "a.svs"
    assert cases[0].ihc == tmp_path / "b.svs"
    assert cases[1].ihc is None
    assert [label_of(case, "scores") for case in cases] == [2, 3]
    assert [label_of(case, "binary") for case in cases] == [1, 1]


def test_excel_s_byte_order_mark_does_not_hide_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path, "x,a.svs,,0")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_manifest(path)[0].case_id == "x"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["x,a.svs,,4+"], r"Row 2: score '4\+' is none of 0, 1\+, 2\+, 3\+"),
        (["x,a.svs,,0", ",b.svs,,1+"], "Row 3: no case_id"),
        (["x,none.svs,,0"], "Row 2: he none.svs does not exist"),
        (["x,a.svs,none.svs,0"], "Row 2: ihc none.svs does not exist"),
        (["x,,,0"], "Row 2: no he"),
        (["x,a.svs,,0,extra"], "Row 2: more values than columns"),
        (["x,a.svs,,0", "y,a.svs,,1+"], "Row 3: the slide a.svs is in row 2 already"),
        (["x,a.svs,,0", "x,b.svs,,1+"], r"Row 3: case x has score 1\+, in row 2 0"),
    ],
)
def test_faults_are_named_with_their_row(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        read_manifest(write(tmp_path, *rows))


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"has 3 faults.*Row 2.*Row 3.*Row 4"):
        read_manifest(write(tmp_path, "x,a.svs,,9", "y,none.svs,,0", ",b.svs,,0"))


def test_columns_and_splits_are_checked(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="has no column score"):
        read_manifest(write(tmp_path, "x,a.svs", header="case_id,he"))
    with pytest.raises(JobFailed, match="holds no case"):
        read_manifest(write(tmp_path))
    header = "case_id,he,score,split,fold"
    with pytest.raises(JobFailed, match=r"Row 2: split 'tset' is none of.*Row 3: fold 'one'"):
        read_manifest(write(tmp_path, "x,a.svs,0,tset,", "y,b.svs,0,,one", header=header))
    with pytest.raises(JobFailed, match="Row 3: case x has split test, in row 2 train"):
        read_manifest(write(tmp_path, "x,a.svs,0,train,", "x,b.svs,0,test,", header=header))


def ids(cases: tuple[Case, ...]) -> set[str]:
    return {case.case_id for case in cases}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(30, 60), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.integers(0, 1000))
def test_no_case_is_in_two_parts(tmp_path: Path, count: int, slides: int, folds: int, seed: int) -> None:
    cases = made(tmp_path, count, slides)
    splits = make_splits(cases, data_config(folds=folds, test=0.2, validation=0.25, seed=seed))
    assert len(splits) == folds
    for split in splits:
        parts = [ids(split.train), ids(split.validation), ids(split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == count
        assert sum(len(part) for part in (split.train, split.validation, split.test)) == count * slides
    if folds > 1:
        # Every case outside the test part is validated on exactly once.
        validated = [name for split in splits for name in ids(split.validation)]
        assert sorted(validated) == sorted(set(validated))
        assert set(validated) == ids(cases) - ids(splits[0].test)


def test_the_columns_of_the_manifest_go_first(tmp_path: Path) -> None:
    header = "case_id,he,score,split"
    rows = ["a,a.svs,0,train", "b,b.svs,3+,train", "c,c.svs,0,validation", "d,d.svs,3+,test"]
    cases = read_manifest(write(tmp_path, *rows, header=header))
    (split,) = make_splits(cases, data_config(classes="binary"))
    assert split == Split(cases[:2], cases[2:3], cases[3:])


def test_a_class_without_training_cases_is_named(tmp_path: Path) -> None:
    header = "case_id,he,score,split"
    rows = ["a,a.svs,0,train", "b,b.svs,1+,train", "c,c.svs,2+,validation"]
    cases = read_manifest(write(tmp_path, *rows, header=header))
    with pytest.raises(JobFailed, match=r"No case of 2\+, 3\+ to train on"):
        make_splits(cases, data_config())
    with pytest.raises(JobFailed, match="too few"):
        make_splits(made(tmp_path, 4), data_config())
