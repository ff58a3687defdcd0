"""An .npz of one's own: what is taken, what is refused, what is never unpickled."""

import struct
import zipfile

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


class TestNpz:
    @pytest.mark.parametrize("compressed", [True, False])
    def test_loads(self, npz, compressed):
        check_small_sets(*cnn.data.load(npz(compressed)))
        check_small_sets(*cnn.data.load(str(npz(compressed))))

    def test_column_major_arrays(self, npz):
        check_small_sets(*cnn.data.load(npz(x_train=np.asfortranarray(X_TRAIN), y_test=Y_TEST.astype(">i8"))))

    def test_floats_and_channels(self, npz):
        channels = {"x_train": np.zeros((8, 3, 4, 5)), "x_test": np.ones((4, 3, 4, 5))}
        train, test = cnn.data.load(npz(**channels))
        assert train.shape == test.shape == (3, 4, 5)
        assert train.images.dtype == np.float64

    def test_names_of_the_classes(self, npz):
        names = ("ant", "bee", "cat", "dog", "eel")
        train, test = cnn.data.load(npz(classes=np.array(names)))
        assert train.classes == test.classes == names

    @pytest.mark.parametrize("name", ["class_names", "label_names", "target_names"])
    def test_names_of_the_classes_under_another_name(self, npz, tmp_path, name):
        names = ("ant", "bee", "cat", "dog", "eel")
        for array, values in {**ARRAYS, name: np.array(names)}.items():
            np.save(tmp_path / f"{array}.npy", values)
        for source in (tmp_path, npz(**{name: np.array(names)})):
            train, _ = cnn.data.load(source)
            assert (train.classes, train.notes) == (names, (f"class names from {name}",))

    def test_one_hot_rows(self, npz):
        train, test = cnn.data.load(npz(y_train=np.eye(5)[Y_TRAIN], y_test=np.eye(5)[Y_TEST]))
        assert len(train.classes) == len(test.classes) == 5
        assert train.labels.tolist() == Y_TRAIN.tolist()

    @pytest.mark.parametrize(("y_test", "what"), [(Y_TEST, "labels"), (np.eye(6)[Y_TEST], "6 columns")])
    def test_one_hot_rows_of_two_widths(self, npz, y_test, what):
        with refused("y_train: one-hot rows of 5 columns", "y_test", what, "the same in both"):
            cnn.data.load(npz(y_train=np.eye(5)[Y_TRAIN], y_test=y_test))

    def test_missing_arrays(self, npz):
        path = npz(x_train=None, y_test=None, images=X_TRAIN)
        with refused(path, "missing x_train, y_test;", "found", "'x_test'", "'images'"):
            cnn.data.load(path)

    def test_empty_archive(self, tmp_path):
        zipfile.ZipFile(tmp_path / "a.npz", "w").close()
        with refused("missing x_train, y_train, x_test, y_test", "found none"):
            cnn.data.load(tmp_path / "a.npz")

    @pytest.mark.parametrize("name", ["x_train", "classes"])
    def test_objects_are_never_unpickled(self, npz, name):
        class Trap:
            def __reduce__(self):
                return (pytest.fail, ("unpickled",))

        path = npz(**{name: np.array([Trap()] * 8, dtype=object)})
        with refused(path, f"{name}: holds Python objects", "never unpickled"):
            cnn.data.load(path)

    @pytest.mark.parametrize("contents", [b"", b"not a zip", idx(X_TRAIN), b"PK\5\6"])
    def test_not_a_zip(self, tmp_path, contents):
        path = write(tmp_path / "a.npz", contents)
        with refused(path, "not a .npz file", "numpy.savez"):
            cnn.data.load(path)

    def test_cut_short(self, npz):
        path = npz()
        path.write_bytes(path.read_bytes()[:-100])
        with refused(path, "not a .npz file, or damaged"):
            cnn.data.load(path)

    def test_crc(self, npz):
        path = npz(compressed=False)
        data = path.read_bytes()
        assert data.count(X_TEST.tobytes()) == 1
        path.write_bytes(data.replace(X_TEST.tobytes(), (X_TEST ^ 1).tobytes()))
        with refused(path, "damaged", "CRC", "x_test"):
            cnn.data.load(path)

    @pytest.mark.parametrize(
        ("name", "array", "sentence"),
        [
            ("x_train", np.zeros((8, 12), np.uint8), "shape (8, 12): expected (N, H, W)"),
            ("x_test", np.zeros((0, 3, 4), np.uint8), "the set is empty"),
            ("x_test", np.full((4, 3, 4), np.nan), "image 0 contains NaN"),
            ("x_test", np.full((4, 3, 4), 300), "int64 values from 300 to 300"),
            ("x_test", np.full((4, 3, 4), "text"), "dtype <U4"),
            ("x_test", np.zeros((4, 3, 4), [("field", "u1")]), "dtype [('field', 'u1')]"),
            ("x_test", np.zeros((4, 3, 4), np.float32), "expected uint8 in both or floats in both"),
            ("y_train", Y_TRAIN + 0.5, "0.5 at position 0: expected a whole number"),
            ("y_train", -Y_TRAIN.astype(int), "label -1 at position 1 is out of range"),
            ("y_test", np.array([0, 1, 2, 10**9]), "label 1000000000 at position 3 is out of range"),
            ("y_test", np.array([0, 1, 77, 3]), "label 77 at position 2 is out of range: expected 0 to 3"),
            ("y_test", Y_TEST[:3], "there are 4 images but 3 labels"),
            ("classes", np.array(["a", "b", "b"]), "'b' occurs more than once"),
            ("classes", np.array(["a", "b", "c"]), "label 3 at position 0"),
            ("classes", np.array([0, 1, 2, 3]), "expected a one-dimensional array of text"),
            ("classes", np.array([["a", "b"]]), "expected a one-dimensional array of text"),
            ("x_test", np.zeros((4, 1, 1, 3, 4), np.uint8), "at most 4 axes"),
        ],
    )
    def test_unfit_arrays(self, npz, name, array, sentence):
        path = npz(**{name: array})
        shown = "y_test" if sentence == "label 3 at position 0" else name
        with refused(path, f"{shown}", sentence):
            cnn.data.load(path)


