"""What the steps of a run over fields share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2_training.cohort.manifest import SPLITS
from napari_her2_training.corr_a_net.config import CorrANetConfig
from napari_her2_training.running.arm import ArmRun
from napari_her2_training.running.ranks import first_alone

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_her2.steps import Progress
    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.corr_a_net.fields import FieldStore


@dataclass(frozen=True, slots=True, eq=False)
class FieldRun(ArmRun[CorrANetConfig]):
    """What all steps of a run share; a folder of patches has neither cases nor a split of them.

    Parameters
    ----------
    config, data, table, folder, device, findings
        See `ArmRun`.
    store : FieldStore
    """

    store: FieldStore = field(kw_only=True)

    @property
    def judged(self) -> str:
        """The part that arms are judged on: "test" where there is one."""
        return "test" if len(self.store.listed("test")) else "validation"

    @property
    def counts(self) -> dict[str, int]:
        """Fields of each part."""
        return {part: len(self.store.listed(part)) for part in SPLITS}

    def path(self, *parts: str) -> Path:
        """Return a folder of the run, made when absent."""
        folder = self.folder.path.joinpath(*parts)
        if self.findings is None:
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def made(self, path: Path) -> bool:
        """Whether a file of the run is there already."""
        return self.findings is None and path.exists()

    def prepare(self, *wanted: tuple[str, Stain]) -> Generator[Progress, None, None]:
        """Cut fields of parts and stains that are not there yet."""
        for part, stain in wanted:
            if len(self.store.listed(part)):
                with first_alone():
                    yield from self.store.prepare(part, stain)
