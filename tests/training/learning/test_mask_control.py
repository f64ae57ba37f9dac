"""The method itself: who lags, what is held and for how long."""

import copy

import pytest
import torch
from torch.nn import functional as F

from models.discriminator import ConvolutionalDiscriminator, Discriminator, DiscriminatorShape
from models.generator import Generator, GeneratorShape
from models.projected import CombinedDiscriminator, ProjectedDiscriminator, ProjectedShape
from training.features.feature_maps import LiteFeatureMaps
from training.learning import lag
from training.learning.config import MaskingConfig
from training.learning.lag import LagMeter
from training.learning.mask_control import MaskController, MaskEvent

SIZES = {"height": 16, "width": 16, "channels": 3, "categories": 2}
NARROW = {"channel_base": 128, "channel_max": 16}
FP32 = torch.float32
FIRST = MaskingConfig().lag_baseline
Pair = tuple[Generator, Discriminator]


@pytest.fixture
def pair() -> Pair:
    torch.manual_seed(0)
    generator = Generator(GeneratorShape(**SIZES, **NARROW, z_dim=16, w_dim=16))
    return generator, ConvolutionalDiscriminator(DiscriminatorShape(**SIZES, **NARROW))


@pytest.fixture
def both(pair: Pair) -> Pair:
    generator, convolutional = pair
    shape = ProjectedShape(height=16, width=16, categories=2)
    heads = ProjectedDiscriminator(shape, LiteFeatureMaps())
    return generator, CombinedDiscriminator(convolutional, heads)


def climb(pair: Pair, steps: int) -> None:
    """Train the generator against a discriminator that stands still."""
    generator, discriminator = pair
    optimizer = torch.optim.Adam(generator.parameters(), 2e-3, (0.0, 0.99))
    category = torch.eye(2)[torch.arange(16) % 2]
    for _ in range(steps):
        z, noise = torch.randn(16, 16), torch.randn(16, generator.noise_dim)
        fakes = generator(z, category, None, noise)
        optimizer.zero_grad()
        F.softplus(-discriminator(fakes, category)).mean().backward()
        optimizer.step()


def test_a_discriminator_that_stands_still_lags_behind_a_generator_that_climbs_it(
    pair: Pair,
) -> None:
    """By the default threshold, of first measurements in which nothing moved."""
    torch.manual_seed(1)
    meter = LagMeter(MaskingConfig(), 0)
    at_rest = [meter.measure(*pair, 1000 * kimg, FP32) for kimg in range(FIRST + 2)]
    assert not any(one is not None and one.lag > 0.01 for one in at_rest)
    for kimg in range(FIRST + 2, FIRST + 10):
        climb(pair, 4)
        one = meter.measure(*pair, 1000 * kimg, FP32)
        assert one is not None
        assert one.lagging
        assert one.lag > 0.5  # what is kept stays the same, so lag adds up


def test_the_threshold_is_not_moved_by_one_strange_first_measurement() -> None:
    meter = LagMeter(MaskingConfig(lag_deviations=2.0, lag_baseline=5), 0)
    thresholds = []
    for strange in (0.4, 400.0):
        meter.first = [0.0, 0.1, 0.2, 0.3, strange]
        thresholds.append(meter._threshold())
    assert thresholds[0] == thresholds[1] == pytest.approx(0.2 + 2 * 1.4826 * 0.1)


def test_a_generator_at_rest_leaves_nothing_to_lag_behind(pair: Pair) -> None:
    meter = LagMeter(MaskingConfig(), 0)
    for nimg in range(0, 1000 * (FIRST + 4), 1000):
        one = meter.measure(*pair, nimg, FP32)
        # What is kept was rounded to 256 levels.
        assert one is None or abs(one.lag) < 0.01


def test_latents_are_fresh_wherever_the_reference_moves(pair: Pair) -> None:
    meter = LagMeter(MaskingConfig(), 0)
    kept = []
    for nimg in (0, 1000, 2000):
        meter.measure(*pair, nimg, FP32)
        assert meter.kept is not None
        kept.append(meter.kept)
    assert not torch.equal(kept[0], kept[1])
    meter.first = [-9.0] * (FIRST - 1) + [-9.1]  # so that what comes is lag
    last = meter.measure(*pair, 3000, FP32)
    assert last is not None
    assert last.lagging
    assert meter.kept is kept[2]


