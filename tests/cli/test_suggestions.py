"""What is no flag, command or value is answered with the one that may be meant."""

import re

import pytest

import cnn


def test_version(command):
    for flag in ("--version", "-V"):
        assert command(flag) == (0, f"xpcnn {cnn.__version__}\n", "")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--lr", "--learning-rate"),
        ("--learning_rate", "--learning-rate"),
        ("--LR", "--learning-rate"),
        ("--learn", "--learning-rate"),
        ("--batch", "--batch-size"),
        ("--bs", "--batch-size"),
        ("--batchsize", "--batch-size"),
        ("-b", "--batch-size"),
        ("--wd", "--weight-decay"),
        ("--epoch", "--epochs"),
        ("--num-epochs", "--epochs"),
        ("--gpu", "--device cuda"),
        ("--cuda", "--device cuda"),
        ("--cpu", "--device cpu"),
        ("--no-cuda", "--device cpu"),
        ("--output", "--out"),
        ("--output-dir", "--out"),
        ("--dataset", "--data"),
        ("--workers", "--threads"),
        ("--fp64", "--dtype float64"),
        ("--checkpoint", "--resume"),
        ("--arch", "--model"),
        ("--optim", "--optimizer"),
        ("--val-split", "--validation"),
        ("--momentun", "--momentum"),
        ("--betas", "--optimizer-options"),
        ("--bias-lr", "--bias-rate"),
        ("--zca", "--whiten"),
        ("--nofuse", "--no-fuse"),
        ("--no-reports", "--no-report"),
    ],
)
def test_a_flag_of_another_program(command, given, meant):
    code, out, err = command("train", given, "3")
    assert (code, out) == (2, "")
    assert (
        err
        == f"error: no such option: {given}; did you mean `{meant}`? `cnn train --help` shows what there is\n"
    )


def test_a_flag_is_meant_only_if_the_command_has_it(command):
    _, _, err = command("info", "--lr", "3")
    assert err == "error: no such option: --lr: `cnn info --help` shows what there is\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--epochs", "five"], "invalid value for '--epochs': 'five' "),
        (["--warmup", "10%"], "invalid value for '--warmup': '10%' "),
        (["--epochs"], "option '--epochs' requires an argument: "),
        (["--dry-run=yes"], "option '--dry-run' does not take a value: "),
    ],
    ids=" ".join,
)
def test_a_value_of_another_kind_or_none(command, flags, said):
    code, _, err = command("train", *flags)
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert err.endswith(": `cnn train --help` shows what there is\n")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("fit", "cnn train"),
        ("traim", "cnn train"),
        ("test", "cnn evaluate"),
        ("eval", "cnn evaluate"),
        ("infer", "cnn predict"),
        ("benchmark", "cnn compare"),
        ("resume", "cnn train --resume RUN"),
        ("version", "cnn --version"),
        ("help", "cnn --help"),
        ("Export", "cnn export"),
    ],
)
def test_a_command_of_another_program(command, given, meant):
    code, out, err = command(given)
    assert (code, out) == (2, "")
    assert (
        err == f"error: no such command '{given}'; did you mean `{meant}`? `cnn --help` shows what there is\n"
    )


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("--optimizer", "Adam"), "adam"),
        (("--optimizer", "sdg"), "sgd"),
        (("--schedule", "Cosine"), "cosine"),
        (("--model", "LeNet-5"), "lenet5"),
        (("--model", "lenet"), "lenet5"),
        (("--device", "gpu"), "cuda"),
        (("--device", "CPU"), "cpu"),
        (("--kernels", "numba"), "compiled"),
        (("--dtype", "fp32"), "float32"),
        (("--dtype", "double"), "float64"),
        (("--data", "MNIST"), "mnist"),
        (("--data", "fashion_mnist"), "fashion-mnist"),
    ],
    ids=" ".join,
)
def test_a_value(command, own_data, arguments, meant):
    code, _, err = command("train", "--data", own_data, *arguments)
    assert code == 2
    assert err.endswith(f"; did you mean {meant!r}?\n")


@pytest.mark.parametrize(
    "arguments",
    [("--optimizer", "lbfgs"), ("--model", "transformer"), ("--schedule", "zigzag")],
    ids=" ".join,
)
def test_nothing_is_meant_by_what_is_like_nothing(command, own_data, arguments):
    _, _, err = command("train", "--data", own_data, *arguments)
    assert err.startswith("error: unknown")
    assert "did you mean" not in err


def test_a_key_of_a_file_of_flags(command, tmp_path):
    (tmp_path / "mine.toml").write_text("lr = 0.1\n")
    _, _, err = command("train", "--config", "mine.toml")
    assert re.match(
        r"error: mine\.toml: unknown flag 'lr': expected one of .*; did you mean learning-rate\?\n", err
    )
