"""The correlated representation of a slide as a layer over it, and the long work behind it, without Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_her2._napari.layers import Over, common_options
from napari_her2._napari.overlay_layers import make_layer
from napari_her2._napari.prepared import preparing_fields
from napari_her2._napari.tags import METADATA_KEY, RepresentationTag, slide_tag
from napari_her2.explain.correlated_colours import REPRESENTATION
from napari_her2.explain.geometries import OnRequest
from napari_her2.steps import Progress, passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_her2._napari.lazy_pyramid import CorrelatedSource
    from napari_her2._napari.settings import Settings
    from napari_her2.explain.correlated import CorrelatedPyramid
    from napari_her2.explain.correlated_colours import FieldColours
    from napari_her2.slide.reader import Slide


View = Literal["mean", "PCA", "channel"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What is needed to compute and colour fields of a slide.

    Parameters
    ----------
    pyramid : CorrelatedPyramid
    sample : (N, d) float32
        Values from all over the tissue.
    model : str
        Name of the model.
    device : str
        With the reason why this one.
    warnings : tuple of str
    """

    pyramid: CorrelatedPyramid
    sample: NDArray[np.float32]
    model: str
    device: str
    warnings: tuple[str, ...] = ()

    def colours(self, view: View, channel: int = 0) -> FieldColours:
        """Colours of a view, the same for the whole slide; ``channel`` matters for "channel" alone."""
        from napari_her2.explain.correlated_colours import as_channel, as_mean, as_pca

        if view == "channel":
            return as_channel(self.sample, channel)
        return as_pca(self.sample) if view == "PCA" else as_mean(self.sample)


def preparing(slide: Slide, model: str, settings: Settings) -> Generator[Progress, None, Prepared]:
    """Load a model and fit stains, gate and colours to a slide; errors as `preparing_fields`."""
    ready = yield from preparing_fields(slide, model, settings, "representation")
    from napari_her2.explain.correlated import SAMPLE_FIELDS, CorrelatedPyramid

    head, card, device = ready.fields.head, ready.card, ready.device
    assert head.network is not None  # or it would have been refused
    pyramid = CorrelatedPyramid(
        slide,
        head.network,
        transform=ready.fields.transform,
        tile_px=card.tile_px,
        mpp=card.mpp,
        field_px=head.field_px,
        device=device.torch_device,
        clear_glass=True,
    )
    sample = yield from passed_on(
        pyramid.fit(),
        lambda done: Progress("Looking at the slide", done, SAMPLE_FIELDS, "fields", device.name),
    )
    return Prepared(pyramid, sample, card.name, device.name, ready.warnings)


def computing(source: CorrelatedSource) -> Generator[Progress, None, None]:
    """Compute what is wanted until nothing is; ends at once where the source was closed."""
    done = 0
    while source.compute_next():
        done += 1
        yield Progress("Computing the representation", done, done + source.pending, "fields")


def representation_layer(source: CorrelatedSource, prepared: Prepared, slide_layer: Image) -> Image:
    """Make the layer: exactly over the slide, in µm, clear where nothing was computed.

    Parameters
    ----------
    source : CorrelatedSource
    prepared : Prepared
    slide_layer : Image

    Returns
    -------
    Image
        Not yet in a viewer.
    """
    tag = slide_tag(slide_layer)
    pyramid = prepared.pyramid
    slide_id = "" if tag is None else tag.slide_id
    over = Over(slide_layer.name, slide_id, (1.0, 1.0))
    options = common_options(OnRequest(REPRESENTATION), over, detail=prepared.model)
    options |= {
        "rgb": True,
        "multiscale": True,
        "scale": (pyramid.pixel_um, pyramid.pixel_um),
        "translate": pyramid.offset_um,
        "contrast_limits": (0, 255),  # or napari would look for them in the data
        "metadata": {METADATA_KEY: RepresentationTag(slide_id)},
    }
    layer: Image = make_layer((source.levels, options, "image"), slide_layer)
    return layer
