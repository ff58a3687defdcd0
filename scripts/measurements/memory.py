"""The memory of training runs on the device, and PyTorch's on the same."""

import gc
from dataclasses import replace
from typing import Any

from peers.networks import NETWORKS
from peers.ours import Ours
from peers.peer import Absent
from peers.task import Setting, Task

from backends import Backend
from measurements.device import is_installed
from measurements.plan import SIZES
from measurements.record import Record

DEEP = "resnet20"  # the network that is also measured with recomputed blocks, and in bfloat16
STEPS = 200
STEPS_OF_PYTORCH = 5


def measure(device: str, record: Record) -> None:
    """Note a row for each network, the largest first, and then for ways to take less memory."""
    rows: list[dict[str, Any]] = []

    def note(setting: Setting, recompute: bool = False) -> None:
        print(setting, "recomputed" if recompute else "", flush=True)
        rows.append(measure_training(setting, recompute=recompute))
        record.note(rows=rows)
        if device != "cpu" and not recompute:
            rows[-1]["pytorch"] = measure_pytorch(setting)
            record.note(rows=rows)

    for network in reversed(SIZES):
        note(Setting(NETWORKS[network], SIZES[network], None, device))
    deep = Setting(NETWORKS[DEEP], SIZES[DEEP], None, device)
    note(deep, recompute=True)
    if device != "cpu" and is_installed("ml_dtypes"):
        note(replace(deep, dtype="bfloat16"))


def measure_training(
    setting: Setting, kernels: str = "auto", steps: int = STEPS, recompute: bool = False
) -> dict[str, Any]:
    """Bytes that a training run takes on the device, including those in the pools of its allocator."""
    backend = setting.backend(kernels)
    task = Task(setting)
    release(backend)
    before = used(backend)
    ours = Ours(task, kernels)
    built = used(backend)
    with ours.network.recomputing(recompute):
        ours.training_step.run()
        first = used(backend)
        ours.step()
        ours.step()
        recorded, crossings = used(backend), backend.crossings
        for _ in range(steps):
            ours.step()
        after = used(backend)
    return {
        "network": setting.network.name,
        "batch_size": setting.batch_size,
        "dtype": setting.dtype,
        "recompute": recompute,
        "before": before,
        "built": built - before,
        "peak": max(first, recorded, after) - before,
        "steps": steps,
        "growth": after - recorded,
        "crossings": backend.crossings - crossings,
    }


def release(backend: Backend) -> None:
    """Return the memory of earlier training runs, which CuPy's pool keeps for later ones."""
    gc.collect()
    if hasattr(backend.xp, "get_default_memory_pool"):
        backend.synchronize()
        backend.xp.get_default_memory_pool().free_all_blocks()


def used(backend: Backend) -> int:
    """Bytes that this process has taken from the device."""
    backend.synchronize()
    return int(backend.memory()["used"])


def measure_pytorch(setting: Setting) -> dict[str, int] | None:
    """Bytes of the same training run in PyTorch eager; None if PyTorch cannot be used."""
    try:
        from peers.pytorch import Eager, require

        require(setting.device)
    except Absent:
        return None
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    peer = Eager(Task(setting))
    for _ in range(STEPS_OF_PYTORCH):
        peer.step()
    peer.synchronize()
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved() - before,
    }
