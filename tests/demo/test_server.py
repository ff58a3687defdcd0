"""The server of `cnn demo`: who is answered, what is refused in a sentence, what the answers say."""

import http.client
import io
import json
import socket
import struct
import zlib
from base64 import b64decode
from urllib.parse import quote

import numpy as np
import pytest
from helpers.served_page import served

import backends
import cnn
from cnn.demo import Sent, Viewer, server
from cnn.demo.drawing import BY
from cnn.support.errors import ShapeError

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def page(grey):
    with served(grey) as running:
        yield running


def ask(page, method, path, body=None, token=None, **headers):
    """(status, headers, body) of a request under the token."""
    connection = http.client.HTTPConnection("127.0.0.1", page.server_port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/{page.token if token is None else token}/{path}", body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def told(page, *arguments, **headers):
    """(status, answer) of a request that is answered in JSON."""
    status, _, body = ask(page, *arguments, **headers)
    return status, json.loads(body)


def as_file(picture, kind="PNG", **options):
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def pixels(src):
    """The picture in a data: address."""
    head, _, data = src.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(b64decode(data))))


def drawn():
    """A drawing with a stroke in it."""
    picture = Image.new("RGB", (320, 256), "black")
    picture.paste("white", (100, 30, 130, 220))
    return as_file(picture)


def test_it_listens_on_this_machine_alone(page):
    assert page.socket.getsockname()[0] == "127.0.0.1"
    assert page.address == f"http://127.0.0.1:{page.server_port}/{page.token}/"
    assert len(page.token) >= 32


@pytest.mark.parametrize(
    ("path", "kind"), [("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")]
)
def test_the_files_of_the_page(page, path, kind):
    status, headers, body = ask(page, "GET", path)
    assert status == 200
    assert headers["Content-Type"].startswith(kind)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert b"http://" not in body  # nothing comes from elsewhere
    assert b"https://" not in body


def test_the_page_has_no_script_or_style_inside(page):
    html = ask(page, "GET", "")[2].decode()
    assert html.count("<script") == html.count('<script src="page.js" defer></script>') == 1
    assert "<style" not in html
    assert " style=" not in html
    assert " on" not in {word[:3] for word in html.split("<") if "=" in word[:3]}
    script = ask(page, "GET", "page.js")[2].decode()
    assert "innerHTML" not in script
    assert "eval" not in script


@pytest.mark.parametrize("token", ["", "x", "x" * 32, "\u00e9", ".."])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "about"), ("POST", "look?drawn=1")])
def test_without_the_token_nothing_is_told(page, token, method, path):
    body = drawn() if method == "POST" else None
    status, answer = told(page, method, path, body, quote(token))
    assert status == 403
    assert set(answer) == {"error"}


def test_the_token_must_be_followed_by_a_slash(page):
    connection = http.client.HTTPConnection("127.0.0.1", page.server_port, timeout=60)
    connection.request("GET", f"/{page.token}")
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "evil.example:{port}", "127.0.0.1.evil:{port}", ""]
)
def test_a_name_elsewhere_that_leads_here_is_refused(page, host):
    assert ask(page, "GET", "", Host=host.format(port=page.server_port))[0] == 403


def test_a_page_elsewhere_is_refused(page):
    assert ask(page, "POST", "look?drawn=1", drawn(), Origin="http://evil.example")[0] == 403
    assert ask(page, "POST", "look?drawn=1", drawn(), Origin="null")[0] == 403
    own = f"http://127.0.0.1:{page.server_port}"
    assert ask(page, "POST", "look?drawn=1", drawn(), Origin=own)[0] == 200
    assert ask(page, "GET", "about", Host="localhost:8000")[0] == 200  # through a tunnel


@pytest.mark.parametrize(
    "path", ["page.html", "static/page.html", "../server.py", "%2e%2e/server.py", "look/", "x"]
)
def test_an_address_where_nothing_is(page, path):
    assert told(page, "GET", path)[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "look"), ("POST", "about"), ("POST", ""), ("PUT", "look"), ("DELETE", ""), ("OPTIONS", "look")],
)
def test_a_method_that_does_not_fit(page, method, path):
    status, answer = told(page, method, path)
    assert status == 405
    assert method in answer["error"]


