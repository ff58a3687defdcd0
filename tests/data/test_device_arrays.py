"""Data sets whose images are on the network's device: they stay there, and mean the same as on the host."""

import pickle
import re
from collections import Counter

import numpy as np
import pytest
from helpers.foreign_arrays import Interface, Tensor
from helpers.standin import Array

import backends
import cnn
from backends.interoperability import to_host
from cnn.data import Dataset
from cnn.data.notes import notes_on
from cnn.inspection.attribution import occlusion, saliency
from cnn.inspection.sheet import augmented
from cnn.runs.report.evaluation import MOST_MISTAKES, Evaluation, examine
from cnn.saving.c_code import calibration_images
from cnn.support.errors import ArgumentError, DataError

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (200, 3, 8, 8), dtype=np.uint8)
FLOATS = RANDOM.uniform(-1, 1, size=(200, 3, 8, 8)).astype(np.float32)
LABELS = np.arange(200) * 7 % 5
KINDS = {"bytes": BYTES, "floats": FLOATS}
PARTS = {
    "only": lambda data: data.only(classes=(3, 1), per_class=20),
    "all of some classes": lambda data: data.only(classes=("1",)),
    "labelled as": lambda data: data.labelled_as(("4", "x", "0")),
    "split, the rest": lambda data: data.split(0.3, seed=1)[0],
    "split": lambda data: data.split(0.3, seed=1)[1],
    "part": lambda data: data.part(20, 100),
    "named": lambda data: data.named(tuple("abcde")),
}
SAMPLED = 64 * BYTES[0].nbytes  # a fingerprint reads 64 images


def network(device, *layers, images=BYTES):
    net = cnn.Sequential(*(layers or (cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(5))))
    net.build(images.shape[1:], backend=device)
    return net


def trained(device, data, **settings):
    """The weights after two epochs of ten steps, which are enough to be recorded, and the history."""
    net = network(device)
    history = cnn.fit(net, data, validation=data, epochs=2, batch_size=20, callbacks=[], **settings)
    return net.state_dict(), history


