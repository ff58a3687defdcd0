"""Photographs and scans: what can be read, and that digits come out as MNIST's were."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest

import backends
import cnn
from cnn.data.digits import as_digit
from cnn.data.fitting import fitted
from cnn.data.readers.photographs import pictures_at, read_picture
from cnn.support.errors import DataError, ShapeError

pytest.importorskip("hypothesis")
pytest.importorskip("PIL")
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

SHAPE = (1, 28, 28)
SEVEN = [(0.2, 0.1), (0.8, 0.1), (0.4, 0.9)]


def drawn(size=280, width=0.08, ink=0, paper=255, mode="L", box=(0, 0, 1, 1), points=SEVEN):
    """A digit in a part of a picture; ``width`` is of the part's shorter side."""
    W, H = (size, size) if isinstance(size, int) else size
    picture = Image.new(mode, (W, H), paper)
    left, top, right, bottom = box
    part = (right - left) * W, (bottom - top) * H
    line = [(left * W + x * part[0], top * H + y * part[1]) for x, y in points]
    ImageDraw.Draw(picture).line(line, fill=ink, width=max(1, round(width * min(part))), joint="curve")
    return picture


def on_transparent(colour):
    """The digit in ``colour`` on nothing."""
    picture = Image.new("RGBA", (280, 280), (*colour, 255))
    picture.putalpha(ImageOps.invert(drawn()))
    return picture


