"""A squeeze-and-excite block (Hu et al. 2018), written as a layer of one's own, in a small network for MNIST.

python scripts/examples/squeeze_and_excite.py
"""

import cnn
from cnn.layers.container import Container


class SqueezeAndExcite(Container):
    """Scales each channel by a number from 0 to 1 that follows from the means of all channels.

    (C, H, W) -> (C, H, W): ``y[c] = x[c] * s[c]`` with ``s = gate(mean(x))``, where ``gate`` is two dense
    layers. The gradient of the product has two parts: ``dy * s``, and that of the gate for ``sum(dy * x)``.
    """

    def __init__(self, channels, reduction=4):
        self.channels, self.reduction = channels, reduction
        self.gate = cnn.Sequential(
            cnn.GlobalAvgPool2D(),
            cnn.Dense(channels // reduction),
            cnn.ReLU(),
            cnn.Dense(channels),
            cnn.Sigmoid(),
        )

    @property
    def children(self):
        return {"gate": self.gate}

    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.build_child("gate", input_shape, context)
        return self.output_shape

    def forward(self, x, training=False):
        scale = self.gate.forward(x, training)
        if training:
            self._scale, self._x = scale, x
        return self.backend.xp.multiply(x, scale[:, None, None], out=self.output(scale, training))

    def backward(self, dy, input_grad=True):
        xp = self.backend.xp
        direct = self.buffer("direct", dy.shape)
        xp.multiply(dy, self._x, out=direct)
        through_gate = self.gate.backward(direct.sum(axis=(1, 2)), input_grad)
        if not input_grad:
            return None
        xp.multiply(dy, self._scale[:, None, None], out=direct)
        return xp.add(direct, through_gate, out=direct)


def main(data="mnist", epochs=3):
    """Check the block's gradients, and train with it; -> the accuracy on the test images."""
    for check in cnn.check_layer(SqueezeAndExcite(8), (8, 5, 6)):
        print(check.name, check.problem or "right")
    train, test = cnn.data.load(data)
    net = cnn.Sequential(
        cnn.Conv2D(16, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), SqueezeAndExcite(16),
        cnn.MaxPool2D(2), cnn.Conv2D(32, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(),
        SqueezeAndExcite(32), cnn.GlobalAvgPool2D(), cnn.Dense(len(train.classes)),
    )  # fmt: skip
    cnn.fit(net, train, validation=test, epochs=epochs)
    return cnn.evaluate(net, test)["accuracy"]


if __name__ == "__main__":
    print(f"test accuracy {main():.2%}")
