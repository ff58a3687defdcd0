"""What README.md shows is true: its Python runs, its commands and flags exist."""

import re
import shlex

import pytest
from helpers import ROOT
from typer.main import get_command

import cnn
from cnn.cli import app

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
PYTHON = [block for language, block in BLOCKS if language == "python"]
SHELL = "".join(block for language, block in BLOCKS if not language)


@pytest.mark.parametrize(
    "block",
    PYTHON,
    ids=[
        "the library", "a residual network", "fine-tuning", "callbacks", "checks", "scikit-learn",
        "the backend alone",
    ],
)  # fmt: skip
def test_its_python_runs(block, monkeypatch, tmp_path, capsys):
    whole = cnn.data.load("mnist")
    few = tuple(part.only(per_class=20) for part in whole)
    monkeypatch.setattr(cnn.data, "load", lambda source: few)
    monkeypatch.setenv("CNN_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_its_commands_and_flags_exist():
    commands = get_command(app).commands
    lines = [line for line in SHELL.splitlines() if line.startswith("cnn ")]
    assert len(lines) > 4
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)[1:]
        known = {flag for parameter in commands[name].params for flag in parameter.opts} | {"--help"}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, line


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", SHELL)) | set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"train", "test", "test-gpu"} <= named <= targets


def test_the_files_to_read_are_as_short_as_it_says():
    part = README[README.index("## Reading the code") :]
    files = re.findall(r"\]\(((?:cnn|backends)/\S+\.py)\)", part)
    most = int(re.search(r"fewer than ([\d,]+) lines", part)[1].replace(",", ""))
    assert len(files) == 12
    assert "twelve files" in README
    assert sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files) < most


def test_it_begins_without_make():
    assert [line.split("  #")[0].strip() for line in SHELL.splitlines()[:4]] == [
        "python -m venv .venv", "source .venv/bin/activate", "pip install .", "cnn train"
    ]  # fmt: skip
    assert ".venv/bin/cnn" not in README


def test_no_package_is_named_that_is_not_published():
    named = [path for folder in ("cnn", "backends", "scripts") for path in (ROOT / folder).rglob("*.py")]
    for path in [*named, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        assert "xpcnn[" not in path.read_text(encoding="utf-8"), path


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)
