"""Preprocessing belongs to the network: measured once, kept in its files, applied wherever images enter."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.data.feed import Feed

SETS = ("portable", "compiled", "signal")
COLOUR = cnn.data.Dataset(
    np.random.default_rng(0).integers(0, 200, (90, 3, 8, 8), dtype=np.uint8)
    + np.arange(3).reshape(3, 1, 1) * 9,
    np.arange(90) % 3,
)
GIVEN = cnn.Preprocessing(mean=(0.5, 0.25, 0.4), std=(0.2, 0.3, 0.1))


def network(device="cpu", dtype="float32", shape=(3, 8, 8)):
    net = cnn.Sequential(cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(3))
    net.build(shape, backend=device, dtype=dtype)
    return net


def normalized(images, preprocessing):
    scaled = images / 255 if images.dtype == np.uint8 else images
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (preprocessing.mean, preprocessing.std))
    return (scaled - mean) / std


class TestMeasuring:
    def test_bytes_are_measured_exactly(self):
        found = cnn.Preprocessing.of(COLOUR)
        scaled = COLOUR.images.astype(np.longdouble) / 255
        np.testing.assert_allclose(found.mean, scaled.mean(axis=(0, 2, 3)).astype(float), rtol=1e-15)
        np.testing.assert_allclose(found.std, scaled.std(axis=(0, 2, 3)).astype(float), rtol=1e-14)

    def test_the_order_of_bytes_does_not_matter(self):
        turned = cnn.data.Dataset(COLOUR.images[::-1], COLOUR.labels)
        assert cnn.Preprocessing.of(turned) == cnn.Preprocessing.of(COLOUR)

    def test_floats_are_measured_in_double_precision_as_they_are(self):
        images = (1000 + np.random.default_rng(0).standard_normal((5000, 2, 9, 9))).astype(np.float32)
        found = cnn.Preprocessing.of(cnn.data.Dataset(images, np.zeros(5000, int)))
        np.testing.assert_allclose(found.mean, images.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(found.std, images.std(axis=(0, 2, 3), dtype=np.float64), rtol=1e-9)

    def test_a_constant_channel_is_only_shifted(self):
        images = np.full((4, 1, 5, 5), 51, np.uint8)
        found = cnn.Preprocessing.of(cnn.data.Dataset(images, np.zeros(4, int)))
        assert found == cnn.Preprocessing((0.2,), (1.0,))

    def test_a_constant_channel_whose_mean_is_rounded_is_constant(self):
        images = np.random.default_rng(0).random((777, 2, 5, 7))
        images[:, 0] = 1 / 3
        found = cnn.Preprocessing.of(cnn.data.Dataset(images, np.zeros(777, int)))
        assert found.std[0] == 1
        assert found.std[1] == pytest.approx(images[:, 1].std(), rel=1e-12)

    def test_a_mapped_file_is_read_in_pieces(self, tmp_path):
        images = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (6000, 1, 64, 64))
        images[:] = np.arange(64, dtype=np.uint8)
        images.flush()
        script = f"""
