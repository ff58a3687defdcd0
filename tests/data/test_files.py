import gzip
import io
import os
import re
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import cnn.data
from cnn.data import bundled, read_idx
from cnn.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
X_TRAIN = np.arange(8 * 12, dtype=np.uint8).reshape(8, 3, 4)
Y_TRAIN = np.array([0, 1, 2, 0, 1, 2, 0, 1], dtype=np.uint8)
X_TEST = X_TRAIN[:4] + 100
Y_TEST = np.array([3, 2, 1, 0], dtype=np.uint8)
ARRAYS = {"x_train": X_TRAIN, "y_train": Y_TRAIN, "x_test": X_TEST, "y_test": Y_TEST}


def refused(*parts):
    return pytest.raises(DataError, match=".*".join(map(re.escape, map(str, parts))))


def idx(array, magic=None, shape=None):
    """An IDX file as bytes; ``magic`` and ``shape`` may lie."""
    shape = array.shape if shape is None else shape
    magic = 0x0800 + len(shape) if magic is None else magic
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + array.astype(np.uint8).tobytes()


def write(path, contents):
    """``contents``, compressed where the name says so."""
    path.write_bytes(gzip.compress(contents, mtime=0) if path.suffix == ".gz" else contents)
    return path


@pytest.fixture(params=["", ".gz"], ids=["plain", "gz"])
def suffix(request):
    return request.param


@pytest.fixture
def folder(tmp_path, suffix):
    for name, array in zip(NAMES, ARRAYS.values(), strict=True):
        write(tmp_path / (name + suffix), idx(array))
    return tmp_path


@pytest.fixture
def npz(tmp_path):
    """A function that writes a .npz: the small set, with some arrays replaced (None: left out)."""

    def save(compressed=True, **replaced):
        arrays = {name: array for name, array in {**ARRAYS, **replaced}.items() if array is not None}
        path = tmp_path / "own.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return save


def check_small_sets(train, test):
    np.testing.assert_array_equal(train.images[:, 0], X_TRAIN)
    np.testing.assert_array_equal(test.images[:, 0], X_TEST)
    assert train.labels.tolist() == Y_TRAIN.tolist()
    assert test.labels.tolist() == Y_TEST.tolist()
    assert train.images.dtype == test.images.dtype == np.uint8
    assert len(train.classes) == 4  # the training set alone has three
    assert train.classes == test.classes


