"""The public cohorts that can be imported: the one list of them.

What is said of their licences is what was read in 2026, and no promise: read the terms on their page.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed
from napari_her2.outside import expanded
from napari_her2_training.cohort_sources.options import ImportOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_her2_training.cohort_sources.found import Found

_TERMS = "its terms are on its page"


@dataclass(frozen=True, slots=True)
class Source:
    """A cohort as it is distributed.

    Parameters
    ----------
    name : str
    title : str
        What it holds.
    page : str
        Where it is had; empty where we know none.
    licence : str
    function : str
        Module and name of what finds its cases.
    """

    name: str
    title: str
    page: str
    licence: str
    function: str

    def find(self, folder: Path, options: ImportOptions | None = None) -> Found:
        """Find its cases in a folder.

        Parameters
        ----------
        folder : Path
        options : ImportOptions, optional

        Raises
        ------
        JobFailed
            If the folder is none of this cohort, or a table in it cannot be read.
        """
        folder = expanded(folder)
        if not folder.is_dir():
            raise JobFailed(f"There is no folder {folder}: check the path.")
        module, _, name = self.function.partition(":")
        find = getattr(import_module(f"{__package__}.{module}"), name)
        found: Found = find(folder, options or ImportOptions())
        return found


_ALL = (
    Source(
        "herohe",
        "H&E slides with IHC score and ISH, 360 to learn and 150 to test",
        "https://ecdp2020.grand-challenge.org",
        _TERMS,
        "herohe:find_herohe",
    ),
    Source(
        "bcnb",
        "H&E biopsies as JPEG with outlines and IHC score, 1,058",
        "https://bupt-ai-cz.github.io/BCNB/",
        f"not for commerce; {_TERMS}",
        "bcnb:find_bcnb",
    ),
    Source(
        "bci",
        "registered fields of H&E and IHC with the score of their slide, 4,873 pairs",
        "https://github.com/bupt-ai-cz/BCI",
        _TERMS,
        "bci:find_bci",
    ),
    Source(
        "yale",
        "H&E slides called HER2 positive or negative, with outlines; response to trastuzumab",
        "https://www.cancerimagingarchive.net",
        "CC BY 4.0",
        "yale:find_yale",
    ),
    Source(
        "acrobat",
        "whole slides of H&E and IHC of the same tumours, without scores",
        "https://acrobat.grand-challenge.org",
        _TERMS,
        "acrobat:find_acrobat",
    ),
    Source(
        "ihc4bc",
        "fields of H&E and IHC, HER2 as 0/1+ against 3+",
        "https://ihc4bc.github.io",
        _TERMS,
        "ihc4bc:find_ihc4bc",
    ),
    Source(
        "her2-ihc-40x",
        "pictures of HER2 IHC in a folder for each score",
        "",
        "read its terms where you got it",
        "her2_ihc_40x:find_her2_ihc_40x",
    ),
    Source(
        "tcga-brca",
        "diagnostic H&E slides and a clinical table, whose HER2 score is often empty",
        "https://portal.gdc.cancer.gov",
        _TERMS,
        "tcga_brca:find_tcga_brca",
    ),
)
SOURCES: Mapping[str, Source] = {source.name: source for source in _ALL}


def find_source(name: str) -> Source:
    """Return a source.

    Raises
    ------
    JobFailed
        If there is none of this name.
    """
    if name not in SOURCES:
        raise JobFailed(f"There is no cohort {name!r:.40}: use {', '.join(SOURCES)}.")
    return SOURCES[name]
