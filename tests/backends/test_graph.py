"""Whole steps recorded once and repeated by the device, on the stand-in for one."""

import warnings

import numpy as np
import pytest
from helpers import host_cuda, standin
from helpers.standin import StandInBackend, counters

import cnn
from backends.cuda.kernels.launching import Launcher
from cnn.inspection import summary
from cnn.layers import Layer
from cnn.training.callbacks import Callback

DATA = cnn.data.Dataset(
    np.random.default_rng(0).integers(0, 256, (70, 1, 8, 8), dtype=np.uint8),
    np.random.default_rng(1).integers(0, 4, 70),
    classes=4,
)
KERNELS = ["portable", pytest.param("compiled", marks=host_cuda.needed)]
OPTIMIZERS = {
    "sgd": lambda: cnn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda: cnn.AdamW(0.01),
}


def network(kernels="portable", *more):
    made = cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Conv2D(3, 3, untied_bias=True), cnn.Tanh(), cnn.AvgPool2D(2), *more,
        cnn.Flatten(), cnn.Dense(6), cnn.ReLU(), cnn.Dense(4),
    )  # fmt: skip
    made.build((1, 8, 8), backend=StandInBackend(kernels))
    return made


class Watch(Callback):
    """What the host asks of the device in each step."""

    def __init__(self):
        self.works, self.launches, self.crossings = [], [], []

    def on_start(self, run):
        self.backend = run.network.backend
        self.backend.reset_counters()

    def on_step(self, run):
        self.works.append(counters.works)
        self.launches.append(counters.graph_launches)
        self.crossings.append(self.backend.crossings)
        self.backend.reset_counters()


def trained(net, **options):
    """(weights, history without its times) after some epochs of 16 images a batch, and one of 6."""
    options = {"epochs": 2, "batch_size": 16, "callbacks": [], "schedule": cnn.schedules.Linear()} | options
    history = cnn.fit(net, DATA, validation=DATA, **options)
    return net.state_dict(), [{k: v for k, v in line.items() if "second" not in k} for line in history]


def assert_same(one, other):
    assert one[1] == other[1]
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name], err_msg=name)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", [cnn.CrossEntropy, cnn.MeanSquaredError])
def test_a_recorded_training_ends_with_the_same_bits(kernels, optimizer, loss):
    results = [
        trained(network(kernels), optimizer=OPTIMIZERS[optimizer](), loss=loss(), graph=graph)
        for graph in (True, False)
    ]
    assert_same(*results)


def residual_network(kernels):
    """Everything that normalizes, drops or has a function, with a residual block and without."""
    made = cnn.Sequential(
        cnn.Conv2D(4, 3), cnn.BatchNorm2D(), cnn.GELU(),
        cnn.Residual(cnn.Conv2D(4, 3, padding=1), cnn.BatchNorm2D(momentum=None)), cnn.ReLU(),
        cnn.Conv2D(4, 3), cnn.GroupNorm(2), cnn.PReLU(), cnn.Dropout2D(0.2), cnn.LayerNorm(),
        cnn.Flatten(), cnn.Dense(6), cnn.BatchNorm1D(), cnn.SiLU(), cnn.Dropout(0.2), cnn.Dense(4),
    )  # fmt: skip
    made.build((1, 8, 8), backend=StandInBackend(kernels), dtype="float64")
    return made


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_recorded_training_with_normalization_and_dropout_ends_with_the_same_bits(kernels):
    assert_same(*[trained(residual_network(kernels), graph=graph, epochs=1) for graph in (True, False)])


