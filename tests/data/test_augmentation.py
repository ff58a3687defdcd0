"""Augmentation: what the device makes of images, against NumPy and SciPy, and the same on every device."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.standin import StandInBackend
from scipy import ndimage, stats

import backends
import cnn
from backends.kernels.augmentation import AFFINE, GAIN, OFFSET
from cnn.data.augmentation import (
    AUGMENTATIONS,
    EXAMPLES,
    AlternatingFlip,
    Brightness,
    Contrast,
    Crop,
    CutMix,
    Erase,
    Flip,
    Mixup,
    Rotate,
    Scale,
    Shear,
    Shift,
)
from cnn.data.feed import Feed
from cnn.data.inference import Inference

CPU = backends.get("cpu")
RANDOM = np.random.default_rng(0)
H, W = 11, 12
GREY = RANDOM.integers(1, 256, (90, 1, H, W), dtype=np.uint8)
COLOUR = RANDOM.integers(1, 256, (90, 3, H, W), dtype=np.uint8)
LABELS = np.arange(90) % 3


def batches(augmentations, images=COLOUR, number=0, device=CPU, dtype="float64", order=None, **options):
    """(images (N, C, H, W), targets) of an epoch, in the order of the data set."""
    order = np.arange(len(images)) if order is None else order
    options = {"batch_size": 32, "seed": 5, "classes": 3} | options
    feed = Feed(device, dtype, images, LABELS, augment=augmentations, **options)
    xs, targets = [], []
    with device.active():
        feed.start(order, epoch=number)
        for _ in feed.batches():
            for size in feed.shards[0].sizes:
                x, y = feed.gather(size)
                xs.append(device.to_host(x))
                targets.append(device.to_host(y))
    back = np.argsort(order)
    return np.moveaxis(np.concatenate(xs, -1), -1, 0)[back], np.concatenate(targets, -1).T[back]


def augmented(*augmentations, **options):
    return batches(augmentations, **options)[0]


def drawn(augmentation, images=COLOUR, count=90):
    """What is drawn for the first images."""
    augmenter = cnn.augment.Augmenter(CPU, [augmentation], images.shape[1:], images.dtype, seed=5)
    augmenter.start(0)
    places, out = np.arange(count)[None], np.empty((*images.shape[1:], count))
    plain = cnn.Preprocessing.none(images.shape[1]).arrays(images.dtype, "float64")
    buffers = backends.memory.Buffers(CPU, "float64")
    return augmenter.gather(images, places, places, plain, buffers, out)


def same(found, images):
    """Which of the images (N, C, H, W) have been found."""
    return np.isclose(found, images / 255, rtol=1e-12).all(axis=(1, 2, 3))


def shifted(image, down, right, mode):
    """NumPy's way: pad, then slice."""
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode={"zero": "constant"}.get(mode, mode))
    return padded[:, 3 + down : 3 + down + H, 3 + right : 3 + right + W]


class TestWholePixels:
    @pytest.mark.parametrize("mode", ["zero", "reflect"])
    @pytest.mark.parametrize("augmentation", [Shift, Crop])
    @pytest.mark.parametrize("images", [GREY, COLOUR])
    def test_a_shift_is_a_slice_of_the_padded_image(self, images, augmentation, mode):
        moves = [(down, right) for down in range(-3, 4) for right in range(-3, 4)]
        seen = set()
        for image, found in zip(images, augmented(augmentation(3, mode), images=images), strict=True):
            fits = [m for m in moves if np.allclose(shifted(image, *m, mode) / 255, found, rtol=1e-15)]
            assert len(fits) == 1
            seen |= set(fits)
        assert len(seen) > 30  # of 49, for 90 images
        assert {down for down, _ in seen} == {right for _, right in seen} == set(range(-3, 4))

    def test_half_of_the_images_are_mirrored(self):
        found = augmented(Flip())
        mirrored, plain = same(found, COLOUR[..., ::-1]), same(found, COLOUR)
        assert (mirrored ^ plain).all()
        assert 30 < mirrored.sum() < 60

    def test_a_mirrored_image_alternates_from_epoch_to_epoch(self):
        epochs = [augmented(AlternatingFlip(), number=number) for number in range(5)]
        first = same(epochs[0], COLOUR[..., ::-1])
        assert 30 < first.sum() < 60
        for number, found in enumerate(epochs):
            mirrored = same(found, COLOUR[..., ::-1])
            np.testing.assert_array_equal(mirrored, first ^ bool(number % 2))

    def test_epochs_and_seeds_differ(self):
        first = augmented(Shift(3))
        assert (first != augmented(Shift(3), number=1)).any(axis=(1, 2, 3)).mean() > 0.9
        assert (first != augmented(Shift(3), seed=6)).any(axis=(1, 2, 3)).mean() > 0.9

    def test_a_move_between_two_equal_augmentations_is_drawn_for_each(self):
        once, twice = drawn(Shift(1)), augmented(Shift(1), Shift(1))
        assert set(once[2]) == {-1, 0, 1}
        moved = [np.allclose(shifted(i, 2, 0, "zero") / 255, f) for i, f in zip(COLOUR, twice, strict=True)]
        assert sum(moved) > 0


