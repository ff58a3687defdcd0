"""`cnn demo` as its user meets it: the address, the browser, Ctrl-C, and the same images as `cnn predict`."""

import http.client
import io
import json
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from helpers import ROOT

import backends
import cnn
from cnn.demo import Server
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder

pytest.importorskip("matplotlib")
Image, ImageDraw = (pytest.importorskip(f"PIL.{name}") for name in ("Image", "ImageDraw"))

FORMATS = ["png", "jpg", "webp", "bmp", "tif", "gif"]
MODES = {"png": ["L", "RGBA", "P", "I;16", "LA"], "jpg": ["RGB", "CMYK"], "tif": ["RGB", "CMYK", "I;16"]}
SHAPES = {"digit": (1, 28, 28), "crop": (3, 20, 30), "letterbox": (1, 24, 20), "stretch": (3, 16, 16)}


def saved(path, fit):
    """A network that fits pictures so, in a file of its own."""
    shape = SHAPES[fit]
    network = cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(4))
    network.build(shape, backend="cpu")
    network.preprocessing = cnn.Preprocessing.none(shape[0], fit)
    network.save(path)
    return path


@pytest.fixture
def model(tmp_path):
    return saved(tmp_path / "model.safetensors", "stretch")


@pytest.fixture
def stopped(monkeypatch):
    """The server stops at once as if Ctrl-C had been pressed; -> the addresses that a browser was given."""
    opened = []

    def serve(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    return opened


def test_it_prints_the_address_and_ends_without_a_traceback(command, model, stopped):
    code, out, err = command("demo", model, "--no-browser")
    assert code == 0
    assert urlsplit(out.strip()).hostname == "127.0.0.1"
    assert err.splitlines() == ["the page is served at this address until you press Ctrl-C", "stopped"]
    assert stopped == []


def test_the_browser_is_opened_at_the_address(command, model, stopped, monkeypatch):
    opened = threading.Event()

    def serve(self, *arguments):
        assert opened.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)
    monkeypatch.setattr("webbrowser.open", lambda address: [stopped.append(address), opened.set()])
    address = json.loads(command("demo", model, "--json")[1])["address"]
    assert stopped == [address]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a screen")
def test_without_a_screen_no_browser_takes_over_the_terminal(command, model, stopped, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert command("demo", model)[0] == 0
    assert stopped == []


def test_what_is_no_run_is_answered_in_a_sentence(command, tmp_path):
    (tmp_path / "folder").mkdir()
    for path in ("nowhere", "folder", "nowhere.safetensors"):
        code, out, err = command("demo", path)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert path in err
        assert err.count("\n") == 1


def test_ctrl_c_closes_it(model):
    command = [sys.executable, "-m", "cnn", "demo", str(model), "--no-browser", "--device", "cpu"]
    default = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command[1:3] = ["-c", f"{default}sys.argv[0] = 'cnn'; from cnn.cli import main; main()"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        address = process.stdout.readline().strip()
        with urlopen(f"{address}about", timeout=60) as answer:
            assert json.load(answer)["title"] == "model.safetensors"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err


@pytest.fixture
def about(command, stopped, monkeypatch):
    """``about(run)``: what the page of a run is about."""

    def call(*arguments):
        found = []

        def serve(server, *_):
            found.append(server.viewer.about())
            raise KeyboardInterrupt

        monkeypatch.setattr(Server, "serve_forever", serve)
        code, _, err = command("demo", *arguments, "--no-browser")
        assert code == 0, err
        return found[0]

    return call


def make_run(path, data):
    config = Config(model="notebook", data=str(data), epochs=1)
    network = build.make_network(config, (1, 20, 20), 2, backends.get("cpu"))
    folder = RunFolder(path)
    folder.start(config, network, ("dark", "bright"))
    network.save(folder.weights)
    return folder


def test_the_test_images_are_those_of_the_run(about, own_data, tmp_path):
    make_run(tmp_path / "run", own_data)
    assert about("run")["tests"] == 40


@pytest.mark.parametrize("data", ["gone.npz", "fashion-mnist"])
def test_if_the_data_are_not_here_the_page_says_so(about, tmp_path, monkeypatch, data):
    monkeypatch.setenv("CNN_DATA", str(tmp_path / "downloads"))
    monkeypatch.setattr("socket.create_connection", None)  # nothing is downloaded
    make_run(tmp_path / "run", data)
    found = about("run")
    assert found["tests"] == 0
    assert found["without"].startswith("there are no test images: ")
    assert data in found["without"]


def test_the_test_images_of_other_data(about, command, own_data, tmp_path):
    folder = make_run(tmp_path / "run", "gone.npz")
    assert about("run", "--data", own_data)["tests"] == 40
    network = cnn.load(folder.weights)
    network.save(tmp_path / "alone.safetensors", {"class_names": ["dark", "bright"]})
    assert about("alone.safetensors", "--data", own_data)["tests"] == 40
    code, _, err = command("demo", "run", "--data", "gone.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert "gone.npz" in err


def test_a_file_without_a_run_has_no_test_images(about, model):
    assert "does not name its data" in about(model)["without"]


def pictures(folder, seed):
    """25 pictures in several formats, modes, sizes and rotations, in which something is drawn."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(25):
        suffix = FORMATS[number % len(FORMATS)]
        modes = MODES.get(suffix, ["RGB"])
        mode = modes[number // len(FORMATS) % len(modes)]
        width, height = random.integers(40, 200, 2).tolist()
        picture = Image.new("RGB", (width, height), "white")
        points = [(x * width, y * height) for x, y in random.uniform(0.25, 0.75, (4, 2))]
        ImageDraw.Draw(picture).line(points, fill=(20, 30, 90), width=max(4, width // 15))
        if mode == "I;16":
            grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
            picture = Image.fromarray(grey)
        else:
            picture = picture.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = int(random.integers(1, 9))  # how the camera was held
        options = {"exif": exif} if suffix in ("jpg", "webp", "png", "tif") and mode != "I;16" else {}
        picture.save(folder / f"{number}.{suffix}", **options)
    return folder


@pytest.mark.parametrize("fit", SHAPES)
def test_the_page_shows_the_images_and_answers_of_predict(command, tmp_path, fit, monkeypatch):
    """100 pictures in all."""
    model, folder = saved(tmp_path / "model.safetensors", fit), pictures(tmp_path / "pictures", len(fit))
    code, out, err = command("predict", model, folder, "--json", "--show", "--device", "cpu")
    expected = json.loads(out)
    assert (code, len(expected)) == (0, 25), err
    shown = {}

    def serve(server, *_):
        thread = threading.Thread(target=lambda: super(Server, server).serve_forever(0.05))
        thread.start()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            for answer in expected:
                file = answer["file"]
                with open(file, "rb") as picture:
                    connection.request("POST", f"/{server.token}/look?name={file[-6:]}", picture.read())
                shown[file] = json.loads(connection.getresponse().read())
            connection.close()
        finally:
            server.shutdown()
            thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)
    assert command("demo", model, "--no-browser", "--device", "cpu")[0] == 0
    for answer in expected:
        found = shown[answer["file"]]
        src = found["input"]["src"].partition(",")[2]
        image = np.asarray(Image.open(io.BytesIO(b64decode(src)))).reshape(*SHAPES[fit][1:], -1)
        difference = np.moveaxis(image, -1, 0).astype(int) - np.array(answer["image"])
        assert np.abs(difference).max() <= 1, answer["file"]
        assert found["top"][0]["name"] == answer["class"]
        for each in found["top"]:
            assert each["share"] == pytest.approx(answer["probabilities"][each["name"]], abs=1e-5)
