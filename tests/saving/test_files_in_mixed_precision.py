"""Files of mixed-precision networks have float32, and a device without 16 bits computes in float32."""

import json

import numpy as np
import pytest
from helpers.small_run import make_run
from helpers.standin import StandInBackend
from safetensors import safe_open

import backends
import cnn
from cnn.network import _rebuilt
from cnn.runs.folder import RunFolder
from cnn.saving import c_code, onnx
from cnn.support.tensors import METADATA

pytest.importorskip("ml_dtypes")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)


@pytest.fixture(params=["bfloat16", "float16"])
def network(request):
    made = cnn.Sequential(cnn.Conv2D(3, 3), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Flatten(), cnn.Dense(4))
    made.build((1, 8, 8), backend=StandInBackend(), seed=1, dtype=request.param)
    return made


@pytest.fixture
def file(network, tmp_path):
    network.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_file_has_float32_and_names_the_dtype(network, file):
    with safe_open(file, framework="numpy") as opened:
        dtypes = {opened.get_tensor(name).dtype.name for name in network.arrays}
        assert dtypes == {"float32", "int64"}  # the latter counts batches
        assert json.loads(opened.metadata()[METADATA])["dtype"] == network.dtype


def test_a_cpu_loads_it_in_float32(network, file):
    loaded = cnn.load(file, device="cpu")
    assert (loaded.dtype, loaded.flat.value.dtype) == ("float32", np.float32)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array, err_msg=name)
    np.testing.assert_allclose(loaded.predict(IMAGES), network.predict(IMAGES), atol=2e-2)


def test_a_device_with_16_bits_loads_it_as_it_was(network, file):
    loaded = cnn.load(file, device=StandInBackend())
    assert loaded.dtype == network.dtype
    np.testing.assert_array_equal(loaded.predict(IMAGES), network.predict(IMAGES))


def test_a_copy_has_16_bits_too_and_one_from_a_pickle_is_float32_on_a_cpu(network):
    assert network.copy().dtype == network.dtype
    place = network._place | {"backend": backends.get("cpu")}
    assert _rebuilt(network.fresh(), place, network.state_dict()).dtype == "float32"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_of_16_bits_is_used_in_float32_on_a_cpu(dtype, tmp_path):
    folder, trained, _ = make_run(tmp_path / "run", epochs=1)
    trained.save(folder.weights)
    folder.config.write_text(json.dumps(json.loads(folder.config.read_text()) | {"dtype": dtype}))
    network, config, _ = RunFolder(folder.path).load(backends.get("cpu"))
    assert (network.dtype, config.dtype) == ("float32", dtype)
    network, config, _ = RunFolder(folder.path).load(StandInBackend())
    assert (network.dtype, config.dtype) == (dtype, dtype)


def exported(network, medium, folder):
    """The bytes of an exported network."""
    folder.mkdir()
    if medium == "ONNX":
        pytest.importorskip("onnx")
        onnx.export(network, folder / "model.onnx", network.class_names)
    else:
        pytest.importorskip("jinja2")
        calibration = IMAGES if medium == "C in int8" else None
        c_code.export(network, folder / "model.c", network.class_names, calibration)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("medium", ["C", "C in int8", "ONNX"])
def test_its_exports_are_those_of_the_network_in_float32(network, medium, tmp_path):
    wide = network.fresh()
    wide.build((1, 8, 8), backend=network.backend)
    random = np.random.default_rng(1)
    state = {name: np.float32(random.uniform(0.1, 1, shape)) for name, shape in network.shapes.items()}
    for each in (network, wide):
        each.load_state_dict(state)
        each.preprocessing, each.class_names = cnn.Preprocessing((0.3,), (0.7,)), tuple("abcd")
    expected = exported(wide, medium, tmp_path / "wide")
    assert exported(network, medium, tmp_path / "before") == expected  # no forward has rounded its weights
    network.predict(IMAGES)
    assert exported(network, medium, tmp_path / "after") == expected
