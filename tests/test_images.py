import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from weakseg import images
from weakseg.errors import InputError
from weakseg.images import (
    as_rgb,
    find_images,
    image_size,
    palette,
    read_image,
    read_mask,
    write_mask,
)

RNG = np.random.default_rng(0)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:24j, 0:240:40j], 90), -1).astype(np.uint8)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_rotation_is_applied_once(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"tiffinfo": {0x0112: orientation}} if suffix == "tif" else {"exif": exif}
    Image.fromarray(SMOOTH).save(path, **options)
    plain = Image.fromarray(SMOOTH)
    plain.info["exif"] = exif.tobytes()
    expected = np.asarray(ImageOps.exif_transpose(plain))
    found = read_image(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (0 if suffix in ("png", "tif") else 40)
    assert image_size(path) == (found.shape[1], found.shape[0])


def test_a_mask_is_rotated_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(mask).save(tmp_path / "m.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "m.png", (2, 3)), np.rot90(mask, -1))


GREY = SMOOTH[:, :, 0]


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("L", "a.png", np.repeat(GREY[:, :, None], 3, 2)),
        ("LA", "a.png", np.repeat(GREY[:, :, None], 3, 2)),
        ("1", "a.png", None),
        ("P", "a.png", None),
        ("PA", "a.tif", None),
        ("RGBA", "a.png", None),
        ("CMYK", "a.jpg", None),
        ("YCbCr", "a.jpg", None),
        ("LAB", "a.tif", None),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name, expected):
    source = Image.fromarray(GREY if mode in ("L", "LA", "1") else SMOOTH)
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
    elif mode == "PA":
        image = source.convert("P").convert("PA")
    else:
        image = source.convert(mode)
    try:
        image.save(tmp_path / name)
    except OSError:
        pytest.skip(f"Pillow does not write {mode}")
    found = read_image(tmp_path / name)
    assert found.shape == SMOOTH.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    if expected is not None:
        assert np.array_equal(found, expected)


def test_transparency_is_dropped(tmp_path):
    rgba = np.dstack([SMOOTH, np.zeros_like(GREY)])
    assert np.array_equal(read_image(save(tmp_path / "a.png", rgba)), SMOOTH)


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (np.array([[1000, 2000], [3000, 5000]], np.uint16), "a.png", [[0, 64], [128, 255]]),
        (np.array([[1000, 2000], [3000, 5000]], np.uint16), "a.tif", [[0, 64], [128, 255]]),
        (np.array([[-100, 0], [0, 300]], np.int32), "a.tif", [[0, 64], [64, 255]]),
        (np.array([[0, 0.5], [1, 0.1]], np.float32), "a.tif", [[0, 128], [255, 26]]),
        (np.array([[-1, 0], [np.nan, 1]], np.float32), "a.tif", [[0, 128], [0, 255]]),
        (np.full((2, 2), 700, np.uint16), "a.png", [[0, 0], [0, 0]]),
    ],
)
def test_deep_values_are_stretched_over_their_own_range(tmp_path, values, name, expected):
    found = read_image(save(tmp_path / name, values))
    assert np.array_equal(found, np.repeat(np.array(expected)[:, :, None], 3, 2))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("orientation", [1, 6])
def test_sixteen_bit_colour_tiff(tmp_path, planar, channels, orientation):
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(100, 4000, (8, 9, channels)).astype(np.uint16)
    stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
    tags = [(274, "H", 1, orientation, True)]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, extratags=tags)
    expected = as_rgb(values[:, :, :3])
    expected = expected if orientation == 1 else np.rot90(expected, -1)
    assert np.array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[1::-1]


def test_sixteen_bit_colour_png(tmp_path):
    values = np.zeros((2, 3, 3), ">u2")
    values[0, 0] = 0x0FFF  # twelve bits, as cameras and microscopes write them
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind, data):
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + crc

    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    expected = np.zeros((2, 3, 3), np.uint8)
    expected[0, 0] = 255
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)


def test_truncated_images(tmp_path):
    photo = RNG.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for name in ("a.jpg", "a.png", "a.tif", "a.webp", "a.bmp"):
        whole = save(tmp_path / name, photo).read_bytes()
        for share in (0.5, 0.9):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(InputError) as caught:
                read_image(tmp_path / name)
            assert caught.value.file == str(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on damaged metadata
@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.gif"])
def test_damaged_bytes_never_leave_a_traceback(tmp_path, monkeypatch, name, read):
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000_000)  # keeps the test quick
    photo = RNG.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    whole = save(tmp_path / name, photo).read_bytes()
    refused = 0
    for _ in range(60):
        broken = bytearray(whole)
        for place in RNG.integers(0, min(len(whole), 400), 4):
            broken[place] = RNG.integers(256)
        (tmp_path / name).write_bytes(broken)
        refused += isinstance(_outcome(read, tmp_path / name), InputError)
    assert refused


