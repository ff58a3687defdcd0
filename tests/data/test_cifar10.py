"""CIFAR-10's binary version, from its archive and its folder; archives that want to do harm."""

import gzip
import hashlib
import tarfile
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.mirror import Mirror, whole
from helpers.small_cifar10 import FILES, FOLDER, archive, contents, member, members, pictures
from helpers.small_files import refused

import cnn.data
from cnn.data.readers import cifar10

FIRST = f"{FOLDER}/{FILES[0]}"


@pytest.fixture
def write(tmp_path):
    """A function that puts an archive of these entries, or these bytes, on the disk."""

    def write(entries):
        path = tmp_path / "cifar-10-binary.tar.gz"
        path.write_bytes(entries if isinstance(entries, bytes) else archive(entries))
        return path

    return write


@pytest.fixture
def unpacked(tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name, data in contents().items():
        (folder / name).write_bytes(data)
    return folder


def check(train, test):
    *batches, last = pictures().values()
    for dataset, chosen in ((train, list(chain(*batches))), (test, last)):
        assert dataset.labels.tolist() == [label for label, _ in chosen]
        np.testing.assert_array_equal(dataset.images, np.array([planes for _, planes in chosen]))
        assert dataset.images.dtype == np.uint8
        assert dataset.classes[:3] == ("airplane", "automobile", "bird")
        assert len(dataset.classes) == 10


class TestFormat:
    def test_from_the_archive(self, write):
        check(*cnn.data.load(write(members())))

    def test_from_an_archive_that_another_program_made(self, tmp_path, unpacked):
        path = tmp_path / "made.tgz"
        with tarfile.open(path, "w:gz") as made:
            made.add(unpacked, FOLDER)
        check(*cnn.data.load(path))

    def test_from_the_folder(self, unpacked):
        check(*cnn.data.load(unpacked))

    def test_colours_are_planes_and_lines_run_from_the_top(self, unpacked):
        image = bytearray(3073)
        image[0] = 7
        image[1 + 0 * 1024 + 0 * 32 + 5] = 11  # red, first line, sixth column
        image[1 + 1 * 1024 + 2 * 32 + 0] = 22  # green, third line
        image[1 + 2 * 1024 + 31 * 32 + 31] = 33  # blue, the last of all
        (unpacked / "test_batch.bin").write_bytes(image)
        _, test = cnn.data.load(unpacked)
        assert test.classes[test.labels[0]] == "horse"
        assert {tuple(map(int, at)) for at in np.argwhere(test.images)} == {
            (0, 0, 0, 5),
            (0, 1, 2, 0),
            (0, 2, 31, 31),
        }
        assert test.images[0, 0, 0, 5] == 11
        assert test.images[0, 1, 2, 0] == 22
        assert test.images[0, 2, 31, 31] == 33


class TestUnfitFiles:
    @pytest.mark.parametrize("size", [0, 3072, 3074, 10_001 * 3073])
    def test_no_whole_number_of_records_or_too_many(self, unpacked, size):
        path = unpacked / FILES[2]
        path.write_bytes(bytes(size))
        with refused(path, f"{size:,} bytes: expected 1 to 10,000 records of 3,073 bytes"):
            cnn.data.load(unpacked)

    def test_the_most_that_a_file_may_hold(self, unpacked):
        (unpacked / FILES[5]).write_bytes(bytes(10_000 * 3073))
        assert len(cnn.data.load(unpacked)[1]) == 10_000

    def test_label_that_is_none(self, unpacked):
        data = bytearray(contents()[FILES[1]])
        data[3073] = 10
        (unpacked / FILES[1]).write_bytes(data)
        with refused(unpacked / FILES[1], "label 10 in record 1: expected 0 to 9"):
            cnn.data.load(unpacked)

    def test_a_file_that_shrinks_while_it_is_read(self, unpacked, monkeypatch):
        (unpacked / FILES[0]).write_bytes(bytes(3073))
        monkeypatch.setattr("os.fstat", lambda handle: SimpleNamespace(st_size=2 * 3073))
        with refused(unpacked / FILES[0], "6,146 bytes promised, 3,073 found: it is incomplete"):
            cnn.data.load(unpacked)

    @pytest.mark.parametrize("name", FILES)
    def test_file_that_is_missing(self, unpacked, name):
        (unpacked / name).unlink()
        with refused(
            f"{unpacked}: lacks {name}: expected the binary version of CIFAR-10, data_batch_1.bin to"
        ):
            cnn.data.load(unpacked)

    def test_a_folder_in_a_files_place(self, unpacked):
        (unpacked / FILES[0]).unlink()
        (unpacked / FILES[0]).mkdir()
        with refused(unpacked / FILES[0], "expected a file"):
            cnn.data.load(unpacked)

    def test_no_archive(self, write):
        with refused("cifar-10-binary.tar.gz", "not a .tar.gz archive, or damaged", "get a complete copy"):
            cnn.data.load(write(b"PK\x03\x04" + bytes(100)))

    def test_another_archive(self, write):
        entry = member("other/data_batch_1.bin", b"\0")
        with refused("lacks data_batch_1.bin, ", "test_batch.bin: expected the binary version of CIFAR-10"):
            cnn.data.load(write([entry]))

    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            (
                "cifar-10-batches-py/data_batch_1",
                ("Python version of CIFAR-10: pickles are never", "cifar10"),
            ),
            ("cifar-10-batches-mat/data_batch_1.mat", ("MATLAB version of CIFAR-10", "--data cifar10")),
            ("cifar-100-python/train", ("Python version of CIFAR-100: pickles are never", "numpy.savez")),
            ("cifar-100-binary/train.bin", ("binary version of CIFAR-100", "numpy.savez")),
        ],
    )
    def test_other_versions_are_named(self, write, name, parts):
        with refused("cifar-10-binary.tar.gz: contains the ", *parts):
            cnn.data.load(write([member(name, b"\x80\x02}q\x01.")]))

    def test_an_archive_that_a_browser_unpacked(self, write):
        path = write(members())
        path.write_bytes(gzip.decompress(path.read_bytes()))
        for name in (path.name, "cifar-10-binary.tar"):
            path = path.rename(path.with_name(name))
            assert [len(part) for part in cnn.data.load(path)] == [11, 10]

    def test_archive_without_one_of_the_files(self, write):
        entries = [entry for entry in members() if "batch_3" not in entry[0].name]
        with refused("lacks data_batch_3.bin: expected"):
            cnn.data.load(write(entries))

    @pytest.mark.parametrize("padding", [0, 3 << 20])
    def test_checksum_of_gzip_that_is_wrong(self, write, padding):
        data = bytearray(gzip.compress(gzip.decompress(archive(members())) + bytes(padding)))
        data[-8] ^= 1
        with refused("damaged (CRC check failed"):
            cnn.data.load(write(bytes(data)))

    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.999])
    def test_archive_that_is_cut_off(self, write, kept):
        data = archive(members())
        with refused("cifar-10-binary.tar.gz", "damaged", "get a complete copy"):
            cnn.data.load(write(data[: int(kept * len(data))]))


