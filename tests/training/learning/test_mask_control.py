"""The method itself: who lags, what is held and for how long."""

import copy

import pytest
import torch

from models.discriminator import ConvolutionalDiscriminator, Discriminator, DiscriminatorShape
from models.generator import Generator, GeneratorShape
from training.learning import mask_control
from training.learning.config import MaskingConfig
from training.learning.mask_control import (
    LagDetector,
    MaskController,
    MaskEvent,
    linear_cka,
    mean_cosine,
)

SIZES = {"height": 16, "width": 16, "channels": 3, "categories": 2}
NARROW = {"channel_base": 128, "channel_max": 16}
FP32 = torch.float32


@pytest.fixture
def pair() -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    generator = Generator(GeneratorShape(**SIZES, **NARROW, z_dim=16, w_dim=16))
    return generator, ConvolutionalDiscriminator(DiscriminatorShape(**SIZES, **NARROW))


def nudge(module: torch.nn.Module, amount: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += (
                amount * torch.randn_like(parameter) * (parameter.std(unbiased=False) + 1e-3)
            )


def follow(generator: Generator, discriminator: Discriminator) -> None:
    """Adapt quickly: learn something new about the present fakes."""
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    z, noise = torch.randn(16, 16), torch.randn(16, generator.noise_dim)
    category = torch.eye(2)[torch.arange(16) % 2]
    fakes = generator(z, category, None, noise).detach()
    target = torch.randn(16)
    for _ in range(8):
        loss = (discriminator(fakes, category) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_cka_is_one_up_to_rotation_and_scale_and_low_for_strangers() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 8)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0, abs=1e-9)
    assert linear_cka(x, torch.randn(200, 8)) < 0.2


def test_mean_cosine_is_one_for_the_same_and_near_zero_for_strangers() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 64) + 7
    assert mean_cosine(2 * x, 2 * x) == pytest.approx(1.0, abs=1e-9)
    assert abs(mean_cosine(torch.randn(200, 64), torch.randn(200, 64))) < 0.1


@pytest.mark.parametrize("measure", ["cka", "cosine", "cka_discriminator"])
def test_a_frozen_discriminator_under_a_moving_generator_lags(
    pair: tuple[Generator, Discriminator], measure: str
) -> None:
    generator, discriminator = pair
    detector = LagDetector(MaskingConfig(probes=32, lag_measure=measure), seed=0)
    found = []
    for k in range(6):
        found.append(detector.measure(generator, discriminator, k, FP32))
        nudge(generator, 0.2)
    assert found[0] is None  # nothing to compare with yet
    assert all(m is not None and m.lagging and m.generator_change > 0.01 for m in found[1:])


def test_a_quickly_adapting_discriminator_does_not_lag(
    pair: tuple[Generator, Discriminator],
) -> None:
    generator, discriminator = pair
    # What it learns is random, and so is how far it moves: by a factor of 40 here.
    config = MaskingConfig(probes=32, threshold=0.01, floor=0.0)
    detector = LagDetector(config, seed=0)
    detector.measure(generator, discriminator, 0, FP32)
    found = []
    for k in range(1, 9):
        nudge(generator, 0.2)
        follow(generator, discriminator)
        found.append(detector.measure(generator, discriminator, k, FP32))
    assert not any(m is None or m.lagging for m in found)
    nudge(generator, 0.2)  # and then it stops following
    stopped = detector.measure(generator, discriminator, 9, FP32)
    assert stopped is not None
    assert stopped.lagging


def test_a_generator_at_rest_leaves_nothing_to_lag_behind(
    pair: tuple[Generator, Discriminator],
) -> None:
    detector = LagDetector(MaskingConfig(probes=32), seed=0)
    detector.measure(*pair, 0, FP32)
    still = detector.measure(*pair, 1, FP32)
    assert still is not None
    assert not still.lagging


def run(
    controller: MaskController,
    pair: tuple[Generator, Discriminator],
    nimgs: range,
    move: bool = True,
) -> dict[int, torch.Tensor | None]:
    """The held mask at each image count."""
    held = {}
    for nimg in nimgs:
        controller.update(*pair, nimg, FP32)
        mask = pair[1].mask.held
        held[nimg] = None if mask is None else mask.clone()
        if move:
            nudge(pair[0], 0.05)
    return held


def test_off_never_masks(pair: tuple[Generator, Discriminator]) -> None:
    held = run(MaskController(MaskingConfig(mode="off"), 0), pair, range(0, 10_000, 500), False)
    assert set(held.values()) == {None}


def test_static_is_one_mask_for_ever(pair: tuple[Generator, Discriminator]) -> None:
    held = run(MaskController(MaskingConfig(mode="static"), 0), pair, range(0, 5000, 500), False)
    masks = [m for m in held.values() if m is not None]
    assert len(masks) == len(held)
    assert all(torch.equal(m, masks[0]) for m in masks)


