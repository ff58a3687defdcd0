"""Measures everything on a GPU in a few minutes: python scripts/measure_gpu.py --out DIR --minutes 8.

It needs a checkout and a Python with cupy, numpy, scipy and pytest, and installs nothing. If PyTorch is
installed too, it also compares with PyTorch. Nothing else should use the GPU. What matters most is measured
first: tests of the kernels, the launches and the time of training steps, further tests, the comparison with
PyTorch, the checks of `cnn selftest`, memory, the batch size from which the GPU is faster than the CPU, and
then what takes long. Each part runs in a process of its own and is killed if it takes too long. DIR gets a
JSON file and a log for each part, and gpu.md, a page for docs/measurements, which is written again after each
part. The exit code is 1 if a part failed, and 2 if there is no GPU.
"""

import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measurements import page
from measurements.plan import PARTS, Part
from measurements.processes import run_all
from measurements.record import FAILED, NO_DEVICE, Record
from shared.options import Parser, listed, one_of
from shared.progress import say

from cnn.support.files import write_whole
from cnn.support.text import duration

PAGE = "gpu.md"
FIRST = "device"  # the part that every run begins with, since it finds out whether there is a device
RESERVE = 3.0  # seconds for starting, for killing parts and for the page


class NoDevice(Exception):
    """The device cannot be used; the message says why."""


def main() -> None:
    """Measure, and write the page whatever happens."""
    parser = make_parser()
    arguments = parser.parse_args()
    if not arguments.minutes > 0:
        parser.error(f"--minutes is {arguments.minutes:g}, expected a number above 0")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {arguments.out} cannot be made ({error.strerror}): name another folder")
    signal.signal(signal.SIGTERM, interrupt)
    chosen = [part for part in PARTS.values() if part.name == FIRST or part.name in arguments.parts]
    command = shlex.join(["python", "scripts/measure_gpu.py", *sys.argv[1:]])

    def on_end(record: Record) -> None:
        if record.outcome == NO_DEVICE and record.part == FIRST:
            raise NoDevice(record.reason)
        say(f"  {record.outcome}{f': {record.reason}' if record.reason else ''}")
        write_page(arguments.out, arguments.device, command)

    def on_start(part: Part, limit: float) -> None:
        say(f"{part.name}, at most {duration(max(limit, 0))}")

    try:
        run_all(chosen, arguments.device, arguments.out, 60 * arguments.minutes - RESERVE, on_end, on_start)
    except NoDevice as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        write_page(arguments.out, arguments.device, command)
        parser.exit(130, f"interrupted; what was measured is in {arguments.out / PAGE}\n")
    say(f"wrote {arguments.out / PAGE}")
    sys.exit(has_failed(arguments.out, chosen))


def make_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where the results are written"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="how long the whole may take (default: 8)")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the script (default: cuda)"
    )
    parser.add_argument(
        "--parts",
        type=listed(one_of(PARTS)),
        default=list(PARTS),
        help=f"what is measured, of {','.join(PARTS)}; the results of other parts in DIR stay (default: all)",
    )
    return parser


def interrupt(*_: object) -> NoReturn:
    """End as after Ctrl-C."""
    raise KeyboardInterrupt


def write_page(folder: Path, device: str, command: str) -> None:
    """Write the page of all parts whose results are in the folder."""
    try:
        records = [Record.read(folder, name) for name in PARTS]
        write_whole(folder / PAGE, page.make(records, device, command).encode())
    except Exception:  # the parts that follow are worth more than the page
        traceback.print_exc()


def has_failed(folder: Path, parts: Sequence[Part]) -> bool:
    """Whether one of the parts failed."""
    return any(Record.read(folder, part.name).outcome == FAILED for part in parts)


if __name__ == "__main__":
    main()
