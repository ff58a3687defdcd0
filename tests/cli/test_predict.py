"""`cnn predict` as its user meets it: bars, JSON, folders, pictures that cannot be read."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers.small_run import SMALL

import backends
import cnn
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog

pytest.importorskip("PIL")
from PIL import Image, ImageDraw


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a LeNet-5 that has seen a part of MNIST."""
    train, test = (part.only(per_class=300) for part in cnn.data.load("mnist"))
    config = Config(model="lenet5", epochs=2, batch_size=64)
    network = build.make_network(config, train.shape, 10, backends.get("cpu"))
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "digits")
    log = RunLog(folder, config, train.classes)
    cnn.fit(
        network, train, test, optimizer=cnn.SGD(0.05, momentum=0.9), epochs=2, batch_size=64, callbacks=[log]
    )
    return folder.path


@pytest.fixture
def seven(tmp_path):
    """A 7 in dark blue on white, far from the middle of a large picture."""
    picture = Image.new("RGB", (600, 400), "white")
    draw = ImageDraw.Draw(picture)
    draw.line([(200, 60), (380, 60), (260, 340)], fill=(30, 30, 90), width=26, joint="curve")
    picture.save(tmp_path / "seven.png")
    return tmp_path / "seven.png"


def test_the_top_classes_as_bars(command, run, seven):
    code, out, err = command("predict", run, "seven.png")
    assert (code, err) == (0, "")
    name, *bars = out.splitlines()
    assert name == "seven.png"
    assert len(bars) == 3
    assert re.fullmatch(r"  7 +\d+\.\d\d% [█#]+", bars[0])
    assert len(command("predict", run, "seven.png", "--top", 10)[1].splitlines()) == 11


def test_for_programs(command, run, seven):
    code, out, _ = command("predict", run, "seven.png", "--json")
    (answer,) = json.loads(out)
    assert code == 0
    assert set(answer) == {"file", "class", "probabilities"}
    assert (answer["file"], answer["class"]) == ("seven.png", "7")
    assert list(answer["probabilities"]) == list("0123456789")
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert max(answer["probabilities"], key=answer["probabilities"].get) == "7"


def test_the_prepared_image_on_request(command, run, seven):
    _, out, _ = command("predict", run, "seven.png", "--show")
    drawn = out.splitlines()[1:29]
    assert max(map(len, drawn)) <= 2 + 2 * 28
    assert "@@" in "".join(drawn)
    _, out, _ = command("predict", run, "seven.png", "--show", "--json")
    image = np.array(json.loads(out)[0]["image"])
    assert image.shape == (1, 28, 28)
    for line, row in zip(drawn, image[0], strict=True):
        assert ("@" in line) == (row.max() >= 230)


def test_folders_and_files_in_their_order(command, run, seven, tmp_path):
    (tmp_path / "scans").mkdir()
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / "scans" / name).write_bytes(seven.read_bytes())
    code, out, err = command("predict", run, "seven.png", "scans", "seven.png", "--json")
    assert code == 0, err
    files = [answer["file"] for answer in json.loads(out)]
    assert files == ["seven.png", "scans/a.jpg", "scans/b.png", "seven.png"]


def test_what_cannot_be_read_is_named_and_the_others_go_on(command, run, seven, tmp_path):
    (tmp_path / "broken.png").write_bytes(seven.read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    Image.new("L", (50, 50), 255).save(tmp_path / "white.png")
    names = ("broken.png", "nowhere.png", "empty", "white.png", "seven.png")
    code, out, err = command("predict", run, *names, "--json")
    assert code == 1
    assert [answer["class"] for answer in json.loads(out)] == ["7"]
    sentences = err.splitlines()
    assert len(sentences) == 4
    for name, sentence in zip(names, sentences, strict=False):
        assert sentence.startswith(f"error: {name}: ")
    assert "shows nothing" in sentences[3]


def test_where_none_can_be_read_the_answer_is_empty(command, run):
    code, out, err = command("predict", run, "nowhere.png", "--json")
    assert (code, json.loads(out)) == (1, [])
    assert err.count("\n") == 1


def test_a_hostile_file_name_stays_a_name(command, run, seven, tmp_path):
    name = "[red]\x1b[2Jx\n.png"
    seven.rename(tmp_path / name)
    code, out, _ = command("predict", run, name)
    assert code == 0
    assert "\x1b" not in out
    assert out.splitlines()[0].startswith("[red]")
    _, out, _ = command("predict", run, name, "--json")
    assert json.loads(out)[0]["file"] == name


def test_where_blocks_cannot_be_shown_there_are_others(command, run, seven, monkeypatch):
    monkeypatch.setattr(
        "cnn.cli.predict.sys", type("ascii", (), {"stdout": type("o", (), {"encoding": "ascii"})})
    )
    _, out, _ = command("predict", run, "seven.png")
    assert "###" in out
    assert out.isascii()


def test_a_hostile_file_name_stays_a_name_in_an_error(command, run):
    code, out, err = command("predict", run, "[red]\x1b[2Jx\n.png")
    assert (code, out) == (1, "")
    assert "\x1b" not in err
    assert err.startswith("error: [red]")
    assert err.count("\n") == 1


def test_a_narrow_terminal_is_enough(command, run, seven, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    _, out, _ = command("predict", run, "seven.png", "--show")
    assert "@@" in out
    assert max(map(len, out.splitlines())) <= 30


def test_a_network_of_other_images_gets_the_whole_picture(command, own_data, seven, tmp_path):
    assert command("train", *SMALL, "--data", own_data, "--out", "own")[0] == 0
    _, out, _ = command("predict", "own", "seven.png", "--show", "--json")
    image = np.array(json.loads(out)[0]["image"])
    assert image.shape == (1, 20, 20)
    assert image[0, 0, 0] == 255  # the paper stays white: nothing is turned around or cut out
    code, out, _ = command("predict", "own", "seven.png", "--show", "--json", "--prepare", "digit")
    assert code == 0
    assert np.array(json.loads(out)[0]["image"])[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "seven.png"), "not the folder of a run"),
        (("run", "seven.png", "--fit", "magic"), "fit is 'magic', expected stretch, crop, letterbox, digit"),
        (("run", "seven.png", "--top", 0), "top is 0, expected a whole number of at least 1"),
        (("run", "seven.png", "--device", "gpu"), "unknown device 'gpu'"),
    ],
)
def test_mistakes_are_one_sentence(command, run, seven, arguments, message):
    given = [run if argument == "run" else argument for argument in arguments]
    code, out, err = command("predict", *given)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_weights_that_give_no_numbers_are_named(command, run, seven, tmp_path):
    network = cnn.load(run / "model.safetensors", device="cpu")
    network.flat.value[...] = 1e38  # the products overflow
    broken = shutil.copytree(run, tmp_path / "broken")
    network.save(broken / "model.safetensors")
    code, out, err = command("predict", "broken", "seven.png", "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: broken: its weights give NaN")
