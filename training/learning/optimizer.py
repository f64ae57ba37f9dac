"""The optimisers: Adam, with a learning rate for each kind of parameter."""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from models.discriminator import Discriminator
from models.generator import Generator
from models.projected import CombinedDiscriminator, ProjectedDiscriminator
from training.learning.config import OptimizerConfig, TrainingConfig

Groups = list[dict[str, Any]]
EMBEDDING: Final = "mapping.embed.weight"
DECAYED: Final = 0.05  # fraction of the learning rate at the end of a run with decay


def rate_factor(settings: OptimizerConfig, shown: int, progress: float) -> float:
    """Factor on the configured learning rates in one step.

    Args:
        settings: Lengths of warm-up and decay.
        shown: Images shown after the step.
        progress: Fraction of the run that is over, 0 to 1.

    Returns:
        Factor that rises linearly from 0 over warmup_kimg, and falls linearly to DECAYED over the
        last part of the run.
    """
    warmup = settings.warmup_kimg * 1000
    rising = min(1.0, shown / warmup) if warmup else 1.0
    left = min(1.0, max(0.0, 1 - progress) / settings.decay) if settings.decay else 1.0
    return rising * (DECAYED + (1 - DECAYED) * left)


def generator_groups(generator: Generator, settings: OptimizerConfig) -> Groups:
    """Build the generator's parameter groups.

    The category embedding starts with standard deviation 1, and its learning rate is in proportion
    to that. With the rate of its shape and of the mapping network it would hardly change.
    """
    groups = []
    for group in _unsplit_groups(generator, settings):
        named = group["params"]
        embedding = [(name, p) for name, p in named if name == EMBEDDING]
        others = [(name, p) for name, p in named if name != EMBEDDING]
        rate = settings.learning_rate * settings.embedding_multiplier
        groups += [{**group, "params": others}] if others else []
        groups += [{"params": embedding, "lr": rate}] if embedding else []
    return [{**group, "betas": (settings.beta1, settings.beta2)} for group in groups]


def discriminator_groups(discriminator: Discriminator, config: TrainingConfig) -> Groups:
    """Build the parameter groups of a discriminator of any kind."""
    if isinstance(discriminator, CombinedDiscriminator):
        parts = (discriminator.convolutional, discriminator.projected)
        prefixes = ("convolutional.", "projected.")
        return [
            {**group, "params": [(prefix + name, p) for name, p in group["params"]]}
            for prefix, part in zip(prefixes, parts, strict=True)
            for group in discriminator_groups(part, config)
        ]
    settings = config.optimizer
    if isinstance(discriminator, ProjectedDiscriminator):
        betas = (settings.beta1, settings.beta2)
        named = list(_trained(discriminator))
        return [{"params": named, "lr": config.projected.learning_rate, "betas": betas}]
    # Adam's constants corrected for lazy R1 (Karras et al. 2020, appendix B, arXiv 1912.04958).
    ratio = settings.r1_interval_steps / (settings.r1_interval_steps + 1)
    betas = (settings.beta1**ratio, settings.beta2**ratio)
    return [
        {**group, "lr": group["lr"] * ratio, "betas": betas}
        for group in equalized_groups(discriminator, settings.learning_rate)
    ]


def adam(groups: Groups) -> torch.optim.Adam:
    """Build Adam over named groups with their own learning rates and betas.

    Not fused on a CPU: there it silently uses the wrong elements if a gradient's memory layout
    differs from its parameter's (torch 2.14).
    """
    on_gpu = groups[0]["params"][0][1].is_cuda
    return torch.optim.Adam(groups, eps=1e-8, fused=on_gpu, foreach=not on_gpu)


def load_adam(
    optimizer: torch.optim.Adam, saved: dict[str, Any], module: nn.Module, settings: OptimizerConfig
) -> None:
    """Load the moments of a saved state; learning rates and betas stay as configured now.

    Args:
        optimizer: Optimizer of `module`'s parameters.
        saved: Its state dict, or that of an older optimizer without parameter names.
        module: The network, whose parameter order an older optimizer used.
        settings: Settings that an older optimizer's groups were built from.
    """
    groups = saved["param_groups"]
    unnamed = (name for group in _unsplit_groups(module, settings) for name, _ in group["params"])
    names = [n for group in groups for n in group.get("param_names", ())] or list(unnamed)
    indices = [index for group in groups for index in group["params"]]
    state = {
        name: saved["state"][index]
        for name, index in zip(names, indices, strict=True)
        if index in saved["state"]
    }
    now = optimizer.state_dict()["param_groups"]
    ids = {
        name: index
        for group in now
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }
    state = {ids[name]: moments for name, moments in state.items()}
    optimizer.load_state_dict({"state": state, "param_groups": now})


def equalized_groups(
    module: nn.Module,
    learning_rate: float,
    mapping_multiplier: float = 1.0,
    noise_multiplier: float = 1.0,
) -> Groups:
    """Build named parameter groups with equalised learning rates.

    Adam's step does not depend on the gradient's scale. So a learning rate in proportion to the
    initial standard deviation, 1 / sqrt(fan_in), has the same effect as scaling each weight in
    every forward pass, at no cost (Karras et al. 2018, arXiv 1710.10196).
    """
    groups: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in _trained(module):
        rate = learning_rate
        if parameter.ndim in (2, 4):  # matrices and kernels; not biases and the constant
            rate /= parameter[0].numel() ** 0.5
        if parameter.ndim == 0:
            # A noise strength scales a whole feature map: at the full rate it grows faster than
            # the features early on, and images become speckled.
            rate *= noise_multiplier
        if name.startswith("mapping."):
            rate *= mapping_multiplier
        groups.setdefault(rate, []).append((name, parameter))
    return [{"params": named, "lr": rate} for rate, named in groups.items()]


def _unsplit_groups(module: nn.Module, settings: OptimizerConfig) -> Groups:
    return equalized_groups(
        module, settings.learning_rate, settings.mapping_multiplier, settings.noise_multiplier
    )


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)
