"""Networks as C code: compiled, it gives what ``predict`` gives, and what it cannot express is refused."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, compiled_c
from helpers.compiled_c import CHECKED, Program
from helpers.small_run import SMALL

import cnn
from cnn.saving.c_code import calibration_images, export
from cnn.selftest.cases import LAYERS, NETWORKS

NO_AVERAGES = "batch normalization, no averages"
CASES = [case for case in LAYERS if case.plain and case.name != NO_AVERAGES]
SAMPLES = 40


def with_numbers(network, input_shape, dtype="float32"):
    """The network, built, with random numbers in all its parameters, biases too."""
    network.build(input_shape, backend="cpu", dtype=dtype, winograd=False)
    random = np.random.default_rng(1)
    arrays = {name: random.normal(0, 0.2, shape) for name, shape in network.shapes.items()}
    arrays |= {name: array**2 + 0.1 for name, array in arrays.items() if name.endswith("running_var")}
    network.load_state_dict(arrays)
    return network


def samples_for(network):
    shape = SAMPLES, *network.input_shape
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def expected(network, x):
    """What ``predict`` gives, also for samples that are no images."""
    y = network.probabilities(network.forward(network.backend.asarray(np.moveaxis(x, 0, -1))))
    return np.moveaxis(network.backend.to_host(y), -1, 0).reshape(len(x), -1)


def named(cases):
    """{name: network} of all layers, each followed by a dense one, so that all its numbers count."""
    return {
        case.name: with_numbers(cnn.Sequential(case.make(), cnn.Flatten(), cnn.Dense(4)), case.input_shape)
        for case in cases
    }


def exported(networks, folder, is_int8=False):
    """{name: what was exported}; those that integers cannot express are left out."""
    found = {}
    for number, (name, network) in enumerate(networks.items()):
        path = folder / f"case{number}.c"
        if not is_int8:
            found[name] = export(network, path)
            continue
        with suppress(cnn.ArgumentError):
            found[name] = export(network, path, calibration=samples_for(network))
    return found


def differences(networks, codes, program):
    """{name: (the largest difference from predict, the range of its outputs)}."""
    result = {}
    for name, code in codes.items():
        x = samples_for(networks[name])
        wanted = expected(networks[name], x)
        result[name] = abs(program.predict(code, x) - wanted).max(), np.ptp(wanted)
    return result


@compiled_c.needed
def test_every_layer_gives_what_predict_gives(tmp_path):
    networks = named(CASES)
    codes = exported(networks, tmp_path)
    assert codes.keys() == networks.keys()
    found = differences(networks, codes, Program(list(codes.values())))
    assert {name: pair for name, pair in found.items() if not pair[0] <= 1e-5} == {}
    assert all(spread > 1e-3 for _, spread in found.values())


@compiled_c.needed
def test_layers_in_integers_are_near(tmp_path):
    networks = named(CASES)
    codes = exported(networks, tmp_path, is_int8=True)
    refused = networks.keys() - codes.keys()
    assert {re.split("[ ,]", name)[0] for name in refused} == {"softmax", "log", "layer", "group"}
    found = differences(networks, codes, Program(list(codes.values())))
    assert {name: pair for name, pair in found.items() if not pair[0] <= 0.04 * pair[1]} == {}


MIXTURES = (
    "convolution, depthwise, ReLU, max pooling", "convolution with all options", "padding of every kind",
    "made smaller and larger again", "pooling with all options", "functions of each number",
    "normalized samples, dropped channels", "more channels on the shortcut",
)  # fmt: skip


@compiled_c.needed
@pytest.mark.parametrize("is_int8", [False, True], ids=["float32", "int8"])
def test_networks_stay_inside_their_arrays_and_the_range_of_integers(is_int8, tmp_path):
    examples = [each for each in NETWORKS if each.name in MIXTURES]
    networks = {each.name: with_numbers(each.network(), each.input_shape) for each in examples}
    codes = exported(networks, tmp_path, is_int8)
    found = differences(networks, codes, Program(list(codes.values()), CHECKED))
    limit = 0.05 if is_int8 else 1e-5
    assert {name: pair for name, pair in found.items() if not pair[0] <= limit * max(1, pair[1])} == {}
    assert len(found) >= len(MIXTURES) - is_int8


def residual():
    """Branches that need their input for longer, of kinds that end and begin in every way."""
    return cnn.Sequential(
        cnn.ReLU(),
        cnn.Residual(
            cnn.ReLU(), cnn.Residual(cnn.Tanh(), cnn.Conv2D(2, 3, padding=1, bias=False)), cnn.BatchNorm2D()
        ),
        cnn.Parallel(cnn.Sequential(), cnn.Sequential(cnn.Rescale(0.5)), cnn.Sequential()),
        cnn.Parallel(cnn.Sequential(), cnn.Sequential(cnn.Tanh()), cnn.MaxPool2D(1), join="concatenate"),
        cnn.BatchNorm2D(), cnn.Sigmoid(), cnn.Flatten(), cnn.Dense(5), cnn.BatchNorm1D(), cnn.ReLU(),
    )  # fmt: skip


@compiled_c.needed
@pytest.mark.parametrize("is_int8", [False, True], ids=["float32", "int8"])
def test_branches_do_not_overwrite_what_others_need(is_int8, tmp_path):
    networks = {"residual": with_numbers(residual(), (2, 5, 4))}
    codes = exported(networks, tmp_path, is_int8)
    (found,) = differences(networks, codes, Program(list(codes.values()), CHECKED)).values()
    assert found[0] <= (0.05 if is_int8 else 1e-5)
    assert found[1] > 0.1


@compiled_c.needed
@pytest.mark.parametrize(
    "layers",
    [
        (),
        (cnn.Conv2D(3, 2),),
        (cnn.Tanh(), cnn.MaxPool2D(2)),
        (cnn.Conv2D(2, 1), cnn.Softmax(), cnn.Flatten()),
    ],
    ids=["no layers", "an image comes out", "no weights", "softmax, then another shape"],
)
def test_the_output_is_that_of_predict_whatever_the_network_ends_in(layers, tmp_path):
    network = with_numbers(cnn.Sequential(*layers).fresh(), (2, 4, 4))
    x = samples_for(network)
    codes = [export(network, tmp_path / "f.c"), export(network, tmp_path / "i.c", calibration=x)]
    program = Program(codes)
    wanted = network.predict(x).reshape(SAMPLES, -1)
    for code, limit in zip(codes, (1e-5, 0.03 * np.ptp(wanted)), strict=True):
        np.testing.assert_allclose(program.predict(code, x), wanted, rtol=0, atol=limit)


@compiled_c.needed
def test_models_give_what_predict_gives_for_bytes_and_floats(tmp_path):
    models = {
        "notebook": (1, 12, 12), "lenet5": (1, 28, 28), "mnist-small": (1, 28, 28), "resnet8": (3, 16, 16),
        "mobilenet-small": (3, 16, 16),
    }  # fmt: skip
    networks = {}
    for name, shape in models.items():
        networks[name] = network = cnn.models.make(name, 4)
        dtype = "float64" if name == "lenet5" else "float32"
        network.build(shape, backend="cpu", seed=3, dtype=dtype)
        if shape[0] == 3:
            network.preprocessing = cnn.Preprocessing((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    codes = exported(networks, tmp_path)
    program = Program(list(codes.values()), ["-O1"])
    for name, network in networks.items():
        images = np.random.default_rng(0).integers(0, 256, (5, *network.input_shape), dtype=np.uint8)
        wanted = network.predict(images)
        assert np.ptp(wanted) > 0.05, name
        for x in (images, np.float32(images / 255)):
            np.testing.assert_allclose(
                program.predict(codes[name], x), wanted, rtol=0, atol=1e-5, err_msg=name
            )


@pytest.fixture(scope="module")
def trained():
    """A network with normalization, trained for a moment on MNIST, and its data."""
    train, test = cnn.data.load("mnist")
    train = train.only(per_class=300)
    network = cnn.Sequential(
        cnn.Conv2D(8, 5, stride=2), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Residual(cnn.Conv2D(8, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU()),
        cnn.Flatten(), cnn.Dense(32), cnn.ReLU(), cnn.Dense(10),
    )  # fmt: skip
    network.build((1, 28, 28), backend="cpu", seed=0)
    network.preprocessing = cnn.Preprocessing.of(train)
    cnn.fit(network, train, epochs=3, batch_size=50, optimizer=cnn.SGD(0.05, momentum=0.9), callbacks=[])
    return network, train, test.only(per_class=60)


@compiled_c.needed
def test_a_trained_network_keeps_its_answers(trained, tmp_path):
    network, train, test = trained
    calibration = calibration_images(train, train.classes, seed=4)
    codes = [export(network, tmp_path / "f.c"), export(network, tmp_path / "i.c", calibration=calibration)]
    program = Program(codes, ["-O2"])
    wanted = network.predict(test.images)
    floats, integers = (program.predict(code, test.images) for code in codes)
    assert (wanted.argmax(axis=1) == test.labels).mean() > 0.9
    np.testing.assert_allclose(floats, wanted, rtol=0, atol=1e-5)
    right = [(answers.argmax(axis=1) == test.labels).sum() for answers in (wanted, integers)]
    assert right[1] > right[0] - 5  # of 600
    assert abs(integers - wanted).max() > 1e-3  # they are integers indeed
    np.testing.assert_array_equal(program.predict(codes[1], np.float32(test.images / 255)), integers)
    assert codes[1].work_bytes * 4 == codes[0].work_bytes
    assert codes[1].constant_bytes < 0.3 * codes[0].constant_bytes


def test_a_normalization_is_folded_and_a_relu_is_part_of_the_layer_before_it(trained, tmp_path):
    network, train, _ = trained
    export(network, tmp_path / "f.c")
    export(network, tmp_path / "i.c", calibration=train.images[:50])
    floats, integers = ((tmp_path / name).read_text() for name in ("f.c", "i.c"))
    assert "scale_and_shift" not in floats
    assert floats.count("activate_relu(work") == 3
    assert "/* 0 Conv2D and ReLU: 1 x 28 x 28 -> 8 x 12 x 12 */" in integers
    assert "activate" not in integers


def test_the_file_says_how_much_it_needs(tmp_path):
    network = with_numbers(cnn.models.lenet5(), (1, 28, 28))
    code = export(network, tmp_path / "my net-5.c")
    text = code.header.with_suffix(".c").read_text()
    weights = sum(np.prod(shape) for shape in network.shapes.values())
    assert code.constant_bytes == 4 * (weights + 4)  # and what prepares an image
    assert code.work_bytes == 4 * (6 * 28 * 28 + 6 * 14 * 14)
    assert code.multiply_adds == sum(layer.multiply_adds for layer in network.layers) == 416_520
    for line in (
        "constants       246,840 bytes",
        "work buffer     23,520 bytes",
        "multiply-adds   416,520 for one",
    ):
        assert line in text
    assert code.function == "my_net_5_predict"
    assert code.header.name == "my net-5.h"
    assert "#define MY_NET_5_WORK 5880 " in code.header.read_text()
    assert "malloc" not in text


@pytest.mark.parametrize(
    ("stem", "function"), [("5", "model_5_predict"), ("_a.b", "a_b_predict"), ("\u00e9", "model_predict")]
)
def test_names_in_c_follow_from_the_name_of_the_file(stem, function, tmp_path):
    code = export(with_numbers(cnn.Sequential(cnn.Flatten()), (1, 2, 2)), tmp_path / f"{stem}.c")
    assert code.function == function


PRINT_NAMES = """
#include "model.h"
#include <stdio.h>

