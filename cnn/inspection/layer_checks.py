"""Is a layer right? What every layer has to keep, checked for one layer, also for a class of a user's own."""

from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import backends
from backends import Backend
from backends.graph import recordable
from cnn.inspection import summary
from cnn.inspection.differences import difference, problem_of, require_near, results
from cnn.inspection.gradient_check import check_gradients
from cnn.layers.activation import GELU, Tanh
from cnn.layers.layer import Layer
from cnn.network import Network
from cnn.saving import weights
from cnn.support.arguments import instance, shape, shown
from cnn.support.dtypes import WIDE
from cnn.support.errors import ArgumentError, CheckpointError, DisagreementError

NEAR = 1e-10  # of the largest number, in float64
BATCH, LARGE = 5, 35  # the second is no multiple of 32


@dataclass(frozen=True)
class LayerCheck:
    """What became of one check of a layer; ``problem`` says what is wrong, None if nothing is."""

    name: str
    problem: str | None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


def check_layer(layer: Layer, input_shape: Any, device: Backend | str = "cpu") -> list[LayerCheck]:
    """Check a layer, which is not built yet, on samples of ``input_shape``; -> what became of each check.

    The checks: the shape that ``build`` promises, gradients against finite differences, the dtype, input and
    ``dy`` not written to, gradients written and not added, every cut of the batch, a batch of one, an
    evaluation between forward and backward, a repeated step, memory shared with other layers, every kernel
    set of the device, the summary, and weights saved and loaded. The layer itself stays as it is:
    ``layer.fresh()`` makes those that are checked.

    Raises ArgumentError for something that is no layer, and what ``build`` raises.
    """
    instance("layer", layer, Layer, "cnn.Dense(10)")
    layer.require_unbuilt()
    backend = backends.get(device) if isinstance(device, str) else device
    subject = Subject(layer, shape("input_shape", input_shape), backend)
    subject.network()
    return [LayerCheck(name, _problem(check, subject)) for name, check in CHECKS.items()]


@dataclass(frozen=True)
class Subject:
    """A layer to be checked, on one device."""

    layer: Layer
    input_shape: tuple[int, ...]
    backend: Backend

    def network(self, dtype: str = "float64", backend: Backend | None = None) -> Network:
        """A network of this layer alone."""
        network = Network(self.layer.fresh())
        network.build(self.input_shape, backend=backend or self.backend, seed=1, dtype=dtype)
        return network

    def x(self, batch: int = BATCH, dtype: str = "float64") -> Any:
        """A batch of samples on the host."""
        return np.random.default_rng(0).standard_normal((*self.input_shape, batch)).astype(dtype)


def dy_for(network: Network, batch: int = BATCH) -> Any:
    """A gradient of the output, on the host."""
    shape = (*network.output_shape, batch)
    return np.random.default_rng(2).standard_normal(shape).astype(network.dtype)


def _problem(check: Callable[[Subject], None], subject: Subject) -> str | None:
    try:
        check(subject)
    except Exception as error:  # a layer of a user's own may fail in any way
        return problem_of(error)
    return None


def _require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        require_near(f"the {name}", value, found[name], NEAR)


def _shape(subject: Subject) -> None:
    network = subject.network()
    y = network.forward(network.backend.asarray(subject.x()))
    if y.shape != (*network.output_shape, BATCH):
        raise DisagreementError(f"forward gives {y.shape}, build promised {(*network.output_shape, 'N')}")


def _gradients(subject: Subject) -> None:
    for found in check_gradients(subject.network(), x=np.moveaxis(subject.x(), -1, 0), entries=200):
        if not found.passed:
            raise DisagreementError(
                f"the gradient of {found.name} is off by {found.error:.1e} from finite differences"
            )


def _dtype(subject: Subject) -> None:
    for dtype in WIDE:
        network = subject.network(dtype)
        for name, array in results(network, subject.x(dtype=dtype), dy_for(network)).items():
            if array.dtype != dtype:
                raise DisagreementError(f"the {name} is {array.dtype} in a {dtype} network")


def _untouched(subject: Subject) -> None:
    network, backend = subject.network(), subject.backend
    hosts = {"input": subject.x(), "dy": dy_for(network)}
    x, dy = (backend.asarray(host.copy()) for host in hosts.values())
    network.forward(x, training=True)
    network.backward(dy)
    network.forward(x)
    for array, (name, before) in zip((x, dy), hosts.items(), strict=True):
        if not np.array_equal(backend.to_host(array), before):
            raise DisagreementError(f"{name} is written to; a layer writes into arrays of its own only")


def _written(subject: Subject) -> None:
    network = subject.network()
    x, dy = subject.x(), dy_for(network)
    first = results(network, x, dy)
    _require_same(results(network, x, dy), first)


def _cut(subject: Subject) -> None:
    network = subject.network()
    x, dy = subject.x(LARGE), dy_for(network, LARGE)
    parts = (slice(0, 32), slice(32, 34), slice(34, LARGE))
    if network.mixes_samples:  # in inference alone
        if not network.mixes_in_inference:
            outputs = [_inferred(network, x[..., part].copy()) for part in parts]
            joined = np.concatenate(outputs, -1)
            require_near("the output for a batch that is cut", _inferred(network, x), joined, NEAR)
        return
    whole = results(network, x, dy)
    pieces = []
    for part in parts:
        if (counters := network.context.draws.counters) is not None:
            network.backend.asarray([0, part.start], out=counters)
        pieces.append(results(network, x[..., part].copy(), dy[..., part].copy()))
    for name, value in whole.items():
        along = name in ("output", "gradient of the input")
        arrays = [piece[name] for piece in pieces]
        joined = np.concatenate(arrays, axis=-1) if along else sum(arrays)
        require_near(f"the {name} for a batch that is cut", value, joined, NEAR)


