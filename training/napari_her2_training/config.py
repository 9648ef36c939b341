"""The configuration of a training run: a TOML file, checked whole before any work is done."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

METHODS = ("attention-mil",)
_REQUIRED = object()


def _key(
    default: object = _REQUIRED,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 - a dataclass field, of the type of its annotation
    rules = {"low": low, "high": high, "above": above, "choices": choices}
    if default is _REQUIRED:
        return field(metadata=rules)
    return field(default=default, metadata=rules)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """[model]: what the card of the finished model says.

    Parameters
    ----------
    name : str
        Also the name of the bundle file.
    training_data : str
        What the model was trained on, in words; the numbers of cases are added.
    notice : str
        What is to be said wherever its score is shown, after the notice of napari-her2.
    """

    name: str = _key()
    training_data: str = _key()
    version: str = _key("1")
    task: str = _key("H&E-based prediction of the HER2 IHC score")
    licence: str = _key("BSD-3-Clause")
    intended_use: str = _key("Research on the slides it was validated on. Not for diagnosis.")
    guideline: str = _key("ASCO/CAP 2018, affirmed 2023")
    notice: str = _key("")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """[data]: tiles, classes and splits.

    Parameters
    ----------
    manifest : str
        CSV of the cases, relative to the configuration file; may be given to the command instead.
    tile_px : int
    mpp : float
        µm per pixel of the tiles.
    min_tissue : float
        Share of a tile that must be tissue.
    classes : str
        "scores" (0, 1+, 2+, 3+) or "binary" (0 and 1+ against 2+ and 3+).
    folds : int
        1: one split; more: cross-validation, one model a fold.
    validation : float
        Share of the cases for validation, with one fold.
    test : float
        Share of the cases that is never trained on.
    seed : int
        Of the splits. A column ``split`` or ``fold`` of the manifest goes before all of these.
    """

    manifest: str = _key("")
    tile_px: int = _key(96, low=95, high=112)
    mpp: float = _key(0.5, low=0.1, high=4.0)
    min_tissue: float = _key(0.5, low=0.0, high=1.0)
    classes: str = _key("scores", choices=("scores", "binary"))
    folds: int = _key(1, low=1, high=100)
    validation: float = _key(0.2, above=0.0, high=0.9)
    test: float = _key(0.0, low=0.0, high=0.9)
    seed: int = _key(123, low=0)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """[encoder]: the patch encoder before any pre-training.

    Parameters
    ----------
    name : str
        "alexnet".
    weights : str
        "random", "pretrained" (may download ImageNet weights) or a .safetensors file.
    normalisation : str
        "auto", or a key of `napari_her2.models.encoders.NORMALISATIONS`.
    """

    name: str = _key("alexnet", choices=("alexnet",))
    weights: str = _key("random")
    normalisation: str = _key("auto", choices=("auto", "none", "imagenet", "pcam", "ihc"))


@dataclass(frozen=True, slots=True)
class PretrainingConfig:
    """[pretraining]: the encoder learns to classify labelled patches; left out with 0 epochs.

    Parameters
    ----------
    epochs : int
    patches_per_slide : int
    regions : str
        GeoJSON of the tumour of each case, relative to the manifest, with {case_id} in it: patches
        outside become a class "normal". Empty: every patch inherits the score of its slide.
    batch_size : int
    learning_rate, weight_decay : float
        Of AdamW, with warm-up and cosine decay.
    dropout : float
        Before the linear classifier, which is thrown away afterwards.
    stain_jitter : float
        Standard deviation of the logarithm of each stain's strength.
    colour_jitter : float
        Largest relative change of brightness and contrast.
    sharpness_jitter : float
        Largest share of the difference to a blurred patch that is added or taken away.
    noise : float
        Largest standard deviation of added noise, grey levels.
    """

    epochs: int = _key(0, low=0, high=1000)
    patches_per_slide: int = _key(200, low=1)
    regions: str = _key("")
    batch_size: int = _key(256, low=1)
    learning_rate: float = _key(1e-4, above=0.0)
    weight_decay: float = _key(1e-2, low=0.0)
    dropout: float = _key(0.3, low=0.0, high=0.95)
    stain_jitter: float = _key(0.15, low=0.0, high=1.0)
    colour_jitter: float = _key(0.05, low=0.0, high=0.5)
    sharpness_jitter: float = _key(0.5, low=0.0, high=1.0)
    noise: float = _key(2.0, low=0.0, high=50.0)


@dataclass(frozen=True, slots=True)
class BagsConfig:
    """[bags]: how tiles are drawn for training and validation.

    Parameters
    ----------
    size : int
        Tiles a bag, drawn without replacement; slides with fewer are refused.
    batch_size : int
        Bags a batch.
    train_batches, validation_batches : int
        Batches an epoch.
    validation_seed : int
        The same bags are seen in every validation.
    """

    size: int = _key(100, low=1)
    batch_size: int = _key(64, low=1)
    train_batches: int = _key(100, low=1)
    validation_batches: int = _key(25, low=1)
    validation_seed: int = _key(123, low=0)


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """[head]: the attention head and how it learns (Adam).

    Parameters
    ----------
    hidden : int
    epochs : int
    learning_rate, weight_decay : float
    guidance : float
        Weight of a second loss where [pretraining] regions say which tiles are tumour: -log of the
        attention that falls on them, and the cross-entropy of each one's own vote. 0, as published: the
        slide's label alone teaches.
    """

    hidden: int = _key(256, low=1, high=65536)
    epochs: int = _key(50, low=1, high=100_000)
    learning_rate: float = _key(1e-3, above=0.0)
    weight_decay: float = _key(1e-7, low=0.0)
    guidance: float = _key(0.0, low=0.0, high=100.0)


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """[compute]: where and how it runs.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:0" or "mps".
    seed : int
        Of weights, bags and augmentation.
    """

    device: str = _key("auto")
    seed: int = _key(0, low=0)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A whole training run."""

    model: ModelConfig
    data: DataConfig
    encoder: EncoderConfig
    pretraining: PretrainingConfig
    bags: BagsConfig
    head: HeadConfig
    compute: ComputeConfig

    def digest(self) -> str:
        """SHA-256 of all values, in hexadecimal: a run resumes only under the configuration it began with.

        Where it runs and where its files lie may change on the way; the manifest is hashed by its content.
        """
        values = asdict(self)
        del values["data"]["manifest"], values["compute"]["device"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "encoder": EncoderConfig,
    "pretraining": PretrainingConfig,
    "bags": BagsConfig,
    "head": HeadConfig,
    "compute": ComputeConfig,
}


