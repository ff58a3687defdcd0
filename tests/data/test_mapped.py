"""Images in a file that is mapped into memory: what is read of it, and what a Dataset makes of it."""

import mmap

import numpy as np
import pytest
from helpers.small_files import refused

import cnn
from cnn.data import Dataset
from cnn.data.readers import mapped
from cnn.data.readers.mapped import ReadAhead, mapping

COUNT, SHAPE = 600, (1, 28, 28)
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
LABELS = np.arange(COUNT) * 3 // COUNT  # one class after the other


@pytest.fixture
def in_file(tmp_path):
    """The images in a file."""
    np.save(tmp_path / "x.npy", IMAGES)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


class TestMapping:
    def test_a_view_of_a_mapped_array_lies_in_its_file(self, in_file):
        assert isinstance(mapping(in_file), mmap.mmap)
        assert mapping(np.asarray(in_file)[5:, :, None]) is mapping(in_file)

    def test_a_copy_does_not(self, in_file):
        assert mapping(in_file.copy()) is mapping(np.array(in_file)) is mapping(IMAGES) is None


class TestDataset:
    def test_shares_the_file(self, in_file):
        data = Dataset(in_file, LABELS)
        assert mapping(data.images) is mapping(in_file)
        assert mapping(Dataset(in_file[:, 0], LABELS).images) is mapping(in_file)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("position", [0, 333, COUNT - 1])
    def test_names_the_image_that_is_not_finite(self, bad, position, monkeypatch):
        monkeypatch.setattr("cnn.data.checked._LOOKED_AT", 100 * 28 * 28 + 1)
        images = IMAGES.astype(np.float32)
        images[position, 0, 3, 4] = bad
        images[position:, 0, 9, 9] = np.nan
        with refused(f"images: image {position} contains NaN or infinity"):
            Dataset(images, LABELS)

    def test_images_side_by_side_are_chosen_without_a_copy(self, in_file):
        chosen = Dataset(in_file, LABELS, ("a", "b", "c")).only(["b"], per_class=50)
        assert mapping(chosen.images) is mapping(in_file)
        np.testing.assert_array_equal(chosen.images, IMAGES[200:250])
        assert (chosen.labels.tolist(), chosen.classes) == ([0] * 50, ("b",))

    def test_others_are_copied(self, in_file):
        chosen = Dataset(in_file, LABELS).only([2, 0], per_class=5)
        assert mapping(chosen.images) is None
        np.testing.assert_array_equal(chosen.images, IMAGES[[*range(5), *range(400, 405)]])
        assert chosen.labels.tolist() == [1] * 5 + [0] * 5

    def test_no_room_for_the_copy_is_told(self, in_file, monkeypatch):
        class Full(np.ndarray):
            def __getitem__(self, key):
                if isinstance(key, np.ndarray):
                    raise MemoryError
                return super().__getitem__(key)

        data = Dataset(in_file, LABELS)
        data.images = in_file.view(Full)
        with pytest.raises(cnn.OutOfMemory, match=r"out of memory: 448\.7 KB .* give the parts as slices"):
            data.split(14)


class File:
    """A mapped file that keeps the advice that it is given."""

    def __init__(self, size):
        self.advice, self._size = [], size

    def __len__(self):
        return self._size

    def madvise(self, *advice):
        self.advice.append(advice)


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="files are read as the system likes")
class TestReadAhead:
    @pytest.fixture
    def read(self, monkeypatch):
        """read(n): this process has read n bytes since it began."""
        now = [1000]
        monkeypatch.setattr(mapped, "bytes_read", lambda: now[0])
        return lambda more: now.__setitem__(0, now[0] + more)

    @pytest.fixture
    def ahead(self, in_file, read):
        """A data set of the images in the file."""
        ahead = ReadAhead(in_file)
        ahead._file = File(len(ahead._file))
        return ahead

    def test_says_nothing_while_the_file_may_stay_in_memory(self, ahead, read):
        with ahead.epoch():
            read(len(ahead._file))
            ahead.expect([3])
        assert ahead._file.advice == [(mmap.MADV_NORMAL,)]

    @pytest.mark.parametrize("chosen", [[3], [5, 2, 500, 3, 4], range(100, 228), [COUNT - 1, 0]])
    def test_afterwards_exactly_the_pages_of_the_images_are_wanted(self, ahead, read, chosen):
        with ahead.epoch():
            read(len(ahead._file) + 1)
            ahead.expect(np.array(chosen))
        random, *wanted, normal = ahead._file.advice
        assert (random, normal) == ((mmap.MADV_RANDOM,), (mmap.MADV_NORMAL,))
        told = [
            page
            for advice, start, size in wanted
            for page in range(start // mmap.PAGESIZE, -(-(start + size) // mmap.PAGESIZE))
        ]
        header, image = 128, 784
        needed = {
            (header + number * image + byte) // mmap.PAGESIZE for number in chosen for byte in range(784)
        }
        assert {advice for advice, _, _ in wanted} == {mmap.MADV_WILLNEED}
        assert all(start % mmap.PAGESIZE == 0 for _, start, _ in wanted)
        assert sorted(told) == sorted(needed)  # none twice

    def test_images_side_by_side_are_wanted_at_once(self, ahead, read):
        with ahead.epoch():
            read(len(ahead._file) + 1)
            ahead.expect(np.arange(COUNT))
        assert ahead._file.advice[1:-1] == [(mmap.MADV_WILLNEED, 0, len(ahead._file))]

    def test_what_lies_in_memory_is_not_asked_for(self, ahead, read):
        with ahead.epoch():
            read(len(ahead._file) + 1)
            ahead.expect([3])
            told = len(ahead._file.advice)
            ahead.expect([500])
            assert len(ahead._file.advice) == told
            read(1)
            ahead.expect([500])
            assert len(ahead._file.advice) > told

    def test_the_next_epoch_knows(self, ahead, read):
        with ahead.epoch():
            read(len(ahead._file) + 1)
            ahead.expect([3])
        with ahead.epoch():
            assert ahead._file.advice[-1] == (mmap.MADV_RANDOM,)
        assert ahead._file.advice[-1] == (mmap.MADV_NORMAL,)

    def test_after_the_last_batch_nothing_is_asked_for(self, ahead, read):
        with ahead.epoch():
            read(len(ahead._file) + 1)
            ahead.expect([])
        assert ahead._file.advice == [(mmap.MADV_RANDOM,), (mmap.MADV_NORMAL,)]

    def test_a_real_file_takes_the_advice(self, in_file, read):
        ahead = ReadAhead(in_file)
        with ahead.epoch():
            read(in_file.nbytes + 4096)
            ahead.expect([COUNT - 1, 3])
        np.testing.assert_array_equal(in_file, IMAGES)

    def test_images_in_memory_are_left_alone(self, read):
        ahead = ReadAhead(IMAGES)
        with ahead.epoch():
            ahead.expect([3])
