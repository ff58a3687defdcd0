"""Makes .venv ready: ``python scripts/environment.py run``, ``test`` or ``peers``; the Makefile calls it.

A .venv is believed where a stamp says that an installation came to its end, in this folder and by
this interpreter; any other is rebuilt. If the stamp matches, nothing is done.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BEGUN = VENV / ".installing"  # pip's report: written before pip changes anything, removed at the end
REQUIREMENTS = {"run": ".", "test": ".[test]", "peers": ".[test,peers]"}  # each covers those before it
# not that of an activated .venv, which may go
INTERPRETER: str = sys._base_executable  # type: ignore[attr-defined]


def main(purpose: str) -> None:
    """Install what ``purpose`` ("run", "test" or "peers") needs, unless it is there."""
    with (ROOT / "pyproject.toml").open() as lock:  # held by pip too, which may outlive this process
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another installation into .venv ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = [INTERPRETER, str(ROOT), sys.version, hashlib.sha256(lock.read().encode()).hexdigest()]
        if not is_believed(stamp):
            make_venv()
        elif read_stamp(purpose)[1:] == stamp[1:]:
            return
        else:
            say("Installing into .venv ...")
        install(REQUIREMENTS[purpose], lock.fileno())
        for name in REQUIREMENTS:
            stamp_path(name).write_text("\n".join(stamp))
            if name == purpose:
                break
        BEGUN.unlink()


def is_believed(stamp: list[str]) -> bool:
    """Whether .venv is whole, in the folder it was made in, and of this very Python."""
    whole = os.access(VENV / "bin" / "python", os.X_OK) and not BEGUN.exists()
    return whole and read_stamp("run")[1:3] == stamp[1:3]


def stamp_path(purpose: str) -> Path:
    """The file that says with what the installation for ``purpose`` was finished."""
    return VENV / f".installed-{purpose}"


def read_stamp(purpose: str) -> list[str]:
    """The lines of a stamp; none where there is none."""
    try:
        return stamp_path(purpose).read_text().split("\n")
    except OSError:
        return []


def make_venv() -> None:
    """An empty .venv in place of what was there."""
    if not (find_spec("venv") and find_spec("ensurepip")):
        sys.exit(
            f"{INTERPRETER} cannot make virtual environments: install its venv module (on Debian and Ubuntu: "
            "apt install python3-venv), or name another interpreter, as in make train PYTHON=python3.12"
        )
    say(f"Installing into a new .venv with Python {sys.version.split()[0]} ...")
    for purpose in REQUIREMENTS:  # first, so that half of an old .venv is not believed either
        stamp_path(purpose).unlink(missing_ok=True)
    made = subprocess.run([INTERPRETER, "-I", "-m", "venv", "--clear", VENV], capture_output=True, text=True)
    if made.returncode:
        sys.exit(f"{made.stdout}{made.stderr}{INTERPRETER} could not make .venv: fix the error shown above")


def install(requirement: str, lock: int) -> None:
    """Let pip install ``requirement``, quietly but for what goes wrong."""
    pip = [str(VENV / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--report", str(BEGUN)]
    settings = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([*pip, "-e", requirement], cwd=ROOT, env=settings, pass_fds=[lock])
    if done.returncode:
        sys.exit(
            f"pip could not install {requirement!r} into .venv: fix the error shown above and call make again"
        )


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:] not in ([purpose] for purpose in REQUIREMENTS):
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit("Interrupted: the next call takes the installation up again.")
    except OSError as error:
        sys.exit(f".venv could not be made ready: {error}")
