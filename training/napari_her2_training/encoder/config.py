"""The configuration of pre-training a patch encoder on a folder of labelled patches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from napari_her2.errors import JobFailed
from napari_her2_training.config import RunConfig
from napari_her2_training.config_keys import key
from napari_her2_training.config_sections import EncoderConfig, SourceConfig
from napari_her2_training.encoder_choice import ALEXNET

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    blocks : int
        Only so many of the encoder's last blocks learn: fine-tuning, for an encoder that was pretrained.
        0: all of it, and its normalisation follows the patches.
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
    scale_jitter : float
        Largest relative change of the µm/px of a patch, for encoders that are used at several.
    """

    epochs: int = key(0, low=0, high=1000)
    patches_per_slide: int = key(200, low=1)
    regions: str = key("")
    blocks: int = key(0, low=0, high=1000)
    batch_size: int = key(256, low=1)
    learning_rate: float = key(1e-4, above=0.0)
    weight_decay: float = key(1e-2, low=0.0)
    dropout: float = key(0.3, low=0.0, high=0.95)
    stain_jitter: float = key(0.15, low=0.0, high=1.0)
    colour_jitter: float = key(0.05, low=0.0, high=0.5)
    sharpness_jitter: float = key(0.5, low=0.0, high=1.0)
    noise: float = key(2.0, low=0.0, high=50.0)
    scale_jitter: float = key(0.0, low=0.0, high=0.5)


@dataclass(frozen=True, slots=True)
class PatchFolderConfig(SourceConfig):
    """[data]: a folder of labelled patches; see `encoder.patch_folder` for how it is laid out.

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
        if config.encoder.name != ALEXNET and config.pretraining.batch_size < 2:
            raise JobFailed(
                "[pretraining] batch_size must be 2 or more: batches are normalised over patches."
            )
        return config
