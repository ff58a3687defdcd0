"""A network next to PyTorch: scripts/benchmarks/bench_peers.py for a single network."""

import bench_peers
from peers.contenders import CONTENDERS
from peers.peer import Absent

from cnn.support.errors import DisagreementError
from measurements.record import Failed, Record, Skipped

OURS, PORTABLE, EAGER, COMPILED = "compiled", "portable", "pytorch", "torch.compile"


def measure(
    device: str, record: Record, network: str, batch_size: int, tf32: bool, compiled: bool, dtype: str
) -> None:
    """Note all figures; everyone must compute the same before anything is timed.

    Without PyTorch, ours are compared with the portable kernels. torch.compile takes long to compile, so with
    it only training is timed.
    """
    if tf32 and device == "cpu":
        raise Skipped("TF32 is for products on a GPU")
    if dtype != "float32" and device == "cpu":
        raise Skipped(f"networks in {dtype} are for a GPU")
    absent = why_absent(device)
    if absent and compiled:
        raise Skipped(absent)
    peers = [OURS, PORTABLE] if absent else [OURS, EAGER, *([COMPILED] if compiled else [])]
    options = ["--device", device, "--networks", network, "--batch-sizes", str(batch_size)]
    options += ["--peers", ",".join(peers), *(["--tf32"] if tf32 else []), "--dtype", dtype]
    options += ["--only", "training"] if compiled else []
    arguments = bench_peers.make_parser().parse_args(options)
    bench_peers.require_device(arguments)
    record.note(command=bench_peers.command(arguments))
    try:
        results = bench_peers.run(arguments)
    except DisagreementError as error:
        raise Failed(str(error)) from error
    record.note(**results.as_plain())
    if absent:
        record.note(absent={EAGER: absent})
    if compiled and COMPILED in results.absent:
        raise Failed(results.absent[COMPILED])


def why_absent(device: str) -> str | None:
    """Why PyTorch cannot take part; None if it can."""
    try:
        CONTENDERS[EAGER].load(device)
    except Absent as reason:
        return str(reason)
    return None
