"""Runs that take a moment: options for the command, a run with hostile names, and a reader of its page."""

from html.parser import HTMLParser

import numpy as np

import backends
import cnn
from cnn.runs import build
from cnn.runs.config import Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog

SMALL = ("--model", "notebook", "--epochs", 1, "--device", "cpu", "--batch-size", 16, "--no-report")
NAMES = ("<script>alert(1)</script>", "salt & 'pepper'", '"$\\frac{x$" --> \u202e')
SHAPE = (1, 12, 12)


def make_data(count, seed):
    """Noise with a faint mark of its class: some of it will be taken for another."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 200, (count, *SHAPE), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 4 * label : 4 * label + 4] += 30
    return images, labels


def make_run(path, epochs=2, model="notebook", **settings):
    """Train as the command does; -> the folder, the network and the test set."""
    train, test = (cnn.data.Dataset(*make_data(count, seed), 3) for count, seed in ((90, 0), (60, 1)))
    config = Config(model=model, data="own/<b>.npz", epochs=epochs, batch_size=30, **settings)
    network = build.make_network(config, SHAPE, 3, backends.get("cpu"))
    folder = RunFolder(path)
    log = RunLog(folder, config, NAMES)
    optimizer = cnn.SGD(0.02, momentum=0.9)
    cnn.fit(network, train, test, optimizer=optimizer, epochs=epochs, batch_size=30, callbacks=[log])
    return folder, network, test


class Page(HTMLParser):
    """The elements of a page, as (tag, attributes), and the text in them."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.source = [], [], path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        if text.strip():
            self.texts.append(" ".join(text.split()))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(self.texts)
