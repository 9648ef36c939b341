"""The configuration of a training run: a TOML file, checked whole before any work is done."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_type_hints

from napari_her2.errors import JobFailed
from napari_her2.models.case_slides import JOINED_BAGS
from napari_her2.outside import MiB, Reading, expanded, shown
from napari_her2_training.config_keys import near, read_section
from napari_her2_training.config_sections import (
    CasesConfig,
    CaseSlidesConfig,
    ComputeConfig,
    DataConfig,
    DoubtConfig,
    EncoderConfig,
    MeasureConfig,
    ModelConfig,
    Published,
    SourceConfig,
    StoppingConfig,
)
from napari_her2_training.encoder_choice import with_contract
from napari_her2_training.instead import AS_IT_IS, Instead

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

_CONFIGS = Reading(
    limit=MiB // 4, advice="correct it, or begin with a configuration that comes with the package"
)
Config = TypeVar("Config", bound="RunConfig")
PUBLISHED, DOUBT, STOPPING, CASES = "published", "doubt", "stopping", "cases"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A training run: the sections that all methods share. A method adds its own by inheriting.

    What is ``published`` changes nothing that is computed, and is no part of the digest.
    """

    model: ModelConfig
    data: SourceConfig
    compute: ComputeConfig
    measure: MeasureConfig
    published: tuple[Published, ...] = field(default=(), kw_only=True)

    def digest(self) -> str:
        """SHA-256 of all values, in hexadecimal: a run resumes only under the configuration it began with.

        Where it runs and where its files lie may change on the way; the manifest is hashed by its content.
        """
        values = self.sections()
        values.pop(DOUBT, None)  # it changes no weight
        if values.get(STOPPING) == asdict(StoppingConfig()):
            del values[STOPPING]  # as before there was the section
        if values.get(CASES) == asdict(CaseSlidesConfig()):  # runs of before go on
            del values[CASES]
        del values["data"]["manifest"], values["compute"]["device"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def sections(self) -> dict[str, Any]:
        """Return the sections that all of it was read from, as nested mappings."""
        return {name: section for name, section in asdict(self).items() if isinstance(section, dict)}

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings.

        Parameters
        ----------
        values : mapping
            Section to keys to values.

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
        published = _published(values.get(PUBLISHED, []))
        values = {name: section for name, section in values.items() if name != PUBLISHED}
        for name, section in values.items():
            if name not in kinds:
                raise JobFailed(f"The configuration has no section [{shown(name, 60)}]{near(name, kinds)}.")
            if not isinstance(section, dict):
                raise JobFailed(f"[{shown(name, 60)}] must be a section with keys, not {section!r:.80}.")
        values = with_contract(values, kinds)
        sections = {name: read_section(name, kind, values) for name, kind in kinds.items()}
        return cls(**sections, published=published)


@dataclass(frozen=True, slots=True)
class CasesRunConfig(RunConfig):
    """A training run on cases with scores."""

    data: CasesConfig
    doubt: DoubtConfig
    stopping: StoppingConfig
    cases: CaseSlidesConfig
    joins_bags: ClassVar[bool] = False
    """Whether the tiles of several slides can be one bag of the method."""

    def __post_init__(self) -> None:
        if self.cases.slides == JOINED_BAGS and not self.joins_bags:
            raise JobFailed(
                "[cases] slides is 'joined bags', which only methods over features of tiles can learn from: "
                "use 'joined answers'."
            )

    @property
    def needed(self) -> tuple[Literal["he", "ihc"], ...]:
        """Slides that every row of the manifest must name."""
        return ("he",)


@dataclass(frozen=True, slots=True)
class EncoderRunConfig(CasesRunConfig):
    """A training run of a method that looks at tiles through an encoder."""

    data: DataConfig
    encoder: EncoderConfig
    joins_bags: ClassVar[bool] = True


def read_config(path: Path | str, kind: type[Config], instead: Instead = AS_IT_IS) -> Config:
    """Read a configuration file.

    Parameters
    ----------
    path : Path or str
    kind : type
        A `RunConfig`.
    instead : Instead
        What goes in place of what the file says.

    Returns
    -------
    RunConfig
        Of that kind.

    Raises
    ------
    JobFailed
        Naming the key and what is wrong with it.
    """
    return kind.parse(instead.into(config_values(path)))


def config_values(path: Path | str) -> dict[str, Any]:
    """Read the sections of a configuration file as they stand there; errors as `read_config`."""
    return dict(_CONFIGS.toml(expanded(path)))


def _published(given: object) -> tuple[Published, ...]:
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise JobFailed(
            "Published figures are given as [[published]], each with measure, value, on and source."
        )
    name = f"[{PUBLISHED}]"
    found: list[Published] = []
    for number, entry in enumerate(given, 1):
        try:
            figure: Published = read_section(name, Published, {name: entry})
        except JobFailed as error:
            raise JobFailed(f"Published figure {number}: {error}") from error
        found.append(figure)
    return tuple(found)


def find_config(path: str | PathLike[str]) -> Path:
    """Return the file of a configuration: a path, or the name of one that comes with the package."""
    given = expanded(os.fspath(path))
    own = Path(__file__).parent / "configs" / f"{given.stem}.toml"
    if not os.path.exists(given) and given.parent == Path() and os.path.exists(own):
        return own
    return given