SMOOTH = {
    "rotate": Rotate(30),
    "scale": Scale(0.7, 1.5),
    "shear": Shear(20),
    "crop": Crop(size=8),
    "reflected": Rotate(90, "reflect"),
    "far reflected": Scale(0.2, 0.3, "reflect"),
}


class TestInterpolation:
    """Coordinates are rounded to 1/256 pixel, so a pixel may be off by a grey level."""

    @pytest.mark.parametrize("augmentation", SMOOTH.values(), ids=SMOOTH.keys())
    def test_scipy_finds_the_same(self, augmentation):
        found, rows = augmented(augmentation, images=GREY), drawn(augmentation, images=GREY)
        mode = "mirror" if augmentation.mode == "reflect" else "grid-constant"
        for n, image in enumerate(GREY[:, 0]):
            a, b, c, d, e, f = rows[AFFINE : AFFINE + 6, n]
            expected = ndimage.affine_transform(image / 255, [[a, b], [d, e]], (c, f), order=1, mode=mode)
            np.testing.assert_allclose(found[n, 0], expected, atol=1.1 / 255)

    def test_the_rounding_is_all_that_differs(self):
        """At rounded coordinates, the definition of bilinear interpolation gives the same numbers."""
        found, rows = augmented(Rotate(30), images=GREY), drawn(Rotate(30), images=GREY)
        padded = np.pad(GREY[:, 0] / 255, ((0, 0), (20, 20), (20, 20)))
        i, j = np.mgrid[:H, :W]
        for n in range(len(GREY)):
            a, b, c, d, e, f = rows[AFFINE : AFFINE + 6, n]
            y, x = (
                np.floor(place * 256 + 0.5) / 256 + 20 for place in (a * i + b * j + c, d * i + e * j + f)
            )
            top, left = np.floor(y).astype(int), np.floor(x).astype(int)
            down, right, p = y - top, x - left, padded[n]
            upper = p[top, left] * (1 - right) + p[top, left + 1] * right
            lower = p[top + 1, left] * (1 - right) + p[top + 1, left + 1] * right
            np.testing.assert_allclose(found[n, 0], upper * (1 - down) + lower * down, rtol=1e-12, atol=1e-14)

    def test_rotations_are_around_the_centre_and_within_the_limit(self):
        a, b, c, d, e, f = drawn(Rotate(30))[AFFINE : AFFINE + 6]
        angles = np.degrees(np.arctan2(d, a))
        assert (np.abs(angles) <= 30).all()
        assert angles.min() < -20
        assert angles.max() > 20
        np.testing.assert_allclose(
            [a, b], [np.cos(np.radians(angles)), -np.sin(np.radians(angles))], atol=1e-4
        )
        centre = (H - 1) / 2, (W - 1) / 2
        np.testing.assert_allclose(a * centre[0] + b * centre[1] + c, centre[0], atol=1e-3)
        np.testing.assert_allclose(d * centre[0] + e * centre[1] + f, centre[1], atol=1e-3)

    def test_moves_are_composed_in_their_order(self):
        """A shift, then a zoom by 2 around the centre: pixels come from half as far, then from the shift."""
        found = augmented(Shift(1), Scale(2, 2), images=GREY)
        shift = drawn(Shift(1), images=GREY)
        for n, image in enumerate(GREY[:, 0]):
            moved = shifted(image[None] / 255, int(shift[2, n]), int(shift[5, n]), "zero")[0]
            centre = np.array([(H - 1) / 2, (W - 1) / 2])
            expected = ndimage.affine_transform(moved, [0.5, 0.5], centre / 2, order=1, mode="grid-constant")
            inner = np.s_[2:-2, 2:-2]
            np.testing.assert_allclose(found[n, 0][inner], expected[inner], atol=1.1 / 255)


