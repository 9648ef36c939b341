"""Files beside the slides to damage: models, regions, tables, texts, features, pictures."""

from __future__ import annotations

import json
import re
import struct
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fuzz import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Change = Callable[[bytes, np.random.Generator], bytes]

_LONG = b"9" * 400
_VERY_LONG = b"9" * 5000
_VALUES = (
    *(
        b"0",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"1e-320",
        b"1e308",
        b"16384",
        b"4294967296",
        _LONG,
        _VERY_LONG,
    ),
    *(b"null", b"true", b'""', b"[]", b"{}", b"[[]]", b"[1]", b'{"type":5}', b'"\\ud800"', b'"\\u0000"'),
    *(
        b'"x.encoder"',
        b'"con"',
        b'"../x"',
        b'"a\\nb"',
        b'"<h1>"',
        b"[" * 2000 + b"]" * 2000,
        b"[" * 300 + b"]" * 300,
    ),
    *(b'"' + b"x" * 5000 + b'"', b"0x" + b"f" * 5000, b'"~nouser"', b'"~"', b"1_0", b"2020-01-01", b"inf"),
)
_VALUE = re.compile(
    rb'(?<=[:\[,= ])\s*(?:"(?:[^"\\]|\\.)*"|-?[0-9.][0-9.eE+-]*|true|false|null)(?=\s*[,\]}\r\n])'
)
_NAME = re.compile(rb'"(?:[^"\\]|\\.)*"(?=\s*:)')


