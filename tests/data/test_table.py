"""Tables as text: images as rows of numbers with a label, and lists of pictures with their classes."""

import numpy as np
import pytest

import cnn
from cnn.data.pictures import Pictures
from cnn.support.errors import DataError

pytest.importorskip("PIL")
from PIL import Image

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (30, 64))
PIXELS[:, [0, -1]] = 0  # as at the borders of MNIST
LABELS = np.arange(30) % 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_DATA", str(tmp_path / "cache"))


def lines(rows, separator=","):
    return "".join(f"{separator.join(map(str, row))}\n" for row in rows)


def sorted_images(*parts):
    """All images of the parts, (N, 64), in an order that does not depend on the split."""
    return sorted(image.ravel().tolist() for part in parts for image in part.images)


class TestRows:
    @pytest.mark.parametrize("place", ["first", "last"])
    @pytest.mark.parametrize("header", ["", "label and pixels", "numbers"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_the_label_is_first_or_last(self, tmp_path, place, header, separator):
        order = [LABELS[:, None], PIXELS] if place == "first" else [PIXELS, LABELS[:, None]]
        names = [f"pixel{number}" for number in range(64)]
        names = ["label", *names] if place == "first" else [*names, "label"]
        head = {"": "", "label and pixels": lines([names], separator), "numbers": ""}[header]
        (tmp_path / "t.csv").write_text(head + lines(np.hstack(order), separator))
        train, test = cnn.data.load(tmp_path / "t.csv")
        assert (train.shape, train.images.dtype, train.classes) == ((1, 8, 8), np.uint8, ("0", "1", "2"))
        assert sorted_images(train, test) == sorted(PIXELS.tolist())
        assert [np.bincount(part.labels).tolist() for part in (train, test)] == [[8] * 3, [2] * 3]
        for image, label in zip(train.images, train.labels, strict=True):
            (row,) = np.flatnonzero((image.ravel() == PIXELS).all(axis=1))
            assert LABELS[row] == label
        guessed = f"labels taken from the {place} column" in train.notes
        assert guessed == (header != "label and pixels")

    def test_training_and_test_tables(self, tmp_path):
        rows = np.hstack([LABELS[:, None], PIXELS])
        (tmp_path / "mnist_train.csv").write_text(lines(rows[:20]))
        (tmp_path / "mnist_test.csv").write_text(lines(rows[20:]))
        train, test = cnn.data.load(tmp_path)
        assert (len(train), len(test)) == (20, 10)
        np.testing.assert_array_equal(test.images.reshape(10, 64), PIXELS[20:])
        np.testing.assert_array_equal(test.labels, LABELS[20:])

    def test_a_test_table_without_labels_is_not_used(self, tmp_path):
        """As in Kaggle's digit recognizer."""
        names = [f"pixel{number}" for number in range(64)]
        (tmp_path / "train.csv").write_text(lines([["label", *names], *np.hstack([LABELS[:, None], PIXELS])]))
        (tmp_path / "test.csv").write_text(lines([names, *PIXELS]))
        (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
        train, test = cnn.data.load(tmp_path)
        assert (len(train), len(test)) == (24, 6)
        assert "test.csv has no labels and is not used" in train.notes
        assert "a test set of 6 rows is held out" in train.notes

    def test_labels_that_are_names(self, tmp_path):
        names = np.array(["apfel", "birnen", "äpfel"])[LABELS]
        rows = [[*row, f'"{name}"'] for row, name in zip(PIXELS, names, strict=True)]
        (tmp_path / "t.csv").write_text(lines(rows), "utf-8-sig")
        train, _ = cnn.data.load(tmp_path / "t.csv")
        assert train.classes == ("apfel", "birnen", "äpfel")

    def test_labels_that_systems_write_in_two_ways_are_one_class(self, tmp_path):
        names = np.array(["rot", "grün", "gru\u0308n"])[LABELS]
        (tmp_path / "t.csv").write_text(lines(np.hstack([names[:, None], PIXELS])), encoding="utf-8")
        train, test = cnn.data.load(tmp_path / "t.csv")
        assert train.classes == ("grün", "rot")
        assert [np.bincount(part.labels).tolist() for part in (train, test)] == [[16, 8], [4, 2]]

    def test_floats_stay_floats(self, tmp_path):
        (tmp_path / "t.csv").write_text(lines(np.hstack([LABELS[:, None], PIXELS / 256])))
        train, test = cnn.data.load(tmp_path / "t.csv")
        assert train.images.dtype == np.float32
        assert sorted_images(train, test) == sorted((PIXELS / 256).tolist())

    def test_rows_that_are_not_square_are_images_of_one_line(self, tmp_path):
        """As in a table of measurements."""
        rows = [[*row[:4] / 7, "xyz"[label]] for row, label in zip(PIXELS, LABELS, strict=True)]
        (tmp_path / "iris.csv").write_text(lines([["a", "b", "c", "d", "class"], *rows]))
        train, _ = cnn.data.load(tmp_path / "iris.csv")
        assert (train.shape, train.classes) == ((1, 1, 4), ("x", "y", "z"))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[1, 2], [2, 3]], "columns .*expected the numbers of an image and a label in each row"),
            ([["label", "a", "b"]], "columns .*expected the numbers of an image and a label in each row"),
            ([[0, 1, 2, 3], [1, 2, 3], [1, 1, 2, 3]], "is not a table of numbers .*expected 4 columns"),
            ([[0, 1, 2, 3], [1, 2, "x", 3], [0, 1, 2, 3]], "is not a table of numbers"),
            ([[0, 1, 2, 3]] * 4, "all rows are of one class, 0: expected at least two classes"),
            ([[0, 1, 2, 3], [1, 1, 2, 3], [1, 1, 2, 3]], "class 0 has a single row: expected at least two"),
            ([[0, "nan", 2, 3], [1, 1, 2, 3]] * 2, "NaN or infinity"),
            (PIXELS, "there is no column of labels: name one `label`, or put it first or last"),
        ],
    )
    def test_what_is_no_such_table(self, tmp_path, rows, message):
        (tmp_path / "t.csv").write_text(lines(rows))
        with pytest.raises(DataError, match=message) as caught:
            cnn.data.load(tmp_path / "t.csv")
        assert "\n" not in str(caught.value)


