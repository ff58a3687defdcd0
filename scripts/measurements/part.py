"""Measures one part in this process: part.py NAME DEVICE FOLDER; scripts/measure_gpu.py starts it."""

import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from backends.text import first_line
from cnn.support.errors import DeviceUnavailable
from cnn.support.libraries import LibraryError
from measurements.plan import PARTS
from measurements.record import DONE, FAILED, NO_DEVICE, RUNNING, SKIPPED, Failed, Record, Skipped


def main() -> None:
    """Measure, and write how it ended."""
    name, device, folder = sys.argv[1:]
    record = Record(Path(folder), name)
    record.end(RUNNING)
    record.end(*measured(record, device))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # on a lost device, CuPy would print an error for each object that is destroyed


def measured(record: Record, device: str) -> tuple[str, str]:
    """(The outcome of the part, the reason if it is not done)."""
    part = PARTS[record.part]
    try:
        import_module(f"measurements.{part.module}").measure(device, record, **part.options)
    except (Skipped, LibraryError) as reason:
        return SKIPPED, str(reason)
    except Failed as found:
        return FAILED, str(found)
    except DeviceUnavailable as error:
        return NO_DEVICE, str(error)
    except Exception as error:  # whatever it is, the other parts still run
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {first_line(error)}"
    return DONE, ""


if __name__ == "__main__":
    main()
