"""Fashion-MNIST: 28x28 pictures of clothes, in files named like MNIST's."""

from cnn.data.checked import numbered
from cnn.data.dataset import Dataset
from cnn.data.published.downloads import Published, PublishedFile
from cnn.data.readers.idx import AXES, read_idx

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

FASHION_MNIST = Published(
    name="fashion-mnist",
    files=(
        PublishedFile(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        PublishedFile(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        PublishedFile(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        PublishedFile(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # it has no https
    ),
)


_FIRST = (9, 0, 0, 3, 0, 2, 7, 2, 5, 5), (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)  # labels: training and test images


def with_names(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """The sets, with the names of the classes if they are Fashion-MNIST, whose IDX files have numbers."""
    first = tuple(tuple(each.targets[:10].tolist()) for each in (train, test))
    if train.classes == numbered(len(CLASSES)) and first == _FIRST:
        return train.named(CLASSES), test.named(CLASSES)
    return train, test


def named_as(data: Dataset, names: tuple[str, ...]) -> Dataset:
    """``data``, with numbers for the classes of Fashion-MNIST if these are the ``names`` in a run on them.

    Runs on its IDX files that are older than :func:`with_names` have numbers.
    """
    numbers = dict(zip(CLASSES, numbered(len(CLASSES)), strict=True))
    if set(data.classes) <= numbers.keys() and set(names) <= {*numbers.values()}:
        return data.named(tuple(numbers[name] for name in data.classes))
    return data


def load_fashion_mnist() -> tuple[Dataset, Dataset]:
    """The 60,000 training and 10,000 test images of Fashion-MNIST, downloaded once."""
    paths = FASHION_MNIST.fetch()
    x_train, y_train, x_test, y_test = (read_idx(path, axes) for path, axes in zip(paths, AXES, strict=True))
    return Dataset(x_train, y_train, CLASSES), Dataset(x_test, y_test, CLASSES)
