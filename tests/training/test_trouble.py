"""A training whose device fails in the middle: one sentence, and the last checkpoint stays."""

import gc
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.standin import StandInBackend, counters
from PIL import Image

import backends
import cnn
from backends import DeviceLost, OutOfMemory, registry
from cnn.data.feed import Feed

KEPT = "`cnn train --resume run` resumes from the end of epoch 1"
NONE_KEPT = "there is no checkpoint yet, `cnn train --resume run` starts from the beginning"


@pytest.fixture
def device(monkeypatch):
    """The device that the command finds, whatever it asks for."""
    device = StandInBackend("portable")
    monkeypatch.setattr(registry, "_made", {})
    monkeypatch.setattr(registry, "_make", lambda *_: device)
    return device


@pytest.fixture
def train(command, own_data):
    """``train(...)`` -> (exit code, standard output, the lines of standard error)."""

    def run(*more):
        small = ("--model", "notebook", "--device", "cuda", "--batch-size", 64, "--no-report", "--out", "run")
        code, out, err = command("train", *small, "--data", own_data, "--epochs", 3, *more)
        assert "Traceback" not in err
        return code, out, err.splitlines()

    return run


@pytest.fixture
def after_an_epoch(monkeypatch):
    """``after_an_epoch(change)`` calls that when the first checkpoint has been written."""

    def install(change):
        save = cnn.training.checkpoints.save

        def save_and_change(run, path):
            save(run, path)
            change()

        monkeypatch.setattr(cnn.training.checkpoints, "save", save_and_change)

    return install


def fails_with(error):
    def fails(*_, **__):
        raise error

    return fails


def as_numpy_says_it():
    return np._core._exceptions._ArrayMemoryError((1 << 20, 1 << 10), np.dtype(np.float32))


class TestCommand:
    @pytest.fixture(autouse=True)
    def _on(self, device):
        self.device = device

    def assert_that_an_epoch_is_kept(self):
        assert cnn.load("run/model.safetensors", device="cpu").output_shape == (2,)
        assert len(Path("run/metrics.csv").read_text().splitlines()) == 2

    def test_out_of_memory(self, train, after_an_epoch, monkeypatch):
        def give_nothing_more():
            gc.collect()  # else room could be found later, where other tests' arrays were
            monkeypatch.setattr(counters, "limit", counters.live_bytes)

        after_an_epoch(give_nothing_more)
        code, out, err = train()
        assert (code, out) == (2, "")
        assert re.fullmatch(
            r"error: standin:0 is out of memory: [\d.]+ K?B were requested and [\d.]+ K?B are free; a batch "
            r"of (16|32) should fit \(it was 64\); " + re.escape(KEPT),
            err[-1],
        )
        assert sum("out of memory" in line for line in err) == 1
        monkeypatch.setattr(counters, "limit", None)
        self.assert_that_an_epoch_is_kept()

    def test_a_lost_device(self, train, after_an_epoch, monkeypatch):
        after_an_epoch(
            lambda: monkeypatch.setattr(self.device, "matmul", fails_with(DeviceLost("it is lost")))
        )
        code, out, err = train()
        assert (code, out, err[-1]) == (2, "", f"error: it is lost; {KEPT}")
        self.assert_that_an_epoch_is_kept()

    def test_ctrl_c(self, train, after_an_epoch, monkeypatch):
        after_an_epoch(lambda: monkeypatch.setattr(self.device, "matmul", fails_with(KeyboardInterrupt())))
        code, out, err = train()
        assert (code, out, err[-1]) == (130, "", f"interrupted; {KEPT}")
        self.assert_that_an_epoch_is_kept()

    def test_in_the_first_epoch(self, train, monkeypatch):
        monkeypatch.setattr(self.device, "matmul", fails_with(DeviceLost("it is lost")))
        code, _, err = train()
        assert (code, err[-1]) == (2, f"error: it is lost; {NONE_KEPT}")

    def test_before_training(self, train, monkeypatch):
        monkeypatch.setattr(counters, "limit", 0)
        code, _, err = train()
        assert code == 2
        assert err[-1].startswith("error: standin:0 is out of memory: ")
        assert err[-1].endswith(
            " are free; the parameters alone do not fit: use another device, or a smaller network"
        )

    def test_memory_of_the_host(self, train, after_an_epoch, monkeypatch):
        after_an_epoch(lambda: monkeypatch.setattr(self.device, "matmul", fails_with(as_numpy_says_it())))
        code, _, err = train()
        assert (code, err[-1]) == (
            2,
            "error: cpu is out of memory: 4.0 GB were requested; use smaller images, layers or batches; "
            + KEPT,
        )

    def test_an_end_that_fails_too_hides_nothing(self, train, after_an_epoch, monkeypatch):
        after_an_epoch(
            lambda: monkeypatch.setattr(self.device, "matmul", fails_with(DeviceLost("it is lost")))
        )
        monkeypatch.setattr(cnn.Progress, "on_end", fails_with(OSError(5, "no terminal")))
        code, _, err = train()
        assert (code, err[-1]) == (2, f"error: it is lost; {KEPT}")

    def test_weights_of_another_run_are_not_called_this_ones(self, train, after_an_epoch, monkeypatch):
        train("--epochs", 1)
        monkeypatch.setattr(self.device, "matmul", fails_with(DeviceLost("it is lost")))
        code, _, err = train()
        assert (code, err) == (2, ["error: the output folder run exists: give --out another name"])