class TestPixels:
    def test_brightness_multiplies(self):
        gain = drawn(Brightness(0.4))[GAIN]
        assert (np.abs(gain - 1) <= 0.4).all()
        assert np.ptp(gain) > 0.7
        np.testing.assert_allclose(augmented(Brightness(0.4)), COLOUR / 255 * gain.reshape(-1, 1, 1, 1))

    @pytest.mark.parametrize("kind", ["uint8", "float64"])
    def test_contrast_keeps_middle_grey(self, kind):
        images = COLOUR if kind == "uint8" else COLOUR / 255
        rows = drawn(Contrast(0.5), images=images)
        gain = rows[GAIN].reshape(-1, 1, 1, 1)
        assert rows[OFFSET].any()
        expected = 0.5 + (COLOUR / 255 - 0.5) * gain
        np.testing.assert_allclose(augmented(Contrast(0.5), images=images), expected, atol=2e-5)

    def test_a_square_is_erased_after_the_normalization(self):
        normal = cnn.Preprocessing((0.5,) * 3, (0.2,) * 3)
        found = augmented(Erase(4), preprocessing=normal)
        plain = (COLOUR / 255 - 0.5) / 0.2
        for n in range(len(found)):
            erased = (found[n] == 0).all(axis=0)
            rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
            assert (len(rows), len(columns), erased.sum()) == (4, 4, 16)
            np.testing.assert_allclose(found[n][:, ~erased], plain[n][:, ~erased])
        assert len({tuple(np.argwhere((image == 0).all(axis=0))[0]) for image in found}) > 40

    def test_erasing_has_a_probability_and_can_be_repeated(self):
        found = augmented(Erase(3, 0.3))
        assert 10 < (found == 0).any(axis=(1, 2, 3)).sum() < 45
        both = (augmented(Erase(3), Erase(2)) == 0).all(axis=1).sum(axis=(1, 2))
        assert both.max() == 13
        assert both.min() == 9


class TestMixing:
    @pytest.mark.parametrize("alpha", [0.1, 0.4, 1, 5])
    def test_quantiles_are_those_of_the_beta_distribution(self, alpha):
        levels = (np.arange(1024) + 0.5) / 1024
        expected = stats.beta.ppf(levels, alpha, alpha)
        np.testing.assert_allclose(cnn.augment.beta_quantiles(alpha), expected, atol=2e-5)

    def partners(self, count, size):
        """Neighbours in a batch; an image without one takes the one before it."""
        found = []
        for first in range(0, count, size):
            members = list(range(first, min(first + size, count)))
            for place in range(len(members)):
                other = place + 1 if place % 2 == 0 else place - 1
                found.append(members[other] if other < len(members) else members[max(place - 1, 0)])
        return found

    @pytest.mark.parametrize("size", [1, 7, 32])
    def test_mixup_blends_images_and_targets(self, size):
        found, targets = batches([Mixup(0.5)], batch_size=size)
        share = drawn(Mixup(0.5))[8].reshape(-1, 1, 1, 1)
        others = self.partners(90, size)
        expected = share * COLOUR / 255 + (1 - share) * COLOUR[others] / 255
        np.testing.assert_allclose(found, expected, atol=1e-12)
        truth = np.eye(3)
        share = share.reshape(-1, 1)
        np.testing.assert_allclose(targets, share * truth[LABELS] + (1 - share) * truth[LABELS[others]])

    def test_cutmix_replaces_a_rectangle(self):
        found, targets = batches([CutMix(1.0)])
        others = self.partners(90, 32)
        shares = []
        for n, other in enumerate(others):
            cut = (np.abs(found[n] - COLOUR[other] / 255) < 1e-12).all(axis=0)
            np.testing.assert_allclose(found[n][:, ~cut], COLOUR[n][:, ~cut] / 255)
            rows, columns = np.flatnonzero(cut.any(axis=1)), np.flatnonzero(cut.any(axis=0))
            if cut.any():
                assert cut[np.ix_(range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1))].all()
            shares.append(1 - cut.mean())
            truth = np.eye(3)
            expected = shares[-1] * truth[LABELS[n]] + (1 - shares[-1]) * truth[LABELS[other]]
            np.testing.assert_allclose(targets[n], expected, atol=1e-12)
        assert max(shares) > 0.95
        assert min(shares) < 0.5

    def test_images_are_moved_before_they_are_mixed(self):
        found, _ = batches([Shift(2), Mixup(0.5)])
        moved, share = augmented(Shift(2)), batches([Shift(2), Mixup(0.5)])[1]
        others = self.partners(90, 32)
        own = share[np.arange(90), LABELS].reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(found, own * moved + (1 - own) * moved[others], atol=1e-12)


