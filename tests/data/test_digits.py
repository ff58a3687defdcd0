"""Digits in photographs and scans come out as MNIST's were."""

import numpy as np
import pytest

import backends
import cnn
from cnn.data.digits import as_digit
from cnn.support.errors import DataError, ShapeError

pytest.importorskip("hypothesis")
pytest.importorskip("PIL")
from helpers.drawn_digits import SEVEN, SHAPE, alike, drawn, lit, on_transparent
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps


@pytest.fixture(scope="module")
def network():
    """A LeNet-5 that has seen a part of MNIST."""
    network = cnn.models.lenet5()
    network.build(SHAPE, backend=backends.get("cpu"), seed=0)
    train = cnn.data.load("mnist")[0].only(per_class=600)
    schedule = cnn.schedules.Linear(warmup=0.2)
    cnn.fit(network, train, epochs=2, batch_size=32, schedule=schedule, callbacks=[])
    return network


class TestDigits:
    """White on black, in 20 x 20 of 28 x 28, the centre of mass in the middle."""

    PICTURES = {  # noqa: RUF012
        "white on black": lambda: drawn(ink=255, paper=0),
        "grey on grey": lambda: drawn(ink=110, paper=150),
        "pale on grey": lambda: drawn(ink=150, paper=110),
        "red on cream": lambda: drawn(ink=(180, 30, 30), paper=(250, 240, 215), mode="RGB"),
        "black on transparent": lambda: on_transparent((0, 0, 0)),
        "white on transparent": lambda: on_transparent((255, 255, 255)),
        "huge": lambda: drawn((4000, 3000), box=(0.125, 0, 0.875, 1)),
        "small in the corner of a page": lambda: drawn(2000, box=(0.85, 0.9, 0.95, 1)),
        "cut close": lambda: drawn().crop(ImageOps.invert(drawn()).getbbox()),
        "out of focus": lambda: drawn(600).filter(ImageFilter.GaussianBlur(6)),
        "light from one side": lambda: lit(drawn(600, ink=50), lambda x, y: 0.6 + 0.35 * x, 4),
        "dark corners": lambda: lit(drawn(600, ink=50), lambda x, y: 1 - 0.3 * (x * x + y * y), 4),
        "a shadow across": lambda: lit(
            drawn(600, ink=50), lambda x, y: 1 - 0.5 / (1 + np.exp(-(x + y) * 8)), 4
        ),
        "pencil in the shadow": lambda: lit(
            drawn(900, 0.04, ink=130, paper=210), lambda x, y: 0.7 - 0.3 * y, 3
        ),
        "chalk": lambda: lit(drawn(600, ink=220, paper=60), lambda x, y: 0.8 + 0.2 * x, 5),
        "a bad camera": lambda: lit(drawn(700, ink=60, paper=200), lambda x, y: 1 + 0 * x, 20),
    }

    @pytest.mark.parametrize("name", PICTURES)
    def test_the_same_digit_however_it_was_pictured(self, name, seven):
        assert alike(as_digit(self.PICTURES[name](), SHAPE), seven) > 0.9

    def test_ink_and_paper_may_change_places(self, seven):
        np.testing.assert_array_equal(as_digit(ImageOps.invert(drawn()), SHAPE), seven)

    def test_a_window_with_round_corners_is_no_digit(self, seven):
        window = drawn(box=(0.1, 0.1, 0.9, 0.9))
        corners = Image.new("L", window.size, 0)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, 279, 279), radius=40, fill=255)
        window.putalpha(corners)
        assert alike(as_digit(window, SHAPE), seven) > 0.97

    def test_specks_are_left_out(self, seven):
        page = drawn(1000, box=(0.3, 0.3, 0.7, 0.7))
        draw = ImageDraw.Draw(page)
        for x, y in ((30, 40), (900, 80), (500, 950), (970, 970)):
            draw.ellipse((x, y, x + 6, y + 6), fill=40)
        assert alike(as_digit(page, SHAPE), seven) > 0.95

    @pytest.mark.parametrize(("size", "width"), [(280, 0.004), (1000, 0.003), (3000, 0.001)])
    def test_a_thin_line_does_not_fade(self, size, width, seven):
        thin = as_digit(drawn(size, width), SHAPE)
        assert thin.max() == 255
        assert (thin > 127).sum() > 0.5 * (seven > 127).sum()
        assert max(alike(np.roll(thin, rows, 1), seven) for rows in (-1, 0, 1)) > 0.8

    @pytest.mark.parametrize("side", [9, 14, 28])
    def test_a_tiny_picture_is_enough(self, side, seven):
        assert alike(as_digit(drawn(side, 0.1), SHAPE), seven) > 0.7

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)), min_size=2, max_size=7),
        st.floats(0.005, 0.15),
        st.tuples(st.integers(30, 400), st.integers(30, 400)),
        st.booleans(),
    )
    def test_where_a_digit_lies(self, points, width, size, inverted):
        assume(np.ptp(points, axis=0).max() > 0.3)
        assume(min(np.ptp(points, axis=0)) > 0.05)  # a single line at an edge may be one of a form
        picture = drawn(size, width, points=points)
        ink = np.asarray(picture.convert("L")) < 250
        assume(
            all(edge.mean() < 0.35 and not edge[[0, -1]].any() for edge in (ink[0], ink[-1], *ink.T[[0, -1]]))
        )  # others are refused
        try:
            (image,) = as_digit(ImageOps.invert(picture) if inverted else picture, SHAPE)
        except (
            DataError
        ) as error:  # long straight strokes are refused as lines of a form, thick ones as objects
            assume(
                not any(refused in str(error) for refused in ("run from edge to edge", "touches the digit"))
            )
            raise
        assert image.max() == 255
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        for places in (rows, columns):
            middle = np.average(places, weights=image[rows, columns])
            assert abs(middle - 14) <= 0.5

    @pytest.mark.parametrize("shape", [(1, 56, 56), (1, 20, 30), (1, 8, 8), (1, 1, 1)])
    def test_other_sizes_in_proportion(self, shape):
        image = as_digit(drawn(), shape)
        assert (image.shape, image.dtype, image.max()) == (shape, np.uint8, 255)
        _, rows, columns = np.nonzero(image)
        assert np.ptp(rows) + 1 <= max(1, round(shape[1] * 20 / 28))
        assert np.ptp(columns) + 1 <= max(1, round(shape[2] * 20 / 28))

    @pytest.mark.parametrize("level", [0, 128, 255])
    @pytest.mark.parametrize("size", [(1, 1), (9, 9), (28, 28), (1200, 900), (1, 300)])
    def test_an_empty_picture_shows_nothing(self, size, level):
        with pytest.raises(DataError, match=r"shows nothing: expected a digit darker or lighter"):
            as_digit(Image.new("L", size, level), SHAPE)

    def test_noise_shows_nothing(self):
        with pytest.raises(DataError, match="shows nothing"):
            as_digit(lit(Image.new("L", (600, 400), 200), lambda x, y: 0.8 + 0.2 * x, 8), SHAPE)
        with pytest.raises(DataError, match="shows nothing"):
            as_digit(Image.new("RGBA", (50, 50), (0, 0, 0, 0)), SHAPE)

    def test_a_digit_has_one_channel(self):
        with pytest.raises(
            ShapeError,
            match=r"fit is 'digit', which makes grey images, but .* 3 channels in \(3, 28, 28\)",
        ):
            as_digit(drawn(), (3, 28, 28))

    @pytest.mark.parametrize("factor", [1, 3, 10])
    def test_digits_of_mnist_come_back_from_a_page(self, network, factor):
        test = cnn.data.load("mnist")[1]
        originals = test.images[:60]
        random = np.random.default_rng(0)
        back = []
        for (image,) in originals:
            digit = Image.fromarray(255 - image).resize((28 * factor, 28 * factor), Image.Resampling.BICUBIC)
            page = Image.new("L", (500, 400), 255)
            left, top = (int(random.integers(0, room - 28 * factor + 1)) for room in page.size)
            page.paste(digit, (left, top))
            back.append(as_digit(page, SHAPE))
        before, after = (network.predict(images).argmax(axis=1) for images in (originals, np.array(back)))
        assert (before == test.labels[:60]).mean() > 0.9
        assert (before == after).mean() >= 0.95
        assert np.mean([alike(*pair) for pair in zip(originals, back, strict=True)]) > 0.9


