"""Data that are not read are said to be what they are, with what to do; no harmful file is opened."""

import gzip
import io
import zipfile

import numpy as np
import pytest
from helpers.small_files import ARRAYS, NAMES, X_TRAIN, idx, npy, refused

import cnn.data
from cnn.data import recognize


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"contents")
    return stream.getvalue()


PICKLE = "this is a pickle: pickles are never opened, because they can run arbitrary code"
KAGGLE = b"label," + b",".join(b"pixel%d" % number for number in range(784))
FILES = {
    "data.pkl": (b"\x80\x04K\1.", (PICKLE, "numpy.savez")),
    "data.pickle": (b"(dp0\n.", (PICKLE,)),
    "mnist.pkl.gz": (gzip.compress(b"\x80\x02K\1."), ("a pickle (compressed by gzip)", "--data mnist")),
    "cut.pkl.gz": (b"\x1f\x8b\x08\0", ("a pickle (compressed by gzip)",)),
    "data_batch_1": (b"\x80\x02}", (PICKLE, "--data cifar10")),
    "training.pt": (zipped("archive/data.pkl", "archive/data/0"), (PICKLE,)),
    "train.csv": (KAGGLE + b"\n1,0\n", ("CSV", "785 columns ('label', 'pixel0', 'pixel1', 'pixel2', ...)")),
    "train.csv.gz": (gzip.compress(KAGGLE + b"\n"), ("CSV", "785 columns", "gzip")),
    "a.csv": ("Größe;Ä\n1;2\n".encode("latin-1"), ("as in Latin-1", "save it as UTF-8")),
    "b.csv": ("größe\tb\n1\t2\n".encode("utf-16"), ("in UTF-16", "save it as UTF-8")),
    "c.csv": (b"a," * 50_000, ("CSV", " or more columns")),
    "a.parquet": (b"PAR1" + bytes(9), ("a Parquet table", "numpy.savez")),
    "a.arrow": (b"ARROW1\0\0", ("an Arrow table",)),
    "a.h5": (b"\x89HDF\r\n\x1a\n", ("an HDF5 file",)),
    "train_32x32.mat": (b"MATLAB 5.0 MAT-file", ("a MATLAB file",)),
    "a.tfrecord-00000-of-00001": (bytes(range(200)), ("a TFRecord file",)),
    "a.zip": (zipped("train/cat/1.png"), ("a zip archive of 1 file, such as train/cat/1.png: unpack it",)),
    "cut.zip": (zipped("a")[:-9], ("a damaged zip archive",)),
    "a.rar": (b"Rar!\x1a\x07\1\0", ("a RAR archive: unpack it",)),
    "a.7z": (b"7z\xbc\xaf\x27\x1c", ("a 7z archive: unpack it",)),
    "a.npz.xz": (b"\xfd7zXZ\0", ("compressed by xz: unpack it",)),
    "x.npy": (npy(X_TRAIN), ("a single NumPy array", "x_train.npy, y_train.npy, x_test.npy and y_test.npy")),
    "dict.npy": (npy(np.array({}, dtype=object)), (PICKLE, "numpy.savez")),
    "data_batch_2.bin": (b"\7" * 3073, ("one of the six files of CIFAR-10: give the folder",)),
    "labels.xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), ("a spreadsheet",)),
    "nothing.zip": (zipped("a/", "__MACOSX/a"), ("a zip archive without files",)),
    NAMES[0]: (idx(X_TRAIN), ("an IDX file, one of four: give the folder",)),
    f"{NAMES[0]}.gz": (gzip.compress(idx(X_TRAIN)), ("an IDX file, one of four", "give the folder")),
    "7.png": (b"\x89PNG", ("a single picture", "cnn predict")),
    "a.json": (b'{"a": 1}', ("JSON",)),
    "a.txt": (b"one line", ("text: expected a folder of pictures, a table",)),
    "empty": (b"", ("an empty file",)),
    "a.onnx": (b"\x08\x07\x12", ("not a supported format",)),
    "noise": (
        bytes(range(256)),
        ("not a supported format: expected a folder of pictures, a table",),
    ),
    "page.npz": (b"\n<!DOCTYPE html><html>", ("a web page, the download failed",)),
    "pointer.npz": (
        b"version https://git-lfs.github.com/spec/v1\n",
        ("a Git LFS pointer: run `git lfs pull`",),
    ),
}


class TestFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_is_named(self, tmp_path, name):
        contents, parts = FILES[name]
        (tmp_path / name).write_bytes(contents)
        with refused(tmp_path / name, *parts) as caught:
            cnn.data.load(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500

    def test_a_web_page_in_the_place_of_an_idx_file(self, folder, suffix):
        (folder / (NAMES[2] + suffix)).write_bytes(b"<html>Sign in</html>")
        with refused(NAMES[2] + suffix, "a web page"):
            cnn.data.load(folder)

    def test_whatever_a_file_holds(self, tmp_path):
        """Beginnings of all formats, cut, changed and under each other's names, end in one sentence."""
        random = np.random.default_rng(0)
        for _ in range(300):
            name, kind = (list(FILES)[number] for number in random.integers(0, len(FILES), 2))
            contents = bytearray(FILES[kind][0][: random.integers(0, 400)])
            for position in random.integers(0, len(contents), 3 if contents else 0):
                contents[position] = random.integers(256)
            (tmp_path / name).write_bytes(contents)
            with pytest.raises(cnn.DataError) as caught:
                cnn.data.load(tmp_path / name)
            assert "\n" not in str(caught.value)

    def test_little_of_a_bomb_is_unpacked(self, tmp_path, monkeypatch):
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(bytes(50_000_000), 1))
        seen = []
        honest = recognize._plain
        monkeypatch.setattr(
            recognize, "_plain", lambda path, head: (seen.append(len(head)), honest(path, head))[1]
        )
        with refused("compressed by gzip"):
            cnn.data.load(tmp_path / "a.csv.gz")
        assert seen == [1 << 16]


class TestFolders:
    @pytest.fixture
    def lay(self, tmp_path):
        """A function that writes small files below a folder; -> the folder."""

        def write(*names, contents=b"x"):
            for name in names:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(contents)
            return tmp_path

        return write

    def test_pictures_without_classes(self, lay):
        with refused("contains 2 pictures and no class folders: expected a folder of pictures for each"):
            cnn.data.load(lay("1.png", "2.jpeg"))

    def test_pictures_in_parts_without_classes(self, lay):
        names = [f"{part}/{n}.png" for part in ("train", "test") for n in "12"]
        with refused("contains 4 pictures in 2 folders (test: 2, train: 2): expected a folder of pictures"):
            cnn.data.load(lay(*names))

    def test_of_very_many_only_some_are_counted(self, lay, monkeypatch):
        monkeypatch.setattr(recognize, "_MOST_SEEN", 10)
        with refused("contains more than ", " pictures and no class folders"):
            cnn.data.load(lay(*(f"{number}.png" for number in range(30))))

    def test_tables(self, lay):
        with refused(
            "test.csv, a table as text (CSV) with 2 columns ('a', 'b') and train.csv, a table",
            "expected the numbers of an image and a label",
        ):
            cnn.data.load(lay("train.csv", "test.csv", contents=b"a,b\n1,2\n"))

    def test_tables_in_a_folder_below(self, lay):
        with refused("contains data/train-0.parquet, a Parquet table: save images and labels"):
            cnn.data.load(lay("data/train-0.parquet", contents=b"PAR1"))

    def test_many_files(self, lay):
        with refused("contains 3 Parquet tables, such as a.parquet, b.parquet, c.parquet: save images"):
            cnn.data.load(lay("a.parquet", "b.parquet", "c.parquet", "README.md", contents=b"PAR1"))
        with refused("contains 2 files, such as a.bin, b.bin"):
            cnn.data.load(lay("../other/a.bin", "../other/b.bin").parent / "other")
        with refused("contains 3 CSV tables, such as 1.csv, 2.csv, 3.csv: expected the numbers"):
            cnn.data.load(
                lay("../tables/1.csv", "../tables/2.csv", "../tables/3.csv", contents=KAGGLE).parent
                / "tables"
            )

    def test_cifar_in_other_versions(self, lay):
        with refused("the Python version of CIFAR-10: pickles are never opened", "--data cifar10"):
            cnn.data.load(lay("py/data_batch_1", "py/test_batch") / "py")
        packed = gzip.compress(bytes(257) + b"ustar")
        with refused(
            "contains cifar-10-python.tar.gz, the Python version of CIFAR-10 (compressed by gzip): pickles"
        ):
            cnn.data.load(lay("packed/cifar-10-python.tar.gz", contents=packed) / "packed")
        with refused("contains data_batch_1.mat, a MATLAB file and test_batch.mat, a MATLAB file"):
            cnn.data.load(lay("mat/data_batch_1.mat", "mat/test_batch.mat", contents=b"MATLAB 5.0") / "mat")
        with refused("the Python version of CIFAR-100: pickles are never opened"):
            cnn.data.load(
                lay("data/cifar-100-python/meta", *(f"data/cifar-100-python/{n}" for n in ("train", "test")))
                / "data"
            )
        with refused("the binary version of CIFAR-100"):
            cnn.data.load(lay("100/train.bin", "100/fine_label_names.txt") / "100")

    def test_nothing(self, lay, tmp_path):
        with refused("contains no files: expected a folder of pictures, a table"):
            cnn.data.load(tmp_path)
        with refused("contains no files in a/"):
            cnn.data.load(lay("a/.hidden"))


def test_arrays_of_objects_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS | {"y_train": np.array(["cat", None] * 4, dtype=object)})
    with refused("y_train: holds Python objects, which are never unpickled: save plain numbers, or text"):
        cnn.data.load(tmp_path / "a.npz")
