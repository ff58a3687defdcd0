"""The results of each class that cnn evaluate prints, on terminals and for programs."""

import json
import re

import numpy as np
import pytest

from cnn.cli.class_table import print_classes
from cnn.runs.class_results import ClassResults
from cnn.support.text import text_width

TRAIN = ("train", "--model", "mnist-small", "--epochs", 1, "--batch-size", 16, "--no-report", "--out", "run")
THREE = np.array([[8, 2, 0], [1, 4, 0], [3, 3, 0]])  # nobody says the third class


def confusion(classes, seed=0):
    random = np.random.default_rng(seed)
    return random.poisson(0.3, (classes, classes)) + np.diag(random.integers(0, 30, classes))


def table(text):
    """{first cell: other cells} of the lines of a table; names have no spaces."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}


class TestTable:
    def test_it_has_what_the_definitions_say(self, capsys):
        print_classes(THREE, ["a", "b", "c"], every=False)
        found = table(capsys.readouterr().out)
        assert found["a"] == ["10", "66.67%", "80.00%", "72.73%", "b", "(2)"]
        assert found["b"] == ["5", "44.44%", "80.00%", "57.14%", "a", "(1)"]
        assert found["c"] == ["6", "-", "0.00%", "0.00%", "a", "(3)"]
        assert found["mean"] == ["21", "37.04%", "53.33%", "43.29%"]

    def test_a_class_without_images_has_no_recall(self, capsys):
        print_classes([[3, 1, 0], [0, 0, 0], [0, 0, 0]], ["a", "b", "c"], every=False)
        found = table(capsys.readouterr().out)
        assert found["b"] == ["0", "0.00%", "-", "0.00%"]
        assert found["c"] == ["0", "-", "-", "-"]

    @pytest.mark.parametrize("classes", [2, 10, 20])
    def test_few_classes_are_all_there_in_their_order(self, capsys, classes):
        names = [f"n{label}" for label in range(classes)]
        print_classes(confusion(classes), names, every=False)
        out = capsys.readouterr().out
        assert re.findall(r"^n\d+", out, re.MULTILINE) == names
        assert "--all" not in out

    @pytest.mark.parametrize("classes", [21, 100, 1000])
    def test_of_many_those_with_the_lowest_f1(self, capsys, classes):
        counts, names = confusion(classes), [f"n{label}" for label in range(classes)]
        counts[5] = 0  # a class without images is not a hard one
        print_classes(counts, names, every=False)
        out = capsys.readouterr().out
        assert (
            f"The 20 of {classes:,} classes with the lowest F1, and the mean of all; --all shows all" in out
        )
        shown = [line.split() for line in out.splitlines() if re.match(r"n\d", line)]
        assert len(shown) == 20
        right, answered, occurs = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
        f1 = 2 * right / np.maximum(1, answered + occurs)
        expected = np.sort(f1[np.arange(classes) != 5])[:20]
        assert [float(cells[4].rstrip("%").lstrip("<")) for cells in shown] == pytest.approx(
            100 * expected, abs=0.01
        )

    def test_all_of_many_and_their_mistakes_on_request(self, capsys):
        counts, names = confusion(100), [f"n{label}" for label in range(100)]
        print_classes(counts, names, every=True)
        classes, mistakes = capsys.readouterr().out.split("\nMistakes\n")
        assert re.findall(r"^n\d+", classes, re.MULTILINE) == names
        pairs = [line.split() for line in mistakes.splitlines()[1:]]
        assert {(true, said): int(count) for true, said, count in pairs} == {
            (names[true], names[said]): counts[true, said]
            for true, said in np.argwhere(counts)
            if true != said
        }
        assert [int(count) for *_, count in pairs] == sorted(
            (int(count) for *_, count in pairs), reverse=True
        )


class TestMatrix:
    def test_rows_are_true_classes(self, capsys):
        print_classes(THREE, ["a", "b", "c"], every=True)
        matrix = capsys.readouterr().out.split("column for each predicted class\n")[1]
        assert table(matrix) == {
            "a": ["8", "2", "."], "b": ["1", "4", "."], "c": ["3", "3", "."],
        } | {"a": ["8", "2", "."]}  # fmt: skip
        assert matrix.splitlines()[0].split() == ["a", "b", "c"]

    def test_no_mistakes(self, capsys):
        print_classes(np.diag([5, 6]), ["a", "b"], every=True)
        assert "a  5  .\nb  .  6" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 50])
@pytest.mark.parametrize("classes", [2, 10, 20, 100])
@pytest.mark.parametrize(
    "name",
    [
        "class {}",
        "Wüstenameise mit langem Namen, Nummer {}",
        "第{}类非常长的中文名称用于测试宽字符显示",
        "{}" * 60,
    ],
)
def test_names_of_any_length_fit_on_the_screen(terminal, capsys, columns, classes, name):
    terminal(columns)
    names = [name.replace("{}", str(label)) for label in range(classes)]
    print_classes(1000 * confusion(classes), names, every=classes <= 20)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(text_width, lines)) <= columns
    if columns == 80:
        assert sum("precision" in line for line in lines) == 1
        assert sum("often taken for" in line for line in lines) == 1  # in the same part of the table


def test_a_file_gets_names_in_full(capsys):
    names = ["x" * 200, "y" * 200]
    print_classes(THREE[:2, :2], names, every=True)
    out = capsys.readouterr().out
    assert all(out.count(name) >= 3 for name in names)


def test_names_cannot_change_the_terminal(capsys):
    print_classes(THREE[:2, :2], ["a\x1b[31m", "b\nc"], every=True)
    assert "\x1b[31m" not in (out := capsys.readouterr().out)
    assert "b\nc" not in out


def test_it_is_what_scikit_learn_says():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    labels, answers = random.integers(0, 12, (2, 500))
    answers[:200] = labels[:200]
    answers[answers == 11] = 0  # a class that is never predicted
    counts = metrics.confusion_matrix(labels, answers, labels=range(12))
    columns = metrics.precision_recall_fscore_support(labels, answers, zero_division=0)
    found = ClassResults(counts, [str(label) for label in range(12)])
    for row, (precision, recall, f1, count) in zip(found.rows, zip(*columns, strict=True), strict=True):
        shown = [f"{precision:.2%}" if row["class"] != "11" else "-", f"{recall:.2%}", f"{f1:.2%}"]
        assert [row[name] for name in ("precision", "recall", "F1")] == shown
        assert row["images"] == str(count)
    means = metrics.precision_recall_fscore_support(labels, answers, average="macro", zero_division=0)
    assert [found.means[name] for name in ("precision", "recall", "F1")] == [
        f"{mean:.2%}" for mean in means[:3]
    ]


def test_the_command(command, own_data):
    assert command(*TRAIN, "--data", own_data)[0] == 0
    code, out, _ = command("evaluate", "run", "--top", 1)
    assert code == 0
    first, top, blank, *rows = out.splitlines()
    accuracy = re.fullmatch(r"test accuracy (\d+\.\d\d%), loss \d\.\d{4}, on 40 images", first)[1]
    assert top == f"top-1 accuracy {accuracy}"
    assert blank == ""
    assert [row.split()[0] for row in rows] == ["class", "dark", "bright", "mean"]
    out = command("evaluate", "run", "--all")[1]
    assert "top-5" not in out  # of two classes
    assert "Confusion matrix" in out

    found = json.loads(command("evaluate", "run", "--json", "--top", 1)[1])
    confusion = np.array(found["confusion"])
    assert confusion.sum() == found["count"] == 40
    assert np.trace(confusion) / 40 == found["accuracy"] == found["top_1"]
    assert [row["count"] for row in found["per_class"].values()] == confusion.sum(axis=1).tolist()
    assert list(found["per_class"]) == ["dark", "bright"]

    refused = "error: top is 0, expected a whole number of at least 1\n"
    assert command("evaluate", "run", "--top", 0)[::2] == (2, refused)