class TestEdges:
    """What comes in from the edges of a scan and is no ink changes nothing about the digit."""

    SIZE = 300
    THREE = [(0.25, 0.2), (0.75, 0.2), (0.45, 0.45), (0.75, 0.7), (0.3, 0.8)]  # noqa: RUF012
    # what is drawn over the page: polygons of a grey, in parts of the side; "blur" softens their edges
    EDGES = {  # noqa: RUF012
        "a strip on the left": [((0, 0), (0.02, 0), (0.02, 1), (0, 1))],
        "a wide strip below": [((0, 0.91), (1, 0.91), (1, 1), (0, 1))],
        "a strip along a part of the top": [((0.2, 0), (0.8, 0), (0.8, 0.06), (0.2, 0.06))],
        "a frame": [
            *(((0, 0), (1, 0), (1, 0.05), (0, 0.05)), ((0, 0.95), (1, 0.95), (1, 1), (0, 1))),
            *(((0, 0), (0.05, 0), (0.05, 1), (0, 1)), ((0.95, 0), (1, 0), (1, 1), (0.95, 1))),
        ],
        "a slanted strip": [((1, 0), (1, 1), (0.92, 1), (0.97, 0))],
        "the corner of a table": [((0, 1), (0.3, 1), (0, 0.75))],
        "a sheet that lies askew on a table": [
            *(((0, 0), (1, 0), (1, 0.02), (0, 0.07)), ((0, 1), (1, 1), (1, 0.93), (0, 0.98))),
            *(((0, 0), (0.02, 0), (0.07, 1), (0, 1)), ((1, 0), (1, 1), (0.98, 1), (0.93, 0))),
        ],
        "a line of a form": [((0, 0.04), (1, 0.04), (1, 0.05), (0, 0.05))],
        "two lines of a form": [
            *(((0.05, 0), (0.06, 0), (0.06, 1), (0.05, 1)), ((0, 0.94), (1, 0.94), (1, 0.95), (0, 0.95))),
        ],
    }
    SHADES = (("black on white", 20, 250, 30), ("pale", 170, 215, 30), ("grey", 20, 250, 130))
    SHADES += (("white on black", 250, 15, 255), ("on a light table", 30, 150, 255))

    def page(self, edges, ink, paper, grey, blur=0.0):
        page = drawn(self.SIZE, ink=ink, paper=paper, points=self.THREE)
        over = Image.new("L", page.size, 0)
        for points in edges:
            ImageDraw.Draw(over).polygon([(x * self.SIZE, y * self.SIZE) for x, y in points], fill=255)
        page.paste(grey, mask=over.filter(ImageFilter.GaussianBlur(blur)))
        return page

    @pytest.mark.parametrize(
        ("ink", "paper", "grey"), [shades[1:] for shades in SHADES], ids=[s[0] for s in SHADES]
    )
    @pytest.mark.parametrize("name", EDGES)
    def test_the_same_digit_with_and_without(self, name, ink, paper, grey):
        plain = as_digit(self.page([], ink, paper, grey), SHAPE)
        assert alike(as_digit(self.page(self.EDGES[name], ink, paper, grey), SHAPE), plain) > 0.97

    @pytest.mark.parametrize("name", ["a strip on the left", "a frame", "the corner of a table"])
    def test_a_soft_edge_is_one_too(self, name):
        plain = as_digit(self.page([], 20, 250, 0), SHAPE)
        assert alike(as_digit(self.page(self.EDGES[name], 20, 250, 30, blur=6), SHAPE), plain) > 0.97

    def test_in_a_photograph(self):
        pages = (self.page(edges, 60, 220, 30) for edges in ([], self.EDGES["a frame"]))
        plain, framed = (as_digit(lit(page, lambda x, y: 0.8 + 0.2 * x, 6), SHAPE) for page in pages)
        assert alike(plain, framed) > 0.97

    CORNERS = [((x, y), (abs(x - 0.3), y), (x, abs(y - 0.3))) for x in (0, 1) for y in (0, 1)]  # noqa: RUF012

    def touching(self, edges, ink=20, paper=250, grey=30):
        """A digit 7 that reaches to the lower edge of its page."""
        page = drawn(self.SIZE, ink=ink, paper=paper, points=[(0.3, 0.2), (0.7, 0.2), (0.5, 1)])
        for points in edges:
            ImageDraw.Draw(page).polygon([(x * self.SIZE, y * self.SIZE) for x, y in points], fill=grey)
        return page

    def test_the_corners_of_a_round_lens_are_removed_if_the_digit_touches_an_edge_too(self):
        plain = as_digit(self.touching([]), SHAPE)
        assert alike(as_digit(self.touching(self.CORNERS), SHAPE), plain) > 0.97
        with pytest.raises(DataError, match="touches the digit: crop the picture"):
            as_digit(self.touching([((1, 1), (0.4, 1), (1, 0.4))]), SHAPE)

    @pytest.mark.parametrize("light", [lambda x, y: 1 + 0 * x, lambda x, y: 0.75 + 0.2 * y])
    def test_the_paper_inside_a_frame_that_a_digit_touches_is_no_ink(self, light):
        plain, framed = (self.touching(edges) for edges in ([], self.EDGES["a frame"]))
        plain = as_digit(plain.crop((0, 0, 300, 285)), SHAPE)
        assert alike(as_digit(lit(framed, light, 4), SHAPE), plain) > 0.95

    def test_a_wide_frame_that_fades_into_the_paper_is_removed(self):
        page = self.page([], 20, 250, 0)
        y, x = np.mgrid[-1 : 1 : page.height * 1j, -1 : 1 : page.width * 1j]
        paper = ((1 - np.maximum(abs(x), abs(y))) / 0.24).clip(0, 1)
        faded = Image.fromarray((30 + (np.asarray(page) - 30.0) * paper).astype(np.uint8))
        assert alike(as_digit(faded, SHAPE), as_digit(page, SHAPE)) > 0.97

    def test_pale_ink_is_as_wide_as_black_ink(self):
        black, pale = (lit(self.page([], ink, 215, 0), lambda x, y: 1 + 0 * x, 2) for ink in (20, 180))
        assert alike(as_digit(black, SHAPE), as_digit(pale, SHAPE)) > 0.99

    def test_a_strip_that_a_digit_touches_is_cut_off(self):
        page = self.page([((0, 0.76), (1, 0.76), (1, 1), (0, 1))], 20, 250, 30)
        plain = self.page([], 20, 250, 0)
        assert (
            alike(as_digit(page.crop((0, 0, 300, 250)), SHAPE), as_digit(plain.crop((0, 0, 300, 228)), SHAPE))
            > 0.9
        )

    def test_what_touches_the_digit_and_is_no_strip_is_named(self):
        with pytest.raises(DataError, match="at an edge of the picture touches the digit: crop the picture"):
            as_digit(self.page([((0.2, 1), (1, 1), (1, 0.6), (0.2, 0.85))], 20, 250, 30), SHAPE)

    @pytest.mark.parametrize("level", [30, 250])
    def test_a_digit_that_was_cut_out_closely_stays_as_it_is(self, level):
        for points in (SEVEN, [(0.5, 0.1), (0.4, 0.9)], [(0.9, 0.9), (0.5, 0.1), (0.1, 0.5), (0.9, 0.5)]):
            page = drawn(400, 0.12, ink=level, paper=280 - level, points=points)
            ink = page if level > 100 else ImageOps.invert(page)
            box = ink.point(lambda value: 255 * (value > 140)).getbbox()
            loose, close = as_digit(page, SHAPE), as_digit(page.crop(box), SHAPE)
            assert alike(loose, close) > 0.97

    def test_a_strip_alone_is_no_digit(self):
        page = Image.new("L", (300, 300), 250)
        page.paste(30, (0, 0, 12, 300))
        with pytest.raises(DataError, match="shows nothing"):
            as_digit(page, SHAPE)


class TestRuledPaper:
    """Lines that run across the picture cannot be told from ink: it is said, not guessed."""

    def ruled(self, lines, columns=0):
        picture = Image.new("RGB", (400, 400), (250, 248, 240))
        draw = ImageDraw.Draw(picture)
        for y in range(30, 30 + 40 * lines, 40):
            draw.line([(0, y), (400, y)], fill=(120, 150, 200), width=3)
        for x in range(60, 60 + 40 * columns, 40):
            draw.line([(x, 0), (x, 400)], fill=(200, 60, 60), width=3)
        draw.line([(150, 100), (260, 100), (190, 300)], fill=(20, 30, 120), width=14, joint="curve")
        return picture

    @pytest.mark.parametrize(("lines", "columns"), [(9, 0), (3, 0), (9, 8), (0, 2), (0, 3)])
    def test_it_is_refused(self, lines, columns):
        with pytest.raises(DataError, match="lines run from edge to edge of the picture: crop it"):
            as_digit(self.ruled(lines, columns), (1, 28, 28))

    def test_the_same_digit_on_blank_paper_is_not(self):
        assert as_digit(self.ruled(0), (1, 28, 28)).max() == 255
