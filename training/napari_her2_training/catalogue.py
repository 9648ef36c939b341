"""The training methods in words, with the configurations that come with the package.

Told without importing any method: whoever only wants to choose one does not wait for PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class MethodText:
    """A training method for somebody who chooses one.

    Parameters
    ----------
    name : str
        A key of `napari_her2_training.methods.METHODS`.
    line : str
        What it learns from, and whose method it is.
    configs : tuple of str
        Names of the configurations that come with the package, the published protocol first.
    folder : str
        What folder its data may be, in words; empty where it takes tables of cases alone.
    table : bool
        Whether its data may be a table of cases.
    """

    name: str
    line: str
    configs: tuple[str, ...]
    folder: str = ""
    table: bool = True


_BCI = "pairs of fields laid out as BCI"

CATALOGUE = (
    MethodText(
        "attention-mil",
        "H&E slide: attention over bags of tiles (Abdulsadig et al., 2024)",
        ("attention_mil", "attention_mil_pcam", "attention_mil_ihc", "demo_attention_mil"),
    ),
    MethodText(
        "wsmcl",
        "H&E and IHC slide of a case together (Shi et al., 2025)",
        ("wsmcl", "wsmcl_herohe", "wsmcl_ablations", "demo_wsmcl", "demo_wsmcl_ablations"),
    ),
    MethodText(
        "corr-a-net",
        "Registered fields of H&E and IHC: what of H&E correlates with IHC (Dutta et al., 2025)",
        ("corr_a_net",),
        folder=_BCI,
    ),
    MethodText(
        "predictor",
        "Fields of H&E to a score with its confidence, on what Corr-A-Net makes of them (Dutta et al., 2025)",
        ("predictor",),
        folder=_BCI,
    ),
    MethodText(
        "corr-a-net-table",
        "Corr-A-Net and all its predictors, measured side by side (Dutta et al., 2025)",
        ("corr_a_net_table", "demo_corr_a_net"),
        folder=_BCI,
    ),
    MethodText(
        "low-resolution",
        "IHC slide: one small image of the whole slide (Chauhan et al., 2025)",
        ("low_resolution", "demo_low_resolution"),
    ),
    MethodText(
        "patches",
        "IHC slide: a network on patches, joined to a score of the slide",
        ("patches", "demo_low_resolution_start"),
    ),
    MethodText(
        "mil",
        "IHC slide: a slide model on frozen features (ABMIL, CLAM, TransMIL, DSMIL)",
        ("mil",),
    ),
    MethodText(
        "compare",
        "IHC slide: low resolution, patches and slide models on the same cases, one table",
        ("compare", "demo_compare"),
    ),
    MethodText(
        "encoder",
        "Labelled patches: an encoder for attention MIL to begin with; it scores no slides by itself",
        ("encoder_pcam", "encoder_ihc"),
        folder="patches, in one folder for each class, or PatchCamelyon",
        table=False,
    ),
)


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
