import re

import numpy as np
import pytest

from cnn.data import Dataset
from cnn.support.errors import DataError


def images(count=6, shape=(2, 3), dtype="uint8"):
    return np.arange(count * np.prod(shape)).reshape(count, *shape).astype(dtype)


def refused(*parts):
    return pytest.raises(DataError, match=".*".join(map(re.escape, parts)))


@pytest.fixture
def animals():
    """Twelve images in four classes, one of them without an image; every pixel of image i is i."""
    pixels = np.repeat(np.arange(12), 6).reshape(12, 2, 3)
    return Dataset(pixels, [2, 0, 1, 1, 0, 2, 2, 0, 0, 1, 2, 0], classes=["ant", "bee", "cat", "dog"])


def picked(dataset):
    """Which images of ``animals`` these are."""
    return dataset.images[:, 0, 0, 0].tolist()


class TestMaking:
    def test_images_get_a_channel_axis(self):
        dataset = Dataset(images(), [0, 1, 2, 0, 1, 2])
        assert dataset.images.shape == (6, 1, 2, 3)
        assert dataset.shape == (1, 2, 3)
        assert len(dataset) == 6
        np.testing.assert_array_equal(dataset.images[:, 0], images())

    def test_channels_are_kept(self):
        assert Dataset(images(shape=(3, 4, 5)), [0] * 6).shape == (3, 4, 5)

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("uint8", "uint8"),
            ("int8", "uint8"),
            ("int64", "uint8"),
            (">u2", "uint8"),
            ("float16", "float32"),
            ("float32", "float32"),
            (">f4", "float32"),
            ("float64", "float64"),
            ("longdouble", "float32" if np.dtype("longdouble").itemsize > 8 else "float64"),
        ],
    )
    def test_dtype_of_the_images(self, given, kept):
        dataset = Dataset(images(dtype=given), [0] * 6)
        assert dataset.images.dtype == kept
        assert dataset.images.dtype.isnative
        np.testing.assert_array_equal(dataset.images[:, 0], images())

    @pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
    def test_images_that_fit_are_not_copied(self, dtype):
        own = images(dtype=dtype)
        assert np.shares_memory(Dataset(own, [0] * 6).images, own)

    def test_images_become_contiguous(self):
        own = images(count=12)[::2].transpose(0, 2, 1)
        dataset = Dataset(own, [0] * 6)
        assert dataset.images.flags.c_contiguous
        np.testing.assert_array_equal(dataset.images[:, 0], own)
        columns = np.asfortranarray(images())
        np.testing.assert_array_equal(Dataset(columns, [0] * 6).images[:, 0], images())

    def test_unaligned_images_become_aligned(self):
        own = np.zeros(6 * 24 + 1, np.uint8)[1:].view(np.float32).reshape(6, 2, 3)
        assert not own.flags.aligned
        assert Dataset(own, [0] * 6).images.flags.aligned

    def test_what_was_passed_may_be_read_only(self):
        own, labels = images(dtype="float32"), np.array([0, 1, 0, 1, 0, 1])
        own.flags.writeable = labels.flags.writeable = False
        dataset = Dataset(own, labels).only(classes=(1, 0), per_class=2)
        np.testing.assert_array_equal(dataset.images[:, 0], own[:4])
        assert dataset.labels.tolist() == [1, 0, 1, 0]
        assert labels.tolist() == [0, 1, 0, 1, 0, 1]

    @pytest.mark.parametrize("dtype", ["int64", "uint8", "int16", "uint64", "float32", ">i4"])
    def test_labels_are_int64(self, dtype):
        dataset = Dataset(images(), np.array([0, 1, 2, 0, 1, 4], dtype=dtype))
        assert dataset.labels.dtype == np.int64
        assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 4]
        assert dataset.classes == ("0", "1", "2", "3", "4")

    @pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
    def test_one_hot_rows(self, dtype):
        dataset = Dataset(images(), np.eye(5, dtype=dtype)[[3, 0, 1, 1, 2, 3]])
        assert dataset.labels.tolist() == [3, 0, 1, 1, 2, 3]
        assert dataset.labels.dtype == np.int64
        assert dataset.classes == ("0", "1", "2", "3", "4")  # as wide as the rows, not as the labels go

    def test_classes_by_count_and_by_name(self):
        assert Dataset(images(), [0] * 6, classes=3).classes == ("0", "1", "2")
        assert Dataset(images(), [0] * 6, classes=np.int64(2)).classes == ("0", "1")
        assert Dataset(images(), [0] * 6, classes=["no", np.str_("yes")]).classes == ("no", "yes")
        assert type(Dataset(images(), [0] * 6, classes=np.array(["no", "yes"])).classes[0]) is str

    def test_repr_says_what_is_in_it(self):
        many = Dataset(np.zeros((60_000, 1, 1), np.uint8), np.arange(60_000) % 10)
        assert "60,000 images 1x1x1 uint8, 10 classes" in repr(many)
        assert "1 image 1x2x3 float32, 1 class)" in repr(Dataset(images(1, dtype="float32"), [0]))


