"""Mistakes: one sentence on standard error, exit code 2, and nothing left behind."""

import gzip
import re
import shutil

import numpy as np
import pytest
from helpers.small_run import SMALL

import backends
import cnn
from backends import DeviceUnavailable


class TestMistakes:
    """One clear sentence on standard error, exit code 2, nothing left behind."""

    def refused(self, command, tmp_path, message, *arguments):
        before = set(tmp_path.rglob("*"))
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        sentences = err.splitlines()
        assert len(sentences) == 1, err
        assert sentences[0].startswith("error: ")
        assert re.search(message, sentences[0]), sentences[0]
        assert set(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--device", "gpu"), "unknown device 'gpu': expected auto, cpu, cuda or cuda:N"),
            (("--kernels", "fast"), "unknown kernels 'fast': expected auto, compiled, portable or signal"),
            (("--model", "resnet"), "unknown model 'resnet': expected notebook, lenet5, "),
            (("--optimizer", "lbfgs"), "unknown optimizer 'lbfgs': expected sgd, adam, adamw"),
            (("--schedule", "zigzag"), "unknown schedule 'zigzag'"),
            (("--batch-size", 0), "batch_size is 0, expected a whole number of at least 1"),
            (("--epochs", -1), "epochs is -1"),
            (("--threads", 0), "threads is 0"),
            (("--seed", -1), "seed is -1"),
            (("--learning-rate", -0.1), "learning_rate is -0.1"),
            (("--momentum", 1), "momentum is 1"),
            (("--dtype", "int8"), "dtype is 'int8'"),
            (("--warmup", 1.5), "warmup is 1.5"),
            (("--stop-at", 99), "stop_at is 99.0, expected a number of at least 0 and at most 1"),
            (("--optimizer", "adam", "--momentum", 0.9), "momentum is 0.9, but adam has none"),
            (("--per-class", 0), "per_class is 0"),
            (("--classes", "0,11"), "unknown class '11'"),
            (("--data", "nowhere"), "nowhere"),
            (
                ("--accumulate", 129),
                "accumulate is 129, expected at most 128, the number of images in a batch",
            ),
            (("--accumulate", 129, "--dry-run"), "accumulate is 129, expected at most 128"),
        ],
    )
    def test_in_flags(self, command, tmp_path, flags, message):
        self.refused(command, tmp_path, message, "train", "--model", "notebook", *flags)

    @pytest.mark.parametrize(
        "flags",
        [
            ("--optimizer", "SGD"),
            ("--schedule", "zigzag"),
            ("--model", "resnet"),
            ("--dtype", "int8"),
            ("--kernels", "fast"),
            ("--epochs", "0"),
            ("--batch-size", "0"),
            ("--seed", "-1"),
            ("--validation", "2"),
            ("--clip", "-1"),
            ("--warmup", "1.5"),
        ],
    )
    @pytest.mark.parametrize("dry", [(), ("--dry-run",)])
    def test_in_flags_before_the_data_are_loaded(self, command, monkeypatch, flags, dry):
        monkeypatch.setattr(cnn.data, "load", lambda source: pytest.fail("the data are loaded"))
        code, out, err = command("train", "--device", "cpu", *flags, *dry)
        assert (code, out, err[:7], err.count("\n")) == (2, "", "error: ", 1)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("zz",), "no such command 'zz': `cnn --help` shows"),
            (("train", "--zz"), "no such option: --zz.*: `cnn train --help` shows"),
            (("train", "--epochs", "x"), "invalid value for '--epochs'.*: `cnn train --help` shows"),
            (("train", "--epochs"), "option '--epochs' requires an argument"),
            (("evaluate",), "missing argument"),
            (("info", "more"), "unexpected extra argument"),
        ],
    )
    def test_in_what_is_typed(self, command, tmp_path, arguments, message):
        self.refused(command, tmp_path, message, *arguments)

    def test_without_a_command_the_help_is_shown(self, command):
        code, out, err = command()
        assert (code, out) == (2, "")
        assert err == command("--help")[1]

    def test_cuda_where_there_is_none(self, command, tmp_path):
        if not isinstance(backends.available().get("cuda"), DeviceUnavailable):
            pytest.skip("there is a CUDA device here")
        self.refused(command, tmp_path, "CUDA|CuPy|driver", "train", "--device", "cuda")

    def test_a_kernel_that_does_not_fit_the_images(self, command, tmp_path):
        images, labels = np.zeros((4, 9, 9), dtype=np.uint8), np.array([0, 1, 0, 1])
        np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        message = r"layer 3 Conv2D: a 5x5 kernel does not fit a 4x4 input; the largest that fits is 4x4"
        self.refused(command, tmp_path, message, "train", "--data", "tiny.npz")

    def test_an_output_folder_that_exists(self, command, tmp_path, own_data):
        (tmp_path / "taken").mkdir()
        arguments = ("train", *SMALL, "--data", own_data, "--out", "taken")
        self.refused(command, tmp_path, "the output folder taken exists: give --out another name", *arguments)

    def test_an_output_folder_that_cannot_be_written(self, command, tmp_path, own_data):
        (tmp_path / "file").write_text("")
        arguments = ("train", *SMALL, "--data", own_data, "--out", "file/run")
        self.refused(command, tmp_path, "output folder file/run cannot be written", *arguments)

    def test_damaged_data(self, command, tmp_path, own_data):
        whole = own_data.read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        self.refused(command, tmp_path, r"cut\.npz", "train", "--data", "cut.npz")
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        (tmp_path / "flipped.npz").write_bytes(flipped)
        self.refused(command, tmp_path, r"flipped\.npz", "train", "--data", "flipped.npz")

    def test_a_labels_file_that_holds_images(self, command, tmp_path):
        folder = tmp_path / "digits"
        folder.mkdir()
        image = (0x803).to_bytes(4, "big") + b"".join((n).to_bytes(4, "big") for n in (1, 2, 2)) + bytes(4)
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(image))
        self.refused(command, tmp_path, "train-labels-idx1-ubyte.gz", "train", "--data", "digits")

    def test_an_npz_that_holds_objects_is_never_unpickled(self, command, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        np.savez(tmp_path / "trap.npz", x_train=np.array([Trap()], dtype=object))
        self.refused(command, tmp_path, "trap.npz", "train", "--data", "trap.npz")
        assert not (tmp_path / "sprung").exists()

    def test_labels_out_of_range(self, command, tmp_path):
        images = np.zeros((4, 28, 28), dtype=np.uint8)
        for bad in (-1, 1000):
            labels = np.array([0, 1, bad, 1])
            np.savez(tmp_path / "bad.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
            self.refused(
                command, tmp_path, rf"{bad} at position 2.*out of range", "train", "--data", "bad.npz"
            )

    @pytest.mark.parametrize("labels", [[3, 7], [1], [0, 9]])
    def test_labels_with_more_gaps_than_classes(self, command, tmp_path, labels):
        images, labels = np.zeros((len(labels), 28, 28), dtype=np.uint8), np.array(labels)
        np.savez(tmp_path / "gaps.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        self.refused(command, tmp_path, "no image.*`classes`", "train", "--data", "gaps.npz")

    def test_evaluate_of_what_is_no_run(self, command, tmp_path):
        self.refused(
            command, tmp_path, "not the folder of a run, it has no config.json", "evaluate", "nowhere"
        )
        (tmp_path / "config.json").write_text("{}")
        self.refused(command, tmp_path, "config.json lacks 'model': it is damaged", "evaluate", ".")
        (tmp_path / "config.json").write_text("{")
        self.refused(command, tmp_path, "config.json cannot be read", "evaluate", ".")

    def test_weights_of_another_architecture(self, command, tmp_path, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        other = cnn.models.lenet5()
        other.build((1, 28, 28), backend="cpu")
        other.save(tmp_path / "run" / "model.safetensors")
        self.refused(command, tmp_path, r"run/model\.safetensors: the weights", "evaluate", "run")

    def test_images_of_another_shape(self, command, tmp_path, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0
        arrays = dict(np.load(own_data))
        for part in ("x_train", "x_test"):
            arrays[part] = arrays[part][:, :15]
        np.savez(tmp_path / "short.npz", **arrays)
        arguments = ("evaluate", "run", "--data", "short.npz")
        self.refused(
            command, tmp_path, r"images are \(40, 1, 15, 20\).*built for \(N, 1, 20, 20\)", *arguments
        )

    def test_a_training_that_diverges_says_so(self, command, tmp_path, own_data):
        arguments = ("train", *SMALL, "--data", own_data, "--model", "lenet5", "--learning-rate", 1e20)
        with np.errstate(all="ignore"):
            code, out, err = command(*arguments, "--out", "run")
        assert (code, out) == (1, "")
        assert "the loss became" in err
        assert "start again with a lower learning rate" in err
        shutil.rmtree("run")