class TestNpzMembers:
    """Archives that numpy would not write."""

    @pytest.fixture
    def archive(self, tmp_path):
        """A function that writes a .npz in which the member x_train is as given."""

        def save(x_train, method=zipfile.ZIP_DEFLATED, patch=lambda data: data):
            path = tmp_path / "own.npz"
            with zipfile.ZipFile(path, "w") as zipped:
                zipped.writestr("x_train.npy", x_train, compress_type=method)
                for name in ("y_train", "x_test", "y_test"):
                    zipped.writestr(f"{name}.npy", npy(ARRAYS[name]))
            path.write_bytes(patch(path.read_bytes()))
            return path

        return save

    def test_whole(self, archive):
        check_small_sets(*cnn.data.load(archive(npy(X_TRAIN))))

    @pytest.mark.parametrize("shape", [(80, 3, 4), (8, 3, 5), (7, 3, 4), (4 * 10**9, 4 * 10**9, 4)])
    def test_header_that_lies(self, archive, shape):
        path = archive(npy(X_TRAIN, shape=shape))
        with refused(
            path, f"x_train: its header promises {np.prod(shape, dtype=object):,} bytes", "holds 96"
        ):
            cnn.data.load(path)

    def test_negative_sizes(self, archive):
        with refused("x_train: shape (-8, -3, 4)", "none of them negative"):
            cnn.data.load(archive(npy(X_TRAIN, shape=(-8, -3, 4))))

    @pytest.mark.parametrize(
        "member",
        [
            b"",
            b"\x93NUMPY",
            b"not an array",
            b"\x93NUMPY\2\0\xff\xff\xff\xff",
            b"\x93NUMPY\2\0\0\x30\0\0" + b" " * 13_000,
        ],
        ids=["empty", "magic", "text", "endless header", "long header"],
    )
    def test_no_array(self, archive, member):
        path = archive(member)
        with refused(path, "not a .npz file, or damaged") as caught:
            cnn.data.load(path)
        assert "\n" not in str(caught.value)

    def test_format_version(self, archive):
        with refused("x_train: .npy format (3, 0)", "expected (1, 0) or (2, 0)"):
            cnn.data.load(archive(b"\x93NUMPY\3\0" + npy(X_TRAIN)[8:]))

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_other_compression(self, archive, method):
        with refused("x_train: compressed by method", str(int(method)), "stored or deflated"):
            cnn.data.load(archive(npy(X_TRAIN), method))

    def test_a_member_larger_than_its_compressed_bytes_can_become(self, archive):
        member = npy(X_TRAIN)
        true, boast = struct.pack("<I", len(member)), struct.pack("<I", 2_000_000_000)
        path = archive(member, patch=lambda data: data.replace(true, boast))
        with refused(path, "x_train: 2,000,000,000 bytes promised", "more than the file can contain"):
            cnn.data.load(path)

    def test_a_bomb_is_read_no_further_than_its_header(self, archive, monkeypatch):
        bomb = npy(X_TRAIN) + bytes(20_000_000)
        path = archive(bomb)
        assert path.stat().st_size < 40_000
        wanted = []
        honest = cnn.data.readers.npz.read_up_to
        monkeypatch.setattr(
            cnn.data.readers.npz, "read_up_to", lambda size, *rest: (wanted.append(size), honest(size, *rest))
        )
        with refused("x_train: its header promises 96 bytes", "the file holds 20,000,096"):
            cnn.data.load(path)
        assert wanted == [1 << 14]

    def test_encrypted(self, archive):
        path = archive(npy(X_TRAIN), patch=with_flag_of_encryption)
        with refused(path, "damaged", "encrypted"):
            cnn.data.load(path)


def with_flag_of_encryption(data):
    central = data.index(b"PK\1\2")
    return data[:6] + b"\1" + data[7 : central + 8] + b"\1" + data[central + 9 :]