class TestRefusedImages:
    @pytest.mark.parametrize("empty", [[], np.zeros((0, 2, 3), np.uint8)])
    def test_empty_set(self, empty):
        with refused("images", "empty", "at least one"):
            Dataset(empty, [])

    @pytest.mark.parametrize("shape", [(), (6,), (6, 3), (6, 1, 1, 2, 3), (6, 0, 3)])
    def test_number_of_axes(self, shape):
        with refused(f"images: shape {shape}", "(N, H, W) or (N, C, H, W)"):
            Dataset(np.zeros(shape, np.uint8), [0] * 6)

    @pytest.mark.parametrize("dtype", ["bool", "complex64", "object", "U1", "M8[s]"])
    def test_dtype(self, dtype):
        with refused(f"images: dtype {np.dtype(dtype)}", "uint8 or float"):
            Dataset(np.zeros((6, 2, 3), dtype), [0] * 6)

    @pytest.mark.parametrize("value", [-1, 256])
    def test_integers_beyond_a_byte(self, value):
        own = images(dtype="int32")
        own[2, 1, 1] = value
        with refused("images: int32 values from", str(value), "0 to 255"):
            Dataset(own, [0] * 6)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value, dtype):
        own = images(dtype=dtype)
        own[4, 1, 1] = value
        with refused("images: image 4", "NaN or infinity"):
            Dataset(own, [0] * 6)

    def test_largest_floats_are_finite(self):
        huge = np.full((1, 2, 3), np.finfo(np.float32).max)
        assert Dataset(huge, [0]).images.max() == np.finfo(np.float32).max

    def test_ragged(self):
        with refused("images", "cannot be converted to a NumPy array"):
            Dataset([[[1, 2]], [[1]]], [0, 0])

    def test_array_of_another_device(self):
        class OnDevice:
            def __array__(self, dtype=None, copy=None):
                raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        with refused("images", "Implicit conversion"):
            Dataset(OnDevice(), [0])


