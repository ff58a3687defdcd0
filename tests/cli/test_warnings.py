"""A warning of this project's own is a note of the command; those of other libraries are none."""

import ast
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import backends
import cnn

PACKAGES = [Path(package.__file__).parent for package in (backends, cnn)]


@pytest.fixture
def warned(command, monkeypatch):
    """``warned(work)`` is what `cnn gradcheck` says if ``work`` is done on the way."""

    def run(work):
        monkeypatch.setattr("cnn.cli.gradcheck.check_gradients", lambda *_, **__: work() or [])
        code, out, err = command("gradcheck", "--device", "cpu", "--kernels", "portable")
        assert (code, out) == (0, "")
        return err

    return run


def overflow():
    np.exp(np.float32(1000)), np.float32(1) / np.float32(0)


@pytest.mark.parametrize(
    "category", [FutureWarning, DeprecationWarning, PendingDeprecationWarning, UserWarning, RuntimeWarning]
)
def test_another_librarys_is_not_shown(warned, monkeypatch, category):
    monkeypatch.setattr(sys, "warnoptions", [])
    assert warned(lambda: warnings.warn("this is experimental", category, stacklevel=2)) == ""
    assert warned(overflow) == ""


def test_it_is_shown_as_pythons_if_python_is_asked_for_it(warned, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    with pytest.warns(FutureWarning, match="this is experimental"):
        assert warned(lambda: warnings.warn("this is experimental", FutureWarning, stacklevel=2)) == ""


def test_ours_is_a_note(warned):
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2), cnn.Softmax())
    network.build((1, 2, 2), backend="cpu")
    err = warned(lambda: cnn.CrossEntropy().build(network))
    assert err.startswith("note: CrossEntropy expects logits, but the network ends in Softmax")


def test_all_that_we_raise_are_ours():
    raised = []
    texts = [path.read_text(encoding="utf-8") for package in PACKAGES for path in package.rglob("*.py")]
    for text in (text for text in texts if "warn(" in text):
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("warnings.warn", "warn"):
                raised.append(ast.unparse(call))
    assert raised
    assert all("Notice" in call for call in raised), raised


def test_what_cupy_says_of_its_experiments_is_not_passed_on(gpu_with_cupyx):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gpu_with_cupyx.signal.correlate == "correlate"


@pytest.fixture
def gpu_with_cupyx(tmp_path, monkeypatch):
    """A backend on a fake GPU, with a cupyx.scipy.signal that warns when it is imported, as CuPy's."""
    from helpers.fake_cupy import fake_cupy

    from backends.cuda import diagnosis
    from backends.cuda.backend import CudaBackend

    for folder in ("cupyx", "cupyx/scipy", "cupyx/scipy/signal"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "cupyx/scipy/signal/__init__.py").write_text(
        "import warnings\n"
        "warnings.warn('cupyx.jit.rawkernel is experimental. The interface can change.', FutureWarning)\n"
        "correlate = 'correlate'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(diagnosis, "_cupy_packages", lambda: ["cupy-cuda12x"])
    yield CudaBackend(0)
    for name in [name for name in sys.modules if name.split(".")[0] == "cupyx"]:
        del sys.modules[name]