def equal(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def same(one, other):
    """Asserts that two data sets are equal, wherever they are."""
    assert repr(one) == repr(other)
    assert one.classes == other.classes
    assert one.fingerprint == other.fingerprint
    assert len(one.samples.arrays) == len(other.samples.arrays)
    for array, expected in zip(one.samples.arrays, other.samples.arrays, strict=True):
        np.testing.assert_array_equal(to_host(array), to_host(expected))


def answer(make):
    """What ``make`` raises, or None."""
    try:
        make()
    except DataError as error:
        return str(error)
    return None


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def images(request):
    return request.param


class TestTraining:
    @pytest.mark.parametrize(
        "make", [None, Tensor, Interface], ids=["CuPy", "DLPack", "CUDA array interface"]
    )
    def test_images_never_cross(self, standin, images, make):
        on_device = standin.asarray(images) if make is None else make(images)
        standin.reset_counters()
        data = Dataset(on_device, LABELS)
        trained(standin, data)
        assert max(standin.crossed) <= max(SAMPLED * images.itemsize, 8 * len(LABELS))
        assert max(standin.crossed) < images.nbytes

    def test_the_memory_that_was_passed_is_the_one_that_is_read(self, standin, images):
        passed = standin.asarray(images)
        assert Dataset(passed, LABELS).images is passed
        net, other = network(standin), RANDOM.permutation(images)
        before = net.predict(passed)
        standin.asarray(other, out=passed)
        assert (net.predict(passed) != before).any()
        np.testing.assert_array_equal(net.predict(passed), net.predict(other))

    def test_weights_are_those_of_training_from_the_host_bit_by_bit(self, standin, images):
        first, history = trained(standin, Dataset(images, LABELS), normalize=True)
        second, again = trained(standin, Dataset(standin.asarray(images), LABELS), normalize=True)
        if images.dtype == np.uint8:  # the mean of floats is summed in another order on a real device
            assert history[-1]["loss"] == again[-1]["loss"]
        equal(first, second)

    def test_evaluation_is_the_same(self, standin, images):
        net = network(standin)
        on_device = Dataset(standin.asarray(images), LABELS)
        assert cnn.evaluate(net, on_device) == cnn.evaluate(net, Dataset(images, LABELS))

    def test_prediction_saves_one_crossing_that_of_the_images(self, standin, images):
        net, passed = network(standin), standin.asarray(images)
        standin.reset_counters()
        from_device = net.predict(passed)
        saved = standin.crossed.copy()
        standin.reset_counters()
        from_host = net.predict(images)
        ends = [images.itemsize] * 2 if images is FLOATS else []  # which show whether all are finite
        assert Counter([*saved, images.nbytes]) == Counter(standin.crossed + ends)
        assert images.nbytes not in saved
        np.testing.assert_array_equal(from_device, from_host)

    def test_an_autoencoder_learns_from_images_on_the_device(self, standin):
        found = []
        for passed in BYTES, standin.asarray(BYTES):
            data = Dataset(passed, targets=passed)
            assert data.targets is data.images
            net = network(standin, cnn.Conv2D(3, 3, padding=1))
            standin.reset_counters()
            cnn.fit(net, data, callbacks=[])
            found.append((net.state_dict(), BYTES.nbytes in standin.crossed))
        assert [crossed for _, crossed in found] == [True, False]
        equal(found[0][0], found[1][0])

    def test_pictures_as_targets_stay_on_the_device(self, standin):
        data = Dataset(BYTES, targets=standin.asarray(FLOATS))
        assert isinstance(data.targets, Array)
        cnn.fit(network(standin, cnn.Conv2D(3, 3, padding=1)), data, callbacks=[])
        same(data, Dataset(BYTES, targets=FLOATS))

    def test_a_resumed_run_takes_the_same_data_from_the_host(self, standin, tmp_path):
        path = tmp_path / "checkpoint.safetensors"
        on_device, on_host = Dataset(standin.asarray(BYTES), LABELS), Dataset(BYTES, LABELS)
        whole = network(standin)
        cnn.fit(whole, on_host, epochs=2, callbacks=[])
        part = network(standin)
        cnn.fit(part, on_device, epochs=2, callbacks=[Stop(), cnn.Checkpoint(path)])
        assert (part.flat.value != whole.flat.value).any()
        again = network(standin)
        cnn.fit(again, on_host, epochs=2, callbacks=[], resume=path)
        equal(whole.state_dict(), again.state_dict())


class Stop(cnn.Callback):
    """Ends a run after its first epoch."""

    def on_epoch(self, run, record):
        run.stop = True


class TestChecks:
    @pytest.mark.parametrize("dtype", ["int8", "int32", "uint16", "int64", "uint64"])
    def test_whole_numbers_become_bytes_on_the_device(self, standin, dtype):
        whole = (BYTES // 2).astype(dtype)
        passed = standin.asarray(whole)
        standin.reset_counters()
        data = Dataset(passed, LABELS)
        assert sum(standin.crossed) == 2 * whole.itemsize  # the lowest and the highest
        assert isinstance(data.images, Array)
        same(data, Dataset(whole, LABELS))

    @pytest.mark.parametrize("change", [
        lambda array: array[:, 0],
        lambda array: array[::2],
        lambda array: array.transpose(0, 1, 3, 2),
        lambda array: array.astype("float16"),
        lambda array: array.astype("float64"),
    ], ids=["grey", "every second", "transposed", "float16", "float64"])  # fmt: skip
    def test_images_become_contiguous_in_a_dtype_of_a_data_set(self, standin, change):
        expected = change(FLOATS)
        data = Dataset(change(standin.asarray(FLOATS)), LABELS[: len(expected)])
        assert data.images.flags.c_contiguous
        same(data, Dataset(expected, LABELS[: len(expected)]))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite_are_found_on_the_device(self, standin, value):
        wrong = FLOATS.copy()
        wrong[130, 1, 2, 3] = wrong[150, 0, 0, 0] = value
        passed = standin.asarray(wrong)
        standin.reset_counters()
        message = answer(lambda: Dataset(passed, LABELS))
        assert message == "images: image 130 contains NaN or infinity: expected finite numbers"
        assert message == answer(lambda: Dataset(wrong, LABELS))
        assert max(standin.crossed) < wrong.nbytes / 100

    @pytest.mark.parametrize(
        "wrong",
        [
            BYTES.astype("int16") * 2,
            BYTES.astype("int8"),
            BYTES[:0],
            BYTES[0],
            BYTES.reshape(200, -1),
            BYTES.transpose(0, 2, 3, 1),
            BYTES > 7,
            BYTES.astype("complex64"),
            BYTES[:7],
        ],
    )
    def test_what_is_refused_on_the_host_is_refused_on_the_device(self, standin, wrong):
        message = answer(lambda: Dataset(wrong, LABELS))
        assert message
        assert answer(lambda: Dataset(standin.asarray(wrong), LABELS)) == message

    @pytest.mark.parametrize(
        "labels",
        [
            LABELS,
            LABELS.astype("uint8"),
            LABELS.astype("float32"),
            np.eye(5)[LABELS],
            np.eye(5, dtype="float32")[LABELS] * 0.9 + 0.02,
            LABELS - 1,
            LABELS + 0.5,
            np.eye(5)[LABELS] * 2,
            LABELS[:-1],
        ],
    )
    def test_labels_are_copied_to_the_host_once_and_checked_there(self, standin, labels):
        passed, on_device = standin.asarray(BYTES), standin.asarray(labels)
        standin.reset_counters()
        message = answer(lambda: Dataset(passed, on_device))
        assert standin.crossed == [labels.nbytes]
        assert message == answer(lambda: Dataset(BYTES, labels))
        if message is None:
            data = Dataset(passed, on_device)
            assert isinstance(data.targets, np.ndarray)
            same(data, Dataset(BYTES, labels))

    def test_weights_and_rows_of_numbers_are_copied_to_the_host(self, standin):
        weights, rows = RANDOM.random(200), RANDOM.normal(size=(200, 4))
        data = Dataset(
            standin.asarray(BYTES), targets=standin.asarray(rows), weights=standin.asarray(weights)
        )
        assert isinstance(data.targets, np.ndarray)
        same(data, Dataset(BYTES, targets=rows, weights=weights))

    @pytest.mark.parametrize(("tensor", "reason"), [
        (Tensor(BYTES, dtype="torch.bfloat16"), "images: dtype bfloat16, which NumPy does not have"),
        (Tensor(FLOATS, requires_grad=True), "images: this tensor requires grad"),
    ])  # fmt: skip
    def test_tensors_that_cannot_be_taken_are_named(self, standin, tensor, reason):
        for take in (lambda: Dataset(tensor, LABELS), lambda: network(standin).predict(tensor)):
            with pytest.raises(DataError, match=re.escape(reason)):
                take()
        with pytest.raises(DataError, match=re.escape(reason.replace("images", "labels"))):
            Dataset(BYTES, tensor)

    def test_a_network_elsewhere_refuses_them(self, standin):
        net, data = network("cpu"), Dataset(standin.asarray(BYTES), LABELS)
        refused = "the images are on standin:0, the network is on cpu: build the network there, or give"
        for use in (
            lambda: net.predict(data.images),
            lambda: cnn.fit(net, data),
            lambda: cnn.evaluate(net, data),
            lambda: cnn.whiten(net, data),
        ):
            with pytest.raises(ArgumentError, match=refused):
                use()

    def test_they_cannot_be_streamed(self, standin):
        data = Dataset(standin.asarray(BYTES), LABELS)
        with pytest.raises(ArgumentError, match="stream is True, but the data are on standin:0 already"):
            cnn.fit(network(standin), data, stream=True)

    def test_room_for_a_copy_is_not_needed(self, standin):
        standin.room = 0
        trained(standin, Dataset(standin.asarray(BYTES), LABELS))
        assert BYTES.nbytes not in standin.crossed[1:]


class TestUses:
    @pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
    def test_parts_are_those_of_the_set_on_the_host(self, standin, images, part):
        weights = RANDOM.random(200)
        data = part(Dataset(standin.asarray(images), LABELS, weights=weights))
        assert isinstance(data.images, Array)
        same(data, part(Dataset(images, LABELS, weights=weights)))

    def test_choosing_brings_positions_alone_to_the_device(self, standin):
        data = Dataset(standin.asarray(BYTES), LABELS)
        standin.reset_counters()
        part = data.only(classes=(0, 1))
        assert standin.crossed == [8 * len(part)]

    def test_parts_of_an_autoencoders_images_are_their_own_targets(self, standin):
        passed = standin.asarray(BYTES)
        one, other = Dataset(passed, targets=passed).split(50)
        assert one.targets is one.images
        assert other.targets is other.images

    def test_pickled_they_return_to_their_device(self, standin, images):
        data = Dataset(standin.asarray(images), LABELS)
        again = pickle.loads(pickle.dumps(data))
        assert isinstance(again.images, Array)
        assert again.images is not data.images
        same(again, data)

    def test_mean_and_deviation_are_measured_on_the_device(self, standin, images):
        data = Dataset(standin.asarray(images), LABELS)
        standin.reset_counters()
        found, expected = cnn.Preprocessing.of(data), cnn.Preprocessing.of(Dataset(images, LABELS))
        np.testing.assert_allclose(found.mean, expected.mean, rtol=0 if images is BYTES else 1e-12)
        np.testing.assert_allclose(found.std, expected.std, rtol=0 if images is BYTES else 1e-12)
        assert max(standin.crossed) == 3 * 8  # a number for each channel

    @pytest.mark.parametrize("images", [BYTES, BYTES // 20, FLOATS, FLOATS * 100, abs(FLOATS) * 50])
    def test_notes_on_their_range_are_the_same(self, standin, images):
        passed = standin.asarray(images)
        standin.reset_counters()
        notes = notes_on(Dataset(passed, LABELS), "training")
        assert notes == notes_on(Dataset(images, LABELS), "training")
        assert all(nbytes <= 8 for nbytes in standin.crossed)

    def test_whitening_is_the_same(self, standin, images):
        found = []
        for passed in images, standin.asarray(images):
            net = network(standin, cnn.Conv2D(6, 2), cnn.Flatten(), cnn.Dense(5))
            cnn.whiten(net, Dataset(passed, LABELS))
            found.append(net.state_dict())
        equal(*found)

    def test_attributions_are_the_same(self, standin):
        net, some = network(standin), BYTES[:3]
        passed = standin.asarray(some)
        np.testing.assert_array_equal(saliency(net, passed, [0, 1, 2]), saliency(net, some, [0, 1, 2]))
        np.testing.assert_array_equal(occlusion(net, passed[0], 1), occlusion(net, some[0], 1))

    def test_the_evaluation_for_the_report_is_saved_and_is_the_same(self, standin, images, tmp_path):
        net, found = network(standin), []
        for passed in images, standin.asarray(images):
            examine(net, Dataset(passed, LABELS)).save(tmp_path / "evaluation")
            found.append(Evaluation.load(tmp_path / "evaluation"))
        one, other = found
        assert one.result == other.result
        assert len(other.mistakes.images) == MOST_MISTAKES
        np.testing.assert_array_equal(other.mistakes.images, images[other.mistakes.positions])
        equal(vars(one.mistakes), vars(other.mistakes))

    def test_the_sheet_of_augmented_pictures_is_the_same(self, standin, images):
        augment = [cnn.augment.Shift(1), cnn.augment.Flip()]
        found = augmented(Dataset(standin.asarray(images), LABELS), augment)
        np.testing.assert_array_equal(found, augmented(Dataset(images, LABELS), augment))

    def test_images_that_calibrate_integers_come_to_the_host(self, standin):
        found = calibration_images(Dataset(standin.asarray(BYTES), LABELS), ("0", "3"))
        np.testing.assert_array_equal(found, calibration_images(Dataset(BYTES, LABELS), ("0", "3")))


class TestPyTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch", reason="PyTorch is not installed")

    def test_the_cpu_shares_the_memory_of_images(self, torch, images):
        data = Dataset(torch.from_numpy(images), torch.from_numpy(LABELS))
        assert np.shares_memory(data.images, images)
        same(data, Dataset(images, LABELS))

    def test_predictions_are_those_for_arrays(self, torch, images):
        net = network("cpu")
        np.testing.assert_array_equal(net.predict(torch.from_numpy(images)), net.predict(images))

    def test_outputs_can_be_taken_back(self, torch):
        y = network("cpu").forward(np.zeros((3, 8, 8, 2), np.float32))
        assert torch.from_dlpack(y).data_ptr() == y.ctypes.data

    def test_sixteen_bits_and_gradients_are_refused_by_name(self, torch):
        net, tensor = network("cpu"), torch.from_numpy(FLOATS)
        with pytest.raises(DataError, match=r"images: dtype bfloat16.*give images\.float\(\) in PyTorch"):
            net.predict(tensor.bfloat16())
        with pytest.raises(DataError, match=r"images: this tensor requires grad.*give images\.detach\(\)"):
            Dataset(tensor.clone().requires_grad_(), LABELS)
        np.testing.assert_array_equal(net.predict(tensor.half()), net.predict(FLOATS.astype("float16")))

    @pytest.mark.gpu
    def test_a_gpu_trains_on_tensors_without_a_copy(self, torch, images):
        if not torch.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")
        gpu = backends.get("cuda")
        data = Dataset(torch.from_numpy(images).cuda(), torch.from_numpy(LABELS).cuda())
        assert gpu.owns(data.images)
        equal(trained(gpu, data)[0], trained(gpu, Dataset(images, LABELS))[0])


def test_images_of_cupy_train_as_those_of_the_host(backend, images):
    on_device = Dataset(backend.asarray(images), LABELS)
    same(on_device, Dataset(images, LABELS))
    equal(trained(backend, on_device)[0], trained(backend, Dataset(images, LABELS))[0])
