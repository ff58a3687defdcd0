"""Where data sets come from: the bundled one, paths that lead nowhere, files damaged in any way."""

import gzip
import shutil
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.small_cifar10 import archive, members
from helpers.small_files import (
    NAMES,
    TEST_LABELS,
    TRAIN_IMAGES,
    refused,
    write,
)

import cnn.data
from cnn.data.published import bundled
from cnn.support.errors import DataError


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

    def refusals(self, path, source, rng, count, unpack=bytes, pack=bytes):
        whole = unpack(path.read_bytes())
        cnn.data.load(source)
        sentences = []
        for _ in range(count):
            path.write_bytes(pack(damaged(whole, rng)))
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

    def test_archive(self, archived):
        assert self.refusals(archived, archived, np.random.default_rng(0), 100) > 90

    def test_inside_an_archive(self, archived):
        functions = gzip.decompress, partial(gzip.compress, compresslevel=1)
        assert self.refusals(archived, archived, np.random.default_rng(0), 300, *functions) > 100

    @pytest.fixture
    def archived(self, tmp_path):
        path = tmp_path / "own.tar.gz"
        path.write_bytes(archive(members()))
        return path


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
