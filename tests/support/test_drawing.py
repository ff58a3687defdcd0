"""How lines in a picture differ."""

from itertools import pairwise

import pytest

pytest.importorskip("matplotlib")

from cnn.support.drawing import line_look


def test_many_lines_look_different():
    looks = [tuple(line_look(number).values()) for number in range(25)]
    assert len(set(looks)) == 25
    assert all(one[0] != other[0] for one, other in pairwise(looks))
