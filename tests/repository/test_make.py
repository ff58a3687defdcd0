"""make: which interpreters it takes, and which .venv it believes.

Everything runs in a copy in a temporary folder whose venv and pip are stand-ins that only write down
how they were called: nothing is downloaded, and the checkout's own .venv is never touched.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# makes a .venv of stand-ins; is the real interpreter in everything else
BASE = """#!/bin/sh
[ "$3" = venv ] || exec "{python}" "$@"
echo venv >> "{log}"
rm -rf "$5" && mkdir -p "$5/bin" && cp "{stand_ins}/python" "{stand_ins}/cnn" "$5/bin"
"""

# python -I -m pip install --quiet --report $7 -e $9, or anything else
PIP = """#!/bin/sh
[ "$3" = pip ] || {{ echo "python $*" >> "{log}"; exit; }}
echo "pip $9" >> "{log}"
[ "$FAULT" != "before pip changes anything" ] || {{ echo "no network" >&2; exit 1; }}
touch "$7"
[ "$FAULT" != "while pip installs" ] || {{ echo "no space left" >&2; exit 1; }}
[ "$FAULT" != "by a kill" ] || kill -9 $PPID
"""

CNN = """#!/bin/sh
echo "cnn $*" >> "{log}"
"""


class Checkout:
    """A copy of what make needs, and a log of what it called."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path / "the checkout"  # with a space, on purpose
        self.path.mkdir()
        (self.path / "scripts").mkdir()
        for name in ("Makefile", "pyproject.toml", "scripts/environment.py"):
            shutil.copy(ROOT / name, self.path / name)
        self.log = tmp_path / "log"
        self.stand_ins = tmp_path / "stand-ins"
        self.stand_ins.mkdir()
        base = self.stand_in("base", BASE)
        self.stand_in("python", PIP)
        self.stand_in("cnn", CNN)
        self.customize(f"import sys; sys._base_executable = {str(base)!r}")

    def stand_in(self, name: str, script: str) -> Path:
        """An executable of that name."""
        path = self.stand_ins / name
        path.write_text(script.format(python=sys.executable, log=self.log, stand_ins=self.stand_ins))
        path.chmod(0o755)
        return path

    def customize(self, code: str) -> None:
        """What every Python that make starts runs first."""
        (self.stand_ins / "sitecustomize.py").write_text(code)

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run make there; what it called is in ``calls``."""
        self.log.write_text("")
        outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON")  # of the make that runs these tests
        kept = {name: value for name, value in os.environ.items() if name not in outer}
        paths = {
            "PATH": f"{self.stand_ins}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.stand_ins),
        }
        return subprocess.run(
            ["make", *arguments],
            cwd=self.path,
            env=kept | paths | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self) -> list[str]:
        """How the stand-ins were called in the latest make."""
        return self.log.read_text().splitlines()

    @property
    def stamp(self) -> Path:
        """What says that the installation for running came to its end."""
        return self.path / ".venv" / ".installed-run"

    def installs(self, purpose: str) -> list[str]:
        """The calls of a make that got .venv ready and succeeded."""
        done = self.make(f"environment-{purpose}", f"PYTHON={sys.executable}")
        assert done.returncode == 0, done.stderr
        return self.calls


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which make refused."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    return line


class TestInterpreter:
    @pytest.mark.parametrize("version", ["2.7", "3.6", "3.10"])
    def test_too_old(self, checkout: Checkout, version: str) -> None:
        old = checkout.stand_in("old-python", f'#!/bin/sh\necho asked >> "{{log}}"\necho {version}\n')
        answer = sentence(checkout.make("train", f"PYTHON={old}"))
        assert f"is Python {version}, but Python 3.11 or later is needed" in answer
        assert "make train PYTHON=python3.12" in answer
        assert checkout.calls == ["asked"]
        assert not (checkout.path / ".venv").exists()

    def test_that_is_missing(self, checkout: Checkout) -> None:
        answer = sentence(checkout.make("test", "PYTHON=no-such-python"))
        assert "no-such-python does not run" in answer
        assert "make test PYTHON=python3.12" in answer

    def test_that_is_no_python(self, checkout: Checkout) -> None:
        assert "true does not run" in sentence(checkout.make("train", "PYTHON=true"))

    @pytest.mark.parametrize("module", ["venv", "ensurepip"])
    def test_that_cannot_make_a_venv(self, checkout: Checkout, module: str) -> None:
        checkout.customize(f"import sys; sys.modules[{module!r}] = None")
        answer = sentence(checkout.make("train", f"PYTHON={sys.executable}"))
        assert "apt install python3-venv" in answer
        assert not (checkout.path / ".venv").exists()

    def test_default_is_python3(self, checkout: Checkout) -> None:
        checkout.stand_in("python3", "#!/bin/sh\necho 3.8\n")
        assert "python3 is Python 3.8" in sentence(checkout.make("train"))

    def test_that_made_a_finished_venv_is_kept_unless_another_is_named(self, checkout: Checkout) -> None:
        checkout.installs("run")
        checkout.stand_in("python3", "#!/bin/sh\necho 3.8\n")
        assert checkout.make("train").returncode == 0
        assert checkout.calls == ["cnn train"]
        assert "python3 is Python 3.8" in sentence(checkout.make("train", "PYTHON=python3"))


class TestInstallation:
    def test_train_installs_what_running_needs_and_trains(self, checkout: Checkout) -> None:
        done = checkout.make("train", f"PYTHON={sys.executable}", "ARGS=--epochs 1")
        assert done.returncode == 0, done.stderr
        (progress,) = done.stderr.splitlines()
        assert progress.startswith("Installing into a new .venv")
        assert checkout.calls == ["venv", "pip .", "cnn train --epochs 1"]

    def test_finished_is_not_repeated(self, checkout: Checkout) -> None:
        checkout.installs("run")
        assert checkout.installs("run") == []

    def test_testing_adds_to_running_and_covers_it(self, checkout: Checkout) -> None:
        checkout.installs("run")
        assert checkout.installs("test") == ["pip .[test]"]
        assert checkout.installs("test") == []
        assert checkout.installs("run") == []

    def test_running_needs_nothing_after_testing(self, checkout: Checkout) -> None:
        assert checkout.installs("test") == ["venv", "pip .[test]"]
        assert checkout.installs("run") == []

    def test_other_dependencies_are_installed_on_top(self, checkout: Checkout) -> None:
        checkout.installs("test")
        with (checkout.path / "pyproject.toml").open("a") as file:
            file.write("\n# changed\n")
        assert checkout.installs("run") == ["pip ."]
        assert checkout.installs("test") == ["pip .[test]"]

    @pytest.mark.parametrize("fault", ["before pip changes anything", "while pip installs", "by a kill"])
    def test_that_stopped_is_made_anew(self, checkout: Checkout, fault: str) -> None:
        assert checkout.make("train", f"PYTHON={sys.executable}", FAULT=fault).returncode != 0
        assert checkout.calls == ["venv", "pip ."]
        assert checkout.installs("run") == ["venv", "pip ."]

    @pytest.mark.parametrize("fault", ["while pip installs", "by a kill"])
    def test_that_stopped_while_it_added_is_made_anew(self, checkout: Checkout, fault: str) -> None:
        checkout.installs("run")
        assert checkout.make("test", f"PYTHON={sys.executable}", FAULT=fault).returncode != 0
        assert checkout.calls == ["pip .[test]"]
        assert checkout.installs("run") == ["venv", "pip ."]

    def test_that_failed_without_a_change_leaves_what_was_there(self, checkout: Checkout) -> None:
        checkout.installs("run")
        done = checkout.make("test", f"PYTHON={sys.executable}", FAULT="before pip changes anything")
        assert done.returncode != 0
        assert "no network" in done.stderr
        assert "pip could not install '.[test]'" in done.stderr
        assert "Traceback" not in done.stderr
        assert checkout.installs("run") == []


class TestBelief:
    """A .venv that is not what its stamp says is rebuilt."""

    def test_without_a_stamp(self, checkout: Checkout) -> None:
        (checkout.path / ".venv" / "bin").mkdir(parents=True)
        shutil.copy(checkout.stand_ins / "python", checkout.path / ".venv" / "bin")
        assert checkout.installs("run") == ["venv", "pip ."]

    def test_of_another_python(self, checkout: Checkout) -> None:
        checkout.installs("run")
        stamp = checkout.stamp.read_text()
        assert sys.version in stamp
        checkout.stamp.write_text(stamp.replace(sys.version, "3.99.0"))
        assert checkout.installs("run") == ["venv", "pip ."]

    def test_in_a_folder_that_was_moved(self, checkout: Checkout) -> None:
        checkout.installs("run")
        checkout.path = checkout.path.rename(checkout.path.with_name("elsewhere"))
        assert checkout.installs("run") == ["venv", "pip ."]

    def test_whose_interpreter_is_gone(self, checkout: Checkout) -> None:
        checkout.installs("run")
        (checkout.path / ".venv" / "bin" / "python").unlink()
        assert checkout.installs("run") == ["venv", "pip ."]


class TestPeers:
    """make test-peers installs PyTorch, and compares with it."""

    def test_installs_pytorch_beside_what_testing_needs(self, checkout: Checkout) -> None:
        done = checkout.make("test-peers", f"PYTHON={sys.executable}")
        assert done.returncode == 0, done.stderr
        *installation, tests = checkout.calls
        assert installation == ["venv", "pip .[test,peers]"]
        assert tests.startswith("python -m pytest ")
        assert tests.endswith(" --need-pytorch --hypothesis-profile peers tests/peers")

    def test_covers_running_and_testing(self, checkout: Checkout) -> None:
        assert checkout.installs("peers") == ["venv", "pip .[test,peers]"]
        assert [checkout.installs(purpose) for purpose in ("run", "test", "peers")] == [[], [], []]

    def test_is_not_covered_by_testing(self, checkout: Checkout) -> None:
        checkout.installs("test")
        assert checkout.installs("peers") == ["pip .[test,peers]"]

    def test_is_left_out_of_what_others_install(self, checkout: Checkout) -> None:
        checkout.installs("peers")
        with (checkout.path / "pyproject.toml").open("a") as file:
            file.write("\n# changed\n")
        assert checkout.installs("test") == ["pip .[test]"]
        assert checkout.installs("peers") == ["pip .[test,peers]"]

    @pytest.mark.parametrize(
        ("options", "answer", "code"),
        [
            ([], "PyTorch is not installed", pytest.ExitCode.NO_TESTS_COLLECTED),
            (["--need-pytorch"], "ERROR: PyTorch is not installed", pytest.ExitCode.USAGE_ERROR),
        ],
    )
    def test_fails_where_pytorch_is_missing_and_other_calls_leave_it_out(
        self, checkout: Checkout, options: list[str], answer: str, code: int
    ) -> None:
        checkout.customize(
            "from importlib.machinery import PathFinder\n"
            "found = PathFinder.find_spec\n"
            "hide = lambda cls, name, *rest: None if name == 'torch' else found(name, *rest)\n"
            "PathFinder.find_spec = classmethod(hide)"
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests/peers"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(checkout.stand_ins)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert answer in done.stdout + done.stderr
        assert "passed" not in done.stdout


class TestGpu:
    """make test-gpu installs nothing."""

    PYTHON = """#!/bin/sh
