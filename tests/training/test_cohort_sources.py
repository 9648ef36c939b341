"""Public cohorts in the shape in which they are distributed, as tables of cases."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from cohort_folders import HEROHE_COLUMNS, herohe, touch, workbook
from napari_her2.cli import app
from napari_her2.cohort.day_list import entries_of
from napari_her2.errors import JobFailed
from napari_her2.inference.regions import as_regions, joined
from napari_her2_training.cohort.manifest import read_manifest
from napari_her2_training.cohort_sources.options import ImportOptions
from napari_her2_training.cohort_sources.scores import read_map
from napari_her2_training.cohort_sources.sources import SOURCES, find_source
from napari_her2_training.cohort_sources.writing import REGIONS, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2_training.cohort_sources.found import Found

XML = """<?xml version="1.0"?><Annotations MicronsPerPixel="0.25"><Annotation Id="1"><Regions>
<Region Id="1" Type="0"><Vertices><Vertex X="0" Y="0"/><Vertex X="100" Y="0"/><Vertex X="100" Y="50"/>
<Vertex X="0" Y="50"/></Vertices></Region></Regions></Annotation></Annotations>"""


def find(kind: str, folder: Path, *labels: str, mpp: float | None = None) -> Found:
    return find_source(kind).find(folder, ImportOptions(mapped=read_map(labels), mpp=mpp))


def listed(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_herohe_keeps_its_test_part_and_tells_colliding_numbers_apart(tmp_path: Path) -> None:
    folder = herohe(
        tmp_path / "HEROHE",
        [(1, 2, "Negative"), (2, 3, "Positive"), (3, 0, "Negative"), (17, 1, "Negative")],
        [(17, 2, "Positive"), (5, 3, "Positive")],
    )
    found = find("herohe", folder)
    cases = read_manifest(write_manifest(found, tmp_path / "out" / "manifest.csv"))
    assert [(case.case_id, case.score, case.ish, case.split) for case in cases] == [
        ("train-1", "2+", "negative", None), ("train-2", "3+", "", None), ("train-3", "0", "", None),
        ("train-17", "1+", "", None), ("test-17", "2+", "positive", "test"), ("test-5", "3+", "", "test"),
    ]  # fmt: skip
    assert {case.he.parent.name for case in cases[:4]} == {"train"}
    assert not found.missing + found.doubled + found.faults


def test_herohe_is_read_from_its_csv_with_semicolons_and_a_mark(tmp_path: Path) -> None:
    touch(tmp_path, "1.mrxs", "63.mrxs")
    lines = [";".join(HEROHE_COLUMNS), "63;2;5;Negative;61", "1;3;;Positive;44", "9;0;;Negative;50"]
    (tmp_path / "HEROHE_TrainGTinfo.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    found = find("herohe", tmp_path)
    assert [(row.case_id, row.score, row.ish) for row in found.rows] == [
        ("train-63", "2+", "negative"), ("train-1", "3+", "")
    ]  # fmt: skip
    assert found.missing == (f"Row 4, case 9: there is no slide of the case 9 in {tmp_path.name}.",)


def test_herohe_slides_of_both_parts_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = herohe(tmp_path / "H", [(1, 2, "Negative")], [(1, 3, "Positive")])
    (folder / "train").rename(folder / "slides")
    with pytest.raises(JobFailed, match="folders called train and test"):
        find("herohe", folder)


def bcnb(folder: Path) -> Path:
    rows = [
        ["Patient ID", "Age", "HER2", "HER2 Expression"],
        [1, 50, "Negative", 2],
        [2, 51, "Positive", "3+"],
    ]
    rows += [[3, 52, "Negative", 0], [4, 53, "Positive", "2+"]]
    workbook(folder / "patient-clinical-data.xlsx", [*rows, ["* expression by IHC"]])
    touch(folder / "WSIs", "1.jpg", "2.jpg", "3.jpg")
    square = {"name": "Annotation 0", "vertices": [[10, 20], [110, 20], [110, 70], [10, 70]]}
    (folder / "WSIs" / "1.json").write_text(json.dumps({"positive": [square], "negative": []}))
    for part, name in (("train", "1"), ("val", "2"), ("test", "3")):
        touch(folder / "dataset-splitting")
        (folder / "dataset-splitting").mkdir(exist_ok=True)
        (folder / "dataset-splitting" / f"{part}_id.txt").write_text(f"{name}\n")
    return folder


def test_bcnb_keeps_splits_scale_and_outlines(tmp_path: Path) -> None:
    found = find("bcnb", bcnb(tmp_path / "BCNB"), mpp=0.5)
    out = write_manifest(found, tmp_path / "out" / "manifest.csv")
    cases = read_manifest(out)
    assert [(case.case_id, case.score, case.ish, case.split, case.mpp) for case in cases] == [
        ("1", "2+", "negative", "train", 0.5),
        ("2", "3+", "", "validation", 0.5),
        ("3", "0", "", "test", 0.5),
    ]  # fmt: skip
    region = joined(as_regions(out.parent / REGIONS.format(case_id="1")))
    assert shapely.equals(region, shapely.box(10, 20, 110, 70))
    assert any("case 4" in text for text in found.missing)
    assert any("footnote" in note for note in found.notes)
    assert any("No outlines" in note and "2, 3" in note for note in found.notes)


def test_bcnb_without_scale_says_so_and_a_patient_in_two_parts_is_a_fault(tmp_path: Path) -> None:
    folder = bcnb(tmp_path / "BCNB")
    assert any("--mpp" in note for note in find("bcnb", folder).notes)
    (folder / "dataset-splitting" / "val_id.txt").write_text("2\n1\n")
    assert find("bcnb", folder).faults == (
        "Line 2 of val_id.txt: patient 1 is in train already: take it out of one.",
    )


@pytest.mark.parametrize(
    "content",
    ['{"other": []}', '{"positive": [{"vertices": [[1, 2], ["a", 3], [4, 5]]}]}', '{"positive": []}', "{"],
)
def test_damaged_outlines_name_their_file(tmp_path: Path, content: str) -> None:
    folder = bcnb(tmp_path / "BCNB")
    (folder / "WSIs" / "1.json").write_text(content)
    with pytest.raises(JobFailed, match=r"1\.json"):
        write_manifest(find("bcnb", folder), tmp_path / "out" / "manifest.csv")
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_bci_pairs_fields_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "BCI"
    for stain in ("HE", "IHC"):
        touch(
            folder,
            *(f"{stain}/train/0000{n}_train_{score}.png" for n, score in enumerate(("0", "1+", "2+", "3+"))),
        )
        touch(folder, f"{stain}/test/00000_test_3+.png")
    touch(folder, "HE/test/00001_test_0.png")
    found = find("bci", folder)
    cases = read_manifest(write_manifest(found, tmp_path / "manifest.csv"))
    assert {(case.case_id, case.score, case.split) for case in cases} == {
        ("test-00000", "3+", "test"),
        *((f"train-0000{n}", score, None) for n, score in enumerate(("0", "1+", "2+", "3+"))),
    }
    assert all(case.he.name == case.ihc.name and case.mpp == case.ihc_mpp == 0.46 for case in cases)
    assert found.missing == ("00001_test_0.png: there is no IHC field of this name.",)
    assert any("patients" in note for note in found.notes)
    touch(folder, "HE/train/photo.png", "IHC/train/photo.png")
    assert find("bci", folder).faults[0].startswith("photo.png:")


def yale(folder: Path) -> Path:
    touch(folder, "Yale_HER2_cohort/SVS/Her2Pos_Case_47.svs", "Yale_HER2_cohort/SVS/Her2Neg_Case_3.svs")
    touch(folder, "Yale_trastuzumab_response_cohort/SVS/12.svs")
    notes = folder / "Yale_HER2_cohort" / "Annotations"
    notes.mkdir()
    (notes / "Her2Pos_Case_47.xml").write_text(XML)
    workbook(
        folder / "Yale_trastuzumab_response_cohort" / "Yale_trastuzumab_metadata_clean.xlsx",
        [["Patient", "Responder"], [12, "responder"]],
        strict=True,
    )
    return folder


def test_yale_is_a_list_to_score_until_its_status_is_mapped(tmp_path: Path) -> None:
    folder = yale(tmp_path / "pkg")
    found = find("yale", folder)
    assert not found.scored
    out = write_manifest(found, tmp_path / "list" / "slides.csv")
    rows = {row["case_id"]: row for row in listed(out)}
    assert "score" not in rows["12"]
    assert {name: row["label"] for name, row in rows.items()} == {
        "Her2Pos_Case_47": "positive", "Her2Neg_Case_3": "negative", "12": "responder: responder",
    }  # fmt: skip
    region = joined(as_regions(out.parent / rows["Her2Pos_Case_47"]["regions"]))
    assert shapely.equals(region, shapely.box(0, 0, 100, 50))
    day = {entry.name: entry for entry in entries_of(out).entries}
    assert day["Her2Pos_Case_47"].regions is not None
    assert not any(entry.problem for entry in day.values())
    mapped = find("yale", folder, "negative=0", "positive=3")
    cases = read_manifest(write_manifest(mapped, tmp_path / "learn" / "manifest.csv"))
    assert sorted((case.case_id, case.score) for case in cases) == [
        ("Her2Neg_Case_3", "0"),
        ("Her2Pos_Case_47", "3+"),
    ]


def test_acrobat_is_a_list_of_pairs(tmp_path: Path) -> None:
    folder = tmp_path / "ACROBAT"
    touch(
        folder / "train",
        "0_HE_train.tif",
        "0_HER2_train.tif",
        "0_KI67_train.tif",
        "1_HE_train.tif",
        "1_ER_train.tif",
    )
    touch(folder / "valid", "0_HE_val.tif", "0_HER2_val.tif")
    (folder / "df_acrobat_meta.csv").write_text(
        "anon_id,set,stain,filename,mpp\n0,train,HE,0_HE_train.tif,0.92\n0,train,HER2,0_HER2_train.tif,0.23\n"
    )
    found = find("acrobat", folder)
    assert not found.scored
    out = write_manifest(found, tmp_path / "pairs.csv")
    one, two = entries_of(out).entries
    assert [(row["case_id"], row["split"], row["mpp"]) for row in listed(out)] == [
        ("train-0", "train", "0.92"),
        ("val-0", "validation", ""),
    ]
    assert (one.he.name, one.ihc.name, one.mpp, one.ihc_mpp) == (
        "0_HE_train.tif",
        "0_HER2_train.tif",
        0.92,
        None,
    )
    assert two.he.name == "0_HE_val.tif"
    assert any("train-1" in note for note in found.notes)
    assert any("10x cannot have" in note for note in found.notes)
    assert any("no scores" in note for note in found.notes)


def test_ihc4bc_keeps_two_classes_as_labels(tmp_path: Path) -> None:
    folder = tmp_path / "IHC4BC"
    for stain in ("HandE", "IHC"):
        for name in ("Her2/Patient_1/Subregion_1/a", "Her2/Patient_2/Subregion_1/b", "ER/Patient_1/Sub_1/e"):
            touch(folder / "Images", f"{stain}/{name}.jpg")
    touch(folder / "Images" / "IHC", "Her2/Patient_2/Subregion_1/alone.jpg")
    (folder / "Labels").mkdir()
    (folder / "Labels" / "Her2.csv").write_text("Patient,Label\nPatient_1,0/1+\nPatient_2,3+\n")
    found = find("ihc4bc", folder, mpp=0.25)
    assert [(row.case_id, row.label, row.score) for row in found.rows] == [
        ("Patient_1", "0/1+", ""), ("Patient_2", "3+", "")
    ]  # fmt: skip
    assert any("no score of four" in note for note in found.notes)
    mapped = find("ihc4bc", folder, "0/1+=0", "3+=3+", mpp=0.25)
    cases = read_manifest(write_manifest(mapped, tmp_path / "manifest.csv"))
    assert [(case.case_id, case.score, case.mpp, case.ihc_mpp) for case in cases] == [
        ("Patient_1", "0", 0.25, 0.25), ("Patient_2", "3+", 0.25, 0.25)
    ]  # fmt: skip


def test_her2_ihc_40x_takes_labels_from_folders(tmp_path: Path) -> None:
    folder = tmp_path / "HER2-IHC-40x"
    base = folder / "WSI-based-dataset"
    touch(
        base,
        *(
            f"{part}/class_{score}/{score[0]}.png"
            for part in ("train", "test")
            for score in ("0", "1+", "2+", "3+")
        ),
    )
    found = find("her2-ihc-40x", folder, mpp=0.25)
    cases = read_manifest(write_manifest(found, tmp_path / "manifest.csv"), ("ihc",))
    assert {(case.case_id, case.score, case.split) for case in cases} == {
        (f"{part}-{score[0]}", score, "test" if part == "test" else None)
        for part in ("train", "test")
        for score in ("0", "1+", "2+", "3+")
    }
    touch(base, "train/class_9/x.png")
    assert find("her2-ihc-40x", folder).faults[0].startswith("train/class_9/x.png:")


def tcga(folder: Path) -> Path:
    names = (
        "bcr_patient_uuid",
        "bcr_patient_barcode",
        "her2_status_by_ihc",
        "her2_ihc_score",
        "her2_fish_status",
    )
    rows = [names, names, ("CDE_ID:", "CDE_ID:2003301", "CDE_ID:2957563", "CDE_ID:2178402", "CDE_ID:2854089")]
    rows += [
        ("u1", "TCGA-A1-A0SB", "Negative", "1+", "[Not Available]"),
        ("u2", "TCGA-A2-A0CM", "Equivocal", "2+", "Positive"),
        ("u3", "TCGA-A2-A0T2", "Positive", "[Not Available]", "[Not Evaluated]"),
        ("u4", "TCGA-AR-A1AQ", "Negative", "0", "Indeterminate"),
    ]
    folder.mkdir()
    (folder / "nationwidechildrens.org_clinical_patient_brca.txt").write_text(
        "\n".join("\t".join(row) for row in rows)
    )
    touch(folder / "slides", "TCGA-A1-A0SB-01Z-00-DX1.B34C.svs", "TCGA-A1-A0SB-01A-01-TS1.A0.svs")
    touch(folder / "slides", "TCGA-A2-A0CM-01Z-00-DX1.AC4.svs", "TCGA-A2-A0CM-01Z-00-DX2.AC5.svs")
    touch(folder / "slides", "TCGA-A2-A0T2-01Z-00-DX1.29A.svs", "TCGA-XX-XXXX-01Z-00-DX1.1.svs")
    return folder


def test_tcga_gives_a_row_for_each_diagnostic_slide_and_leaves_status_alone(tmp_path: Path) -> None:
    found = find("tcga-brca", tcga(tmp_path / "TCGA"))
    cases = read_manifest(write_manifest(found, tmp_path / "manifest.csv"))
    assert [(case.case_id, case.score, case.ish) for case in cases] == [
        ("TCGA-A1-A0SB", "1+", ""), ("TCGA-A2-A0CM", "2+", "positive"), ("TCGA-A2-A0CM", "2+", "positive"),
    ]  # fmt: skip
    notes = " ".join(found.notes)
    assert "1 frozen section left out" in notes
    assert "TCGA-A2-A0T2" in notes
    assert "TCGA-XX-XXXX" in notes
    assert "Indeterminate" in notes
    assert "TCGA-AR-A1AQ" in found.missing[0]


def test_a_folder_of_something_else_is_refused_in_words_by_each_source(tmp_path: Path) -> None:
    touch(tmp_path, "photo.webp")
    for source in SOURCES.values():
        with pytest.raises(JobFailed):
            source.find(tmp_path)
        with pytest.raises(JobFailed, match="no folder"):
            source.find(tmp_path / "none")
    with pytest.raises(JobFailed, match="use herohe, bcnb"):
        find_source("camelyon")


def test_the_command_imports_and_lists(tmp_path: Path) -> None:
    folder = herohe(tmp_path / "H", [(1, 2, "Negative"), (2, 9, "Negative")], [(1, 3, "Positive")])
    out = tmp_path / "manifest.csv"
    run = CliRunner()
    wrong = run.invoke(app, ["cohort", "import", "herohe", str(folder), "--out", str(out)])
    assert wrong.exit_code == 1
    assert "Row 3" in wrong.output
    assert '--map "9=0"' in wrong.output
    assert not out.exists()
    good = run.invoke(app, ["cohort", "import", "herohe", str(folder), "--out", str(out), "--map", "9=1+"])
    assert good.exit_code == 0, good.output
    assert "3 cases" in good.output
    assert len(read_manifest(out)) == 3
    names = run.invoke(app, ["cohort", "list"])
    assert all(name in names.output for name in SOURCES)


def test_rows_keep_their_own_scale_when_slides_are_opened(tmp_path: Path) -> None:
    from PIL import Image

    from napari_her2_training.cohort.reading import GIVEN_IN_MANIFEST, slide_to_learn

    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text("case_id,he,ihc,score,mpp,ihc_mpp\n1,a.png,b.png,1+,0.5,\n")
    (case,) = read_manifest(tmp_path / "m.csv")
    with slide_to_learn(case, "he") as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.5, 0.5), GIVEN_IN_MANIFEST)
    with slide_to_learn(case, "ihc") as slide:
        assert slide.mpp is None
    (tmp_path / "m.csv").write_text("case_id,he,score,mpp\n1,a.png,1+,many\n")
    with pytest.raises(JobFailed, match="mpp 'many' is no µm/px"):
        read_manifest(tmp_path / "m.csv")
