"""Computes what the page shows of a trained network, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data.dataset import Dataset
from cnn.data.fitting import FIT_IN_WORDS, fitted_file
from cnn.data.pictures import Pictures
from cnn.data.readers.photographs import decode_bytes, tolerating_faults
from cnn.demo import drawing
from cnn.inspection.activations import activations
from cnn.inspection.attribution import occlusion, saliency
from cnn.network import Network
from cnn.runs.trained import classify
from cnn.support.errors import ArgumentError, DataError, ShapeError
from cnn.support.text import percent, printable

TOP = 5  # classes that are shown
NOTHING_DRAWN = "nothing drawn"
MIDDLE = 128  # of the brightness: a set whose images are darker in the middle is drawn on black

Answer = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """A picture that the page has sent: the contents of a file, and whether it was drawn on the page."""

    name: str
    data: bytes
    drawn: bool = False


class Viewer:
    """Looks at pictures and test images with one network, for one thread at a time.

    Parameters
    ----------
    network
        The trained network, for images of one or three channels.
    class_names
        A name for each of its outputs.
    title
        What the page calls it.
    tests
        The test images of its data, or a sentence that says why there are none.
    tta
        Test-time augmentation, as :meth:`Sequential.predict` takes it.

    Raises ShapeError if the network does not classify pictures.
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        title: str,
        tests: Dataset | str,
        tta: str | None = None,
    ) -> None:
        shape = network.input_shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ShapeError(f"the network was built for {shape}: expected images (1, H, W) or (3, H, W)")
        if network.output_shape != (len(class_names),):
            raise ShapeError(
                f"the network's output is {network.output_shape}: expected a number for each of "
                f"{len(class_names)} classes"
            )
        self.network, self.title, self.tta = network, title, tta
        self.class_names = [printable(name) for name in class_names]
        self.fit = Pictures.of(network).fit
        self.tests = tests

    def about(self) -> Answer:
        """Facts about the network and the test images, which the page shows before there is a picture."""
        C, H, W = self.network.input_shape
        tests = self.tests
        return {
            "title": printable(self.title),
            "subtitle": f"{'Colour' if C == 3 else 'Grey'} images of {H}{drawing.BY}{W}, "
            f"{len(self.class_names):,} classes; pictures are {FIT_IN_WORDS[self.fit]}{self._range_note}",
            "height": H,
            "width": W,
            "colour": C == 3,
            "dark": self._is_drawn_on_black,
            "tests": 0 if isinstance(tests, str) else len(tests),
            "without": tests if isinstance(tests, str) else "",
        }

    def look(self, picture: Sent | int) -> Answer:
        """The prediction for a picture or for a test image, the network's input, and all activations."""
        image = self._image(picture)
        if image is None:
            return {"message": NOTHING_DRAWN}
        shares = self._shares(image)
        order = np.argsort(-shares, kind="stable")[:TOP]
        return {
            "message": "",
            "top": [
                {
                    "name": self.class_names[label],
                    "share": float(shares[label]),
                    "text": percent(shares[label]),
                }
                for label in order
            ],
            "others": len(shares) - len(order),
            "truth": self._truth(picture),
            "input": {
                "src": drawing.image(image),
                "caption": f"{drawing.BY.join(map(str, image.shape))}, values from {image.min():.3g} to "
                f"{image.max():.3g}",
            },
            "layers": [
                {"title": each.layer, **drawing.activation(each.values[0])}
                for each in activations(self.network, image[None])
            ],
        }

    def saliency(self, picture: Sent | int) -> Answer:
        """The gradient of the predicted class's score with respect to the network's input."""
        image = self._image(picture)
        if image is None:
            return {"message": NOTHING_DRAWN}
        label = int(self._shares(image).argmax())
        values = np.abs(np.nan_to_num(saliency(self.network, image[None], [label])[0])).max(axis=0)
        return {
            "message": "",
            "src": drawing.heat(values),
            "caption": f"How strongly the score of {self.class_names[label]} reacts to each pixel: the size "
            f"of its gradient, from 0 to {values.max():.3g}.",
        }

    def occlusion(self, picture: Sent | int) -> Answer:
        """The fall of the probability of the predicted class if parts of the image are covered."""
        image = self._image(picture)
        if image is None:
            return {"message": NOTHING_DRAWN}
        label = int(self._shares(image).argmax())
        values = np.nan_to_num(occlusion(self.network, image, label))
        return {
            "message": "",
            "src": drawing.signed(values),
            "caption": f"How the probability of {self.class_names[label]} changes if a patch covers the "
            "pixel: orange if it falls, purple if it rises, by at most "
            f"{100 * np.abs(values).max():.3g} percentage points.",
        }

    def filters(self) -> Answer:
        """The weights of all convolutions."""
        backend = self.network.backend
        with backend.active():
            shown = [
                {"title": layer.label, **drawing.filters(backend.to_host(layer.filters.value))}
                for layer in self.network.walk()
                if layer.filters
            ]
        return {"message": "" if shown else "this network has no convolutions", "layers": shown}

    def _image(self, picture: Sent | int) -> Any | None:
        """The image (C, H, W) that the network gets, as `cnn predict` makes it; None for an empty drawing."""
        if isinstance(picture, int):
            return self._tests(picture).images[picture]
        path = Path(picture.name)
        with tolerating_faults():
            opened = decode_bytes(path, picture.data)
        if picture.drawn and not np.ptp(np.asarray(opened), axis=(0, 1)).any():
            return None
        return fitted_file(path, opened, self.network.input_shape, self.fit)

    def _shares(self, image: Any) -> Any:
        return classify(self.network, image, self.tta, self.title)

    def _truth(self, picture: Sent | int) -> str:
        """The name of the class of a test image."""
        if isinstance(picture, int):
            return self.class_names[self._tests(picture).labels[picture]]
        return ""

    def _tests(self, number: int) -> Dataset:
        if isinstance(self.tests, str):
            raise DataError(self.tests)
        if not 0 <= number < len(self.tests):
            raise ArgumentError(f"test is {number}, expected a test image from 0 to {len(self.tests) - 1}")
        return self.tests

    @property
    def _range_note(self) -> str:
        """A note if the test images may have another range than pictures."""
        if isinstance(self.tests, str) or self.tests.images.dtype == np.uint8:
            return ""
        return ", and reach the network as numbers from 0 to 1, but the test images are used unchanged"

    @property
    def _is_drawn_on_black(self) -> bool:
        """Whether drawings are light on black, because the test images are mostly dark."""
        if self.fit == "digit" or self.network.input_shape[0] == 3 or isinstance(self.tests, str):
            return False
        some = self.tests.images[:: -(-len(self.tests) // 64)]
        return bool(np.median(some) < MIDDLE * (1 if some.dtype == np.uint8 else 1 / 255))