ENDING = """
import sys, threading, time
import backends, cnn.cli
from backends import registry
from helpers.standin import Array, StandInBackend

def fail(*_, **__):
    def complain(array):
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
    Array.__del__ = complain
    threading.Thread(target=time.sleep, args=(10,)).start()
    raise backends.DeviceLost("cuda:0 is lost")

device = StandInBackend()
device.name, device.asarray = "cuda:0", fail
registry._make = lambda *_: device
sys.argv = ["cnn", "gradcheck", "--device", "cuda"]
print("printed before")
cnn.cli.main()
"""


class TestEnd:
    """After a device is lost the process ends at once: its objects on the device could only complain."""

    def test_the_sentence_is_the_last_thing_that_is_said(self):
        done = subprocess.run(
            [sys.executable, "-c", ENDING],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stderr == "error: cuda:0 is lost\n"
        assert (done.returncode, done.stdout) == (2, "printed before\n")

    @pytest.fixture
    def ended(self, monkeypatch):
        """The codes that the command ended its process with at once."""
        codes = []

        def end(code):
            codes.append(code)
            raise SystemExit(code)

        monkeypatch.setattr(os, "_exit", end)
        return codes

    @pytest.fixture
    def process(self, command, monkeypatch):
        """The command as if this process were all its own, on a GPU that ``fails``."""
        on_cpu = registry._make

        def run(fails, *arguments):
            device = StandInBackend("portable")
            device.name, device.asarray = "cuda:0", fails
            with monkeypatch.context() as patch:
                patch.setattr(registry, "_made", {})
                patch.setattr(
                    registry, "_make", lambda name, *more: on_cpu(name, *more) if name == "cpu" else device
                )
                patch.setattr(sys.stdout, "fileno", lambda: 1)
                return command(*arguments)

        return run

    def test_whatever_the_command(self, command, process, ended, own_data, monkeypatch):
        lost = fails_with(DeviceLost("it is lost"))
        monkeypatch.setattr("cnn.selftest.run", lost)
        command("train", "--model", "notebook", "--data", own_data, "--no-report", "--out", "run")
        Image.fromarray(np.zeros((20, 20), np.uint8)).save("digit.png")
        on_gpu = ("--model", "notebook", "--device", "cuda")
        commands = [
            ("train", *on_gpu, "--data", own_data, "--out", "other"),
            ("train", "--resume", "run", "--epochs", 4, "--device", "cuda", "--json"),
            ("evaluate", "run", "--device", "cuda", "--json"),
            ("predict", "run", "digit.png", "--device", "cuda"),
            ("compare", *on_gpu),
            ("gradcheck", *on_gpu),
            ("selftest", "--device", "cuda", "--json"),
        ]
        for arguments in commands:
            code, out, err = process(lost, *arguments)
            assert (code, out, err.splitlines()[-1][:17]) == (2, "", "error: it is lost"), arguments
        assert ended == [2] * len(commands)

    def test_but_not_after_another_error(self, process, ended):
        full = fails_with(OutOfMemory("cuda:0", 9, 0, "take less"))
        assert process(full, "gradcheck", "--device", "cuda")[0] == 2
        assert process(full, "evaluate", "nowhere")[0] == 2
        assert ended == []

    def test_a_caller_with_streams_of_its_own_goes_on(self, command, ended, device):
        device.matmul = fails_with(DeviceLost("it is lost"))
        assert command("gradcheck", "--device", "cuda") == (2, "", "error: it is lost\n")
        assert ended == []

    def test_a_device_that_is_lost_while_it_is_tried(self, process, ended, monkeypatch):
        def fails(*_, **__):
            raise backends.DeviceUnavailable("cuda:0 failed: check it") from DeviceLost("it is lost")

        assert process(fails, "gradcheck", "--device", "cuda")[0] == 2
        assert ended == [2]


class TestInference:
    """Nobody chooses its batch size on the command line, so it finds one that fits."""

    network: cnn.Sequential

    @pytest.fixture(autouse=True)
    def _on(self, device, own_data, train):
        self.device = device
        assert train("--epochs", 1)[0] == 0
        self.network = cnn.load("run/model.safetensors", device=device)

    @pytest.fixture
    def data(self):
        images = np.random.default_rng(0).integers(0, 256, (600, *self.network.input_shape), np.uint8)
        return cnn.data.Dataset(images, np.arange(600) % 2)

    @pytest.fixture
    def halved(self, monkeypatch):
        """The batch sizes that did not fit."""
        sizes, halve = [], Feed.halve
        monkeypatch.setattr(Feed, "halve", lambda feed: (sizes.append(feed.batch_size), halve(feed)))
        return sizes

    @pytest.fixture
    def room(self, monkeypatch):
        """``room(nbytes)`` leaves so much memory, besides what is in use."""

        def leave(nbytes):
            gc.collect()
            monkeypatch.setattr(counters, "limit", counters.live_bytes + nbytes)

        return leave

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_batch_is_halved_until_it_fits(self, data, room, stream, halved):
        self.device.room = 0 if stream else 1 << 34
        calm = self.network.copy()
        expected, probabilities = cnn.evaluate(calm, data), calm.predict(data.images)
        room(data.images.nbytes + 200_000)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = cnn.evaluate(self.network, data)
        assert found == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(self.network.predict(data.images), probabilities, rtol=1e-4)
        assert halved[:3] == [256, 128, 64]

    def test_not_even_one_image(self, data, room):
        room(data.images.nbytes + 3 * 8 * len(data))
        with pytest.raises(OutOfMemory, match="; even a batch of 1 does not fit: use another device, or a"):
            cnn.evaluate(self.network, data)

    def test_validation_in_a_training_run(self, data, room, halved):
        class Fills(cnn.Callback):
            def on_step(self, run):
                room(400_000)

        train = cnn.data.Dataset(data.images[:8], data.labels[:8])
        calm = self.network.copy()
        arguments = {"validation": data, "epochs": 1, "batch_size": 8, "seed": 0}
        (expected,) = cnn.fit(calm, train, callbacks=[], **arguments)
        (found,) = cnn.fit(self.network, train, callbacks=[Fills()], **arguments)
        assert halved[:3] == [256, 128, 64]
        assert found["loss"] == expected["loss"]
        assert found["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-5)

    @pytest.mark.parametrize("name", ["evaluate", "predict"])
    def test_commands(self, command, own_data, room, name):
        Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save("one.png")
        pictures = ("one.png", "--prepare", "resize") if name == "predict" else ()
        room(0)
        code, _, err = command(name, "run", "--device", "cuda", *pictures)
        assert (code, err.splitlines()[-1].count("out of memory")) == (2, 1)
        assert err.endswith(": use another device, or a smaller network\n")
        assert "batches" not in err


class TestFit:
    def fit(self, device="cpu", batch_size=16, **more):
        network = cnn.models.notebook(2)
        network.build((1, 20, 20), backend=device)
        images = np.zeros((32, 20, 20), dtype=np.uint8)
        data = cnn.data.Dataset(images, np.arange(32) % 2)
        return cnn.fit(network, data, batch_size=batch_size, **{"callbacks": []} | more)

    def test_the_batch_size_that_should_fit_is_named(self, monkeypatch):
        device = StandInBackend("portable")
        error = OutOfMemory("standin:0", 5 << 20, 3 << 20, "use smaller batches")
        monkeypatch.setattr(device, "matmul", fails_with(error))
        with pytest.raises(OutOfMemory) as caught:
            self.fit(device)
        assert str(caught.value) == (
            "standin:0 is out of memory: 5.0 MB were requested and 3.0 MB are free; "
            "a batch of 8 should fit (it was 16)"
        )
        assert (caught.value.requested, caught.value.free) == (5 << 20, 3 << 20)

    @pytest.mark.parametrize(
        ("batch_size", "advice"),
        [
            (16, "no batch size is certain to fit; try a batch of 2 (it was 16), or {}"),
            (5, "no batch size is certain to fit; try a batch of 1 (it was 5), or {}"),
            (1000, "no batch size is certain to fit; try a batch of 4 (it was 1000), or {}"),  # of 32 images
            (1, "the batch size was 1 already: use {}"),
        ],
    )
    def test_an_estimate_that_finds_no_batch_size_says_so_and_what_to_try(
        self, monkeypatch, batch_size, advice
    ):
        device = StandInBackend("portable")
        error = OutOfMemory("standin:0", 9, 0, "use smaller batches")
        monkeypatch.setattr(device, "memory", lambda: {"used": 1000, "total": 1000})
        monkeypatch.setattr(device, "matmul", fails_with(error))
        with pytest.raises(OutOfMemory) as caught:
            self.fit(device, batch_size)
        others = "a smaller network, or smaller or fewer images"
        assert str(caught.value) == (
            f"standin:0 is out of memory: 9 B were requested and 0 B are free; {advice.format(others)}"
        )

    @pytest.mark.parametrize(
        ("total", "advice"),
        [
            (1 << 30, "a batch of 8 should fit (it was 16)"),
            (0, "use smaller images, layers or batches"),  # where the system does not say
        ],
    )
    def test_on_the_cpu(self, monkeypatch, total, advice):
        device = backends.CpuBackend("portable")
        monkeypatch.setattr(device, "memory", lambda: {"used": 0, "total": total})
        monkeypatch.setattr(device, "matmul", fails_with(as_numpy_says_it()))
        with pytest.raises(OutOfMemory) as caught:
            self.fit(device)
        assert str(caught.value) == f"cpu is out of memory: 4.0 GB were requested; {advice}"

    def test_an_end_that_fails_is_noted_with_what_ended_the_training(self):
        class Stops(cnn.Callback):
            def on_step(self, run):
                raise DeviceLost("it is lost")

            def on_end(self, run):
                raise DeviceLost("it still is")

        ended = []

        class Ends(cnn.Callback):
            def on_end(self, run):
                ended.append(run)

        with pytest.raises(DeviceLost, match="it is lost") as caught:
            self.fit(callbacks=[Ends(), Stops(), Ends()])
        assert caught.value.__notes__ == ["Stops.on_end failed too: it still is"]
        assert len(ended) == 2

    def test_what_training_can_do_without_hides_no_lost_device(self):
        class Logs(cnn.Callback):
            def on_step(self, run):
                raise DeviceLost("it is lost")

        said = []
        with pytest.raises(DeviceLost, match="it is lost"):
            self.fit(callbacks=[cnn.training.callbacks.Dispensable(Logs, "logs", said.append)])
        assert said == []

    def test_an_end_that_fails_alone_is_an_error(self):
        class Fails(cnn.Callback):
            def on_end(self, run):
                raise OSError("no room")

        with pytest.raises(OSError, match="no room"):
            self.fit(callbacks=[Fails()])