class TestRefusedLabels:
    def test_counts_differ(self):
        with refused("6 images", "5 labels", "one label for each"):
            Dataset(images(), [0] * 5)

    @pytest.mark.parametrize("shape", [(), (6, 2, 1)])
    def test_number_of_axes(self, shape):
        with refused(f"labels: shape {shape}", "(N,)", "(N, K)"):
            Dataset(images(), np.zeros(shape, int))

    def test_column_of_labels(self):
        with refused("labels: shape (6, 1)", "flatten"):
            Dataset(images(), np.ones((6, 1), int))

    @pytest.mark.parametrize("dtype", ["bool", "object", "complex64"])
    def test_dtype(self, dtype):
        with refused("labels: dtype", "expected integers"):
            Dataset(images(), np.zeros(6, dtype))

    def test_negative(self):
        with refused("labels: label -1 at position 3 is out of range", "expected 0 to"):
            Dataset(images(), [0, 1, 2, -1, 0, -2])

    @pytest.mark.parametrize("value", [10, 77, 10**18])
    def test_too_large_for_the_classes(self, value):
        with refused(f"label {value} at position 1 is out of range", "expected 0 to 9", "10 classes"):
            Dataset(images(), [9, value, 2, 1, 0, 99], classes=10)

    def test_too_few_names(self):
        with refused("label 2 at position 5", "expected 0 to 1", "2 classes given"):
            Dataset(images(), [0, 1, 0, 1, 0, 2], classes=["no", "yes"])

    @pytest.mark.parametrize("value", [10**12, 1e300, np.inf])
    def test_absurdly_large(self, value):
        with refused(f"label {np.asarray(value)[()]}", "position 0", "expected 0 to 65535"):
            Dataset(images(), [value, 0, 1, 2, 3, 4])

    @pytest.mark.parametrize("value", [0.5, np.nan])
    def test_not_whole(self, value):
        with refused(f"labels: {value} at position 2", "whole number"):
            Dataset(images(), [0, 1, value, 0, 1, 2.5])

    @pytest.mark.parametrize("row", [[0, 2, 0], [1, np.nan, 0], [1, -1, 1], [np.inf, 0, 0]])
    def test_rows_beyond_0_and_1(self, row):
        rows = np.eye(3)[[0, 1, 2, 0, 1, 2]]
        rows[4] = row
        with refused("labels: row 4 has numbers that are not from 0 to 1", "a single 1", "as targets"):
            Dataset(images(), rows)

    def test_one_hot_of_text(self):
        with refused("labels: dtype <U1"):
            Dataset(images(), np.full((6, 2), "1"))

    @pytest.mark.parametrize("classes", [2, 4, ["no", "yes"]])
    def test_one_hot_of_another_width(self, classes):
        with refused("one-hot rows of 3 columns", "classes are given"):
            Dataset(images(), np.eye(3)[[0, 1, 2, 0, 1, 2]], classes=classes)


class TestRefusedClasses:
    @pytest.mark.parametrize("count", [0, -1, 10**12])
    def test_count(self, count):
        with refused("classes", str(count), "expected 1 to"):
            Dataset(images(), [0] * 6, classes=count)

    @pytest.mark.parametrize("classes", ["ab", 2.0, True])
    def test_neither_count_nor_names(self, classes):
        with refused("classes", repr(classes), "neither a count nor a list of names"):
            Dataset(images(), [0] * 6, classes=classes)

    def test_names_that_are_not_unique(self):
        with refused("classes", "'b' occurs more than once", "unique"):
            Dataset(images(), [0] * 6, classes=["a", "b", "b"])

    @pytest.mark.parametrize("name", [3, None, b"a", "", "two\nlines", "\ud800", "a\u202eb", "\u200d"])
    def test_names_that_are_no_text(self, name):
        with refused("classes", f"{name!r} at position 1", "printable text"):
            Dataset(images(), [0] * 6, classes=["a", name])

    def test_names_with_joiners_and_wide_spaces(self):
        names = ("می\u200cخواهم", "👨\u200d👩\u200d👧", "日本\u3000語", "caf\u00e9\u00a0noir")  # noqa: RUF001
        assert Dataset(images(), [0, 1, 2, 3, 0, 1], classes=names).classes == names

    def test_no_names(self):
        with refused("classes", "no names"):
            Dataset(images(), [0] * 6, classes=[])


