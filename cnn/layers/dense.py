"""The fully connected layer."""

from collections.abc import Sequence

from cnn.layers import initializers
from cnn.layers.epilogues import FusedDense
from cnn.layers.fusion import Epilogue, Fused, Weighted, find_epilogue
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support.arguments import flag, size
from cnn.support.errors import ShapeError


class Dense(Weighted):
    """Every output a weighted sum of every input: (F,) -> (O,), ``y = weight @ x + bias``.

    As PyTorch's Linear: the weight is (O, F), the bias (O,); named as in Keras. ``initializer`` names
    the weight's (see :mod:`cnn.initializers`); the bias starts at zero. Training leaves the layer as it is
    if not ``trainable``. Raises ShapeError when built on an image.
    """

    reads_output = False

    def __init__(
        self, out_features: int, bias: bool = True, initializer: str = "he_normal", *, trainable: bool = True
    ) -> None:
        self.trainable = trainable
        self.out_features = size("Dense: out_features", out_features)
        self.bias = flag("Dense: bias", bias)
        self.initializer = initializers.require(initializer, "Dense")

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        if len(input_shape) != 1:
            raise ShapeError(
                f"layer {self.label}: the input is {input_shape}, expected a vector (features,); "
                "put a Flatten before it"
            )
        features = input_shape[0]
        self.output_shape = (self.out_features,)
        self._weight = self.parameter("weight", (self.out_features, features), self.initializer, features)
        if self.bias:
            self._bias = self.parameter("bias", (self.out_features,), "zeros")
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.multiply(x, y, training)
        if self.bias:
            self.backend.kernels.add_bias(y, self._bias.value)
        return y

    def infer(
        self, x: Array, weight: Array, bias: Array | None, epilogue: Epilogue, scale: Array | None = None
    ) -> Array:
        y = self.output(x, training=False)
        self.backend.kernels.matmul(weight, x, y)
        self.backend.kernels.finish(y, None, bias, epilogue.formula)
        return y

    @property
    def bias_shape(self) -> Shape:
        return (self.out_features,)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if self.bias:
            self.backend.kernels.sum_rows(dy, self._bias.grad)
        return self.multiply_back(dy, input_grad)

    def multiply(self, x: Array, y: Array, training: bool) -> None:
        """``y = weight @ x``."""
        self.backend.kernels.matmul(self._weight.operand, x, y)
        if training:
            self._x = x

    def multiply_back(self, dy: Array, input_grad: bool) -> Array | None:
        """Write the weight's gradient; -> the input's."""
        self.backend.kernels.matmul(dy, self._x.T, self._weight.grad)
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.matmul(self._weight.operand.T, dy, dx)
        return dx

    def with_epilogue(self, following: Sequence[Layer]) -> Fused | None:
        if following and following[0].epilogue == "relu":
            return FusedDense(self, following[0])
        return None

    def find_epilogue(self, following: Sequence[Layer]) -> Epilogue:
        return find_epilogue(following, pools=False, pool_first=False)

    @property
    def multiply_adds(self) -> int:
        return self.out_features * self.input_shape[0]
