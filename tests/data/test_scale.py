"""Images in a range that trains badly, or that differs from the training images, get a note."""

import warnings

import numpy as np
import pytest

import backends
import cnn
from cnn.data import Dataset
from cnn.data.notes import notes_on
from cnn.data.scale import scale_note

BYTES = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 5), dtype=np.uint8)
UNIT = (BYTES / 255).astype(np.float32)
STANDARDIZED = (UNIT - UNIT.mean()) / UNIT.std()


@pytest.mark.parametrize(
    "images", [BYTES, UNIT, UNIT * 2 - 1, UNIT * 1.005, UNIT * 0, BYTES * 0, BYTES // 10]
)
def test_usual_ranges_need_no_word(images):
    assert scale_note(images, "training") is None


@pytest.mark.parametrize(
    ("factor", "advice"),
    [(2, "scaled to 0..1"), (16, "scaled to 0..1"), (255, "divided by 255"), (65535, "scaled to 0..1")],
)
def test_floats_beyond_1(factor, advice):
    images = UNIT * np.float32(factor)
    low, high = f"{images.min():.3g}", f"{images.max():.3g}"
    assert scale_note(images, "training") == (
        f"the training images are floats from {low} to {high}, used unchanged: they train better if {advice}"
    )
    negative = scale_note(-images, "training")
    assert "from -" in negative
    assert negative.endswith("scaled to 0..1")


def test_standardized_floats_are_not_told_to_be_scaled():
    assert scale_note(STANDARDIZED, "training").endswith("used unchanged")


@pytest.mark.parametrize("highest", [1, 16])  # as of masks, and of digits of 8x8 pixels
def test_bytes_of_few_levels(highest):
    note = scale_note((BYTES / 255 * highest).round().astype(np.uint8), "training")
    assert note.startswith(f"the training images are bytes up to {highest}, but bytes are divided by 255")


@pytest.mark.parametrize("images", [BYTES, UNIT, UNIT * 0.4, UNIT * 0])
@pytest.mark.parametrize("trained_on", [BYTES, UNIT])
def test_parts_that_go_together(images, trained_on):
    assert scale_note(images, "test", trained_on) is None


@pytest.mark.parametrize(
    ("images", "trained_on"),
    [
        (UNIT * 255, BYTES),
        (UNIT * 255, UNIT),
        (BYTES, UNIT * 255),
        (UNIT, UNIT * 2 - 1),
        (UNIT, STANDARDIZED),
    ],
)
def test_parts_of_different_ranges(images, trained_on):
    note = scale_note(images, "validation", trained_on)
    assert note.startswith("the validation images range from ")
    assert "but the training images range from" in note
    assert note.endswith("scale both the same way")


def warned(train, validation):
    """What fit warns of."""
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
    network.build((1, 4, 5), backend=backends.get("cpu", "portable"))
    labels = [0, 1] * 3
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        cnn.fit(network, Dataset(train, labels), Dataset(validation, labels), callbacks=[])
    return [(str(warning.message), warning.filename) for warning in caught]


def test_classes_that_have_no_training_image():
    """As if the labels of one part counted from 1, or one had names with a space."""
    train = Dataset(BYTES, [0, 1] * 3, ["cat", "dog", "dog "])
    test = Dataset(BYTES, [0, 0, 0, 1, 2, 2], train.classes)
    assert notes_on(train, "training") == notes_on(train, "test", test) == []
    (note,) = notes_on(test, "test", train)
    assert note == "2 of 6 test images are of classes without training images: 'dog '"


def test_fit_warns_once_for_each_part():
    assert warned(BYTES, UNIT) == []
    (note, file), (again, _) = warned(UNIT * 9, BYTES)
    assert note.startswith("the training images are floats from")
    assert file == __file__
    assert again.startswith(
        "the evaluated images range from 0 to 1 (bytes, divided by 255), but the training"
    )
