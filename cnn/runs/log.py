"""The callback that keeps a run's folder while it is trained."""

from contextlib import ExitStack
from typing import Any

from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.saving.weights import are_finite
from cnn.support.files import write_whole
from cnn.support.libraries import require
from cnn.support.tensors import TO_SAVE
from cnn.training.callbacks import BestWeights, Callback, Checkpoint, CSVLog
from cnn.training.run import Run


class RunLog(Callback):
    """Keeps the run's folder: made when training starts; after each epoch metrics, weights and a checkpoint.

    The checkpoint comes last, so that the other files are never behind it. If the network has become useless,
    failure.txt says why.
    """

    def __init__(
        self, folder: RunFolder, config: Config, class_names: tuple[str, ...], is_resumed: bool = False
    ) -> None:
        self.folder = folder
        self.config = config
        self.class_names = class_names
        self.is_resumed = is_resumed

    def on_start(self, run: Run) -> None:
        require("safetensors.numpy", TO_SAVE)  # before there is anything to lose
        described = self.config, run.network, self.class_names
        with ExitStack() as stack:
            if not self.is_resumed:
                self.folder.start(*described)
            stack.enter_context(self.folder.alone())
            if self.is_resumed:
                self.folder.resume(*described)
            self._parts: list[Callback] = [CSVLog(self.folder.metrics)]
            if self.config.validation:
                self._parts.append(BestWeights(self.folder.best))
            self._checkpoint = Checkpoint(self.folder.checkpoint)
            self._checkpoint.on_start(run)
            self._alone = stack.pop_all()

    def on_step(self, run: Run) -> None:
        self._checkpoint.on_step(run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        for part in self._parts:
            part.on_epoch(run, record)
        run.save(self.folder.weights)
        self._checkpoint.on_epoch(run, record)

    def on_end(self, run: Run) -> None:
        with self._alone:
            if run.failure:
                write_whole(self.folder.failure, f"{run.failure}\n".encode())
            has_begun = run.step > 0 and not self.folder.weights.exists()  # if an exception ended it
            if (run.stop or has_begun) and are_finite(run.network.state_dict()):
                run.save(self.folder.weights)
            self._checkpoint.on_end(run)
