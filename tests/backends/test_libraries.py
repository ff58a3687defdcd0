"""Libraries that are missing, broken, hidden or set not to work: left out, or named in one sentence."""

import os
import subprocess
import sys
import warnings

import pytest

from backends import CpuBackend, libraries
from backends.cpu import threads
from backends.libraries import LibraryError, needing, require, require_to_start
from cnn.support.drawing import require_matplotlib
from cnn.support.errors import ArgumentError, Notice

FAULTS = {
    "ImportError": "raise ImportError('it needs NumPy 2.3 or less')",
    "OSError": "raise OSError('libfoo.so: cannot open shared object file')",
    "SystemError": "raise SystemError('initialization of _internal failed')",
    "AttributeError": "import numpy\nnumpy.no_such_long",
    "SystemExit": "import sys\nsys.exit(3)",
    "BaseException": "raise BaseException",
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """``library(name, code)`` puts a package of that name before the installed ones; -> its folder."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, code):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        made.append(name)
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        return tmp_path / name

    yield make
    for module in [module for module in sys.modules if module.partition(".")[0] in made]:
        del sys.modules[module]


def python(*arguments, cwd=None, **variables):
    """Another Python, which has nothing imported yet."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


class TestRequire:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_whatever_a_broken_one_raises_becomes_a_sentence(self, library, fault):
        folder = library("brokenlib", FAULTS[fault])
        with pytest.raises(LibraryError) as caught:
            require("brokenlib", "to draw", "broken-lib")
        said = str(caught.value)
        assert said.startswith("broken-lib is needed to draw and cannot be used (")
        assert f"rename {folder} if it is yours" in said
        assert said.endswith(f"{sys.executable} -m pip install broken-lib")
        assert "\n" not in said

    def test_the_error_is_one_of_arguments_and_of_imports(self):
        assert issubclass(LibraryError, ArgumentError)
        assert issubclass(LibraryError, ImportError)

    def test_an_installed_one_is_installed_again_by_force(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "rich", None)
        with pytest.raises(LibraryError, match=r"-m pip install rich --force-reinstall$"):
            require("rich", "to print")

    def test_a_folder_of_its_name_is_no_library(self, tmp_path, monkeypatch):
        (tmp_path / "emptylib").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(LibraryError, match=r"empty folder.*rename .*emptylib if it is yours"):
            require("emptylib", "to draw")

    def test_a_traceback_that_it_prints_itself_is_not_shown(self, library, capsys):
        library("chattylib", "import sys\nsys.stderr.write('Traceback (most recent call last)')\n1 / 0")
        with pytest.raises(LibraryError, match="ZeroDivisionError"):
            require("chattylib", "to draw")
        assert capsys.readouterr() == ("", "")

    def test_what_a_sound_one_prints_is_shown(self, library, capsys):
        library("talkinglib", "import sys\nsys.stderr.write('loading')")
        require("talkinglib", "to draw")
        assert capsys.readouterr().err == "loading"

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
    def test_what_is_no_fault_of_a_library_passes(self, error):
        with pytest.raises(error), needing("numba", "to compute"):
            raise error

    def test_a_library_that_it_needs_is_named_too(self, library):
        folder = library("llvmlite", "raise OSError('libllvmlite.so')")
        library("outerlib", "import llvmlite")
        with pytest.raises(LibraryError) as caught:
            require("outerlib", "to compute")
        assert f"rename {folder} if it is yours" in str(caught.value)
        assert str(caught.value).endswith("-m pip install outerlib llvmlite --force-reinstall")

    def test_a_variable_that_may_be_the_reason_is_named(self, monkeypatch):
        monkeypatch.setenv("NUMBA_CPU_NAME", "nonsense")
        unset = "unset NUMBA_CPU_NAME, or "
        with pytest.raises(LibraryError, match=unset), needing("numba", "to compute"):
            raise ValueError("This processor is unknown.")


def lacks_something():
    import rich

    rich.no_such_thing  # noqa: B018


def fails_inside():
    from rich.table import Table

    Table().add_row(object())


def fails_here():
    raise KeyError("ours")


class TestCommand:
    """What a library fails of when it is used."""

    @pytest.mark.parametrize("fault", [lacks_something, fails_inside])
    def test_is_one_sentence(self, command, monkeypatch, fault):
        monkeypatch.setattr("cnn.cli.info.environment", fault)
        code, out, err = command("info")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: rich fails (")
        assert "-m pip install rich --force-reinstall" in err

    def test_a_fault_of_our_own_keeps_its_traceback(self, command, monkeypatch):
        monkeypatch.setattr("cnn.cli.info.environment", fails_here)
        with pytest.raises(KeyError):
            command("info")


class TestStart:
    @pytest.mark.parametrize("name", ["numpy", "typer", "rich"])
    def test_a_program_without_what_it_needs_ends_in_one_sentence(self, tmp_path, name):
        (tmp_path / f"{name}.py").write_text("")  # a file of the user's, in the current folder
        done = python("-m", "cnn", "info", PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"error: {name} is needed to start and cannot be used (")
        assert f"rename {tmp_path / name}.py if it is yours" in done.stderr

    def test_other_errors_are_shown_as_ever(self, library, monkeypatch, capsys):
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.delattr(sys, "ps1", raising=False)
        library("brokenlib", "1 / 0")
        with pytest.raises(LibraryError):
            require_to_start("brokenlib")
        sys.excepthook(KeyError, KeyError("ours"), None)
        assert capsys.readouterr().err == "KeyError: 'ours'\n"

    def test_an_interactive_python_goes_on(self, library, monkeypatch):
        before = sys.excepthook
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
        library("brokenlib", "1 / 0")
        with pytest.raises(LibraryError):
            require_to_start("brokenlib")
        assert sys.excepthook is before


class TestThreadpoolctl:
    @pytest.mark.parametrize(
        "code", ["raise OSError('libgomp.so')", "", "def threadpool_info(): raise OSError"]
    )
    def test_a_broken_one_is_left_out_with_one_note(self, library, code):
        library("threadpoolctl", code)
        libraries.note_once.cache_clear()
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            assert threads.blas_libraries() == []
            assert threads.blas_libraries() == []
        (note,) = notes
        assert issubclass(note.category, Notice)
        assert "threadpoolctl is needed to find the linear algebra library" in str(note.message)

    def test_a_limit_that_needs_it_names_it(self, library):
        library("threadpoolctl", "")
        before = threads.limit()
        with pytest.raises(ArgumentError, match="threadpoolctl is needed to limit the threads to 1"):
            threads.limit_threads(1)
        assert threads.limit() == before


class TestMatplotlib:
    def test_settings_that_are_wrong_are_ignored(self, tmp_path):
        (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
        code = """
import os
from cnn.support.drawing import require_matplotlib
require_matplotlib("to draw")
from matplotlib.figure import Figure
Figure().savefig("drawn.png")
print(os.environ["MPLBACKEND"], os.environ.get("MATPLOTLIBRC"))
"""
        done = python("-c", code, cwd=tmp_path, MPLBACKEND="nonsense")
        assert (done.stdout, done.stderr) == ("nonsense None\n", "")
        assert (tmp_path / "drawn.png").exists()

    def test_a_broken_one_is_named_by_what_it_failed_of_first(self, library):
        library("matplotlib", "raise OSError('libfreetype.so')")
        with pytest.raises(LibraryError, match=r"matplotlib is needed to draw.*OSError: libfreetype\.so"):
            require_matplotlib("to draw")


class TestNumba:
    @pytest.mark.parametrize(
        ("setting", "value", "reason"),
        [
            ("DISABLE_JIT", 1, "NUMBA_DISABLE_JIT is set, so nothing can be compiled"),
        ],
    )
    def test_that_is_set_not_to_work_is_left_out(self, monkeypatch, setting, value, reason):
        numba = pytest.importorskip("numba")
        from backends.cpu import kernels  # noqa: F401 - its functions are made while all is well
        from backends.cpu.compiled import jit

        monkeypatch.setattr(jit, "try_out", jit.try_out.__wrapped__)
        monkeypatch.setattr(numba.config, setting, value)
        monkeypatch.setenv(f"NUMBA_{setting}", "set")
        device = CpuBackend()
        assert device.kernels.name == "portable"
        assert device.slower.startswith("numba is needed for the compiled kernels and cannot be used (")
        assert reason in device.slower
        assert f"unset NUMBA_{setting}" in device.slower

    def test_a_feature_that_would_end_the_process_is_left_out(self):
        pytest.importorskip("numba")
        code = "import backends; print(backends.get('cpu').slower)"
        done = python("-c", code, NUMBA_CPU_FEATURES="nonsense")
        assert "cannot be used (NUMBA_CPU_FEATURES has a feature without + or -)" in done.stdout
