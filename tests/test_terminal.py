"""What a terminal shows: lines that end between words, tables in parts where it is narrow."""

import re
import sys

import pytest
from typer.main import get_command

import cnn
from cnn import cli
from cnn.terminal import fold, print_table, write_line

WIDTHS = (60, 80)


def shown(capsys):
    """(standard output, standard error) without colours."""
    return (re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in capsys.readouterr())


class TestFold:
    def test_lines_end_between_words(self):
        assert fold("one two three", 8) == "one two\nthree"
        assert fold("one two three", 13) == "one two three"
        assert fold("one two three", 8, indent="  ") == "one two\n  three"

    def test_a_number_and_a_hyphenated_word_stay_whole(self):
        assert fold("loss 1234.5678", 8) == "loss\n1234.5678"
        assert fold("the set fashion-mnist", 12) == "the set\nfashion-mnist"

    def test_fields_stay_whole_where_they_fit(self):
        assert fold("loss 0.35  accuracy 89.20%", 20) == "loss 0.35\naccuracy 89.20%"
        assert fold("loss 0.35  accuracy 89.20%", 10) == "loss 0.35\naccuracy\n89.20%"

    def test_a_command_stays_whole(self):
        assert fold("go on with `cnn train --resume run`; it waits", 30) == (
            "go on with\n`cnn train --resume run`; it\nwaits"
        )

    def test_wide_letters_take_two_columns(self):
        assert fold("数字 数字", 8) == "数字\n数字"

    def test_lines_that_are_there_stay(self):
        assert fold("  a b\n\n  c", 5) == "  a b\n\n  c"


def test_a_file_gets_whole_lines(capsys):
    write_line("word " * 50)
    assert capsys.readouterr().out == "word " * 50 + "\n"


class TestTable:
    HEADINGS, ROWS = ["layer", "parameters", "memory"], [["0 Conv2D", "1,234,567", "5 KB"]]

    def test_what_fits_is_one_part(self, terminal, capsys):
        terminal(60)
        print_table(self.HEADINGS, self.ROWS)
        out, _ = shown(capsys)
        assert [line.split() for line in out.splitlines()] == [
            self.HEADINGS, ["0", "Conv2D", "1,234,567", "5", "KB"]
        ]  # fmt: skip

    def test_what_does_not_fit_comes_in_parts_with_the_first_column(self, terminal, capsys):
        terminal(25)
        print_table(self.HEADINGS, self.ROWS)
        out, _ = shown(capsys)
        assert [line.split() for line in out.splitlines()] == [
            ["layer", "parameters"], ["0", "Conv2D", "1,234,567"],
            ["layer", "memory"], ["0", "Conv2D", "5", "KB"],
        ]  # fmt: skip

    def test_a_file_gets_one_part(self, capsys):
        print_table(self.HEADINGS * 10, [row * 10 for row in self.ROWS])
        assert len(capsys.readouterr().out.splitlines()) == 2


def words(text):
    return re.findall(r"[\w.,%]*\w[\w.,%]*", text)


@pytest.mark.parametrize("columns", WIDTHS)
class TestCommands:
    """No line is longer than the terminal, which would break it inside a word or a number."""

    def assert_fits(self, columns, text):
        assert text
        assert max(map(len, text.splitlines())) <= columns, text

    @pytest.mark.parametrize(
        "arguments",
        [
            ("summary",),
            ("info",),
            ("gradcheck", "--device", "cpu", "--entries", "1"),
            ("train", "--dry-run", "--device", "cpu"),
            ("train", "--optimizer", "lion"),
            ("evaluate", "nowhere"),
            ("train", "--batch_size", "3"),
        ],
        ids=" ".join,
    )
    def test_each(self, terminal, monkeypatch, capsys, tmp_path, columns, arguments):
        terminal(columns)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["cnn", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        for text in filter(None, shown(capsys)):
            self.assert_fits(columns, text.replace(sys.executable, "python"))

    def test_a_training(self, terminal, capsys, own_data, columns):
        terminal(columns)
        train, test = cnn.data.load(own_data)
        network = cnn.models.notebook(2)
        network.build(train.shape, backend="cpu")
        cnn.fit(network, train, validation=test, epochs=2, callbacks=[cnn.Progress()])
        _, err = shown(capsys)
        lines = [line for line in re.split(r"[\r\n]+", err) if "images/s" in line or "accuracy" in line]
        assert "images/s" in err
        self.assert_fits(columns, "\n".join(lines))

    @pytest.mark.parametrize("name", ["", *get_command(cli.app).commands])
    def test_help(self, terminal, monkeypatch, capsys, columns, name):
        terminal(columns)
        monkeypatch.setattr("sys.argv", ["cnn", *filter(None, [name]), "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        out, _ = shown(capsys)
        self.assert_fits(columns, out)
        assert "…" not in out
        group = get_command(cli.app)
        whole = group.commands[name].help if name else group.help
        assert set(words(whole)) <= set(words(out))


def test_help_groups_the_flags_of_train(command):
    _, out, _ = command("train", "--help")
    titles = [line for line in out.splitlines() if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert titles == ["Model and data:", "Training:", "Device:", "Run:", "Options:", "Examples:"]


@pytest.mark.parametrize("module", ["rich", "shellingham"])
def test_help_needs_no_other_library(command, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    code, out, _ = command("train", "--help")
    assert code == 0
    assert "--learning-rate" in out
