"""What was asked of a scoring, as result.json has it: for whoever wants to ask the same elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_her2.export.geojson import drawn_geojson

if TYPE_CHECKING:
    from napari_her2.inference.asked import Asked


_FASTER = ("batch_size", "cache")
"""Options that only make it faster: only the kept result has them."""


def asked_values(asked: Asked) -> dict[str, Any]:
    """Return what was asked, for JSON.

    Parameters
    ----------
    asked : Asked

    Returns
    -------
    dict
        "slides", "model", "regions" (GeoJSON, or None for the whole tissue), "options", "device", "precision"
        and "torch". `napari_her2.reports.replay` reads them from the kept result, where they are exact.
    """
    drawn = asked.regions
    return {
        "slides": [
            {
                "path": str(slide.path),
                "slide_sha256": slide.fingerprint,
                "mpp": list(slide.mpp),
                "backend": slide.backend,
                **({"further": slide.further} if slide.further else {}),
            }
            for slide in asked.slides
        ],
        "model": asked.model,
        "regions": None if drawn is None else drawn_geojson(region.region() for region in drawn),
        "options": {name: value for name, value in asdict(asked.options).items() if name not in _FASTER},
        "device": asked.device,
        "precision": asked.precision,
        "torch": asked.torch,
    }
