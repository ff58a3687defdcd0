"""The page in a real browser: light, dark, on a phone."""

import shutil
import subprocess

import pytest

from cnn.runs.report import compare_runs, write_report

for package in ("jinja2", "matplotlib"):
    pytest.importorskip(package)
Image = pytest.importorskip("PIL.Image")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="Debian's chromium is not installed: apt install chromium"
)

# the phone is a frame, since a window cannot be that narrow; the page in it tells how wide it has become
PHONE = """<!DOCTYPE html><title>not loaded</title>
<iframe src="probed.html" style="width: 360px; height: 800px; border: 0"></iframe>
<script>onmessage = event => { document.title = event.data }</script>"""
PROBE = """<script>onload = () => {
  const texts = [...document.querySelectorAll("svg text")].map(text => text.getBoundingClientRect());
  const outside = texts.filter(box => box.left < -1 || box.right > innerWidth + 1).length;
  const width = document.documentElement.scrollWidth;
  parent.postMessage([innerWidth, width, texts.length, outside].join(" "), "*");
}</script>"""


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """Where the page of the finished run is."""
    return write_report(finished[0], tmp_path_factory.mktemp("page")).page.parent


@pytest.fixture
def browse(tmp_path):
    def call(page, *flags):
        command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.parametrize(("setting", "light"), [(1, True), (0, False)])
def test_the_page_is_light_or_dark_as_the_reader_wishes(folder, browse, tmp_path, setting, light):
    flags = f"--blink-settings=preferredColorScheme={setting}", "--window-size=1000,1600"
    browse(folder / "report.html", *flags, f"--screenshot={tmp_path / 'shot.png'}")
    with Image.open(tmp_path / "shot.png") as shot:
        grey = shot.convert("L")
    assert (grey.getpixel((3, 3)) > 240) if light else (grey.getpixel((3, 3)) < 40)
    shades = grey.histogram()
    ink = sum(shades[:80]) if light else sum(shades[180:])
    assert ink > 5000  # text and axes stand out from the background


def test_the_page_is_read_as_it_was_meant(folder, browse):
    dom = browse(folder / "report.html", "--dump-dom")
    assert dom.count("<svg") == dom.count("</svg>") == 7
    assert "<title>notebook on &lt;b&gt;.npz</title>" in dom
    assert dom.rstrip().endswith("</html>")
    assert "Configuration and environment" in dom


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_wider_than_a_phone(finished, browse, tmp_path, several):
    run = finished[0]
    report = compare_runs([run, run], tmp_path) if several else write_report(run, tmp_path)
    page = report.page.read_text(encoding="utf-8")
    (tmp_path / "probed.html").write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    dom = browse(tmp_path / "phone.html", "--virtual-time-budget=5000", "--dump-dom")
    width, needed, texts, outside = map(int, dom.partition("<title>")[2].partition("</title>")[0].split())
    assert (width, outside) == (360, 0)
    assert needed <= 360
    assert texts > 10
