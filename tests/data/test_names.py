"""Files and arrays of a data set under the names that archivers, browsers and other libraries give them."""

import gzip
import os
import zipfile

import numpy as np
import pytest
from helpers.small_files import (
    ARRAYS,
    NAMES,
    X_TEST,
    X_TRAIN,
    Y_TEST,
    Y_TRAIN,
    check_small_sets,
    idx,
    npy,
    refused,
)

import cnn.data
from cnn.data.names import role_of
from cnn.data.readers import cifar10
from cnn.data.readers.common import MOST_FOLDERS

CONTENTS = dict(zip(NAMES, map(idx, ARRAYS.values()), strict=True))


@pytest.fixture
def lay(tmp_path):
    """A function that writes {path below a folder: bytes}; -> the folder."""

    def write(files):
        for name, contents in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
        return tmp_path

    return write


def renamed(rename):
    """MNIST's four files under other names."""
    return {rename(name): contents for name, contents in CONTENTS.items()}


class TestRoles:
    @pytest.mark.parametrize(
        ("name", "part", "kind"),
        [
            *(("x_train", "train", "images"), ("X_train", "train", "images"), ("trainX", "train", "images")),
            *(("ytest", "test", "labels"), ("test-Y", "test", "labels"), ("x_valid", "val", "images")),
            *(("train_images", "train", "images"), ("testLabels", "test", "labels")),
            *(
                ("train_data", "train", "images"),
                ("test_targets", "test", "labels"),
                ("images", "", "images"),
            ),
            *(("T10K-IMAGES.IDX3-UBYTE", "test", "images"), ("val/labels.npy", "val", "labels")),
            ("test_set/train-images-idx3-ubyte", "train", "images"),
        ],
    )
    def test_what_a_name_says(self, name, part, kind):
        assert role_of(name)[:2] == (part, kind)

    @pytest.mark.parametrize("name", ["", "train", "classes", "trainable", "xylophone", "x_y_train", "arr_0"])
    def test_names_that_say_too_little_or_too_much(self, name):
        assert role_of(name) is None


class TestIdx:
    @pytest.mark.parametrize(
        "rename",
        [
            *(lambda name: name.replace("-idx", ".idx"), lambda name: name.replace("-idx", ".idx") + ".gz"),
            *(str.upper, lambda name: f"{name} (1).gz", lambda name: f"{name}/{name}"),
            *(lambda name: f"{name}/{name.replace('-idx', '.idx')}", "{}.txt".format, "{}.bin".format),
            lambda name: name.replace("t10k", "test"),
            *(lambda name: name[:-11], lambda name: name[:-11].replace("-", "_") + ".ubyte"),
            *(
                lambda name: f"raw/{name}",
                lambda name: f"mnist-{name}",
                lambda name: name.replace("-", "/", 1),
            ),
        ],
    )
    def test_names(self, lay, rename):
        train, test = cnn.data.load(lay(renamed(rename)))
        check_small_sets(train, test)
        assert train.notes == ()

    def test_what_systems_add_is_passed_over(self, lay):
        more = {"._" + NAMES[0]: b"x", ".DS_Store": b"x", f"__MACOSX/{NAMES[1]}": b"x", "README": b"x"}
        check_small_sets(*cnn.data.load(lay(CONTENTS | more)))

    def test_the_usual_name_goes_before_a_copy(self, lay):
        copies = renamed(lambda name: f"{name} (1).gz") | renamed(lambda name: f"other-{name}")
        check_small_sets(*cnn.data.load(lay(CONTENTS | dict.fromkeys(copies, b"never read"))))

    def test_a_validation_part_is_tested_on_if_there_is_no_other(self, lay):
        train, test = cnn.data.load(lay(renamed(lambda name: name.replace("t10k", "val"))))
        check_small_sets(train, test)
        assert train.notes == ("there is no test set: val-images-idx3-ubyte is used for testing",)

    @pytest.mark.parametrize("split", ["emnist-letters", "emnist-balanced"])
    def test_emnist_lies_on_its_side(self, lay, split):
        files = renamed(lambda name: f"gzip/{split}-{name.replace('t10k', 'test')}.gz")
        folder = lay({name: gzip.compress(data) for name, data in files.items()})
        train, test = cnn.data.load(folder)
        np.testing.assert_array_equal(train.images[:, 0], X_TRAIN.transpose(0, 2, 1))
        np.testing.assert_array_equal(test.images[:, 0], X_TEST.transpose(0, 2, 1))
        assert train.notes == ("EMNIST's images are stored transposed, and were turned upright",)
        again, _ = cnn.data.load(folder, transposed=True)
        np.testing.assert_array_equal(again.images, train.images)  # not turned twice

    def test_transposed_images_under_other_names(self, lay):
        train, test = cnn.data.load(lay(CONTENTS), transposed=True)
        np.testing.assert_array_equal(train.images[:, 0], X_TRAIN.transpose(0, 2, 1))
        np.testing.assert_array_equal(test.images[:, 0], X_TEST.transpose(0, 2, 1))
        assert train.images.flags.c_contiguous
        assert train.notes == ("rows and columns exchanged",)

    def test_a_table_of_emnist_suggests_to_transpose(self, tmp_path):
        rows = [[number % 2, *range(number, number + 64)] for number in range(10)]
        (tmp_path / "emnist-letters.csv").write_text("".join(f"{str(row)[1:-1]}\n" for row in rows))
        train, _ = cnn.data.load(tmp_path / "emnist-letters.csv")
        assert train.notes[0].endswith("if they lie on their side, give --transposed")
        turned, _ = cnn.data.load(tmp_path / "emnist-letters.csv", transposed=True)
        np.testing.assert_array_equal(turned.images, train.images.transpose(0, 1, 3, 2))

    def test_several_sets_in_one_folder(self, lay):
        files = renamed("emnist-letters-{}".format) | renamed("emnist-digits-{}".format)
        with refused("contains several data sets, 'emnist-digits', 'emnist-letters': move the one to use"):
            cnn.data.load(lay(files))

    def test_a_file_goes_before_its_copy_in_a_folder(self, lay):
        copies = renamed(lambda name: f"{name}/{name}")
        files = renamed(lambda name: name.replace("-idx", ".idx"))
        check_small_sets(*cnn.data.load(lay(files | dict.fromkeys(copies, b"never read"))))

    def test_labels_of_another_type_are_not_missing(self, lay):
        files = renamed(lambda name: f"qmnist-{name}".replace("labels-idx1-ubyte", "labels-idx2-int"))
        labels = idx(Y_TRAIN, magic=0x0C02, shape=(4, 2))
        with refused("qmnist-train-labels-idx2-int: an IDX file of 32-bit integers"):
            cnn.data.load(lay(files | {"qmnist-train-labels-idx2-int": labels}))

    def test_two_files_for_one_part(self, lay):
        files = renamed("a/{}".format) | renamed("b/{}".format)
        with refused("a/train-images-idx3-ubyte and b/train-images-idx3-ubyte seem to be the same part"):
            cnn.data.load(lay(files))

    def test_one_is_missing(self, lay):
        files = renamed(lambda name: name.replace("-idx", ".idx").replace("t10k", "test"))
        del files["test-labels.idx1-ubyte"]
        with refused("missing test_labels; expected the four IDX files") as caught:
            cnn.data.load(lay(files))
        assert "no test part" not in str(caught.value)


