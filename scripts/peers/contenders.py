"""Who takes part, in the order of the tables."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from peers.peer import Peer
from peers.task import Setting, Task

Start = Callable[[Task], Peer]
BASELINE = "pytorch"  # what the others are compared with
LOOKED_INTO = ("compiled", "portable", "pytorch")  # in memory, and in the picture


@dataclass(frozen=True)
class Contender:
    """A peer by its label; ``load`` imports what it needs, or raises Absent."""

    label: str
    load: Callable[[], Start]
    image_by_image: bool = False  # so that its time grows as the batch does
    takes: Callable[[Setting], bool] = lambda setting: True


def _load_ours(kernels: str) -> Start:
    from peers.ours import Ours, require

    require(kernels)
    return partial(Ours, kernels=kernels)


def _load_eager() -> Start:
    from peers.pytorch import Eager

    return Eager


def _load_compiled() -> Start:
    from peers.pytorch import Compiled

    return Compiled


def _load_jax() -> Start:
    from peers.jax import Jit

    return Jit


def _load_loops() -> Start:
    from peers.loops import Loops

    return Loops


def _is_notebooks(setting: Setting) -> bool:
    return setting.network.name == "notebook" and setting.batch_size == 1


CONTENDERS = {
    "compiled": Contender("ours, compiled", partial(_load_ours, "compiled")),
    "portable": Contender("ours, portable", partial(_load_ours, "portable")),
    "signal": Contender("ours, signal", partial(_load_ours, "signal"), image_by_image=True),
    "pytorch": Contender("PyTorch eager", _load_eager),
    "torch.compile": Contender("torch.compile", _load_compiled),
    "jax": Contender("JAX jit", _load_jax),
    "loops": Contender("notebook's loops", _load_loops, image_by_image=True, takes=_is_notebooks),
}
