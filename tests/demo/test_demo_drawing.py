"""What the page's small pictures show, pixel by pixel."""

import io
from base64 import b64decode

import numpy as np
import pytest

import cnn
from cnn.demo import Viewer, drawing

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def opened(src):
    return Image.open(io.BytesIO(b64decode(src.partition(",")[2])))


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_shown_as_they_are(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 4), dtype=np.uint8)
    shown = np.asarray(opened(drawing.image(image))).reshape(5, 4, channels)
    np.testing.assert_array_equal(np.moveaxis(shown, -1, 0), image)


def test_numbers_are_scaled_to_bytes():
    shown = np.asarray(opened(drawing.image(np.array([[[-1.0, 0.0, 1.0]]]))))
    assert shown.tolist() == [[0, 128, 255]]
    assert np.asarray(opened(drawing.image(np.array([[[0.0, 0.2, 1.0]]])))).tolist() == [[0, 51, 255]]


def test_maps_lie_in_rows_with_gaps_on_one_scale():
    maps = np.zeros((10, 32, 32))
    maps[9] = 4
    drawn = drawing.activation(maps)
    sheet = np.asarray(opened(drawn["src"]))  # positions in the palette
    side, gap = drawing.SIDE, drawing.GAP
    assert sheet.shape == (2 * side + gap, 8 * (side + gap) - gap)
    assert (sheet[:side, :side] == 0).all()
    assert (sheet[side + gap :, side + gap : 2 * side + gap] == drawing.SHADES - 1).all()
    assert (sheet[side : side + gap] == drawing.SHADES).all()
    alpha = np.asarray(opened(drawn["src"]).convert("RGBA"))[..., 3]
    assert ((alpha == 0) == (sheet == drawing.SHADES)).all()
    assert drawn["caption"] == f"10 channels of 32{drawing.BY}32, from 0 to 4"


def test_large_maps_are_averaged():
    large = np.zeros((1, 4 * drawing.SIDE, 2 * drawing.SIDE))
    large[:, ::2] = 1
    sheet = np.asarray(opened(drawing.activation(large)["src"]))
    assert sheet.shape == (drawing.SIDE, drawing.SIDE // 2)
    assert abs(int(sheet.mean()) - drawing.SHADES // 2) <= 1


def test_no_change_is_white_and_the_signs_differ():
    assert all(np.asarray(opened(drawing.signed(np.zeros((2, 2)))).convert("RGB")).ravel() > 235)
    shown = np.asarray(opened(drawing.signed(np.array([[-1.0, 0.0, 1.0]]))).convert("RGB")).astype(int)
    (purple, white, orange) = shown[0]
    assert purple[2] > purple[0]
    assert min(white) > 235
    assert orange[0] > orange[2]


def test_what_is_not_finite_is_drawn_too():
    assert opened(drawing.activation(np.array([np.nan, 1.0, 2.0]))["src"]).size[0] > 3
    assert opened(drawing.heat(np.zeros((3, 3)))).size == (3, 3)


def test_filters_of_three_channels_are_colours():
    weight = np.zeros((2, 3, 1, 1))
    weight[0, 0], weight[1, 2] = 0.5, -0.5
    sheet = np.asarray(opened(drawing.filters(weight)["src"]))
    assert sheet[0, 0].tolist() == [255, 128, 128, 255]
    assert sheet[0, -1].tolist() == [128, 128, 0, 255]
    assert sheet[0, drawing.SIDE].tolist()[3] == 0


def test_test_images_that_are_numbers_are_used_unchanged():
    random = np.random.default_rng(0)
    tests = cnn.data.Dataset(random.standard_normal((4, 1, 6, 5)).astype(np.float32), [0, 1, 1, 0])
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
    network.build((1, 6, 5), backend="cpu")
    viewer = Viewer(network, ("a", "b"), "numbers", tests)
    assert "used unchanged" in viewer.about()["subtitle"]
    shares = {each["name"]: each["share"] for each in viewer.look(2)["top"]}
    np.testing.assert_allclose([shares["a"], shares["b"]], network.predict(tests.images[2:3])[0], rtol=1e-5)
