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
    folders : bool
        Whether its data may be a folder of images as well as a table of cases.
    """

    name: str
    line: str
    configs: tuple[str, ...]
    folders: bool = False


CATALOGUE = (
    MethodText(
        "attention-mil",
        "H&E slide: attention over bags of tiles (Abdulsadig et al., 2024)",
        ("attention_mil", "demo_attention_mil"),
    ),
    MethodText(
        "wsmcl",
        "H&E and IHC slide of a case together (Shi et al., 2025)",
        ("wsmcl", "wsmcl_ablations", "demo_wsmcl", "demo_wsmcl_ablations"),
    ),
    MethodText(
        "corr-a-net",
        "Registered fields of H&E and IHC: what of H&E correlates with IHC (Dutta et al., 2025)",
        ("corr_a_net",),
        folders=True,
    ),
    MethodText(
        "predictor",
        "Fields of H&E to a score with its confidence, on what Corr-A-Net makes of them (Dutta et al., 2025)",
        ("predictor",),
        folders=True,
    ),
    MethodText(
        "corr-a-net-table",
        "Corr-A-Net and all its predictors, measured side by side (Dutta et al., 2025)",
        ("corr_a_net_table", "demo_corr_a_net"),
        folders=True,
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
