"""The names that widely used PyTorch implementations have for the layers of a model."""

from collections.abc import Iterable


def _resnet(blocks: int) -> tuple[str, ...]:
    """Those of ResNets for CIFAR-10, as in the repository pytorch_resnet_cifar10."""
    inside = ("conv1", "bn1", "conv2", "bn2")
    stages = (f"layer{s}.{block}.{part}" for s in (1, 2, 3) for block in range(blocks) for part in inside)
    return ("conv1", "bn1", *stages, "linear")


REFERENCES: dict[str, tuple[str, ...]] = {
    "mnist-pytorch": ("conv1", "conv2", "fc1", "fc2"),
    "resnet8": _resnet(1),
    "resnet20": _resnet(3),
    "resnet32": _resnet(5),
}


def reference_names(model: str, names: Iterable[str]) -> dict[str, str]:
    """The reference's name for each array of a model; nothing for a model without a reference.

    ``names`` are the model's own, such as "0.weight", with the layers in order.
    """
    if model not in REFERENCES:
        return {}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    theirs = dict(zip(layers, REFERENCES[model], strict=True))
    return {name: f"{theirs[layer]}.{part}" for name in names for layer, _, part in [name.rpartition(".")]}