echo "python $*" >> "{log}"
[ "$FAULT" != "$1 $2" ]
"""
    TESTS, SANITIZER = "python -m pytest -q --need-gpu", "python scripts/sanitize_kernels.py"

    @pytest.fixture
    def gpu(self, checkout: Checkout) -> Callable[..., subprocess.CompletedProcess[str]]:
        """make test-gpu where nothing but the stand-ins can be called."""
        for name in ("make", "sed", "sh"):
            (checkout.stand_ins / name).symlink_to(str(shutil.which(name)))
        python = checkout.stand_in("python-with-cupy", self.PYTHON)
        return partial(checkout.make, "test-gpu", f"PYTHON={python}", PATH=str(checkout.stand_ins))

    def test_runs_all_tests_and_the_sanitizer(self, checkout: Checkout, gpu) -> None:
        checkout.stand_in("compute-sanitizer", "#!/bin/sh\n")
        assert gpu().returncode == 0
        assert checkout.calls == [self.TESTS, self.SANITIZER]

    def test_says_loudly_where_there_is_no_sanitizer(self, checkout: Checkout, gpu) -> None:
        done = gpu()
        assert done.returncode == 0
        assert checkout.calls == [self.TESTS]
        assert done.stderr == "THE KERNELS WERE NOT SANITIZED: compute-sanitizer is not on the PATH\n"

    @pytest.mark.parametrize("fault", ["-m pytest", "scripts/sanitize_kernels.py "])
    def test_fails_where_one_of_them_does(self, checkout: Checkout, gpu, fault: str) -> None:
        checkout.stand_in("compute-sanitizer", "#!/bin/sh\n")
        assert gpu(FAULT=fault).returncode != 0


def test_help_lists_the_targets(checkout: Checkout) -> None:
    listed = checkout.make().stdout
    assert [line.split()[1] for line in listed.splitlines()] == [
        "help",
        "train",
        "test",
        "test-peers",
        "test-minimums",
        "test-gpu",
        "lint",
        "types",
        "clean",
    ]
    assert checkout.make("help").stdout == listed


def test_clean_keeps_what_was_trained(checkout: Checkout) -> None:
    checkout.installs("run")
    run = checkout.path / "runs" / "one"
    run.mkdir(parents=True)
    assert checkout.make("clean").returncode == 0
    assert not (checkout.path / ".venv").exists()
    assert run.exists()