def test_on_request_all_rows_of_a_table_without_a_test_set_are_the_test_set(tmp_path):
    (tmp_path / "t.csv").write_text(lines(np.hstack([LABELS[:, None], PIXELS])))
    test = cnn.data.load_test(tmp_path / "t.csv", whole=True)
    np.testing.assert_array_equal(test.images.reshape(30, 64), PIXELS)
    np.testing.assert_array_equal(test.labels, LABELS)
    assert "there is no test set: all 30 rows are tested" in test.notes


def test_black_test_images_are_bytes_like_the_training_images(tmp_path):
    (tmp_path / "train.csv").write_text(lines(np.hstack([LABELS[:, None], PIXELS])))
    (tmp_path / "test.csv").write_text(lines(np.hstack([LABELS[:, None], 0 * PIXELS])))
    train, test = cnn.data.load(tmp_path)
    assert train.images.dtype == test.images.dtype == np.uint8
    assert test.images.max() == 0


class TestLists:
    @pytest.fixture
    def folder(self, tmp_path):
        """Pictures of two colours in one folder."""
        (tmp_path / "set/images").mkdir(parents=True)
        for number in range(10):
            colour = (200, 0, 0) if number % 2 else (0, 0, 200)
            Image.new("RGB", (20, 20), colour).save(tmp_path / f"set/images/{number}.png")
        return tmp_path / "set"

    def rows(self, first, last):
        return [(f"images/{number}.png", "red" if number % 2 else "blue") for number in range(first, last)]

    @pytest.mark.parametrize("header", [[], [("filename", "label")], [("picture", "kind")]])
    @pytest.mark.parametrize("turned", [False, True])
    @pytest.mark.parametrize(
        ("name", "separator"), [("list.csv", ","), ("list.txt", " "), ("list.tsv", "\t")]
    )
    def test_a_path_and_a_class(self, folder, header, turned, name, separator):
        rows = [row[:: -1 if turned else 1] for row in [*header, *self.rows(0, 10)]]
        (folder / name).write_text(lines(rows, separator))
        train, test = cnn.data.load(folder / name, Pictures(size=8))
        assert (train.shape, train.classes, len(train), len(test)) == ((3, 8, 8), ("blue", "red"), 8, 2)
        for part in (train, test):
            np.testing.assert_array_equal(part.images[:, 0, 0, 0] > 0, part.labels == 1)

    def test_a_list_for_each_part(self, folder):
        (folder / "train.csv").write_text(lines(self.rows(0, 7)))
        (folder / "test.csv").write_text(lines(self.rows(7, 10)))
        train, test = cnn.data.load(folder)
        assert (len(train), len(test)) == (7, 3)

    def test_names_that_systems_write_in_two_ways_are_one_class(self, folder):
        rows = [(path, "gru\u0308n" if number % 4 == 0 else {"red": "rot", "blue": "grün"}[label])
                for number, (path, label) in enumerate(self.rows(0, 10))]  # fmt: skip
        (folder / "list.csv").write_text(lines(rows), encoding="utf-8")
        train, _ = cnn.data.load(folder / "list.csv")
        assert train.classes == ("grün", "rot")

    def test_pictures_that_do_not_exist(self, folder):
        (folder / "list.csv").write_text(lines([*self.rows(0, 10), ("images/10.png", "red")]))
        with pytest.warns(cnn.support.errors.Notice, match=r"images/10\.png: cannot be read \(No such file"):
            train, test = cnn.data.load(folder / "list.csv")
        assert len(train) + len(test) == 10

    def test_a_row_with_another_number_of_columns(self, folder):
        (folder / "list.csv").write_text(lines([*self.rows(0, 10), ("images/1.png",)]))
        with pytest.raises(DataError, match="row 11 has 1 columns, expected 2"):
            cnn.data.load(folder / "list.csv")


