"""The proof that all compute the same, before anything is timed."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from cnn.support.errors import DisagreementError
from peers.contenders import BASELINE, CONTENDERS
from peers.peer import Absent, Peer
from peers.task import PHASES, Setting, Task

T = TypeVar("T")

SLOWEST = 1.0  # seconds: who goes image by image is not timed where a step takes longer
# Rounding explains less. Where two numbers nearly share a maximum it decides which of them is passed the
# gradient, so that gradients may be further apart than what they come from.
ALLOWED = {"loss": 1e-5, "output": 1e-5, "gradient": 1e-2, "update": 1e-2}
# In a deep network this goes on from layer to layer, also where ReLU is passed a number close to 0: the
# gradients of PyTorch's own two memory formats are up to 2e-2 apart in ResNet-20, their updates 6e-2 in
# airbench93.
ALLOWED_IF_DEEP = {"loss": 1e-4, "output": 1e-4, "gradient": 5e-2, "update": 1e-1}
# The gradient of a bias before a normalization is 0 but for rounding, 3e-7 of the norm of all gradients in
# PyTorch's two memory formats. A gradient or an update is compared with at least this share of their norm.
NEGLIGIBLE = 1e-4
# TF32 keeps ten bits of a factor. Emulated on the CPU, rounded or cut off, that took the outputs of these
# networks up to 4e-3 away from those in float32, and gradients up to 2e-2.
ALLOWED_TF32 = {"loss": 1e-2, "output": 1e-2, "gradient": 0.1, "update": 0.1}
# The largest relative error of one rounding to bfloat16, of which each pass of each library makes two: of its
# weights and of its output. In a share of UNIT of the numbers, this decides otherwise where a maximum or ReLU
# passes the gradient, and the norm of a gradient then changes by the root of that share. Errors of passes are
# independent, so those of D passes add up to the root of D of them: sqrt(4 D) UNIT in an output and
# sqrt(D UNIT) in a gradient. Twice that is allowed. Emulated on the CPU with 8 and 64 images, ours and
# PyTorch's modes came to half of what is allowed at most.
UNIT = 2.0**-8
# Optimizers other than SGD scale gradients, so those that are 0 except for rounding, as of a bias before a
# normalization, become updates as large as the others. PyTorch's Muon also rounds to bfloat16.
ALLOWED_IF_SCALED = {"update": math.inf, "later loss": 1e-3}


@dataclass(frozen=True)
class Job:
    """A setting, which of the contenders are to be timed in it, and in which phases."""

    setting: Setting
    names: Sequence[str]
    phases: Sequence[str] = PHASES


@dataclass(frozen=True)
class Record:
    """Two steps and an inference, each from the first weights."""

    losses: tuple[float, float]
    probabilities: Any  # (N, classes)
    gradients: Mapping[str, Any]  # of the first step
    updates: Mapping[str, Any]  # of the weights, over both steps
    first_seconds: dict[str, float]
    step_seconds: float  # of the second step


@dataclass
class Proof:
    """What was found on the way to it."""

    absent: dict[str, str] = field(default_factory=dict)
    """By the contender's name: the reason."""
    first_seconds: dict[tuple[Setting, str], dict[str, float]] = field(default_factory=dict)
    """Of what can be timed, by phase: the first step's or inference's, with all that happens only once."""
    image_seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    """By network and contender: of a step on one image, where it goes image by image."""

    def leaves_out(self, setting: Setting, name: str) -> bool:
        """Whether the contender is absent, has no such setting, or would be too slow in it."""
        seconds = self.image_seconds.get((setting.network.name, name), 0) * setting.batch_size
        return name in self.absent or seconds > SLOWEST or not CONTENDERS[name].takes(setting)

    def note(self, setting: Setting, name: str, record: Record) -> None:
        """What a contender needed, so that it can be timed unless it is too slow."""
        if CONTENDERS[name].image_by_image:
            self.image_seconds[setting.network.name, name] = record.step_seconds / setting.batch_size
        if not self.leaves_out(setting, name):
            self.first_seconds[setting, name] = record.first_seconds


