"""From which batch size on the GPU is faster than the CPU."""

from cnn import comparison
from cnn.comparison import Comparison
from cnn.comparison.results import crossover, timed_in_both
from cnn.comparison.saved import as_plain
from cnn.support.errors import DisagreementError
from measurements.record import Failed, Record, Skipped

MODELS = ("lenet5", "notebook")
ROUNDS = 3
BATCH_SIZE = 128


def measure(device: str, record: Record) -> None:
    """Note a comparison for each model, both devices with their best kernels."""
    if device == "cpu":
        raise Skipped("there is no second device to compare the CPU with")
    setups = comparison.setups(["cpu", device])
    models: dict[str, object] = {}
    for model in MODELS:
        try:
            result = comparison.compare(
                setups, model, BATCH_SIZE, rounds=ROUNDS, say=lambda text: print(text, flush=True), sweep=True
            )
        except DisagreementError as error:
            raise Failed(str(error)) from error
        models[model] = summary(result)
        record.note(models=models)


def summary(result: Comparison) -> dict[str, object]:
    """The crossover of the second column, the times that show it, and the whole comparison."""
    first, other = result.columns
    times = [
        {"batch_size": size, "first": step.median, "other": after.median}
        for size, step, after in timed_in_both(first, other)
    ]
    return {"crossover": crossover(first, other), "times": times, "comparison": as_plain(result)}