def test_random_is_another_mask_each_step(pair: tuple[Generator, Discriminator]) -> None:
    held = run(MaskController(MaskingConfig(mode="random"), 0), pair, range(0, 5000, 500), False)
    masks = [m for m in held.values() if m is not None]
    assert len({m.numpy().tobytes() for m in masks}) == len(held)


def test_periodic_alternates_by_the_clock_with_a_new_mask_each_time(
    pair: tuple[Generator, Discriminator],
) -> None:
    config = MaskingConfig(mode="periodic", period_kimg=1.0)
    held = run(MaskController(config, 0), pair, range(0, 4000, 250), False)
    for nimg, mask in held.items():
        assert (mask is None) == ((nimg // 1000) % 2 == 0), nimg
    assert torch.equal(held[1000], held[1750])
    assert not torch.equal(held[1000], held[3000])


def test_dynamic_holds_one_mask_bit_by_bit_through_its_period(
    pair: tuple[Generator, Discriminator],
) -> None:
    """The discriminator stays frozen, so that the first measurement finds lag."""
    config = MaskingConfig(mode="dynamic", interval_kimg=1.0, period_kimg=2.0, probes=16)
    held = run(MaskController(config, 0), pair, range(0, 3500, 250))
    assert all(held[n] is None for n in range(0, 1000, 250))
    first = held[1000]
    assert first is not None
    for nimg in range(1000, 3000, 250):
        assert torch.equal(held[nimg], first)
    assert not torch.equal(held[3000], first)  # lifted, measured and drawn anew


def test_dynamic_lifts_what_another_mode_left(pair: tuple[Generator, Discriminator]) -> None:
    """As after a resume; without lag it would else be held for ever."""
    run(MaskController(MaskingConfig(mode="static"), 0), pair, range(1), False)
    config = MaskingConfig(mode="dynamic", interval_kimg=1.0, threshold=0.0, floor=0.0, probes=16)
    assert set(run(MaskController(config, 0), pair, range(0, 3000, 500)).values()) == {None}


def test_a_measurement_in_parts_is_as_one_of_all(
    pair: tuple[Generator, Discriminator], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    for size in (64, 5):
        torch.manual_seed(1)
        monkeypatch.setattr(mask_control, "PROBE_BATCH", size)
        detector = LagDetector(MaskingConfig(probes=16), 0)
        generator, discriminator = map(copy.deepcopy, pair)
        assert detector.measure(generator, discriminator, 0, FP32) is None
        nudge(generator, 0.05)
        follow(generator, discriminator)
        measured.append(detector.measure(generator, discriminator, 8, FP32))
    assert measured[0] is not None
    assert measured[1] is not None
    assert measured[0].adaptation == pytest.approx(measured[1].adaptation, rel=1e-4)


def test_dynamic_without_lag_stays_unmasked(pair: tuple[Generator, Discriminator]) -> None:
    config = MaskingConfig(mode="dynamic", interval_kimg=1.0, threshold=0.0, floor=0.0, probes=16)
    held = run(MaskController(config, 0), pair, range(0, 6000, 500))
    assert set(held.values()) == {None}


def test_a_resumed_controller_goes_on_as_the_uninterrupted_one(
    pair: tuple[Generator, Discriminator],
) -> None:
    config = MaskingConfig(mode="dynamic", interval_kimg=1.0, period_kimg=1.5, probes=16)
    controller = MaskController(config, 3)
    torch.manual_seed(1)
    run(controller, pair, range(0, 2000, 250))
    state = copy.deepcopy(controller.state_dict(pair[1]))
    twin = copy.deepcopy(pair)
    twin[1].mask.hold(None)
    torch.manual_seed(2)
    uninterrupted = run(controller, pair, range(2000, 8000, 250))
    resumed_controller = MaskController(config, 3)
    resumed_controller.load_state_dict(state, *twin)
    torch.manual_seed(2)
    resumed = run(resumed_controller, twin, range(2000, 8000, 250))
    for nimg, mask in uninterrupted.items():
        other = resumed[nimg]
        assert (mask is None) == (other is None)
        assert mask is None or torch.equal(mask, other)
    assert resumed_controller.detector.history == controller.detector.history


def test_events_tell_measure_mask_and_unmask_with_their_image_count(
    pair: tuple[Generator, Discriminator],
) -> None:
    config = MaskingConfig(mode="dynamic", interval_kimg=1.0, period_kimg=1.0, probes=16)
    controller = MaskController(config, 0)
    events: list[MaskEvent] = []
    for nimg in range(0, 3000, 500):
        events += controller.update(*pair, nimg, FP32)
        nudge(pair[0], 0.05)
    kinds = [(e.kind, e.nimg) for e in events]
    assert kinds[:4] == [("measure", 1000), ("mask", 1000), ("unmask", 2000), ("measure", 2000)]
    assert events[0].values["lagging"] == 1.0