def read_config(path: Path | str) -> TrainingConfig:
    """Read a configuration file.

    Parameters
    ----------
    path : Path or str

    Returns
    -------
    TrainingConfig

    Raises
    ------
    JobFailed
        Naming the key and what is wrong with it.
    """
    path = Path(path).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JobFailed(f"{path} could not be read ({error.strerror or error}): check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobFailed(f"{path.name} is not valid TOML: {error}.") from error
    return parse_config(values)


def parse_config(values: Mapping[str, object]) -> TrainingConfig:
    """Check a configuration given as nested mappings.

    Parameters
    ----------
    values : mapping
        Section to keys to values.

    Returns
    -------
    TrainingConfig

    Raises
    ------
    JobFailed
        Naming the key and what is wrong with it.
    """
    for name, section in values.items():
        if name not in _SECTIONS:
            raise JobFailed(f"The configuration has no section [{name}]{_near(name, _SECTIONS)}.")
        if not isinstance(section, dict):
            raise JobFailed(f"[{name}] must be a section with keys, not {section!r:.80}.")
    return TrainingConfig(**{name: _section(name, kind, values) for name, kind in _SECTIONS.items()})


def _section(name: str, kind: type, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - one of _SECTIONS
    given = values.get(name, {})
    known = {item.name: item for item in fields(kind)}
    checked: dict[str, object] = {}
    for key, value in given.items():  # type: ignore[attr-defined]
        if key not in known:
            raise JobFailed(f"[{name}] has no key {key!r}{_near(key, known)}.")
        checked[key] = _value(f"[{name}] {key}", str(known[key].type), known[key].metadata, value)
    try:
        return kind(**checked)
    except TypeError as error:  # a key without default that is not there
        missing = [key for key in ("name", "training_data") if key in known and key not in checked]
        raise JobFailed(f"[{name}] {' and '.join(missing)} must be given.") from error


def _value(key: str, kind: str, rules: Mapping[str, Any], value: object) -> object:
    if kind == "str":
        if not isinstance(value, str):
            raise JobFailed(f"{key} must be a text, not {value!r:.80}.")
        if rules["choices"] and value not in rules["choices"]:
            options = ", ".join(repr(choice) for choice in rules["choices"])
            raise JobFailed(f"{key} must be one of {options}, not {value!r:.80}.")
        return value
    whole = kind == "int"
    word = f"{_range_word(rules)}{'whole ' if whole else ''}number{_range_end(rules)}"
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not _within(value, rules):  # type: ignore[arg-type]
        raise JobFailed(f"{key} must be a {word}, not {value!r:.80}.")
    return value if whole else float(value)  # type: ignore[arg-type]


def _within(value: float, rules: Mapping[str, Any]) -> bool:
    low, high, above = rules["low"], rules["high"], rules["above"]
    return (
        (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
    )


def _range_word(rules: Mapping[str, Any]) -> str:
    return "positive " if rules["above"] == 0 else ""


def _range_end(rules: Mapping[str, Any]) -> str:
    low = None if rules["low"] is None else f"of at least {rules['low']:g}"
    high = None if rules["high"] is None else f"at most {rules['high']:g}"
    ends = " and ".join(end for end in (low, high) if end)
    return f" {ends}" if ends else ""


def _near(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it may have {', '.join(known)}"


def find_config(path: str | PathLike[str]) -> Path:
    """Return the file of a configuration: a path, or the name of one that comes with the package."""
    given = Path(path).expanduser()
    own = Path(__file__).parent / "configs" / f"{given.stem}.toml"
    if not given.exists() and given.parent == Path() and own.exists():
        return own
    return given
