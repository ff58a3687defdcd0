"""ONNX's own conformance cases through ``cnn import``: what it takes gives the expected outputs."""

import warnings

import numpy as np
import pytest

import cnn
from cnn.saving.onnx_reader import read
from conformance.cases import cases, onnx


def model_of(case):
    """The model with all inputs but the first as constants, which are weights in these cases."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    known = {each.name for each in model.graph.initializer}
    names = [each.name for each in model.graph.input if each.name not in known]
    for name, array in list(zip(names, case.data_sets[0][0], strict=True))[1:]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model


def forward(network, x, model):
    """The output of the network, with the softmax at its end that ``predict`` applies."""
    y = network.forward(np.ascontiguousarray(np.moveaxis(x, 0, -1)))
    if y.ndim == 2 and model.graph.node[-1].op_type == "Softmax":
        y = network.probabilities(y)
    return np.moveaxis(y, -1, 0)


def test_what_is_imported_gives_the_expected_outputs(tmp_path):
    taken = 0
    for name, case in cases().items():
        model, path = model_of(case), tmp_path / "a.onnx"
        path.write_bytes(model.SerializeToString())
        (x, *_), (expected, *_) = case.data_sets[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of overflows that the cases provoke
            try:
                network = read(path, "cpu")
            except (cnn.CheckpointError, cnn.ArgumentError, cnn.ShapeError):
                continue
        found = forward(network, x, model)
        assert found.shape == expected.shape, name
        np.testing.assert_allclose(found, expected, case.rtol, case.atol + 1e-5, err_msg=name)
        taken += 1
    assert taken > 100


@pytest.mark.parametrize(
    "name", ["test_conv_with_autopad_same", "test_averagepool_2d_default", "test_gemm_transposeB"]
)
def test_some_of_them_are_taken(name, tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(model_of(cases()[name]).SerializeToString())
    assert len(read(path, "cpu").layers) == 1
