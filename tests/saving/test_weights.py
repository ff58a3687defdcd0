"""Weights on disk: written completely or not at all, read back, and never mistaken for another network's."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import cnn

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), dtype=np.uint8)


@pytest.fixture
def network():
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu", seed=3)
    return network


@pytest.mark.parametrize("model", [cnn.models.lenet5, cnn.models.notebook])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_network_comes_back_the_same(backend, tmp_path, model, dtype):
    network = model()
    network.build((1, 28, 28), backend=backend, dtype=dtype)
    network.save(tmp_path / "model.safetensors")
    again = cnn.load(tmp_path / "model.safetensors", device=backend)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again.predict(IMAGES), network.predict(IMAGES))


def test_the_file_holds_pytorchs_names_and_the_architecture_as_data(network, tmp_path):
    network.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(network.parameters)
        metadata = file.metadata()
    first = json.loads(metadata["xpcnn"])["network"]["layers"][0]
    assert (first["type"], first["out_channels"], first["padding"]) == ("Conv2D", 6, [2, 2])


def test_weights_from_elsewhere_load_into_a_network_that_is_given(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "m.safetensors")
    other = cnn.models.lenet5()
    other.build((1, 28, 28), backend="cpu", seed=9)
    assert cnn.load(tmp_path / "m.safetensors", network=other) is other
    np.testing.assert_array_equal(other.predict(IMAGES), network.predict(IMAGES))
    with pytest.raises(cnn.CheckpointError, match=r"does not say which network.*network="):
        cnn.load(tmp_path / "m.safetensors")


def test_a_network_with_functions_asks_for_the_network(tmp_path):
    def make():
        network = cnn.Sequential(cnn.Dense(2), cnn.Activation(lambda x: x * 2, lambda x: x * 0 + 2))
        network.build((3,), backend="cpu")
        return network

    make().save(tmp_path / "m.safetensors")
    with pytest.raises(cnn.CheckpointError, match=r"layer 1 Activation holds a function; give the network"):
        cnn.load(tmp_path / "m.safetensors")
    cnn.load(tmp_path / "m.safetensors", network=make())


def test_another_architecture_is_named(network, tmp_path):
    network.save(tmp_path / "m.safetensors")
    other = cnn.models.lenet5(classes=2)
    other.build((1, 28, 28), backend="cpu")
    with pytest.raises(
        cnn.CheckpointError, match=r"m\.safetensors: .*11\.weight with shape \(10, 84\).*\(2, 84\)"
    ):
        cnn.load(tmp_path / "m.safetensors", network=other)


class TestNumbersThatAreNotFinite:
    """They are refused where a file is read; arrays in memory are taken as they are."""

    def file(self, network, path, **changed):
        save_file(network.state_dict() | changed, path)
        return path

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_the_weights_are_named(self, network, tmp_path, value):
        bias = np.array([0, value, 0, value, 0, 0], dtype=np.float32)
        path = self.file(network, tmp_path / "m.safetensors", **{"0.bias": bias})
        with pytest.raises(cnn.CheckpointError) as caught:
            cnn.load(path, network=network)
        assert str(caught.value) == (
            f"{path}: 0.bias has 2 of 6 values that are NaN or infinite: use weights from before the "
            "training run diverged"
        )

    def test_what_overflows_in_the_networks_dtype_is_too(self, network, tmp_path):
        large = np.full(6, 1e300)
        path = self.file(network, tmp_path / "m.safetensors", **{"0.bias": large})
        with pytest.raises(
            cnn.CheckpointError, match=r"6 values that are too large for float32: load .* as float64"
        ):
            cnn.load(path, network=network)
        double = cnn.models.lenet5()
        double.build((1, 28, 28), backend="cpu", dtype="float64")
        assert cnn.load(path, network=double).state_dict()["0.bias"][0] == 1e300

    def test_a_file_of_this_library_is_refused_too(self, network, tmp_path):
        network.parameters["3.bias"].value[0] = np.nan
        network.save(tmp_path / "m.safetensors")
        with pytest.raises(cnn.CheckpointError, match=r"m\.safetensors: 3\.bias has 1 of 16 values"):
            cnn.load(tmp_path / "m.safetensors", device="cpu")

    def test_arrays_in_memory_are_taken_as_they_are(self, network):
        network.load_state_dict(network.state_dict() | {"0.bias": np.full(6, np.nan)})
        assert np.isnan(network.state_dict()["0.bias"]).all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(cnn.CheckpointError, match=r"the file .*nowhere.* does not exist"):
        cnn.load(tmp_path / "nowhere.safetensors")


def test_damage_is_answered_by_our_own_error_only(network, tmp_path):
    path = tmp_path / "m.safetensors"
    network.save(path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    header = int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            damaged[random.integers(0, header + 8)] = random.integers(0, 256)
        if random.random() < 0.3:
            del damaged[random.integers(0, len(damaged)) :]
        path.write_bytes(damaged)
        try:
            cnn.load(path, device="cpu")
        except cnn.CheckpointError:
            refused += 1
    assert refused > 200


def test_a_device_that_does_not_exist_is_not_blamed_on_the_file(network, tmp_path):
    network.save(tmp_path / "m.safetensors")
    with pytest.raises(cnn.ArgumentError, match="unknown device 'gpu'"):
        cnn.load(tmp_path / "m.safetensors", device="gpu")


def test_a_later_version_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr("cnn.network.FILE_VERSION", 2)
    network.save(tmp_path / "m.safetensors")
    monkeypatch.undo()
    with pytest.raises(cnn.CheckpointError, match="version 2, expected 1"):
        cnn.load(tmp_path / "m.safetensors", device="cpu")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(cnn.CheckpointError):
        cnn.load(tmp_path, device="cpu")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(network, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    network.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        network.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_saved_file_has_the_usual_permissions(network, tmp_path):
    network.save(tmp_path / "m.safetensors")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
