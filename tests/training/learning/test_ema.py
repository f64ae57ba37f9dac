"""The average of a generator moves towards it by as much as its half-life says."""

import pytest
import torch

from models.generator import Generator, GeneratorShape
from training.learning.ema import GeneratorEMA, ema_decay


def test_each_update_moves_the_average_by_its_share() -> None:
    shape = GeneratorShape(height=8, width=8, channels=3, categories=2, channel_max=8)
    generator = Generator(shape)
    ema = GeneratorEMA(generator)
    before = [p.clone() for p in ema.generator.parameters()]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 1
    for moved in (0.25, 0.4375):
        ema.update(0.75)
        for average, start in zip(ema.generator.parameters(), before, strict=True):
            torch.testing.assert_close(average, start + moved)


@pytest.mark.parametrize(("nimg", "half_life"), [(100_000, 2000), (1000, 50), (0, 1.6)])
def test_half_of_the_average_is_younger_than_its_half_life(nimg: int, half_life: float) -> None:
    decay = ema_decay(nimg, batch_size=32, ema_kimg=2.0, rampup=0.05)
    assert decay ** (half_life / 32) == pytest.approx(0.5)