LISTS = {
    "shift and flip": [Shift(2), Flip()],
    "reflected": [Crop(2, "reflect"), AlternatingFlip()],
    "smooth": [Rotate(20), Scale(0.8, 1.2), Shear(10), Shift(1), Flip()],
    "smooth and reflected": [Rotate(70, "reflect"), Crop(size=8, mode="reflect")],
    "pixels": [Brightness(0.3), Contrast(0.4), Erase(3, 0.6), Erase(2)],
    "mixed": [Flip(), Mixup(0.4), CutMix(1.0)],
}


@pytest.mark.parametrize("augmentations", LISTS.values(), ids=LISTS.keys())
class TestTheSameBits:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(
        "images", [GREY, COLOUR, COLOUR.astype(np.float32) - 128], ids=["grey", "", "floats"]
    )
    def test_on_every_kernel_set_and_device(self, augmentations, images, dtype):
        normal = cnn.Preprocessing((0.3, 0.4, 0.5)[: images.shape[1]], (0.2, 0.3, 0.7)[: images.shape[1]])
        options = {"images": images, "dtype": dtype, "preprocessing": normal}
        expected = batches(augmentations, device=backends.get("cpu", "portable"), **options)
        for device in (backends.get("cpu", "compiled"), StandInBackend()):
            for one, other in zip(batches(augmentations, device=device, **options), expected, strict=True):
                np.testing.assert_array_equal(one, other)

    def test_however_the_batch_is_cut_and_wherever_the_data_lie(self, augmentations):
        order = np.random.default_rng(1).permutation(90)
        expected = batches(augmentations, order=order)
        for options in ({"parts": 3}, {"stream": True}, {"parts": 5, "stream": True}):
            for one, other in zip(batches(augmentations, order=order, **options), expected, strict=True):
                np.testing.assert_array_equal(one, other)

    def test_in_a_step_that_is_repeated_without_an_allocation_or_a_crossing(self, augmentations, kernels):
        device = backends.get("cpu", kernels)
        feed = Feed(device, "float32", COLOUR, LABELS, 10, augment=augmentations, classes=3)
        feed.start(np.arange(90), epoch=2)
        found = []

        def step():
            x, _ = feed.gather()
            found[:] = [x]

        seen = []
        for number, _ in enumerate(Inference(feed, step).batches()):
            seen.append(device.to_host(found[0]))
            device.crossings = 0
            before = device.allocations if number > 1 else None
            if number > 2:
                assert (device.allocations, device.crossings) == (before, 0)
        again = batches(augmentations, number=2, dtype="float32", batch_size=10, seed=0)[0]
        np.testing.assert_array_equal(np.moveaxis(np.concatenate(seen, -1), -1, 0), again)


def test_without_mixing_the_order_of_an_epoch_does_not_matter():
    order = np.random.default_rng(1).permutation(90)
    options = {"augmentations": LISTS["smooth"], "batch_size": 7}
    np.testing.assert_array_equal(batches(order=order, **options)[0], batches(LISTS["smooth"])[0])


