"""Runs to report on."""

import shutil

import pytest
from helpers.small_run import make_run

from cnn.runs.folder import RunFolder
from cnn.runs.report import examine


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(Folder, network, test set) of a whole run, to be left as it is."""
    folder, network, test_set = make_run(tmp_path_factory.mktemp("runs") / "first & only")
    examine(network, test_set, 30).save(folder.evaluation)
    return folder, network, test_set


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run's folder, elsewhere."""
    return RunFolder(shutil.copytree(finished[0].path, tmp_path / "copy"))
