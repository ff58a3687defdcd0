"""Layers beside torch.nn: outputs and all gradients of random ones, of rows of them, and of odd numbers."""

import numpy as np
import pytest
from helpers.twins import (
    AnyConv2d,
    activations,
    adaptive_average_pools,
    at_random,
    average_pools,
    batch_last,
    batch_sizes,
    built,
    close,
    convolutions,
    given,
    global_pools,
    images,
    max_pools,
    nn,
    numbers,
    on_images,
    paddings,
    pairs,
    rectified_convolutions,
    relu,
    same_convolutions,
    same_step,
    seeds,
    st,
    stacks,
    torch,
    transposed_convolutions,
    upsamplings,
)

import backends
import cnn

ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310]
LARGE = [1e300, -1e300, 800.0, -800.0, 20.0, -20.0, 1.0, -1.0]


def with_odd(seed, *shape, share=0.1, odd=ODD):
    """Normal numbers, a share of which are odd ones."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    chosen = random.random(shape) < share
    x[chosen] = random.choice(odd, np.count_nonzero(chosen))
    return x


class TestRandomOnes:
    @at_random
    @given(on_images(lambda shape: convolutions(shape, filters=17)), batch_sizes, seeds)
    def test_convolution(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(on_images(lambda shape: same_convolutions(shape) | paddings(shape)), batch_sizes, seeds)
    def test_padding(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(on_images(lambda shape: transposed_convolutions(shape) | upsamplings(shape)), batch_sizes, seeds)
    def test_enlarging(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(on_images(convolutions), batch_sizes, seeds)
    def test_convolution_a_row_of_columns_at_a_time(self, drawn, N, seed):
        layer, shape = drawn
        device = backends.CpuBackend("portable")
        device.column_bytes = 1
        same_step(*built([layer], shape, device), numbers(seed, N, *shape))

    @at_random
    @given(on_images(max_pools), batch_sizes, seeds)
    def test_max_pooling(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(on_images(average_pools), batch_sizes, seeds)
    def test_average_pooling(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(on_images(lambda shape: adaptive_average_pools(shape) | global_pools(shape)), batch_sizes, seeds)
    def test_pooling_to_a_size(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(st.integers(1, 70), st.integers(1, 70), st.booleans(), batch_sizes, seeds)
    def test_dense(self, kernels, features, outputs, bias, N, seed):
        layer = cnn.Dense(outputs, bias), nn.Linear(features, outputs, bias)
        same_step(*built([layer], (features,), kernels), numbers(seed, N, features))

    @at_random
    @given(on_images(activations, images() | st.tuples(st.integers(1, 70))), batch_sizes, seeds)
    def test_activations(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), numbers(seed, N, *shape))

    @at_random
    @given(images(), batch_sizes, seeds)
    def test_shape(self, kernels, shape, N, seed):
        C, H, W = shape
        layers = [(cnn.Flatten(), nn.Flatten()), (cnn.Reshape((W, C, H)), nn.Unflatten(1, (W, C, H)))]
        network, peer = built(layers, shape, kernels)
        assert network.output_shape == (W, C, H)
        same_step(network, peer, numbers(seed, N, *shape))

    @at_random
    @given(images(), batch_sizes, seeds)
    def test_a_function_of_ones_own(self, kernels, shape, N, seed):
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        ours = cnn.Activation(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)))
        same_step(*built([(ours, nn.Sigmoid())], shape, kernels), numbers(seed, N, *shape))


class TestInARow:
    @at_random
    @given(on_images(rectified_convolutions), st.booleans(), batch_sizes, seeds)
    def test_convolution_relu_and_pooling(self, kernels, drawn, fuse, N, seed):
        layers, shape = drawn
        same_step(*built(layers, shape, kernels, fuse), numbers(seed, N, *shape))

    @at_random
    @given(st.integers(1, 70), st.integers(1, 70), st.booleans(), st.booleans(), batch_sizes, seeds)
    def test_dense_and_relu(self, kernels, features, outputs, bias, fuse, N, seed):
        layers = [(cnn.Dense(outputs, bias), nn.Linear(features, outputs, bias)), relu()]
        same_step(*built(layers, (features,), kernels, fuse), numbers(seed, N, features))

    @at_random
    @given(stacks(), st.booleans(), st.lists(batch_sizes, min_size=1, max_size=3), seeds)
    def test_random_layers(self, kernels, drawn, fuse, sizes, seed):
        layers, shape = drawn
        network, peer = built(layers, shape, kernels, fuse)
        for N in sizes:  # in the same buffers
            same_step(network, peer, numbers(seed, N, *shape))

    @pytest.mark.parametrize("seed", range(3))
    def test_the_notebooks_network(self, kernels, seed):
        torch.manual_seed(seed)
        peer = nn.Sequential(
            AnyConv2d((0, 0, 0, 0), "zeros", 1, 5, 3).untie_bias((1, 28, 28)),
            nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(),
            nn.Linear(3125, 100), nn.Tanh(), nn.Linear(100, 2), nn.Softmax(1),
        )  # fmt: skip
        twins = list(zip(cnn.models.notebook().layers, peer, strict=True))
        same_step(*built(twins, (1, 28, 28), kernels), numbers(seed, 3, 1, 28, 28))


class TestOddNumbers:
    """NaN, infinities, zeros with a sign, numbers that are too large, too small or alike."""

    pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

    @at_random
    @given(on_images(activations), batch_sizes, seeds, st.sampled_from([0.1, 1.0]))
    def test_in_activations(self, kernels, drawn, N, seed, share):
        layer, shape = drawn
        x = with_odd(seed, N, *shape, share=share, odd=ODD + LARGE)
        if isinstance(layer[0], cnn.ReLU | cnn.ELU | cnn.SELU):  # where PyTorch's gradient of NaN varies
            x = np.where(np.isnan(x), 1, x)
        same_step(*built([layer], shape, kernels), x)

    def test_nan_goes_through_relu_and_takes_no_gradient_where_pytorchs_does(self, kernels):
        network, peer = built([(cnn.ReLU(), nn.ReLU())], (3,), kernels)
        x = torch.tensor([[np.nan, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
        peer(x).sum().backward()
        close("output", network.forward(batch_last(x), training=True), batch_last(peer(x)))
        assert network.backward(np.ones((3, 1))).ravel().tolist() == [0, 1, 0]
        assert x.grad.ravel().tolist() == [1, 1, 0]

    @at_random
    @given(on_images(max_pools), batch_sizes, seeds, st.sampled_from([0.1, 1.0]))
    def test_in_max_pooling(self, kernels, drawn, N, seed, share):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), with_odd(seed, N, *shape, share=share, odd=ODD + LARGE))

    @at_random
    @given(on_images(max_pools), batch_sizes, seeds)
    def test_equals_in_max_pooling(self, kernels, drawn, N, seed):
        layer, shape = drawn
        x = np.random.default_rng(seed).choice([-1.0, -0.0, 0.0, 1.0], (N, *shape))
        same_step(*built([layer], shape, kernels), x)

    @at_random
    @given(on_images(average_pools), batch_sizes, seeds)
    def test_in_average_pooling(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), with_odd(seed, N, *shape))

    @pytest.mark.parametrize("kernels", ["compiled", "portable"])
    @at_random
    @given(on_images(convolutions), batch_sizes, seeds)
    def test_in_convolution(self, kernels, drawn, N, seed):
        layer, shape = drawn
        same_step(*built([layer], shape, kernels), with_odd(seed, N, *shape))

    @at_random
    @given(st.integers(1, 20), st.integers(1, 20), batch_sizes, seeds)
    def test_in_dense(self, kernels, features, outputs, N, seed):
        layer = cnn.Dense(outputs), nn.Linear(features, outputs)
        same_step(*built([layer], (features,), kernels), with_odd(seed, N, features))

    @at_random
    @given(on_images(max_pools), st.booleans(), batch_sizes, seeds)
    def test_where_convolution_relu_and_pooling_are_one_pass(self, kernels, drawn, fuse, N, seed):
        """A convolution that copies its input shows odd numbers and equals to ReLU and to pooling."""
        pool, shape = drawn
        C = shape[0]
        copy = cnn.Conv2D(C, 1, groups=C, bias=False), nn.Conv2d(C, C, 1, groups=C, bias=False)
        nn.init.ones_(copy[1].weight)
        network, peer = built([copy, relu(), pool], shape, kernels, fuse)
        x = np.random.default_rng(seed).choice([-1.0, -0.0, 0.0, 1.0, 2.0, np.inf], (N, *shape))
        same_step(network, peer, x)


def answer(action):
    """What an action gives, or None where its arguments are refused."""
    try:
        return action()
    except (ValueError, RuntimeError):
        return None


class TestArguments:
    """What does not fit is refused by both."""

    @at_random
    @given(
        images(4, 5), st.integers(1, 6), pairs(1, 6), pairs(1, 3), pairs(0, 2), pairs(1, 3), st.integers(1, 3)
    )
    def test_of_convolution(self, shape, filters, kernel, stride, padding, dilation, groups):
        window = kernel, stride, padding, dilation, groups
        ours = answer(lambda: cnn.Sequential(cnn.Conv2D(filters, *window)).build(shape, backend="cpu"))
        theirs = answer(lambda: nn.Conv2d(shape[0], filters, *window)(torch.zeros(1, *shape)).shape[1:])
        assert ours == theirs

    @at_random
    @given(images(2, 5), st.tuples(pairs(1, 6), pairs(1, 3), pairs(0, 3)), st.booleans())
    def test_of_pooling(self, shape, window, up):
        zeros = torch.zeros(1, *shape)
        for ours, theirs in ((cnn.MaxPool2D, nn.MaxPool2d), (cnn.AvgPool2D, nn.AvgPool2d)):
            layer = answer(lambda: ours(*window, ceil_mode=up))  # noqa: B023
            taken = answer(lambda: layer and cnn.Sequential(layer).build(shape, backend="cpu"))  # noqa: B023
            y = answer(lambda: theirs(*window, ceil_mode=up)(zeros))  # noqa: B023
            assert taken == (None if y is None else y.shape[1:])