def test_what_is_no_request_is_answered_too(page):
    for request in (
        b"nonsense\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", page.server_port), timeout=60) as connection:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            assert b'"error"' in answer


def test_a_drawing(page):
    status, answer = told(page, "POST", "look?drawn=1&name=drawing", drawn())
    assert (status, answer["message"], answer["truth"]) == (200, "", "")
    assert len(answer["top"]) == 5
    assert answer["others"] == 2
    shares = [each["share"] for each in answer["top"]]
    assert shares == sorted(shares, reverse=True)
    assert pixels(answer["input"]["src"]).shape == (20, 16)
    assert answer["input"]["caption"].startswith(f"1{BY}20{BY}16, values from 0 to 255")
    assert [each["title"] for each in answer["layers"]] == [
        "0 Conv2D", "1 BatchNorm2D", "2 ReLU", "3 MaxPool2D", "5 Dense"
    ]  # fmt: skip
    assert answer["layers"][0]["caption"].startswith(f"3 channels of 18{BY}14, from ")
    assert answer["layers"][4]["caption"].startswith("7 numbers, from ")
    assert all(pixels(each["src"]).size for each in answer["layers"])


@pytest.mark.parametrize("what", ["look", "saliency", "occlusion"])
@pytest.mark.parametrize("colour", ["black", "white", (0, 0, 0, 0)])
def test_nothing_is_drawn_on_an_empty_canvas(page, what, colour):
    empty = as_file(Image.new("RGBA", (320, 256), colour))
    assert told(page, "POST", f"{what}?drawn=1&name=drawing", empty) == (200, {"message": "nothing drawn"})
    assert told(page, "POST", f"{what}?name=file.png", empty)[1]["message"] == ""  # as cnn predict


@pytest.mark.parametrize("what", ["saliency", "occlusion"])
def test_why_this_class(page, what, grey):
    status, answer = told(page, "POST", f"{what}?drawn=1", drawn())
    assert (status, answer["message"]) == (200, "")
    assert pixels(answer["src"]).shape == (20, 16)
    top = told(page, "POST", "look?drawn=1", drawn())[1]["top"][0]["name"]
    assert f"of {top} " in answer["caption"]


def test_filters(page):
    (layer,) = told(page, "GET", "filters")[1]["layers"]
    assert layer["title"] == "0 Conv2D"
    assert layer["caption"].startswith(f"3 filters of 3{BY}3, weights from ")


def test_what_the_page_is_about(page, grey):
    about = told(page, "GET", "about")[1]
    assert about["title"] == "<b>grey</b>"  # the page shows it as text
    assert (about["height"], about["width"], about["colour"], about["dark"]) == (20, 16, False, True)
    assert (about["tests"], about["without"]) == (12, "")
    assert about["most"] == server.MOST_BYTES