class TestArrays:
    @pytest.mark.parametrize(
        "names",
        [
            ("train_images", "train_labels", "test_images", "test_labels"),
            ("X_train", "y_train", "X_test", "y_test"),
            ("trainX", "trainY", "testX", "testY"),
            ("train_data", "train_targets", "test_data", "test_targets"),
            ("train_set_x", "train_set_y", "test_set_x", "test_set_y"),
            ("trainimgs", "trainlbls", "testimgs", "testlbls"),
            ("x_tr", "y_tr", "x_te", "y_te"),
            ("train_features", "train_labels", "test_features", "test_labels"),
        ],
    )
    @pytest.mark.parametrize("form", ["npz", "npy"])
    def test_names(self, tmp_path, lay, names, form):
        arrays = dict(zip(names, ARRAYS.values(), strict=True))
        if form == "npz":
            np.savez(tmp_path / "a.npz", **arrays)
            check_small_sets(*cnn.data.load(tmp_path / "a.npz"))
        else:
            check_small_sets(
                *cnn.data.load(lay({f"{name}.npy": npy(array) for name, array in arrays.items()}))
            )

    def test_npy_files_in_capitals(self, lay):
        names = [f"{name.upper()}.NPY" for name in ARRAYS]
        check_small_sets(*cnn.data.load(lay(dict(zip(names, map(npy, ARRAYS.values()), strict=True)))))

    def test_npy_files_in_a_folder_for_each_part(self, lay):
        names = ("train/images", "train/labels", "test/images", "test/labels")
        files = {f"{name}.npy": npy(array) for name, array in zip(names, ARRAYS.values(), strict=True)}
        check_small_sets(*cnn.data.load(lay(files)))

    def test_medmnist(self, npz):
        arrays = {"train": (X_TRAIN, Y_TRAIN), "val": (X_TEST, Y_TEST), "test": (X_TEST, Y_TEST)}
        named = {f"{part}_images": images for part, (images, _) in arrays.items()}
        named |= {f"{part}_labels": labels[:, None] for part, (_, labels) in arrays.items()}
        train, test = cnn.data.load(npz(**dict.fromkeys(ARRAYS), **named))
        check_small_sets(train, test)
        assert train.notes == ("val_images is not used", "labels (8, 1) taken as (8,)")

    def test_the_documented_names_go_first(self, npz):
        more = {"train_images": X_TRAIN[:3], "X_train": X_TRAIN[:2], "images": X_TEST, "data": Y_TEST}
        check_small_sets(*cnn.data.load(npz(**more)))

    def test_two_arrays_for_one_part(self, npz):
        names = {"x_train": None, "X_train": X_TRAIN, "train_images": X_TRAIN}
        with refused("X_train and train_images seem to be the same part"):
            cnn.data.load(npz(**names))

    @pytest.mark.parametrize(
        ("kept", "parts"),
        [
            (
                {"x_train": X_TRAIN, "y_train": Y_TRAIN},
                ("missing x_test, y_test; expected", "no test set: hold out"),
            ),
            ({"images": X_TRAIN, "labels": Y_TRAIN}, ("images and labels are not split", "hold out")),
            ({"arr_0": X_TRAIN, "arr_1": Y_TRAIN}, ("found 'arr_0', 'arr_1', the name that savez gives",)),
            (
                {"train_images": X_TRAIN, "train_labels": Y_TRAIN, "test_images": X_TEST},
                ("missing test_labels;",),
            ),
        ],
    )
    def test_what_is_missing(self, npz, kept, parts):
        with refused(*parts):
            cnn.data.load(npz(**dict.fromkeys(ARRAYS) | kept))


