"""Training and predict see the same pixels in every format that Pillow writes: those of the picture."""

import json

import numpy as np
import pytest

import cnn
from cnn.data.pictures import Pictures

pytest.importorskip("PIL")
from helpers.photographs import STORED, photograph
from PIL import Image, features

H, W = 34, 50
PICTURE = photograph(1, np.random.default_rng(4), (H, W))
GREY = PICTURE.convert("L")
EXACT, LOSSY = 0, 12  # levels by which a colour may differ in the mean


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def turned(orientation):
    how = STORED[orientation]
    return PICTURE if how is None else PICTURE.transpose(how)


def see_through(mode):
    """The picture with a transparent left half, which becomes white."""
    picture = PICTURE.convert(mode)
    picture.putalpha(
        Image.fromarray(np.where(np.arange(W) < W // 2, 0, 255).astype(np.uint8)[None].repeat(H, 0))
    )
    return picture


def on_white(picture):
    pixels = np.array(picture.convert("RGB"))
    pixels[:, : W // 2] = 255
    return Image.fromarray(pixels)


DEEP = Image.fromarray(np.asarray(GREY, dtype=np.uint16) * 257)
PALETTE, BITS = PICTURE.quantize(64), GREY.convert("1")
ALPHA, GREY_ALPHA = see_through("RGB"), see_through("L")

# file name: (picture, arguments of save, what it shows, levels)
CASES = {
    **{
        f"turned {number}.jpg": (turned(number), {"exif": exif(number), "quality": 95}, PICTURE, LOSSY)
        for number in STORED
    },
    **{f"turned {number}.png": (turned(number), {"exif": exif(number)}, PICTURE, EXACT) for number in STORED},
    "grey.jpg": (GREY, {"quality": 95}, GREY, LOSSY),
    "cmyk.jpg": (PICTURE.convert("CMYK"), {"quality": 95}, PICTURE, LOSSY),
    "progressive.JPEG": (PICTURE, {"progressive": True, "quality": 95}, PICTURE, LOSSY),
    "colour.png": (PICTURE, {}, PICTURE, EXACT),
    "grey.png": (GREY, {}, GREY, EXACT),
    "bits.png": (BITS, {}, BITS, EXACT),
    "palette.png": (PALETTE, {}, PALETTE, EXACT),
    "alpha.png": (ALPHA, {}, on_white(PICTURE), EXACT),
    "grey alpha.png": (GREY_ALPHA, {}, on_white(GREY), EXACT),
    "deep.png": (DEEP, {}, GREY, EXACT),
    "lossless.webp": (PICTURE, {"lossless": True}, PICTURE, EXACT),
    "alpha.webp": (ALPHA, {"lossless": True}, on_white(PICTURE), EXACT),
    "lossy.webp": (PICTURE, {"quality": 95}, PICTURE, LOSSY),
    "colour.bmp": (PICTURE, {}, PICTURE, EXACT),
    "palette.bmp": (PALETTE, {}, PALETTE, EXACT),
    "colour.tif": (PICTURE, {"compression": "tiff_lzw"}, PICTURE, EXACT),
    "cmyk.tiff": (PICTURE.convert("CMYK"), {}, PICTURE, EXACT),
    "deep.tif": (DEEP, {}, GREY, EXACT),
    "alpha.tif": (ALPHA, {}, on_white(PICTURE), EXACT),
    "palette.gif": (PALETTE, {}, PALETTE, EXACT),
    "animated.gif": (PALETTE, {"save_all": True, "append_images": [Image.new("P", (W, H))]}, PALETTE, EXACT),
    "colour.ppm": (PICTURE, {}, PICTURE, EXACT),
    "grey.pgm": (GREY, {}, GREY, EXACT),
    "colour.tga": (PICTURE, {}, PICTURE, EXACT),
    "lossless.jp2": (PICTURE, {}, PICTURE, EXACT),
    "lossy.avif": (PICTURE, {"quality": 90}, PICTURE, LOSSY),
}
NEEDS = {".webp": "webp", ".avif": "avif", ".jp2": "jpg_2000"}


@pytest.fixture
def names(tmp_path, monkeypatch):
    """Writes the cases as the class "a" of a folder, and returns their names in order."""
    monkeypatch.setenv("CNN_DATA", str(tmp_path / "cache"))
    for place in ("train/a", "train/b", "test/b"):
        (tmp_path / "é photos" / place).mkdir(parents=True)
    known = [name for name in CASES if features.check(NEEDS.get(name[name.rindex(".") :], "zlib"))]
    for name in known:
        picture, how, _, _ = CASES[name]
        picture.save(tmp_path / "é photos/train/a" / name, **how)
    for place in ("train/b", "test/b"):
        PICTURE.save(tmp_path / "é photos" / place / "a picture.png")
    return sorted(known)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_is_trained_on_what_the_file_shows(tmp_path, names, channels):
    train, _ = cnn.data.load(tmp_path / "é photos", Pictures((H, W), "stretch", channels))
    for name, image in zip(names, train.images[: len(names)], strict=True):
        _, _, shown, levels = CASES[name]
        expected = np.asarray(shown.convert("RGB").convert({1: "L", 3: "RGB"}[channels]), dtype=int)
        difference = abs(np.moveaxis(image, 0, -1).reshape(expected.shape) - expected)
        assert difference.mean() <= levels, name
        assert levels or not difference.any(), name


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_predict_shows_the_network_the_same_pixels(command, tmp_path, names, fit):
    flags = "--size", "16x20", "--fit", fit, "--epochs", 1, "--model", "mnist-small", "--no-report"
    folder = tmp_path / "é photos"
    assert command("train", "--data", folder, *flags, "--out", "run")[0] == 0
    train, _ = cnn.data.load(folder, Pictures((16, 20), fit))
    answers = json.loads(command("predict", "run", folder / "train/a", "--json", "--show")[1])
    assert [answer["file"].rpartition("/")[2] for answer in answers] == names
    for name, image, answer in zip(names, train.images, answers, strict=False):
        np.testing.assert_array_equal(answer["image"], image, name)
