"""Records the convolutions of a stretch of work, and runs them again on their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# What autograd calls for a convolution: forward, its gradients, and, as R1 differentiates
# those once more, the same two again with other shapes.
_RECORDED = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


@dataclass(frozen=True)
class TensorSpec:
    """What of a tensor decides a convolution's time: everything but its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self, random: torch.Generator) -> Tensor:
        """A tensor of this layout with standard normal values, on the generator's device."""
        length = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        storage = torch.randn(length, generator=random, device=random.device).to(self.dtype)
        return storage.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class Call:
    """One call of a convolution operator, its tensors replaced by their TensorSpec."""

    operator: Any
    arguments: tuple[Any, ...]


class ConvolutionRecorder(TorchDispatchMode):
    """While entered, notes every convolution that runs, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the call if it is a convolution, and let it happen."""
        if func in _RECORDED:
            if kwargs:
                raise RuntimeError(f"{func} was called with keywords {sorted(kwargs)}")
            self.calls.append(Call(func, tuple(_spec(a) for a in args)))
        elif "conv" in str(func):
            raise RuntimeError(f"{func} is a convolution that this bench does not know")
        return func(*args, **(kwargs or {}))


def _spec(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return TensorSpec(tuple(argument.shape), argument.stride(), argument.dtype)
    return tuple(argument) if isinstance(argument, list) else argument


class ConvolutionReplay:
    """The recorded calls in their order, on tensors that are made beforehand.

    Calls of the same kind share their tensors: what of them is still in a cache makes the
    replay faster, never the work that it is compared with.
    """

    def __init__(self, calls: list[Call], device: torch.device | str = "cpu") -> None:
        random = torch.Generator(device).manual_seed(0)
        made: dict[Call, tuple[Any, ...]] = {}
        for call in calls:
            if call not in made:
                made[call] = tuple(
                    a.make(random) if isinstance(a, TensorSpec) else a for a in call.arguments
                )
        self._calls = [(call.operator, made[call]) for call in calls]

    @torch.no_grad()
    def run(self) -> None:
        """Run all of them once."""
        for operator, arguments in self._calls:
            operator(*arguments)
