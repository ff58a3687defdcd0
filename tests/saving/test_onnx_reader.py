"""ONNX files as networks: the same outputs as onnxruntime, and what cannot be expressed is named."""

import json

import numpy as np
import pytest

import cnn
from cnn import models
from cnn.saving.onnx import export
from cnn.saving.onnx_reader import read
from cnn.selftest.cases import LAYERS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

make_node, make_info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
NOT_EXACT = {"batch normalization, no averages", "enlarging, nearest, by fractions"}  # cannot be read back
CASES = [case for case in LAYERS if case.plain and case.name not in NOT_EXACT]


def built(network, input_shape):
    """The network with random numbers in all its parameters."""
    network.build(input_shape, backend="cpu")
    random = np.random.default_rng(1)
    arrays = {name: random.normal(0, 0.1, shape) for name, shape in network.shapes.items()}
    arrays |= {name: array**2 + 0.5 for name, array in arrays.items() if name.endswith("running_var")}
    network.load_state_dict(arrays)
    return network


def outputs(path, x):
    """What onnxruntime gives."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def forward(network, x):
    return np.moveaxis(network.forward(np.ascontiguousarray(np.moveaxis(x, 0, -1))), -1, 0)


def require_equal(path, input_shape, softmax=True):
    """The network in ``path``, which gives what onnxruntime gives."""
    network = read(path, "cpu")
    x = np.random.default_rng(0).standard_normal((3, *input_shape)).astype(np.float32)
    y = forward(network, x)
    if softmax:
        y = np.exp(y - y.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(y, outputs(path, x), rtol=0, atol=1e-5)
    return network


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_comes_back_from_its_export(name, tmp_path):
    shape = (1, 28, 28) if name in ("notebook", "lenet5") or name.startswith("mnist") else (3, 32, 32)
    export(built(models.make(name), shape), tmp_path / "a.onnx")
    require_equal(tmp_path / "a.onnx", shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_layer_comes_back_from_its_export(case, tmp_path):
    first = cnn.LeakyReLU(0.5)  # a factor of the input would become part of the preprocessing
    network = cnn.Sequential(first, case.make(), cnn.Flatten(), cnn.Dense(4))
    export(built(network, case.input_shape), tmp_path / "a.onnx")
    require_equal(tmp_path / "a.onnx", case.input_shape)


def test_class_names_and_preprocessing_come_from_our_metadata(tmp_path):
    network = built(models.make("lenet5", 3), (1, 28, 28))
    network.preprocessing = cnn.Preprocessing((0.25,), (0.5,), "letterbox")
    export(network, tmp_path / "a.onnx", ["a", "b", "c"])
    again = read(tmp_path / "a.onnx", "cpu")
    assert again.class_names == ("a", "b", "c")
    assert again.preprocessing.fit == "letterbox"
    np.testing.assert_allclose([*again.preprocessing.mean, *again.preprocessing.std], [0.25, 0.5], rtol=1e-6)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), dtype=np.uint8)
    np.testing.assert_allclose(again.predict(images), network.predict(images), atol=1e-6)


def test_blocks_are_recognized(tmp_path):
    network = cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1),
        cnn.Residual(cnn.Residual(cnn.Conv2D(4, 1), cnn.ReLU()), cnn.GELU(), shortcut=cnn.Conv2D(4, 1)),
        cnn.Parallel(
            cnn.Sequential(), cnn.Conv2D(2, 1), cnn.Sequential(cnn.SiLU(), cnn.Conv2D(3, 1)),
            join="concatenate",
        ),
        cnn.GlobalAvgPool2D(), cnn.Dense(3),
    )  # fmt: skip
    export(built(network, (2, 6, 6)), tmp_path / "a.onnx")
    again = require_equal(tmp_path / "a.onnx", (2, 6, 6))
    assert [layer.kind for layer in again.layers] == [
        "Conv2D", "Residual", "Parallel", "GlobalAvgPool2D", "Dense"
    ]  # fmt: skip
    assert again.layers[1].layers[0].kind == "Residual"
    assert again.layers[1].layers[1].kind == "GELU"


def saved(path, nodes, input_shape=("N", 3, 6, 6), constants=(), outputs=("y",), kind=1, rank=4):
    constants = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants]
    infos = [make_info(name, kind, ["N", *"abc"[: rank - 1]]) for name in outputs]
    graph = onnx.helper.make_graph(nodes, "g", [make_info("x", kind, input_shape)], infos, constants)
    opsets = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def node(kind, *inputs, to="y", **attributes):
    return make_node(kind, [*inputs], [to], **attributes)


RANDOM = np.random.default_rng(2)
W3, W1, B = RANDOM.normal(size=(3, 3, 3, 3)), RANDOM.normal(size=(3, 3, 1, 1)), RANDOM.normal(size=3)
CONSTANTS = {"w3": W3, "w1": W1, "b": B, "c": B[:, None, None], "k": np.array(0.5), "m": W1[:, :, 0, 0]}
PAD = {"kernel_shape": [3, 3], "strides": [2, 2]}
GRAPHS = {
    "same padding": [node("Conv", "x", "w3", "b", auto_pad="SAME_UPPER", strides=[2, 2])],
    "uneven padding": [
        node("Conv", "x", "w3", to="h", pads=[0, 1, 2, 1], dilations=[2, 1]),
        node("Add", "h", "c"),
    ],
    "affine before and after": [
        node("Sub", "x", "c", to="h"),
        node("Conv", "h", "w1", to="g"),
        node("Mul", "g", "c"),
    ],
    "affine behind a function": [
        node("Relu", "x", to="h"),
        node("Mul", "h", "c", to="g"),
        node("Sub", "k", "g"),
    ],
    "average": [node("AveragePool", "x", pads=[1, 1, 1, 1], **PAD)],
    "average, same": [node("AveragePool", "x", auto_pad="SAME_UPPER", **PAD)],
    "average, padding counts": [node("AveragePool", "x", pads=[1, 1, 1, 1], count_include_pad=1, **PAD)],
    "largest, rounded up": [node("MaxPool", "x", ceil_mode=1, **PAD)],
    "silu in a residual": [
        node("Sigmoid", "x", to="h"),
        node("Mul", "x", "h", to="g"),
        node("Add", "g", "x"),
    ],
    "twice": [node("Add", "x", "x")],
    "functions": [
        node("Softplus", "x", to="h"),
        node("Dropout", "h", to="g"),
        node("Elu", "g", alpha=0.5),
    ],
    "product": [
        node("GlobalAveragePool", "x", to="h"),
        node("Flatten", "h", to="g"),
        node("MatMul", "g", "m", to="f"),
        node("Add", "f", "b"),
    ],
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_other_programs(name, tmp_path):
    used = {name for each in GRAPHS[name] for name in each.input}
    constants = [(name, array) for name, array in CONSTANTS.items() if name in used]
    rank = 2 if name == "product" else 4
    path = saved(tmp_path / "a.onnx", GRAPHS[name], constants=constants, rank=rank)
    network = read(path, "cpu")
    x = np.random.default_rng(0).standard_normal((3, 3, 6, 6)).astype(np.float32)
    given = x
    if network.preprocessing is not None:  # forward does not apply it
        mean, std = (
            np.array(each)[:, None, None] for each in (network.preprocessing.mean, network.preprocessing.std)
        )
        given = ((x - mean) / std).astype(np.float32)
    np.testing.assert_allclose(forward(network, given), outputs(path, x), rtol=0, atol=1e-5)


SHARED = [
    node("Relu", "x", to="h"),
    node("Tanh", "h", to="g"),
    node("Add", "x", "g", to="f"),
    node("Concat", "h", "f", axis=1),
]
UNEQUAL = {"constants": [("n", np.ones((3, 6, 6)) + np.eye(6))]}
OTHERS = {"outputs": ("y", "z")}


@pytest.mark.parametrize(
    ("nodes", "more", "message"),
    [
        ([node("Sin", "x", name="wave")], {}, "node wave Sin is an operator that no layer here computes"),
        ([node("Sin", "x")], {}, "node y Sin is an operator"),
        ([node("Transpose", "x")], {}, "node y Transpose is an operator"),
        ([node("Mul", "x", "x")], {}, r"node y Mul joins values in a way that no layer here does \(Mul\)"),
        ([node("Concat", "x", "x", axis=2)], {}, "node y Concat joins along another axis"),
        ([node("Softmax", "x", axis=3)], {}, "node y Softmax is along another axis"),
        ([node("Flatten", "x", axis=2)], {"rank": 2}, "node y Flatten flattens from axis 2 on, expected 1"),
        ([node("Relu", "x")], {"input_shape": ("N", 3, "H", 6)}, r"input x is \(N, 3, H, 6\), expected a"),
        ([node("Identity", "x")], {"kind": 7}, "input x has a dtype other than float32 and float64"),
        ([node("Relu", "x"), node("Tanh", "x", to="z")], OTHERS, r"2 outputs \(y, z\), expected one"),
        (SHARED, {}, "node h Relu is part of several branches, which no layer here can share"),
        ([node("Add", "x", "n")], UNEQUAL, r"constants of the shape \(3, 6, 6\) are multiplied"),
    ],
)
def test_what_cannot_be_expressed_is_named(nodes, more, message, tmp_path):
    path = saved(tmp_path / "a.onnx", nodes, **more)
    with pytest.raises(cnn.CheckpointError, match=message) as caught:
        read(path, "cpu")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_damage_is_answered_by_our_own_error_only(tmp_path):
    path = tmp_path / "a.onnx"
    export(built(models.make("lenet5"), (1, 28, 28)), path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    structure = len(whole) - 3000  # the nodes are at the beginning, the names at the end
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            place = random.integers(0, 2000)
            damaged[place if random.random() < 0.7 else structure + place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read(path, "cpu")
        except (cnn.CheckpointError, cnn.ArgumentError, cnn.ShapeError):
            refused += 1
    assert refused > 50


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        network = built(models.make("lenet5", 2), (1, 20, 20))
        export(network, tmp_path / "net.onnx", ["dark", "bright"])

    def test_makes_a_run_that_is_used_like_any_other(self, command, own_data):
        code, out, err = command("import", "net.onnx", "--out", "run", "--json", "--device", "cpu")
        assert (code, json.loads(out)) == (0, {"run": "run"})
        assert err == "the network is not tested: give its data with --data to test it\n"
        found = json.loads(command("evaluate", "run", "--data", own_data, "--json")[1])
        assert found["count"] == 40
        assert command("export", "run", "again.onnx")[0] == 0
        assert command("report", "run")[0] == 0
        assert command("train", "--model", "run", "--data", own_data, "--dry-run", "--device", "cpu")[0] == 0
        code, _, err = command("train", "--resume", "run")
        assert code == 2
        assert "it has no checkpoint: it was imported" in err

    def test_tests_it_on_data_that_are_given(self, command, own_data):
        code, out, _ = command("import", "net.onnx", "--data", own_data, "--out", "run", "--json")
        assert (code, json.loads(out)["count"]) == (0, 40)
        assert command("evaluate", "run")[0] == 0

    def test_takes_a_file_of_weights_that_describes_its_network(self, command, own_data):
        assert command("import", "net.onnx", "--out", "run")[0] == 0
        assert command("import", "run/model.safetensors", "--out", "again")[0] == 0
        one, other = (command("evaluate", run, "--data", own_data, "--json")[1] for run in ("run", "again"))
        assert one == other

    def test_mistakes_are_one_sentence(self, command, tmp_path):
        (tmp_path / "bad.onnx").write_bytes(b"\x08\x08\x12\x05xpcnn")
        for arguments, message in (
            (("net.onnx", "--model", "lenet5"), "--model is given, but net.onnx has a network of its own"),
            (("bad.onnx",), "bad.onnx: it is not a valid ONNX file"),
            (("nowhere.onnx",), "nowhere.onnx cannot be read (No such file or directory)"),
        ):
            code, out, err = command("import", *arguments, "--out", "run")
            assert (code, out) == (2, "")
            assert message in err
            assert err.count("\n") == 1
            assert not (tmp_path / "run").exists()