def lit(picture, light, noise=0.0):
    """``picture`` under ``light(x, y)``, both from -1 to 1, with a camera's noise."""
    H, W = picture.height, picture.width
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    noisy = np.asarray(picture) * light(x, y) + np.random.default_rng(0).normal(0, noise, (H, W))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def write_png_16(path, pixels):
    """A PNG of 16 bits for each of 2 to 4 channels, which Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    H, W, channels = pixels.shape
    header = struct.pack(">IIBBBBB", W, H, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def alike(one, other):
    """The correlation of two images."""
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.fixture(scope="module")
def seven():
    """What becomes of the plain digit: dark ink in the middle of white paper."""
    return as_digit(drawn(), SHAPE)


@pytest.fixture(scope="module")
def network():
    """A LeNet-5 that has seen a part of MNIST."""
    network = cnn.models.lenet5()
    network.build(SHAPE, backend=backends.get("cpu"), seed=0)
    train = cnn.data.load("mnist")[0].only(per_class=600)
    schedule = cnn.schedules.Linear(warmup=0.2)
    cnn.fit(network, train, epochs=2, batch_size=32, schedule=schedule, callbacks=[])
    return network


class TestReading:
    """Whatever a file holds becomes RGB or RGBA, or one sentence that names it."""

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
    def test_every_mode_shows_the_same_digit(self, tmp_path, mode, seven):
        grey = drawn()
        if mode in ("I;16", "I", "F"):
            scale = {"I;16": (257, np.uint16), "I": (1 << 22, np.int32), "F": (1 / 255, np.float32)}[mode]
            picture = Image.fromarray((np.asarray(grey, dtype=float) * scale[0]).astype(scale[1]))
        else:
            picture = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
        assert picture.mode == mode
        picture.save(tmp_path / "7.tif")
        read = read_picture(tmp_path / "7.tif")
        assert read.mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")
        assert np.abs(np.asarray(read.convert("L"), dtype=int) - np.asarray(grey)).max() <= 1
        assert alike(as_digit(read, SHAPE), seven) > 0.99

    def test_a_palette_may_have_a_transparent_colour(self, tmp_path, seven):
        palette = drawn().convert("P")
        palette.save(tmp_path / "7.png", transparency=palette.getpixel((0, 0)))
        read = read_picture(tmp_path / "7.png")
        assert read.mode == "RGBA"
        assert read.getpixel((0, 0))[3] == 0
        assert alike(as_digit(read, SHAPE), seven) > 0.99

    def test_of_an_animation_the_first_frame(self, tmp_path, seven):
        others = [Image.new("L", (280, 280), 255)] * 2
        drawn().save(tmp_path / "7.gif", save_all=True, append_images=others)
        assert alike(as_digit(read_picture(tmp_path / "7.gif"), SHAPE), seven) > 0.99

    def test_exif_says_where_up_is(self, tmp_path, seven):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned to the right to be looked at
        drawn((200, 280)).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "7.jpg", exif=exif)
        read = read_picture(tmp_path / "7.jpg")
        assert read.size == (200, 280)
        assert alike(as_digit(read, SHAPE), as_digit(drawn((200, 280)), SHAPE)) > 0.97

    def test_damaged_exif_is_no_reason_to_refuse(self, tmp_path):
        drawn().save(tmp_path / "7.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert read_picture(tmp_path / "7.jpg").size == (280, 280)

    DEEP = {  # noqa: RUF012
        "12 bits": lambda grey: (grey * 16).astype(np.uint16),
        "10 bits": lambda grey: (grey * 4).astype(np.uint16),
        "a narrow range": lambda grey: (30_000 + grey).astype(np.uint16),
        "a narrow range of 32 bits": lambda grey: (1_000_000_000 + 100 * grey).astype(np.int32),
        "negative integers": lambda grey: (grey - 255).astype(np.int32),
        "floats of 12 bits": lambda grey: (grey * 16).astype(np.float32),
        "negative floats": lambda grey: (grey / 255 * 2 - 1).astype(np.float32),
        "tiny floats": lambda grey: (grey * 1e-20).astype(np.float32),
        "huge floats": lambda grey: ((grey - 128) * 2e36).astype(np.float32),
    }

    @pytest.mark.parametrize("form", ["png", "tif"])
    @pytest.mark.parametrize("name", DEEP)
    def test_values_of_many_bits_are_read_by_the_range_that_is_there(self, tmp_path, name, form):
        grey = np.asarray(drawn(), dtype=np.int64)
        values = self.DEEP[name](grey)
        if form == "png" and values.dtype != np.uint16:
            pytest.skip("PNG has no such values")
        Image.fromarray(values).save(tmp_path / f"7.{form}")
        read = np.asarray(read_picture(tmp_path / f"7.{form}").convert("L"), dtype=int)
        assert np.abs(read - grey).max() <= 1

    @pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, 1e30])
    def test_a_few_points_without_a_sensible_value_do_no_harm(self, tmp_path, wrong):
        grey = np.asarray(drawn(), dtype=np.float32)
        values = grey / 255
        values[3, 3:6] = wrong
        Image.fromarray(values).save(tmp_path / "7.tif")
        read = np.asarray(read_picture(tmp_path / "7.tif").convert("L"), dtype=int)
        assert np.count_nonzero(np.abs(read - grey) > 1) <= 3
        Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "nan.tif")
        with pytest.raises(DataError, match=r"nan\.tif: all values of the picture are NaN or infinite"):
            read_picture(tmp_path / "nan.tif")

    @pytest.mark.parametrize("side", [28, 60, 280])
    def test_a_hot_pixel_of_a_camera_does_not_darken_the_rest(self, tmp_path, side):
        grey = np.asarray(drawn().resize((side, side)), dtype=np.uint16)
        values = grey * 16
        values[3, 3] = 65535
        Image.fromarray(values).save(tmp_path / "7.png")
        read = np.asarray(read_picture(tmp_path / "7.png").convert("L"), dtype=int)
        assert np.count_nonzero(np.abs(read - grey) > 1) <= 1

    def test_brightness_is_kept_where_the_depth_is_known(self, tmp_path):
        for level, depth in ((300, 1023), (2000, 4095), (20_000, 65535)):
            Image.fromarray(np.full((9, 9), level, np.uint16)).save(tmp_path / "flat.png")
            read = read_picture(tmp_path / "flat.png").getpixel((0, 0))[0]
            assert read == pytest.approx(255 * level / depth, abs=1)
        ramp = np.linspace(20_000, 40_000, 64 * 64).reshape(64, 64).astype(np.uint16)
        Image.fromarray(ramp).save(tmp_path / "pale.png")  # of low contrast, but 16 levels are left
        read = np.asarray(read_picture(tmp_path / "pale.png").convert("L"))
        assert (read.min(), read.max()) == (78, 156)

    @pytest.mark.parametrize("colours", [2, 3, 4])
    def test_colours_of_16_bits_may_use_fewer(self, tmp_path, colours, seven):
        grey = np.asarray(drawn(), dtype=np.uint16) * 16
        opaque = np.full_like(grey, 65535)
        bands = {2: [grey, opaque], 3: [grey] * 3, 4: [grey] * 3 + [opaque]}[colours]
        write_png_16(tmp_path / "7.png", np.stack(bands, axis=-1))
        assert alike(as_digit(read_picture(tmp_path / "7.png"), SHAPE), seven) > 0.99

    def test_exif_turns_a_picture_of_16_bits_too(self, tmp_path):
        turned = np.asarray(drawn((200, 280)).transpose(Image.Transpose.ROTATE_90), dtype=np.uint16) * 16
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(turned).save(tmp_path / "7.tif", exif=exif)
        assert read_picture(tmp_path / "7.tif").size == (200, 280)

    @pytest.mark.parametrize("form", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"])
    def test_a_file_that_was_cut_is_named(self, tmp_path, form):
        drawn().convert("RGB").save(tmp_path / f"whole.{form}")
        data = (tmp_path / f"whole.{form}").read_bytes()
        assert read_picture(tmp_path / f"whole.{form}").size == (280, 280)
        for length in (0, 3, len(data) // 3):
            (tmp_path / f"cut.{form}").write_bytes(data[:length])
            with pytest.raises(DataError, match=rf"cut\.{form}: .*(no picture|cannot be read)"):
                read_picture(tmp_path / f"cut.{form}")

    def test_what_is_no_picture_is_named(self, tmp_path):
        (tmp_path / "notes.png").write_text("not a picture")
        with pytest.raises(DataError, match=r"notes\.png: this is a text file and cannot be read: give"):
            read_picture(tmp_path / "notes.png")
        with pytest.raises(DataError, match=r"nowhere\.png: cannot be read \(No such file"):
            read_picture(tmp_path / "nowhere.png")
        with pytest.raises(DataError, match="a folder or a device"):
            read_picture(tmp_path)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(DataError, match="a folder or a device"):
            read_picture(tmp_path / "pipe.png")

    def test_no_other_program_is_started_for_a_picture(self, tmp_path):
        (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
        with pytest.raises(DataError, match="this is a PostScript file and cannot be read: export"):
            read_picture(tmp_path / "a.png")

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "an empty file and cannot be read: copy or download it again"),
            (bytes(600), "a file of zeros and cannot be read: copy"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture of a phone and cannot be read: export"),
            (b"\0\0\0\x18ftypmif1", "a HEIC picture"),
            (b"\0\0\0\x18ftypcrx ", "a raw picture of a camera"),
            (b"\0\0\0\x18ftypqt  ", "a video or audio file"),
            (b"%PDF-1.7", "a PDF and cannot be read: export the page as PNG"),
            (b"8BPS\0\1", "a Photoshop file and cannot be read: convert it"),
            (b"PK\3\4", "a zip archive or an office document and cannot be read: unpack it"),
            (b"<?xml version='1.0'?><svg/>", "an SVG drawing and cannot be read: export it as PNG"),
            ("<svg/>".encode("utf-16"), "an SVG drawing"),
            (b"<!DOCTYPE html><p>Not found", "a web page, the download failed"),
            (b"<!-- x --><html>", "a web page and cannot be read: download the picture"),
            (b"\x89PNG\r\n\x1a\n", "a damaged or incomplete PNG picture"),
            (b"\xff\xd8\xff\xe0", "a damaged or incomplete JPEG picture"),
            (b"\x93NUMPY\1", "a NumPy array"),
            (b"\xfe\xdc\xba" * 99, "not a picture that can be read: expected AVIF, .*PNG"),
        ],
    )  # fmt: skip
    def test_a_file_of_another_kind_is_told_with_what_to_do(self, tmp_path, data, told):
        (tmp_path / "x.png").write_bytes(data)
        with pytest.raises(DataError, match=rf"x\.png: this is {told}"):
            read_picture(tmp_path / "x.png")

    def test_a_raw_picture_is_not_taken_for_the_small_one_in_it(self, tmp_path):
        drawn(40).save(tmp_path / "7.dng", "TIFF")
        with pytest.raises(
            DataError, match=r"7\.dng: this is a raw picture of a camera and cannot be read: dev"
        ):
            read_picture(tmp_path / "7.dng")

    @pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the one, refuses the other
    def test_bombs_do_not_go_off(self, tmp_path, side):
        def chunk(name, data):
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
        with pytest.raises(DataError, match=r"bomb\.png: the picture is too large: expected at most 89,"):
            read_picture(tmp_path / "bomb.png")

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP"]), st.data())
    def test_damage_is_one_kind_of_error(self, tmp_path_factory, form, data):
        file = io.BytesIO()
        drawn(40).convert("RGB").save(file, form)
        damaged = bytearray(file.getvalue())
        for _ in range(data.draw(st.integers(1, 8))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.mktemp("damaged") / "x"
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            picture = read_picture(path)
            assert picture.mode in ("RGB", "RGBA")
            assert min(picture.size) > 0


class TestFinding:
    """Files as given; of a folder, the pictures in it."""

    def test_folders_are_looked_into_once(self, tmp_path):
        for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "page.eps", "deeper/c.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert pictures_at(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
        assert pictures_at(tmp_path) == [tmp_path / "a.jpeg", tmp_path / "b.PNG"]

    def test_pictures_of_phones_and_cameras_are_named_rather_than_skipped(self, tmp_path):
        for name in ("a.heic", "b.CR2", "c.txt"):
            (tmp_path / name).touch()
        assert pictures_at(tmp_path) == [tmp_path / "a.heic", tmp_path / "b.CR2"]

    def test_a_folder_without_any_is_named(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(DataError, match=r"this folder contains no pictures: expected .*\.png"):
            pictures_at(tmp_path)

    def test_what_is_not_there_is_named(self, tmp_path):
        with pytest.raises(DataError, match="nowhere: cannot be read"):
            pictures_at(tmp_path / "nowhere")


class TestDigits:
    """White on black, in 20 x 20 of 28 x 28, the centre of mass in the middle."""

    PICTURES = {  # noqa: RUF012
        "white on black": lambda: drawn(ink=255, paper=0),
        "grey on grey": lambda: drawn(ink=110, paper=150),
        "pale on grey": lambda: drawn(ink=150, paper=110),
        "red on cream": lambda: drawn(ink=(180, 30, 30), paper=(250, 240, 215), mode="RGB"),
        "black on transparent": lambda: on_transparent((0, 0, 0)),
        "white on transparent": lambda: on_transparent((255, 255, 255)),
        "huge": lambda: drawn((4000, 3000), box=(0.125, 0, 0.875, 1)),
        "small in the corner of a page": lambda: drawn(2000, box=(0.85, 0.9, 0.95, 1)),
        "cut close": lambda: drawn().crop(ImageOps.invert(drawn()).getbbox()),
        "out of focus": lambda: drawn(600).filter(ImageFilter.GaussianBlur(6)),
        "light from one side": lambda: lit(drawn(600, ink=50), lambda x, y: 0.6 + 0.35 * x, 4),
        "dark corners": lambda: lit(drawn(600, ink=50), lambda x, y: 1 - 0.3 * (x * x + y * y), 4),
        "a shadow across": lambda: lit(
            drawn(600, ink=50), lambda x, y: 1 - 0.5 / (1 + np.exp(-(x + y) * 8)), 4
        ),
        "pencil in the shadow": lambda: lit(
            drawn(900, 0.04, ink=130, paper=210), lambda x, y: 0.7 - 0.3 * y, 3
        ),
        "chalk": lambda: lit(drawn(600, ink=220, paper=60), lambda x, y: 0.8 + 0.2 * x, 5),
        "a bad camera": lambda: lit(drawn(700, ink=60, paper=200), lambda x, y: 1 + 0 * x, 20),
    }

    @pytest.mark.parametrize("name", PICTURES)
    def test_the_same_digit_however_it_was_pictured(self, name, seven):
        assert alike(as_digit(self.PICTURES[name](), SHAPE), seven) > 0.9

    def test_ink_and_paper_may_change_places(self, seven):
        np.testing.assert_array_equal(as_digit(ImageOps.invert(drawn()), SHAPE), seven)

    def test_a_window_with_round_corners_is_no_digit(self, seven):
        window = drawn(box=(0.1, 0.1, 0.9, 0.9))
        corners = Image.new("L", window.size, 0)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, 279, 279), radius=40, fill=255)
        window.putalpha(corners)
        assert alike(as_digit(window, SHAPE), seven) > 0.97

    def test_specks_are_left_out(self, seven):
        page = drawn(1000, box=(0.3, 0.3, 0.7, 0.7))
        draw = ImageDraw.Draw(page)
        for x, y in ((30, 40), (900, 80), (500, 950), (970, 970)):
            draw.ellipse((x, y, x + 6, y + 6), fill=40)
        assert alike(as_digit(page, SHAPE), seven) > 0.95

    @pytest.mark.parametrize(("size", "width"), [(280, 0.004), (1000, 0.003), (3000, 0.001)])
    def test_a_thin_line_does_not_fade(self, size, width, seven):
        thin = as_digit(drawn(size, width), SHAPE)
        assert thin.max() == 255
        assert (thin > 127).sum() > 0.5 * (seven > 127).sum()
        assert max(alike(np.roll(thin, rows, 1), seven) for rows in (-1, 0, 1)) > 0.8

    @pytest.mark.parametrize("side", [9, 14, 28])
    def test_a_tiny_picture_is_enough(self, side, seven):
        assert alike(as_digit(drawn(side, 0.1), SHAPE), seven) > 0.7

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)), min_size=2, max_size=7),
        st.floats(0.005, 0.15),
        st.tuples(st.integers(30, 400), st.integers(30, 400)),
        st.booleans(),
    )
    def test_where_a_digit_lies(self, points, width, size, inverted):
        assume(np.ptp(points, axis=0).max() > 0.3)
        assume(min(np.ptp(points, axis=0)) > 0.05)  # a single line at an edge may be one of a form
        picture = drawn(size, width, points=points)
        ink = np.asarray(picture.convert("L")) < 250
        assume(
            all(edge.mean() < 0.35 and not edge[[0, -1]].any() for edge in (ink[0], ink[-1], *ink.T[[0, -1]]))
        )  # others are refused
        (image,) = as_digit(ImageOps.invert(picture) if inverted else picture, SHAPE)
        assert image.max() == 255
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        for places in (rows, columns):
            middle = np.average(places, weights=image[rows, columns])
            assert abs(middle - 14) <= 0.5

    @pytest.mark.parametrize("shape", [(1, 56, 56), (1, 20, 30), (1, 8, 8), (1, 1, 1)])
    def test_other_sizes_in_proportion(self, shape):
        image = as_digit(drawn(), shape)
        assert (image.shape, image.dtype, image.max()) == (shape, np.uint8, 255)
        _, rows, columns = np.nonzero(image)
        assert np.ptp(rows) + 1 <= max(1, round(shape[1] * 20 / 28))
        assert np.ptp(columns) + 1 <= max(1, round(shape[2] * 20 / 28))

    @pytest.mark.parametrize("level", [0, 128, 255])
    @pytest.mark.parametrize("size", [(1, 1), (9, 9), (28, 28), (1200, 900), (1, 300)])
    def test_an_empty_picture_shows_nothing(self, size, level):
        with pytest.raises(DataError, match=r"shows nothing: expected a digit darker or lighter"):
            as_digit(Image.new("L", size, level), SHAPE)

    def test_noise_shows_nothing(self):
        with pytest.raises(DataError, match="shows nothing"):
            as_digit(lit(Image.new("L", (600, 400), 200), lambda x, y: 0.8 + 0.2 * x, 8), SHAPE)
        with pytest.raises(DataError, match="shows nothing"):
            as_digit(Image.new("RGBA", (50, 50), (0, 0, 0, 0)), SHAPE)

    def test_a_digit_has_one_channel(self):
        with pytest.raises(ShapeError, match=r"a digit has 1 channel.*built for 3 in \(3, 28, 28\)"):
            as_digit(drawn(), (3, 28, 28))

    @pytest.mark.parametrize("factor", [1, 3, 10])
    def test_digits_of_mnist_come_back_from_a_page(self, network, factor):
        test = cnn.data.load("mnist")[1]
        originals = test.images[:60]
        random = np.random.default_rng(0)
        back = []
        for (image,) in originals:
            digit = Image.fromarray(255 - image).resize((28 * factor, 28 * factor), Image.Resampling.BICUBIC)
            page = Image.new("L", (500, 400), 255)
            left, top = (int(random.integers(0, room - 28 * factor + 1)) for room in page.size)
            page.paste(digit, (left, top))
            back.append(as_digit(page, SHAPE))
        before, after = (network.predict(images).argmax(axis=1) for images in (originals, np.array(back)))
        assert (before == test.labels[:60]).mean() > 0.9
        assert (before == after).mean() >= 0.95
        assert np.mean([alike(*pair) for pair in zip(originals, back, strict=True)]) > 0.9


class TestEdges:
    """What comes in from the edges of a scan and is no ink changes nothing about the digit."""

    SIZE = 300
    THREE = [(0.25, 0.2), (0.75, 0.2), (0.45, 0.45), (0.75, 0.7), (0.3, 0.8)]  # noqa: RUF012
    # what is drawn over the page: polygons of a grey, in parts of the side; "blur" softens their edges
    EDGES = {  # noqa: RUF012
        "a strip on the left": [((0, 0), (0.02, 0), (0.02, 1), (0, 1))],
        "a wide strip below": [((0, 0.91), (1, 0.91), (1, 1), (0, 1))],
        "a strip along a part of the top": [((0.2, 0), (0.8, 0), (0.8, 0.06), (0.2, 0.06))],
        "a frame": [
            *(((0, 0), (1, 0), (1, 0.05), (0, 0.05)), ((0, 0.95), (1, 0.95), (1, 1), (0, 1))),
            *(((0, 0), (0.05, 0), (0.05, 1), (0, 1)), ((0.95, 0), (1, 0), (1, 1), (0.95, 1))),
        ],
        "a slanted strip": [((1, 0), (1, 1), (0.92, 1), (0.97, 0))],
        "the corner of a table": [((0, 1), (0.3, 1), (0, 0.75))],
        "a sheet that lies askew on a table": [
            *(((0, 0), (1, 0), (1, 0.02), (0, 0.07)), ((0, 1), (1, 1), (1, 0.93), (0, 0.98))),
            *(((0, 0), (0.02, 0), (0.07, 1), (0, 1)), ((1, 0), (1, 1), (0.98, 1), (0.93, 0))),
        ],
        "a line of a form": [((0, 0.04), (1, 0.04), (1, 0.05), (0, 0.05))],
        "two lines of a form": [
            *(((0.05, 0), (0.06, 0), (0.06, 1), (0.05, 1)), ((0, 0.94), (1, 0.94), (1, 0.95), (0, 0.95))),
        ],
    }
    SHADES = (("black on white", 20, 250, 30), ("pale", 170, 215, 30), ("grey", 20, 250, 130))
    SHADES += (("white on black", 250, 15, 255), ("on a light table", 30, 150, 255))

    def page(self, edges, ink, paper, grey, blur=0.0):
        page = drawn(self.SIZE, ink=ink, paper=paper, points=self.THREE)
        over = Image.new("L", page.size, 0)
        for points in edges:
            ImageDraw.Draw(over).polygon([(x * self.SIZE, y * self.SIZE) for x, y in points], fill=255)
        page.paste(grey, mask=over.filter(ImageFilter.GaussianBlur(blur)))
        return page

    @pytest.mark.parametrize(
        ("ink", "paper", "grey"), [shades[1:] for shades in SHADES], ids=[s[0] for s in SHADES]
    )
    @pytest.mark.parametrize("name", EDGES)
    def test_the_same_digit_with_and_without(self, name, ink, paper, grey):
        plain = as_digit(self.page([], ink, paper, grey), SHAPE)
        assert alike(as_digit(self.page(self.EDGES[name], ink, paper, grey), SHAPE), plain) > 0.97

    @pytest.mark.parametrize("name", ["a strip on the left", "a frame", "the corner of a table"])
    def test_a_soft_edge_is_one_too(self, name):
        plain = as_digit(self.page([], 20, 250, 0), SHAPE)
        assert alike(as_digit(self.page(self.EDGES[name], 20, 250, 30, blur=6), SHAPE), plain) > 0.97

    def test_in_a_photograph(self):
        pages = (self.page(edges, 60, 220, 30) for edges in ([], self.EDGES["a frame"]))
        plain, framed = (as_digit(lit(page, lambda x, y: 0.8 + 0.2 * x, 6), SHAPE) for page in pages)
        assert alike(plain, framed) > 0.97

    CORNERS = [((x, y), (abs(x - 0.3), y), (x, abs(y - 0.3))) for x in (0, 1) for y in (0, 1)]  # noqa: RUF012

    def touching(self, edges, ink=20, paper=250, grey=30):
        """A digit 7 that reaches to the lower edge of its page."""
        page = drawn(self.SIZE, ink=ink, paper=paper, points=[(0.3, 0.2), (0.7, 0.2), (0.5, 1)])
        for points in edges:
            ImageDraw.Draw(page).polygon([(x * self.SIZE, y * self.SIZE) for x, y in points], fill=grey)
        return page

    def test_the_corners_of_a_round_lens_are_removed_if_the_digit_touches_an_edge_too(self):
        plain = as_digit(self.touching([]), SHAPE)
        assert alike(as_digit(self.touching(self.CORNERS), SHAPE), plain) > 0.97
        with pytest.raises(DataError, match="touches the digit: crop the picture"):
            as_digit(self.touching([((1, 1), (0.4, 1), (1, 0.4))]), SHAPE)

    @pytest.mark.parametrize("light", [lambda x, y: 1 + 0 * x, lambda x, y: 0.75 + 0.2 * y])
    def test_the_paper_inside_a_frame_that_a_digit_touches_is_no_ink(self, light):
        plain, framed = (self.touching(edges) for edges in ([], self.EDGES["a frame"]))
        plain = as_digit(plain.crop((0, 0, 300, 285)), SHAPE)
        assert alike(as_digit(lit(framed, light, 4), SHAPE), plain) > 0.95

    def test_a_wide_frame_that_fades_into_the_paper_is_removed(self):
        page = self.page([], 20, 250, 0)
        y, x = np.mgrid[-1 : 1 : page.height * 1j, -1 : 1 : page.width * 1j]
        paper = ((1 - np.maximum(abs(x), abs(y))) / 0.24).clip(0, 1)
        faded = Image.fromarray((30 + (np.asarray(page) - 30.0) * paper).astype(np.uint8))
        assert alike(as_digit(faded, SHAPE), as_digit(page, SHAPE)) > 0.97

    def test_pale_ink_is_as_wide_as_black_ink(self):
        black, pale = (lit(self.page([], ink, 215, 0), lambda x, y: 1 + 0 * x, 2) for ink in (20, 180))
        assert alike(as_digit(black, SHAPE), as_digit(pale, SHAPE)) > 0.99

    def test_a_strip_that_a_digit_touches_is_cut_off(self):
        page = self.page([((0, 0.76), (1, 0.76), (1, 1), (0, 1))], 20, 250, 30)
        plain = self.page([], 20, 250, 0)
        assert (
            alike(as_digit(page.crop((0, 0, 300, 250)), SHAPE), as_digit(plain.crop((0, 0, 300, 228)), SHAPE))
            > 0.9
        )

    def test_what_touches_the_digit_and_is_no_strip_is_named(self):
        with pytest.raises(DataError, match="at an edge of the picture touches the digit: crop the picture"):
            as_digit(self.page([((0.2, 1), (1, 1), (1, 0.6), (0.2, 0.85))], 20, 250, 30), SHAPE)

    @pytest.mark.parametrize("level", [30, 250])
    def test_a_digit_that_was_cut_out_closely_stays_as_it_is(self, level):
        for points in (SEVEN, [(0.5, 0.1), (0.4, 0.9)], [(0.9, 0.9), (0.5, 0.1), (0.1, 0.5), (0.9, 0.5)]):
            page = drawn(400, 0.12, ink=level, paper=280 - level, points=points)
            ink = page if level > 100 else ImageOps.invert(page)
            box = ink.point(lambda value: 255 * (value > 140)).getbbox()
            loose, close = as_digit(page, SHAPE), as_digit(page.crop(box), SHAPE)
            assert alike(loose, close) > 0.97

    def test_a_strip_alone_is_no_digit(self):
        page = Image.new("L", (300, 300), 250)
        page.paste(30, (0, 0, 12, 300))
        with pytest.raises(DataError, match="shows nothing"):
            as_digit(page, SHAPE)


class TestImages:
    """For other networks: the whole picture, scaled."""

    def test_colour_for_three_channels(self):
        picture = Image.new("RGB", (60, 40), (200, 100, 50))
        image = fitted(picture, (3, 32, 24), "stretch")
        assert (image.shape, image.dtype) == ((3, 32, 24), np.uint8)
        np.testing.assert_array_equal(image, np.broadcast_to([[[200]], [[100]], [[50]]], (3, 32, 24)))

    def test_grey_for_one_channel(self):
        image = fitted(Image.new("RGB", (60, 40), (90, 90, 90)), (1, 20, 20), "stretch")
        np.testing.assert_array_equal(image, np.full((1, 20, 20), 90))

    def test_rows_stay_rows(self):
        picture = Image.new("L", (100, 50), 0)
        picture.paste(255, (0, 0, 100, 25))
        (image,) = fitted(picture, (1, 10, 6), "stretch")
        assert (image[:4] > 250).all()
        assert (image[6:] < 5).all()

    def test_what_is_transparent_is_white(self):
        image = fitted(on_transparent((0, 0, 0)), (3, 28, 28), "stretch")
        assert (image[:, 0, 0] == 255).all()
        assert image.min() < 100

    def test_other_channels_are_refused(self):
        with pytest.raises(ShapeError, match=r"1 or 3 channels, the network was built for 2 in \(2, 8, 8\)"):
            fitted(drawn(), (2, 8, 8), "stretch")


class TestRuledPaper:
    """Lines that run across the picture cannot be told from ink: it is said, not guessed."""

    def ruled(self, lines, columns=0):
        picture = Image.new("RGB", (400, 400), (250, 248, 240))
        draw = ImageDraw.Draw(picture)
        for y in range(30, 30 + 40 * lines, 40):
            draw.line([(0, y), (400, y)], fill=(120, 150, 200), width=3)
        for x in range(60, 60 + 40 * columns, 40):
            draw.line([(x, 0), (x, 400)], fill=(200, 60, 60), width=3)
        draw.line([(150, 100), (260, 100), (190, 300)], fill=(20, 30, 120), width=14, joint="curve")
        return picture

    @pytest.mark.parametrize(("lines", "columns"), [(9, 0), (3, 0), (9, 8), (0, 2), (0, 3)])
    def test_it_is_refused(self, lines, columns):
        with pytest.raises(DataError, match="lines run from edge to edge of the picture: crop it"):
            as_digit(self.ruled(lines, columns), (1, 28, 28))

    def test_the_same_digit_on_blank_paper_is_not(self):
        assert as_digit(self.ruled(0), (1, 28, 28)).max() == 255
