"""The file of a part: what was found so far, and how the part ended."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn.support.files import to_json

FORMAT, SCHEMA = "xpcnn gpu measurement", 1
DONE, FAILED, SKIPPED, KILLED, RUNNING = "done", "failed", "skipped", "killed", "running"
NOT_STARTED, NO_DEVICE = "not started", "no device"


class Skipped(Exception):
    """A part that cannot run here; the message is the reason."""


class Failed(Exception):
    """A part that ran to its end and found something wrong; the message says what."""


class Record:
    """A part's JSON file in the folder; it is written again with everything that is found.

    Attributes
    ----------
    outcome, reason, seconds
        How the part ended, why if it is not done, and how long it took.
    found
        The measurements, as plain data.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.path = folder / f"{part}.json"
        self.log = folder / f"{part}.log"
        self.part = part
        self.outcome, self.reason, self.seconds = NOT_STARTED, "", 0.0
        self.found: dict[str, Any] = {}

    @classmethod
    def read(cls, folder: Path, part: str) -> "Record":
        """The record in the folder; a new one if there is none that can be read."""
        record = cls(folder, part)
        try:
            values = json.loads(record.path.read_text("utf-8"))
            record.outcome, record.reason = values["outcome"], values["reason"]
            record.seconds, record.found = values["seconds"], values["found"]
        except (OSError, ValueError, KeyError):
            return cls(folder, part)
        return record

    def note(self, **found: Any) -> None:
        """Add to what was found."""
        self.found.update(found)
        self.write()

    def end(self, outcome: str, reason: str = "") -> None:
        """Write how the part ended."""
        self.outcome, self.reason = outcome, reason
        self.write()

    def write(self) -> None:
        """Replace the file, so that it is whole even if this process is killed."""
        temporary = self.path.with_suffix(".unfinished")
        temporary.write_text(to_json(self._as_plain(), indent=2) + "\n", "utf-8")
        temporary.replace(self.path)

    def _as_plain(self) -> Mapping[str, Any]:
        kept = {"part": self.part, "outcome": self.outcome, "reason": self.reason, "seconds": self.seconds}
        return {"format": FORMAT, "schema": SCHEMA, **kept, "found": self.found}
