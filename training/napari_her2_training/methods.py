"""The training methods: what each learns from, its configurations, and what runs it; the one list of them.

Nothing is imported until a method is run: whoever only wants to choose one does not wait for PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_her2.errors import JobFailed
from napari_her2.models.case_slides import JOINED_BAGS, WAYS
from napari_her2_training.config import CasesRunConfig, find_config, read_config
from napari_her2_training.instead import AS_IT_IS, Instead

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from napari_her2.steps import Progress
    from napari_her2_training.config import RunConfig
    from napari_her2_training.findings import Findings

CONFIGS = Path(__file__).parent / "configs"


class Run(Protocol):
    """The whole way from a manifest to a bundle, step by step."""

    def __call__(
        self, config: RunConfig, data: Path, out: Path, *, resume: bool, findings: Findings | None = None
    ) -> Generator[Progress, None, Path]:
        """Train, or tell findings what training would find and take; see `napari_her2_training.run`."""
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train a model.

    Parameters
    ----------
    name : str
    line : str
        What it learns from, and whose method it is.
    configs : tuple of str
        Names of the configurations that come with the package, the published protocol first.
    sections : str
        Module and name of its configuration, a `RunConfig`.
    function : str
        Module and name of what runs it, a `Run`.
    folder : str
        What folder its data may be, in words; empty where it takes tables of cases alone.
    table : bool
        Whether its data may be a table of cases.
    """

    name: str
    line: str
    configs: tuple[str, ...]
    sections: str
    function: str
    folder: str = ""
    table: bool = True

    @property
    def config(self) -> type[RunConfig]:
        """Its configuration."""
        kind: type[RunConfig] = _imported(self.sections)
        return kind

    @property
    def has_encoder(self) -> bool:
        """Whether it looks at tiles through an encoder that can be chosen."""
        return any(item.name == "encoder" for item in fields(self.config))

    @property
    def case_ways(self) -> tuple[str, ...]:
        """What several slides of a case may be to it; empty where it learns from no cases."""
        if not issubclass(self.config, CasesRunConfig):
            return ()
        return tuple(way for way in WAYS if way != JOINED_BAGS or self.config.joins_bags)

    def read(
        self, config: Path | None, data: Path | None, device: str, instead: Instead = AS_IT_IS
    ) -> tuple[RunConfig, Path]:
        """Read a configuration, by default the published protocol of the method.

        Parameters
        ----------
        config : Path or None
            TOML file, or the name of one of ours.
        data : Path or None
            In place of what the configuration names.
        device : str
            In place of that of the configuration, unless it is "auto".
        instead : Instead
            What goes in place of what the configuration says.

        Returns
        -------
        tuple of RunConfig and Path
            With the data to learn from.

        Raises
        ------
        JobFailed
            Naming what is wrong with it.
        """
        file = self.file(config)
        settings = read_config(file, self.config, instead)
        if device != "auto":
            settings = replace(settings, compute=replace(settings.compute, device=device))
        if data is None and settings.data.manifest:
            data = file.parent / settings.data.manifest
        if data is None:
            raise JobFailed(
                "There is no data to train on: give --data, a manifest or a folder, or [data] manifest in "
                "the configuration."
            )
        return settings, data.expanduser()

    def file(self, config: Path | None) -> Path:
        """Return the file of a configuration; see `read`."""
        return find_config(self.name.replace("-", "_") if config is None else config)

    def load(self) -> Run:
        """Import what runs it: torch and Lightning take seconds, and are not needed to find a mistake."""
        run: Run = _imported(self.function)
        return run


def _imported(place: str) -> Any:  # noqa: ANN401 - whatever it is
    module, _, name = place.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


_BCI = "pairs of fields laid out as BCI"
_ALL = (
    Method(
        "attention-mil",
        "H&E slide: attention over bags of tiles (Abdulsadig et al., 2024)",
        (
            *("attention_mil", "attention_mil_pcam", "attention_mil_ihc"),
            *("herohe_attention_mil", "bcnb_attention_mil", "demo_attention_mil"),
        ),
        "attention_mil.config:AttentionConfig",
        "attention_mil.run:train_attention_mil",
    ),
    Method(
        "wsmcl",
        "H&E and IHC slide of a case together (Shi et al., 2025)",
        ("wsmcl", "wsmcl_herohe", "wsmcl_ablations", "demo_wsmcl", "demo_wsmcl_ablations"),
        "wsmcl.config:WSMCLConfig",
        "wsmcl.run:train_wsmcl",
    ),
    Method(
        "corr-a-net",
        "Registered fields of H&E and IHC: what of H&E correlates with IHC (Dutta et al., 2025)",
        ("corr_a_net",),
        "corr_a_net.config:CorrANetConfig",
        "corr_a_net.run:train_corr_a_net",
        folder=_BCI,
    ),
    Method(
        "predictor",
        "Fields of H&E to a score with its confidence, on what Corr-A-Net makes of them (Dutta et al., 2025)",
        ("predictor",),
        "corr_a_net.config:CorrANetConfig",
        "corr_a_net.run:train_field_predictor",
        folder=_BCI,
    ),
    Method(
        "corr-a-net-table",
        "Corr-A-Net and all its predictors, measured side by side (Dutta et al., 2025)",
        ("corr_a_net_table", "demo_corr_a_net"),
        "corr_a_net.config:CorrANetConfig",
        "corr_a_net.table:train_table",
        folder=_BCI,
    ),
    Method(
        "low-resolution",
        "IHC slide: one small image of the whole slide (Chauhan et al., 2025)",
        ("low_resolution", "her2_ihc_40x_low_resolution", "demo_low_resolution"),
        "low_resolution.config:LowResolutionConfig",
        "low_resolution.run:train_low_resolution",
    ),
    Method(
        "patches",
        "IHC slide: a network on patches, joined to a score of the slide",
        ("patches", "her2_ihc_40x_patches", "demo_low_resolution_start"),
        "low_resolution.config:PatchArmConfig",
        "low_resolution.run:train_patches",
    ),
    Method(
        "mil",
        "IHC slide: a slide model on frozen features (ABMIL, CLAM, TransMIL, DSMIL)",
        ("mil", "herohe_mil"),
        "mil.config:MILConfig",
        "mil.run:train_mil",
    ),
    Method(
        "compare",
        "IHC slide: low resolution, patches and slide models on the same cases, one table",
        ("compare", "demo_compare"),
        "comparison.config:CompareConfig",
        "comparison.run:train_comparison",
    ),
    Method(
        "encoder",
        "Labelled patches: an encoder for attention MIL to begin with; it scores no slides by itself",
        ("encoder_pcam", "encoder_ihc"),
        "encoder.config:EncoderTrainingConfig",
        "encoder.run:train_encoder",
        folder="patches, in one folder for each class, or PatchCamelyon",
        table=False,
    ),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def find_method(name: str) -> Method:
    """Return a method.

    Raises
    ------
    JobFailed
        If there is none of this name.
    """
    if name not in METHODS:
        raise JobFailed(f"There is no training method {name!r}: use {', '.join(METHODS)}.")
    return METHODS[name]


def about_config(name: str) -> str:
    """Return what a configuration that comes with the package says of itself, in one line.

    Parameters
    ----------
    name : str
        "attention_mil".

    Returns
    -------
    str
        Its opening comment, without the commands in it.
    """
    lines: list[str] = []
    for line in (CONFIGS / f"{name}.toml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("#  "):  # a command
            lines.append(line[1:].strip())
    text = " ".join(lines)
    return f"{text[:-1]}." if text.endswith(":") else text