def test_a_test_image_is_what_the_network_was_tested_on(page, grey):
    for number in (0, 11):
        status, answer = told(page, "POST", f"look?test={number}")
        assert status == 200
        np.testing.assert_array_equal(pixels(answer["input"]["src"]), grey.tests.images[number, 0])
        assert answer["truth"] == grey.class_names[grey.tests.labels[number]]
        expected = grey.network.predict(grey.tests.images[number : number + 1])[0].max()
        assert answer["top"][0]["share"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("number", ["12", "-1", "x", "1e3", "9" * 30, "\u0663", "1\0"])
def test_a_test_image_that_there_is_not(page, number):
    status, answer = told(page, "POST", f"look?test={quote(number)}")
    assert status in (400, 422)
    assert "test is" in answer["error"]


def bomb():
    """A PNG that says it has 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.png", b"", "a.png: "),
        ("a.png", b"<html>", "web page"),
        ("a.png", drawn()[:300], "cannot be read"),
        ("a.png", bomb(), "too large"),
        ("photo.cr2", drawn(), "photo.cr2"),
        ("a%2Fb%0Ac%3Cb%3E.png", b"x", "a_b"),
    ],
)
def test_a_picture_that_cannot_be_read_is_answered_in_a_sentence(page, name, data, said):
    status, answer = told(page, "POST", f"look?name={name}", data)
    assert status == 422
    assert said in answer["error"]
    assert "\n" not in answer["error"]
    assert told(page, "POST", "look?drawn=1", drawn())[0] == 200  # and it goes on


def test_a_picture_that_is_too_large_is_not_read_into_memory(page, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 10_000)
    status, answer = told(page, "POST", "look?name=large.png", bytes(10_001))
    assert status == 413
    assert "expected at most 10,000" in answer["error"]


@pytest.mark.parametrize("length", [None, "-1", "x", "1_0", "\u00b2", "9" * 30])
def test_a_length_that_is_none(page, length):
    lines = [f"POST /{page.token}/look HTTP/1.1", f"Host: 127.0.0.1:{page.server_port}"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    with socket.create_connection(("127.0.0.1", page.server_port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        assert connection.recv(4096).split(b"\r\n")[0].split()[1] == b"411"


def test_a_browser_that_leaves_is_no_error(page, capfd):
    for sent in (b"", b"POST", f"POST /{page.token}/look HTTP/1.1\r\nContent-Length: 99\r\n".encode()):
        with socket.create_connection(("127.0.0.1", page.server_port), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(sent)
    assert told(page, "GET", "about")[0] == 200
    assert capfd.readouterr().err == ""


def test_many_ask_at_once(page):
    """Requests wait for each other at the network, so that none sees another one's buffers."""
    import concurrent.futures

    asked = [f"look?test={number}" for number in range(12)] * 3
    alone = [told(page, "POST", path)[1] for path in asked[:12]]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: told(page, "POST", path)[1], asked))
    assert together == alone * 3


def test_a_request_under_way_when_it_is_stopped_is_no_error(grey, capfd):
    with served(grey) as running:
        running.server_close()
        with pytest.raises(server.Refused, match="stopped"):
            running.compute(grey.about)
    assert capfd.readouterr().err == ""


def test_a_network_that_shows_no_pictures_is_refused():
    vector = cnn.Sequential(cnn.Dense(3))
    vector.build((5,), backend="cpu")
    deep = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    deep.build((2, 4, 4), backend="cpu")
    for network in (vector, deep):
        with pytest.raises(ShapeError, match="expected images"):
            Viewer(network, ("a", "b", "c"), "x", "none")
    pictures = cnn.Sequential(cnn.Conv2D(3, 1))
    pictures.build((1, 4, 4), backend="cpu")
    with pytest.raises(ShapeError, match="expected a number for each of 2 classes"):
        Viewer(pictures, ("a", "b"), "x", "none")


def test_without_test_images_it_says_why(grey):
    viewer = Viewer(grey.network, grey.class_names, "x", "there are no test images: they were moved")
    assert viewer.about()["tests"] == 0
    assert viewer.about()["without"] == "there are no test images: they were moved"
    with pytest.raises(ValueError, match="they were moved"):
        viewer.look(0)


def test_a_thousand_classes_and_wide_layers():
    network = cnn.Sequential(cnn.Conv2D(80, 3), cnn.Conv2D(5, 3), cnn.Flatten(), cnn.Dense(1000))
    network.build((3, 10, 12), backend=backends.get("cpu"))
    viewer = Viewer(network, [f"class {number}" for number in range(1000)], "wide", "none")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    answer = viewer.look(Sent("a.png", as_file(picture)))
    assert len(answer["top"]) == 5
    assert answer["others"] == 995
    assert answer["layers"][0]["caption"].startswith(f"the first 32 of 80 channels of 8{BY}10, from")
    assert answer["layers"][2]["caption"].startswith("the first 512 of 1,000 numbers, from")
    first, second = viewer.filters()["layers"]
    assert "the first 32 filters, weights" in first["caption"]
    assert first["caption"].endswith("as colours")
    assert f"5 filters of 3{BY}3 in 80 channels" in second["caption"]
    assert "the first 5 filters and 8 channels" in second["caption"]