class TestHostileArchives:
    """Nothing is written anywhere, nothing but named plain files is read, and memory stays bounded."""

    @pytest.fixture
    def loaded(self, write, tmp_path, monkeypatch):
        """Load an archive of these entries from within a folder where nothing may appear."""
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)

        def loaded(entries):
            path = write(entries)
            before = sorted(tmp_path.rglob("*"))
            try:
                return cnn.data.load(path)
            finally:
                assert sorted(tmp_path.rglob("*")) == before

        return loaded

    def test_names_that_lead_out_are_passed_over(self, loaded, tmp_path):
        names = ["../../out", f"{tmp_path}/out", f"{FOLDER}/../../out", f"../{FIRST}", f"/{FIRST}"]
        check(*loaded([*(member(name, b"harm") for name in names), *members()]))

    @pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
    def test_links_devices_folders_and_pipes_are_no_files(self, loaded, kind, tmp_path):
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(3073))
        entry = member(FIRST, type=kind, linkname=str(secret), devmajor=1, devminor=5)
        with refused(FIRST, "not a regular file"):
            loaded([entry, *members()])

    def test_links_elsewhere_are_passed_over(self, loaded):
        link = member(FOLDER, type=tarfile.SYMTYPE, linkname="/etc")
        check(*loaded([link, *members()]))

    def test_a_file_with_holes_is_none(self, loaded):
        holes = b"".join(b"%011o\0" % number for number in (0, 3073)).ljust(96, b"\0")
        info = member(FIRST, bytes(3073))[0]
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[156:157] = tarfile.GNUTYPE_SPARSE
        header[386 : 386 + 96] = holes
        header[483:495] = b"%011o\0" % (1 << 40)  # the size that it claims to have
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data = gzip.compress(bytes(header) + bytes(3073 + 511) + bytes(1024))
        with refused(FIRST, "not a regular file"):
            loaded(data)

    def test_the_same_name_twice(self, loaded):
        with refused(FIRST, "occurs twice"):
            loaded([member(FIRST, bytes(3073)), *members()])

    @pytest.mark.parametrize("size", [10_001 * 3073, 1 << 40, 8**11 - 1])
    def test_a_size_beyond_the_largest_is_refused_before_it_is_read(self, loaded, size):
        with refused(FIRST, f"{size:,} bytes: expected 1 to 10,000 records"):
            loaded([member(FIRST, bytes(3073), size=size)])

    def test_a_size_beyond_the_archives_end(self, loaded):
        with refused("cifar-10-binary.tar.gz", "damaged (unexpected end of data)"):
            loaded([member(FIRST, bytes(3073), size=10_000 * 3073)])

    @pytest.mark.parametrize("name", [FIRST, "other"])
    def test_a_negative_size_does_not_go_round_in_circles(self, loaded, name):
        with refused("cifar-10-binary.tar.gz"):
            loaded([member(name, bytes(3073), size=-3 * 512), *members()])

    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
    def test_a_bomb_is_given_up_at_the_size_of_cifar10(self, loaded, kind):
        header = member("bomb", type=kind, size=1 << 40)[0].tobuf(tarfile.GNU_FORMAT)
        bomb = gzip.compress(header) + 186 * gzip.compress(bytes(1 << 20))
        with refused("unpacks to more than the 185,428,576 bytes of CIFAR-10"):
            loaded(bomb)


