"""Networks that PyTorch exports as ONNX give the same outputs after `cnn import`."""

import warnings

import numpy as np
import pytest

from cnn.saving.onnx_reader import read

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
nn, functional = torch.nn, torch.nn.functional


class Blocks(nn.Module):
    """Residuals with and without a shortcut, functions that the file spells out."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.shortcut = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(8, 16, 1, stride=2)
        self.third, self.last = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Linear(16, 5)

    def forward(self, x):
        x = functional.relu(self.norm(self.first(x)))
        x = x + functional.gelu(x)
        x = functional.relu(self.second(x) + self.shortcut(x))
        x = functional.hardswish(x + self.third(functional.silu(x)))
        return self.last(x.mean((2, 3)))


class Flat(nn.Module):
    """Branches that are concatenated, and a shape that is computed from the batch."""

    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1)
        self.last = nn.Linear(192, 3)

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(torch.cat([self.one(x), functional.relu(self.three(x)), x], 1), 4)
        return self.last(x.view(x.size(0), -1))


NETWORKS = {
    "blocks": (Blocks, (3, 16, 16)),
    "branches": (Flat, (3, 16, 16)),
    "activations": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, dilation=2), nn.LeakyReLU(0.2), nn.GELU("tanh"), nn.Hardsigmoid(),
            nn.Softplus(), nn.PReLU(6), nn.SELU(), nn.AvgPool2d(2, padding=1), nn.ELU(), nn.Dropout(),
            nn.Flatten(), nn.Linear(294, 9), nn.BatchNorm1d(9), nn.Sigmoid(), nn.LogSoftmax(1),
        ),
        (3, 16, 16),
    ),
    "pads and sizes": (
        lambda: nn.Sequential(
            nn.ZeroPad2d((1, 2, 0, 1)), nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3),
            nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3),
        ),
        (3, 9, 8),
    ),
    "normalizations": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.LayerNorm([4, 7, 7]), nn.Flatten()),
        (3, 9, 9),
    ),
    "vectors": (lambda: nn.Sequential(nn.Linear(7, 5, bias=False), nn.Tanh(), nn.Linear(5, 3)), (7,)),
}  # fmt: skip


@pytest.mark.parametrize("free", [False, True], ids=["a batch of one", "any batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_pytorch_gives(name, free, tmp_path):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = make()
    network.train()(torch.randn(8, *shape))  # running statistics of its own
    network.eval()
    x = torch.randn(3, *shape)
    axes = {"dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}} if free else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one, which needs nothing else
        torch.onnx.export(
            network, (x if free else x[:1],), str(tmp_path / "a.onnx"), input_names=["x"], output_names=["y"],
            opset_version=17, dynamo=False, **axes,
        )  # fmt: skip
    ours = read(tmp_path / "a.onnx", "cpu")
    y = np.moveaxis(ours.forward(np.ascontiguousarray(np.moveaxis(x.numpy(), 0, -1))), -1, 0)
    np.testing.assert_allclose(y, network(x).detach().numpy(), rtol=0, atol=1e-5)
