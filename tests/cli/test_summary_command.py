"""`cnn summary`: for whose images the model is built, and the sheet of augmented pictures."""

import json

import pytest
from helpers.standin import StandInBackend

import cnn
from cnn.inspection import summary

pytest.importorskip("PIL")
from PIL import Image


def layers(command, *arguments):
    code, out, err = command("summary", "--json", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)["layers"]


def test_the_model_is_built_for_the_images_of_a_data_set(command, own_data):
    halves = layers(command, "--model", "notebook", "--data", own_data)
    assert halves == layers(command, "--model", "notebook", "--input-shape", "1,20,20", "--classes", 2)
    assert halves != layers(command, "--model", "notebook")


def test_a_shape_or_a_count_that_is_given_wins(command, own_data):
    given = layers(command, "--model", "notebook", "--data", own_data, "--classes", 7)
    assert given == layers(command, "--model", "notebook", "--input-shape", "1,20,20", "--classes", 7)
    given = layers(command, "--model", "notebook", "--data", own_data, "--input-shape", "3,9,9")
    assert given == layers(command, "--model", "notebook", "--input-shape", "3,9,9", "--classes", 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_the_table_is_that_of_a_network_on_a_gpu(command, dtype):
    pytest.importorskip("ml_dtypes")
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=StandInBackend(), dtype=dtype)
    table = layers(command, "--model", "lenet5", "--dtype", dtype)
    assert table == summary.rows(network)
    assert (table[-1]["bytes"], layers(command, "--model", "lenet5")[-1]["bytes"]) == (20, 40)
    code, out, _ = command("summary", "--model", "lenet5", "--dtype", dtype)
    assert code == 0
    assert f"{dtype} on CUDA GPUs; parameters and their gradients use 606.2 KB" in out


def test_the_sheet_is_a_png(command, own_data, tmp_path):
    code, out, _ = command("summary", "--augment", "flip", "--data", own_data, "--sheet", "flips.png")
    assert (code, out) == (0, "wrote flips.png\n")
    assert Image.open(tmp_path / "flips.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--augment", "flip", "--sheet", "y.jpg"), "--sheet is 'y.jpg', expected a name that ends in .png"),
        (("--sheet", "y.png"), "--sheet needs --augment"),
        (("--data", "nowhere"), "there is no data set 'nowhere'"),
        (("--input-shape", "28x28"), "--input-shape is '28x28', expected numbers as in 1,28,28"),
    ],
)
def test_what_cannot_be_shown(command, tmp_path, arguments, message):
    code, out, err = command("summary", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not list(tmp_path.iterdir())