int main(void)
{
    int i;
    for (i = 0; i < MODEL_CLASSES; i++) {
        puts(model_class_names[i]);
    }
    return 0;
}
"""


@compiled_c.needed
def test_class_names_are_the_same_bytes_in_c(tmp_path):
    names = ["caf\u00e9", '"quoted" \\ and ??/', "1\n2", "\u20267 %d"]
    network = with_numbers(cnn.Sequential(cnn.Flatten(), cnn.Dense(4)), (1, 2, 2))
    export(network, tmp_path / "model.c", names)
    (tmp_path / "main.c").write_text(PRINT_NAMES)
    files = [tmp_path / name for name in ("main.c", "model.c")]
    subprocess.run(["cc", "-trigraphs", *files, "-lm", "-o", tmp_path / "out"], check=True)
    assert subprocess.check_output([tmp_path / "out"]).decode() == "".join(f"{name}\n" for name in names)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("is_int8", [False, True], ids=["float32", "int8"])
def test_it_is_c_plus_plus_too(is_int8, tmp_path):
    network = with_numbers(cnn.models.lenet5(3), (1, 28, 28))
    code = export(network, tmp_path / "model.c", "abc", samples_for(network) if is_int8 else None)
    source = code.header.with_suffix(".c")
    flags = ["-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run(["g++", *flags, source], check=True)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    texts = []
    for _ in range(2):
        network = with_numbers(cnn.models.notebook(), (1, 12, 12))
        for calibration in (None, samples_for(network)):
            code = export(network, tmp_path / "model.c", ["a", "b"], calibration)
            texts.append(code.header.read_bytes() + (tmp_path / "model.c").read_bytes())
    assert texts[:2] == texts[2:]


class TestRefused:
    """What C code cannot express is named, and no file is written."""

    def refused(self, network, input_shape, message, tmp_path, is_int8=False):
        network.build(input_shape, backend="cpu")
        with pytest.raises(cnn.ArgumentError, match=message):
            export(network, tmp_path / "model.c", calibration=samples_for(network) if is_int8 else None)
        assert not list(tmp_path.iterdir())

    def test_functions(self, tmp_path):
        (case,) = (case for case in LAYERS if not case.plain)
        message = "layer 1 Activation cannot be expressed in C: expected Conv2D, "
        self.refused(cnn.Sequential(cnn.ReLU(), case.make()), case.input_shape, message, tmp_path)

    def test_a_softmax_inside_a_network_in_integers(self, tmp_path):
        network = cnn.Sequential(cnn.Softmax(), cnn.Conv2D(2, 2))
        message = "layer 0 Softmax cannot be computed in integers: export the network without int8"
        self.refused(network, (2, 4, 4), message, tmp_path, is_int8=True)

    @pytest.mark.parametrize("is_int8", [False, True], ids=["float32", "int8"])
    def test_weights_that_are_not_finite(self, is_int8, tmp_path):
        network = cnn.Sequential(cnn.Conv2D(2, 2))
        network.build((2, 4, 4), backend="cpu")
        network.load_state_dict({"0.weight": np.full((2, 2, 2, 2), np.inf), "0.bias": np.zeros(2)})
        calibration = samples_for(network) if is_int8 else None
        with pytest.raises(
            cnn.ArgumentError, match=r"layer 0 Conv2D cannot .* it has weights that are not finite"
        ):
            export(network, tmp_path / "model.c", calibration=calibration)
        assert not list(tmp_path.iterdir())

    def test_images_of_another_shape(self, tmp_path):
        network = with_numbers(cnn.models.notebook(), (1, 12, 12))
        with pytest.raises(cnn.ShapeError, match=r"expected \(N, 1, 12, 12\)|built for \(N, 1, 12, 12\)"):
            export(network, tmp_path / "model.c", calibration=np.zeros((3, 1, 10, 10)))

    def test_a_path_that_is_no_c_file(self, tmp_path):
        message = r"model\.h' is not the name of a C file: expected one that ends in \.c"
        with pytest.raises(cnn.ArgumentError, match=message):
            export(with_numbers(cnn.models.notebook(), (1, 12, 12)), tmp_path / "model.h")

    def test_names_for_another_number_of_classes(self, tmp_path):
        message = "classes has 3 names, the network has 2 outputs: expected a name for each"
        with pytest.raises(cnn.ArgumentError, match=message):
            export(with_numbers(cnn.models.notebook(), (1, 12, 12)), tmp_path / "model.c", "abc")

    def test_a_network_that_is_not_built(self, tmp_path):
        with pytest.raises(cnn.ArgumentError, match="not built yet"):
            export(cnn.models.lenet5(), tmp_path / "model.c")


class TestCommand:
    @pytest.fixture
    def run(self, command, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0

    @compiled_c.needed
    @pytest.mark.parametrize("flags", [[], ["--int8"]], ids=["float32", "int8"])
    def test_a_run_becomes_c_code_that_answers_alike(self, flags, command, own_data, run, tmp_path):
        code, out, err = command("export", "run", "model.c", *flags, "--json")
        assert (code, err) == (0, "")
        said = json.loads(out)
        assert (said["file"], said["header"], said["function"]) == ("model.c", "model.h", "model_predict")
        assert (said["arithmetic"], said["classes"]) == ("int8" if flags else "float32", ["dark", "bright"])
        assert said["input"] == {
            "name": "image", "dtype": "float32", "shape": [1, 20, 20], "scaling": "bytes scaled to 0..1",
        }  # fmt: skip
        assert said["output"] == {"name": "probabilities", "dtype": "float32", "shape": [2]}

        class Written:
            header, function, arithmetic = tmp_path / "model.h", said["function"], said["arithmetic"]

        data = np.load(own_data)
        answers = Program([Written]).predict(Written, data["x_test"]).argmax(axis=1)
        _, evaluated, _ = command("evaluate", "run", "--device", "cpu", "--json")
        assert (answers == data["y_test"]).mean() == json.loads(evaluated)["accuracy"]

    @compiled_c.needed
    def test_a_script_compares_runs_with_predict(self, run):
        script = ROOT / "tests" / "endurance" / "check_c_code.py"
        done = subprocess.run([sys.executable, script, "run"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        rows = [row.split(" | ") for row in done.stdout.splitlines()[2:]]
        assert [row[1] for row in rows] == ["float32", "int8"]
        assert rows[0][6] == "0"  # labels changed

    def test_the_line_says_what_is_needed(self, command, run):
        code, out, err = command("export", "run", "model.c")
        assert (code, err) == (0, "")
        assert re.fullmatch(
            r"model\.c: float32, [\d,]+ bytes of constants, [\d,]+ bytes of work buffer, "
            r"[\d,]+ multiply-adds; model_predict is declared in model\.h\n",
            out,
        )
        code, out, err = command("export", "run", "model.c")
        assert (code, err) == (0, "overwrote model.c\noverwrote model.h\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["model.onnx", "--int8"], r"--int8 is for C code, and 'model\.onnx' would be an ONNX file"),
            (["model.h"], r"'model\.h' would be a C header: name model\.c"),
            (["model.c", "--data", "mnist"], "only --int8 needs data: leave it out"),
            (["no/where.c"], "the folder no does not exist"),
            (["mine.c"], r"mine\.c exists and is not C code that cnn export wrote"),
            (["other.c"], r"other\.h exists and is not C code that cnn export wrote"),
            (['a"b.c'], "has a quotation mark"),
            (["model.c", "--int8", "--data", "elsewhere"], "elsewhere"),
        ],
    )
    def test_mistakes(self, arguments, message, command, run, tmp_path):
        Path("mine.c").write_text("int main(void) { return 0; }")
        Path("other.h").write_text("#define OTHER")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        code, out, err = command("export", "run", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert re.search(message, err)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
