"""The configuration of pre-training a patch encoder on a folder of labelled patches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from napari_her2.errors import JobFailed
from napari_her2_training.attention_config import PretrainingConfig
from napari_her2_training.config import (
    EncoderConfig,
    RunConfig,
    SourceConfig,
)
from napari_her2_training.config_keys import key

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PatchFolderConfig(SourceConfig):
    """[data]: a folder of labelled patches; see `napari_her2_training.patch_folder` for how it is laid out.

    Parameters
    ----------
    tile_px : int
        Side of the patches, pixels.
    resize : bool
        Whether patches of another size are brought to it; else they are refused. That changes their µm/px.
    validation : float
        Share of the patches, or of the groups, to check with, where the folder has no part for that.
    groups : str
        Regular expression whose one group, found in the name of a file, says whose patch it is: those of one
        patient stay together. Empty: ``groups.csv`` says it, or every patch stands for itself.
    seed : int
        Of the split.
    """

    tile_px: int = key(96, low=8, high=4096)
    resize: bool = key(False)
    validation: float = key(0.2, above=0.0, high=0.5)
    groups: str = key("")
    seed: int = key(123, low=0)


@dataclass(frozen=True, slots=True)
class PatchPretrainingConfig(PretrainingConfig):
    """[pretraining]: as within attention MIL; keys about slides have no meaning here."""

    epochs: int = key(20, low=1, high=1000)


@dataclass(frozen=True, slots=True)
class EncoderTrainingConfig(RunConfig):
    """A pre-training of a patch encoder."""

    data: PatchFolderConfig
    encoder: EncoderConfig
    pretraining: PatchPretrainingConfig

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings; see `RunConfig.parse`."""
        given = values.get("pretraining")
        for name in ("patches_per_slide", "regions"):
            if isinstance(given, dict) and name in given:
                raise JobFailed(f"[pretraining] has no key {name!r} here: patches come from a folder.")
        config = cls._parse_sections(values)
        pattern = config.data.groups
        try:
            fits = not pattern or re.compile(pattern).groups == 1
        except re.error as error:
            raise JobFailed(f"[data] groups {pattern!r:.80} is no regular expression: {error}.") from error
        if not fits:
            raise JobFailed(
                f"[data] groups must have one group in parentheses, as in '^(.+?)_', not {pattern!r:.80}."
            )
        if config.encoder.name.startswith("timm:") and config.pretraining.batch_size < 2:
            raise JobFailed(
                "[pretraining] batch_size must be 2 or more: batches are normalised over patches."
            )
        return config