class TestOddTables:
    """Tables as other programs write them are read, or refused with what is wrong, but never misread."""

    @pytest.mark.parametrize("name", ["id", "", "Unnamed: 0", "number"])
    def test_a_first_column_that_numbers_the_rows_is_left_out(self, tmp_path, name):
        header = [name, "label", *[f"pixel{number}" for number in range(64)]]
        rows = [
            [place, label, *pixels] for place, label, pixels in zip(range(30), LABELS, PIXELS, strict=True)
        ]
        (tmp_path / "t.csv").write_text(lines([header, *rows]))
        train, test = cnn.data.load(tmp_path / "t.csv")
        assert sorted_images(train, test) == sorted(PIXELS.tolist())
        assert "the first column numbers the rows and is left out" in train.notes

    @pytest.mark.parametrize("label_is_last", [False, True])
    def test_a_first_column_that_numbers_the_rows_without_names(self, tmp_path, label_is_last):
        """Neither it nor a border that is always 0 is taken for the labels."""
        rows = [
            [place, *pixels, label] if label_is_last else [place, label, *pixels]
            for place, label, pixels in zip(range(1, 31), LABELS, PIXELS, strict=True)
        ]
        (tmp_path / "t.csv").write_text(lines(rows))
        train, test = cnn.data.load(tmp_path / "t.csv")
        assert sorted_images(train, test) == sorted(PIXELS.tolist())
        assert train.classes == ("0", "1", "2")
        column = "last" if label_is_last else "second"
        assert f"labels taken from the {column} column" in train.notes[0]
        assert "the first column numbers the rows and is left out" in train.notes[0]

    def test_labels_that_count_up_are_not_taken_for_numbers_of_rows(self, tmp_path):
        rows = [[label, *pixels] for label, pixels in zip(range(10), PIXELS, strict=False)]
        for part in ("train", "test"):
            (tmp_path / f"{part}.csv").write_text(lines(rows))
        train, _ = cnn.data.load(tmp_path)
        np.testing.assert_array_equal(train.labels, range(10))

    def test_spaces_around_values(self, tmp_path):
        rows = [[label, *pixels] for label, pixels in zip(LABELS, PIXELS, strict=True)]
        (tmp_path / "t.csv").write_text(lines([[f" {value} " for value in row] for row in rows]))
        train, test = cnn.data.load(tmp_path / "t.csv")
        assert train.classes == ("0", "1", "2")
        assert sorted_images(train, test) == sorted(PIXELS.tolist())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text + text.splitlines()[0] + ",7\n", "from 65 to 66 at row 31"),
            (lambda text: text + "," + text.splitlines()[0].partition(",")[2] + "\n", "row 31 has no label"),
            (lambda text: text.encode("utf-16"), "it is in UTF-16: save it as UTF-8"),
            (lambda text: text.replace("\n2,", "\né,").encode("latin-1"), "Latin-1.*: save it as UTF-8"),
        ],
        ids=["a longer row", "no label", "UTF-16", "Latin-1"],
    )
    def test_others_are_refused(self, tmp_path, change, message):
        text = change(lines([[label, *pixels] for label, pixels in zip(LABELS, PIXELS, strict=True)]))
        (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=message):
            cnn.data.load(tmp_path / "t.csv")


class TestOddLists:
    def load(self, tmp_path, rows):
        for number in range(8):
            Image.new("RGB", (16, 16), (30 * number, 0, 0)).save(tmp_path / f"my cat {number}.png")
        (tmp_path / "train.csv").write_text(lines(rows))
        return cnn.data.load(tmp_path / "train.csv")

    def test_names_with_spaces(self, tmp_path):
        rows = [[f"my cat {number}.png", "ab"[number % 2]] for number in range(8)]
        train, test = self.load(tmp_path, rows)
        found = [
            (data.images[place, 0, 0, 0] // 30, data.labels[place])
            for data in (train, test) for place in range(len(data.labels))
        ]  # fmt: skip
        assert sorted(found) == [(number, number % 2) for number in range(8)]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                [["file", "width", "breed"]],
                "in the first line, name the column of the labels `label`$",
            ),
            (
                [],
                "add a first line that names the column of the labels",
            ),
            (
                [["file", "label", "breed"], *[["my cat 1.png", "a", "b"]] * 60, ["", "b", "c"]],
                "row 62 has no path",
            ),
            ([["file", "label", "breed"], ["my cat 1.png", "", "b"]], "row 2 has no label"),
        ],
        ids=["two columns that may have labels", "without names", "no path", "no label"],
    )
    def test_others_are_refused(self, tmp_path, rows, message):
        good = [[f"my cat {number}.png", number % 2, number % 2] for number in range(8)]
        with pytest.raises(DataError, match=message):
            self.load(tmp_path, [*rows, *good])
