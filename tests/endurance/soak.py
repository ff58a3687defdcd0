"""Thousands of steps, and of all else that is done again and again, do not make a process grow.

python tests/endurance/soak.py [--device cpu] [--steps 10000] [--times 1000]

Counts what Python holds, and what the process has in memory (on a GPU: what CuPy's pool has), after half of
the times and at the end. Exits 1 where Python has kept 50 bytes or more each time, and more than 16 KB, which
come and go; or where the process has grown by more than 8 MB.
"""

import argparse
import contextlib
import gc
import io
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import backends
import cnn

EACH, NOISE = 50, 16 << 10  # bytes that Python may keep each time, and altogether
MOST = 8 << 20  # bytes that the process may grow by
EPOCH = 100  # steps
SHAPE, CLASSES = (1, 28, 28), 10


class Growth:
    """What is held more after the last of so many times than after half of them."""

    def __init__(self, device: backends.Backend, times: int) -> None:
        self.device = device
        self.times = times
        self.counted = times - times // 2
        self._done = 0

    def once_more(self) -> None:
        """To be called after each time."""
        self._done += 1
        if self._done == self.times - self.counted:
            self._before = self._held()
        if self._done == self.times:
            self._after = self._held()

    def _held(self) -> tuple[int, int]:
        gc.collect()
        self.device.synchronize()
        return tracemalloc.get_traced_memory()[0], self.device.memory()["used"]

    @property
    def python(self) -> int:
        """Bytes that Python holds more."""
        return self._after[0] - self._before[0]

    @property
    def process(self) -> int:
        """Bytes that the process holds more."""
        return self._after[1] - self._before[1]


class EachStep(cnn.Callback):
    """Tells of every step."""

    def __init__(self, growth: Growth) -> None:
        self.growth = growth

    def on_step(self, run: cnn.training.callbacks.Run) -> None:
        self.growth.once_more()


def images(count: int) -> cnn.data.Dataset:
    """Random ones."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return cnn.data.Dataset(pixels, random.integers(0, CLASSES, count), CLASSES)


def network(device: backends.Backend) -> cnn.Sequential:
    """LeNet-5, built."""
    net = cnn.models.lenet5()
    net.build(SHAPE, backend=device)
    return net


def train(growth: Growth, folder: Path, batch_size: int, stream: bool) -> None:
    """Steps, with all that goes on around them."""
    callbacks = [
        EachStep(growth),
        cnn.Progress(),
        cnn.NaNGuard(),
        cnn.CSVLog(folder / "log.csv"),
        cnn.Checkpoint(folder / "model.safetensors"),
    ]
    with contextlib.redirect_stderr(io.StringIO()):
        cnn.fit(
            network(growth.device),
            images(EPOCH * batch_size),
            validation=images(20),
            optimizer=cnn.SGD(1e-3, momentum=0.9),
            epochs=-(-growth.times // EPOCH),
            batch_size=batch_size,
            callbacks=callbacks,
            stream=stream,
        )


def again_and_again(device: backends.Backend, folder: Path) -> dict[str, Callable[[], object]]:
    """What is done many times in a process beside steps, by name."""
    net, data, file = network(device), images(20), folder / "again.safetensors"
    net.save(file)
    return {
        "fit": lambda: cnn.fit(net, data, data, batch_size=10, callbacks=[]),
        "evaluate": lambda: cnn.evaluate(net, data),
        "predict": lambda: net.predict(data.images),
        "save": lambda: net.save(file),
        "load": lambda: cnn.load(file, device=device),
        "build": lambda: network(device),
        "build and fit": lambda: cnn.fit(network(device), data, batch_size=10, callbacks=[]),
        "copy": net.copy,
    }


def main() -> None:
    """One after the other; all are heard."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=1_000, help="of building, saving, predicting, ...")
    parser.add_argument("--batch-size", type=int, default=128)
    arguments = parser.parse_args()
    leaks = []

    def tell(name: str, growth: Growth) -> None:
        print(
            f"{growth.device.kernels.name:9} {name:22} {growth.times:6,} times  "
            f"Python {growth.python / growth.counted:+8.1f} bytes each  "
            f"process {growth.process / 1e6:+7.2f} MB",
            flush=True,
        )
        if growth.python > max(EACH * growth.counted, NOISE) or growth.process > MOST:
            leaks.append(name)

    devices = [backends.get(arguments.device, kernels) for kernels in ("auto", "portable")]
    tracemalloc.start()  # after imports, which it slows down
    with tempfile.TemporaryDirectory() as name:
        for device in devices:
            for stream in (False, True):
                growth = Growth(device, arguments.steps)
                train(growth, Path(name), arguments.batch_size, stream)
                tell(f"steps{', streamed' if stream else ''}", growth)
            for what, work in again_and_again(device, Path(name)).items():
                growth = Growth(device, arguments.times)
                for _ in range(arguments.times):
                    work()
                    growth.once_more()
                tell(what, growth)
    if leaks:
        sys.exit(f"error: memory is kept by {', '.join(leaks)}")


if __name__ == "__main__":
    main()
