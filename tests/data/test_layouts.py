"""Arrays in files, laid out as people have them: read and said if they have only one meaning, or refused."""

import unicodedata

import numpy as np
import pytest
from helpers.small_files import X_TEST, X_TRAIN, Y_TEST, Y_TRAIN, check_small_sets, refused

import backends
import cnn.data
from cnn.data import Dataset


def pictures(count, shape=(6, 7)):
    """Pictures that differ, large enough to be told from channels."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def layout(npz, arrange):
    """The sets from a .npz whose images are arranged so, and what they were before."""
    x_train, x_test = pictures(8), pictures(4)
    return cnn.data.load(npz(x_train=arrange(x_train), x_test=arrange(x_test))), (x_train, x_test)


def labelled(npz, arrange, **more):
    """The sets from a .npz whose labels are arranged so."""
    return cnn.data.load(npz(y_train=arrange(Y_TRAIN), y_test=arrange(Y_TEST), **more))


class TestImages:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_channels_last(self, npz, channels):
        (train, test), given = layout(npz, lambda x: np.stack([x // (1 + c) for c in range(channels)], -1))
        for part, images in zip((train, test), given, strict=True):
            assert part.images.shape == (len(images), channels, 6, 7)
            assert part.images.flags.c_contiguous
            for channel in range(channels):
                np.testing.assert_array_equal(part.images[:, channel], images // (1 + channel))
            assert part.notes == (f"channels last, taken as (8, {channels}, 6, 7)",)

    def test_of_one_part_alone(self, npz):
        train, test = cnn.data.load(npz(x_train=pictures(8)[..., None], x_test=pictures(4)))
        assert train.shape == test.shape == (1, 6, 7)
        assert train.notes == test.notes == ("channels last, taken as (8, 1, 6, 7)",)

    @pytest.mark.parametrize("shape", [(1, 6, 7), (3, 6, 7), (3, 32, 3), (2, 9, 1), (16, 4, 4), (6, 7, 8)])
    def test_what_may_be_channels_first_is_taken_as_documented(self, npz, shape):
        train, _ = cnn.data.load(npz(x_train=pictures(8, shape), x_test=pictures(4, shape)))
        assert train.shape == shape
        assert train.notes == (("taken as {} channels of {}x{}".format(*shape),) if shape[0] > 4 else ())

    def test_rows_of_pixels_of_a_square(self, npz):
        x_train, x_test = pictures(8, (9, 9)), pictures(4, (9, 9))
        train, test = cnn.data.load(npz(x_train=x_train.reshape(8, -1), x_test=x_test.reshape(4, -1)))
        np.testing.assert_array_equal(train.images[:, 0], x_train)
        np.testing.assert_array_equal(test.images[:, 0], x_test)
        assert train.notes == ("rows of 81 pixels, taken as 9x9",)

    def test_rows_of_colours_have_more_than_one_meaning(self, npz):
        with refused("x_train: shape (8, 3072)", "reshape(-1, 3, 32, 32)", "transpose(0, 3, 1, 2)"):
            cnn.data.load(npz(x_train=np.zeros((8, 3072), np.uint8)))

    @pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
    def test_counted_by_the_last_axis(self, npz, shape):
        images = np.moveaxis(pictures(8, shape), 0, -1)
        with refused("6 images but 8 labels"):
            cnn.data.load(npz(x_train=images))
        counted = f"the last axis of {images.shape} seems to count the images"
        with refused("6 images but 8 labels", counted):
            Dataset(images, Y_TRAIN)
        with refused("6 images but 8 labels", counted):  # as SVHN's arrays are
            cnn.data.load(npz(x_train=images, y_train=Y_TRAIN[:, None]))

    def test_swapped(self, npz):
        with refused("x_train: shape (8,), but", "y_train: (8, 3, 4)", "swapped"):
            cnn.data.load(npz(x_train=Y_TRAIN, y_train=X_TRAIN))

    def test_12_bits(self, npz):
        with refused("uint16 values from 0 to 4080: expected 0 to 255", "such as images / 4095"):
            cnn.data.load(npz(x_train=(pictures(8) // 255).astype(np.uint16) * 4080))


class TestLabels:
    @pytest.mark.parametrize("shape", [(-1, 1), (1, -1), (-1, 1, 1)])
    def test_a_column_or_a_row(self, npz, shape):
        train, test = labelled(npz, lambda y: y.reshape(shape))
        check_small_sets(train, test)
        assert train.notes == (f"labels {Y_TRAIN.reshape(shape).shape} taken as (8,)",)

    @pytest.mark.parametrize("dtype", ["U", "S"])
    def test_text(self, npz, dtype):
        names = np.array(["owl", "cat", "dog", "ape"]).astype(dtype)
        train, test = labelled(npz, lambda y: names[y])
        assert train.classes == test.classes == ("ape", "cat", "dog", "owl")
        assert [train.classes[label] for label in train.labels[:3]] == ["owl", "cat", "dog"]
        assert [test.classes[label] for label in test.labels] == ["ape", "dog", "cat", "owl"]
        assert train.notes == ("labels are names: 'ape', 'cat', 'dog', 'owl'",)

    def test_text_follows_the_names_that_are_given(self, npz):
        names = np.array(["owl", "cat", "dog", "ape"])
        train, test = labelled(npz, lambda y: names[y], classes=names)
        assert train.classes == tuple(names)
        assert (train.labels.tolist(), test.labels.tolist()) == (Y_TRAIN.tolist(), Y_TEST.tolist())
        with refused("y_train: label 'owl' is not one of the given classes", "'cat', 'dog', 'ape'"):
            labelled(npz, lambda y: names[y], classes=names[1:])

    @pytest.mark.parametrize("dtype", [int, float])
    def test_numbers_as_text_are_in_the_order_of_numbers(self, npz, dtype):
        y_train, y_test = np.arange(12).astype(dtype).astype(str), Y_TEST.astype(str)
        train, _ = cnn.data.load(npz(x_train=pictures(12, (3, 4)), y_train=y_train, y_test=y_test))
        assert train.labels.tolist() == list(range(12))
        assert train.classes == tuple(map(str, range(12)))
        assert train.notes == ("labels are numbers written as text",)

    def test_numbers_as_text_that_name_classes_follow_the_names(self, npz):
        names = np.array(["3", "1", "2", "0"])
        train, test = labelled(npz, lambda y: names[y], classes=names)
        assert train.classes == test.classes == tuple(names)
        assert (train.labels.tolist(), test.labels.tolist()) == (Y_TRAIN.tolist(), Y_TEST.tolist())

    def test_a_missing_name(self, npz):
        with refused("y_test: '' at position 3: expected a name, as printable text"):
            cnn.data.load(npz(y_train=Y_TRAIN.astype(str), y_test=np.array(["a", "b", "c", ""])))

    def test_text_in_one_part_alone(self, npz):
        with refused("y_train: <U", "y_test: uint8", "text in both or numbers in both"):
            cnn.data.load(npz(y_train=Y_TRAIN.astype(str)))

    def test_bytes_that_are_no_text(self, npz):
        with refused("y_train: bytes that are not text in UTF-8: save it as text"):
            cnn.data.load(npz(y_train=np.array([b"\xff"] * 8), y_test=np.array([b"a"] * 4)))

    def test_bools(self, npz):
        train, test = labelled(npz, lambda y: y > 1)
        assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0])
        assert train.notes == ("labels False and True taken as 0 and 1",)

    def test_minus_one_and_one(self, npz):
        train, test = labelled(npz, lambda y: np.where(y > 1, 1.0, -1.0))
        assert train.classes == test.classes == ("-1", "1")
        assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0])
        assert train.notes == ("labels -1 and 1 taken as two classes",)

    def test_other_negative_labels(self, npz):
        with refused("label -1 at position 0 is out of range", "numpy.unique(labels, return_inverse=True)"):
            labelled(npz, lambda y: y.astype(int) - 1)

    def test_whole_floats(self, npz):
        check_small_sets(*labelled(npz, lambda y: y.astype(np.float32)))

    def test_counted_from_1_keeps_an_empty_class(self, npz):
        train, _ = labelled(npz, lambda y: y + 1)
        assert train.classes == ("0", "1", "2", "3", "4")
        assert train.labels.tolist() == (Y_TRAIN + 1).tolist()
        assert train.notes == ('labels counted from 1, class "0" has no image',)

    def test_counted_from_1_with_as_many_names(self, npz):
        train, test = labelled(npz, lambda y: y + 1, classes=np.array(["a", "b", "c", "d"]))
        assert (train.labels.tolist(), test.labels.tolist()) == (Y_TRAIN.tolist(), Y_TEST.tolist())
        assert train.notes == ("labels counted from 1, the first is 'a'",)

    @pytest.mark.parametrize(
        ("labels", "listed"), [((0, 3, 7, 9), "0, 3, 7 and 9"), ((3, 8), "3 and 8"), ((0, 255), "0 and 255")]
    )
    def test_gaps_are_named(self, npz, labels, listed):
        with refused(
            f"y_train: the labels are {listed}, so most classes", "no image: count the classes from 0"
        ):
            labelled(npz, lambda y: np.array(labels)[y % len(labels)])

    def test_several_classes_an_image(self, npz):
        with refused("y_train: row 0 is not one-hot", "one class for each image"):
            labelled(npz, lambda y: np.ones((len(y), 14), np.uint8))

    def test_a_small_text_next_to_a_long_one_takes_no_more_memory_than_both(self, npz):
        y_train, y_test = np.array(["a", "b"] * 4), np.array(["a", "b", "c", "d" * 100_000])
        train, _ = cnn.data.load(npz(y_train=y_train, y_test=y_test))
        assert len(train.classes[3]) == 100_000
        assert len(train.notes[0]) < 100


class TestNotes:
    def test_parts_of_a_set_keep_them(self, npz):
        train, _ = labelled(npz, lambda y: y[:, None])
        (note,) = train.notes
        for part in (train.only([0, 2]), train.only(per_class=1), *train.split(3)):
            assert part.notes == (note,)
        assert Dataset(X_TRAIN, Y_TRAIN).notes == ()

    def test_sets_as_documented_have_none_and_keep_their_fingerprint(self, npz):
        train, test = cnn.data.load(npz())
        assert train.notes == test.notes == ()
        assert train.fingerprint == Dataset(X_TRAIN, Y_TRAIN).fingerprint
        assert test.fingerprint == Dataset(X_TEST, Y_TEST).fingerprint


class TestDatasetIsStrict:
    """In Python the layout is what the documentation says; another is named."""

    def test_channels_last(self):
        with refused("shape (8, 6, 7, 3): this looks like channels last", "transpose(0, 3, 1, 2)", "as 3x7"):
            Dataset(pictures(8, (6, 7, 3)), Y_TRAIN)
        assert Dataset(pictures(8, (6, 3, 7)), Y_TRAIN).shape == (6, 3, 7)  # the way out that it names

    @pytest.mark.parametrize(
        ("labels", "parts"),
        [
            (Y_TRAIN[:, None], ("shape (8, 1)", "labels.reshape(-1)")),
            (Y_TRAIN[None], ("row 0 has numbers that are not from 0 to 1", "flatten a row")),
            (Y_TRAIN > 0, ("dtype bool: expected integers; give labels.astype(int)",)),
            (np.array(["cat", 1] * 4, object), ("dtype object: expected integers", "or all to strings")),
            (np.array(["a"] * 7 + [""]), ("'' at position 7: expected a name, as printable text",)),
            (np.where(Y_TRAIN > 1, 1, -1), ("label -1 at position 0", "-1 and 1, give labels > 0")),
        ],
    )
    def test_labels(self, labels, parts):
        with refused("labels: ", *parts):
            Dataset(X_TRAIN, labels)

    @pytest.mark.parametrize(
        "form", [list, np.array, lambda texts: np.array(texts, object), lambda texts: np.array(texts, "S")]
    )
    def test_labels_that_are_strings_are_sorted_classes(self, form):
        names = ["owl", "cat", "dog", "ape"]
        texts = [names[label] for label in Y_TRAIN]
        made = Dataset(X_TRAIN, form(texts))
        assert made.classes == ("cat", "dog", "owl")
        assert [made.classes[label] for label in made.labels] == texts
        assert made.labels.dtype == np.int64
        given = Dataset(X_TRAIN, form(texts), classes=["owl", "emu", "dog", "cat", "ape"])
        assert given.classes == ("owl", "emu", "dog", "cat", "ape")
        assert [given.classes[label] for label in given.labels] == texts
        with refused("labels: label 'owl' is not one of the given classes: expected 'cat', 'dog', 'ape'"):
            Dataset(X_TRAIN, form(texts), classes=names[1:])

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_accents_written_in_two_ways_are_one_class(self, form):
        names = ["a", unicodedata.normalize(form, "\N{LATIN SMALL LETTER E WITH ACUTE}")]
        for other in ("NFC", "NFD"):
            labels = [unicodedata.normalize(other, name) for name in names] * 4
            data = Dataset(pictures(8, (6, 7)), labels, classes=names)
            assert data.classes == ("a", "\N{LATIN SMALL LETTER E WITH ACUTE}")
            assert data.labels.tolist() == [0, 1] * 4

    def test_labels_that_are_numbers_as_strings_count_from_0(self):
        made = Dataset(X_TRAIN, [str(10 * label) for label in Y_TRAIN])
        assert made.labels.tolist() == (10 * Y_TRAIN.astype(int)).tolist()
        assert made.classes == tuple(map(str, range(21)))
        named = Dataset(X_TRAIN, [str(10 * label) for label in Y_TRAIN], classes=["20", "10", "0"])
        assert named.labels.tolist() == (2 - Y_TRAIN.astype(int)).tolist()

    def test_labels_from_1(self):
        with refused(
            "label 3 at position 2", "0 to 2, for the 3 classes given; they count from 1: give labels - 1"
        ):
            Dataset(X_TRAIN, Y_TRAIN + 1, classes=3)

    @pytest.mark.parametrize(
        ("images", "parts"),
        [
            (pictures(8, (784,)), ("rows of 784 pixels are images.reshape(-1, 28, 28)",)),
            (X_TRAIN > 3, ("dtype bool: expected uint8 or float; give images.astype(numpy.float32)",)),
            (np.array(["a.png"] * 8), ("dtype <U5: expected uint8 or float; this is text",)),
            (X_TRAIN.astype(object), ("dtype object", "different sizes")),
            (Y_TRAIN, ("images: shape (8,): expected (N, H, W)",)),
        ],
    )
    def test_images(self, images, parts):
        with refused(*parts):
            Dataset(images, Y_TRAIN)

    def test_masked(self):
        masked = np.ma.masked_equal(X_TRAIN, 3)
        with refused("images: 1 values are masked", "images.filled(0)"):
            Dataset(masked, Y_TRAIN)
        assert len(Dataset(np.ma.array(X_TRAIN), Y_TRAIN)) == 8

    def test_pictures_of_different_sizes(self):
        with refused(
            "images: cannot be converted to a NumPy array", "inhomogeneous", "expected items of the same size"
        ):
            Dataset([X_TRAIN[0], X_TRAIN[0].T], [0, 1])

    def test_an_array_that_does_not_convert(self):
        class Lazy:
            def __array__(self, dtype=None, copy=None):
                raise RuntimeError("Nothing is computed yet.\nMore lines.")

        with refused(
            "images: cannot be converted to a NumPy array (Nothing is computed yet.): expected a plain"
        ):
            Dataset(Lazy(), Y_TRAIN)

    def test_predict_names_it_too(self):
        images = pictures(2, (6, 7, 1))
        with pytest.raises(cnn.ShapeError, match=r"\(2, 6, 7, 1\).*looks like channels last.*transpose"):
            self.network((1, 6, 7)).predict(images)
        assert self.network((6, 7, 1)).predict(images).shape == (2, 3)  # here that is what is meant

    def network(self, shape):
        network = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
        network.build(shape, backend=backends.get("cpu", "portable"))
        return network


class TestLabelledAs:
    """Other data, for a network that knows certain classes."""

    SET = Dataset(X_TRAIN, Y_TRAIN, ["ant", "bee", "cat"])

    def test_labels_follow_the_order_of_the_network(self):
        part = self.SET.labelled_as(("cat", "dog", "ant"))
        assert part.classes == ("cat", "dog", "ant")
        assert part.labels.tolist() == [2, 0, 2, 0, 2]
        np.testing.assert_array_equal(part.images[:, 0], X_TRAIN[Y_TRAIN != 1])

    def test_the_same_classes_are_not_copied(self):
        assert np.shares_memory(self.SET.labelled_as(self.SET.classes).images, self.SET.images)

    def test_numbers_are_names_too(self):
        with refused("has none of the classes 'ant', 'bee', 'cat', but '0', '1', '2'"):
            Dataset(X_TRAIN, Y_TRAIN).labelled_as(("ant", "bee", "cat"))
        swapped = Dataset(X_TRAIN, Y_TRAIN).labelled_as(("2", "1", "0"))
        assert swapped.labels.tolist() == (2 - Y_TRAIN).tolist()

    def test_none_of_the_classes(self):
        with refused("has none of the classes 'cow', but 'ant', 'bee', 'cat'"):
            self.SET.labelled_as(("cow",))