@host_cuda.needed
def test_a_training_with_normalization_and_dropout_ends_as_with_the_portable_kernels():
    (own, _), (portable, _) = (
        trained(residual_network(kernels), epochs=1) for kernels in ("compiled", "portable")
    )
    for name, value in portable.items():
        np.testing.assert_allclose(own[name], value, rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_steady_step_is_one_launch_and_nothing_else(kernels):
    watch = Watch()
    trained(network(kernels), callbacks=[watch], epochs=3)
    # four whole batches and a short one an epoch; the validation after the first moves a buffer
    assert watch.launches == 3 * [1, 1, 1, 1, 0]
    steady = [step for epoch in range(3) for step in range(5 * epoch + 1, 5 * epoch + 4)]
    assert [watch.works[step] for step in steady] == [0] * 9
    assert [watch.crossings[step] for step in steady] == [0] * 9
    assert watch.works[4] > 10


@pytest.mark.parametrize(
    ("model", "kernels", "asked"),
    [
        ("lenet5", "portable", 178),
        ("notebook", "portable", 111),
        ("resnet20", "portable", 1528),
        ("airbench94", "portable", 730),
        pytest.param("lenet5", "compiled", 28, marks=host_cuda.needed),
        pytest.param("notebook", "compiled", 23, marks=host_cuda.needed),
    ],
)
def test_how_much_a_plain_step_asks_of_the_device(model, kernels, asked):
    assert asked_by_a_step(cnn.models.get(model, 2), kernels) == asked  # docs/measurements/cuda.md


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Kernels and products are counted only."""

    def count(*arguments, **named):
        counters.work()

    monkeypatch.setattr(Launcher, "function", lambda self, name, dtype: count)
    monkeypatch.setattr(StandInBackend, "matmul", count)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize(("model", "asked", "a_layer"), [("resnet20", 214, 3), ("airbench94", 88, 3.3)])
def test_a_plain_step_of_a_deep_network_takes_about_three_launches_a_layer(model, asked, a_layer):
    net = cnn.models.get(model, 2)
    assert asked_by_a_step(net, "compiled", batch=32) == asked  # docs/measurements/cuda.md
    assert asked <= a_layer * len(summary.rows(net))  # the lines of net.summary()


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("model", ["lenet5", "notebook", "resnet20", "airbench94"])
@pytest.mark.parametrize(("dtype", "more"), [("bfloat16", 3), ("float16", 6)])
def test_a_step_in_16_bits_takes_a_few_launches_more_than_one_in_float32(model, dtype, more):
    # to round the weights, the output and its gradient; and in float16 to scale this gradient, and to unscale
    pytest.importorskip("ml_dtypes")
    asked = [
        asked_by_a_step(cnn.models.get(model, 2), "compiled", batch=32, dtype=kind)
        for kind in (dtype, "float32")
    ]
    assert asked[0] == asked[1] + more


def asked_by_a_step(net, kernels, batch=2, dtype="float32"):
    """How often one training step with momentum asks for something."""
    backend = StandInBackend(kernels, column_bytes=256 << 20)  # as on a GPU
    net.build((1, 28, 28), backend=backend, dtype=dtype)
    watch, count = Watch(), 4 * batch
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
    data = cnn.data.Dataset(images, np.arange(count) % 2)
    momentum = cnn.SGD(0.1, momentum=0.9)
    cnn.fit(net, data, optimizer=momentum, batch_size=batch, graph=False, callbacks=[watch])
    _, _, third, fourth = watch.works
    assert third == fourth
    return fourth


def test_the_warm_up_leaves_no_trace():
    net = network()
    before = {name: value.copy() for name, value in net.state_dict().items()}
    feed = cnn.training.evaluation.make_feed(net, DATA, 16)
    feed.start(np.arange(70), np.ones(5))
    optimizer, loss, totals = (
        cnn.SGD(1.0, momentum=0.9),
        cnn.training.evaluation.make_loss(net, None),
        cnn.training.metrics.Totals(net),
    )
    optimizer.build(net)
    step = cnn.training.step.TrainingStep(net, loss, optimizer, feed, totals)
    net.backend.graph(step.run, list(step.state.values()))._record()
    assert_same((before, 0), (net.state_dict(), 0))
    to_host = net.backend.to_host
    velocity = optimizer.state["velocity"]
    assert [*to_host(feed.cursor), *to_host(totals.sums), abs(to_host(velocity)).max()] == [0] * 6


def test_what_grows_a_buffer_has_the_step_recorded_again():
    class Grow(Callback):
        def on_step(self, run):
            if run.step == 2:
                run.network.predict(np.zeros((100, 1, 8, 8)))

    recorded = []
    original = standin.StandInBackend._capture

    class Noting(StandInBackend):
        def _capture(self, step):
            recorded.append(self.allocations)
            return original(self, step)

    def counted():
        made = cnn.Sequential(cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(4))
        made.build((1, 8, 8), backend=Noting())
        return made

    results = [trained(counted(), callbacks=[Grow()], graph=graph, epochs=1) for graph in (True, False)]
    assert_same(*results)
    assert len(recorded) == 2


class Counting(Layer):
    """Counts its training forwards, and adds the count to its input."""

    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.count = self.statistic("count", (1,), 0)
        return input_shape

    def forward(self, x, training=False):
        y = self.output(x, training)
        if training:
            self.count += 1
        return self.backend.xp.add(x, self.count.reshape(1, 1, 1, 1), out=y)

    def backward(self, dy, input_grad=True):
        return dy


def test_what_a_layer_keeps_from_step_to_step_is_put_back_too():
    results = []
    for graph in (True, False):
        net = network("portable", Counting())
        results.append(trained(net, graph=graph))
        assert net.backend.to_host(net.layers[6].count).tolist() == [10]
    assert_same(*results)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(lambda: cnn.SGD(0.1, momentum=0.9), "momentum", 0.1), (cnn.AdamW, "weight_decay", 0.5)],
)
def test_what_a_callback_sets_on_the_optimizer_counts_from_then_on(make, name, value):
    class Change(Callback):
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def on_epoch(self, run, record):
            setattr(self.optimizer, name, value)

    results = []
    for graph in (True, False):
        optimizer = make()
        results.append(trained(network(), optimizer=optimizer, callbacks=[Change(optimizer)], graph=graph))
    assert_same(*results)
    assert any(
        (results[0][0][key] != trained(network(), optimizer=make())[0][key]).any() for key in results[0][0]
    )


class Own(cnn.losses.Loss):
    """The squared output, whatever the label."""

    def compute(self, y, labels, losses, dy):
        self.backend.xp.sum(y * y, axis=0, out=losses)
        self.backend.xp.multiply(y, 2.0, out=dy)


def test_a_loss_of_ones_own_needs_its_values_and_their_gradient_alone():
    recorded, plain = (trained(network(), loss=Own(), graph=graph) for graph in (True, False))
    assert_same(recorded, plain)
    assert plain[1][1]["loss"] < plain[1][0]["loss"]


class Stubborn(Layer):
    """Looks at its input on the host, in training."""

    def forward(self, x, training=False):
        y = self.output(x, training)
        self.backend.xp.multiply(x, 1.0 + (training and float(x.max()) * 0), out=y)
        return y

    def backward(self, dy, input_grad=True):
        return dy


def test_where_a_step_cannot_be_recorded_training_goes_on_and_says_so_once():
    with pytest.warns(
        RuntimeWarning, match="runs without a CUDA graph, .*: .*waiting for the device"
    ) as said:
        recorded = trained(network("portable", Stubborn()))
    assert len(said) == 1
    assert_same(recorded, trained(network("portable", Stubborn()), graph=False))


def test_without_a_graph_nothing_is_recorded():
    watch = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(network("portable", Stubborn()), graph=False, callbacks=[watch])
    assert set(watch.launches) == {0}


class Wrong(Layer):
    """A layer with a mistake."""

    def forward(self, x, training=False):
        raise cnn.ShapeError("layer Wrong takes nothing")


def test_a_layers_own_error_is_no_failed_recording():
    net = network("portable", Wrong())
    before = net.state_dict()
    with pytest.raises(cnn.ShapeError, match="takes nothing"):
        trained(net)
    assert_same((before, 0), (net.state_dict(), 0))


FORBIDDEN = {
    "a copy to the host": lambda backend, a: backend.to_host(a),
    "a copy from the host": lambda backend, a: backend.asarray(np.zeros(3)),
    "a copy into an array": lambda backend, a: backend.asarray(np.zeros(3), out=a),
    "a number": lambda backend, a: float(a.sum()),
    "a decision": lambda backend, a: bool(a[0] > 0),
    "waiting": lambda backend, a: backend.synchronize(),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_recording_forbids_raises_on_the_stand_in(name):
    backend = StandInBackend()
    a = backend.asarray(np.ones(3))
    with standin.Tape().recording(), pytest.raises(standin.ForbiddenWhileRecording):
        FORBIDDEN[name](backend, a)


def test_a_recording_runs_nothing_until_it_is_launched():
    backend = StandInBackend()
    a, tape = backend.asarray(np.ones(3)), standin.Tape()
    with tape.recording():
        b = backend.xp.add(a, 1)
        backend.xp.multiply(a, b.sum(), out=a)
        a[:1] = 5
        c = backend.xp.take(a, backend.xp.argmax(a))
    assert backend.to_host(a).tolist() == [1, 1, 1]
    tape.launch()
    assert backend.to_host(a).tolist() == [5, 6, 6]
    assert backend.to_host(c) == 6
    tape.launch()
    assert backend.to_host(a).tolist() == [5, 120, 120]


class TestStreaming:
    """Data that stay on the host."""

    @pytest.mark.parametrize("kernels", KERNELS)
    @pytest.mark.parametrize("graph", [True, False])
    def test_the_weights_are_the_same_bit_for_bit(self, kernels, graph):
        assert_same(*[trained(network(kernels), stream=stream, graph=graph) for stream in (True, False)])

    @pytest.mark.parametrize("batch_size", [1, 7, 16, 35, 69, 70, 200])
    def test_every_batch_is_what_it_would_be(self, batch_size):
        batches = []
        for stream in (True, False):
            feed = cnn.data.feed.Feed(
                StandInBackend(), "float64", DATA.images, DATA.labels, batch_size, stream
            )
            seen = []
            for epoch in range(2):
                feed.start(np.random.default_rng(epoch).permutation(70), np.arange(float(len(feed))))
                for x, labels in feed:
                    seen += [feed.backend.to_host(array) for array in (x, labels, feed.rate)]
            batches.append(seen)
        assert len(batches[0]) == 2 * 3 * -(-70 // batch_size)
        for one, other in zip(*batches, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_an_epoch_that_was_cut_short_starts_again(self):
        feed = cnn.data.feed.Feed(StandInBackend(), "float32", DATA.images, DATA.labels, 16, stream=True)
        for number, _ in enumerate(feed):
            if number == 2:
                break
        expected = [DATA.labels[first : first + 16].tolist() for first in range(0, 70, 16)]
        assert [feed.backend.to_host(labels).tolist() for _, labels in feed] == expected

    def test_floats_take_on_the_networks_dtype_on_the_way(self):
        images = np.random.default_rng(0).standard_normal((9, 1, 2, 2))
        feed = cnn.data.feed.Feed(StandInBackend(), "float32", images, np.arange(9), 4, stream=True)
        x = np.concatenate([feed.backend.to_host(x) for x, _ in feed], axis=-1)
        np.testing.assert_array_equal(x, np.moveaxis(images, 0, -1).astype(np.float32))

    @pytest.mark.parametrize(("room", "streamed"), [(70 * 64, False), (70 * 64 - 1, True)])
    def test_the_choice_goes_by_size(self, room, streamed):
        backend = StandInBackend()
        backend.room = room
        assert cnn.data.feed.Feed(backend, "float32", DATA.images, DATA.labels, 16).streamed is streamed

    def test_two_batches_are_all_that_lies_on_the_device(self):
        backend = StandInBackend()
        backend.reset_counters()
        images = np.zeros((1000, 1, 20, 20), np.uint8)
        cnn.data.feed.Feed(backend, "float32", images, np.zeros(1000, int), 10, stream=True)
        assert backend.largest_allocation == max(2 * 10 * 400, 1000 * 8)  # the images, or their order


UPDATES = {  # the optimizer, and the launches of an update of LeNet-5: docs/measurements/cuda.md
    "SGD": (lambda: cnn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), 1),
    "Adam": (cnn.Adam, 2),
    "AdamW": (cnn.AdamW, 2),
    "RMSprop": (lambda: cnn.RMSprop(momentum=0.9, centered=True), 1),
    "Adagrad": (cnn.Adagrad, 1),
    "NAdam": (cnn.NAdam, 2),
    "Lion": (cnn.Lion, 1),
    "EMA": (lambda: cnn.EMA(cnn.SGD(0.1)), 1 + 2),
    "Lookahead": (lambda: cnn.Lookahead(cnn.SGD(0.1)), 1 + 2),
    "LAMB": (cnn.LAMB, 1 + 10 * 2),
    "Muon": (cnn.Muon, 5 * (3 + 5 * 4) + 5 * 2),
    "Muon with unit rows": (lambda: cnn.Muon(unit_rows=True), 5 * (2 + 3 + 5 * 4) + 5 * 2),
}


def launches_of_an_update(optimizer, *transforms):
    """What a steady update of LeNet-5 asks of the device, with these gradient transforms before it."""
    net = cnn.models.make("lenet5", 10)
    net.build((1, 28, 28), backend=StandInBackend("compiled"))
    optimizer.build(net)
    rate = net.backend.asarray([0.1], net.dtype)
    for _ in range(2):
        net.backend.reset_counters()
        with net.backend.active():
            cnn.training.step.update(net, optimizer, rate, transforms)
    return counters.works


@host_cuda.needed
@pytest.mark.parametrize("name", UPDATES)
def test_how_many_launches_an_update_takes(name):
    make, launches = UPDATES[name]
    assert launches_of_an_update(make()) == launches


@host_cuda.needed
@pytest.mark.parametrize(("transform", "launches"), [(cnn.ClipNorm(1.0), 2), (cnn.ClipValue(1.0), 1)])
def test_how_many_launches_clipping_takes(transform, launches):
    plain = launches_of_an_update(cnn.SGD(0.1))
    assert launches_of_an_update(cnn.SGD(0.1), transform) == plain + launches


LOSSES = {  # the loss, and its launches for 512 and for 4096 samples: docs/measurements/cuda.md
    "CrossEntropy": (cnn.CrossEntropy, 1, 2),
    "CrossEntropy with label smoothing": (lambda: cnn.CrossEntropy(label_smoothing=0.1), 3, 4),
    "CrossEntropy with class weights": (lambda: cnn.CrossEntropy(class_weights=[2] * 10), 4, 5),
    "Focal": (cnn.Focal, 3, 4),
    "BinaryCrossEntropy": (cnn.BinaryCrossEntropy, 1, 2),
    "BCEWithLogits": (cnn.BCEWithLogits, 1, 2),
    "MeanSquaredError": (cnn.MeanSquaredError, 1, 2),
    "L1": (cnn.L1, 1, 2),
    "Huber": (cnn.Huber, 1, 2),
}


@host_cuda.needed
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("large", [False, True])
def test_how_many_launches_a_loss_takes(name, large):
    make, few, many = LOSSES[name]
    loss, N = make(), 4096 if large else 512
    net = cnn.Sequential(cnn.Dense(10), cnn.Softmax() if name == "BinaryCrossEntropy" else cnn.Flatten())
    net.build((4,), backend=StandInBackend("compiled"))
    loss.build(net)
    y, labels = net.backend.asarray(np.zeros((10, N)), net.dtype), net.backend.asarray(np.arange(N) % 10)
    sums = net.backend.asarray(np.zeros(5 if loss.has_shares else 3))
    for _ in range(2):
        net.backend.reset_counters()
        with net.backend.active():
            loss.forward(y, labels, N, sums)
    assert counters.works == (many if large else few)


TRAININGS = {
    "Muon": (cnn.Muon, cnn.Focal),
    "LAMB": (cnn.LAMB, lambda: cnn.CrossEntropy(class_weights=[1, 2, 1, 3])),
    "EMA": (lambda: cnn.EMA(cnn.NAdam()), cnn.BCEWithLogits),
    "RMSprop": (lambda: cnn.RMSprop(momentum=0.9, centered=True), cnn.Huber),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_recorded_training_with_norms_products_and_metrics_ends_with_the_same_bits(name, kernels):
    optimizer, loss = TRAININGS[name]
    options = {"metrics": [cnn.metrics.TopK(2), cnn.metrics.F1(), cnn.metrics.CalibrationError()]}
    results = [
        trained(
            network(kernels), optimizer=optimizer(), loss=loss(), graph=graph, transforms=[cnn.ClipNorm(0.5)],
            **options,
        )
        for graph in (True, False)
    ]  # fmt: skip
    assert_same(*results)