def prove(jobs: Sequence[Job], say: Callable[[str], None]) -> Proof:
    """Let all compute the same in every setting; DisagreementError where one does not."""
    proof = Proof()
    for job in jobs:
        say(f"checking {job.setting}")
        task, records = Task(job.setting), {}
        for name in job.names:
            if proof.leaves_out(job.setting, name):
                continue
            try:
                records[name] = record_steps(task, name)
            except Absent as reason:
                proof.absent[name] = str(reason)
            else:
                proof.note(job.setting, name, records[name])
        require_same(job.setting, records)
    return proof


def record_steps(task: Task, name: str) -> Record:
    """What the contender computes."""
    start = CONTENDERS[name].load(task.setting.device)

    def first_step() -> tuple[Peer, float]:
        peer = start(task)
        return peer, _mean_loss(peer)

    def first_inference() -> Peer:
        peer = start(task)
        peer.infer()
        peer.synchronize()
        return peer

    (peer, first_loss), step_once = _timed(first_step)
    gradients = peer.gradients()
    second_loss, step_seconds = _timed(lambda: _mean_loss(peer))
    fresh, infer_once = _timed(first_inference)
    return Record(
        losses=(first_loss, second_loss),
        probabilities=fresh.probabilities(),
        gradients=gradients,
        updates={name: value - task.weights[name] for name, value in peer.weights().items()},
        first_seconds={"training": step_once, "inference": infer_once},
        step_seconds=step_seconds,
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """(What it gives, the seconds it took)."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _mean_loss(peer: Peer) -> float:
    """Of the next step; as a number, since the one after it may write its losses into the same place."""
    return float(np.mean(peer.to_host(peer.step())))


def require_same(setting: Setting, records: Mapping[str, Record]) -> None:
    """Raise DisagreementError unless all computed what PyTorch did, or where it is absent the first."""
    if not records:
        return
    allowed = allowed_in(setting)
    allowed = allowed | {"later loss": allowed["loss"]}
    allowed = allowed if setting.training.optimizer == "sgd" else allowed | ALLOWED_IF_SCALED
    reference = BASELINE if BASELINE in records else next(iter(records))
    for name, record in records.items():
        for kind, what, expected, found, least in _pairs(records[reference], record):
            apart = difference(expected, found, least)
            if not apart <= allowed[kind]:  # NaN is not
                raise DisagreementError(
                    f"{CONTENDERS[name].label} and {CONTENDERS[reference].label} do not compute the same "
                    f"({setting}): {what} differs by {apart:.1e}, expected at most {allowed[kind]:.0e}, "
                    "so nothing was timed"
                )


def allowed_in(setting: Setting) -> dict[str, float]:
    """How far apart two libraries may be that only round differently, by kind."""
    if setting.dtype == "bfloat16":
        depth = setting.network.depth
        output, gradient = 2 * math.sqrt(4 * depth) * UNIT, 2 * math.sqrt(depth * UNIT)
        return {"loss": output, "output": output, "gradient": gradient, "update": gradient}
    if setting.tf32:
        return ALLOWED_TF32
    return ALLOWED if setting.network.is_plain else ALLOWED_IF_DEEP


def _pairs(a: Record, b: Record) -> Iterator[tuple[str, str, Any, Any, float]]:
    """(Kind, in words, a's, b's, the least norm that counts) of all that both have."""
    yield "loss", "the loss", a.losses[0], b.losses[0], 0
    yield "output", "the output", a.probabilities, b.probabilities, 0
    if a.gradients and b.gradients:
        least = NEGLIGIBLE * _norm(a.gradients)
        for name, gradient in a.gradients.items():
            yield "gradient", f"the gradient of {name}", gradient, b.gradients[name], least
    if a.updates and b.updates:
        least = NEGLIGIBLE * _norm(a.updates)
        for name, update in a.updates.items():
            yield "update", f"what two steps change in {name}", update, b.updates[name], least
        yield "later loss", "the loss of the second step", a.losses[1], b.losses[1], 0


def _norm(arrays: Mapping[str, Any]) -> float:
    """The norm of all numbers in the arrays."""
    return float(np.linalg.norm([np.linalg.norm(array) for array in arrays.values()]))


def difference(a: Any, b: Any, least: float = 0.0) -> float:
    """The norm of the difference, relative to the first one's norm or to ``least`` if that is larger."""
    return float(np.linalg.norm(np.subtract(a, b)) / (max(np.linalg.norm(a), least) or 1))
