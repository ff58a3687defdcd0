"""``--dtype``: 16 bits are for GPUs, and the command says so."""

import re

import pytest

TRAIN = ("train", "--data", "mnist", "--per-class", 5, "--epochs", 1, "--device", "cpu", "--out", "run")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("arguments", [TRAIN, ("compare", "--device", "cpu")], ids=lambda a: a[0])
def test_the_cpu_refuses_16_bits_in_a_sentence(command, tmp_path, arguments, dtype):
    code, _, errors = command(*arguments, "--dtype", dtype)
    assert code == 2
    sentence = f"dtype is {dtype}, expected float32 or float64 on cpu: only CUDA GPUs compute in 16 bits"
    assert sentence in re.sub(r"\s+", " ", errors)
    assert "=" not in errors  # a sentence for Python and for the command line
    assert not (tmp_path / "run").exists()


def test_the_help_says_where_16_bits_are_computed(command):
    code, output, _ = command("train", "--help")
    assert code == 0
    words = re.sub(r"[\s│|]+", " ", output)
    assert (
        "float32 or float64; on CUDA GPUs also bfloat16 or float16, which store activations in 16 bits"
        in words
    )


@pytest.mark.parametrize(("given", "meant"), [("bf16", "bfloat16"), ("fp16", "float16"), ("half", "float16")])
def test_other_names_are_recognized(command, given, meant):
    code, _, errors = command(*TRAIN, "--dtype", given)
    assert code == 2
    assert f"did you mean '{meant}'?" in re.sub(r"\s+", " ", errors)
