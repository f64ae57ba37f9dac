"""Records the convolutions of a piece of work, and runs them again on their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

# Autograd's operators for a convolution: forward, and its gradients; R1 differentiates the
# gradients, which runs the same two again with other shapes.
_RECORDED = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


@dataclass(frozen=True)
class TensorSpec:
    """Layout of a tensor, which determines a convolution's time: everything but its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorSpec":
        """Return the layout of a tensor."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def create(self, random: torch.Generator) -> Tensor:
        """Create a tensor of this layout with standard normal values, on the generator's device."""
        length = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        storage = torch.randn(length, generator=random, device=random.device).to(self.dtype)
        return storage.as_strided(self.shape, self.stride)


class ConvolutionRecorder(TorchDispatchMode):
    """Records every convolution that runs inside its context, including backward passes.

    Attributes:
        calls: Operators and their arguments, with a TensorSpec in place of each tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Record the call if it is a convolution, and run it."""
        if func in _RECORDED:
            if kwargs:
                raise RuntimeError(f"{func} was called with keywords {sorted(kwargs)}")
            self.calls.append((func, tree_map_only(Tensor, TensorSpec.of, args)))
        elif "conv" in str(func):
            raise RuntimeError(f"{func} is a convolution that this bench does not know")
        return func(*args, **(kwargs or {}))


class ConvolutionReplay:
    """Runs the recorded calls in order, on tensors that are created beforehand.

    Calls of the same kind share their tensors: cached data can make the replay faster, but never
    the work that it is compared with.
    """

    def __init__(self, calls: list[tuple[Any, Any]], device: torch.device | str = "cpu") -> None:
        random = torch.Generator(device).manual_seed(0)
        created: dict[str, Any] = {}
        self._calls = []
        for operator, specs in calls:
            kind = repr((operator, specs))
            if kind not in created:
                created[kind] = tree_map_only(TensorSpec, lambda spec: spec.create(random), specs)
            self._calls.append((operator, created[kind]))

    @torch.no_grad()
    def run(self) -> None:
        """Run all of them once."""
        for operator, arguments in self._calls:
            operator(*arguments)