import resource, numpy as np, cnn
data = cnn.data.Dataset(np.load({str(tmp_path / "x.npy")!r}, mmap_mode="r"), np.zeros(6000, int))
import tracemalloc; tracemalloc.start()
found = cnn.Preprocessing.of(data)
assert tracemalloc.get_traced_memory()[1] < 8 << 20
print(found.mean[0] * 255)
"""
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == ("31.5", "")


class TestApplying:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("kind", ["uint8", "float32"])
    def test_every_kernel_set_gives_the_same_bits(self, kind, dtype):
        images = COLOUR.images.astype(kind)
        batches = []
        for device in (*(backends.get("cpu", name) for name in SETS), StandInBackend("portable")):
            feed = Feed(device, dtype, images, COLOUR.labels, 40, preprocessing=GIVEN)
            with device.active():
                batches.append(np.concatenate([device.to_host(x) for x, _ in feed], axis=-1))
        expected = np.moveaxis(normalized(images, GIVEN), 0, -1)
        np.testing.assert_allclose(batches[0], expected, rtol=1e-5, atol=1e-5 * expected.max())
        for batch in batches[1:]:
            np.testing.assert_array_equal(batch, batches[0])

    def test_predict_takes_bytes_and_floats_alike(self, kernels):
        net = network(backends.get("cpu", kernels), "float64")
        plain = net.predict(normalized(COLOUR.images, GIVEN))
        net.preprocessing = GIVEN
        np.testing.assert_allclose(net.predict(COLOUR.images), plain, rtol=1e-10)
        np.testing.assert_allclose(net.predict(COLOUR.images / 255), plain, rtol=1e-10)

    def test_training_and_evaluation_apply_it(self):
        whole, parts = network(dtype="float64"), network(dtype="float64")
        by_hand = cnn.data.Dataset(normalized(COLOUR.images, GIVEN), COLOUR.labels)
        parts.preprocessing = GIVEN
        first = cnn.fit(whole, by_hand, validation=by_hand, callbacks=[])
        second = cnn.fit(parts, COLOUR, validation=COLOUR, callbacks=[], stream=True)
        for name in ("loss", "validation_loss"):
            assert first[0][name] == pytest.approx(second[0][name], rel=1e-10)
        assert cnn.evaluate(parts, COLOUR)["loss"] == pytest.approx(second[0]["validation_loss"])

    def test_normalize_measures_the_training_set(self):
        net = network()
        cnn.fit(net, COLOUR, callbacks=[], normalize=True)
        assert net.preprocessing == cnn.Preprocessing.of(COLOUR)

    def test_normalized_floats_of_any_range_are_fine(self, recwarn):
        wide = cnn.data.Dataset(COLOUR.images * 100.0, COLOUR.labels)
        cnn.fit(network(), wide, callbacks=[], normalize=True)
        assert not [warning for warning in recwarn if "floats" in str(warning.message)]


class TestKeeping:
    def test_a_copy_a_pickle_and_a_file_predict_the_same(self, tmp_path):
        net = network()
        cnn.fit(net, COLOUR, callbacks=[], normalize=True)
        net.save(tmp_path / "net.safetensors")
        loaded = cnn.load(tmp_path / "net.safetensors", device="cpu")
        into = cnn.load(tmp_path / "net.safetensors", network=network())
        for other in (net.copy(), pickle.loads(pickle.dumps(net)), loaded, into):
            assert other.preprocessing == net.preprocessing
            np.testing.assert_array_equal(other.predict(COLOUR.images), net.predict(COLOUR.images))
        assert sorted(net.state_dict()) == sorted(network().state_dict())

    def test_files_without_preprocessing_load_as_before(self, tmp_path):
        network().save(tmp_path / "plain.safetensors")
        assert b"preprocessing" not in (tmp_path / "plain.safetensors").read_bytes()
        assert cnn.load(tmp_path / "plain.safetensors", device="cpu").preprocessing is None
        other = network()
        other.preprocessing = GIVEN
        assert cnn.load(tmp_path / "plain.safetensors", network=other).preprocessing is None

    def test_weights_from_elsewhere_leave_the_networks_own(self, tmp_path):
        from safetensors.numpy import save_file

        net = network()
        save_file(net.state_dict(), tmp_path / "torch.safetensors")
        net.preprocessing = GIVEN
        assert cnn.load(tmp_path / "torch.safetensors", network=net).preprocessing == GIVEN

    def test_a_damaged_description_is_refused(self, tmp_path):
        net, path = network(), tmp_path / "net.safetensors"
        net.save(path, {"preprocessing": {"mean": [0.5], "std": [0]}})
        with pytest.raises(cnn.CheckpointError, match=r"the preprocessing cannot be used .*above 0"):
            cnn.load(path, device="cpu")

    def test_a_resumed_run_keeps_what_it_began_with(self, tmp_path):
        whole = network()
        cnn.fit(whole, COLOUR, epochs=3, callbacks=[], normalize=True)
        half = network()
        checkpoint = [cnn.Checkpoint(tmp_path / "c.safetensors")]
        cnn.fit(half, COLOUR, epochs=1, callbacks=checkpoint, normalize=True)
        resumed = network()
        cnn.fit(resumed, COLOUR, epochs=3, callbacks=[], normalize=True, resume=tmp_path / "c.safetensors")
        assert resumed.preprocessing == whole.preprocessing
        with pytest.raises(cnn.CheckpointError, match="began with normalize True, now it is None"):
            cnn.fit(network(), COLOUR, epochs=3, callbacks=[], resume=tmp_path / "c.safetensors")

    def test_an_exported_model_normalizes(self, tmp_path):
        pytest.importorskip("onnx")
        runtime = pytest.importorskip("onnxruntime")
        net = network()
        net.preprocessing = GIVEN
        from cnn.saving import onnx

        onnx.export(net, tmp_path / "net.onnx")
        session = runtime.InferenceSession(tmp_path / "net.onnx")
        images = (COLOUR.images / 255).astype(np.float32)
        (found,) = session.run(None, {"images": images})
        np.testing.assert_allclose(found, net.predict(COLOUR.images), rtol=1e-4, atol=1e-6)


class TestRefusing:
    @pytest.mark.parametrize(
        ("mean", "std", "said"),
        [
            (0.5, (0.1,), "mean is 0.5, expected a number for each channel"),
            ((0.5,), (), r"std is \(\), expected a number for each channel"),
            ((0.5,), (0,), "std has 0, expected numbers above 0"),
            ((0.5, float("nan")), (1, 1), "mean is nan"),
            ((0.5, 0.5), (1,), "mean has 2 numbers and std has 1"),
        ],
    )
    def test_numbers_that_make_no_sense(self, mean, std, said):
        with pytest.raises(cnn.ArgumentError, match=said):
            cnn.Preprocessing(mean, std)

    def test_another_number_of_channels(self):
        with pytest.raises(cnn.ArgumentError, match=r"for 3 channels, the network's input is \(1, 8, 8\)"):
            network(shape=(1, 8, 8)).preprocessing = GIVEN

    def test_a_network_that_is_not_built(self):
        with pytest.raises(cnn.ArgumentError, match="not built yet"):
            cnn.Sequential(cnn.Flatten()).preprocessing = GIVEN


def test_the_command_normalizes_and_the_run_keeps_it(command, own_data):
    settings = ("--data", own_data, "--epochs", "1", "--normalize", "--device", "cpu", "--no-report")
    code, _, said = command("train", *settings, "--out", "run")
    assert code == 0, said
    net = cnn.load("run/model.safetensors", device="cpu")
    train, test = cnn.data.load(own_data)
    assert net.preprocessing == cnn.Preprocessing.of(train)
    code, out, _ = command("evaluate", "run", "--json", "--device", "cpu")
    assert f'"loss": {cnn.evaluate(net, test)["loss"]}'[:20] in out