class TestFit:
    AUGMENT = (Shift(2), AlternatingFlip(), Rotate(10), Erase(3))

    def network(self, device="cpu"):
        net = cnn.Sequential(cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Dropout(0.2), cnn.Flatten(), cnn.Dense(3))
        net.build((3, H, W), backend=device)
        return net

    def weights(self, network):
        return np.concatenate([array.ravel() for array in network.state_dict().values()])

    def train(self, epochs=4, device="cpu", augment=AUGMENT, **options):
        net = self.network(device)
        data = cnn.data.Dataset(COLOUR, LABELS)
        schedule = cnn.schedules.Constant()
        options = {"batch_size": 16, "callbacks": [], "seed": 3, "schedule": schedule} | options
        cnn.fit(net, data, epochs=epochs, augment=augment, **options)
        return self.weights(net)

    def test_a_resumed_run_ends_with_the_same_weights(self, tmp_path):
        whole, path = self.train(), tmp_path / "c.safetensors"
        self.train(epochs=2, callbacks=[cnn.Checkpoint(path)])
        np.testing.assert_array_equal(self.train(resume=path), whole)
        assert (whole != self.train(augment=None)).any()

    def test_it_must_be_resumed_with_the_same_augmentations(self, tmp_path):
        path = tmp_path / "c.safetensors"
        self.train(epochs=1, augment=[Shift(2), Flip()], callbacks=[cnn.Checkpoint(path)])
        said = r"""began with augment \["Shift\(pixels=2, mode='zero'\)", 'Flip\(\)'\], now it is """
        for other in ([Shift(1), Flip()], None):
            with pytest.raises(cnn.CheckpointError, match=said):
                self.train(augment=other, resume=path)

    def test_streamed_or_recorded_or_not_it_is_the_same_run(self):
        whole = self.train()
        np.testing.assert_array_equal(self.train(stream=True), whole)
        np.testing.assert_array_equal(self.train(graph=False), whole)

    def test_mixing_trains_on_shares_of_the_classes(self, kernels):
        """Each sample's loss is the mixture of the losses for both labels, times its weight."""
        weights = np.linspace(0.5, 1.5, 90)
        net = self.network(backends.get("cpu", kernels))
        logits, losses = [], []
        data = cnn.data.Dataset(COLOUR, LABELS, weights=weights)
        soft = cnn.data.Dataset(COLOUR, np.eye(3)[LABELS], weights=weights)
        for each in (data, soft):
            twin = net.copy()
            history = cnn.fit(twin, each, augment=[Flip(), Mixup(0.5)], callbacks=[], batch_size=16)
            losses.append(history[0]["loss"])
            logits.append(twin.predict(COLOUR))
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        np.testing.assert_allclose(*logits, rtol=1e-4)

    def test_targets_that_are_pictures_do_not_follow_the_images(self):
        data = cnn.data.Dataset(COLOUR, targets=COLOUR)
        net = cnn.Sequential(cnn.Conv2D(3, 3, padding=1))
        said = r"Shift\(pixels=2, mode='zero'\) needs images with classes, but Dataset.* leave it out"
        with pytest.raises(cnn.ArgumentError, match=said):
            cnn.fit(net, data, augment=[Shift(2)], callbacks=[])
        cnn.fit(net, data, augment=[Erase(3), Brightness(0.1)], callbacks=[])

    def test_validation_images_stay_as_they_are(self):
        net, data = self.network(), cnn.data.Dataset(COLOUR, LABELS)
        history = cnn.fit(net, data, validation=data, augment=self.AUGMENT, callbacks=[])
        assert history[0]["validation_loss"] == cnn.evaluate(net, data)["loss"]

    @pytest.mark.parametrize("wrong", [5, "flip", [Flip], ["flip"]])
    def test_what_is_no_list_of_augmentations_is_refused(self, wrong):
        with pytest.raises(cnn.ArgumentError, match=r"augment is .*cnn\.augment\.Shift\(2\)"):
            self.train(augment=wrong)


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("shift=2", Shift(2)),
            ("crop=4:reflect", Crop(4, "reflect")),
            ("crop=size=24", Crop(size=24)),
            ("flip", Flip()),
            ("alternating-flip", AlternatingFlip()),
            ("rotate=10.5", Rotate(10.5)),
            ("scale=0.9:1.1:reflect", Scale(0.9, 1.1, "reflect")),
            ("shear=degrees=5", Shear(5)),
            ("erase=4:0.5", Erase(4, 0.5)),
            ("brightness=0.2", Brightness(0.2)),
            ("contrast=0.2", Contrast(0.2)),
            ("mixup=0.2", Mixup(0.2)),
            ("cutmix=1", CutMix(1)),
        ],
    )
    def test_every_augmentation_has_a_name(self, text, meant):
        assert cnn.augment.parse([text]) == [meant]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("shft=2", "unknown augmentation 'shft': expected shift, crop, .*did you mean 'shift'"),
            ("shift", "cannot read the augmentation 'shift': write it as in shift=2$"),
            ("scale=0.1", "'scale=0.1': write it as in scale=0.9:1.1$"),
            ("flip=2", "'flip=2': write it as in flip$"),
            ("brightness=1.1", "Brightness: amount is 1.1, expected a number of at least 0 and at most 1$"),
            ("shift=two", "Shift: pixels is 'two', expected a whole number"),
            ("shift=2:wrap", "Shift: mode is 'wrap', expected zero or reflect"),
            ("crop", "Crop has padding None and size None: expected one of them"),
            ("rotate=-3", "Rotate: degrees is -3, expected a number of at least 0 and at most 180$"),
            ("erase=3:2", "Erase: probability is 2"),
            ("scale=1.2:0.8", "Scale: high is 0.8"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, text, said):
        with pytest.raises(cnn.ArgumentError, match=said):
            cnn.augment.parse([text])

    def test_examples_can_be_read(self):
        assert [type(each) for each in cnn.augment.parse(EXAMPLES)] == list(AUGMENTATIONS.values())

    def test_a_padding_is_named_as_such(self):
        with pytest.raises(cnn.ArgumentError, match=r"^Crop: padding is 11, which is too large"):
            augmented(Crop(11))

    def test_moves_must_agree_on_what_lies_outside(self):
        with pytest.raises(cnn.ArgumentError, match="Shift has mode 'zero' and Rotate has mode 'reflect'"):
            cnn.augment.parse(["shift=2", "flip", "rotate=10:reflect"])

    @pytest.mark.parametrize("augmentation", [Shift(11), Crop(size=12), Erase(12)])
    def test_what_is_larger_than_the_images_is_refused(self, augmentation):
        with pytest.raises(cnn.ArgumentError, match="too large for images of 11x12 pixels"):
            augmented(augmentation)


