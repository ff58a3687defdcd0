"""What README.md shows is true: its Python runs, its commands and flags exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import cnn
from cnn.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = "".join(re.findall(r"```\n(.*?)```", README, re.DOTALL))


@pytest.mark.parametrize("block", PYTHON, ids=["the library", "the backend alone"])
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
    lines = [line for line in SHELL.splitlines() if line.startswith(".venv/bin/cnn ")]
    assert len(lines) > 4
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)[1:]
        known = {flag for parameter in commands[name].params for flag in parameter.opts} | {"--help"}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, line


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", SHELL)) | set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"train", "test", "test-gpu"} <= named <= targets


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)
