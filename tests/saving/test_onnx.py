"""Networks as ONNX files: onnxruntime gives what ``predict`` gives, and what cannot be said is refused."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.small_run import SMALL

import cnn
from cnn.saving.onnx import export
from cnn.selftest.cases import LAYERS as CASES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

NO_AVERAGES = "batch normalization, no averages"
EXPRESSIBLE = [case for case in CASES if case.plain and case.name != NO_AVERAGES]


def built(network, input_shape, dtype="float32"):
    """The network with random numbers in all its parameters, biases too."""
    network.build(input_shape, backend="cpu", dtype=dtype)
    random = np.random.default_rng(1)
    arrays = {name: random.normal(0, 0.2, shape) for name, shape in network.shapes.items()}
    arrays |= {name: array**2 + 0.1 for name, array in arrays.items() if name.endswith("running_var")}
    network.load_state_dict(arrays)
    return network


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(running, x):
    (probabilities,) = running.run(["probabilities"], {"images": x.astype(np.float32)})
    return probabilities


@pytest.mark.parametrize("case", EXPRESSIBLE, ids=lambda case: case.name)
def test_every_layer_gives_the_same_for_any_batch(case, tmp_path):
    network = cnn.Sequential(case.make(), cnn.Flatten(), cnn.Dense(4))  # all its numbers count
    built(network, case.input_shape)
    export(network, tmp_path / "model.onnx")
    running = session(tmp_path / "model.onnx")
    for batch in (1, 3, 5):
        x = np.random.default_rng(batch).standard_normal((batch, *case.input_shape)).astype(np.float32)
        logits = np.moveaxis(network.forward(np.moveaxis(x, 0, -1)), -1, 0).astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(run(running, x), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(run(running, x), expected, rtol=1e-4)  # the small ones too


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [cnn.models.lenet5, cnn.models.notebook])
def test_whole_networks_give_what_predict_gives(model, dtype, tmp_path):
    network = model()
    network.build((1, 28, 28), backend="cpu", seed=3, dtype=dtype)
    export(network, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 28, 28), dtype=np.uint8)
    expected = network.predict(images)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(
        run(session(tmp_path / "model.onnx"), images / 255), expected, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "layers",
    [
        (),
        (cnn.Conv2D(3, 2),),
        (cnn.Softmax(), cnn.Flatten()),
        (cnn.Sequential(cnn.Flatten(), cnn.Sequential(cnn.Dense(3), cnn.Softmax())), cnn.Sequential()),
    ],
    ids=["no layers", "an image comes out", "softmax, then another shape", "softmax inside"],
)
def test_the_output_is_that_of_predict_whatever_the_network_ends_in(layers, tmp_path):
    network = built(cnn.Sequential(*layers).fresh(), (2, 4, 4))
    export(network, tmp_path / "model.onnx")
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    expected = network.predict(x)
    result = run(session(tmp_path / "model.onnx"), x)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def normalized():
    """Normalizations after layers that they are folded into, and after others."""
    return cnn.Sequential(
        cnn.Conv2D(4, 3, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Residual(cnn.Conv2D(4, 3, padding=1, groups=2), cnn.BatchNorm2D(affine=False)),
        cnn.Sequential(cnn.Conv2D(3, 2, untied_bias=True)), cnn.Sequential(cnn.BatchNorm2D(), cnn.ReLU()),
        cnn.BatchNorm2D(), cnn.Flatten(), cnn.Dense(8), cnn.BatchNorm1D(), cnn.ReLU(), cnn.Dense(3),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trained_normalization_is_folded_into_the_layer_before_it(dtype, tmp_path):
    random = np.random.default_rng(0)
    data = cnn.data.Dataset(random.integers(0, 256, (60, 1, 12, 12), dtype=np.uint8), np.arange(60) % 3)
    network = normalized()
    network.build((1, 12, 12), backend="cpu", dtype=dtype, seed=2)
    cnn.fit(network, data, epochs=2, batch_size=20, callbacks=[])
    means = [value for name, value in network.state_dict().items() if name.endswith("running_mean")]
    assert all(np.ptp(mean) > 1e-3 for mean in means)
    export(network, tmp_path / "model.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operators.count("BatchNormalization") == 1  # the one after ReLU
    expected = network.predict(data.images)
    assert np.ptp(expected) > 0.1
    found = run(session(tmp_path / "model.onnx"), data.images / 255)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_file_says_what_it_is(tmp_path):
    network = built(cnn.models.lenet5(2), (1, 28, 28))
    export(network, tmp_path / "model.onnx", ["caf\u00e9", "dark"])
    model = onnx.load(tmp_path / "model.onnx")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert (model.producer_name, model.producer_version) == ("xpcnn", cnn.__version__)
    assert "scaled to 0..1" in model.doc_string
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["classes"]) == [
        "caf\u00e9",
        "dark",
    ]
    assert {array.name for array in model.graph.initializer} == set(network.parameters)
    (images,), (probabilities,) = session(tmp_path / "model.onnx").get_inputs(), model.graph.output
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["N", 1, 28, 28])
    assert probabilities.name == "probabilities"


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        export(built(cnn.models.notebook(), (1, 20, 20)), tmp_path / name, ["a", "b"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


class TestRefused:
    """What ONNX cannot express is named, and no file is written."""

    def refused(self, network, input_shape, message, tmp_path):
        network.build(input_shape, backend="cpu")
        with pytest.raises(cnn.ArgumentError, match=message):
            export(network, tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())

    def test_functions(self, tmp_path):
        (case,) = (case for case in CASES if not case.plain)
        message = "layer 1 Activation cannot be expressed in ONNX: expected Conv2D, "
        self.refused(cnn.Sequential(cnn.ReLU(), case.make()), case.input_shape, message, tmp_path)

    def test_a_class_that_may_compute_something_else(self, tmp_path):
        class Leaky(cnn.ReLU):
            def function(self, x, out):
                self.backend.xp.maximum(x, 0.1 * x, out=out)

        network = cnn.Sequential(cnn.Sequential(cnn.Tanh(), Leaky()))
        self.refused(network, (3,), r"layer 0\.1 Leaky cannot be expressed", tmp_path)

    def test_a_container_that_may_compute_something_else(self, tmp_path):
        class Residual(cnn.Sequential):
            def forward(self, x, training=False):
                return x + super().forward(x, training)

        network = cnn.Sequential(cnn.ReLU(), Residual(cnn.ReLU()))
        self.refused(network, (3,), "layer 1 Residual cannot be expressed", tmp_path)
        self.refused(Residual(cnn.ReLU()), (3,), "layer Residual cannot be expressed", tmp_path)

    def test_a_normalization_over_the_batch(self, tmp_path):
        network = cnn.Sequential(cnn.Flatten(), cnn.BatchNorm1D(track_running_stats=False))
        message = "layer 1 BatchNorm1D cannot be expressed in ONNX: it has no running averages"
        self.refused(network, (1, 2, 3), message, tmp_path)

    def test_a_network_that_is_not_built(self, tmp_path):
        with pytest.raises(cnn.ArgumentError, match="not built yet"):
            export(cnn.models.lenet5(), tmp_path / "model.onnx")


class TestCommand:
    @pytest.fixture
    def trained(self, command, own_data):
        assert command("train", *SMALL, "--data", own_data, "--out", "run")[0] == 0

    def test_a_run_becomes_a_file_that_answers_alike(self, command, own_data, trained, tmp_path):
        code, out, err = command("export", "run", "model.onnx")
        assert (code, err) == (0, "")
        assert out == (
            "model.onnx: opset 17, input images float32 (N, 1, 20, 20), bytes scaled to 0..1; "
            "output probabilities (N, 2)\n"
        )
        data = np.load(own_data)
        answers = run(session(tmp_path / "model.onnx"), data["x_test"][:, None] / 255).argmax(axis=1)
        _, evaluated, _ = command("evaluate", "run", "--device", "cpu", "--json")
        assert (answers == data["y_test"]).mean() == json.loads(evaluated)["accuracy"]

    def test_json(self, command, trained):
        Path("model.onnx").write_text("an older file, which is replaced")
        code, out, _ = command("export", "run", "model.onnx", "--json")
        assert code == 0
        said = json.loads(out)
        assert (said["file"], said["opset"], said["classes"]) == ("model.onnx", 17, ["dark", "bright"])
        assert (said["input"]["name"], said["input"]["shape"]) == ("images", ["N", 1, 20, 20])
        assert said["output"] == {"name": "probabilities", "dtype": "float32", "shape": ["N", 2]}
        assert session("model.onnx").get_modelmeta().custom_metadata_map["classes"] == '["dark", "bright"]'

    @pytest.mark.parametrize(
        ("run", "file", "message"),
        [
            ("run", ".", r"^error: \. is a folder: expected the name of a file"),
            ("run", "no/where.onnx", "the folder no does not exist"),
            ("elsewhere", "model.onnx", "elsewhere is not the folder of a run"),
        ],
    )
    def test_mistakes(self, command, trained, tmp_path, run, file, message):
        before = set(tmp_path.rglob("*"))
        code, out, err = command("export", run, file)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert re.search(message, err)
        assert set(tmp_path.rglob("*")) == before

    def test_without_onnx_one_sentence_says_what_to_install(self, command, trained, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        code, out, err = command("export", "run", "model.onnx")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "-m pip install onnx" in err
        assert not (tmp_path / "model.onnx").exists()