class TestByName:
    @pytest.fixture
    def mirror(self):
        with Mirror() as mirror:
            yield mirror

    @pytest.fixture
    def published(self, monkeypatch, tmp_path, mirror):
        """The small archive in the place of the published one."""
        data = archive(members())
        file = cifar10.PublishedFile("small.tar.gz", len(data), hashlib.sha256(data).hexdigest())
        mirror.answers[file.name] = whole(data)
        monkeypatch.setattr(cifar10, "CIFAR10", cifar10.Published("cifar10", (file,), (mirror.url,)))
        monkeypatch.setenv("CNN_DATA", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        return tmp_path / "cache" / "cifar10" / file.name

    def test_downloaded_once(self, published, mirror):
        for _ in range(2):
            check(*cnn.data.load("cifar10"))
        assert mirror.requests == [published.name]

    def test_train_takes_the_name_even_where_a_folder_is_called_so(self, published, command, tmp_path):
        (tmp_path / "cifar10").mkdir()
        device = ("--device", "cpu", "--kernels", "portable")
        flags = ("--data", "cifar10", "--epochs", 1, "--out", "run", "--no-report")
        code, _, err = command("train", *flags, *device)
        assert code == 0, err
        assert "lenet5 on 11 images of cifar10; batches of 8; cpu" in err
        code, out, err = command("evaluate", "run", *device)
        assert (code, err) == (0, "")
        assert "on 10 images" in out

    def test_the_command_says_in_one_sentence_why_not(self, published, command, mirror):
        mirror.answers.clear()
        code, out, err = command("train", "--data", "cifar10", "--device", "cpu")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: cifar10: {published} is missing and cannot be downloaded (")
        assert f"({mirror.url}small.tar.gz: HTTP Error 404: Not Found): download small.tar.gz manually" in err
