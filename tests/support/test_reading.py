"""Files of text as editors on all systems leave them."""

import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE

import pytest

from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.support.reading import decoded, read_text

TEXT = 'model = "notebook"\r\nepochs = 7  # größer, 更多\n'
READ = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16, little end first": BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16, big end first": BOM_UTF16_BE + TEXT.encode("utf-16-be"),
}
WITHOUT_MARK = "UTF-16 without a byte order mark: save it as UTF-8"
REFUSED = {
    "UTF-16 without a mark, little end first": (TEXT.encode("utf-16-le"), WITHOUT_MARK),
    "UTF-16 without a mark, big end first": (
        "epochs = 7".encode("utf-16-be"),
        "UTF-16 without a byte order mark",
    ),
    "UTF-16 that is cut": (BOM_UTF16_LE + b"ab\x00", "begins like UTF-16"),
    "UTF-32": (TEXT.encode("utf-32"), "UTF-32"),
    "Latin-1": (
        "epochs = 7  # größer".encode("latin-1"),
        "byte 16 is 0xf6, as in Latin-1.*save it",
    ),
    "NUL": (b"epochs = 7\0\n", "character 10 is NUL"),
}


@pytest.mark.parametrize("kind", READ)
def test_text_is_read_without_its_mark(tmp_path, kind):
    (tmp_path / "file").write_bytes(READ[kind])
    assert read_text(tmp_path / "file") == TEXT


@pytest.mark.parametrize("kind", REFUSED)
def test_other_text_is_named_for_what_it_is(kind):
    data, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        decoded(data)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", BOM_UTF16_LE])
def test_a_file_may_be_empty(data):
    assert decoded(data) == ""


@pytest.mark.parametrize("kind", READ)
def test_flags_are_read(command, own_data, tmp_path, kind):
    (tmp_path / "flags.toml").write_bytes(READ[kind])
    code, out, err = command(
        "train", "--config", "flags.toml", "--data", own_data, "--kernels", "portable", "--dry-run", "--json"
    )
    assert (code, err) == (0, "")
    config = json.loads(out)["config"]
    assert (config["model"], config["epochs"]) == ("notebook", 7)


@pytest.mark.parametrize("kind", REFUSED)
def test_flags_that_cannot_be_read_are_named(command, tmp_path, kind):
    (tmp_path / "flags.toml").write_bytes(REFUSED[kind][0])
    code, out, err = command("train", "--config", "flags.toml", "--dry-run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: flags.toml is no TOML (")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_run_whose_config_was_edited_is_read(tmp_path, encoding):
    values = {**vars(Config()), "input_shape": (1, 8, 8), "class_names": ("a", "b")}
    (tmp_path / "config.json").write_bytes(json.dumps(values).encode(encoding))
    assert RunFolder(tmp_path).read() == (Config(), (1, 8, 8), ("a", "b"))


@pytest.mark.parametrize(
    ("name", "example"), [("flags.toml", "lines such as epochs = 5"), ("flags.json", '{"epochs": 5}')]
)
def test_an_example_is_of_the_kind_of_file(command, tmp_path, name, example):
    (tmp_path / name).write_text("epochs")
    code, _, err = command("train", "--config", name, "--dry-run")
    assert (code, err.endswith(f"expected {example}\n")) == (2, True)
