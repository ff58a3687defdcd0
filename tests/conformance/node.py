"""A node of an ONNX model: its attributes, and the sliding window that they describe."""

from dataclasses import dataclass
from typing import Any

from backends import Window
from backends.kernels.window import Pair

Sizes = tuple[int, ...]

DIMENSIONS = "its images have three dimensions, our layers slide over height and width"


class NotOurs(Exception):
    """Why a case asks for something that no layer here does."""


@dataclass(frozen=True)
class Node:
    """Its attributes with the operator's own defaults, its operator set, and how many outputs it has."""

    attributes: dict[str, Any]
    opset: int
    outputs: int

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it means that it is left out or not yet known to the operator."""
        return self.attributes.get(name, default)

    def window(self, kernel: Sizes, image: Sizes) -> Window:
        """The window that slides over an image with height and width, or width alone; NotOurs for others."""
        slide = Slide(self, kernel)
        begin, end = slide.padding(image)
        return slide.window(begin, end)


class Slide:
    """How a kernel of one or two dimensions slides, without its padding."""

    def __init__(self, node: Node, kernel: Sizes) -> None:
        if len(kernel) > 2:
            raise NotOurs(DIMENSIONS)
        self.node, self.kernel = node, tuple(kernel)
        self.strides: Sizes = tuple(node.get("strides", [1] * len(kernel)))
        self.dilations: Sizes = tuple(node.get("dilations", [1] * len(kernel)))
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, self.dilations, strict=True))

    def window(self, begin: Sizes, end: Sizes) -> Window:
        """With this padding; one dimension is the width of an image one line high."""
        up = 2 - len(self.kernel)
        ones, zeros = (1,) * up, (0,) * up
        return Window(
            _pair(ones + self.kernel),
            _pair(ones + self.strides),
            _pair(zeros + begin),
            _pair(ones + self.dilations),
            _pair(zeros + end),
        )

    def given_padding(self) -> tuple[Sizes, Sizes]:
        """(Before, after) as the node says, whatever the image."""
        axes = len(self.kernel)
        pads = tuple(self.node.get("pads", [0] * 2 * axes))
        return pads[:axes], pads[axes:]

    def padding(self, image: Sizes) -> tuple[Sizes, Sizes]:
        """(Before, after) an image: as given, or as much as the output needs to cover it all."""
        automatic = self.node["auto_pad"]
        if not automatic.startswith("SAME"):
            return self.given_padding()
        sizes = zip(image, self.strides, self.extent, strict=True)
        total = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in sizes]
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        return (less, more) if automatic == "SAME_UPPER" else (more, less)

    def input_sizes(self, output: Sizes, extra: Sizes, begin: Sizes, end: Sizes) -> Sizes:
        """How large an image is that this turns into ``output``, with ``extra`` lines left over."""
        sizes = zip(output, self.strides, self.extent, extra, begin, end, strict=True)
        return tuple(s * (n - 1) + e + more - before - after for n, s, e, more, before, after in sizes)


def _pair(sizes: Sizes) -> Pair:
    height, width = sizes
    return height, width
