"""Further optimizers whose step follows from averages of the gradient and of its square."""

from collections.abc import Sequence

from backends.memory import Array
from cnn.network import Network
from cnn.support.arguments import flag, number
from cnn.training.groups import Group, Part, two_betas
from cnn.training.optimizers import Adam, Optimizer, require_velocity


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton 2012), like PyTorch's.

    The gradient is divided by the root of the moving average of its square, or with ``centered`` of its
    variance.
    """

    setting_names = (*Optimizer.setting_names, "alpha", "epsilon", "momentum")

    def __init__(
        self,
        learning_rate: float = 0.01,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, weight_decay, groups)
        self.alpha = number("alpha", alpha, below=1)
        self.epsilon = number("epsilon", epsilon)
        self.momentum = number("momentum", momentum, below=1)
        self.centered = flag("centered", centered)
        names = {"square": True, "mean": self.centered, "velocity": self.momentum > 0}
        self.state_names = tuple(name for name, is_needed in names.items() if is_needed)

    def begin(self, rate: Array) -> None:
        require_velocity(self.momentum, self.state_names)

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        self.backend.kernels.rmsprop(
            part.value,
            part.grad,
            part.state["square"],
            part.state.get("mean"),
            part.state.get("velocity"),
            rate,
            alpha=self.alpha,
            epsilon=self.epsilon,
            momentum=self.momentum,
            weight_decay=weight_decay,
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011), like PyTorch's; a schedule takes the place of its ``lr_decay``."""

    state_names = ("square",)
    setting_names = (*Optimizer.setting_names, "epsilon")

    def __init__(
        self,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
        epsilon: float = 1e-10,
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, weight_decay, groups)
        self.epsilon = number("epsilon", epsilon)

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        square = part.state["square"]
        self.backend.kernels.adagrad(part.value, part.grad, square, rate, self.epsilon, weight_decay)


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat 2016), like PyTorch's NAdam."""

    state_names = ("mean", "square")
    setting_names = (*Optimizer.setting_names, "betas", "epsilon", "momentum_decay")

    def __init__(
        self,
        learning_rate: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, weight_decay, groups)
        self.betas = two_betas(betas)
        self.epsilon = number("epsilon", epsilon)
        self.momentum_decay = number("momentum_decay", momentum_decay)

    def initial_state(self, network: Network) -> dict[str, Array]:
        progress = network.backend.asarray([0, 1, 0, 0, 1], network.master_dtype)
        return super().initial_state(network) | {"progress": progress}

    def begin(self, rate: Array) -> None:
        self.backend.kernels.next_nadam(self.state["progress"], *self.betas, self.momentum_decay)

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        self.backend.kernels.nadam(
            part.value,
            part.grad,
            part.state["mean"],
            part.state["square"],
            self.state["progress"],
            rate,
            betas=self.betas,
            epsilon=self.epsilon,
            weight_decay=weight_decay,
        )


class Lion(Optimizer):
    """Lion (Chen et al. 2023): the sign of an average of the gradient, with decoupled weight decay.

    Its learning rate is 3 to 10 times smaller than AdamW's, and its weight decay as many times larger.
    """

    state_names = ("mean",)
    setting_names = (*Optimizer.setting_names, "betas")

    def __init__(
        self,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, weight_decay, groups)
        self.betas = two_betas(betas)

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        mean = part.state["mean"]
        self.backend.kernels.lion(part.value, part.grad, mean, rate, self.betas, weight_decay)


class LAMB(Adam):
    """LAMB (You et al. 2020): AdamW's step, scaled to the norm of each parameter; for large batches."""

    by_parameter = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        weight_decay: float = 0.01,
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, betas, epsilon, weight_decay, groups)

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        self.backend.kernels.lamb(
            part.value,
            part.grad,
            part.state["mean"],
            part.state["square"],
            self.state["powers"],
            rate,
            betas=self.betas,
            epsilon=self.epsilon,
            weight_decay=weight_decay,
        )
