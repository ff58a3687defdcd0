"""The wheel and the source distribution: what is inside, and that it trains without a checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import ZipFile

import pytest
from helpers import ROOT

from cnn.runs import recipes

FOR_TESTS = ("CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "docs", "scripts", "tests")
IN_THE_SOURCE = (
    "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE", "backends", "cnn", *FOR_TESTS,
)  # fmt: skip
MNIST = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def python(*arguments: str, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run this Python on the CPU, with the packages in ``path`` before all others."""
    settings = {"PYTHONPATH": str(path), "CNN_DEVICE": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both, built from a copy: leftovers of an earlier build in the checkout cannot get in."""
    pytest.importorskip("build", minversion="1.2")  # no folder of that name
    source = tmp_path_factory.mktemp("source")
    for name in IN_THE_SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    isolation = ["--no-isolation"] if has_setuptools() else []
    both = ["--wheel", "--sdist"]
    python("-m", "build", *both, *isolation, "--outdir", "made", ".", path=source / "none", cwd=source)
    return source / "made"


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    """The wheel."""
    (wheel,) = distributions.glob("*.whl")
    return wheel


def has_setuptools() -> bool:
    """Whether the setuptools that pyproject.toml asks for is installed here."""
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", "."]
    python(*install, str(wheel), path=folder, cwd=folder)
    return folder


def test_wheel_holds_the_data_and_the_licences(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert {f"cnn/data/published/mnist/{name}-ubyte.gz" for name in MNIST} <= names
        assert {f"cnn/demo/static/page.{suffix}" for suffix in ("html", "css", "js")} <= names
        assert {f"cnn/runs/recipes/{name}.toml" for name in recipes.NAMES} <= names
        for name in ("LICENSE", "NOTICE"):
            (inside,) = [path for path in names if path.endswith(f".dist-info/licenses/{name}")]
            assert archive.read(inside) == (ROOT / name).read_bytes()


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("backends", "cnn")
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules
    assert {name for name in inside if name.endswith(".py")} == modules
    assert {name.split("/")[0] for name in inside} == {"backends", "cnn"}


def test_the_source_distribution_holds_the_tests_and_what_they_need(distributions: Path) -> None:
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        path.relative_to(ROOT).as_posix()
        for name in IN_THE_SOURCE
        for path in (ROOT / name, *(ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "tests/conftest.py" in needed
    assert needed <= inside
    assert not [name for name in inside if name.endswith((".pyc", ".nbc", ".nbi"))]


def test_installed_package_trains(installed: Path, tmp_path: Path) -> None:
    where = python(
        "-c", "import backends, cnn; print(backends.__file__, cnn.__file__)", path=installed, cwd=tmp_path
    )
    assert where.stdout.split() == [str(installed / name / "__init__.py") for name in ("backends", "cnn")]
    flags = ["--model", "lenet5", "--per-class", "20", "--epochs", "1", "--out", "run"]
    python("-m", "cnn", "train", *flags, path=installed, cwd=tmp_path)
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "metrics.csv", "model.safetensors", "environment.json"} <= made


def test_the_package_works_from_a_zip(wheel: Path, installed: Path, tmp_path: Path) -> None:
    code = """
import cnn, cnn.runs.report.page
from backends.cuda.launch import sources
assert ".whl" in cnn.__file__, cnn.__file__
print(len(cnn.data.load("mnist")[1]), all(source.count("__global__") > 0 for source in sources().values()))
from cnn.runs.report import page
print(page.files("cnn.runs.report").joinpath("page.html").read_text("utf-8").count("<html") > 0)
from cnn.demo import server
print(server.files("cnn.demo").joinpath("static").joinpath("page.html").read_text("utf-8").count("<html") > 0)
try:
    from backends.cpu.compiled import kernel_cache, products
    print(kernel_cache.stamp(products.__name__).hex())
except ImportError:  # there is no Numba
    print()
"""
    found = python("-c", code, path=wheel, cwd=tmp_path).stdout.split("\n")
    assert found[:3] == ["10000 True", "True", "True"]
    code = (
        "from backends.cpu.compiled.kernel_cache import stamp\n"
        "from backends.cpu.compiled import products; print(stamp(products.__name__).hex())"
    )
    if found[3]:  # the kernels are the same code wherever it is, so they are cached together
        assert found[3] == python("-c", code, path=installed, cwd=tmp_path).stdout.strip()


def test_command_is_installed(installed: Path, tmp_path: Path) -> None:
    assert "train" in python(str(installed / "bin" / "cnn"), "--help", path=installed, cwd=tmp_path).stdout
    assert "train" in python("-m", "cnn", "--help", path=installed, cwd=tmp_path).stdout


def test_import_loads_nothing_that_it_may_not_need(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").touch()  # there to be imported, with or without a GPU
    late = "{'cupy', 'scipy.signal', 'rich'}"
    code = f"import cnn, sys; print('cnn' in sys.modules, {late} & set(sys.modules))"
    assert python("-c", code, path=tmp_path, cwd=ROOT).stdout == "True set()\n"
