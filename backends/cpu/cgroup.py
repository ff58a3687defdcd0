"""The CPU quotas of Linux's control groups, versions 1 and 2."""

import re
from collections.abc import Iterator
from pathlib import Path


def cpu_quota(process: Path = Path("/proc/self")) -> float | None:
    """The smallest CPU quota that applies to this process, in CPUs; None if there is none.

    The quotas of all parent groups apply too.
    """
    try:
        groups = (process / "cgroup").read_text("utf-8").splitlines()
        mounts = (process / "mountinfo").read_text("utf-8").splitlines()
        quotas = [_quota(folder) for folder in _folders(groups, mounts)]
    except (OSError, ValueError):  # not Linux, or hidden
        return None
    return min((quota for quota in quotas if quota), default=None)


def _folders(groups: list[str], mounts: list[str]) -> Iterator[Path]:
    """The folders of the process's CPU groups and their parents, up to the mount point."""
    for line in mounts:
        mount, _, system = line.partition(" - ")
        root, point = (
            re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), part) for part in mount.split()[3:5]
        )
        kind, *_, options = system.split()
        for group in groups:
            _, controllers, path = group.split(":", 2)
            if kind == "cgroup2" and not controllers:
                pass
            elif kind != "cgroup" or "cpu" not in options.split(",") or "cpu" not in controllers.split(","):
                continue
            # a container may see only its own group, at the mount point
            inside = Path(path).is_relative_to(root) and ".." not in path
            folder = Path(point, Path(path).relative_to(root)) if inside else Path(point)
            yield folder
            yield from (parent for parent in folder.parents if parent.is_relative_to(point))


def _quota(group: Path) -> float | None:
    """The quota of a group in CPUs; None if it has no limit."""
    try:
        if (group / "cpu.max").exists():
            allowed, period = (group / "cpu.max").read_text("utf-8").split()
        else:
            allowed, period = (
                (group / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period")
            )
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no limit: "max"
        return None
