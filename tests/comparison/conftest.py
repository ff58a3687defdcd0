"""Nothing is timed in tests, so nothing needs to fall asleep first."""

import pytest

from cnn.comparison import measure


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(measure, "PAUSE", 0)