def test_the_command_augments_and_keeps_it(command, own_data):
    settings = ("--data", own_data, "--device", "cpu", "--no-report", "--schedule", "constant", "--warmup", 0)
    code, _, said = command("train", *settings, "--augment", "shift=2,flip", "--epochs", "1", "--out", "run")
    assert code == 0, said
    assert '"augment": [\n    "shift=2",\n    "flip"\n  ]' in Path("run/config.json").read_text()
    code, _, said = command("train", "--resume", "run", "--epochs", "2", "--no-report")
    assert code == 0, said
    command("train", *settings, "--augment", "shift=2,flip", "--epochs", "2", "--out", "whole")
    weights = [cnn.load(f"{run}/model.safetensors", device="cpu").state_dict() for run in ("run", "whole")]
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])
    code, _, said = command("train", *settings, "--augment", "shft=2")
    assert (code, "unknown augmentation 'shft'" in said) == (2, True)


class TestTestTimeAugmentation:
    def network(self, device="cpu", softmax=False):
        last = [cnn.Softmax()] if softmax else []
        net = cnn.Sequential(cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(3), *last)
        net.build((3, H, W), backend=device, dtype="float64")
        net.preprocessing = cnn.Preprocessing((0.5,) * 3, (0.2,) * 3)
        return net

    def views(self, tta):
        """The images in each view, by NumPy."""
        shifts = [0, -1, 1] if "shifts" in tta else [0]
        moved = [np.stack([shifted(image, k, k, "reflect") for image in COLOUR]) for k in shifts]
        return [view[..., ::step] for view in moved for step in ((1, -1) if "mirror" in tta else (1,))]

    @pytest.mark.parametrize("tta", ["mirror", "shifts=1", "mirror,shifts=1"])
    def test_outputs_are_averaged_over_the_views(self, tta, kernels):
        net = self.network(backends.get("cpu", kernels))
        outputs = [net.predict(np.ascontiguousarray(view)) for view in self.views(tta)]
        logits = np.mean([np.log(each) for each in outputs], axis=0)  # up to a constant for each image
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(net.predict(COLOUR, tta=tta), expected, rtol=1e-9)
        np.testing.assert_allclose(net.predict(COLOUR, batch_size=9, tta=tta), expected, rtol=1e-9)

    def test_probabilities_are_averaged_if_the_network_gives_them(self):
        net = self.network(softmax=True)
        outputs = [net.predict(np.ascontiguousarray(view)) for view in self.views("mirror")]
        np.testing.assert_allclose(net.predict(COLOUR, tta="mirror"), np.mean(outputs, axis=0))

    def test_evaluate_uses_the_same_outputs(self):
        net, data = self.network(StandInBackend()), cnn.data.Dataset(COLOUR, LABELS)
        found = cnn.evaluate(net, data, tta="mirror,shifts=1")
        answers = net.predict(COLOUR, tta="mirror,shifts=1")
        assert found["loss"] == pytest.approx(-np.log(answers[np.arange(90), LABELS]).mean())
        assert found["accuracy"] == (answers.argmax(axis=1) == LABELS).mean()
        assert cnn.evaluate(net, data, tta="none") == cnn.evaluate(net, data)

    @pytest.mark.parametrize("tta", ["flip", "shifts", "shifts=0", "mirror=2", "", 3])
    def test_what_makes_no_sense_is_refused(self, tta):
        with pytest.raises(cnn.ArgumentError, match=r"tta is .*, expected mirror, shifts=1"):
            self.network().predict(COLOUR, tta=tta)

    def test_the_command_tests_as_the_run_says(self, command, own_data):
        settings = ("--data", own_data, "--device", "cpu", "--no-report", "--epochs", "1", "--out", "run")
        code, out, said = command("train", *settings, "--tta", "mirror", "--json")
        assert code == 0, said
        trained = json.loads(out)["loss"]
        losses = [
            json.loads(command("evaluate", "run", "--json", "--device", "cpu", *more)[1])["loss"]
            for more in ((), ("--tta", "mirror"), ("--tta", "none"))
        ]
        assert losses[0] == losses[1] == pytest.approx(trained)
        assert losses[2] != losses[0]
        code, _, said = command("evaluate", "run", "--tta", "miror")
        assert (code, "tta is 'miror', expected mirror" in said) == (2, True)


class TestSheet:
    def test_it_shows_images_and_their_versions(self, tmp_path):
        from PIL import Image

        from cnn.inspection.sheet import augmented, write_sheet

        data = cnn.data.Dataset(COLOUR, LABELS)
        pictures = augmented(data, [Flip()])
        assert pictures.shape == (8, 12, 3, H, W)
        plain = pictures[:, :1]
        mirrored = (pictures == plain[..., ::-1]).all(axis=(2, 3, 4))
        assert (mirrored | (pictures == plain).all(axis=(2, 3, 4))).all()
        assert 20 < mirrored.sum() < 70
        write_sheet(data, [Flip()], tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(sheet)[4, 4], COLOUR[0, :, 0, 0])

    def test_the_command_writes_it(self, command, own_data):
        arguments = ("summary", "--augment", "shift=2,rotate=20,mixup=0.3", "--data", own_data)
        code, out, _ = command(*arguments)
        assert (code, out.strip()) == (0, "wrote augmented.png")
        assert Path("augmented.png").read_bytes().startswith(b"\x89PNG")
        code, out, _ = command(*arguments, "--sheet", "other.png", "--json")
        assert (code, json.loads(out)) == (0, {"file": "other.png"})
