"""``cnn train --resume``, and what Ctrl-C, SIGTERM and SIGHUP do to a training run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.devices import cuda_missing
from safetensors.numpy import load_file

import backends
import cnn
from backends import DeviceUnavailable, registry
from backends.cpu.threads import available_cores
from cnn.cli.signals import StopOnSignal
from cnn.runs.folder import RunFolder
from cnn.runs.report import Evaluation
from cnn.runs.report.page import _result
from cnn.runs.report.record import RunRecord
from cnn.saving.weights import weights_in
from cnn.training.checkpoints import SavedTraining
from cnn.training.run import Run
from cnn.training.validation import Validator

HANG_UP = getattr(signal, "SIGHUP", signal.SIGTERM)
SMALL = ("--model", "notebook", "--kernels", "portable", "--batch-size", 16, "--epochs", 4, "--no-report")


@pytest.fixture(autouse=True)
def _signals_are_not_ignored():
    """Under nohup and in the background of a shell they are, also in the processes that a test starts."""
    usual = {signal.SIGINT: signal.default_int_handler, HANG_UP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def train(command, own_data):
    """``train(folder, ...)`` -> (exit code, standard output, standard error) of a new run."""
    return lambda out, *more: command("train", *SMALL, "--data", own_data, "--out", out, *more)


@pytest.fixture
def stop_after(monkeypatch):
    """``stop_after(n)`` lets a signal come in step ``n`` of every training from now on; None: no more."""

    def install(steps, number=signal.SIGINT):
        def on_step(self, run):
            self.count = getattr(self, "count", 0) + 1
            if self.count == steps:
                os.kill(os.getpid(), number)
            original(self, run)

        monkeypatch.setattr(StopOnSignal, "on_step", on_step)

    original = StopOnSignal.on_step
    return install


def weights(folder):
    return Path(folder, "model.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (HANG_UP, 129)])
def test_a_signal_stops_after_the_batch_and_the_run_goes_on_bit_for_bit(
    train, command, stop_after, number, code
):
    assert train("whole")[0] == 0
    stop_after(11, number)
    before = signal.getsignal(number)
    exit_code, out, err = train("run")
    assert (exit_code, out) == (code, "")
    assert err.splitlines()[-1] == ("stopped; `cnn train --resume run` resumes from epoch 2, step 3 of 8")
    assert signal.getsignal(number) is before
    assert not Path("run/evaluation.safetensors").exists()
    stop_after(None)
    exit_code, out, err = command("train", "--resume", "run", "--no-report")
    assert (exit_code, err.count("resumes from epoch 2, step 3 of 8")) == (0, 1)
    assert re.match(r"test accuracy .* on 40 images\nrun\n", out)
    assert weights("run") == weights("whole")
    lines = [path.read_text().splitlines() for path in (Path("run/metrics.csv"), Path("whole/metrics.csv"))]
    assert [line.split(",")[:3] for line in lines[0]] == [line.split(",")[:3] for line in lines[1]]


def test_stopped_again_and_again_it_comes_to_the_same_end(train, command, stop_after):
    train("whole")
    stop_after(5)
    codes = [train("run")[0]]
    while codes[-1] == 130:
        codes.append(command("train", "--resume", "run", "--no-report")[0])
    assert codes == [130] * 6 + [0]
    assert weights("run") == weights("whole")


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    codes, said = [], []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr("cnn.cli.signals._write", said.append)
    signals, run = StopOnSignal(), Run(None, 1)
    signals.on_start(run)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.on_step(run)
        assert (run.stop, codes) == (True, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert codes == [130]
    finally:
        signals.on_end(run)
    assert said[0] == b"stopping after the current batch; a second signal stops at once\n"


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGHUP")
class TestHangUp:
    """What a terminal that closes sends, some of them more than once."""

    @pytest.fixture
    def signals(self, monkeypatch):
        """A StopOnSignal in whose training run signals come; ``codes`` is what it exits with."""
        signals, run = StopOnSignal(), Run(None, 1)
        signals.codes = []
        monkeypatch.setattr(os, "_exit", signals.codes.append)
        monkeypatch.setattr("cnn.cli.signals._write", lambda text: None)
        signals.on_start(run)
        yield signals
        signals.on_end(run)

    @pytest.mark.parametrize(
        ("numbers", "received", "codes"),
        [
            ([HANG_UP, HANG_UP], HANG_UP, []),
            ([signal.SIGTERM, HANG_UP], signal.SIGTERM, []),
            ([HANG_UP, signal.SIGTERM], signal.SIGTERM, []),
            ([HANG_UP, signal.SIGTERM, signal.SIGTERM], signal.SIGTERM, [143]),
        ],
    )
    def test_it_is_never_the_second_signal_nor_the_first(self, signals, numbers, received, codes):
        for number in numbers:
            os.kill(os.getpid(), number)
        assert (signals.received, signals.codes) == (received, codes)

    def test_nohup_is_heeded(self, train, stop_after):
        before = signal.signal(HANG_UP, signal.SIG_IGN)
        try:
            stop_after(11, HANG_UP)
            assert train("run")[0] == 0
        finally:
            signal.signal(HANG_UP, before)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_a_real_process_whose_terminal_closes(own_data, tmp_path):
    arguments = [*map(str, SMALL), "--data", str(own_data), "--epochs", "100000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cnn", "train", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            break
    process.stderr.close()  # nobody reads its log any more
    for _ in range(2):
        process.send_signal(HANG_UP)
    assert process.wait() == 129
    checkpoint = SavedTraining.read(tmp_path / "run/checkpoint.safetensors")
    assert checkpoint.epoch >= 3
    assert load_file(tmp_path / "run/model.safetensors").keys() == weights_in(checkpoint.arrays).keys()


class TestResume:
    @pytest.fixture
    def stopped(self, train, stop_after):
        """A run that was stopped in epoch 2 of 4."""
        stop_after(11)
        train("run")
        stop_after(None)

    @pytest.mark.parametrize("tested", [True, False])
    def test_a_finished_run_that_has_failed_says_so_again(self, train, command, tested):
        code, _, err = train("run", "--learning-rate", 100, "--clip", 0)
        failure = err.splitlines()[-1]
        assert (code, failure.partition(" failed: ")[0]) == (1, "error: the training run has")
        if not tested:
            RunFolder("run").evaluation.unlink()
        again, _, err = command("train", "--resume", "run", "--no-report")
        assert (again, err.splitlines()[-1]) == (1, failure)

    def test_a_finished_run_is_left_as_it_is(self, train, command):
        _, first, _ = train("run")
        before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
        code, out, err = command("train", "--resume", "run", "--no-report")
        assert (code, out, err) == (0, first, "run is finished: give more --epochs to train it further\n")
        assert {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()} == before

    def test_a_run_that_was_killed_before_its_test_is_tested(self, train, command):
        _, first, _ = train("run")
        Path("run/evaluation.safetensors").unlink()
        assert command("train", "--resume", "run", "--no-report")[:2] == (0, first)
        assert Path("run/evaluation.safetensors").exists()

    def test_more_epochs_go_on_with_it(self, train, command):
        train("run")
        code, _, err = command("train", "--resume", "run", "--epochs", 6, "--no-report")
        assert (code, re.findall(r"epoch \d/\d", err)) == (0, ["epoch 5/6", "epoch 6/6"])
        assert len(Path("run/metrics.csv").read_text().splitlines()) == 7
        assert json.loads(Path("run/config.json").read_text())["epochs"] == 6
        assert command("train", "--resume", "run", "--epochs", 5)[::2] == (
            2, "error: run/checkpoint.safetensors: the training run is at the end of epoch 6, but epochs is "
            "5: expected more\n"
        )  # fmt: skip

    def test_without_a_checkpoint_it_starts_over(self, train, command, stopped):
        train("whole")
        Path("run/checkpoint.safetensors").unlink()
        code, _, err = command("train", "--resume", "run", "--no-report")
        assert (code, re.findall(r"epoch \d/\d", err)) == (0, [f"epoch {n}/4" for n in (1, 2, 3, 4)])
        assert weights("run") == weights("whole")

    def test_what_killed_writers_left_is_removed(self, command, stopped):
        Path("run/.checkpoint.safetensors.abcd.unfinished").write_bytes(b"half")
        command("train", "--resume", "run", "--no-report")
        assert not [path for path in Path("run").iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize(
        "flags",
        [("--seed", 1), ("--batch-size", 16), ("--out", "b"), ("--kernels", "auto"), ("--no-fuse",),
         ("--config", "run")],
    )  # fmt: skip
    def test_it_takes_no_other_training_flags(self, command, stopped, flags):
        code, _, err = command("train", "--resume", "run", *flags)
        assert (code, err) == (
            2,
            f"error: {flags[0].replace('no-', '')} cannot be given with --resume: "
            "only the settings --data, --epochs, --stop-at, --early-stopping, --max-minutes, --device, "
            "--threads, --winograd, --recompute may change\n",
        )

    def test_it_takes_a_device(self, command, stopped):
        assert command("train", "--resume", "run", "--device", "cpu", "--no-report")[0] == 0
        assert json.loads(Path("run/config.json").read_text())["device"] == "cpu"

    def test_other_data_in_the_same_place_are_refused(self, command, stopped, own_data, tmp_path):
        config = json.loads(Path("run/config.json").read_text())
        arrays = dict(np.load(own_data))
        np.savez(tmp_path / "other.npz", **arrays | {"classes": np.array(["day", "night"])})
        Path("run/config.json").write_text(json.dumps(config | {"data": str(tmp_path / "other.npz")}))
        code, _, err = command("train", "--resume", "run")
        assert code == 2
        assert "run was trained on images (1, 20, 20) of 2 classes, the data are now Dataset(" in err

    def test_a_folder_that_is_no_run_is_named(self, command, tmp_path):
        (tmp_path / "empty").mkdir()
        for name in ("empty", "none"):
            code, _, err = command("train", "--resume", name)
            assert (code, err.startswith(f"error: {name} is not the folder of a run")) == (2, True)

    def test_a_damaged_checkpoint_is_named(self, command, stopped):
        path = Path("run/checkpoint.safetensors")
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        code, _, err = command("train", "--resume", "run")
        assert (code, err) == (
            2,
            "error: run/checkpoint.safetensors: the checkpoint is damaged, its checksum does not match its "
            "contents: delete it to start over\n",
        )

    def test_two_processes_do_not_train_in_one_folder(self, command, stopped):
        with RunFolder("run").alone():
            code, _, err = command("train", "--resume", "run")
        assert (code, err) == (2, "error: another process is training in run: wait until it ends\n")

    def test_an_imported_run_has_nothing_to_go_on_with(self, train, command, own_data):
        train("run")
        arguments = ("--model", "notebook", "--data", own_data, "--out", "imported")
        assert command("import", "run/model.safetensors", *arguments)[0] == 0
        code, _, err = command("train", "--resume", "imported")
        assert code == 2
        assert "imported cannot be resumed, it has no checkpoint: it was imported" in err


class TestElsewhere:
    """A run is resumed on a machine with other cores, data, devices or kernels, which is said."""

    @pytest.fixture
    def stopped(self, train, stop_after):
        """A run of one thread that was stopped in epoch 2 of 4."""
        pytest.importorskip("threadpoolctl")
        stop_after(11)
        train("run", "--threads", 1)
        stop_after(None)

    def was(self, **device):
        """Let the run have been trained on another device than this one."""
        path = Path("run/environment.json")
        environment = json.loads(path.read_text())
        path.write_text(json.dumps(environment | {"device": environment["device"] | device}))

    def config(self, **changed):
        path = Path("run/config.json")
        config = json.loads(path.read_text()) | changed
        path.write_text(json.dumps(config))
        return config

    def test_on_the_same_nothing_is_said(self, command, stopped):
        code, _, err = command("train", "--resume", "run", "--no-report")
        assert (code, "note:" in err) == (0, False)

    def test_fewer_cores(self, command, stopped):
        cores = available_cores()
        self.config(threads=cores + 1)
        self.was(threads=cores + 1, processor="Z80")
        code, _, err = command("train", "--resume", "run", "--no-report")
        assert code == 0
        assert f"the run had --threads {cores + 1}; it resumes with {cores}, one for each core\n" in err
        assert re.search(
            rf"note: processor was Z80 and is .* now, threads was {cores + 1} and is \d+ now: from here on "
            "the weights may differ in their last digits from those of an uninterrupted run\n",
            err,
        )
        assert self.config()["threads"] == cores
        assert "resumes from epoch 2, step 3 of 8" in err

    @pytest.mark.parametrize(
        ("before", "noted"),
        [("one", False), ("one, two, three", False), ("unknown", True), ("one, old", True)],
    )
    def test_a_blas_that_is_not_loaded_yet_is_no_change(self, stopped, monkeypatch, before, noted):
        backend = backends.get("cpu")
        now = backend.describe() | {"blas": "one, two"}
        monkeypatch.setattr(backend, "describe", lambda: now)
        self.was(**now | {"blas": before})
        changes = [f"blas was {before} and is one, two now"] if noted else []
        assert RunFolder("run").changes(backend) == changes

    def test_a_number_of_threads(self, command, stopped):
        assert command("train", "--resume", "run", "--no-report", "--threads", 1)[0] == 0
        code, _, err = command("train", "--resume", "run", "--threads", 1000)
        assert (code, err.startswith("error: threads is 1000, expected a whole number from 1")) == (2, True)

    @pytest.mark.parametrize("finished", [False, True])
    def test_data_that_have_moved(self, train, command, stopped, own_data, tmp_path, finished):
        if finished:
            command("train", "--resume", "run", "--no-report")
        (tmp_path / "far").mkdir()
        new = shutil.copy(own_data, tmp_path / "far/elsewhere.npz")
        self.config(data="/old/place.npz")
        said = "error: the run's data are no longer at /old/place.npz: give their new path with --data\n"
        assert command("train", "--resume", "run")[::2] == (2, said)
        assert command("evaluate", "run")[::2] == (2, said)
        code, _, err = command("train", "--resume", "run", "--data", "far/elsewhere.npz", "--no-report")
        assert (code, "last digits" in err) == (0, False)
        assert self.config()["data"] == str(new)
        assert command("evaluate", "run")[0] == 0
        train("whole", "--threads", 1)
        assert weights("run") == weights("whole")

    def test_other_data(self, command, stopped, own_data, tmp_path):
        arrays = dict(np.load(own_data))
        np.savez(tmp_path / "other.npz", **arrays | {"x_train": 255 - arrays["x_train"]})
        before = Path("run/config.json").read_bytes()
        code, _, err = command("train", "--resume", "run", "--data", "other.npz")
        assert (code, err) == (
            2,
            "error: run/checkpoint.safetensors: the training run began with 120 images that are not those of "
            "Dataset(120 images 1x20x20 uint8, 2 classes): give the data that it began with\n",
        )
        assert Path("run/config.json").read_bytes() == before

    def test_kernels_that_are_not_there(self, command, stopped, monkeypatch):
        def missing(self):
            raise DeviceUnavailable("there is no Numba: pip install numba")

        monkeypatch.setattr(registry, "_made", {})
        monkeypatch.setattr(backends.CpuBackend, "compiled_kernels", missing)
        self.config(kernels="compiled")
        code, _, err = command("train", "--resume", "run", "--no-report")
        assert code == 0, err
        assert err.startswith(
            "note: the run had --kernels compiled; it resumes with portable: there is no Numba"
        )

    @pytest.mark.skipif(not cuda_missing(), reason="there is a GPU")
    def test_a_device_that_is_not_there(self, command, stopped):
        self.config(device="cuda")
        code, _, err = command("train", "--resume", "run")
        assert (code, err.count("\n")) == (2, 1)
        assert err.endswith("; or resume the run on another device with --device\n")
        self.was(device="cuda:0")
        code, _, err = command("train", "--resume", "run", "--device", "cpu", "--no-report")
        assert (code, "note: device was cuda:0 and is cpu now: from here on" in err) == (0, True)

    def test_a_folder_that_does_not_say_where_it_was_trained(self, command, stopped):
        Path("run/environment.json").write_text("[]")
        assert command("train", "--resume", "run", "--no-report")[0] == 0


class TestValidation:
    def test_a_part_of_the_training_images_is_held_out_and_the_best_weights_are_kept(self, train):
        code, out, err = train("run", "--validation", 0.25)
        assert code == 0
        assert "notebook on 90 images" in err
        assert "on 40 images" in out
        best = cnn.load("run/best.safetensors", device="cpu")
        metrics = np.genfromtxt("run/metrics.csv", delimiter=",", names=True)
        train_set, _ = cnn.data.load(json.loads(Path("run/config.json").read_text())["data"])
        held_out = train_set.split(0.25, seed=0)[1]
        assert cnn.evaluate(best, held_out)["loss"] == pytest.approx(
            metrics["validation_loss"].min(), rel=1e-3
        )

    def test_without_it_no_weights_are_chosen_by_the_test(self, train, command):
        train("run")
        assert not Path("run/best.safetensors").exists()
        code, out, err = command("evaluate", "run", "--weights", "best")
        assert (code, out) == (2, "")
        assert err == (
            "error: run has no best.safetensors: `cnn train` keeps the best weights only with --validation, "
            "after the first epoch; leave out --weights best\n"
        )
        assert command("evaluate", "run", "--weights", "first")[2] == (
            "error: --weights is 'first', expected last or best\n"
        )

    @pytest.mark.parametrize("share", [-0.1, 1, 7])
    def test_a_share_that_leaves_no_image_is_refused(self, train, share):
        code, _, err = train("run", "--validation", share)
        assert (code, err.startswith("error: ")) == (2, True)
        assert not Path("run").exists()


class TestBestWeights:
    """After --validation everything uses the best weights, and says of which epoch they are."""

    @pytest.fixture
    def trained(self, train, monkeypatch):
        """What a run answers that got worse after its second epoch."""
        evaluate, losses = Validator.result, iter([0.5, 0.25, 0.75, 0.25, 0.2, 0.3])
        monkeypatch.setattr(Validator, "result", lambda *a: {**evaluate(*a), "loss": next(losses)})
        answer = train("run", "--validation", 0.25, "--json")
        monkeypatch.setattr(Validator, "result", evaluate)
        return json.loads(answer[1])

    def figures(self, path, data):
        device = backends.get("cpu", "portable")  # as in SMALL
        return cnn.evaluate(cnn.load(path, device), cnn.data.load(data)[1])

    def test_the_test_takes_them(self, trained, own_data, command):
        assert (trained["weights"], trained["epoch"]) == ("best", 2)
        assert trained["loss"] == self.figures("run/best.safetensors", own_data)["loss"]
        assert trained["loss"] != self.figures("run/model.safetensors", own_data)["loss"]
        _, out, _ = command("train", "--resume", "run", "--no-report")
        assert re.fullmatch(
            r"test accuracy .*%, loss .*, on 40 images; weights: the best, of epoch 2", out.splitlines()[0]
        )

    def test_more_epochs_may_find_better_ones(self, trained, command, monkeypatch):
        evaluate, losses = Validator.result, iter([0.3, 0.2])
        monkeypatch.setattr(Validator, "result", lambda *a: {**evaluate(*a), "loss": next(losses)})
        _, out, _ = command("train", "--resume", "run", "--epochs", 6, "--no-report")
        assert out.splitlines()[0].endswith("; weights: the best, of epoch 6")

    def test_evaluate_takes_either(self, trained, command, own_data):
        shown = {name: trained[name] for name in ("loss", "accuracy", "count", "weights", "epoch")}
        portable = ("--kernels", "portable", "--json")
        for given in ((), ("--weights", "best")):
            assert shown.items() <= json.loads(command("evaluate", "run", *portable, *given)[1]).items()
        last = json.loads(command("evaluate", "run", *portable, "--weights", "last")[1])
        expected = {**self.figures("run/model.safetensors", own_data), "count": 40}
        assert expected.items() <= last.items()
        assert "epoch" not in last

    def test_predict_and_export_take_either(self, trained, command, monkeypatch):
        Image = pytest.importorskip("PIL.Image")
        Image.fromarray(np.full((20, 20), 90, dtype=np.uint8)).save("picture.png")
        networks = []
        monkeypatch.setattr("cnn.saving.onnx.export", lambda network, *_: networks.append(network))
        said = "weights: the best, of epoch 2; --weights last takes those of the end\n"
        shares = {}
        for given in ((), ("--weights", "best"), ("--weights", "last")):
            code, out, err = command("predict", "run", "picture.png", "--json", *given)
            assert (code, err) == (0, "" if given else said)
            shares[given] = json.loads(out)[0]["probabilities"]
            code, _, err = command("export", "run", "run.onnx", *given)
            assert (code, err) == (0, "" if given else said)
        assert shares[()] == shares["--weights", "best"] != shares["--weights", "last"]
        for network, name in zip(networks, ("best", "best", "model"), strict=True):
            kept = load_file(f"run/{name}.safetensors")
            np.testing.assert_array_equal(network.state_dict()["0.bias"], kept["0.bias"])

    def test_the_report_shows_those_that_were_tested(self, trained):
        record = RunRecord.read(RunFolder("run"))
        assert (record.evaluation.weights, record.evaluation.epoch) == ("best", 2)
        kept = load_file("run/best.safetensors")
        np.testing.assert_array_equal(record.network.state_dict()["0.bias"], kept["0.bias"])
        assert _result(record)["weights"] == "the best, of epoch 2"

    def test_a_run_of_version_0_1_is_what_it_was(self, trained, command):
        network = cnn.load("run/best.safetensors", device="cpu")
        network.save("run/best.safetensors")  # without the epoch
        found = Evaluation.load("run/evaluation.safetensors")
        replace(found, weights="last", epoch=None).save("run/evaluation.safetensors")
        record = RunRecord.read(RunFolder("run"))
        last = load_file("run/model.safetensors")
        np.testing.assert_array_equal(record.network.state_dict()["0.bias"], last["0.bias"])
        assert "weights" not in _result(record)
        assert command("evaluate", "run")[1].splitlines()[0].endswith("on 40 images; weights: the best")
