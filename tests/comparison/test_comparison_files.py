"""Saved comparisons: what is read back, what is refused, and two machines compared."""

import json
import re
import sys
from dataclasses import replace
from functools import partial

import pytest

from cnn.comparison import load, merge, save
from cnn.comparison.plot import draw, sweep_figure
from cnn.comparison.results import SweepPoint
from cnn.comparison.saved import as_plain
from cnn.comparison.table import show
from cnn.inspection.timing import Spread
from cnn.support.errors import ArgumentError, DataError, DisagreementError


@pytest.fixture
def saved(result, tmp_path):
    """A file, and a function that writes it again with something changed."""
    path = tmp_path / "laptop.json"

    def write(**changes):
        path.write_text(json.dumps(as_plain(result) | changes))
        return path

    write()
    return write


class TestFiles:
    def test_what_is_saved_comes_back(self, result, tmp_path):
        save(result, tmp_path / "laptop.json")
        assert load(tmp_path / "laptop.json") == result

    def test_a_file_says_what_it_is_and_where_it_was_measured(self, saved):
        values = json.loads(saved().read_text())
        assert (values["format"], values["schema"]) == ("xpcnn comparison", 2)
        assert {"system", "python", "packages"} <= set(values["machine"])
        assert {"processor", "blas", "numpy"} <= set(values["columns"][0]["device"])

    def test_another_schema_is_refused(self, saved):
        with pytest.raises(
            DataError, match=r"laptop\.json: has schema 3, this version reads 2: measure again"
        ):
            load(saved(schema=3))

    def test_a_file_of_the_schema_before_is_read(self, result, tmp_path):
        values = as_plain(result) | {"schema": 1}
        del values["proof_batch_size"]
        (tmp_path / "x.json").write_text(json.dumps(values))
        assert load(tmp_path / "x.json") == replace(result, proof_batch_size=result.batch_size)

    def test_a_slow_column_comes_back(self, slow_result, tmp_path):
        save(slow_result, tmp_path / "laptop.json")
        assert load(tmp_path / "laptop.json") == slow_result

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "7", "{}", '{"format": "other"}', "\x00\xff", "[" * 100_000]
    )
    def test_what_is_no_comparison_is_refused(self, tmp_path, text):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json: not a comparison"):
            load(tmp_path / "x.json")

    @pytest.mark.parametrize("name", ["model", "steps", "proof_batch_size", "work", "columns", "machine"])
    def test_a_file_that_lacks_something_is_damaged_there(self, result, tmp_path, name):
        values = as_plain(result)
        del values[name]
        (tmp_path / "x.json").write_text(json.dumps(values))
        with pytest.raises(DataError, match=rf"x\.json: damaged \({name}: .*\): save it again"):
            load(tmp_path / "x.json")

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (("columns", 1, "step", "median"), "quick", r"columns\.1\.step\.median"),
            (("columns", 0, "step", "median"), "3", r"columns\.0\.step\.median"),
            (("columns", 0, "step", "median"), True, r"columns\.0\.step\.median"),
            (("columns", 0, "step", "median"), -1, "-1 is not a valid time or count"),
            (("columns", 0, "step", "median"), float("nan"), "damaged"),
            (("columns", 0, "step", "high"), float("inf"), "damaged"),
            (("columns", 0, "step", "median"), 0, "has a time, speed or batch size of 0"),
            (("columns", 0, "product_flops"), 0, "has a time, speed or batch size of 0"),
            (("columns", 0, "sweep", 0, "batch_size"), 10**30, "damaged"),
            (("columns", 0, "sweep", 0, "batch_size"), 4, "has batch sizes out of order"),
            (("columns", 0, "losses"), [1.0], "has 1 losses for 10 steps"),
            (("columns", 0, "step"), None, "its first column has no steps"),
            (("columns", 0, "layers"), [], "has other layers than the network"),
            (("columns", 0, "name"), "\x1b[2J", "is not printable"),
            (("work", 0, "layer"), "\x1b[31m", "is not printable"),
            (("model",), "\x1b[2J", "is not printable"),
            (("columns",), [], "it has no columns, layers, steps or images"),
            (("steps",), 0, "it has no columns, layers, steps"),
            (("batch_size",), -8, "-8 is not a valid"),
        ],
    )
    def test_values_that_cannot_be_are_refused(self, result, tmp_path, path, value, message):
        values = inner = json.loads(json.dumps(as_plain(result)))
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        (tmp_path / "x.json").write_text(json.dumps(values))
        with pytest.raises(DataError, match=message):
            load(tmp_path / "x.json")

    def test_without_the_library_that_checks_it_no_file_is_called_damaged(self, saved, monkeypatch):
        path = saved()
        monkeypatch.setitem(sys.modules, "pydantic", None)
        with pytest.raises(ArgumentError, match=r"pydantic is needed to read saved comparisons.*pip install"):
            load(path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere\.json: cannot be read \(No such file"):
            load(tmp_path / "nowhere.json")


class TestTwoMachines:
    def test_their_columns_stand_beside_each_other(self, result):
        both = merge({"laptop": result, "workstation": result})
        assert [column.name for column in both.columns] == [
            "laptop: cpu portable, 1 thread",
            "laptop: cpu signal, 1 thread",
            "workstation: cpu portable, 1 thread",
            "workstation: cpu signal, 1 thread",
        ]
        assert both.columns[0].agreement is None
        assert both.columns[1].agreement == result.columns[1].agreement
        assert both.columns[2].agreement.loss == 0
        assert set(both.machine) == {"laptop", "workstation"}

    def test_another_workload_is_refused(self, result):
        other = replace(result, batch_size=64)
        with pytest.raises(DataError, match="workstation measured different batch sizes, 3 and 64"):
            merge({"laptop": result, "workstation": other})

    def test_results_of_other_steps_are_refused(self, result):
        other = replace(result, proof_batch_size=128)
        with pytest.raises(
            DataError, match=r"measured different proof batch sizes, 3 and 128: .* same version"
        ):
            merge({"laptop": result, "workstation": other})

    def test_a_slow_column_is_compared_in_its_steps(self, result, slow_result):
        both = merge({"laptop": result, "workstation": slow_result})
        assert both.columns[3].agreement.loss < 1e-12
        slow = slow_result.columns[1]
        wrong = replace(slow_result, columns=[replace(slow, losses=[2 * loss for loss in slow.losses])])
        with pytest.raises(DisagreementError, match="after 3 steps the loss differs"):
            merge({"laptop": result, "workstation": wrong})

    def test_another_result_is_refused(self, result):
        wrong = replace(result.columns[0], losses=[2 * loss for loss in result.columns[0].losses])
        with pytest.raises(
            DisagreementError, match="workstation, cpu portable, 1 thread, and laptop did not"
        ):
            merge({"laptop": result, "workstation": replace(result, columns=[wrong])})


class TestTables:
    @pytest.fixture
    def printed(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")

        def run(comparison):
            show(comparison)
            return capsys.readouterr().out

        return run

    def test_a_row_for_each_layer(self, printed, result):
        text = printed(result)
        for work in result.work:
            assert text.count(f"\n{work.layer} ") == 2  # times, limits
        assert "B  cpu signal, 1 thread" in text

    @pytest.mark.parametrize("name", ["images per second", "first step", "moving a batch", "launching one"])
    def test_the_whole_step_and_its_costs(self, printed, result, name):
        assert name in printed(result)

    def test_no_figure_is_cut_where_the_screen_is_narrower_still(self, printed, result, monkeypatch):
        wide = printed(result)
        monkeypatch.setenv("COLUMNS", "20")
        narrow = printed(result)
        assert "…" not in narrow
        assert set(re.findall(r"\d+\.\d+", wide)) == set(re.findall(r"\d+\.\d+", narrow))

    def test_a_slow_column_is_in_the_last_tables_only(self, printed, slow_result):
        text = printed(slow_result)
        assert "\nB: too slow for this batch size, so timed at small ones only, see below\n" in text
        assert "B agrees with A: each layer within" in text
        assert "after 3 steps in float64" in text
        layers = text[text.index("Layers:") : text.index("The whole step")]
        assert "B" not in set(re.findall(r"\b[A-Z]\b", layers))
        assert re.search(r"milliseconds +\d\S* +-\n", text)
        assert re.search(r"\nbatch size +A +B\n1 +\d\S* +\d", text)

    def test_more_columns_than_letters(self, printed, result):
        text = printed(replace(result, columns=list(result.columns) * 14))
        assert "\n  AB  cpu signal" in text

    def test_two_machines_fit_a_narrow_screen(self, printed, result):
        text = printed(merge({"laptop": result, "workstation": result}))
        tables = text[text.index("\n\n") : text.index("B is faster")]
        assert max(map(len, tables.splitlines())) <= 80
        assert "…" not in text
        assert all(f"\n  {letter}  " in text for letter in "ABCD")

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            ([2, 2, 2], "at none of these batch sizes"),
            ([0.5, 0.5, 0.5], "at all batch sizes up to 4"),
            ([2, 0.5, 0.5], "from batch size 2 on, up to 4"),
            ([0.5, 0.5, 2], "at batch size 1, 2\n"),
        ],
    )
    def test_where_a_column_wins_is_said(self, printed, result, seconds, words):
        first, other = (
            replace(column, sweep=[SweepPoint(2**i, Spread(s, s, s)) for i, s in enumerate(times)])
            for column, times in zip(result.columns, ([1, 1, 1], seconds), strict=True)
        )
        text = printed(replace(result, columns=[first, other]))
        assert f"B is faster than A, beyond the spread, {words}" in text

    def test_a_disturbed_measurement_is_said(self, printed, result):
        first, second = result.columns
        calm = replace(first, step=Spread(1, 0.9, 1.1))
        assert "other programs were running" not in printed(replace(result, columns=[calm, calm]))
        shaken = replace(second, step=Spread(2, 1, 4))
        assert "B: the steps vary a lot, other programs" in printed(replace(result, columns=[calm, shaken]))

    def test_names_from_files_are_not_taken_for_markup(self, printed, result):
        assert "[red]" in printed(replace(result, model="[red]"))


class TestPicture:
    def test_axes_have_names_and_units(self, result):
        (axes,) = sweep_figure(result).axes
        assert axes.get_xlabel() == "batch size (images)"
        assert axes.get_ylabel() == "training speed (images/s)"

    def test_lines_are_the_measurements_and_the_crossover(self, result):
        slow, fast = (
            [SweepPoint(size, Spread(value, value, value)) for size, value in enumerate(values, 1)]
            for values in ([1, 1, 1], [2, 0.5, 0.5])
        )
        columns = [replace(result.columns[0], sweep=slow), replace(result.columns[1], sweep=fast)]
        (axes,) = sweep_figure(replace(result, columns=columns)).axes
        _, line, crossing = axes.lines
        assert list(line.get_ydata()) == [1 / 2, 2 / 0.5, 3 / 0.5]
        assert set(crossing.get_xdata()) == {2}
        assert "from 2 on" in crossing.get_label()

    def test_png_and_svg(self, result, tmp_path):
        png, svg = draw(result, tmp_path / "sweep.png")
        assert png.read_bytes().startswith(b"\x89PNG")
        assert "<svg" in svg.read_text()
        assert (png.name, svg.name) == ("sweep.png", "sweep.svg")


class TestCommand:
    @pytest.fixture
    def compare(self, quick, command):
        return partial(command, "compare")

    MEASURE = ("--model", "notebook", "--batch-size", 2, "--rounds", 1, "--device", "cpu", "--threads", "1")

    def test_measure_save_draw_and_compare_with_another_machine(self, compare, tmp_path):
        code, out, err = compare(*self.MEASURE, "--kernels", "portable,signal", "--save", "laptop.json")
        assert code == 0, err
        assert "cpu signal, 1 thread" in out
        assert "\nchecking that all setups compute the same\n" in err
        assert "\ntiming steps at batch sizes from 1 to 4\n" in err
        assert "cnn compare NAME.json OTHER.json" in err
        assert compare("laptop.json")[1] == out
        (tmp_path / "workstation.json").write_bytes((tmp_path / "laptop.json").read_bytes())
        code, out, err = compare("laptop.json", "workstation.json", "--plot", "both.png")
        assert code == 0, err
        assert "workstation: cpu portable, 1 thread" in out
        assert {"both.png", "both.svg"} <= {path.name for path in tmp_path.iterdir()}

    def test_json_is_what_a_file_holds(self, compare, tmp_path):
        code, out, _ = compare(*self.MEASURE, "--json", "--save", "laptop.json")
        assert code == 0
        assert json.loads(out) == json.loads((tmp_path / "laptop.json").read_text())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ("--save", "nowhere/laptop.json"),
                "nowhere/laptop.json cannot be written: the folder nowhere does not",
            ),
            (("--plot", "both"), "--plot is 'both', expected a name that ends in .png"),
            (("--save", "."), ". is a folder: expected the name of a file"),
            (("--model", "resnet"), "unknown model 'resnet'"),
            (("--dtype", "int8"), "dtype is 'int8'"),
            (("--device", "cpu,gpu"), "unknown device 'gpu'"),
            (("--threads", "two"), "--threads is 'two', expected numbers as in 1,2"),
            (("--rounds", 0), "rounds is 0"),
            (("nowhere.json",), "nowhere.json: cannot be read"),
            (("a.json", "a.json"), "a file is given twice"),
            (("a.json", "--rounds", 3), "--rounds is for measuring: leave it out"),
            (("a.json", "--sweep"), "--sweep is for measuring: leave it out"),
        ],
    )
    def test_mistakes_are_one_sentence(self, compare, arguments, message):
        code, out, err = compare(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_is_longer_than_the_terminal(result, terminal, capsys, columns):
    terminal(columns)
    show(result)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= columns
    assert sum(line.startswith("0 Conv2D") for line in lines) >= 2


def test_a_slower_column_has_a_lower_speed_and_a_has_1(result, capsys):
    slower = replace(
        result.columns[0], step=Spread(*(4 * value for value in vars(result.columns[0].step).values()))
    )
    show(replace(result, columns=[result.columns[0], slower]))
    assert re.search(r"speed relative to A +1\.00 +0\.250", capsys.readouterr().out)
