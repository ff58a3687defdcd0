"""Who takes part, in the order of the tables."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from peers.peer import Absent, Peer
from peers.task import Setting, Task, Training

Start = Callable[[Task], Peer]
OURS = "compiled"
BASELINE = "pytorch"  # what the others must agree with
PYTORCH = (
    BASELINE,
    "channels_last",
    "torch.compile",
)  # its modes: the fastest is what others are compared with
LOOKED_INTO = (OURS, "portable", BASELINE, "channels_last")  # in memory, and in the picture


@dataclass(frozen=True)
class Contender:
    """A peer by its label; ``load`` imports what it needs on a device, or raises Absent."""

    label: str
    load: Callable[[str], Start]
    image_by_image: bool = False  # so that its time grows as the batch does
    takes: Callable[[Setting], bool] = lambda setting: True


def _with_sgd_alone(start: Start) -> Start:
    """``start`` for a peer whose step has the default loss and update; it raises Absent for others."""

    def start_if_default(task: Task) -> Peer:
        if task.setting.training != Training():
            raise Absent("its step has plain SGD alone, without label smoothing or clipping")
        return start(task)

    return start_if_default


def _in_float32_alone(start: Start) -> Start:
    """``start`` for a peer whose step is in float32; it raises Absent for other dtypes."""

    def start_if_float32(task: Task) -> Peer:
        if task.setting.dtype != "float32":
            raise Absent(f"its step is in float32 alone, not in {task.setting.dtype}")
        return start(task)

    return start_if_float32


def _load_ours(device: str, kernels: str) -> Start:
    from peers.ours import Ours, require

    require(device, kernels)
    return partial(Ours, kernels=kernels)


def _load_eager(device: str) -> Start:
    from peers.pytorch import Eager, require

    require(device)
    return Eager


def _load_channels_last(device: str) -> Start:
    from peers.pytorch import ChannelsLast, require

    require(device)
    return ChannelsLast


def _load_compiled(device: str) -> Start:
    from peers.pytorch import Compiled, compiled_on_gpu, require

    require(device)
    return Compiled if device == "cpu" else _with_sgd_alone(compiled_on_gpu)


def _load_jax(device: str) -> Start:
    from peers.jax import Jit, require

    require(device)
    return _in_float32_alone(_with_sgd_alone(Jit))


def _load_loops(device: str) -> Start:
    from peers.loops import Loops

    return _with_sgd_alone(Loops)


def _is_plain(setting: Setting) -> bool:
    return setting.network.is_plain


def _is_notebooks(setting: Setting) -> bool:
    return setting.network.name == "notebook" and setting.batch_size == 1


CONTENDERS = {
    "compiled": Contender("ours, compiled", partial(_load_ours, kernels="compiled")),
    "portable": Contender("ours, portable", partial(_load_ours, kernels="portable")),
    "signal": Contender("ours, signal", partial(_load_ours, kernels="signal"), image_by_image=True),
    "pytorch": Contender("PyTorch eager", _load_eager),
    "channels_last": Contender("PyTorch channels_last", _load_channels_last),
    "torch.compile": Contender("torch.compile", _load_compiled),
    "jax": Contender("JAX jit", _load_jax, takes=_is_plain),
    "loops": Contender("notebook's loops", _load_loops, image_by_image=True, takes=_is_notebooks),
}
TAKING_PART = {  # unless asked
    "cpu": (OURS, *PYTORCH),
    "cuda": (OURS, "portable", BASELINE, "torch.compile", "jax"),
}
CPU_ONLY = ("signal", "loops")