class TestReadIdx:
    @pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
    def test_reads_what_was_written(self, tmp_path, suffix, shape):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        read = read_idx(write(tmp_path / f"a{suffix}", idx(array)))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)

    def test_path_may_be_text(self, tmp_path):
        np.testing.assert_array_equal(read_idx(str(write(tmp_path / "a", idx(Y_TEST)))), Y_TEST)

    def test_gzip_of_several_members(self, tmp_path):
        whole = idx(X_TRAIN)
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(whole[:20]) + gzip.compress(whole[20:]))
        np.testing.assert_array_equal(read_idx(path), X_TRAIN)

    @pytest.mark.parametrize(("axes", "held", "expected"), [(1, "images", "labels"), (3, "labels", "images")])
    def test_mislabelled(self, tmp_path, suffix, axes, held, expected):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN if axes == 1 else Y_TRAIN))
        numbers = {"images": 2051, "labels": 2049}
        with refused(
            path, f"holds {held} (magic number {numbers[held]})", f"{expected} ({numbers[expected]})"
        ):
            read_idx(path, axes)

    @pytest.mark.parametrize("magic", [0x0800, 0x0805, 0x08FF, 0x0D03, 0x01000803, 0x89504E47])
    def test_not_idx_of_bytes(self, tmp_path, magic):
        path = write(tmp_path / "a", idx(X_TRAIN, magic=magic))
        with refused(path, f"{magic:#010x}", "0x00000803 for images or 0x00000801 for labels"):
            read_idx(path)

    @pytest.mark.parametrize("length", [0, 3])
    def test_no_magic_number(self, tmp_path, suffix, length):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN)[:length])
        with refused(path, f"{length} bytes are too few"):
            read_idx(path)

    def test_ends_within_the_header(self, tmp_path, suffix):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN)[:15])
        with refused(path, "within its header"):
            read_idx(path)

    def test_cut_short(self, tmp_path, suffix):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN)[:-1])
        with refused(path, "promises 112 bytes", "fewer"):
            read_idx(path)

    def test_trailing_garbage(self, tmp_path, suffix):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN) + b"\0")
        with refused(path, "more data than the 112 bytes"):
            read_idx(path)

    def test_sizes_of_zero(self, tmp_path, suffix):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN[:0], shape=(0, 2**32 - 1, 2**32 - 1)))
        with refused(path, "(0, 4294967295, 4294967295)", "none to be 0"):
            read_idx(path)

    def test_a_boast_is_refused_before_anything_is_read_for_it(self, tmp_path, suffix, monkeypatch):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN, shape=(2**32 - 1, 28, 28)))
        wanted = []
        honest = cnn.data.idx.read_up_to
        monkeypatch.setattr(
            cnn.data.idx, "read_up_to", lambda size, *rest: (wanted.append(size), honest(size, *rest))
        )
        with refused(path, f"promises {(2**32 - 1) * 784 + 16:,} bytes", "fewer"):
            read_idx(path)
        assert wanted == [4, 16]

    def test_a_bomb_is_read_no_further_than_promised(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.gz", idx(X_TRAIN) + bytes(30_000_000))
        assert path.stat().st_size < 40_000
        handed_out = []
        honest = gzip.GzipFile.read
        monkeypatch.setattr(
            gzip.GzipFile,
            "read",
            lambda self, size=-1: (data := honest(self, size), handed_out.append(len(data)))[0],
        )
        with refused(path, "more data than the 112 bytes"):
            read_idx(path)
        assert sum(handed_out) == 113

    def test_not_gzip(self, tmp_path):
        path = tmp_path / "a.gz"
        path.write_bytes(idx(X_TRAIN))
        with refused(path, "damaged", "gzip"):
            read_idx(path)

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda data: data[:-9], "end-of-stream"),
            (lambda data: data[:-4], "end-of-stream"),
            (lambda data: data[:-8] + bytes(4) + data[-4:], "CRC"),
            (lambda data: data + b"garbage", "gzip"),
        ],
        ids=["cut short", "cut in the trailer", "CRC", "trailing garbage"],
    )
    def test_damaged_gzip(self, tmp_path, damage, reason):
        path = tmp_path / "a.gz"
        path.write_bytes(damage(gzip.compress(idx(X_TRAIN))))
        with refused(path, "damaged or cut short", reason):
            read_idx(path)

    def test_folder_in_place_of_a_file(self, tmp_path):
        with refused(tmp_path, "a folder", "expected a file"):
            read_idx(tmp_path)

    def test_no_such_file(self, tmp_path):
        with refused(tmp_path / "nothing", "cannot be read", "No such file"):
            read_idx(tmp_path / "nothing")

    def test_permission_denied(self, tmp_path, monkeypatch):
        def deny(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        path = write(tmp_path / "a", idx(X_TRAIN))
        monkeypatch.setattr(Path, "open", deny)  # root may read everything
        with refused(path, "cannot be read (Permission denied)"):
            read_idx(path)


class TestFolder:
    def test_loads(self, folder):
        check_small_sets(*cnn.data.load(folder))
        check_small_sets(*cnn.data.load(str(folder)))

    def test_plain_goes_before_gz(self, tmp_path):
        for name, array in zip(NAMES, ARRAYS.values(), strict=True):
            write(tmp_path / name, idx(array))
            (tmp_path / f"{name}.gz").write_bytes(b"never read")
        check_small_sets(*cnn.data.load(tmp_path))

    def test_missing_files_are_listed(self, folder, suffix):
        (folder / (TRAIN_LABELS + suffix)).unlink()
        (folder / (TEST_IMAGES + suffix)).unlink()
        with refused(folder, f"missing {TRAIN_LABELS}, {TEST_IMAGES};", "plain or .gz") as caught:
            cnn.data.load(folder)
        assert TRAIN_IMAGES not in str(caught.value)

    def test_files_that_are_swapped(self, folder, suffix):
        shutil.copy(folder / (TRAIN_IMAGES + suffix), folder / (TRAIN_LABELS + suffix))
        with refused(TRAIN_LABELS, "holds images (magic number 2051)", "labels (2049)"):
            cnn.data.load(folder)

    def test_counts_that_differ(self, folder, suffix):
        write(folder / (TEST_LABELS + suffix), idx(Y_TEST[:3]))
        with refused(TEST_IMAGES, TEST_LABELS, "4 images", "3 labels"):
            cnn.data.load(folder)

    def test_sizes_that_differ(self, folder, suffix):
        write(folder / (TEST_IMAGES + suffix), idx(X_TEST.reshape(4, 4, 3)))
        with refused(TEST_IMAGES, "(1, 4, 3)", TRAIN_IMAGES, "(1, 3, 4)"):
            cnn.data.load(folder)

    @pytest.mark.parametrize(("name", "position"), [(TRAIN_LABELS, 5), (TEST_LABELS, 1)])
    def test_stray_label(self, folder, suffix, name, position):
        labels = (Y_TRAIN if name == TRAIN_LABELS else Y_TEST).copy()
        labels[position] = 77
        write(folder / (name + suffix), idx(labels))
        with refused(name, f"label 77 at position {position} is out of range", "0 to 3"):
            cnn.data.load(folder)

    @pytest.mark.parametrize(("highest", "fits"), [(8, True), (9, False)])
    def test_classes_without_an_image_are_at_most_as_many_as_those_with_one(
        self, folder, suffix, highest, fits
    ):
        labels = np.array([3, 2, 1, highest])  # below it four classes have an image: 0, 1, 2, 3
        write(folder / (TEST_LABELS + suffix), idx(labels))
        if fits:
            assert len(cnn.data.load(folder)[0].classes) == highest + 1
        else:
            with refused(TEST_LABELS, f"label {highest} at position 3", "0 to 3"):
                cnn.data.load(folder)

    def test_labels_from_1(self, folder, suffix):
        write(folder / (TRAIN_LABELS + suffix), idx(Y_TRAIN + 1))
        write(folder / (TEST_LABELS + suffix), idx(Y_TEST + 1))
        train, _ = cnn.data.load(folder)  # as some published sets count; class 0 stays empty
        assert train.classes == ("0", "1", "2", "3", "4")

    def test_folder_in_place_of_a_file(self, folder, suffix):
        (folder / (TEST_LABELS + suffix)).unlink()
        (folder / (TEST_LABELS + suffix)).mkdir()
        with refused(TEST_LABELS + suffix, "a folder", "expected a file"):
            cnn.data.load(folder)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
    def test_a_pipe_is_not_waited_for(self, folder, suffix):
        (folder / (TEST_LABELS + suffix)).unlink()
        os.mkfifo(folder / (TEST_LABELS + suffix))
        with refused(TEST_LABELS + suffix, "expected a file"):
            cnn.data.load(folder)

    def test_folder_that_may_not_be_listed(self, tmp_path, monkeypatch):
        def deny(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "listdir", deny)
        with refused(tmp_path, "cannot be read (Permission denied)"):
            cnn.data.load(tmp_path)


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
            ("x_test", np.full((4, 3, 4), np.nan), "image 0 holds NaN"),
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
            ("classes", np.array([0, 1, 2, 3]), "expected a row of names"),
            ("classes", np.array([["a", "b"]]), "expected a row of names"),
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
        with refused(path, "x_train: 2,000,000,000 bytes promised", "more than the file can hold"):
            cnn.data.load(path)

    def test_a_bomb_is_read_no_further_than_its_header(self, archive, monkeypatch):
        bomb = npy(X_TRAIN) + bytes(20_000_000)
        path = archive(bomb)
        assert path.stat().st_size < 40_000
        wanted = []
        honest = cnn.data.npz.read_up_to
        monkeypatch.setattr(
            cnn.data.npz, "read_up_to", lambda size, *rest: (wanted.append(size), honest(size, *rest))
        )
        with refused("x_train: its header promises 96 bytes", "the file holds 20,000,096"):
            cnn.data.load(path)
        assert wanted == [1 << 14]

    def test_encrypted(self, archive):
        path = archive(npy(X_TRAIN), patch=with_flag_of_encryption)
        with refused(path, "damaged", "encrypted"):
            cnn.data.load(path)


def npy(array, shape=None):
    """A .npy file as bytes; the shape in its header may lie."""
    stream = io.BytesIO()
    np.save(stream, array)
    start, data = stream.getvalue()[:10], stream.getvalue()[10:]
    length = int.from_bytes(start[8:], "little")
    header = data[:length].replace(repr(array.shape).encode(), repr(shape or array.shape).encode())
    return start + header.strip().ljust(length - 1) + b"\n" + data[length:]


def with_flag_of_encryption(data):
    central = data.index(b"PK\1\2")
    return data[:6] + b"\1" + data[7 : central + 8] + b"\1" + data[central + 9 :]


class TestSources:
    @pytest.mark.parametrize("source", ["mnits", "no/such/folder", "a\0b", None, 3])
    def test_unknown(self, source):
        with refused(f"there is no data set {source!r}", "mnist", "folder", ".npz"):
            cnn.data.load(source)

    def test_below_a_file(self, tmp_path):
        path = write(tmp_path / "a", b"")
        with refused("there is no data set", "below"):
            cnn.data.load(str(path / "below"))

    def test_permission_denied(self, tmp_path, monkeypatch):
        def deny(self, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "stat", deny)
        with refused(tmp_path, "cannot be read (Permission denied)"):
            cnn.data.load(tmp_path)

    def test_name_that_is_too_long(self):
        with refused("cannot be read", "too long"):
            cnn.data.load("a" * 5000)


@pytest.fixture(scope="module")
def mnist():
    return cnn.data.load("mnist")


class TestBundled:
    def test_classes_and_counts(self, mnist):
        train, test = mnist
        assert train.classes == test.classes == tuple("0123456789")
        per_class = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(train.labels).tolist() == per_class
        assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert "60,000 images 1x28x28 uint8, 10 classes" in repr(train)
        assert "10,000 images 1x28x28 uint8, 10 classes" in repr(test)

    def test_the_notebooks_part(self, mnist):
        train, test = mnist
        assert len(test.only(classes=(0, 1))) == 2115
        part = train.only(classes=(0, 1), per_class=5000)
        assert np.bincount(part.labels).tolist() == [5000, 5000]
        np.testing.assert_array_equal(part.images[0], train.images[1])  # MNIST begins 5, 0, 4, 1

    def test_same_as_from_its_folder(self, mnist):
        for bundle, files in zip(mnist, cnn.data.load(bundled.MNIST), strict=True):
            assert bundle.classes == files.classes
            np.testing.assert_array_equal(bundle.images, files.images)
            np.testing.assert_array_equal(bundle.labels, files.labels)

    def test_pixels(self, mnist):
        train, test = mnist
        assert zlib.crc32(train.images.tobytes()) != zlib.crc32(test.images.tobytes())
        assert (train.images.min(), train.images.max()) == (0, 255)
        assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the figure everyone subtracts

    @pytest.fixture
    def copy(self, tmp_path, monkeypatch):
        for file in bundled.MNIST.glob("*.gz"):
            shutil.copy(file, tmp_path)
        monkeypatch.setattr(bundled, "MNIST", tmp_path)
        return tmp_path

    def test_a_whole_copy_is_taken(self, copy):
        assert [len(part) for part in cnn.data.load("mnist")] == [60_000, 10_000]

    @pytest.mark.parametrize("name", NAMES)
    def test_well_formed_but_changed(self, copy, name):
        path = copy / f"{name}.gz"
        contents = bytearray(gzip.decompress(path.read_bytes()))
        contents[-1] ^= 1
        path.write_bytes(gzip.compress(contents, compresslevel=1))
        with refused(path, "sha256", "installed package is damaged", "reinstall"):
            cnn.data.load("mnist")

    @pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_LABELS])
    @pytest.mark.parametrize("kept", [None, 1000])
    def test_missing_or_cut_short(self, copy, name, kept):
        path = copy / f"{name}.gz"
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:kept])
        with refused(path, "installed package is damaged", "reinstall"):
            cnn.data.load("mnist")