def test_a_measurement_in_parts_is_as_one_of_all(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (64, 8):
        monkeypatch.setattr(lag, "PROBE_BATCH", size)
        generator, discriminator = map(copy.deepcopy, pair)
        meter = LagMeter(MaskingConfig(probes=16), 0)
        meter.measure(generator, discriminator, 0, FP32)
        torch.manual_seed(1)
        nudge(generator, 0.2)
        found.append(meter.measure(generator, discriminator, 1000, FP32))
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].lag == pytest.approx(found[1].lag, rel=1e-3)


def test_lag_is_measured_without_the_mask(both: Pair) -> None:
    generator, discriminator = both
    meter = LagMeter(MaskingConfig(), 0)
    meter.measure(generator, discriminator, 0, FP32)
    nudge(generator, 0.2)
    twin = copy.deepcopy(meter)
    plain = meter.measure(generator, discriminator, 1000, FP32)
    for mask in discriminator.masks:
        mask.held = torch.zeros(1, *mask.shape)
    assert twin.measure(generator, discriminator, 1000, FP32) == plain
    assert all(mask.held is not None for mask in discriminator.masks)


def nudge(module: torch.nn.Module, amount: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += (
                amount * torch.randn_like(parameter) * (parameter.std(unbiased=False) + 1e-3)
            )


# Any change is lag; it has no first measurements to wait for.
AT_ONCE = {"interval_kimg": 1.0, "lag_deviations": 0.0, "probes": 16}


def at_once(controller: MaskController, threshold: float) -> MaskController:
    controller.lag.first = [threshold] * FIRST
    return controller


Masks = list[torch.Tensor | None]


def run(controller: MaskController, pair: Pair, nimgs: range) -> dict[int, Masks]:
    """The held masks at each image count, while the generator moves."""
    held = {}
    for nimg in nimgs:
        controller.update(*pair, nimg, FP32)
        held[nimg] = [None if m.held is None else m.held.clone() for m in pair[1].masks]
        nudge(pair[0], 0.05)
    return held


def are_equal(some: Masks, others: Masks) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_off_and_observe_never_mask(both: Pair, mode: str) -> None:
    controller = at_once(MaskController(MaskingConfig(mode=mode, **AT_ONCE), 0), -9.0)
    events: list[MaskEvent] = []
    for nimg in range(0, 6000, 500):
        events += controller.update(*both, nimg, FP32)
        assert all(mask.held is None for mask in both[1].masks)
    assert [event.kind for event in events] == ["measure"] * (5 if mode == "observe" else 0)
    assert all(event.values["lagging"] for event in events)


def test_periodic_alternates_by_the_clock_with_new_masks_each_time(both: Pair) -> None:
    config = MaskingConfig(mode="periodic", period_kimg=1.0)
    held = run(MaskController(config, 0), both, range(0, 4000, 250))
    for nimg, masks in held.items():
        assert all((mask is None) == ((nimg // 1000) % 2 == 0) for mask in masks), nimg
    assert are_equal(held[1000], held[1750])
    assert not are_equal(held[1000], held[3000])


def test_scheduled_holds_masks_from_the_named_moments_on(both: Pair) -> None:
    config = MaskingConfig(mode="scheduled", schedule_kimg=(1, 2.5, 3), period_kimg=1.0)
    held = run(MaskController(config, 0), both, range(0, 5000, 250))
    masked = [nimg for nimg, masks in held.items() if masks[0] is not None]
    assert masked == [*range(1000, 2000, 250), *range(2500, 4000, 250)]
    assert are_equal(held[2500], held[2750])
    assert not are_equal(held[2750], held[3000])  # another begins before it ended


def test_both_discriminators_are_masked_each_by_its_own(both: Pair) -> None:
    config = MaskingConfig(mode="scheduled", schedule_kimg=(0,), ratio=0.25)
    MaskController(config, 0).update(*both, 0, FP32)
    assert isinstance(both[1], CombinedDiscriminator)
    own, heads = (part.mask.held for part in (both[1].convolutional, both[1].projected))
    assert own is not None
    assert heads is not None
    assert own.shape != heads.shape
    for mask in (own, heads):
        assert (mask == 0).float().mean() == pytest.approx(0.25, abs=0.01)


def test_dynamic_holds_one_mask_bit_by_bit_through_its_period(pair: Pair) -> None:
    config = MaskingConfig(mode="dynamic", period_kimg=2.0, **AT_ONCE)
    held = run(at_once(MaskController(config, 0), -9.0), pair, range(0, 3500, 250))
    assert all(held[n] == [None] for n in range(0, 1000, 250))
    assert held[1000] != [None]
    for nimg in range(1000, 3000, 250):
        assert are_equal(held[nimg], held[1000])
    assert not are_equal(held[3000], held[1000])  # lifted, measured, and another drawn


def test_dynamic_without_lag_stays_unmasked(pair: Pair) -> None:
    config = MaskingConfig(mode="dynamic", **AT_ONCE)
    held = run(at_once(MaskController(config, 0), 9.0), pair, range(0, 6000, 500))
    assert all(masks == [None] for masks in held.values())


def test_dynamic_lifts_what_another_mode_left(pair: Pair) -> None:
    """As after a resume."""
    scheduled = MaskingConfig(mode="scheduled", schedule_kimg=(0,), period_kimg=99)
    controller = MaskController(scheduled, 0)
    assert run(controller, pair, range(1))[0] != [None]
    resumed = at_once(MaskController(MaskingConfig(mode="dynamic", **AT_ONCE), 0), 9.0)
    resumed.load_state_dict({**controller.state_dict(), "next_measure": 0}, pair[1])
    resumed.lag.first = [9.0] * FIRST
    held = run(resumed, pair, range(0, 4000, 500))
    assert held[0] != [None]  # it ends with its period
    assert all(held[nimg] == [None] for nimg in range(2000, 4000, 500))


@pytest.mark.parametrize("stop", [750, 1500, 9250])
def test_a_resumed_controller_goes_on_as_the_uninterrupted_one(both: Pair, stop: int) -> None:
    config = MaskingConfig(
        mode="dynamic", interval_kimg=0.5, period_kimg=0.75, probes=16, lag_deviations=0.5
    )
    controller = MaskController(config, 3)
    torch.manual_seed(1)
    run(controller, both, range(0, stop, 250))
    state = copy.deepcopy(controller.state_dict())
    twin = copy.deepcopy(both)
    for mask in twin[1].masks:
        mask.held = None
    torch.manual_seed(2)
    uninterrupted = run(controller, both, range(stop, 12_000, 250))
    assert any(masks[0] is not None for masks in uninterrupted.values())
    resumed_controller = MaskController(config, 3)
    resumed_controller.load_state_dict(state, twin[1])
    torch.manual_seed(2)
    resumed = run(resumed_controller, twin, range(stop, 12_000, 250))
    assert all(are_equal(masks, resumed[nimg]) for nimg, masks in uninterrupted.items())
    assert resumed_controller.lag.first == controller.lag.first


def test_the_mask_of_a_run_of_before_is_lifted(pair: Pair) -> None:
    """Commit 5acf454 kept the mask itself, and measured another lag."""
    old = {"held": torch.ones(1, 1, 8, 8), "masked_until": 3000, "next_measure": 2000}
    pair[1].masks[0].held = old["held"]
    controller = MaskController(MaskingConfig(), 0)
    controller.load_state_dict(old, pair[1])
    assert pair[1].masks[0].held is None
    assert not controller.is_masking
    assert controller.next_measure == 2000


def test_events_tell_measure_mask_and_unmask_with_their_image_count(pair: Pair) -> None:
    config = MaskingConfig(mode="dynamic", period_kimg=1.0, **AT_ONCE)
    controller = at_once(MaskController(config, 0), -9.0)
    events: list[MaskEvent] = []
    for nimg in range(0, 3000, 500):
        events += controller.update(*pair, nimg, FP32)
    kinds = [(e.kind, e.nimg) for e in events]
    assert kinds[:2] == [("measure", 1000), ("mask", 1000)]
    assert kinds[2:5] == [("measure", 2000), ("unmask", 2000), ("mask", 2000)]
    assert events[0].values["lagging"] == 1.0
    assert events[0].values["threshold"] == -9.0
