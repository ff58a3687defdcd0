"""The page of `cnn demo` in a real browser: mouse, finger, keyboard; light, dark, on a phone."""

import io
from base64 import b64encode

import pytest
from helpers.chromium import BROWSER, Browser
from helpers.served_page import served

import backends
import cnn
from cnn.demo import Viewer

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="Debian's chromium is not installed: apt install chromium"
)

ONE = [(0.5, y / 10) for y in range(2, 9)]
ZERO = [
    (0.5, 0.15), (0.38, 0.22), (0.32, 0.4), (0.32, 0.6), (0.38, 0.78), (0.5, 0.85),
    (0.62, 0.78), (0.68, 0.6), (0.68, 0.4), (0.62, 0.22), (0.5, 0.15),
]  # fmt: skip

BEST = "document.getElementById('best').textContent"
RESTING = "about && !busy && answered.look === version"


@pytest.fixture(scope="module")
def digits():
    """A page of a network that has learned digits."""
    train, test = cnn.data.load("mnist")
    train, test = train.only(per_class=250), test.only(per_class=5)
    network = cnn.models.lenet5()
    network.build(train.shape, backend=backends.get("cpu"))
    cnn.fit(network, train, epochs=3, batch_size=50, optimizer=cnn.SGD(0.05, momentum=0.9))
    network.preprocessing = cnn.Preprocessing.none(1, "digit")
    with served(Viewer(network, train.classes, "digits", test)) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(browser, digits):
    """The page, just opened, in a window of the usual size; it must leave no complaint."""
    browser.look(1100)
    browser.problems.clear()
    browser.open(digits.address)
    browser.wait_for(RESTING)
    yield browser
    assert browser.problems == []


def on_canvas(page, points):
    """Shares of the canvas as points of the window."""
    x, y, width, height = page.value(
        "(canvas.scrollIntoView(), (r => [r.x, r.y, r.width, r.height])(canvas.getBoundingClientRect()))"
    )
    return [(x + right * width, y + down * height) for right, down in points]


def prediction(page):
    page.wait_for(RESTING)
    return page.value(BEST)


def test_drawing_changes_the_prediction(page):
    assert prediction(page) == "nothing drawn"
    assert page.value("document.getElementById('input').hidden")
    page.draw(on_canvas(page, ONE))
    assert prediction(page) == "1"
    assert page.value("document.querySelectorAll('#layers figure').length") == 11
    sources = "[...document.images].filter(i => i.offsetParent).every(i => i.complete && i.naturalWidth)"
    page.wait_for(sources)
    page.value("document.getElementById('clear').click()")
    assert prediction(page) == "nothing drawn"
    page.touch(on_canvas(page, ZERO))
    assert prediction(page) == "0"
    assert page.value("document.getElementById('spoken').textContent").startswith("0, ")


def test_the_answer_appears_while_the_mouse_still_draws(page):
    page.draw(on_canvas(page, ONE), release=False)
    assert prediction(page) == "1"
    assert page.value("stroke !== null")
    page.draw(on_canvas(page, ONE[-1:]))


def test_the_newest_drawing_is_answered_and_one_request_is_under_way(page):
    page.value("""
        window.most = 0; window.count = 0; let now = 0;
        const real = fetch;
        window.fetch = async (...all) => {
          most = Math.max(most, ++now); count += 1;
          try { return await real(...all) } finally { now -= 1 }
        };
        void 0""")
    many = [(0.5, y / 200) for y in range(40, 170)]
    page.draw(on_canvas(page, many))
    shown = (prediction(page), page.value("document.getElementById('input-picture').src"))
    assert page.value("most") == 1
    assert 1 <= page.value("count") < len(many)
    again = page.value("ask('look').then(answer => [answer.top[0].name, answer.input.src])")
    assert tuple(again) == shown


