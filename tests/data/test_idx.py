"""IDX files, plain and gzipped, alone and as a folder of four."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.small_files import (
    ARRAYS,
    NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    X_TEST,
    X_TRAIN,
    Y_TEST,
    Y_TRAIN,
    check_small_sets,
    idx,
    refused,
    write,
)

import cnn.data
from cnn.data import read_idx


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

    @pytest.mark.parametrize(("magic", "kind"), [(0x0C02, "32-bit integers"), (0x0D03, "floats")])
    def test_idx_of_another_type(self, tmp_path, magic, kind):
        path = write(tmp_path / "a", idx(X_TRAIN, magic=magic))
        with refused(path, f"an IDX file of {kind}, expected one of unsigned bytes: save images"):
            cnn.data.read_idx(path)

    @pytest.mark.parametrize("magic", [0x0800, 0x0805, 0x08FF, 0x0A03, 0x01000803, 0x89504E47])
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
        with refused(path, "(0, 4294967295, 4294967295)", "sizes of at least 1"):
            read_idx(path)

    def test_a_boast_is_refused_before_anything_is_read_for_it(self, tmp_path, suffix, monkeypatch):
        path = write(tmp_path / f"a{suffix}", idx(X_TRAIN, shape=(2**32 - 1, 28, 28)))
        wanted = []
        honest = cnn.data.readers.idx.read_up_to
        monkeypatch.setattr(
            cnn.data.readers.idx, "read_up_to", lambda size, *rest: (wanted.append(size), honest(size, *rest))
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

    def test_the_contents_tell_whether_it_is_compressed(self, tmp_path):
        plain, packed = tmp_path / "a.gz", tmp_path / "a"
        plain.write_bytes(idx(X_TRAIN))  # as browsers leave it, which unpack but keep the name
        packed.write_bytes(gzip.compress(idx(X_TRAIN)))
        np.testing.assert_array_equal(read_idx(plain), X_TRAIN)
        np.testing.assert_array_equal(read_idx(packed), X_TRAIN)

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
        with refused(path, "damaged or incomplete", reason):
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

        monkeypatch.setattr(os, "scandir", deny)
        with refused(tmp_path, "cannot be read (Permission denied)"):
            cnn.data.load(tmp_path)
