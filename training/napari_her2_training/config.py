"""The configuration of a training run: a TOML file, checked whole before any work is done."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_type_hints

from napari_her2.errors import JobFailed
from napari_her2_training.classes import class_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from napari_her2_training.classes import ClassMapping

_REQUIRED = object()
Config = TypeVar("Config", bound="RunConfig")


def key(
    default: object = _REQUIRED,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
) -> Any:  # noqa: ANN401 - a dataclass field, of the type of its annotation
    """Describe a key of a section.

    Parameters
    ----------
    default : object
        None given: the key must be there.
    low, high, above : float, optional
        Range of a number; ``above`` is not in it.
    choices : tuple of str
        The texts allowed.
    prefixes : tuple of str
        Texts that begin with one of these and go on are allowed too.
    """
    rules = {"low": low, "high": high, "above": above, "choices": choices, "prefixes": prefixes}
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

    name: str = key()
    training_data: str = key()
    version: str = key("1")
    task: str = key("H&E-based prediction of the HER2 IHC score")
    licence: str = key("BSD-3-Clause")
    intended_use: str = key("Research on the slides it was validated on. Not for diagnosis.")
    guideline: str = key("ASCO/CAP 2018, affirmed 2023")
    notice: str = key("")


@dataclass(frozen=True, slots=True)
class CasesConfig:
    """[data]: cases, classes and splits.

    Parameters
    ----------
    manifest : str
        CSV of the cases, relative to the configuration file; may be given to the command instead.
    classes : str
        "scores" (0, 1+, 2+, 3+) or "binary" (0 and 1+ against 2+ and 3+).
    folds : int
        1: one split; more: cross-validation, one model a fold.
    validation : float
        Share of the cases for validation, with one fold.
    test : float
        Share of the cases that is never trained on.
    stratified : bool
        Whether folds hold the classes in proportion.
    seed : int
        Of the splits. Columns ``split`` and ``fold`` of the manifest go before all of these; with cases
        that are "test" alone, the others are split as told here.
    """

    manifest: str = key("")
    classes: str = key("scores", choices=("scores", "binary"))
    folds: int = key(1, low=1, high=100)
    validation: float = key(0.2, above=0.0, high=0.9)
    test: float = key(0.0, low=0.0, high=0.9)
    stratified: bool = key(False)
    seed: int = key(123, low=0)

    @property
    def mapping(self) -> ClassMapping:
        """Which scores make which class."""
        return class_mapping(self.classes)


@dataclass(frozen=True, slots=True)
class DataConfig(CasesConfig):
    """[data] of a method that sees tiles.

    Parameters
    ----------
    tile_px : int
    mpp : float
        µm per pixel of the tiles.
    min_tissue : float
        Share of a tile that must be tissue.
    """

    tile_px: int = key(96, low=95, high=112)
    mpp: float = key(0.5, low=0.1, high=4.0)
    min_tissue: float = key(0.5, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """[encoder]: the patch encoder before any pre-training.

    Parameters
    ----------
    name : str
        "alexnet", "timm:NAME", or "model:NAME": that of a model which is installed, or of a file.
    weights : str
        "random", "pretrained" (may download ImageNet weights) or a .safetensors file. A model has its own.
    normalisation : str
        "auto", or a key of `napari_her2.models.encoders.NORMALISATIONS`.
    """

    name: str = key("alexnet", choices=("alexnet",), prefixes=("timm:", "model:"))
    weights: str = key("random")
    normalisation: str = key("auto", choices=("auto", "none", "imagenet", "pcam", "ihc"))


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """[compute]: where and how it runs.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:0" or "mps".
    seed : int
        Of weights, bags and augmentation.
    devices : int
        GPUs of a machine, or processes on a CPU, that learn together; each sees other batches, so that a
        step of the optimiser looks at as many times more. 0 takes all GPUs.
    nodes : int
        Machines that learn together; each runs the same command, started by the scheduler of the cluster.
    strategy : str
        How they work together, as Lightning names it.
    """

    device: str = key("auto")
    seed: int = key(0, low=0)
    devices: int = key(1, low=0, high=1024)
    nodes: int = key(1, low=1, high=10_000)
    strategy: str = key("auto", choices=("auto", "ddp", "ddp_find_unused_parameters_true"))


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """[measure]: intervals, calibration, and when an answer is withheld.

    Parameters
    ----------
    resamples : int
        Of the cases, for the bootstrap interval of every measure; 0: none.
    confidence : float
        Of the intervals.
    seed : int
    calibrate : bool
        Whether the model gets a temperature, fitted on the validation slides.
    wanted_accuracy : float
        The model withholds answers below the confidence at which so large a share of the validation slides
        is answered rightly; 0: it keeps the general limit.
    """

    resamples: int = key(1000, low=0, high=1_000_000)
    confidence: float = key(0.95, low=0.5, high=0.999)
    seed: int = key(0, low=0)
    calibrate: bool = key(True)
    wanted_accuracy: float = key(0.0, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A training run: the sections that all methods share. A method adds its own by inheriting."""

    model: ModelConfig
    data: CasesConfig
    compute: ComputeConfig
    measure: MeasureConfig

    def digest(self) -> str:
        """SHA-256 of all values, in hexadecimal: a run resumes only under the configuration it began with.

        Where it runs and where its files lie may change on the way; the manifest is hashed by its content.
        """
        values = self.told()
        del values["data"]["manifest"], values["compute"]["device"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def told(self) -> dict[str, Any]:
        """Return the sections that all of it was read from, as nested mappings."""
        return {name: section for name, section in asdict(self).items() if isinstance(section, dict)}

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings.

        Parameters
        ----------
        values : mapping
            Section to keys to values.

        Returns
        -------
        RunConfig

        Raises
        ------
        JobFailed
            Naming the key and what is wrong with it.
        """
        return cls._parse_sections(values)

    @classmethod
    def _parse_sections(cls, values: Mapping[str, object]) -> Self:
        hints = get_type_hints(cls)
        kinds: dict[str, Any] = {
            item.name: hints[item.name] for item in fields(cls) if item.default is MISSING
        }
        for name, section in values.items():
            if name not in kinds:
                raise JobFailed(f"The configuration has no section [{name}]{_near(name, kinds)}.")
            if not isinstance(section, dict):
                raise JobFailed(f"[{name}] must be a section with keys, not {section!r:.80}.")
        return cls(**{name: _section(name, kind, values) for name, kind in kinds.items()})


@dataclass(frozen=True, slots=True)
class EncoderRunConfig(RunConfig):
    """A training run of a method that looks at tiles through an encoder."""

    data: DataConfig
    encoder: EncoderConfig


def read_config(path: Path | str, kind: type[Config]) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path : Path or str
    kind : type
        A `RunConfig`.

    Returns
    -------
    RunConfig
        Of that kind.

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
    return kind.parse(values)


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
        begun = any(value.startswith(prefix) and value != prefix for prefix in rules["prefixes"])
        if rules["choices"] and value not in rules["choices"] and not begun:
            options = ", ".join(
                repr(choice)
                for choice in (*rules["choices"], *(f"{start}NAME" for start in rules["prefixes"]))
            )
            raise JobFailed(f"{key} must be one of {options}, not {value!r:.80}.")
        return value
    if kind == "bool":
        if not isinstance(value, bool):
            raise JobFailed(f"{key} must be true or false, not {value!r:.80}.")
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