def _picked(rng: np.random.Generator, values: tuple[bytes, ...]) -> bytes:
    return values[int(rng.integers(len(values)))]


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 12))):
        if out:
            out[int(rng.integers(len(out)))] = int(rng.integers(256))
    return bytes(out)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _twice(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = sorted(int(at) for at in rng.integers(0, len(data) + 1, 2))
    return data[:last] + data[first:last] * int(rng.integers(1, 20)) + data[last:]


def _gone(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = sorted(int(at) for at in rng.integers(0, len(data) + 1, 2))
    return data[:first] + data[min(last, first + 200) :]


def _swapped(pattern: re.Pattern[bytes], data: bytes, value: bytes, rng: np.random.Generator) -> bytes:
    places = list(pattern.finditer(data))
    if not places:
        return data + value
    place = places[int(rng.integers(len(places)))]
    return data[: place.start()] + value + data[place.end() :]


def _value(data: bytes, rng: np.random.Generator) -> bytes:
    return _swapped(_VALUE, data, _picked(rng, _VALUES), rng)


def _name(data: bytes, rng: np.random.Generator) -> bytes:
    return _swapped(
        _NAME, data, b'"' + _picked(rng, (b"", b"x", b"type", b"\\ud800", b"a" * 3000)) + b'"', rng
    )


def _encoded(data: bytes, rng: np.random.Generator) -> bytes:
    names = ("utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp037", "utf-7")
    return data.decode("latin-1").encode(names[int(rng.integers(len(names)))], "replace")


_TEXT: tuple[Change, ...] = (*(_value,) * 6, _name, _noise, _cut, _twice, _gone, _encoded)
_BINARY: tuple[Change, ...] = (*(_noise,) * 4, _cut, _twice, _gone)


def _changed(changes: tuple[Change, ...]) -> Change:
    def mutated(data: bytes, rng: np.random.Generator) -> bytes:
        for _ in range(int(rng.integers(1, 4))):
            data = changes[int(rng.integers(len(changes)))](data, rng)
        return data

    return mutated


# -- models


def _bundles(folder: Path) -> list[Path]:
    import torch

    from napari_her2.models.attention_mil import AttentionMIL
    from napari_her2.models.bundle import save_bundle
    from napari_her2.models.card import ModelCard
    from napari_her2.models.encoders import build_encoder

    texts = dict.fromkeys(("task", "training_data", "licence", "intended_use", "guideline"), "none")
    paths = []
    for name, tile_px, arguments in (
        ("timm:test_resnet", 64, {}),
        ("timm:test_vit", 32, {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2}),
    ):
        encoder = build_encoder(name, tile_px=tile_px, arguments=arguments)
        card = ModelCard(
            name="tiny", version="1", method="attention-mil", architecture="AttentionMIL",
            arguments={"features": encoder.spec.dim, "hidden": 2, "classes": 2}, encoder=encoder.spec,
            stain="H&E", tile_px=tile_px, mpp=0.5, classes=("low", "high"), metrics={"AUC": 0.5}, **texts,
        )  # fmt: skip
        torch.manual_seed(0)
        paths.append(folder / f"{len(paths)}.safetensors")
        doubt = _doubt(encoder.spec.dim) if len(paths) > 1 else {}
        card = replace(card, **doubt.pop("card", {}))
        save_bundle(paths[-1], card, encoder, AttentionMIL(encoder.spec.dim, 2, 2), **doubt)
    return paths


def _doubt(dim: int) -> dict[str, Any]:
    """Return a familiarity and sets, with their parts of the card."""
    from napari_her2.models.answer_sets import AnswerSets, CalibrationCases
    from napari_her2.models.card_doubt import AnswerSetsCard, FamiliarityCard
    from napari_her2.models.familiarity import FEATURES, TILE_COUNTS, Familiarity, FeatureSpace, SlideSpace

    whole = SlideSpace(np.eye(2), np.ones((3, 2)), np.ones((4, len(TILE_COUNTS), 3)))
    space = FeatureSpace(
        mean=np.zeros(dim), components=np.eye(2, dim), scale=np.ones(2), rest=1.0, references=np.ones((3, 2)),
        reach=np.ones(3), tile_limit=1.0, slides=np.ones((4, 2)), whole=whole,
    )  # fmt: skip
    cases = CalibrationCases(np.linspace(0, 0.5, 12), np.arange(12) // 6)
    return {
        "familiarity": Familiarity({("H&E", FEATURES): space}),
        "answer_sets": AnswerSets({"slide": cases}),
        "card": {
            "familiarity": FamiliarityCard(9, 4, None, "slides"),
            "answer_sets": AnswerSetsCard({"slide": {"low": 6, "high": 6}}, "cases"),
        },
    }


def _in_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage what the header says; its length is made right again, mostly."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    found = re.search(rb'"napari_her2":("(?:[^"\\]|\\.)*")', header)
    try:  # an earlier change may have left no text there
        card = json.loads(found[1]).encode() if found and rng.integers(4) else b""
    except ValueError:
        card = b""
    if found and card:
        for _ in range(int(rng.integers(1, 4))):
            card = _TEXT[int(rng.integers(7))](card, rng)
        text = json.dumps(card.decode("utf-8", "surrogateescape")).encode()
        header = header[: found.start(1)] + text + header[found.end(1) :]
    else:
        header = _TEXT[int(rng.integers(len(_TEXT)))](header, rng)
    claimed = len(header) if rng.integers(20) else int(rng.integers(2**40))
    return claimed.to_bytes(8, "little") + header + data[8 + length :]


def _use_bundle(path: Path) -> None:
    from napari_her2.models.bundle import load_bundle
    from napari_her2.models.bundle_card import read_card

    read_card(path)
    bundle = load_bundle(path)
    for space in bundle.familiarity.spaces.values() if bundle.familiarity else ():
        tiles = np.zeros((5, len(space.mean)), np.float32)
        if not np.isfinite(space.familiarity(space.distances(tiles), tiles)).all():
            raise AssertionError(f"{path} measures nothing")


# -- texts


def _written(suffix: str, *contents: str) -> Callable[[Path], list[Path]]:
    def seeds(folder: Path) -> list[Path]:
        paths = [folder / f"{number}{suffix}" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(content, encoding="utf-8")
        return paths

    return seeds


_SQUARE = [[0, 0], [1000, 0], [1000, 1000.5], [0, 1000], [0, 0]]
_POLYGON = {"type": "Polygon", "coordinates": [_SQUARE, [[2, 2], [9, 2], [9, 9]]]}
_LINE = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
_REGIONS = (
    {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": _POLYGON, "properties": {}}]},
    {"type": "MultiPolygon", "coordinates": [[_SQUARE], [[[5, 5, 1], [8, 5, 1], [8, 8, 1]]]]},
    [{"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [_POLYGON, _LINE]}}],
)
_CSV = "case_id,he,ihc,score,ish,fold,split\nx,a.svs,b.svs,2+,positive,0,train\ny,c.svs,,0,,1,test\n"
_TOML = (
    '[model]\nname = "a"\ntraining_data = "b"\n[data]\nclasses = "scores"\nfolds = 3\nvalidation = 0.2\n'
    '[compute]\nseed = 3\n[[published]]\nmeasure = "AUC"\nvalue = 0.9\non = "x"\nsource = "y"\n'
)
_RECORDS = (
    {"model": "a", "measured": {"mean": {"test": {"cases": 3}}}, "judged": "test", "parameters": 7},
    {"format": 1, "fixed": "a", "moving": "b", "matrix_um": [[1.0, 0.0, 3.5], [0.0, 1.0, -2]]},
    {"format": 1, "runs": [{"method": "mil", "config": "c", "data": "d", "out": "o", "device": "cpu"}]},
    {
        "time": 1.5,
        "stage": "Training",
        "done": 3,
        "total": 9,
        "unit": "epochs",
        "values": {"epoch": 3, "loss": 1},
    },
)


def _use_regions(path: Path) -> None:
    from napari_her2.inference.regions import inside_mask, read_regions

    inside_mask(read_regions(path), (20, 20), (64.0, 64.0))


def _use_table(path: Path) -> None:
    import shutil

    from napari_her2.inference.case_table import other_case
    from napari_her2_training.cohort.manifest import read_manifest

    folder = path.with_suffix("")
    folder.mkdir()
    try:
        for name in "abc":
            (folder / f"{name}.svs").write_text(name)
        table = path.replace(folder / "manifest.csv")
        other_case(folder / "a.svs", folder / "b.svs")
        read_manifest(table)
    finally:
        shutil.rmtree(folder)


def _use_config(path: Path) -> None:
    from napari_her2_training.attention_mil.config import AttentionConfig
    from napari_her2_training.config import read_config

    read_config(path, AttentionConfig)


def _use_record(path: Path) -> None:
    import os
    import shutil

    from napari_her2.registration import kept as alignment_store
    from napari_her2.training_runs import log as training_log
    from napari_her2.training_runs import processes as training_runs
    from napari_her2_training.files import OWN_FILES

    os.environ[training_runs.STATE_VARIABLE] = str(path)
    training_runs.known_runs()
    folder = path.with_suffix("")
    folder.mkdir()
    try:
        os.environ[alignment_store.FOLDER_VARIABLE] = str(folder)
        kept = alignment_store._path("a", "b")  # noqa: SLF001
        shutil.copy(path, kept)
        alignment_store.kept_alignment("a", "b")
        line = re.sub(rb"[\r\n]", b" ", path.read_bytes()) + b"\n"
        log = folder / training_log.PROGRESS_FILE
        log.write_bytes(line)
        training_log.LogTail(folder).read()
        OWN_FILES.json_object(path, "model")
    finally:
        shutil.rmtree(folder)


# -- features and pictures


def _hdf5(folder: Path) -> list[Path]:
    import h5py

    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    paths = [folder / "plain.h5", folder / "packed.h5"]
    for path, options in zip(paths, ({}, {"chunks": (5, 3), "compression": "gzip"}), strict=True):
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=rows, **options)
            file["coords"] = np.zeros((20, 2), np.int64)
            file["features"].attrs["patch_size"] = 256
    return paths


def _tensors(folder: Path) -> list[Path]:
    import torch

    rows = torch.arange(60.0).reshape(20, 3)
    paths = [folder / "new.pth", folder / "old.pth"]
    torch.save(rows, paths[0])
    torch.save(rows, paths[1], _use_new_zipfile_serialization=False)
    return paths


def _use_features(path: Path) -> None:
    from napari_her2_training.cohort.features import read_feature_file

    read_feature_file(path)


def _pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(60, 255, (12, 16, 3), dtype=np.uint8), (256, 192))
    paths = [folder / "a.png", folder / "b.jpg"]
    for path in paths:
        cv2.imwrite(str(path), image)
    return paths


def _size_in_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Another width or height than the pixels have."""
    out = bytearray(data)
    side = int((0, 1, 7, 8193, 65_535, 2**24, 2**31 - 1)[int(rng.integers(7))])
    if data.startswith(b"\x89PNG"):
        struct.pack_into(">I", out, 16 + 4 * int(rng.integers(2)), side)
    else:
        at = max(out.find(b"\xff\xc0"), out.find(b"\xff\xc2"))
        if at >= 0 and at + 9 <= len(out):
            struct.pack_into(">H", out, at + 5 + 2 * int(rng.integers(2)), side % 65_536)
    return bytes(out)


def _use_picture(path: Path) -> None:
    from napari_her2 import open_slide
    from napari_her2.errors import Her2Error
    from napari_her2_training.pictures import read_picture

    with suppress(Her2Error):
        read_picture(path)
    with open_slide(path) as slide:
        slide.thumbnail(64)
        slide.read(0, 0, 0, 64, 64)


KINDS = {
    "bundle": Kind(_bundles, _changed((*(_in_header,) * 5, *_BINARY)), _use_bundle),
    "geojson": Kind(_written(".geojson", *map(json.dumps, _REGIONS)), _changed(_TEXT), _use_regions),
    "table": Kind(_written(".csv", _CSV), _changed(_TEXT), _use_table),
    "toml": Kind(_written(".toml", _TOML), _changed(_TEXT), _use_config),
    "json": Kind(_written(".json", *map(json.dumps, _RECORDS)), _changed(_TEXT), _use_record),
    "hdf5": Kind(_hdf5, _changed(_BINARY), _use_features),
    "pth": Kind(_tensors, _changed(_BINARY), _use_features),
    "picture": Kind(_pictures, _changed((*(_size_in_header,) * 3, *_BINARY)), _use_picture),
}
