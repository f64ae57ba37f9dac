"""The averages of a generator move towards it by as much as their half-lives say."""

from typing import Any

import pytest
import torch

from models.generator import Generator, GeneratorShape
from training.learning.config import OptimizerConfig
from training.learning.ema import GeneratorEMA, ema_decay, only_average


def averages(**settings: Any) -> tuple[Generator, GeneratorEMA]:
    """A generator with its averages, all of whose parameters are 0."""
    shape = GeneratorShape(height=8, width=8, channels=3, categories=2, channel_max=8)
    generator = Generator(shape)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    return generator, GeneratorEMA(generator, OptimizerConfig.model_validate(settings))


def test_each_average_moves_by_its_own_half_life() -> None:
    """After 800 images those of half-lives 400, 800 and 1600 are 3/4, 1/2 and 0.29 of the way."""
    generator, ema = averages(ema_kimg=0.8, ema_rampup=1, ema_lengths=(0.5, 1, 2))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(1)
    for _ in range(100):
        ema.update(nimg=1000, batch_size=8)
    for average, moved in zip(ema.generators, (0.75, 0.5, 1 - 0.5**0.5), strict=True):
        for parameter in average.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, moved))


@pytest.mark.parametrize(("nimg", "half_life"), [(100_000, 2000), (1000, 50), (0, 1.6)])
def test_half_of_the_average_is_younger_than_its_half_life(nimg: int, half_life: float) -> None:
    decay = ema_decay(nimg, batch_size=32, ema_kimg=2.0, rampup=0.05)
    assert decay ** (half_life / 32) == pytest.approx(0.5)


def test_the_lowest_distance_of_the_last_three_measurements_chooses() -> None:
    _, ema = averages(ema_lengths=(0.3, 1, 3))
    assert ema.generator is ema.generators[1]
    chosen = []
    for distances in ([1, 2, 2], [3, 2, 2.1], [3, 3, 1.8], [3, 3, 3], [0.0, 1, 1]):
        ema.choose([float(distance) for distance in distances])
        chosen.append(ema.length)
    assert chosen == [0.3, 0.3, 3, 3, 3]
    ema.choose([0.0, 2.0, 2.0])
    assert ema.generator is ema.generators[0]


def fill(ema: GeneratorEMA, values: tuple[float, ...]) -> None:
    with torch.no_grad():
        for average, value in zip(ema.generators, values, strict=True):
            for parameter in average.parameters():
                parameter.fill_(value)


def constants(ema: GeneratorEMA) -> list[float]:
    return [float(average.synthesis.constant.mean()) for average in ema.generators]


def test_a_resumed_run_has_the_same_averages_and_choice() -> None:
    _, ema = averages()
    fill(ema, (1, 2, 3))
    ema.choose([2.0, 2.0, 1.0])
    _, resumed = averages()
    resumed.load_state_dict(ema.state_dict())
    assert constants(resumed) == [1, 2, 3]
    assert resumed.generator is resumed.generators[2]
    for each in (ema, resumed):  # 2.0, 2.25 and 2.5: they remember the one before
        each.choose([2.0, 2.5, 4.0])
    assert resumed.length == ema.length == 0.3


def test_other_lengths_start_from_what_was_the_one_to_use() -> None:
    _, ema = averages()
    fill(ema, (1, 2, 3))
    ema.choose([2.0, 2.0, 1.0])
    _, fewer = averages(ema_lengths=(0.3, 2))
    fewer.load_state_dict(ema.state_dict())
    assert constants(fewer) == [1, 3]
    assert fewer.length == 2
    _, several = averages()
    several.load_state_dict(only_average(ema.generators[1].state_dict()))
    assert constants(several) == [2, 2, 2]
