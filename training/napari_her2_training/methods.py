"""The training methods: what each is configured by, and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from napari_her2_training.attention_mil.config import AttentionConfig
from napari_her2_training.comparison.config import CompareConfig
from napari_her2_training.corr_a_net.config import CorrANetConfig
from napari_her2_training.encoder.config import EncoderTrainingConfig
from napari_her2_training.low_resolution.config import LowResolutionConfig, PatchArmConfig
from napari_her2_training.mil.config import MILConfig
from napari_her2_training.wsmcl.config import WSMCLConfig

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from napari_her2.inference.result import Progress
    from napari_her2_training.config import RunConfig


class Run(Protocol):
    """The whole way from a manifest to a bundle, step by step."""

    def __call__(
        self, config: RunConfig, data: Path, out: Path, *, resume: bool
    ) -> Generator[Progress, None, Path]:
        """Train; see `napari_her2_training.run`."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train a model.

    Parameters
    ----------
    config : type
        Its configuration, a `RunConfig`.
    module, function : str
        Where `Run` is found.
    """

    config: type[RunConfig]
    module: str
    function: str

    def load(self) -> Run:
        """Import what runs it: torch and Lightning take seconds, and are not needed to find a mistake."""
        run: Run = getattr(import_module(f"{__package__}.{self.module}"), self.function)
        return run


METHODS: Mapping[str, Method] = {
    "attention-mil": Method(AttentionConfig, "attention_mil.run", "train_attention_mil"),
    "wsmcl": Method(WSMCLConfig, "wsmcl.run", "train_wsmcl"),
    "corr-a-net": Method(CorrANetConfig, "corr_a_net.run", "train_corr_a_net"),
    "predictor": Method(CorrANetConfig, "corr_a_net.run", "train_field_predictor"),
    "low-resolution": Method(LowResolutionConfig, "low_resolution.run", "train_low_resolution"),
    "patches": Method(PatchArmConfig, "low_resolution.run", "train_patches"),
    "mil": Method(MILConfig, "mil.run", "train_mil"),
    "compare": Method(CompareConfig, "comparison.run", "train_comparison"),
    "corr-a-net-table": Method(CorrANetConfig, "corr_a_net.table", "train_table"),
    "encoder": Method(EncoderTrainingConfig, "encoder.run", "train_encoder"),
}
