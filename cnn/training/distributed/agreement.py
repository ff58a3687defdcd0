"""What the processes decide together while they train: to stop, to read the sums, to capture a step."""

from enum import IntFlag
from typing import Any

from cnn.data.sharding import WHOLE, Sharding
from cnn.network import Network
from cnn.support.errors import TrainingError
from cnn.training.distributed.communicator import Communicator, digest
from cnn.training.metrics import Totals
from cnn.training.optimizers import Optimizer


class Wish(IntFlag):
    """What a process may want the others to do with it."""

    STOP = 1
    READ = 2  # the sums of the losses
    LOOK = 4  # for values that are NaN or infinite
    CAPTURE = 8  # the step as a CUDA graph


class Agreement:
    """Decides for one process that has no shards: every wish is granted at once."""

    def __init__(self) -> None:
        self._stops = False

    is_shared = False
    """Whether there are other processes."""

    def begin_step(self) -> None:
        """Called before each step."""

    def end_step(self, totals: Totals) -> None:
        """Called after each step."""

    def grants(self, wish: Wish, due: bool) -> bool:
        """Whether all processes do this now, which this one wants if it is ``due``."""
        return due

    @property
    def stops(self) -> bool:
        """Whether the run ends after the current step."""
        return self._stops

    @stops.setter
    def stops(self, value: bool) -> None:
        self._stops = value

    def settle(self, network: Network, optimizer: Optimizer) -> None:
        """Called after the callbacks of an epoch, and of the start, which perhaps only one process has."""

    def collect(self, totals: Totals) -> None:
        """Let ``totals`` have the sums of all shards."""

    def all_true(self, value: bool) -> bool:
        """Whether ``value`` is true in all processes."""
        return value

    def earliest(self, value: Any) -> Any:
        """The value of the first process that has one, or None."""
        return value


class SharedAgreement(Agreement):
    """Decides for all processes of a run with shards.

    No process may act alone by its clock or by a signal, since the others would wait for it forever. So what
    a process wants after a step is sent to all with the next one, and all do it after that step.
    """

    def __init__(self, group: Communicator, sharding: Sharding = WHOLE) -> None:
        super().__init__()
        self._group, self._sharding = group, sharding
        self.is_shared = group.size > 1
        self._wanted = self._sent = self._granted = Wish(0)

    def begin_step(self) -> None:
        self._word = self._group.any_of(int(self._wanted))
        self._sent, self._wanted = self._wanted, Wish(0)

    def end_step(self, totals: Totals) -> None:
        self._granted, self._sent = Wish(self._word.wait()), Wish(0)
        self._stops = self._stops or Wish.STOP in self._granted
        self._group.watchdog.be_strict()
        if self._granted:
            self.collect(totals)

    def grants(self, wish: Wish, due: bool) -> bool:
        if due and wish not in self._granted | self._sent:
            self._wanted |= wish
        return wish in self._granted

    @property
    def stops(self) -> bool:
        return self._stops

    @stops.setter
    def stops(self, value: bool) -> None:
        if value:
            self._wanted |= Wish.STOP

    def settle(self, network: Network, optimizer: Optimizer) -> None:
        weights = digest(network.backend, [network.flat.value, *network.statistics.values()])
        decided = optimizer.present_settings, network.frozen_names
        told = self._group.gather((Wish.STOP in self._wanted, weights, decided, self._group.host))
        for rank, (_, found, _, host) in enumerate(told):
            if found != told[0][1]:
                raise TrainingError(
                    f"{self._group.name_of(rank, host)} has other weights than process 0: "
                    "a callback that changes weights must set everywhere = True"
                )
        self._stops = self._stops or any(stops for stops, *_ in told)
        self._wanted &= ~Wish.STOP
        settings, frozen = told[0][2]
        if decided != (settings, frozen):
            optimizer.load_settings(settings)
            network.unfreeze("*")
            network.freeze(*frozen)

    def collect(self, totals: Totals) -> None:
        backend = totals.backend
        for array in totals.arrays.values():
            rows = backend.to_host(array).copy()
            self._group.gather_rows(rows, self._sharding.own)
            backend.asarray(rows, out=array)

    def all_true(self, value: bool) -> bool:
        return all(self._group.gather(value))

    def earliest(self, value: Any) -> Any:
        return next((found for found in self._group.gather(value) if found is not None), None)
