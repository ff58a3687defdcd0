"""A training step next to PyTorch's: python scripts/bench_peers.py [--help].

One process, the same weights, the same batches, the same number of threads, the two in turn. Before
anything is timed, both must compute the same loss and the same gradients. Needs PyTorch:
pip install torch.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import backends
import cnn

RATE, MOMENTUM = 0.05, 0.9


def torch_lenet5(nn: Any) -> Any:
    """LeNet-5 as cnn.models.lenet5 has it."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def our_step(network: cnn.Sequential, x: Any, labels: Any) -> Callable[[], Any]:
    """A step of ours on device arrays; it gives the samples' losses."""
    loss, optimizer = cnn.CrossEntropy(), cnn.SGD(RATE, momentum=MOMENTUM)
    loss.build(network)
    optimizer.build(network)
    rate = network.backend.asarray(np.array([RATE], dtype=np.float32))

    def step() -> Any:
        losses = loss.forward(network.forward(x, training=True), labels)
        network.backward(loss.backward(len(labels)), input_grad=False)
        optimizer.step(rate)
        return losses

    return step


def torch_step(torch: Any, network: Any, x: Any, labels: Any) -> Callable[[], Any]:
    """The same step in PyTorch; it gives the mean loss."""
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=MOMENTUM)
    criterion = torch.nn.CrossEntropyLoss()

    def step() -> Any:
        optimizer.zero_grad()
        loss = criterion(network(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def check_same(ours: cnn.Sequential, theirs: Any, loss: Any, torch_loss: Any) -> None:
    """Raise unless a step from the same weights gave the same loss, gradients and weights."""
    np.testing.assert_allclose(float(np.mean(loss)), float(torch_loss.detach()), rtol=1e-5)
    parameters = zip(ours.parameters.items(), theirs.parameters(), strict=True)
    for (name, parameter), other in parameters:
        np.testing.assert_allclose(parameter.grad, other.grad, rtol=1e-3, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(parameter.value, other.detach(), rtol=1e-4, atol=1e-6, err_msg=name)


def milliseconds(step: Callable[[], Any], times: int) -> float:
    """What one step takes, over ``times`` of them, when no other library's threads are awake."""
    time.sleep(0.1)  # idle threads go on spinning for a while after their last product
    step()
    start = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - start) / times * 1e3


def main() -> None:
    """Check, time, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=backends.cpu.available_cores())
    parser.add_argument("--kernels", default="portable", help="default: portable")
    parser.add_argument("--rounds", type=int, default=41, help="how often the two take turns")
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed: pip install torch")

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    backend = backends.get("cpu", arguments.kernels, arguments.threads)
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=backend)
    peer = torch_lenet5(torch.nn)
    peer.load_state_dict({name: torch.from_numpy(value) for name, value in network.state_dict().items()})
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, (arguments.batch_size, 1, 28, 28)).astype(np.float32)
    labels = random.integers(0, 10, arguments.batch_size)
    ours = our_step(network, np.ascontiguousarray(x.transpose(1, 2, 3, 0)), labels)
    theirs = torch_step(torch, peer, torch.from_numpy(x), torch.from_numpy(labels))
    check_same(network, peer, ours(), theirs())
    print("the same loss, gradients and weights after a step: yes")

    times = max(1, 512 // arguments.batch_size)
    milliseconds(ours, 3 * times)
    milliseconds(theirs, 3 * times)
    pairs = [(milliseconds(ours, times), milliseconds(theirs, times)) for _ in range(arguments.rounds)]
    print(f"LeNet-5, batch {arguments.batch_size}, {arguments.threads} threads, a training step in ms")
    for name, column in ((f"xpcnn, {backend.kernels.name}", 0), ("PyTorch, eager", 1)):
        low, middle, high = statistics.quantiles([pair[column] for pair in pairs], n=4)
        print(f"  {name:<18} median {middle:7.2f}   quartiles {low:7.2f} to {high:7.2f}")
    ratios = [ours / theirs for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"  ours / PyTorch's   median {middle:7.2f}   quartiles {low:7.2f} to {high:7.2f}")


if __name__ == "__main__":
    main()
