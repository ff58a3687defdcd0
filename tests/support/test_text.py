"""Names as people read them."""
# ruff: noqa: RUF001 - letters of other scripts are what this is about

import pytest

from cnn.support.text import is_printable, labels, printable, text_width

NAMES = {
    "Persian": "می\u200cخواهم",
    "a family": "👨\u200d👩\u200d👧",
    "a flag": "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "wide": "日本\u3000語",
    "an accent of its own": "cafe\u0301",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_of_all_scripts_are_printable(name):
    assert is_printable(name)
    assert printable(name) == name


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\u202eb", "a\u2066b", "\ud800"])
def test_what_controls_a_terminal_is_not(name):
    assert not is_printable(name)
    assert "\N{REPLACEMENT CHARACTER}" in printable(name)


def test_the_width_is_that_on_a_terminal():
    assert [text_width(text) for text in ("abc", "日本", "cafe\u0301", "می\u200cخ", "")] == [3, 4, 4, 3, 0]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cat", "a long name"], ["cat", "a long…"]),
        (["a name 1", "a name 2"], ["a n…e 1", "a n…e 2"]),
        (["abcdefg-1-x", "abcdefg-2-x"], ["abc…1-x", "abc…2-x"]),
        (["hippo-1-potamus", "hippo-2-potamus"], ["#0", "#1"]),
        (["日本語の名前", "日本語"], ["日本語…", "日本語"]),
        (["abcdef", "abcdef\u0301gh"], ["abcdef", "abcdef\u0301…"]),
    ],
)
def test_long_names_keep_what_tells_them_apart(names, shown):
    assert labels(names, 7) == shown


@pytest.mark.parametrize("width", [1, 2, 8, 20])
def test_labels_are_narrow_and_different(width):
    names = [*(f"the same beginning {number}" for number in range(200)), *NAMES.values()]
    shown = labels(names, width)
    assert len(set(shown)) == len(names)
    assert all(text_width(label) <= max(width, 4) for label in shown)
