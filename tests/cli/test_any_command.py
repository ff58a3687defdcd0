"""The command with any flags: exit code 0, or 2 with one sentence; never a traceback, nothing left behind."""

import contextlib
import io
import shutil
import sys
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("PIL")
import typer
from helpers.any_values import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backends.cpu import threads
from backends.cpu.threads import limit_threads
from cnn import cli
from cnn.demo import Server

ODD_WORDS = st.sampled_from(
    [
        *("0", "-1", "1", "2", "1.5", "nan", "inf", "-inf", "1e400", "1e-300", "0" * 50, "-" + "9" * 30),
        *("", " ", ",", "0,1", "1,0,", "1,28,28", "9" * 30 + ",1,1", "x", "None", "True", "\n", "é", "--"),
    ]
)
WORDS = {
    "recipe": ["mnist-fast", "cifar10", "none"],
    "model": ["lenet5", "notebook", "mnist-small", "resnet8"],
    "base": ["run", "run/model.safetensors", "nowhere"],
    "freeze": ["1", "6", "all-but-head"],
    "old_rate": ["1", "0.1"],
    "classes": ["dark", "bright,dark", "0,1", "1", "2"],
    "per_class": ["1", "7", "9" * 30],
    "epochs": ["1", "2"],
    "batch_size": ["1", "16", "9" * 30],
    "optimizer": ["sgd", "adam", "adamw", "muon", "lamb"],
    "optimizer_options": ["epsilon=1e-6", "betas=0.5:0.9", "steps=3,unit_rows=true", "steps=true", "betas="],
    "learning_rate": ["0", "0.01", "0.1"],
    "bias_rate": ["0", "1", "64"],
    "schedule": ["constant", "step", "linear", "cosine", "one-cycle", "plateau"],
    "label_smoothing": ["0", "0.1", "0.99"],
    "class_weights": ["balanced", "even"],
    "size": ["64", "8x9", "0", "big"],
    "channels": ["1", "2", "3"],
    "warmup": ["0", "0.5", "0.99", "100"],
    "momentum": ["0", "0.9"],
    "weight_decay": ["0", "0.01"],
    "clip": ["0", "1", "1e-9"],
    "clip_value": ["0", "0.1"],
    "accumulate": ["1", "3"],
    "shards": ["1", "3"],
    "timeout": ["1", "60"],
    "ema": ["0", "0.9"],
    "early_stopping": ["1", "2"],
    "stop_at": ["0.5", "1"],
    "max_minutes": ["0.001", "10"],
    "validation": ["0", "0.25", "0.999"],
    "seed": ["0", "7", "9" * 30],
    "device": ["cpu", "auto", "cuda", "cuda:0", "cuda:99999999999999999999"],
    "kernels": ["auto", "portable", "signal"],
    "threads": ["1", "100000"],
    "dtype": ["float32", "float64"],
    "layer": ["layers.py:Scale()", "nowhere.py:Scale()"],
    "input_shape": ["1,28,28", "3,20,31", "1,1,1", "1,2147483647,2147483647"],
    "entries": ["1", "3"],
    "top": ["1", "9" * 30],
    "fit": ["auto", "digit", "resize", "crop", "letterbox", "stretch"],
    "weights": ["last", "best"],
    "augment": [
        "shift=2,flip",
        "crop=4:reflect,alternating-flip",
        "rotate=10,erase=4:0.5",
        "mixup=0.2",
        "none",
    ],
    "tta": ["mirror", "mirror,shifts=1", "shifts=100", "none"],
}
# files and further processes, which have tests of their own
LEFT_OUT = ("config_file", "resume", "data", "out", "sheet", "processes")

SMALL = ("--model", "notebook", "--device", "cpu", "--epochs", "1", "--no-report")


@pytest.fixture(scope="module")
def place(tmp_path_factory, own_data):
    """A folder with a trained run in it, and a picture; the threads are what they were when all is done."""
    folder = tmp_path_factory.mktemp("any")
    stroke = np.pad(np.full((14, 3), 255, dtype=np.uint8), ((3, 3), (8, 9)))
    Image.fromarray(stroke).save(folder / "picture.png")
    with limit_threads(threads.count()), contextlib.chdir(folder):
        assert run("train", *SMALL, "--data", str(own_data), "--out", "run")[0] == 0
        yield folder


def run(*words):
    """(exit code, standard output, standard error) of the command."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["cnn", *words]),
        mock.patch.object(Server, "serve_forever", side_effect=KeyboardInterrupt),
        mock.patch("webbrowser.open"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


def flags_of(name):
    """A command's flags by the names of its parameters: (how they are written, whether they take a value)."""
    command = typer.main.get_command(cli.app).commands[name]
    return {
        parameter.name: (parameter.opts[0], not parameter.is_flag)
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name not in LEFT_OUT
    }


@st.composite
def any_flags(draw, command):
    """Some flags of a command, each with a documented value or an odd one."""
    of_the_command, words = flags_of(command), []
    for name in draw(st.lists(st.sampled_from(sorted(of_the_command)), unique=True, max_size=5)):
        flag, takes_value = of_the_command[name]
        words.append(flag)
        if takes_value:
            documented = st.sampled_from(WORDS[name])
            words.append(draw(documented | documented | ODD_WORDS))
    return words


def assert_that_it_went_well_or_was_refused(code, out, err):
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if code == 0:
        assert out
        assert not errors
    else:
        failed = "the training run has failed" in err  # to its end, so that there is a result
        assert code == 2 - (failed or "has diverged" in err)
        assert bool(out) == failed
        assert len(errors) == 1
        assert err.splitlines()[-1] == errors[0]


@pytest.mark.parametrize(
    ("command", "given_words"),
    [
        ("summary", ()),
        ("gradcheck", ("--entries", "1")),
        ("evaluate", ("run",)),
        ("predict", ("run", "picture.png")),
        ("demo", ("run",)),
    ],
)
@examples(10)
@given(data=st.data())
def test_it_answers_or_says_why_not(place, command, given_words, data):
    assert_that_it_went_well_or_was_refused(*run(command, *given_words, *data.draw(any_flags(command))))


@examples(15)
@given(flags=any_flags("train"))
def test_a_training_runs_or_leaves_nothing_behind(place, own_data, flags):
    out_folder = place / "new"
    try:
        code, out, err = run("train", *SMALL, "--data", str(own_data), "--out", "new", *flags)
        assert_that_it_went_well_or_was_refused(code, out, err)
        assert out_folder.exists() == (code != 2 and not {"--dry-run", "--find-rate"} & set(flags))
    finally:
        shutil.rmtree(out_folder, ignore_errors=True)
