"""Which image of a TIFF is the slide, its levels, its channels, and what stands beside it."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import tifffile

from napari_her2 import open_slide
from napari_her2.errors import SlideError
from tiff_pictures import IMAGE, halved, picture, um, whole

# The slide among the images


def test_the_slide_is_the_largest_tiled_image_though_the_macro_comes_first(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(
            IMAGE[:96, :80],
            photometric="rgb",
            tile=(64, 64),
            metadata={"axes": "YXS", "Name": "macro", **um(16)},
        )
        writer.write(
            IMAGE,
            photometric="rgb",
            tile=(64, 64),
            subifds=1,
            metadata={"axes": "YXS", "Name": "HE", **um(0.5)},
        )
        writer.write(halved(IMAGE), photometric="rgb", tile=(64, 64), subfiletype=1)
    with open_slide(path) as slide:
        assert slide.level_shapes == (IMAGE.shape[:2], (128, 160))
        assert slide.mpp == (0.5, 0.5)
        assert slide.associated_images == ("macro",)
        assert np.array_equal(slide.associated_image("macro"), IMAGE[:96, :80])


def test_a_label_page_in_front_is_no_level_and_no_slide(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE[:64, :64], photometric="rgb", tile=(64, 64), metadata=None, description="label")
        writer.write(
            IMAGE, photometric="rgb", tile=(64, 64), metadata=None, resolution=(2e4, 2e4), resolutionunit=3
        )
        writer.write(halved(IMAGE), photometric="rgb", tile=(64, 64), metadata=None, subfiletype=1)
    with open_slide(path) as slide:
        assert slide.level_shapes == (IMAGE.shape[:2], (128, 160))
        assert slide.associated_images == ("label",)
        assert slide.mpp == pytest.approx((0.5, 0.5))
        assert np.array_equal(slide.read(1, 0, 0, 128, 160), halved(IMAGE))


@pytest.mark.parametrize("thumbnail", [False, True])
def test_all_levels_of_an_svs_are_found_with_and_without_a_thumbnail(tmp_path, thumbnail):
    path = tmp_path / "a.svs"
    head = "Aperio Image Library v11\r\n320x256 (64x64) JPEG/RGB|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE, photometric="rgb", tile=(64, 64), metadata=None, description=head)
        if thumbnail:
            writer.write(halved(IMAGE, 2), photometric="rgb", metadata=None, description="Aperio\r\n-> 80x64")
        for times in (1, 2, 3):
            writer.write(
                halved(IMAGE, times),
                photometric="rgb",
                tile=(64, 64),
                metadata=None,
                subfiletype=1,
                description=head,
            )
        writer.write(
            IMAGE[:50, :40], photometric="rgb", metadata=None, subfiletype=1, description="A\nlabel 40x50"
        )
        writer.write(
            IMAGE[:40, :90], photometric="rgb", metadata=None, subfiletype=9, description="A\nmacro 90x40"
        )
    openslide = pytest.importorskip("openslide", reason="the OpenSlide extra is not installed")
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert [shape[::-1] for shape in slide.level_shapes] == list(other.level_dimensions)
        assert set(slide.associated_images) == {"label", "macro"} | ({"thumbnail"} if thumbnail else set())
        assert slide.associated_image("label").shape == (50, 40, 3)
        assert slide.associated_image("macro").shape == (40, 90, 3)


def ome_of(path, *images, **options):
    """An OME-TIFF in which each picture is an Image of its own: (name, pixels)."""
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, pixels in images:
            axes = "ZYXS"[-pixels.ndim :] if pixels.shape[-1] == 3 else "CYX"
            settings = {"photometric": "rgb", "tile": (64, 64)} | options
            writer.write(pixels, metadata={"axes": axes, "Name": name}, **settings)


@pytest.mark.parametrize("names", [("HE", "HE", "HE"), ("HE", "HE resolution 2", "HE #3"), ("", "", "")])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_levels_that_are_images_of_their_own_in_an_ome_tiff_are_levels(tmp_path, names, order):
    pyramid = [IMAGE, halved(IMAGE), halved(IMAGE, 2)]
    ome_of(tmp_path / "a.ome.tif", *((names[number], pyramid[number]) for number in order))
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.level_shapes == ((256, 320), (128, 160), (64, 80))
        assert slide.associated_images == ()
        for number, pixels in enumerate(pyramid):
            assert np.array_equal(slide.read(number, 0, 0, *pixels.shape[:2]), pixels)


def test_planes_of_colours_have_their_levels_as_images_of_their_own_too(tmp_path):
    planes = [np.moveaxis(image, -1, 0) for image in (IMAGE, halved(IMAGE))]
    ome_of(tmp_path / "a.ome.tif", *(("HE", pixels) for pixels in planes), photometric="minisblack")
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.level_shapes == ((256, 320), (128, 160))
        assert np.array_equal(slide.read(1, 0, 0, 128, 160), halved(IMAGE))


def test_only_what_shows_the_slide_is_a_level_of_an_ome_tiff(tmp_path):
    other = halved(picture(512, 640)[200:456, 300:620])  # another place, of the same shape
    stack = np.stack([halved(IMAGE, 2)] * 3)
    ome_of(
        tmp_path / "a.ome.tif",
        ("HE", IMAGE),
        ("HE", other),
        ("macro", halved(IMAGE)),
        ("focus", stack),
        ("strip", IMAGE[:64]),
        ("white", np.full_like(halved(IMAGE, 2), 255)),
    )
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.level_shapes == ((256, 320),)
        assert set(slide.associated_images) == {"he", "macro", "focus", "strip", "white"}


def test_other_channels_and_focal_planes_are_no_levels(tmp_path):
    grey = halved(IMAGE)[:, :, 0]
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(np.stack([IMAGE] * 2), photometric="rgb", tile=(64, 64), metadata={"axes": "ZYXS"})
        writer.write(grey, photometric="minisblack", tile=(64, 64), metadata={"axes": "YX", "Name": "mask"})
    with open_slide(path) as slide:
        assert slide.level_shapes == ((256, 320),)
        assert slide.associated_images == ("mask",)


@pytest.mark.parametrize("renamed", [False, True])
def test_each_file_of_an_ome_set_has_its_own_pixels_and_scale(tmp_path, renamed):
    ids = [f"urn:uuid:{uuid.uuid4()}" for _ in "ab"]
    parts = IMAGE[:128, :128], IMAGE[128:, 128:256]

    def entry(number: int, mpp: float) -> str:
        return (
            f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="uint8" '
            f'SizeX="128" SizeY="128" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="{mpp}" '
            f'PhysicalSizeY="{mpp}"><Channel ID="Channel:{number}:0" SamplesPerPixel="3"/>'
            f'<TiffData IFD="0" PlaneCount="1">'
            f'<UUID FileName="{"ab"[number]}.ome.tif">{ids[number]}</UUID></TiffData></Pixels></Image>'
        )

    for number, name in enumerate("ab"):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{ids[number]}">{entry(0, 0.25)}{entry(1, 0.5)}</OME>'
        )
        file = tmp_path / (f"case {name}.ome.tif" if renamed else f"{name}.ome.tif")
        tifffile.imwrite(
            file, parts[number], photometric="rgb", tile=(64, 64), description=xml, metadata=None
        )
        with open_slide(file) as slide:
            assert np.array_equal(slide.read(0, 0, 0, 128, 128), parts[number])
            assert slide.mpp == (0.25, 0.25) if number == 0 else slide.mpp == (0.5, 0.5)
            assert slide.associated_images == ()


@pytest.mark.parametrize(
    ("root", "stated", "mpp"),
    [
        ("", [("old.ome.tif", "1")], 0.25),  # renamed, and the XML names no UUID of its own
        ('UUID="urn:uuid:9"', [("old.ome.tif", "1")], 0.25),  # saved anew and renamed
        ('UUID="URN:UUID:1"', [("old.ome.tif", "1"), ("b.ome.tif", "2")], 0.25),
        ('UUID="urn:uuid:9"', [("now.ome.tif", "1"), ("b.ome.tif", "2")], 0.25),  # saved anew
        ('UUID="urn:uuid:9"', [("a.ome.tif", "1"), ("now.ome.tif", "2")], 0.5),
        ('UUID="urn:uuid:2"', [("now.ome.tif", "1"), ("b.ome.tif", "2")], 0.5),  # named as the other was
        ('UUID="urn:uuid:9"', [("a.ome.tif", "1"), ("b.ome.tif", "2")], None),  # nobody can know
    ],
)
def test_a_file_of_a_set_is_known_by_its_uuid_then_by_its_name(tmp_path, root, stated, mpp):
    images = "".join(
        f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="320" SizeY="256" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="{scale}" '
        f'PhysicalSizeY="{scale}"><Channel ID="Channel:{number}:0" SamplesPerPixel="3"/><TiffData IFD="0" '
        f'PlaneCount="1"><UUID FileName="{name}">urn:uuid:{code}</UUID></TiffData></Pixels></Image>'
        for number, ((name, code), scale) in enumerate(zip(stated, ("0,25", "0.5"), strict=False))
    )
    xml = f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {root}>'
    path = tmp_path / "now.ome.tif"
    tifffile.imwrite(
        path, IMAGE, photometric="rgb", tile=(64, 64), description=f"{xml}{images}</OME>", metadata=None
    )
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE)
        assert slide.mpp == (None if mpp is None else (mpp, mpp))


def test_a_label_in_tiles_is_not_taken_for_a_slide_in_strips(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE, photometric="rgb", rowsperstrip=32, metadata=None)
        writer.write(IMAGE[:64, :48], photometric="rgb", tile=(64, 64), metadata=None)
    assert np.array_equal(whole(path), IMAGE)


def test_an_overview_in_strips_is_not_taken_for_a_region_in_tiles(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture(300, 500), photometric="rgb", rowsperstrip=32, metadata=None)
        writer.write(IMAGE, photometric="rgb", tile=(64, 64), metadata=None)
    assert np.array_equal(whole(path), IMAGE)


# Channels


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("layout", ["pages", "planes", "samples"])
def test_fluorescence_is_refused_as_such(tmp_path, count, layout):
    path = tmp_path / "a.ome.tif"
    dark = np.stack([255 - IMAGE[..., channel % 3] for channel in range(count)]) // 2
    if layout == "samples":
        dark = np.moveaxis(dark, 0, -1)
    tifffile.imwrite(
        path,
        dark,
        ome=layout == "pages",
        photometric="minisblack",
        planarconfig={"planes": "separate", "samples": "contig"}.get(layout),
        tile=(64, 64),
        metadata={"axes": "CYX"} if layout == "pages" else None,
    )
    with pytest.raises(SlideError, match="fluorescence"):
        open_slide(path)


def test_fluorescence_that_its_header_names_is_refused_though_it_is_bright(tmp_path):
    path = tmp_path / "a.ome.tif"
    channels = {"Name": ["DAPI", "FITC", "Cy5"]}
    tifffile.imwrite(
        path,
        np.moveaxis(IMAGE, -1, 0),
        ome=True,
        photometric="minisblack",
        tile=(64, 64),
        metadata={"axes": "CYX", "Channel": channels},
    )
    with pytest.raises(SlideError, match="fluorescence"):
        open_slide(path)


@pytest.mark.parametrize(
    "options", [{"photometric": "minisblack"}, {"photometric": "rgb", "planarconfig": 2}]
)
def test_planes_of_a_brightfield_image_keep_scale_and_levels(tmp_path, options):
    path = tmp_path / "a.ome.tif"
    levels = [IMAGE, halved(IMAGE), halved(IMAGE, 2)]
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, level in enumerate(levels):
            more = {"subfiletype": 1} if number else {"subifds": 2, "metadata": {"axes": "CYX", **um(0.25)}}
            writer.write(np.moveaxis(level, -1, 0), tile=(64, 64), compression="lzw", **more, **options)
    with open_slide(path) as slide:
        assert slide.mpp == (0.25, 0.25)
        assert len(slide.level_shapes) == 3
        for number, level in enumerate(levels):
            assert np.array_equal(slide.read(number, 0, 0, *level.shape[:2]), level)


def test_the_first_focal_plane_is_read_and_the_others_are_told(tmp_path):
    path = tmp_path / "a.ome.tif"
    stack = np.stack([IMAGE, 255 - IMAGE])
    tifffile.imwrite(
        path, stack, ome=True, photometric="rgb", tile=(64, 64), metadata={"axes": "ZYXS", **um(0.25)}
    )
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, *slide.shape), IMAGE)
        assert slide.mpp == (0.25, 0.25)
        assert any("2 images" in warning for warning in slide.warnings)
