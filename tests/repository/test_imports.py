"""The floors of the two packages: imports run down, never in a circle, and never through the face ``cnn``."""

import ast
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import pytest
from helpers import ROOT

FLOORS = [
    {"cnn", "cnn.__main__"},
    {"cnn.cli"},
    {"cnn.demo"},
    {"cnn.selftest"},
    {"cnn.comparison"},
    {"cnn.runs"},
    {"cnn.sklearn"},
    {"cnn.inspection"},
    {"cnn.training"},
    {"cnn.saving", "cnn.models"},
    {"cnn.network"},
    {"cnn.data"},
    {"cnn.layers"},
    {"cnn.support"},
    {"backends"},
]
"""From the top down."""

ALLOWED = {
    ("cnn.network", "cnn.inspection.summary"): "Network.summary is there for the user's convenience",
    (
        "cnn.training.preparation",
        "cnn.inspection.memory",
    ): "if memory runs out, the error names a batch size that fits",
    ("backends.backend", "backends.registry"): "a pickled device is looked up by its name",
}
"""Imports inside of functions that reach up or close a circle, each with its reason."""


@dataclass(frozen=True)
class Import:
    """A module imports another one; ``deferred`` if a function does it when it is called."""

    importer: str
    imported: str
    deferred: bool

    @property
    def way(self):
        return self.importer, self.imported


def names_of_modules():
    """{name: file} of all modules of the two packages."""
    files = [path for package in ("backends", "cnn") for path in (ROOT / package).rglob("*.py")]
    dotted = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    return {name.removesuffix(".__init__"): path for path, name in dotted.items()}


MODULES = names_of_modules()


def imports_of(importer, source):
    """Every import of the two packages, those under ``if TYPE_CHECKING`` and inside of functions too."""

    def found(node, deferred):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(importer, alias.name, deferred) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{importer} has a relative import"
                for alias in child.names:
                    name = f"{child.module}.{alias.name}"
                    yield Import(importer, name if name in MODULES else child.module, deferred)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from found(child, deferred or function)

    return [
        each for each in found(ast.parse(source), False) if each.imported.split(".")[0] in ("backends", "cnn")
    ]


IMPORTS = [each for name, path in MODULES.items() for each in imports_of(name, path.read_text("utf-8"))]


def floor(module):
    """How far from the top the module is."""
    parts = module.split(".")
    names = {module, parts[0] if parts[0] == "backends" else ".".join(parts[:2])}
    (found,) = (number for number, floor in enumerate(FLOORS) if names & floor)
    return found


def test_every_folder_is_on_a_floor_and_every_floor_is_there():
    assert {floor(name) for name in MODULES} == set(range(len(FLOORS)))


def test_imports_run_down():
    up = [each for each in IMPORTS if floor(each.imported) < floor(each.importer)]
    assert [each for each in up if each.way not in ALLOWED] == []


def test_what_is_allowed_is_there_and_happens_inside_of_functions():
    assert {each.way for each in IMPORTS if each.deferred} >= ALLOWED.keys()
    assert [each for each in IMPORTS if each.way in ALLOWED and not each.deferred] == []


def test_no_module_inside_imports_the_face():
    assert [each.importer for each in IMPORTS if each.imported == "cnn"] == []


def circle(imports):
    """Modules that import each other in a circle; None if there are none."""
    graph = {}
    for each in imports:
        graph.setdefault(each.importer, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_modules_import_each_other_in_a_circle():
    assert circle(each for each in IMPORTS if each.way not in ALLOWED) is None


@pytest.mark.parametrize(
    ("source", "imported", "deferred"),
    [
        ("import cnn", "cnn", False),
        ("import cnn.cli.app", "cnn.cli.app", False),
        ("from cnn import fit, models", "cnn", False),
        ("from cnn.layers import Dense", "cnn.layers", False),
        ("from cnn.layers import dense", "cnn.layers.dense", False),
        ("if TYPE_CHECKING:\n    from cnn.cli import app", "cnn.cli.app", False),
        ("class A:\n    def f(self):\n        import cnn.cli", "cnn.cli", True),
    ],
)
def test_an_import_is_found(source, imported, deferred):
    assert imports_of("cnn.support.text", source)[0] == Import("cnn.support.text", imported, deferred)


def test_a_circle_is_found():
    assert circle([Import("a", "b", False), Import("b", "c", False), Import("c", "a", False)]) is not None
    assert circle([Import("a", "b", False), Import("a", "c", False), Import("b", "c", False)]) is None
