"""What a terminal shows: lines that end between words, tables in parts where it is narrow."""

import re
import sys

import numpy as np
import pytest
from typer.main import get_command

import backends
import cnn
from cnn import cli
from cnn.cli.output import print_kept, result_line
from cnn.support.terminal import fold, live_console, make_console, print_table, write_line

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
            ("train", "--optimizer", "newton"),
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

    def test_a_result(self, terminal, capsys, columns):
        terminal(columns)
        result = {"accuracy": 0.9908, "loss": 0.0319, "count": 10_000, "weights": "best", "epoch": 2}
        print_kept(result_line(result))
        out, _ = shown(capsys)
        self.assert_fits(columns, out)
        assert out.split() == result_line(result).split()

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
        assert "\\[" not in out
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


class TestConsoles:
    @pytest.fixture
    def terminal(self, monkeypatch):
        """Standard error on a terminal."""
        for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def test_lines_can_be_drawn_again_on_a_terminal(self, terminal):
        assert live_console().width == 80

    def test_a_bar_that_has_ended_shows_no_kernels_that_are_compiled_later(self, terminal):
        ahead = pytest.importorskip("backends.cpu.compiled.ahead")
        images, labels = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2
        net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        net.build((1, 4, 4), backend=backends.get("cpu"), seed=0)
        progress = cnn.Progress()
        cnn.fit(net, cnn.data.Dataset(images, labels), epochs=1, batch_size=8, callbacks=[progress])
        ahead.progress.tell(0, 2)

    @pytest.mark.parametrize("term", ["dumb", "unknown", "DUMB", "", None])
    def test_but_not_on_one_that_only_takes_lines(self, terminal, monkeypatch, term):
        monkeypatch.setattr("cnn.support.terminal.os.name", "posix")
        if term is None:
            monkeypatch.delenv("TERM")
        else:
            monkeypatch.setenv("TERM", term)
        assert live_console() is None

    @pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
    def test_nor_in_a_file_whatever_is_set(self, monkeypatch, variable):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(variable, "1")
        assert live_console() is None

    @pytest.mark.parametrize("stream", [None, object()])
    def test_nor_where_there_is_no_stream(self, terminal, monkeypatch, stream):
        monkeypatch.setattr(sys, "stderr", stream)
        assert live_console() is None

    def test_colours_in_a_file_are_there_if_asked_for(self, monkeypatch, capsys):
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("FORCE_COLOR", "1")
        make_console(sys.stdout).print("seven", style="green")
        assert "\x1b[" in capsys.readouterr().out

    def test_no_colours_are_stronger(self, monkeypatch, capsys):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        make_console(sys.stdout).print("seven", style="bold green")
        assert capsys.readouterr().out == "seven\n"

    def test_a_notebook_gets_plain_text(self, monkeypatch, capsys):
        monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
        make_console(sys.stdout).print("seven")
        assert capsys.readouterr().out == "seven\n"

    @pytest.mark.parametrize("size", ["0", "-1", "\N{SUPERSCRIPT TWO}", "wide", ""])
    def test_a_size_that_is_none_is_ignored(self, command, monkeypatch, size):
        monkeypatch.setenv("COLUMNS", size)
        monkeypatch.setenv("LINES", size)
        code, out, err = command("summary", "--model", "notebook")
        assert (code, err) == (0, "")
        assert "output shape" in out
