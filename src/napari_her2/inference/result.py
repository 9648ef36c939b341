"""What scoring says: progress on the way, maps and the slide's result at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_her2.models.card import NOTICE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.explain.maps import MapKind, TileMap
    from napari_her2.models.bags import BagUncertainty
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.tissue import TissueMask


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of long work, yielded by the generators of this package.

    Parameters
    ----------
    stage : str
        What is being done, for a person: "Finding tissue", "Embedding tiles".
    done, total : int
        Units done and to be done in this stage; ``total`` 0 means not known.
    unit : str
        What is counted ("tiles").
    note : str
        Anything worth a line: which device, that the cache was used, memory was short.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TileTable:
    """What the model says of each tile, in the order of scoring.

    Parameters
    ----------
    index : (N, 2) int64
        (row, column) on the grid.
    origins_px0 : (N, 2) int64
        (y, x) of the corner, level-0 pixels.
    attention : (N,) float32
        Attention weights; they sum to one over the slide.
    evidence : (N, C) float32
        Signed class evidence; its mean over the tiles plus the bias is the logit.
    """

    index: NDArray[np.int64]
    origins_px0: NDArray[np.int64]
    attention: NDArray[np.float32]
    evidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class SlideResult:
    """A scored slide: the answer, how sure, why, and where it came from.

    Parameters
    ----------
    slide, model : str
        Names of the slide and the model.
    slide_path : Path
    slide_sha256_head : str
        Fingerprint of the slide file (`Slide.fingerprint`).
    model_sha256 : str
        SHA-256 of the bundle file.
    task : str
        Stain and task, always shown with the score: "H&E-based prediction of the HER2 IHC score".
    classes : tuple of str
        In the order of the probabilities: ("0", "1+", "2+", "3+").
    probabilities : mapping of str to float
    score : str
        The most probable class.
    label : str
        The class as it is shown: "2+ (equivocal, ISH required)", or "indeterminate" with a reason.
    abstained : bool
        Whether the rule of abstention applies (too little tissue, or too unsure).
    table : TileTable
    maps : tuple of TileMap
    grid : TileGrid
    tissue_mm2 : float
    corrupt : (K, 2) int64
        (row, column) of tiles left out because the file is damaged there.
    uncertainty : BagUncertainty or None
        None with fewer tiles than one bag.
    device : str
        With the reason when it is the CPU: "cpu (no CUDA or MPS device found)".
    seconds : mapping of str to float
        Wall time of each stage.
    warnings : tuple of str
    version : str
        Of napari-her2.
    notice : str
        Shown wherever the score is shown.
    training_data, guideline : str
        What the model was trained on, and whose criteria its labels follow.
    regions : str or None
        What the scoring was limited to ("tumour.geojson", "2 drawn regions"), None for the whole tissue.
    tissue : TissueMask or None
        What was taken for tissue.
    """

    slide: str
    slide_path: Path
    slide_sha256_head: str
    model: str
    model_sha256: str
    task: str
    classes: tuple[str, ...]
    probabilities: Mapping[str, float]
    score: str
    label: str
    abstained: bool
    table: TileTable
    maps: tuple[TileMap, ...]
    grid: TileGrid
    tissue_mm2: float
    corrupt: NDArray[np.int64]
    uncertainty: BagUncertainty | None
    device: str
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    version: str
    notice: str = field(default=NOTICE)
    training_data: str = ""
    guideline: str = ""
    regions: str | None = None
    tissue: TissueMask | None = None

    @property
    def confidence(self) -> float:
        """Probability of the top class."""
        return self.probabilities[self.score]

    @property
    def margin(self) -> float:
        """Probability of the top class minus that of the second."""
        ordered = sorted(self.probabilities.values(), reverse=True)
        return ordered[0] - ordered[1] if len(ordered) > 1 else ordered[0]

    def map(self, kind: MapKind, class_name: str | None = None) -> TileMap:
        """Return the map of a kind, and of a class where it has one.

        Raises
        ------
        KeyError
            If there is no such map.
        """
        for tile_map in self.maps:
            if tile_map.kind == kind and tile_map.class_name == class_name:
                return tile_map
        raise KeyError(f"{kind} {class_name or ''}".strip())