def test_the_keyboard_is_enough(page):
    focused = "document.activeElement.id"

    def tab_to(name):
        for _ in range(20):
            page.press("Tab")
            if page.value(focused) == name:
                return
        raise AssertionError(f"the keyboard does not reach {name}")

    tab_to("canvas")
    assert page.value("!pen.hidden")  # where the pen is can be seen
    page.press(" ")
    page.press("ArrowDown", times=14)
    page.press(" ")
    assert prediction(page) == "1"
    tab_to("next")
    outline = page.value("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    page.press("Enter")
    prediction(page)
    assert page.value("document.getElementById('truth').textContent")
    assert page.value("picture.number") == 0
    page.press("ArrowRight", times=3)
    page.press("ArrowLeft")
    prediction(page)
    assert page.value("[picture.number, by('number').value]") == [2, "3"]
    page.value("document.querySelector('#saliency summary').focus()")
    page.press("Enter")
    page.wait_for("by('saliency').querySelector('img').naturalWidth === 28")
    page.value("document.querySelector('#occlusion summary').focus()")
    page.press("Enter")
    page.wait_for("by('occlusion').querySelector('img').naturalWidth === 28")
    page.value("document.querySelector('#filters summary').focus()")
    page.press("Enter")
    page.wait_for("document.querySelectorAll('#filters figure').length === 2")
    page.value("document.getElementById('clear').focus()")
    page.press("Enter")
    assert prediction(page) == "nothing drawn"


def test_explanations_follow_the_picture(page):
    page.value("chooseTest(3)")
    page.value("by('saliency').open = true")
    page.wait_for("by('saliency').querySelector('img').naturalWidth === 28 && !busy")
    before = page.value("by('saliency').querySelector('img').src")
    page.value("chooseTest(4)")
    page.wait_for(f"answered.saliency === version && {RESTING}")
    assert page.value("by('saliency').querySelector('img').src") != before
    page.value("by('clear').click()")
    prediction(page)
    assert page.value("by('why').hidden")


def as_base64(colour):
    data = io.BytesIO()
    picture = Image.new("RGB", (90, 120), "white")
    picture.paste(colour, (42, 20, 48, 100))
    picture.save(data, "PNG")
    return b64encode(data.getvalue()).decode()


FILE = """
const bytes = Uint8Array.from(atob("%s"), each => each.charCodeAt());
const data = new DataTransfer();
data.items.add(new File([bytes], "%s", {type: "image/png"}));
"""


@pytest.mark.parametrize(
    "how",
    [
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}))",
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))",
        "by('file').files = data.files; by('file').dispatchEvent(new Event('change'))",
    ],
    ids=["drop", "paste", "choose"],
)
def test_a_picture_from_elsewhere(page, how):
    page.value(f"{{ {FILE % (as_base64('navy'), 'one.png')} {how} }}")
    assert prediction(page) == "1"
    page.wait_for("by('shown').naturalWidth === 90")
    page.value("by('clear').click()")
    assert prediction(page) == "nothing drawn"
    assert page.value("by('shown').hidden")


def test_what_is_no_picture_is_answered_in_a_sentence(browser, digits):
    browser.open(digits.address)
    browser.wait_for(RESTING)
    browser.value(f"{{ {FILE % (b64encode(b'<b>text').decode(), '<b>.png')} open(data.files) }}")
    assert prediction(browser).startswith("<b>.png: this is ")
    browser.value("about.most = 3; changed()")
    assert "expected at most 3 bytes" in prediction(browser)


LUMINANCE = """
const luminance = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(each => each / 255)
    .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = element => {
  const own = getComputedStyle(element).backgroundColor;
  return own === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : own;
};
const contrast = element => {
  const both = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => b - a);
  return (both[0] + 0.05) / (both[1] + 0.05);
};
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1200])
def test_it_fits_and_can_be_read(page, dark, width):
    page.look(width, dark=dark, phone=width == 360)
    page.draw(on_canvas(page, ZERO))
    prediction(page)
    page.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
    page.wait_for("answered.occlusion === version && !busy")
    assert page.value("innerWidth") == width
    assert page.value("document.documentElement.scrollWidth") <= width
    outside = (
        "[...document.querySelectorAll('main *')].filter(each => each.offsetParent && "
        "!each.classList.contains('unseen') && each.getBoundingClientRect().right > innerWidth + 1)"
        ".map(each => each.outerHTML.slice(0, 100))"
    )
    assert page.value(outside) == []
    least = (
        "Math.min(...[...document.querySelectorAll('h1, h2, h3, p, span, figcaption, button, .button, "
        "legend, summary, input[type=number]')].filter(each => each.offsetParent).map(contrast))"
    )
    assert page.value(f"{{ {LUMINANCE} {least} }}") >= 4.5
    ground = page.value(f"{{ {LUMINANCE} luminance(ground(document.body)) }}")
    assert (ground < 0.05) if dark else (ground > 0.9)
    small = (
        "[...document.querySelectorAll('button, .button, summary, input:not(.unseen)')]"
        ".filter(each => each.offsetParent && each.getBoundingClientRect().height < 44)"
        ".map(each => each.outerHTML)"
    )
    assert page.value(small) == []  # a finger hits them


def test_names_are_text(browser, grey):
    with served(grey) as server:
        browser.problems.clear()
        browser.look(360, phone=True)
        browser.open(server.address)
        browser.wait_for(RESTING)
        browser.value("chooseTest(2)")
        browser.wait_for(RESTING)
        assert browser.value("document.getElementById('title').textContent") == "<b>grey</b>"
        names = browser.value(
            "[...document.querySelectorAll('#bars li span:first-child')].map(e => e.textContent)"
        )
        assert set(names) <= set(grey.class_names)
        assert browser.value("document.querySelectorAll('#bars img, #best img').length") == 0
        assert browser.value("document.documentElement.scrollWidth") <= 360
        assert browser.problems == []
    browser.value("chooseTest(3)")
    assert "start cnn demo again" in prediction(browser)  # as it was stopped