class TestOnly:
    def test_first_of_each_class_in_the_sets_order(self, animals):
        few = animals.only(classes=(0, 1), per_class=2)
        assert picked(few) == [1, 2, 3, 4]
        assert few.labels.tolist() == [0, 1, 1, 0]
        assert few.classes == ("ant", "bee")

    def test_labels_follow_the_order_of_naming(self, animals):
        few = animals.only(classes=(2, 0), per_class=1)
        assert picked(few) == [0, 1]
        assert few.labels.tolist() == [0, 1]
        assert few.classes == ("cat", "ant")

    def test_by_name(self, animals):
        few = animals.only(classes=["bee", 0])
        assert picked(few) == [1, 2, 3, 4, 7, 8, 9, 11]
        assert few.labels.tolist() == [1, 0, 0, 1, 1, 1, 0, 1]

    def test_text_is_a_name_and_a_number_a_label(self):
        dataset = Dataset(images(3), [0, 1, 2], classes=["2", "1", "0"])
        assert dataset.only(classes=["2"]).images[0, 0, 0, 0] == 0
        assert dataset.only(classes=[np.int64(2)]).images[0, 0, 0, 0] == 12

    def test_all_that_there_are_where_there_are_fewer(self, animals):
        assert picked(animals.only(classes=[1], per_class=100)) == [2, 3, 9]

    def test_all_classes(self, animals):
        few = animals.only(per_class=1)
        assert picked(few) == [0, 1, 2]
        assert few.labels.tolist() == [2, 0, 1]
        assert few.classes == animals.classes  # the one without an image too

    def test_everything_is_not_copied(self, animals):
        same = animals.only()
        assert np.shares_memory(same.images, animals.images)
        assert same.labels.tolist() == animals.labels.tolist()

    @pytest.mark.parametrize("unknown", ["cow", 4, -1, True, 1.0, None])
    def test_unknown_class(self, animals, unknown):
        with refused(f"unknown class {unknown!r}", "'ant', 'bee', 'cat', 'dog'"):
            animals.only(classes=[0, unknown])

    def test_a_long_list_of_classes_is_cut_short(self):
        dataset = Dataset(images(), [0] * 6, classes=1000)
        with refused("unknown class 1000", "'0', '1'", "'19' and 980 more"):
            dataset.only(classes=[1000])

    @pytest.mark.parametrize("classes", [(1, 0, 1), (1, "bee")])
    def test_repeated_class(self, animals, classes):
        with refused("'bee' is chosen twice"):
            animals.only(classes=classes)

    @pytest.mark.parametrize("per_class", [0, -5, 2.5, "3", True])
    def test_per_class(self, animals, per_class):
        with refused(f"per_class is {per_class!r}", "of at least 1"):
            animals.only(classes=(0, 1), per_class=per_class)

    def test_class_without_an_image(self, animals):
        with refused("'dog' has no image"):
            animals.only(classes=(0, "dog"))

    @pytest.mark.parametrize("classes", ["ant", 3])
    def test_a_class_by_itself(self, animals, classes):
        with refused(f"classes is {classes!r}", "such as (0, 1)"):
            animals.only(classes=classes)

    def test_no_class(self, animals):
        with refused("no class is chosen"):
            animals.only(classes=())


class TestSplit:
    @pytest.mark.parametrize(("part", "count"), [(3, 3), (0.25, 3), (np.int64(11), 11), (np.float32(0.5), 6)])
    def test_parts_make_up_the_set(self, animals, part, count):
        rest, held_out = animals.split(part)
        assert (len(rest), len(held_out)) == (12 - count, count)
        assert sorted(picked(rest) + picked(held_out)) == list(range(12))
        for piece in (rest, held_out):
            assert picked(piece) == sorted(picked(piece))
            assert piece.labels.tolist() == animals.labels[picked(piece)].tolist()
            assert piece.classes == animals.classes

    def test_the_seed_decides(self, animals):
        first, again, other = (picked(animals.split(6, seed=seed)[1]) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_draws_from_its_own_documented_stream(self, animals):
        expected = np.random.default_rng([7, 2]).permutation(12)[:4]
        assert picked(animals.split(4, seed=7)[1]) == sorted(expected.tolist())

    @pytest.mark.parametrize("part", [0, 12, -1, 0.0, 1.0, 1.5, 0.01, 0.99, float("nan"), "3", True, None])
    def test_parts_that_are_none(self, animals, part):
        with refused(f"cannot hold out {part!r} of 12 images", "1 to 11", "fraction"):
            animals.split(part)

    @pytest.mark.parametrize("seed", [-1, 0.5, None])
    def test_seed(self, animals, seed):
        with refused(f"seed is {seed!r}", "of at least 0"):
            animals.split(3, seed=seed)