def _inferred(network: Network, x: Any) -> Any:
    return network.backend.to_host(network.forward(network.backend.asarray(x)))


def _one(subject: Subject) -> None:
    network = subject.network()
    for name, array in results(network, subject.x(1), dy_for(network, 1)).items():
        if not np.isfinite(array).all():
            raise DisagreementError(f"the {name} is not finite for a batch of one sample")


def _latest(subject: Subject) -> None:
    network, backend = subject.network(), subject.backend
    x, dy = subject.x(), dy_for(network)
    expected = results(network, x, dy)
    network.forward(backend.asarray(x), training=True)
    network.forward(backend.asarray(subject.x(9)))
    dx = backend.to_host(network.backward(backend.asarray(dy)))
    require_near("the gradient of the input after an evaluation", expected["gradient of the input"], dx, NEAR)


def _repeated(subject: Subject) -> None:
    network, backend = subject.network(), subject.backend
    x, dy = backend.asarray(subject.x()), backend.asarray(dy_for(network))
    found: dict[str, Any] = {}

    def step() -> None:
        found["output"] = network.forward(x, training=True)
        found["gradient of the input"] = network.backward(dy)

    repeat = backend.graph(recordable(step), list(network.state.values()))
    for turn in range(4):
        backend.asarray(subject.x() * (turn + 1), out=x)
        repeat()
        expected = results(_like(network, subject), subject.x() * (turn + 1), dy_for(network))
        for name, array in found.items():
            require_near(f"the {name} of a repeated step", expected[name], backend.to_host(array), NEAR)


def _like(network: Network, subject: Subject) -> Network:
    """Another network with the same weights."""
    twin = subject.network(backend=network.backend)
    for array, value in zip(twin.state.values(), network.state.values(), strict=True):
        array[...] = value
    return twin


def _shared(subject: Subject) -> None:
    x = subject.x()
    expected: dict[str, Any] = {}
    for shares in (False, True):
        around = Tanh(), subject.layer.fresh(), GELU(), GELU(), GELU()  # which read the arrays between them
        network = Network(*around)
        network.build(subject.input_shape, backend=subject.backend, seed=1, dtype="float64", fuse=False)
        network.context.arena.shares = shares
        found = results(network, x, dy_for(network)) | {"output of inference": _inferred(network, x)}
        for name, value in expected.items():
            if not difference(value, found[name]) <= NEAR:  # NaN is not
                raise DisagreementError(
                    f"the {name} is wrong where layers share memory: hold what is read after a layer inside "
                    "has run, by with self.context.arena.holding(array), or copy it"
                )
        expected = found


def _kernel_sets(subject: Subject) -> None:
    expected = None
    for kernels in ("portable", "signal", "auto"):
        backend = backends.get(subject.backend.name, kernels)
        network = subject.network(backend=backend)
        found = results(network, subject.x(), dy_for(network))
        _require_same(found, expected or found)
        expected = expected or found


def _summary(subject: Subject) -> None:
    network = subject.network()
    for row in summary.rows(network):
        figures = [row["parameters"], row["multiply_adds"], row["bytes"], network.workspace_bytes(9, BATCH)]
        if any(not isinstance(figure, int) or figure < 0 for figure in figures):
            raise DisagreementError(f"the summary has {shown(row)}, expected whole numbers from 0 on")


def _files(subject: Subject) -> None:
    network, twin = subject.network(), subject.network()
    results(network, subject.x(), dy_for(network))  # changes the statistics
    network.flat.value += 1
    with TemporaryDirectory() as folder:
        network.save(f"{folder}/weights.safetensors")
        weights.load(f"{folder}/weights.safetensors", network=twin)
        for name, value in network.state_dict().items():
            require_near(f"{name} from a file", value, twin.state_dict()[name], 0)
        try:
            loaded = weights.load(f"{folder}/weights.safetensors", device=subject.backend)
        except CheckpointError:  # a class of a user's own, or a function
            return
        x = subject.backend.asarray(subject.x())
        expected, found = (subject.backend.to_host(made.forward(x)) for made in (network, loaded))
        require_near("the output of the network from a file", expected, found, NEAR)


def _twice(subject: Subject) -> None:
    network = subject.network()
    try:
        Network(network.layers[0]).build(subject.input_shape, backend=subject.backend)
    except ArgumentError:
        return
    raise DisagreementError(
        "a layer that has its place in a network can be built again; call super().build() first"
    )


CHECKS: dict[str, Callable[[Subject], None]] = {
    "the output has the shape that build promises": _shape,
    "gradients agree with finite differences": _gradients,
    "the dtype is kept": _dtype,
    "input and dy are not written to": _untouched,
    "gradients are written, not added": _written,
    "the result does not depend on how the batch is cut": _cut,
    "a batch of one sample works": _one,
    "backward belongs to the latest training forward": _latest,
    "a repeated step gives the same": _repeated,
    "nothing is read that another layer has overwritten": _shared,
    "every kernel set gives the same": _kernel_sets,
    "the summary and the memory estimate are whole numbers": _summary,
    "weights are the same from a file": _files,
    "it cannot be built twice": _twice,
}
