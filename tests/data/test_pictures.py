"""Photographs and scans: what can be read and found, and how they are fitted to a network."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest

from cnn.data.digits import as_digit
from cnn.data.fitting import fitted
from cnn.data.readers.photographs import pictures_at, read_picture
from cnn.support.errors import DataError, ShapeError

pytest.importorskip("hypothesis")
pytest.importorskip("PIL")
from helpers.drawn_digits import SHAPE, alike, drawn, on_transparent
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def write_png_16(path, pixels):
    """A 16-bit PNG for each of 2 to 4 channels, which Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    H, W, channels = pixels.shape
    header = struct.pack(">IIBBBBB", W, H, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


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
    """Files as given; of a folder, the pictures in it and in its folders."""

    def test_folders_are_looked_into(self, tmp_path):
        for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "page.eps", ".hidden/c.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert pictures_at(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
        assert pictures_at(tmp_path) == [tmp_path / "a.jpeg", tmp_path / "b.PNG"]

    def test_folders_of_classes_are_looked_into(self, tmp_path):
        names = "z.png", "cat/1.jpg", "cat/2.jpg", "dog/young/3.png"
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "dog" / "again").symlink_to(tmp_path, target_is_directory=True)
        assert pictures_at(tmp_path) == [tmp_path / name for name in names]

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
