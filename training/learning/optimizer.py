"""What the networks learn with: Adam at equalised learning rates."""

from typing import Any

import torch
from torch import Tensor, nn


def equalized_groups(
    module: nn.Module,
    learning_rate: float,
    mapping_multiplier: float = 1.0,
    noise_multiplier: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups with equalised learning rates.

    Adam's step does not depend on the gradient's scale, so a learning rate in proportion
    to the initial standard deviation, 1 / sqrt(fan_in), does what scaling each weight in
    every forward pass does, for free (Karras et al. 2018, arXiv 1710.10196).
    """
    groups: dict[float, list[nn.Parameter]] = {}
    trained = ((n, p) for n, p in module.named_parameters() if p.requires_grad)
    for name, parameter in trained:
        rate = learning_rate
        if parameter.ndim in (2, 4):  # matrices and kernels; not biases and the constant
            rate /= parameter[0].numel() ** 0.5
        if parameter.ndim == 0:
            # A noise strength speaks for a whole map: at the full rate it outruns the
            # features early on, and pictures come out peppered.
            rate *= noise_multiplier
        if name.startswith("mapping."):
            rate *= mapping_multiplier
        groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


class Adam(torch.optim.Adam):
    """torch's fused Adam in little more than half its time, which counts for small networks.

    The parameters count their steps in one tensor, not in one each. Kernels in channels_last
    are handed over in the order of their memory: the fused step on a CPU copies their
    gradients otherwise, and where gradient and parameter lie in memory in different orders it
    takes the wrong elements without a word (torch 2.14). Saved states are as torch's.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, betas=betas, eps=1e-8, fused=True)
        self._steps = torch.zeros((), device=self.param_groups[0]["params"][0].device)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state: empty, or of as many steps for every parameter."""
        super().load_state_dict(state_dict)
        self._steps = torch.zeros_like(self._steps)
        for state in self.state.values():
            state["step"] = self._steps.copy_(state["step"])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """Learn from the gradients; a parameter without one stays as it is."""
        self._steps += 1
        for group in self.param_groups:
            learning = [self._in_memory_order(p) for p in group["params"] if p.grad is not None]
            if not learning:
                continue
            parameters, gradients, means, squares = zip(*learning, strict=True)
            beta1, beta2 = group["betas"]
            torch._fused_adam_(
                parameters,
                gradients,
                means,
                squares,
                [],
                [self._steps] * len(learning),
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=0.0,
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def _in_memory_order(self, parameter: nn.Parameter) -> list[Tensor]:
        """The parameter, its gradient and their moments, all contiguous."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = self._steps
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
        tensors = [parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
        if not parameter.is_contiguous():
            tensors = [tensor.permute(0, 2, 3, 1) for tensor in tensors]
        tensors[1] = tensors[1].contiguous()
        return tensors
