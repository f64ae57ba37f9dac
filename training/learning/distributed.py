"""The processes of one run: their ranks, and averages over all of them.

Plain torch.distributed with explicit gradient averaging: wrappers that hook the backward
pass conflict with R1, which differentiates it a second time.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process's rank among those that torchrun started."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # within this machine; selects the GPU

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This rank's samples of a global batch."""
        size = batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)


@contextmanager
def joined(device_type: str) -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment, if there is one."""
    if "RANK" not in os.environ:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Replace each gradient by its mean over all ranks, in one reduction."""
    if ranks.world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= ranks.world_size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def mean_over_ranks(values: Tensor, ranks: Ranks) -> Tensor:
    """Mean of a small tensor over all ranks."""
    if ranks.world_size == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / ranks.world_size


def largest(values: Sequence[float], device: torch.device, ranks: Ranks) -> list[float]:
    """Largest of each value over all ranks, so that all ranks decide alike.

    With several ranks, all wait for the device here.
    """
    if ranks.world_size == 1:
        return list(values)
    votes = torch.tensor(values, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return [float(vote) for vote in votes.tolist()]
