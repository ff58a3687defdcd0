"""A folder of pictures with a folder for each class: which pictures, which classes, which pixels."""

import os
import shutil

import numpy as np
import pytest

import cnn
from cnn.data.notes import notes_on
from cnn.data.pictures import Pictures
from cnn.data.readers import decoded, photographs
from cnn.support.errors import DataError, Notice

pytest.importorskip("PIL")
from PIL import Image

RED, GREEN, GREY = (200, 20, 20), (20, 200, 20), (90, 90, 90)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder in which decoded pictures are cached."""
    monkeypatch.setenv("CNN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


@pytest.fixture
def photos(tmp_path):
    """``photos("cat", 3, RED)`` writes three pictures of this colour; -> the folder of all."""

    def write(folder, count=5, colour=RED, size=(40, 30), suffix="png"):
        path = tmp_path / "Meine Fotos é" / folder
        path.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", size, colour).save(path / f"bild {number}.{suffix}")
        return tmp_path / "Meine Fotos é"

    return write


def of(data):
    """The labels of a data set, as names."""
    return [data.classes[label] for label in data.labels]


def test_a_link_to_a_folder_that_contains_it_is_skipped(photos):
    root = photos("cat", 5, RED)
    photos("dog", 5, GREEN)
    (root / "dog" / "all").symlink_to(root, target_is_directory=True)
    (root / "everything").symlink_to(root, target_is_directory=True)
    train, test = cnn.data.load(root)
    assert train.classes == ("cat", "dog")
    assert sorted(of(train) + of(test)) == ["cat"] * 5 + ["dog"] * 5


def test_links_that_lead_to_themselves_or_nowhere_are_no_folders(photos):
    root = photos("cat", 12, RED)
    photos("dog", 12, GREEN)
    for link, target in (("self", "self"), ("dog/to", "fro"), ("dog/fro", "to"), ("none", "nowhere")):
        (root / link).symlink_to(target)
    (root / "cat" / "loop.png").symlink_to("loop.png")
    (root / "cat" / "bild 0.png").rename(root.parent / "elsewhere.png")
    (root / "cat" / "bild 0.png").symlink_to(root.parent / "elsewhere.png")
    (root / "cat" / "bild 99.png").mkdir()
    with pytest.warns(Notice, match=r"skipped 1 of \d+ pictures: .*loop\.png: cannot be read \(Too many"):
        train, test = cnn.data.load(root)
    assert train.classes == ("cat", "dog")
    assert sorted(of(train) + of(test)) == ["cat"] * 12 + ["dog"] * 12


def test_pictures_count_at_any_depth(photos):
    photos("cat/" + "/".join("abcdefghijkl"))
    train, test = cnn.data.load(photos("dog"))
    assert sorted(of(train) + of(test)) == ["cat"] * 5 + ["dog"] * 5


class TestParts:
    def test_train_and_test(self, photos):
        photos("train/dog", 3, GREEN)
        photos("train/cat", 2, RED)
        train, test = cnn.data.load(photos("test/cat", 1, RED))
        assert train.classes == test.classes == ("cat", "dog")
        assert of(train) == ["cat", "cat", "dog", "dog", "dog"]
        assert of(test) == ["cat"]
        np.testing.assert_array_equal(train.images[0, :, 0, 0], RED)
        np.testing.assert_array_equal(train.images[-1, :, 0, 0], GREEN)

    @pytest.mark.parametrize("name", ["val", "valid", "Validation"])
    def test_a_validation_set_serves_as_test_set(self, photos, name):
        photos("train/cat")
        photos("train/dog")
        _, test = cnn.data.load(photos(f"{name}/dog", 2))
        assert of(test) == ["dog", "dog"]
        assert "there is no test set: val is used for testing" in test.notes

    def test_of_three_parts_the_validation_set_is_not_used(self, photos):
        for part in ("train", "val", "test"):
            photos(f"{part}/cat")
            folder = photos(f"{part}/dog", 2)
        train, test = cnn.data.load(folder)
        assert (len(train), len(test)) == (7, 7)
        assert "the pictures in val are not used" in train.notes

    def test_a_fifth_of_each_class_is_held_out(self, photos):
        photos("rare", 2)
        photos("common", 50)
        folder = photos("usual", 10)
        train, test = cnn.data.load(folder)
        assert [of(test).count(name) for name in ("rare", "common", "usual")] == [1, 10, 2]
        assert [of(train).count(name) for name in ("rare", "common", "usual")] == [1, 40, 8]
        assert "a test set of 13 pictures is held out" in train.notes

    def test_which_are_held_out_follows_from_the_seed(self, tmp_path):
        for number in range(20):
            for name in ("a", "b"):
                (tmp_path / "p" / name).mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), 10 * number).save(tmp_path / "p" / name / f"{number:02}.png")
        one, again, other = (cnn.data.load(tmp_path / "p", seed=seed)[1].images for seed in (0, 0, 1))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()

    def test_a_test_set_alone_is_loaded_without_decoding_the_rest(self, photos, cache):
        photos("train/cat", 6, RED)
        photos("train/dog", 6, GREEN)
        photos("test/cat", 2, RED)
        folder = photos("test/dog", 2, GREEN)
        assert of(cnn.data.load_test(folder)) == ["cat", "cat", "dog", "dog"]
        (decoded_once,) = cache.iterdir()
        assert np.load(decoded_once / decoded.IMAGES).shape == (4, 3, 30, 40)

    @pytest.mark.parametrize("part", ["", "train/"])
    def test_on_request_all_of_a_folder_without_a_test_set_is_the_test_set(self, photos, part):
        photos(f"{part}cat", 7, RED)
        folder = photos(f"{part}dog", 3, GREEN)
        test = cnn.data.load_test(folder, whole=True)
        assert of(test) == ["cat"] * 7 + ["dog"] * 3
        assert "there is no test set: all 10 pictures are tested" in test.notes
        np.testing.assert_array_equal(test.images[:, 0, 0, 0], [RED[0]] * 7 + [GREEN[0]] * 3)
        assert of(cnn.data.load_test(folder)) == of(cnn.data.load(folder)[1]) == ["cat", "dog"]

    def test_the_folder_that_an_archive_unpacks_to(self, photos):
        photos("photos-main/train/cat")
        photos("photos-main/train/dog")
        folder = photos("photos-main/test/dog", 2)
        assert [len(part) for part in cnn.data.load(folder)] == [10, 2]

    def test_pictures_below_the_folder_of_a_class(self, photos):
        photos("cat/2024/may", 3)
        photos("cat", 2)
        folder = photos("dog")
        assert sum(len(part) for part in cnn.data.load(folder)) == 10

    def test_what_is_not_a_picture_is_ignored(self, photos):
        photos("cat")
        folder = photos("dog")
        for name in ("cat/Thumbs.db", "cat/notes.txt", "dog/.DS_Store", "labels.csv", "dog/._bild 0.png"):
            (folder / name).write_bytes(b"x")
        (folder / "empty").mkdir()
        assert cnn.data.load(folder)[0].classes == ("cat", "dog")

    def test_names_that_systems_write_in_two_ways_are_one_class(self, photos):
        photos("train/Birne grün")
        photos("train/Apfel")
        _, test = cnn.data.load(photos("test/Birne gru\u0308n", 2))
        assert set(of(test)) == {"Birne grün"}

    def test_classes_that_differ_in_case_are_two_and_a_note_says_so(self, photos):
        photos("train/Cat")
        photos("train/dog")
        photos("test/cat")
        train, test = cnn.data.load(photos("test/dog"))
        assert train.classes == ("Cat", "cat", "dog")
        said = (
            "the classes 'Cat' and 'cat' differ only in upper and lower case: give them one name if they are "
            "the same class"
        )
        assert said in notes_on(train, "training")
        assert (
            "5 of 10 test images are of classes without training images: 'cat'"
            in notes_on(test, "test", train)
        )  # fmt: skip

    def test_single_letters_may_differ_in_case(self, photos):
        photos("a")
        train, _ = cnn.data.load(photos("A"))
        assert train.classes == ("A", "a")
        assert notes_on(train, "training") == []

    def test_parts_may_lack_classes_of_each_other(self, photos):
        for name in ("train/a", "train/b", "test/b", "test/c"):
            folder = photos(name, 2)
        (folder / "test" / "empty").mkdir()
        train, test = cnn.data.load(folder)
        assert train.classes == test.classes == ("a", "b", "c")
        assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1], [1, 1, 2, 2])


class TestPixels:
    def test_small_pictures_of_one_size_keep_it(self, photos):
        photos("a", size=(20, 30))
        train, _ = cnn.data.load(photos("b", size=(20, 30)))
        assert train.shape == (3, 30, 20)
        assert "pictures cropped to 30x20, colour" in train.notes

    def test_others_become_64x64(self, photos):
        photos("a", size=(90, 80))
        assert cnn.data.load(photos("b", size=(90, 80)))[0].shape == (3, 64, 64)
        assert cnn.data.load(photos("c", size=(20, 30)))[0].shape == (3, 64, 64)

    def test_grey_pictures_have_one_channel(self, photos):
        photos("a", colour=GREY)
        train, _ = cnn.data.load(photos("b", colour=GREY))
        assert train.shape[0] == 1
        assert (train.images == 90).all()
        assert cnn.data.load(photos("c"))[0].shape[0] == 3

    @pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
    def test_training_and_predict_see_the_same_pixels(self, photos, fit, suffix):
        from cnn.data.fitting import fitted
        from cnn.data.readers.photographs import read_picture

        folder = photos("train/a", 1, (200, 20, 30), size=(50, 31), suffix=suffix)
        photos("train/b", 1, suffix=suffix)
        photos("test/b", 1, suffix=suffix)
        train, _ = cnn.data.load(folder, Pictures(size=(16, 24), fit=fit))
        picture = read_picture(folder / "train/a" / f"bild 0.{suffix}")
        np.testing.assert_array_equal(train.images[0], fitted(picture, (3, 16, 24), fit))
        assert train.fit == fit

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"size": 0}, "size is 0, expected a whole number of at least 1"),
            ({"size": (1, 2, 3)}, r"size is \(1, 2, 3\), expected a height and a width"),
            ({"fit": "squeeze"}, "fit is 'squeeze', expected stretch, crop, letterbox, digit"),
            ({"channels": 4}, "channels is 4, expected 1 \\(grey\\) or 3 \\(colour\\)"),
        ],
    )
    def test_settings_that_are_wrong(self, settings, message):
        with pytest.raises(cnn.ArgumentError, match=message):
            Pictures(**settings)


class TestCache:
    @pytest.fixture
    def folder(self, photos):
        photos("a", 10)
        return photos("b", 10, GREEN)

    def test_pictures_are_decoded_once(self, folder, monkeypatch):
        first = cnn.data.load(folder)
        monkeypatch.setattr(decoded, "decode", None)  # a call would fail
        second = cnn.data.load(folder)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            assert isinstance(other.images.base, np.memmap)

    def test_a_second_load_decodes_nothing(self, folder, tmp_path, monkeypatch):
        """Size and channels, which are chosen by looking at some pictures, are the same as well."""
        decodes = []
        decode = photographs.decode_bytes
        monkeypatch.setattr(photographs, "decode_bytes", lambda *given: decodes.append(1) or decode(*given))
        first = cnn.data.load(folder)
        assert len(decodes) >= 20
        decodes.clear()
        second = cnn.data.load(folder)
        assert not decodes
        assert [part.shape for part in first] == [part.shape for part in second] == [(3, 30, 40)] * 2
        for file in (tmp_path / "cache" / "inspected").iterdir():
            file.write_text('{"sizes": [3]}')
        assert cnn.data.load(folder)[0].shape == (3, 30, 40)
        assert len(decodes) == 16  # those that are inspected, all others are still cached

    def test_what_was_found_in_the_pictures_follows_their_changes(self, photos):
        folder = photos("train/a", 3, GREY)
        photos("train/b", 3, GREY)
        photos("test/b", 1, GREY)
        assert cnn.data.load(folder)[0].shape == (1, 30, 40)
        photos("train/b", 3, RED, size=(20, 20))
        assert cnn.data.load(folder)[0].shape == (3, 64, 64)

    @pytest.mark.parametrize("change", ["contents", "time", "name"])
    def test_again_if_a_file_has_changed(self, folder, change):
        before, _ = cnn.data.load(folder, seed=3)
        for file in (folder / "a").iterdir():
            if change == "contents":
                Image.new("RGB", (40, 30), (0, 0, 255)).save(file)
            elif change == "time":
                Image.new("RGB", (40, 30), (0, 0, 254)).save(file)
                os.utime(file, (1, 1))
            else:
                file.rename(file.with_name(f"x{file.name}"))
                Image.new("RGB", (40, 30), (0, 0, 253)).save(file.with_name(f"x{file.name}"))
        after, _ = cnn.data.load(folder, seed=3)
        assert (before.images[0] != after.images[0]).any()

    def test_a_damaged_cache_is_made_again(self, folder, cache):
        before, _ = cnn.data.load(folder)
        for each in cache.iterdir():
            (each / "images.npy").unlink()  # which the first data set still has
            (each / "images.npy").write_bytes(b"rubbish")
        after, _ = cnn.data.load(folder)
        np.testing.assert_array_equal(before.images, after.images)

    def test_without_a_place_for_the_cache_everything_works(self, folder, tmp_path, monkeypatch):
        (tmp_path / "file").write_bytes(b"")
        monkeypatch.setenv("CNN_DATA", str(tmp_path / "file"))
        with pytest.warns(Notice, match="the decoded pictures are not cached"):
            train, _ = cnn.data.load(folder)
        assert of(train) == ["a"] * 8 + ["b"] * 8

    def test_what_is_not_used_for_a_month_is_removed(self, folder, cache, photos):
        cnn.data.load(folder)
        old = [*cache.iterdir()]
        for each in old:
            os.utime(each, (1, 1))
        photos("c")
        cnn.data.load(folder)
        assert not any(each.exists() for each in old)

    def test_a_folder_that_has_moved_is_not_decoded_again(self, folder, monkeypatch, tmp_path):
        cnn.data.load(folder)
        moved = shutil.move(folder, tmp_path / "moved")
        monkeypatch.setattr(decoded, "decode", None)
        cnn.data.load(moved)


class TestUnreadable:
    def test_one_is_named_and_skipped(self, photos):
        photos("a", 10)
        folder = photos("b", 10)
        (folder / "a" / "bild 3.png").write_bytes(b"\x89PNG rubbish")
        for _ in range(2):  # from the cache as well
            with pytest.warns(Notice, match=r"skipped 1 of 16 pictures: .*bild 3\.png: this is a damaged"):
                train, test = cnn.data.load(folder, seed=1)
            assert (len(train), len(test)) == (15, 4)
            assert of(train).count("a") == 7

    def test_too_many_are_refused(self, photos):
        photos("train/a", 10)
        folder = photos("train/b", 10)
        photos("test/b", 1)
        for number in range(3):
            (folder / "train/a" / f"bild {number}.png").write_bytes(b"x")
        with pytest.raises(DataError, match="more than 10% of the 20 pictures cannot be used, such as"):
            cnn.data.load(folder)

    def test_formats_of_cameras_and_phones_are_named(self, photos):
        photos("train/a", 10)
        folder = photos("train/b", 10)
        photos("test/b", 1)
        (folder / "train/a" / "raw.CR2").write_bytes(b"II*\0")
        with pytest.warns(Notice, match=r"raw\.CR2: this is a raw picture of a camera and cannot be read"):
            cnn.data.load(folder)


class TestRefusals:
    def refused(self, folder, message):
        with pytest.raises(DataError, match=message):
            cnn.data.load(folder)

    def test_a_single_class(self, photos):
        self.refused(photos("cat"), "all pictures are of one class, cat: expected at least two classes")

    def test_a_class_with_a_single_picture(self, photos):
        photos("cat", 1)
        self.refused(photos("dog"), "class cat has a single picture: expected at least two")

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
    @pytest.mark.parametrize("name", ["a\nb", "red \x1b[31m", "\u202eabc", os.fsdecode(b"caf\xe9")])
    def test_names_of_classes_that_cannot_be_shown(self, photos, name):
        folder = photos("cat")
        try:
            photos(name)
        except OSError:
            pytest.skip("the file system has no such names")
        with pytest.raises(DataError) as error:
            cnn.data.load(folder)
        said = f"the name of the class folder {name!r} is not printable text: rename it"
        assert str(error.value) == f"{folder}: {said}"

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
    def test_any_names_of_files_are_read(self, photos):
        photos("cat", 10, GREEN)
        folder = photos("dog", 10)
        try:
            for number, name in enumerate((b"new\nline.png", b"esc\x1b[31m.png", b"caf\xe9.png")):
                (folder / "cat" / f"bild {number}.png").rename(folder / "cat" / os.fsdecode(name))
            (folder / "cat" / os.fsdecode(b"broken \xe9.png")).write_bytes(b"x")
        except OSError:
            pytest.skip("the file system has no such names")
        for _ in range(2):  # from the cache as well
            with pytest.warns(Notice, match="skipped 1 of"):
                train, test = cnn.data.load(folder)
            assert sorted(of(train) + of(test)) == ["cat"] * 10 + ["dog"] * 10

    @pytest.mark.parametrize("where", ["", "cat"])
    def test_a_folder_that_may_not_be_read(self, photos, monkeypatch, where):
        photos("cat")
        folder = photos("dog")
        scan = os.scandir

        def refusing(path):
            if os.fspath(path) == os.fspath(folder / where):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refusing)
        self.refused(folder, rf"{where} *: cannot be read \(Permission denied\)$")

    def test_no_training_pictures(self, photos):
        folder = photos("test/cat")
        (folder / "train").mkdir()
        self.refused(folder, "train has no pictures: expected a folder of pictures for each class in it")
