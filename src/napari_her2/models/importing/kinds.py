"""The kinds of checkpoint that become bundles; nothing heavy is imported for the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from napari_her2.errors import ModelError
from napari_her2.models.architectures import ARCHITECTURES
from napari_her2.models.card import PAIR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_her2.models.card import ArgumentValue
    from napari_her2.models.importing.renaming import HeadRead


BGR = "bgr"
"""Asked of networks of pixels: whether they learnt from blue, green, red, as OpenCV reads files."""
OF_MODEL = "model:"
"""How the encoder of a model that is installed is named."""
WRAPPERS = ("module.", "model.")
"""What DataParallel and Lightning put in front of every name."""


@dataclass(frozen=True, slots=True)
class CheckpointKind:
    """A kind of checkpoint, and what it does not say.

    Parameters
    ----------
    title : str
    paper : str
    architecture : str
        Key of `napari_her2.models.architectures.ARCHITECTURES`.
    module, reader : str
        Where `read` finds what reads it.
    takes_features : bool, default True
        Whether it stands behind an encoder, which is asked for; else it takes pixels.
    tile_px : int, default 224
        Side of its tiles, fields or images, where nobody says otherwise.
    mpp : float, default 0.5
        µm per pixel of them, likewise.
    asked : mapping
        Arguments of the head that no tensor tells, with what they are where nobody says otherwise.
    size_argument : str
        Argument of the head that is the side of the tiles again; empty where there is none.
    remark : str
        What a card says of how the published code differs from scoring here.
    """

    title: str
    paper: str
    architecture: str
    module: str
    reader: str
    takes_features: bool = True
    tile_px: int = 224
    mpp: float = 0.5
    asked: Mapping[str, ArgumentValue] = field(default_factory=dict)
    size_argument: str = ""
    remark: str = ""

    @property
    def stains(self) -> tuple[str, ...]:
        """Stains that its card may name, the usual one first."""
        return ARCHITECTURES[self.architecture].stains

    @property
    def takes_pair(self) -> bool:
        """Whether it takes both slides of a case."""
        return self.stains == (PAIR,)

    def read(self, tensors: Mapping[str, Tensor]) -> HeadRead:
        """Read the head of a checkpoint.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As the file has them, also below ``module.`` or ``model.``.

        Returns
        -------
        HeadRead

        Raises
        ------
        ModelError
            Naming the tensors that are missing, left over or of another shape.
        """
        from napari_her2.models.foreign_weights import without_prefix

        read = getattr(import_module(f"napari_her2.models.importing.{self.module}"), self.reader)
        found: HeadRead = read(without_prefix(tensors, *WRAPPERS))
        return found


_FIELDS = (
    "The published scripts feed fields without stain normalisation; here the stains of a slide are brought "
    "to the reference first, so its answers differ from theirs on the same slide."
)

KINDS: Mapping[str, CheckpointKind] = {
    "abmil": CheckpointKind("ABMIL", "Ilse et al. 2018, arXiv:1802.04712", "ABMIL", "abmil", "read_abmil"),
    "clam": CheckpointKind("CLAM", "Lu et al. 2021, arXiv:2004.09666", "CLAM", "clam", "read_clam"),
    "transmil": CheckpointKind(
        "TransMIL", "Shao et al. 2021, arXiv:2106.00908", "TransMIL", "transmil", "read_transmil"
    ),
    "dsmil": CheckpointKind("DSMIL", "Li et al. 2021, arXiv:2011.08939", "DSMIL", "dsmil", "read_dsmil"),
    "attention-mil": CheckpointKind(
        "Attention MIL",
        "Abdulsadig et al. 2024, arXiv:2411.05028",
        "AttentionMIL",
        "abmil",
        "read_attention_mil",
        tile_px=96,
    ),
    "wsmcl": CheckpointKind(
        "WSMCL (H&E and IHC together)", "Shi et al. 2025, PMID 39919535", "WSMCL", "wsmcl", "read_wsmcl"
    ),
    "corr-a-net-predictor": CheckpointKind(
        "Predictor of Corr-A-Net (H&E fields)",
        "Dutta et al. 2025, doi:10.1101/2025.04.22.25326227",
        "FieldModel",
        "predictor",
        "read_predictor",
        takes_features=False,
        tile_px=1024,
        mpp=0.46,
        asked={"field_px": 256, BGR: False},
        remark=_FIELDS,
    ),
    "low-resolution": CheckpointKind(
        "ConvNeXt on one small image of the slide",
        "Chauhan et al. 2025, arXiv:2503.22069",
        "LowResolution",
        "low_resolution",
        "read_low_resolution",
        takes_features=False,
        tile_px=1024,
        mpp=8.0,
        asked={"mode": "fit", "whiten": False},
        size_argument="size_px",
    ),
}


def kind_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the kind that tensors are of, among those behind an encoder; empty where they are of none."""
    for name, kind in KINDS.items():
        if not kind.takes_features:  # to know these, networks would have to be built
            continue
        try:
            kind.read(tensors)
        except ModelError:
            continue
        return name
    return ""


def kind_named(name: str) -> CheckpointKind:
    """Return a kind by its name.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    if name not in KINDS:
        raise ModelError(f"There is no kind of checkpoint called {name!r:.60}: use {', '.join(KINDS)}.")
    return KINDS[name]
