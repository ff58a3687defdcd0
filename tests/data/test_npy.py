"""A folder of .npy files: what is taken, what stays in its file, what is refused, what is never unpickled."""

import numpy as np
import pytest
from helpers.small_files import (
    ARRAYS,
    X_TEST,
    X_TRAIN,
    Y_TEST,
    Y_TRAIN,
    check_small_sets,
    idx,
    npy,
    refused,
    write,
)

import cnn.data
from cnn.data.readers.mapped import mapping


@pytest.fixture
def save(tmp_path):
    """A function that writes a folder of .npy files: the small set, with some replaced (None: left out)."""

    def save(**replaced):
        for name, array in {**ARRAYS, **replaced}.items():
            if isinstance(array, bytes):
                (tmp_path / f"{name}.npy").write_bytes(array)
            elif array is not None:
                np.save(tmp_path / f"{name}.npy", array)
        return tmp_path

    return save


class TestNpy:
    def test_loads(self, save):
        check_small_sets(*cnn.data.load(save()))
        check_small_sets(*cnn.data.load(str(save())))

    def test_the_second_format_too(self, save):
        x_train = npy(X_TRAIN, write_header=np.lib.format.write_array_header_2_0)
        check_small_sets(*cnn.data.load(save(x_train=x_train)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
    def test_images_stay_in_their_files(self, save, dtype):
        parts = cnn.data.load(save(x_train=X_TRAIN.astype(dtype), x_test=X_TEST.astype(dtype)))
        for part in parts:
            assert mapping(part.images) is not None
            assert part.images.dtype == dtype
            assert not part.images.flags.writeable
            assert mapping(part.only().images) is not None

    @pytest.mark.parametrize("x_train", [np.asfortranarray(X_TRAIN), X_TRAIN.astype(">i8")])
    def test_what_is_laid_out_otherwise_is_converted(self, save, x_train):
        train, test = cnn.data.load(save(x_train=x_train))
        check_small_sets(train, test)
        assert mapping(train.images) is None
        assert mapping(test.images) is not None

    def test_channels(self, save):
        train, test = cnn.data.load(save(x_train=np.zeros((8, 3, 4, 5)), x_test=np.ones((4, 3, 4, 5))))
        assert train.shape == test.shape == (3, 4, 5)

    @pytest.mark.parametrize("dtype", ["U", "S"])
    def test_names_of_the_classes(self, save, dtype):
        names = ("ant", "bee", "cat", "dog", "eel")
        train, test = cnn.data.load(save(classes=np.array(names, dtype)))
        assert train.classes == test.classes == names

    def test_one_hot_rows(self, save):
        train, _ = cnn.data.load(save(y_train=np.eye(5)[Y_TRAIN], y_test=np.eye(5)[Y_TEST]))
        assert len(train.classes) == 5
        assert train.labels.tolist() == Y_TRAIN.tolist()

    def test_missing_files(self, save):
        folder = save(x_train=None, y_test=None)
        with refused(folder, "missing x_train.npy, y_test.npy;", "expected x_train.npy, y_train.npy, x_test"):
            cnn.data.load(folder)

    def test_a_folder_in_a_files_place(self, save):
        folder = save(y_train=None)
        (folder / "y_train.npy").mkdir()
        with refused(folder / "y_train.npy", "this is a folder"):
            cnn.data.load(folder)

    @pytest.mark.parametrize("name", ["x_train", "classes"])
    def test_objects_are_never_unpickled(self, save, name):
        class Trap:
            def __reduce__(self):
                return (pytest.fail, ("unpickled",))

        folder = save(**{name: np.array([Trap()] * 8, dtype=object)})
        with refused(folder / f"{name}.npy", "holds Python objects", "never unpickled"):
            cnn.data.load(folder)

    @pytest.mark.parametrize(
        ("name", "array", "sentence"),
        [
            ("x_train", np.zeros((8, 12), np.uint8), "shape (8, 12): expected (N, H, W)"),
            ("x_test", np.zeros((0, 3, 4), np.uint8), "the set is empty"),
            ("x_test", np.full((4, 3, 4), np.nan), "image 0 contains NaN"),
            ("x_test", np.full((4, 3, 4), 300), "int64 values from 300 to 300"),
            ("x_test", np.full((4, 3, 4), "text"), "dtype <U4"),
            ("x_test", np.zeros((4, 3, 4), np.float32), "expected uint8 in both or floats in both"),
            ("x_test", np.zeros((4, 1, 1, 3, 4), np.uint8), "at most 4 axes"),
            ("y_test", Y_TEST[:3], "there are 4 images but 3 labels"),
            ("y_test", np.array([0, 1, 77, 3]), "label 77 at position 2 is out of range: expected 0 to 3"),
            ("classes", np.array(["a", "b", "b"]), "'b' occurs more than once"),
            ("classes", np.array([0, 1, 2, 3]), "expected a one-dimensional array of text"),
        ],
    )
    def test_unfit_arrays(self, save, name, array, sentence):
        folder = save(**{name: array})
        with refused(folder / f"{name}.npy", sentence):
            cnn.data.load(folder)


class TestNpyFiles:
    """Files that numpy would not write."""

    @pytest.mark.parametrize("shape", [(80, 3, 4), (8, 3, 5), (7, 3, 4), (4 * 10**9, 4 * 10**9, 4)])
    def test_header_that_lies(self, save, shape):
        folder = save(x_train=npy(X_TRAIN, shape))
        promised = f"{np.prod(shape, dtype=object):,}"
        with refused(folder / "x_train.npy", f"its header promises {promised} bytes", "holds 96"):
            cnn.data.load(folder)

    def test_negative_sizes(self, save):
        with refused("x_train.npy: shape (-8, -3, 4)", "none of them negative"):
            cnn.data.load(save(x_train=npy(X_TRAIN, (-8, -3, 4))))

    def test_cut_short(self, save):
        with refused("x_train.npy: its header promises 96 bytes", "holds 95: it is damaged"):
            cnn.data.load(save(x_train=npy(X_TRAIN)[:-1]))

    def test_format_version(self, save):
        with refused("x_train.npy: .npy format (3, 0)", "expected (1, 0) or (2, 0)"):
            cnn.data.load(save(x_train=b"\x93NUMPY\3\0" + npy(X_TRAIN)[8:]))

    @pytest.mark.parametrize(
        "contents",
        [
            b"",
            b"\x93NUMPY",
            b"not an array",
            idx(X_TRAIN),
            b"\x93NUMPY\2\0\xff\xff\xff\xff",
            b"\x93NUMPY\2\0\0\x30\0\0" + b" " * 13_000,
        ],
        ids=["empty", "magic", "text", "idx", "endless header", "long header"],
    )
    def test_no_array(self, save, contents):
        folder = save(x_train=contents)
        with refused(folder / "x_train.npy", "not a .npy file, or damaged") as caught:
            cnn.data.load(folder)
        assert "\n" not in str(caught.value)


def test_an_idx_folder_is_still_one(folder):
    check_small_sets(*cnn.data.load(folder))
    write(folder / "classes.npy", b"something else")
    check_small_sets(*cnn.data.load(folder))
