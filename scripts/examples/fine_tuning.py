"""Fine-tuning compared with training from scratch, on few images of new classes.

    python scripts/examples/fine_tuning.py fashion-mnist

The argument is any data set with ten classes that ``cnn train --data`` takes. A network, the base, is trained
on all training images of the classes 0 to 4. Then there are 100 training images of each of the classes
5 to 9, other ones for each seed. On these, a network is trained from scratch, and the base is fine-tuned:
only a new head, or all layers. The accuracies are those on all test images of the classes 5 to 9.
"""

import argparse
from statistics import mean, stdev

import numpy as np

import cnn

MODEL, BATCH_SIZE = "mnist-small", 32
WAYS = (
    "from scratch",
    "new head, the rest frozen",
    "all layers, the old ones at a tenth of the rate",
    "all layers",
)


def main(data="fashion-mnist", per_class=100, seeds=5, epochs=20, base_epochs=3):
    """Train in each way for each seed; -> the accuracies on the test images by way."""
    train, test = cnn.data.load(data)
    old, new = train.only(range(5)), train.only(range(5, 10))
    test_old, test_new = test.only(range(5)), test.only(range(5, 10))
    base = cnn.models.make(MODEL, 5, train.shape)
    cnn.fit(base, old, epochs=base_epochs, normalize=True, callbacks=[])
    print(f"the base: {cnn.evaluate(base, test_old)['accuracy']:.2%} on the classes 0 to 4")
    accuracies = {way: [] for way in WAYS}
    for seed in range(seeds):
        few = chosen(new, per_class, seed)
        for way in WAYS:
            accuracies[way].append(learned(way, base, few, test_new, epochs, seed))
            print(f"seed {seed}, {way}: {accuracies[way][-1]:.2%}", flush=True)
    scratch = accuracies[WAYS[0]]
    print(
        "| way | mean | lowest | highest | gain over from scratch | lowest gain |\n|---|---|---|---|---|---|"
    )
    for way, found in accuracies.items():
        gains = [100 * (one - other) for one, other in zip(found, scratch, strict=True)]
        spread = f" ± {stdev(gains):.2f}" if len(gains) > 1 else ""
        range_found = f"{mean(found):.2%} | {min(found):.2%} | {max(found):.2%}"
        print(f"| {way} | {range_found} | {mean(gains):+.2f}{spread} | {min(gains):+.2f} |")
    return accuracies


def chosen(data, per_class, seed):
    """So many images of each class, others for each seed."""
    order = np.random.default_rng(seed).permutation(len(data))
    return cnn.data.Dataset(data.images[order], data.labels[order], data.classes).only(per_class=per_class)


def learned(way, base, train, test, epochs, seed):
    """The accuracy on ``test`` of a network that learned ``train`` in one of the ways."""
    groups = []
    if way == "from scratch":
        net = cnn.models.make(MODEL, 5, train.shape)
        net.build(train.shape, seed=seed)
    else:
        net = cnn.replace_head(base, classes=5, seed=seed)
        head = cnn.find_head(net)
        if "frozen" in way:
            net.freeze("*")
            net.unfreeze(head)
        if "tenth" in way:
            groups = [cnn.Group(f"{head}.*"), cnn.Group("*", rate=0.1)]
    cnn.fit(
        net, train, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, callbacks=[],
        normalize=way == "from scratch",
        optimizer=cnn.SGD(0.025, momentum=0.9, groups=groups), schedule=cnn.schedules.Linear(warmup=20),
        transforms=[cnn.ClipNorm(1)],
    )  # fmt: skip
    return cnn.evaluate(net, test)["accuracy"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="?", default="fashion-mnist", help="a data set with ten classes")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    main(arguments.data, arguments.per_class, arguments.seeds, arguments.epochs)