class TestAnyDamage:
    """Whatever happens to a file, it loads or there is a DataError of one line: no other exception."""

    def refusals(self, path, source, rng, count):
        whole = path.read_bytes()
        cnn.data.load(source)
        sentences = []
        for _ in range(count):
            path.write_bytes(damaged(whole, rng))
            try:
                cnn.data.load(source)
            except DataError as error:
                sentences.append(str(error))
        assert not [sentence for sentence in sentences if "\n" in sentence]
        return len(sentences)

    @pytest.mark.parametrize("name", NAMES)
    def test_idx(self, folder, suffix, name):
        rng = np.random.default_rng(NAMES.index(name))
        assert self.refusals(folder / (name + suffix), folder, rng, 100) > 50

    @pytest.mark.parametrize("compressed", [True, False])
    def test_npz(self, npz, compressed):
        path = npz(compressed, classes=np.array(["a", "b", "c", "d"]))
        assert self.refusals(path, path, np.random.default_rng(int(compressed)), 300) > 150


def damaged(whole, rng):
    """``whole`` with bytes changed, cut off, left out or put in."""
    data = bytearray(whole)
    start = int(rng.integers(len(data)))
    length = int(rng.integers(1, 9))
    match rng.integers(5):
        case 0:
            data[start] ^= 1 << int(rng.integers(8))
        case 1:
            data[start : start + length] = rng.bytes(length)
        case 2:
            data[start:start] = rng.bytes(length)
        case 3:
            del data[start : start + length]
        case 4:
            del data[start:]
    return bytes(data)
