"""Data sets of any arrays, and parts of them by any classes: the parts NumPy would choose, or a DataError."""

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from helpers.any_values import ODD, PLAIN_ODD, attempt, examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import cnn
from cnn.data import Dataset

NAMES = ("cat", "dog", "3", "owl")
ARRAYS = arrays_of.arrays(
    arrays_of.scalar_dtypes(), arrays_of.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
)
IMAGES = arrays_of.arrays(
    st.sampled_from([np.uint8, np.int16, np.float32, np.float64]),
    st.tuples(st.just(2), st.integers(1, 3), st.integers(1, 3)),
    elements=st.integers(0, 255),
)
CLASSES = st.none() | st.lists(
    st.sampled_from([*NAMES, *range(5), "0", "1", np.int64(2), -1, "cow", ("cat",)]), max_size=5
)


@st.composite
def data_sets(draw):
    """Images that can be told apart, with labels of some of four named classes."""
    labels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=20))
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None] + np.zeros((2, 3), dtype=np.uint8)
    return Dataset(images, labels, NAMES)


class TestMaking:
    @examples(300)
    @given(ARRAYS | IMAGES | ODD, ARRAYS | ODD | st.just([0, 1]), st.none() | PLAIN_ODD)
    def test_from_anything(self, images, labels, classes):
        made, refusal = attempt(Dataset, images, labels, classes)
        if refusal:
            assert isinstance(refusal, cnn.DataError)
            return
        assert made.images.ndim == 4
        assert made.images.dtype in (np.uint8, np.float32, np.float64)
        assert made.images.flags.c_contiguous
        if made.has_one_class_each:
            assert made.labels.dtype == np.int64
            assert made.labels.shape == (len(made),)
            assert 0 <= made.labels.min() <= made.labels.max() < len(made.classes)
        else:  # probabilities, or several classes for an image
            assert made.labels.dtype in (np.float32, np.float64)
            assert made.labels.shape == (len(made), len(made.classes))
            assert 0 <= made.labels.min() <= made.labels.max() <= 1
        np.testing.assert_array_equal(made.images.reshape(np.shape(images)), np.asarray(images))

    @examples(100)
    @given(st.integers(1, 6), st.sampled_from(["int8", "uint64", "float32", "bool"]), st.booleans())
    def test_labels_in_any_dtype_and_as_one_hot_rows(self, count, dtype, one_hot):
        labels = np.arange(count) % 2
        given_labels = np.eye(3)[labels].astype(dtype) if one_hot else labels.astype(dtype)
        if dtype == "bool" and not one_hot:
            with pytest.raises(cnn.DataError, match="expected integers"):
                Dataset(np.zeros((count, 2, 2)), given_labels)
            return
        made = Dataset(np.zeros((count, 2, 2)), given_labels)
        np.testing.assert_array_equal(made.labels, labels)
        assert made.labels.dtype == np.int64
        assert len(made.classes) == (3 if one_hot else min(count, 2))


class TestOnly:
    @examples(300)
    @given(data_sets(), CLASSES, st.none() | st.integers(1, 6) | PLAIN_ODD)
    def test_the_first_of_each_class_in_order(self, data, classes, per_class):
        part, refusal = attempt(data.only, classes, per_class)
        if refusal:
            assert isinstance(refusal, cnn.DataError)
            return
        numbers = {name: label for label, name in enumerate(NAMES)}
        wanted = range(4) if classes is None else [numbers.get(c, c) for c in classes]
        wanted = [int(label) for label in wanted]
        chosen = sorted(
            position for label in wanted for position in np.flatnonzero(data.labels == label)[:per_class]
        )
        assert part.images[:, 0, 0, 0].tolist() == chosen
        assert part.labels.tolist() == [wanted.index(label) for label in data.labels[chosen]]
        assert part.classes == tuple(NAMES[label] for label in wanted)

    @examples(100)
    @given(data_sets(), PLAIN_ODD)
    def test_anything_else_than_classes_in_a_row_is_refused(self, data, classes):
        part, refusal = attempt(data.only, classes)
        if refusal:
            assert isinstance(refusal, cnn.DataError)
        else:
            assert classes is None or len(part.classes) == len(classes)


class TestSplit:
    @examples(200)
    @given(
        data_sets(),
        st.integers(0, 25) | st.floats(0, 1) | PLAIN_ODD,
        st.integers(0, 2**70) | st.just(0) | PLAIN_ODD,
    )
    def test_two_parts_that_make_the_whole(self, data, part, seed):
        parts, refusal = attempt(data.split, part, seed)
        if refusal:
            assert isinstance(refusal, cnn.DataError)
            return
        rest, held_out = parts
        assert len(held_out) == (part if part >= 1 else round(part * len(data)))
        numbers = [piece.images[:, 0, 0, 0].tolist() for piece in (rest, held_out)]
        assert all(of_one == sorted(of_one) for of_one in numbers)
        assert sorted(numbers[0] + numbers[1]) == list(range(len(data)))
        assert rest.classes == held_out.classes == data.classes
        again = data.split(part, seed)[1]
        np.testing.assert_array_equal(again.images, held_out.images)
        for piece in (rest, held_out):
            np.testing.assert_array_equal(piece.labels, data.labels[piece.images[:, 0, 0, 0]])


class TestLoad:
    @examples(60)
    @given(PLAIN_ODD)
    def test_what_is_no_data_set_is_refused(self, source):
        _, refusal = attempt(cnn.data.load, source)
        assert isinstance(refusal, cnn.DataError)
