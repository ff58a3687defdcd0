"""The lowest versions that pyproject.toml allows, which ``make test-minimums`` installs."""

import re
from importlib.util import module_from_spec, spec_from_file_location

from helpers import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

SCRIPT = ROOT / "scripts" / "minimums.py"
SPEC = spec_from_file_location("minimums", SCRIPT)
minimums = module_from_spec(SPEC)
SPEC.loader.exec_module(minimums)


def test_each_requirement_gives_its_lowest_version():
    lines = ["numpy>=2.0", "numba>=0.61; python_version < '3.15'", "onnx==1.23.*", "rich<20,>=13.7"]
    found = minimums.lowest(lines)
    assert found == {"numpy": Version("2.0"), "numba": Version("0.61"), "rich": Version("13.7")}


def test_every_dependency_has_a_floor_and_all_floors_are_installed():
    table = minimums.project()
    pinned = minimums.constraints(table)
    assert {Requirement(line).name for line in table["dependencies"]} | {"onnx", *minimums.TOOLS} == set(
        pinned
    )


def test_floors_that_were_found_by_trial_stay():
    pinned = minimums.constraints(minimums.project())
    assert pinned["typer"] >= Version("0.15.4")  # before, --help fails with click 8.2 and later


def test_the_core_is_there():
    assert [path for path in minimums.CORE if not (SCRIPT.parent.parent / path).exists()] == []


def test_the_declared_python_is_the_makefiles():
    (oldest,) = re.findall(r">=(\S+)", minimums.project()["requires-python"])
    assert f"make test-minimums PYTHON=python{oldest}" in minimums.__doc__
