"""scripts/benchmarks/bench_tcp.py: it counts the bytes, and its figures are what they are called."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.together import needed

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import bench_tcp
from tcp_parts import measured
from tcp_parts.measured import Cable, Row, make_row, sent_in_a_step
from tcp_parts.page import BEGIN, END, cells, write_text
from tcp_parts.wire import CommandFailed, NoWire, Wire

from cnn.comparison.worker import Trained
from cnn.inspection.timing import Spread
from cnn.training.distributed.mpiexec import Mpiexec

PAGE = ROOT / "docs" / "measurements" / "distributed.md"
CABLE = Cable(rate=1e9, delay=0.0, round_trip=40e-6, measured_rate=0.9e9)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def called(*arguments):
        monkeypatch.setattr("sys.argv", ["bench_tcp.py", *map(str, arguments)])
        try:
            bench_tcp.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return called


@pytest.fixture
def mpich(monkeypatch):
    """As if there were one."""
    monkeypatch.setattr(Mpiexec, "find", lambda: Mpiexec(Path("mpiexec"), is_open_mpi=False))


def trained(seconds, waits=(0.0,), vector=0):
    return Trained(seconds, list(waits), vector, "weights")


class TestBytes:
    @pytest.mark.parametrize("found", [9000, 10_000, 10_900])
    def test_those_of_the_steps_with_headers_are_right(self, found):
        assert sent_in_a_step([[found, found]] * 2, 10, 1000) == found / 10

    @pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
    @pytest.mark.parametrize("found", [0, 8999, 44_000])
    def test_others_are_refused_in_each_direction_of_each_process(self, place, found):
        counted = [[10_000, 10_000], [10_000, 10_000]]
        counted[place[0]][place[1]] = found
        message = (
            f"^{found:,} bytes crossed the cable in 10 steps, expected 9,000 to 42,320: the processes did"
        )
        with pytest.raises(CommandFailed, match=message):
            sent_in_a_step(counted, 10, 1000)


class TestFigures:
    def test_the_model_is_half_of_the_step_and_the_exchange(self):
        ones, twos = [trained(0.010)], [trained(0.009, (0.001, 0.003), vector=250_000)]
        row = make_row(128, ones, twos, [260_000.0], CABLE)
        assert row.predicted == pytest.approx(0.005 + 250_000 * 8 / 1e9 + 2 * 20e-6)
        assert row.ratio == pytest.approx(0.009 / row.predicted)
        assert (row.wait.median, row.sent, row.expected) == (0.002, 260_000, 250_000)

    def test_a_time_is_the_median_of_the_rounds(self):
        ones = [trained(seconds) for seconds in (0.4, 0.1, 0.2)]
        twos = [trained(seconds, vector=1000) for seconds in (0.3, 0.9, 0.6)]
        row = make_row(128, ones, twos, [1.0, 2.0, 3.0], CABLE)
        assert (row.one.median, row.two.median, row.sent) == (0.2, 0.6, 2)

    def test_a_row_has_the_ratio_and_the_speed(self):
        one, two, wait = (Spread(value, value, value) for value in (0.012, 0.010, 0.004))
        assert cells(Row(2048, one, two, wait, 0.008, 260_000, 250_000)) == [
            *("2,048", "12.0", "10.0", "10.0 to 10.0", "8.00", "1.25", "1.20", "40%", "260", "250")
        ]


class TestPage:
    def test_the_text_is_replaced_between_its_lines(self, tmp_path):
        page = tmp_path / "page.md"
        page.write_text(f"# Before\n{BEGIN}old\n{END}After.\n")
        write_text(page, "new")
        assert page.read_text() == f"# Before\n{BEGIN}\nnew\n{END}After.\n"

    def test_the_page_in_the_documentation_shows_where_it_is(self, tmp_path):
        page = shutil.copy(PAGE, tmp_path)
        write_text(Path(page), "new")
        assert "\nnew\n" in Path(page).read_text()

    def test_another_page_is_refused_before_anything_is_measured(self, run, mpich, monkeypatch, tmp_path):
        monkeypatch.setattr(bench_tcp, "Wire", lambda *_: pytest.fail("it begins"))
        (tmp_path / "page.md").write_text("# Page\n")
        code, _, err = run("--page", "page.md")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: page.md does not show where the text is")
        assert run("--page", "none.md")[::2] == (
            2,
            "error: none.md cannot be read (No such file or directory): name the page to write to\n",
        )


class TestCommand:
    def test_it_is_skipped_if_there_can_be_no_namespaces(self, run, mpich, monkeypatch, tmp_path):
        def none(self):
            raise NoWire("network namespaces need root")

        monkeypatch.setattr(Wire, "__enter__", none)
        assert run("--json", "tcp.json") == (0, "", "skipped: network namespaces need root\n")
        assert not (tmp_path / "tcp.json").exists()

    def test_open_mpi_is_refused(self, run, monkeypatch):
        monkeypatch.setattr(Mpiexec, "find", lambda: Mpiexec(Path("/opt/mpiexec"), is_open_mpi=True))
        code, _, err = run()
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: /opt/mpiexec is Open MPI's, this benchmark needs MPICH's")

    @pytest.mark.parametrize(
        ("option", "value", "names"),
        [
            ("--batch-sizes", "128,many", "'many'"),
            ("--rounds", "0", "'0'"),
            ("--steps", "0", "'0'"),
            ("--json", "nowhere/tcp.json", "nowhere"),
        ],
    )
    def test_a_mistake_is_one_sentence(self, run, mpich, option, value, names):
        code, _, err = run(option, value)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: ")
        assert names in err

    def test_other_weights_are_an_error_before_anything_is_timed(self, run, mpich, monkeypatch):
        started = []

        def train(self, count, task):
            started.append((count, task.shards))
            return Trained(0.1, [0.0], 1000, f"weights of {count}"), []

        monkeypatch.setattr(measured.Processes, "train", train)
        monkeypatch.setattr(measured, "probe", lambda wire: CABLE)
        monkeypatch.setattr(Wire, "__enter__", lambda self: self)
        monkeypatch.setattr(Wire, "__exit__", lambda *_: None)
        code, out, err = run()
        assert (code, out) == (1, "")
        assert "error: one process and two over TCP do not compute the same: after 7 steps" in err
        assert started == [(1, 2), (2, 2)]

    @needed
    def test_it_measures_over_a_real_cable(self, run, monkeypatch, tmp_path):
        monkeypatch.setattr(measured, "prove", lambda *_: None)  # for real: tests/distributed
        if Mpiexec.find().is_open_mpi:
            pytest.skip("the cable is for MPICH's mpiexec")
        try:
            with Wire(rate=1e9):
                pass
        except NoWire as reason:
            pytest.skip(str(reason))
        shutil.copy(PAGE, tmp_path)
        options = ("--batch-sizes", 4, "--rounds", 1, "--steps", 3)
        code, out, err = run(*options, "--json", "tcp.json", "--page", PAGE.name)
        assert code == 0, err
        found = json.loads((tmp_path / "tcp.json").read_text())
        assert (found["rounds"], found["steps"], found["cable"]["rate"]) == (1, 3, 1e9)
        assert found["cable"]["round_trip"] > 0
        (row,) = found["rows"]
        assert row["batch_size"] == 4
        assert row["expected"] > 4 * 61_706  # the parameters of LeNet-5
        assert row["sent"] > row["expected"] * 2 / 3
        assert row["two"]["median"] > row["wait"]["median"] > 0
        assert out.strip() in (tmp_path / PAGE.name).read_text()

    def test_the_cable_is_probed_with_plain_sockets(self):
        try:
            with Wire(rate=1e9) as wire:
                cable = measured.probe(wire)
        except NoWire as reason:
            pytest.skip(str(reason))
        assert 0 < cable.link.latency < cable.round_trip
        assert (cable.link.bandwidth, cable.delay) == (1e9, 0)
        assert cable.measured_rate < 1.01e9  # more could not have passed
