"""The configuration of WSMCL: pairs of slides, head, loss, and the variants trained beside it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from napari_her2.errors import JobFailed
from napari_her2_training.config import PUBLISHED, EncoderRunConfig, RunConfig
from napari_her2_training.config_keys import key
from napari_her2_training.config_sections import DataConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2_training.cohort.manifest import Stain

ABLATION = "ablation"
VARIED = ("pairs", "head", "loss")
"""What a variant may change: everything else is shared, so that only this can make a difference."""
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,62}")


@dataclass(frozen=True, slots=True)
class PairedDataConfig(DataConfig):
    """[data]: as for every method, but tiles of any size, and folds that hold the classes in proportion."""

    tile_px: int = key(256, low=8, high=4096)
    stratified: bool = key(True)


@dataclass(frozen=True, slots=True)
class PairsConfig:
    """[pairs]: which H&E and IHC slides are learnt from together.

    Parameters
    ----------
    mode : str
        "same-case": both slides of a case. "same-class": of any two cases of one class, as many pairs of
        each class, where the two stains come from different people.
    redraw : bool
        Whether same-class pairs are drawn anew in each epoch, or once.
    max_tiles : int
        A slide is thinned to this many tiles, drawn anew each time it is learnt from; 0 takes all.
    accumulate : int
        Pairs a step of the optimiser.
    """

    mode: str = key("same-case", choices=("same-case", "same-class"))
    redraw: bool = key(True)
    max_tiles: int = key(0, low=0)
    accumulate: int = key(5, low=1, high=10_000)


@dataclass(frozen=True, slots=True)
class PairedHeadConfig:
    """[head]: WSMCL on top of the encoder, and how it learns (Adam).

    Parameters
    ----------
    width, heads, landmarks : int
        See `napari_her2.models.wsmcl.WSMCL`.
    k : int
        Top and bottom tiles of each slide that are contrasted.
    attention : str
        "auto", "nystrom" or "exact". Only what "auto" trains can be saved as a model.
    epochs : int
    learning_rate, weight_decay : float
    """

    width: int = key(512, low=1, high=65536)
    heads: int = key(8, low=1, high=1024)
    landmarks: int = key(256, low=1, high=65536)
    k: int = key(100, low=1, high=65536)
    attention: str = key("auto", choices=("auto", "nystrom", "exact"))
    epochs: int = key(100, low=1, high=100_000)
    learning_rate: float = key(2e-4, above=0.0)
    weight_decay: float = key(1e-5, low=0.0)


@dataclass(frozen=True, slots=True)
class LossConfig:
    """[loss]: weights of the parts of the loss; see `napari_her2_training.wsmcl.losses.LossOptions`."""

    fusion: float = key(1.0, low=0.0)
    ihc: float = key(1.0, low=0.0)
    he: float = key(0.0, low=0.0)
    contrastive: float = key(1.0, low=0.0)
    distillation: float = key(1.0, low=0.0)
    detach_teacher: bool = key(False)
    anchors: str = key("both", choices=("both", "top"))


@dataclass(frozen=True, slots=True)
class WSMCLConfig(EncoderRunConfig):
    """A whole training run of WSMCL, and its variants."""

    data: PairedDataConfig
    pairs: PairsConfig
    head: PairedHeadConfig
    loss: LossConfig
    variants: tuple[Variant, ...] = ()

    @property
    def modes(self) -> tuple[str, ...]:
        """Ways to pair, of the run and its variants."""
        every = (self, *(variant.config for variant in self.variants))
        return tuple(sorted({own.pairs.mode for own in every}))

    @property
    def needed(self) -> tuple[Stain, ...]:
        """Slides that every row of the manifest must name."""
        return ("he", "ihc") if "same-case" in self.modes else ()

    def digest(self) -> str:
        """SHA-256 of all values but the variants, which may be added later; each has its own."""
        # Not super(): a dataclass with slots is another class than the one that super() would remember.
        return RunConfig.digest(replace(self, variants=()))

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Check a configuration given as nested mappings, with ``ablation`` as a list of variants.

        Raises
        ------
        JobFailed
            Naming the variant, the key and what is wrong with it.
        """
        base = {name: section for name, section in values.items() if name != ABLATION}
        listed = values.get(ABLATION, [])
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise JobFailed("Variants are given as [[ablation]], each with a name and the keys it changes.")
        config = cls._checked(base)
        variants = tuple(cls._variant(base, entry) for entry in listed)
        names = [variant.name.lower() for variant in variants]
        for name in names:
            if names.count(name) > 1:
                raise JobFailed(f"Two variants are called {name!r}: give each [[ablation]] its own name.")
        return replace(config, variants=variants)

    @classmethod
    def _variant(cls, base: Mapping[str, object], entry: Mapping[str, Any]) -> Variant:
        name = entry.get("name")
        if not isinstance(name, str) or not _FOLDER.fullmatch(name):
            raise JobFailed(
                f"Each [[ablation]] needs a name of letters, digits, spaces and . _ + -, not {name!r:.80}."
            )
        # What was published is told of the run itself.
        merged = {section: given for section, given in base.items() if section != PUBLISHED}
        for section, changes in entry.items():
            if section == "name":
                continue
            if section not in VARIED or not isinstance(changes, dict):
                raise JobFailed(
                    f"[[ablation]] {name!r} may change keys of {', '.join(VARIED)}, as in "
                    f"loss.contrastive = 0, not {section!r:.80}."
                )
            given = merged.get(section, {})
            merged[section] = {**given, **changes}  # type: ignore[dict-item]
        try:
            return Variant(name, cls._checked(merged))
        except JobFailed as error:
            raise JobFailed(f"[[ablation]] {name!r}: {error}") from error

    @classmethod
    def _checked(cls, values: Mapping[str, object]) -> Self:
        config = cls._parse_sections(values)
        head, loss = config.head, asdict(config.loss)
        if head.width % head.heads:
            raise JobFailed(f"[head] width ({head.width}) must be a multiple of heads ({head.heads}).")
        if not any(loss[part] for part in ("fusion", "ihc", "he", "contrastive", "distillation")):
            raise JobFailed("[loss] must have a part with a weight above 0.")
        return config


@dataclass(frozen=True, slots=True)
class Variant:
    """A run that differs from another in a few keys: an ablation."""

    name: str
    config: WSMCLConfig
