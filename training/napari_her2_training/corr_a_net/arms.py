"""The arms of Corr-A-Net that are compared: what a predictor looks at, and through which network."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from napari_her2_training.corr_a_net.config import ATTENTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_her2_training.cohort.manifest import Stain
    from napari_her2_training.corr_a_net.config import CorrANetConfig

STAINS_OF: Mapping[str, tuple[Stain, ...]] = {
    "H&E": ("he",), "IHC": ("ihc",), "H&E+IHC": ("ihc", "he"), "correlated": ("he",)
}  # fmt: skip
"""Stains that an input is made of, in the order of their channels (as published)."""
_FAITHFUL: Mapping[str, object] = {"dilation": 1, "scaling": "field"}
_SLUGS: Mapping[str, str] = {"H&E": "he", "IHC": "ihc", "H&E+IHC": "he-ihc"}


@dataclass(frozen=True, slots=True)
class NetworkArm:
    """A Corr-A-Net of the comparison; its parameters are those of `CorrANet`."""

    dim: int
    attention: bool
    dilation: int = 1
    scaling: str = "field"

    @property
    def name(self) -> str:
        """For a person; variants are named, the network of the paper is not."""
        words = [f"d={self.dim}", "attention" if self.attention else "no attention"]
        if self.dilation > 1:
            words.append(f"dilation {self.dilation}")
        if self.scaling != "field":
            words.append(f"range of the {self.scaling}")
        return ", ".join(words)

    @property
    def slug(self) -> str:
        """Name of its folder."""
        words = [f"d{self.dim}", "attention" if self.attention else "plain"]
        if self.dilation > 1:
            words.append(f"dilation{self.dilation}")
        if self.scaling != "field":
            words.append(self.scaling)
        return "-".join(words)

    @property
    def arguments(self) -> dict[str, int | bool | str]:
        """Of `CorrANet`; a variant that is off is left out, as in files from before there were any."""
        return {name: value for name, value in asdict(self).items() if value != _FAITHFUL.get(name)}


@dataclass(frozen=True, slots=True)
class Arm:
    """A predictor of the comparison.

    Parameters
    ----------
    architecture : str
    input : str
        "H&E", "IHC", "H&E+IHC" or "correlated".
    network : NetworkArm or None
        With "correlated".
    """

    architecture: str
    input: str
    network: NetworkArm | None = None

    @property
    def name(self) -> str:
        """For a person, without the architecture."""
        return self.input if self.network is None else f"{self.input} ({self.network.name})"

    @property
    def slug(self) -> str:
        """Name of its folder below that of the architecture."""
        return _SLUGS[self.input] if self.network is None else f"correlated-{self.network.slug}"

    @property
    def deployable(self) -> bool:
        """Whether slides can be scored with it, from H&E alone."""
        return STAINS_OF[self.input] == ("he",)


def network_arms(config: CorrANetConfig) -> tuple[NetworkArm, ...]:
    """Return the networks of the table."""
    kinds = ATTENTION[config.table.attention]
    return tuple(
        replace(own_network(config), dim=dim, attention=attention)
        for dim in config.dims
        for attention in kinds
    )


def own_network(config: CorrANetConfig) -> NetworkArm:
    """Return the network that [network] describes."""
    own = config.network
    return NetworkArm(own.dim, own.attention, own.dilation, own.scaling)


def predictor_arms(config: CorrANetConfig) -> tuple[Arm, ...]:
    """Return the arms of the table; that of the model of the run first, so that it is there early."""
    arms: list[Arm] = []
    for architecture in config.predictors:
        for given in config.inputs:
            if given == "correlated":
                arms += [Arm(architecture, given, network) for network in network_arms(config)]
            else:
                arms.append(Arm(architecture, given))
    own = own_network(config)
    return tuple(sorted(arms, key=lambda arm: arm.network != own or arm.architecture != config.predictors[0]))