class TestPlaces:
    """A folder too many or too few on the way to the files."""

    @pytest.mark.parametrize("folder", ["MNIST/raw", "mnist"])
    def test_idx(self, lay, folder):
        train, test = cnn.data.load(lay(renamed(lambda name: f"{folder}/{name}")))
        check_small_sets(train, test)

    def test_the_only_file(self, npz):
        path = npz()
        path.with_name("README.md").write_text("Read me.")
        train, test = cnn.data.load(path.parent)
        check_small_sets(train, test)
        assert train.notes == test.notes == ("found in own.npz",)

    @pytest.mark.parametrize("name", ["own", "own.zip"])
    def test_an_npz_of_another_name(self, npz, name):
        check_small_sets(*cnn.data.load(npz().rename(npz().with_name(name))))

    def test_what_systems_add_is_passed_over(self, npz):
        path = npz()
        (path.parent / "$RECYCLE.BIN").mkdir()
        (path.parent / "$RECYCLE.BIN" / "b.npz").write_bytes(b"x")
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.parent / "new", "w") as packed:
            for name in archive.namelist():
                packed.writestr(f"mine/{name}", archive.read(name))
                packed.writestr(f"__MACOSX/mine/._{name}", b"x")
        (path.parent / "new").replace(path)
        check_small_sets(*cnn.data.load(path.parent))

    def test_an_archive_is_passed_over_next_to_the_folder_that_it_was_unpacked_to(self, lay):
        record = bytes(1 + 3 * 32 * 32)
        files = {f"cifar-10-batches-bin/{name}": record for name in cifar10.FILES}
        train, test = cnn.data.load(lay(files | {"cifar-10-binary.tar.gz": b"never read"}))
        assert (len(train), len(test)) == (5, 1)
        with refused("contains several data sets, 'a.npz', 'cifar-10-binary.tar.gz'"):
            cnn.data.load(lay({"other/a.npz": b"x", "other/cifar-10-binary.tar.gz": b"x"}) / "other")

    def test_several_files(self, npz):
        npz().rename(npz().with_name("b.npz"))
        path = npz()
        with refused(path.parent, "contains several data sets, 'b.npz', 'own.npz': give one of them; if"):
            cnn.data.load(path.parent)

    def test_folders_that_are_many_are_classes(self, lay):
        files = {f"{number}/x_train.npy": npy(X_TRAIN) for number in range(MOST_FOLDERS + 1)}
        with refused("contains 21 NumPy arrays"):
            cnn.data.load(lay(files))

    def test_of_a_folder_of_very_many_files_only_some_are_looked_at(self, lay, monkeypatch):
        monkeypatch.setattr("cnn.data.readers.common.MOST_NAMES", 3)
        folder = lay(CONTENTS | {f"{number}.txt": b"" for number in range(30)})
        check_small_sets(*cnn.data.load(folder))  # the usual names are found among them

    def test_the_empty_name_is_no_folder(self):
        with refused("there is no data set ''"):
            cnn.data.load("")

    @pytest.mark.skipif(os.name == "nt", reason="links need a right there")
    def test_a_link_that_leads_nowhere(self, lay):
        folder = lay(CONTENTS)
        (folder / NAMES[0]).unlink()
        (folder / NAMES[0]).symlink_to("gone")
        with refused(f"{NAMES[0]}: cannot be read (this is a link to gone, which does not exist)"):
            cnn.data.load(folder)

    @pytest.mark.skipif(os.name == "nt", reason="links need a right there")
    def test_a_link_that_leads_back(self, lay):
        folder = lay({"a/b.txt": b"text"})
        (folder / "a" / "again").symlink_to(folder)
        with refused("contains"):
            cnn.data.load(folder)