def _outcome(read, path):
    try:
        return read(path)
    except InputError as error:
        return error


@pytest.mark.parametrize("content", [b"", b"not an image at all", b"\xff\xd8\xff"])
@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_not_an_image(tmp_path, content, read, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_missing_files_and_folders(tmp_path, read):
    with pytest.raises(InputError, match=r"a\.jpg: no such file"):
        read(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)


def test_huge_images_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setattr(images, "MAX_PIXELS", GREY.size - 1)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(InputError, match="image too large"):
            read(path)


def test_an_aerial_photograph_is_not_a_bomb(tmp_path):
    # 100 million pixels: above the number from which Pillow warns by default
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(tmp_path / "a.png") == (10_000, 10_000)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_masks_are_read_as_indices(tmp_path, mode):
    mask = RNG.integers(0, 2, (5, 7)).astype(np.uint8)
    image = Image.fromarray(mask * 255 if mode == "1" else mask)
    if mode == "P":
        image.putpalette([200, 10, 10] * 256)
    elif mode == "1":
        image = image.convert("1")
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize(
    ("array", "size", "message"),
    [
        (SMOOTH, None, "found mode RGB; expected 8-bit grey .L. or indexed"),
        (np.zeros((4, 5), np.uint16), None, "found mode I;16"),
        (np.zeros((4, 5), np.uint8), (4, 5), "another size: found 5 x 4; expected 4 x 5"),
    ],
)
def test_masks_that_are_none(tmp_path, array, size, message):
    with pytest.raises(InputError, match=r"m\.png: .*" + message):
        read_mask(save(tmp_path / "m.png", array), size)


def test_write_mask_round_trip(tmp_path):
    mask = np.arange(256).reshape(16, 16)
    write_mask(tmp_path / "sub" / "m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "sub" / "m.png", (16, 16)), mask)
    with Image.open(tmp_path / "sub" / "m.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == palette(256).reshape(-1).tolist()
    write_mask(tmp_path / "m.png", mask, np.array([[1, 2, 3]], np.uint8))
    with Image.open(tmp_path / "m.png") as image:
        assert image.getpalette()[:6] == [1, 2, 3, 128, 0, 0]


@pytest.mark.parametrize(
    "mask", [np.array([[-1]]), np.array([[256]]), np.zeros(3), np.zeros((0, 2))]
)
def test_write_mask_refuses_what_is_no_mask(tmp_path, mask):
    with pytest.raises(InputError, match=r"m\.png: not a mask"):
        write_mask(tmp_path / "m.png", mask)
    assert list(tmp_path.iterdir()) == []


def test_palette_has_the_voc_colours():
    colours = palette(256)
    assert colours[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    assert len({tuple(c) for c in colours}) == 256


def test_as_rgb_accepts_the_usual_arrays():
    for array in (GREY, GREY[:, :, None]):
        assert np.array_equal(as_rgb(array), np.repeat(GREY[:, :, None], 3, 2))
    assert np.array_equal(as_rgb(SMOOTH), SMOOTH)
    assert np.array_equal(as_rgb(np.dstack([SMOOTH, GREY])), SMOOTH)
    assert np.array_equal(as_rgb(SMOOTH / 255), SMOOTH)
    for wrong in (np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 2, 3)), np.array([["a"]])):
        with pytest.raises(InputError, match="not an image array"):
            as_rgb(wrong)


def test_find_images(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.tif", "notes.txt", ".hidden/d.png", ".e.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    expected = [tmp_path / name for name in ("a.png", "b.JPG", "sub/c.tif")]
    assert find_images(tmp_path) == expected
    assert find_images(tmp_path / "a.png") == expected[:1]
    assert find_images(str(tmp_path / "*.*")) == expected[:2]
    for nothing in (tmp_path / "missing", tmp_path / "*.bmp", tmp_path / "sub" / "*.txt"):
        with pytest.raises(InputError, match="no such file or folder"):
            find_images(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images found"):
        find_images(tmp_path / "empty")
